//! What a scan and a registration cost: `scripts/bench detect`.
//!
//! A test that is not run with the others, so that nothing internal is opened for it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::*;
use crate::key::{Keys, Origin};
use crate::tracked::Value;
use crate::vocabulary::canonical::canonical;

/// How long each figure is measured, and calls between two looks at the clock: so few that what
/// else the machine does stops most of them not once, and the median is of those.
const MEASURED: Duration = Duration::from_millis(600);
const CALLS: u128 = 8;

const FIRST: [&str; 12] = [
    "Ada", "Grace", "Alan", "Zoe", "Edsger", "Barbara", "Donald", "Radia", "Tim", "Frances", "Ken", "Jean",
];
const LAST: [&str; 10] = [
    "Lovelace", "Hopper", "Turing", "Miller", "Dijkstra", "Liskov", "Knuth", "Perlman", "Allen", "Bartik",
];

/// The n-th value of a population: some names and addresses, some numbers, dates, phones and ids.
fn value(n: usize) -> (Kind, String) {
    let (first, last) = (FIRST[n / 6 % 12], LAST[n / 72 % 10]);
    match n % 6 {
        0 => (Kind::Email, format!("{first}.{last}{n}@example.com")),
        1 if n % 12 == 1 => (Kind::Text, format!("q{n:x}")),
        1 => (Kind::Text, format!("{first} {last} {n}")),
        2 => (
            Kind::Phone,
            format!("+1 555 {:03} {:04}", n / 10_000 % 1000, n % 10_000),
        ),
        3 => (Kind::Number, format!("{}.{:02}", 1000 + n, n % 100)),
        4 => (
            Kind::Date,
            format!("{}-{:02}-{:02}", 1940 + n / 336 % 70, 1 + n / 28 % 12, 1 + n % 28),
        ),
        _ => (Kind::Id, format!("C-{n:07}")),
    }
}

fn knows(count: usize) -> Detector {
    let detector = Detector::new(&[7; 32]);
    for n in 0..count {
        let (kind, value) = value(n);
        let entry = detector.entry(kind, &canonical(kind, Value::Text(&value)).unwrap());
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&n.to_le_bytes());
        detector.insert(&entry, Fingerprint(fingerprint));
    }
    detector
}

/// An order: keys that repeat, identifiers, amounts, dates, a little text; one registered address.
fn json() -> String {
    let mut text = format!(r#"{{"customer":{{"email":"{}","plan":"Family"}},"items":["#, value(0).1);
    for n in 0.. {
        let item = format!(
            r#"{{"sku":"KB-{:05}","title":"Mechanical keyboard, tenkeyless","quantity":{},"unit_price":{}.{:02},"currency":"EUR","in_stock":true,"updated_at":"2024-{:02}-{:02}T10:15:{:02}Z","image":"/static/img/products/{n}/large.jpg"}},"#,
            n * 37 % 99_991,
            n % 7 + 1,
            80 + n * 13 % 900,
            n * 7 % 100,
            n % 12 + 1,
            n % 28 + 1,
            n % 60,
        );
        if text.len() + item.len() > 4096 {
            break;
        }
        text.push_str(&item);
    }
    text.pop();
    text + "]}"
}

fn prose() -> String {
    let mut text = format!("Write a friendly budget review for {}.\n", value(7).1);
    while text.len() < 3900 {
        text.push_str(
            "The household spent more on groceries than in the month before, but less on travel and eating out. \
             Rent stays the largest item; the goal of saving for a garden is within reach if nothing unusual \
             happens until autumn.\nSuggest two small changes, be encouraging, and avoid jargon. ",
        );
    }
    text
}

fn form() -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("email", &value(0).1);
    for n in 0..32 {
        form.append_pair(
            &format!("field_{n}"),
            "some words, and a plain answer that was typed in",
        );
    }
    let mut text = form.finish();
    text.truncate(2048);
    text
}

/// Nanoseconds of one call: the median.
fn measure(mut call: impl FnMut()) -> u128 {
    let begin = Instant::now();
    let mut taken = Vec::new();
    while begin.elapsed() < MEASURED {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        taken.push(start.elapsed().as_nanos() / CALLS);
    }
    taken.sort_unstable();
    taken[taken.len() / 2]
}

/// Ours with all that it finds, in turns with automata that find the values as they are written, in any
/// case of ASCII, and with one pass of SHA-256: a table of medians and ratios.
fn peers() -> String {
    let mut table = String::from(
        "| scan | values | ours ns | aho-corasick | daachorse | SHA-256 | ratios |\n|---|---|---|---|---|---|---|\n",
    );
    for count in [1_000, 100_000] {
        let detector = knows(count);
        let values: std::collections::BTreeSet<String> = (0..count).map(|n| value(n).1.to_ascii_lowercase()).collect();
        let automaton = aho_corasick::AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(&values)
            .unwrap();
        let double_array = daachorse::DoubleArrayAhoCorasick::<u32>::new(&values).unwrap();
        for (name, media, body) in [
            ("JSON", Media::Json, json()),
            ("prose", Media::Text, prose()),
            ("form", Media::Form, form()),
        ] {
            let small = body.to_ascii_lowercase();
            let mut calls: [Box<dyn FnMut() -> usize>; 4] = [
                Box::new(|| {
                    let part = Part {
                        place: "body".to_owned(),
                        bytes: body.as_bytes(),
                        media,
                    };
                    detector
                        .scan(&Message { parts: vec![part] }, Limits::default())
                        .hits
                        .len()
                }),
                Box::new(|| automaton.find_overlapping_iter(&body).count()),
                Box::new(|| double_array.find_overlapping_iter(&small).count()),
                Box::new(|| usize::from(<sha2::Sha256 as sha2::Digest>::digest(body.as_bytes())[0])),
            ];
            let mut taken = [const { Vec::new() }; 4];
            let begin = Instant::now();
            while begin.elapsed() < 2 * MEASURED {
                for (call, taken) in calls.iter_mut().zip(&mut taken) {
                    let start = Instant::now();
                    (0..CALLS).for_each(|_| {
                        black_box(call());
                    });
                    taken.push(start.elapsed().as_nanos() / CALLS);
                }
            }
            let [ours, automaton, double_array, digest] = taken.map(|mut taken| {
                taken.sort_unstable();
                taken[taken.len() / 2].max(1)
            });
            let ratio = |peer: u128| peer as f64 / ours as f64;
            writeln!(
                table,
                "| {name} | {count} | {ours} | {automaton} | {double_array} | {digest} | {:.1}, {:.1}, {:.2} |",
                ratio(automaton),
                ratio(double_array),
                ratio(digest)
            )
            .unwrap();
        }
    }
    table
}

#[test]
#[ignore = "a benchmark: scripts/bench detect"]
fn figures() {
    let mut table = String::from("| scan | values | bytes | hits | ns | MB/s |\n|---|---|---|---|---|---|\n");
    let bodies = [
        ("JSON", Media::Json, json()),
        ("prose", Media::Text, prose()),
        ("form", Media::Form, form()),
        ("header", Media::Text, "curl/8.5.0 (x86_64-pc-linux-gnu)".to_owned()),
    ];
    for count in [1_000, 100_000] {
        let detector = knows(count);
        for (name, media, body) in &bodies {
            let scan = || {
                let part = Part {
                    place: "body".to_owned(),
                    bytes: body.as_bytes(),
                    media: *media,
                };
                detector.scan(&Message { parts: vec![part] }, Limits::default())
            };
            let hits = scan().hits.len();
            let ns = measure(|| drop(black_box(scan())));
            let speed = body.len() as u128 * 1000 / ns.max(1);
            writeln!(table, "| {name} | {count} | {} | {hits} | {ns} | {speed} |", body.len()).unwrap();
        }
    }
    println!("\n{table}");

    println!("{}", peers());

    let mut table = String::from("| value | canonical ns | fingerprint ns | entry ns | insert and remove ns |\n");
    table.push_str("|---|---|---|---|---|\n");
    let detector = knows(100_000);
    let keys = Keys::from_master(&[7; 32], 1, Origin::Environment);
    for n in 6..12 {
        let (kind, text) = value(n + 600_000);
        let form = canonical(kind, Value::Text(&text)).unwrap();
        let entry = detector.entry(kind, &form);
        let [a, b, c, d] = [
            measure(|| drop(black_box(canonical(kind, Value::Text(&text))))),
            measure(|| {
                black_box(keys.fingerprints.mac(&[form.as_bytes()]));
            }),
            measure(|| {
                black_box(detector.entry(kind, &form));
            }),
            measure(|| {
                detector.insert(&entry, Fingerprint([1; 32]));
                detector.remove(&entry, Fingerprint([1; 32]));
            }),
        ];
        writeln!(table, "| {} | {a} | {b} | {c} | {d} |", kind.as_str()).unwrap();
    }
    println!("{table}");
}
