//! What a scan and a registration cost: `scripts/bench detect`.
//!
//! A test that is not run with the others, so that nothing internal is opened for it. Words that follow
//! the script's name choose parts: `scans`, `memory`, `growth`, `values`, and numbers of values, `1e5`; `alone` leaves the automata
//! out, which take long to build; `spin` scans one set
//! of bodies for ten seconds, for a profiler. Times are CPU times of the thread: what else the machine does
//! counts only as far as it takes caches away.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::classify::{Level, force};
use super::index::Lane;
use super::*;
use crate::key::{Keys, Origin};
use crate::tracked::Value;
use crate::vocabulary::canonical::canonical;

/// Rounds of which the quickest counts, and how long one of a contender takes at least.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(5);
/// Bodies of a set: scanned in turns, so that none of them is near the processor because of the last scan.
const BODIES: usize = 24;

/// The CPU time of this thread.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0);
    pages * 4096
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, most: usize) -> usize {
        (self.roll() % most as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// A name as there could be one: two to four syllables.
    fn name(&mut self) -> String {
        let begin = [
            "A", "Be", "Ca", "Da", "E", "Fe", "Gra", "Ha", "I", "Jo", "Ka", "Le", "Ma", "Ni", "O", "Pe", "Ro", "Sa",
            "Ti", "U", "Va", "We", "Yo", "Zo", "Bri", "Chri", "Sto", "Tru", "Fra", "Klei",
        ];
        let middle = [
            "la", "ne", "ri", "mo", "ba", "der", "gi", "ko", "lin", "ma", "no", "ra", "se", "ti", "va", "wi",
        ];
        let end = [
            "n", "s", "th", "rt", "ller", "son", "cker", "nd", "gue", "x", "dez", "berg",
        ];
        let mut name = self.one(&begin).to_owned();
        (0..1 + self.below(3)).for_each(|_| name.push_str(self.one(&middle)));
        name + self.one(&end)
    }

    fn email(&mut self) -> String {
        let domains = [
            "example.com",
            "mail.example",
            "example.org",
            "post.example.net",
            "gmail.example",
        ];
        let domain = self.one(&domains);
        let (first, last) = (self.name().to_lowercase(), self.name().to_lowercase());
        match self.below(3) {
            0 => format!("{first}.{last}@{domain}"),
            1 => format!("{first}{}@{domain}", self.below(100)),
            _ => format!("{}{last}{}@{domain}", &first[..1], self.below(1000)),
        }
    }

    fn phone(&mut self) -> String {
        let (area, number) = (200 + self.below(800), self.below(10_000_000));
        format!("+1 {area} {:03} {:04}", number / 10_000, number % 10_000)
    }

    fn date(&mut self) -> String {
        let (year, month, day) = (1930 + self.below(80), 1 + self.below(12), 1 + self.below(28));
        format!("{year}-{month:02}-{day:02}")
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits)
            .map(|_| char::from(b"0123456789abcdef"[self.below(16)]))
            .collect()
    }
}

/// The n-th value of a population: of eight, two each are addresses and names, one each a phone, a street, a birth date or an
/// income, a customer's number or an id of a session.
fn value(n: usize) -> (Kind, String) {
    let mut dice = Dice(n as u64 * 2);
    dice.roll();
    match n % 8 {
        0 | 4 => (Kind::Email, dice.email()),
        1 | 5 => (Kind::Text, format!("{} {}", dice.name(), dice.name())),
        2 => (Kind::Phone, dice.phone()),
        3 => (Kind::Text, format!("{} {} Street", 1 + dice.below(300), dice.name())),
        6 if n % 16 == 6 => (Kind::Date, dice.date()),
        6 => (
            Kind::Number,
            format!("{}.{:02}", 10_000 + dice.below(90_000), dice.below(100)),
        ),
        _ if n % 16 == 7 => (Kind::Id, format!("C-{:08}", dice.below(100_000_000))),
        _ => (Kind::Id, dice.hex(24)),
    }
}

fn fingerprint(n: usize) -> Fingerprint {
    let mut fingerprint = [0; 32];
    fingerprint[..8].copy_from_slice(&n.to_le_bytes());
    Fingerprint(fingerprint)
}

fn entry(detector: &Detector, n: usize) -> Entry {
    let (kind, value) = value(n);
    detector.entry(kind, &canonical(kind, Value::Text(&value)).unwrap())
}

/// A detector of the first values of the population that are `wanted`.
fn knows(count: usize, wanted: impl Fn(Kind) -> bool) -> Detector {
    let detector = Detector::new(&[7; 32]);
    for n in (0..).filter(|n| wanted(value(*n).0)).take(count) {
        detector.insert(&entry(&detector, n), fingerprint(n));
    }
    detector
}

/// A set of bodies of one sort, some 1 to 10 KB long; each has one of the first thousand values.
struct Bodies {
    name: &'static str,
    media: Media,
    texts: Vec<String>,
}

fn bodies() -> Vec<Bodies> {
    let set = |name, media, make: fn(&mut Dice, usize, &str) -> String| {
        let mut dice = Dice(0x5eed);
        let texts = (0..BODIES).map(|n| {
            let length = 1000 + dice.below(9000);
            make(&mut dice, length, &value(n * 40).1)
        });
        Bodies {
            name,
            media,
            texts: texts.collect(),
        }
    };
    vec![
        set("JSON", Media::Json, |dice, length, known| match dice.below(3) {
            0 => order(dice, length, known),
            1 => people(dice, length, known),
            _ => log(dice, length, known),
        }),
        set("prose", Media::Text, prose),
        set("CSV", Media::Text, csv),
        set("form", Media::Form, form),
        set("flood", Media::Json, flood),
    ]
}

fn order(dice: &mut Dice, length: usize, known: &str) -> String {
    let mut text = format!(r#"{{"customer":{{"email":"{known}","plan":"Family"}},"items":["#);
    while text.len() < length {
        write!(
            text,
            r#"{{"sku":"KB-{:05}","title":"Mechanical keyboard, {}","quantity":{},"unit_price":{}.{:02},"currency":"EUR","in_stock":true,"updated_at":"2024-{:02}-{:02}T10:{:02}:07Z","image":"/static/img/products/{}/large.jpg"}},"#,
            dice.below(100_000),
            dice.one(&["tenkeyless", "full size", "sixty percent", "split"]),
            1 + dice.below(9),
            80 + dice.below(900),
            dice.below(100),
            1 + dice.below(12),
            1 + dice.below(28),
            dice.below(60),
            dice.below(5000),
        )
        .unwrap();
    }
    text.pop();
    text + "]}"
}

/// People, all but one of whom nobody registered.
fn people(dice: &mut Dice, length: usize, known: &str) -> String {
    let mut text = format!(r#"{{"page":1,"contact":"{known}","results":["#);
    while text.len() < length {
        write!(
            text,
            r#"{{"id":{},"name":"{} {}","email":"{}","role":"{}","active":{},"tags":["{}","beta"],"notes":null,"score":0.{}}},"#,
            dice.below(1_000_000),
            dice.name(),
            dice.name(),
            dice.email(),
            dice.one(&["admin", "viewer", "editor"]),
            dice.below(2) == 0,
            dice.one(&["newsletter", "trial", "vip"]),
            dice.below(1000),
        )
        .unwrap();
    }
    text.pop();
    text + "]}"
}

/// What is nearly registered, everywhere: all but the last letter or digit is that of one of the first thousand.
fn flood(dice: &mut Dice, length: usize, known: &str) -> String {
    let mut text = format!(r#"{{"contact":"{known}","results":["#);
    while text.len() < length {
        let (_, mut near) = value(dice.below(1000));
        let last = near.pop();
        near.push(if last == Some('x') { 'y' } else { 'x' });
        write!(text, r#""{near}","#).unwrap();
    }
    text.pop();
    text + "]}"
}

fn log(dice: &mut Dice, length: usize, known: &str) -> String {
    let mut text = format!(r#"{{"user":"{known}","events":["#);
    while text.len() < length {
        write!(
            text,
            r#"{{"trace_id":"{}","level":"info","service":"checkout","message":"request finished with status {}","duration_ms":{},"time":{},"host":"web-{}.eu-west-1"}},"#,
            dice.hex(32),
            dice.one(&["200", "404", "302"]),
            dice.below(900),
            1_700_000_000 + dice.below(30_000_000),
            dice.below(40),
        )
        .unwrap();
    }
    text.pop();
    text + "]}"
}

fn prose(dice: &mut Dice, length: usize, known: &str) -> String {
    let words = "the of and to in a is that for it as was with be by on not he this are or his from at which but have an \
        had they you were their one all we can her has there been if more when will would who so no said what about \
        household spent groceries month before travel rent largest item goal saving garden within reach nothing unusual \
        happens until autumn suggest small changes encouraging avoid jargon budget friendly review account market people \
        water found number part time work between country another after same right different every while around thought";
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut text = format!("Write a friendly review for {known}.\n");
    while text.len() < length {
        let sentence = 5 + dice.below(14);
        for n in 0..sentence {
            // The first are met more often.
            let word = words[dice.below(words.len()) * dice.below(words.len()) / words.len()];
            match n {
                0 => {
                    text.push_str(&word[..1].to_uppercase());
                    text.push_str(&word[1..]);
                }
                _ => text.push_str(word),
            }
            text.push_str(match n {
                n if n + 1 == sentence => ".",
                n if n % 7 == 6 => ", ",
                _ => " ",
            });
        }
        text.push_str(if dice.below(6) == 0 { "\n" } else { " " });
    }
    text
}

fn csv(dice: &mut Dice, length: usize, known: &str) -> String {
    let mut text = format!("id,name,email,city,joined,total\n1,Ada,{known},London,2024-01-05,12.50\n");
    while text.len() < length {
        writeln!(
            text,
            "{},{} {},{},{},2024-{:02}-{:02},{}.{:02}",
            dice.below(1_000_000),
            dice.name(),
            dice.name(),
            dice.email(),
            dice.name(),
            1 + dice.below(12),
            1 + dice.below(28),
            dice.below(900),
            dice.below(100),
        )
        .unwrap();
    }
    text
}

fn form(dice: &mut Dice, length: usize, known: &str) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("email", known);
    let mut written = 0;
    while written < length / 4 {
        let whom = dice.one(&["Monday", "you", "them"]);
        let answer = prose(dice, 40, whom);
        form.append_pair(&format!("field_{written}"), &answer);
        written += answer.len();
    }
    form.finish()
}

fn scan(detector: &Detector, media: Media, body: &str) -> Scan {
    let part = Part {
        place: "body".to_owned(),
        bytes: body.as_bytes(),
        media,
    };
    detector.scan(&Message { parts: vec![part] }, Limits::default())
}

/// Who takes turns.
type Contender<'c> = (&'c str, Box<dyn FnMut(usize) -> usize + 'c>);

/// Nanoseconds that each takes for the set once, at best.
fn race(contenders: &mut [Contender<'_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, call), best) in contenders.iter_mut().zip(&mut best) {
            let (begin, mut sets) = (now(), 0);
            while now() - begin < ROUND {
                (0..BODIES).for_each(|body| {
                    black_box(call(body));
                });
                sets += 1;
            }
            *best = best.min((now() - begin).as_nanos() as f64 / f64::from(sets));
        }
    }
    best
}

/// Ours with all that it finds, in turns with automata that find the values as they are written, in any
/// case of ASCII, and with one pass of SHA-256. Speeds, and how many times theirs ours is.
fn scans(counts: &[usize], alone: bool) {
    println!("| scan | values | hits | MB/s | AVX2 | scalar | text alone | aho-corasick | daachorse | SHA-256 |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for count in counts {
        let detector = knows(*count, |_| true);
        let plain = knows(*count, |kind| matches!(kind, Kind::Text | Kind::Email));
        let automata = (*count <= 1_000_000 && !alone).then(|| {
            let values: BTreeSet<String> = (0..*count).map(|n| value(n).1.to_ascii_lowercase()).collect();
            let automaton = aho_corasick::AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(&values)
                .unwrap();
            (
                automaton,
                daachorse::DoubleArrayAhoCorasick::<u32>::new(&values).unwrap(),
            )
        });
        for Bodies { name, media, texts } in bodies() {
            let small: Vec<String> = texts.iter().map(|text| text.to_ascii_lowercase()).collect();
            let ours = |detector, level| {
                let texts = &texts;
                move |body: usize| {
                    force(level);
                    scan(detector, media, &texts[body]).hits.len()
                }
            };
            let mut contenders: Vec<Contender<'_>> = vec![
                ("ours", Box::new(ours(&detector, Level::Best))),
                ("AVX2", Box::new(ours(&detector, Level::Avx2))),
                ("scalar", Box::new(ours(&detector, Level::Scalar))),
                ("text", Box::new(ours(&plain, Level::Best))),
                (
                    "SHA-256",
                    Box::new(|body| usize::from(<sha2::Sha256 as sha2::Digest>::digest(texts[body].as_bytes())[0])),
                ),
            ];
            if let Some((automaton, double_array)) = &automata {
                let automaton = |body: usize| automaton.find_overlapping_iter(&texts[body]).count();
                contenders.push(("aho-corasick", Box::new(automaton)));
                let double_array = |body: usize| double_array.find_overlapping_iter(&small[body]).count();
                contenders.push(("daachorse", Box::new(double_array)));
            }
            let hits: usize = (0..BODIES).map(|body| contenders[0].1(body)).sum();
            let taken = race(&mut contenders);
            drop(contenders);
            force(Level::Best);
            let bytes: usize = texts.iter().map(String::len).sum();
            let speed = |ns: f64| bytes as f64 * 1000.0 / ns;
            let ratio = |place: usize| {
                taken
                    .get(place)
                    .map_or(String::from("-"), |ns| format!("{:.1}", ns / taken[0]))
            };
            println!(
                "| {name} | {count} | {hits} | {:.0} | {:.0} | {:.0} | {:.0} | {}x | {}x | {:.2}x |",
                speed(taken[0]),
                speed(taken[1]),
                speed(taken[2]),
                speed(taken[3]),
                ratio(5),
                ratio(6),
                taken[4] / taken[0],
            );
        }
        let header = [("header", "curl/8.5.0 (x86_64-pc-linux-gnu)")];
        for (name, text) in header {
            let mut ours: Vec<Contender<'_>> =
                vec![("ours", Box::new(|_| scan(&detector, Media::Text, text).hits.len()))];
            let ns = race(&mut ours)[0] / BODIES as f64;
            println!(
                "| {name}, {ns:.0} ns | {count} | | {:.0} | | | | | | |",
                text.len() as f64 * 1000.0 / ns
            );
        }
    }
    println!();
}

/// An entry as it would be without digests: what they take is told apart.
fn without_digests(entry: &Entry) -> Entry {
    let further = entry.further.iter().filter(|further| further.lane != Lane::Digest);
    Entry {
        further: further.copied().collect(),
        ..entry.clone()
    }
}

/// Nanoseconds that each of `count` insertions takes, at best of a few rounds; each begins with nothing.
fn filled<T>(count: usize, new: impl Fn() -> T, fill: impl Fn(&T)) -> usize {
    let rounds = (0..3).map(|_| {
        let table = new();
        let begin = now();
        fill(&table);
        (now() - begin).as_nanos() as usize / count
    });
    rounds.min().unwrap_or(0)
}

/// What the tables take, and what an insertion takes, one by one and all at once, beside insertions into a plain table: one
/// a value, and as many as the value has hashes. With digests and without.
fn memory(counts: &[usize]) {
    println!(
        "| values | digests | hashes a value | bytes a value | insert ns | all at once ns | DashMap, one ns | as many ns |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let new = || Detector::new(&[7; 32]);
    for count in counts {
        for digests in [false, true] {
            let detector = new();
            let entries = (0..*count).map(|n| entry(&detector, n));
            let entries: Vec<Entry> = entries
                .map(|entry| if digests { entry } else { without_digests(&entry) })
                .collect();
            let numbered = || {
                let entries = entries.iter().enumerate();
                entries.map(|(n, entry)| (entry, fingerprint(n)))
            };
            let before = resident();
            numbered().for_each(|(entry, fingerprint)| detector.insert(entry, fingerprint));
            let bytes = resident().saturating_sub(before) / count;
            drop(detector);
            let insert = filled(*count, new, |detector| {
                numbered().for_each(|(entry, fingerprint)| detector.insert(entry, fingerprint));
            });
            let at_once = filled(*count, new, |detector| detector.insert_all(numbered()));
            let plain = dashmap::DashMap::<u128, Fingerprint>::new;
            let one = filled(*count, plain, |plain| {
                numbered().for_each(|(entry, fingerprint)| {
                    plain.insert(entry.hash, fingerprint);
                });
            });
            let as_many = filled(*count, plain, |plain| {
                for (entry, fingerprint) in numbered() {
                    plain.insert(entry.hash, fingerprint);
                    for further in &entry.further {
                        plain.insert(further.hash, fingerprint);
                    }
                }
            });
            let hashes = entries.iter().map(|entry| 1 + entry.further.len()).sum::<usize>() as f64 / *count as f64;
            println!("| {count} | {digests} | {hashes:.2} | {bytes} | {insert} | {at_once} | {one} | {as_many} |");
        }
    }
    println!();
}

/// What scans pay for insertions that go on meanwhile.
fn growth(counts: &[usize]) {
    println!("| values | JSON idle ns | under inserts ns | inserts a second |");
    println!("|---|---|---|---|");
    for count in counts {
        let detector = knows(*count, |_| true);
        let sets = bodies();
        let json = &sets[0];
        let mut scans: [Contender<'_>; 1] = [(
            "scan",
            Box::new(|body: usize| scan(&detector, json.media, &json.texts[body]).hits.len()),
        )];
        let idle = race(&mut scans)[0] / BODIES as f64;
        let done = std::sync::atomic::AtomicBool::new(false);
        let (busy, inserted) = std::thread::scope(|scope| {
            let more: Vec<Entry> = (*count..count + 100_000).map(|n| entry(&detector, n)).collect();
            let (detector, done) = (&detector, &done);
            let writer = scope.spawn(move || {
                let (begin, mut inserted) = (Instant::now(), 0);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for (n, entry) in more.iter().enumerate().skip(inserted % more.len()).take(100) {
                        match inserted / more.len() % 2 {
                            0 => detector.insert(entry, fingerprint(count + n)),
                            _ => detector.remove(entry, fingerprint(count + n)),
                        }
                    }
                    inserted += 100;
                    let due = Duration::from_micros(inserted as u64 * 10);
                    std::thread::sleep(due.saturating_sub(begin.elapsed()));
                }
                inserted as f64 / begin.elapsed().as_secs_f64()
            });
            let busy = race(&mut scans)[0] / BODIES as f64;
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            (busy, writer.join().unwrap())
        });
        println!("| {count} | {idle:.0} | {busy:.0} | {inserted:.0} |");
    }
    println!();
}

/// What a value costs when it is met first.
fn values() {
    println!("| value | canonical ns | fingerprint ns | entry ns | insert and remove ns |");
    println!("|---|---|---|---|---|");
    let detector = knows(100_000, |_| true);
    let keys = Keys::from_master(&[7; 32], 1, Origin::Environment);
    for n in [0, 1, 2, 6, 14, 7, 15] {
        let (kind, text) = value(n + 1_600_000);
        let form = canonical(kind, Value::Text(&text)).unwrap();
        let entry = detector.entry(kind, &form);
        let mut contenders: Vec<Contender<'_>> = vec![
            (
                "canonical",
                Box::new(|_| canonical(kind, Value::Text(&text)).map_or(0, |form| form.len())),
            ),
            (
                "fingerprint",
                Box::new(|_| usize::from(keys.fingerprints.mac(&[form.as_bytes()])[0])),
            ),
            (
                "entry",
                Box::new(|_| detector.entry(kind, &form).to_bytes().len().min(1)),
            ),
            (
                "insert and remove",
                Box::new(|_| {
                    detector.insert(&entry, Fingerprint([1; 32]));
                    detector.remove(&entry, Fingerprint([1; 32]));
                    0
                }),
            ),
        ];
        let taken: Vec<String> = race(&mut contenders)
            .iter()
            .map(|ns| format!("{:.0}", ns / BODIES as f64))
            .collect();
        println!("| {} | {} |", kind.as_str(), taken.join(" | "));
    }
    println!();
}

/// One set for ten seconds.
fn spin(count: usize, name: &str) {
    let detector = knows(count, |_| true);
    let sets = bodies();
    let set = sets
        .iter()
        .find(|set| set.name.eq_ignore_ascii_case(name))
        .unwrap_or(&sets[0]);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        for text in &set.texts {
            black_box(scan(&detector, set.media, text));
        }
    }
}

#[test]
#[ignore = "a benchmark: scripts/bench detect"]
fn figures() {
    let words = std::env::var("PROVENANCE_BENCH").unwrap_or_default();
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut counts: Vec<usize> = words
        .iter()
        .filter_map(|word| word.parse::<f64>().ok())
        .map(|count| count as usize)
        .collect();
    if counts.is_empty() {
        counts = vec![1_000, 100_000, 1_000_000];
    }
    if words.contains(&"spin") {
        spin(counts[0], words.last().unwrap_or(&"JSON"));
        return;
    }
    let parts = ["scans", "memory", "growth", "values"];
    let asked = |part: &str| words.contains(&part) || !parts.iter().any(|part| words.contains(part));
    println!();
    if asked("scans") {
        scans(&counts, words.contains(&"alone"));
    }
    if asked("memory") {
        memory(&counts);
    }
    if asked("growth") {
        growth(&counts);
    }
    if asked("values") {
        values();
    }
}
