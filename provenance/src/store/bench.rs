//! What the store costs, against SQLite itself. `scripts/bench store`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;

use super::Reader;
use super::read::{EventQuery, FingerprintQuery};
use super::tests::{Folder, keys};
use super::write::{Instance, Record, Value, Writer};
use crate::detect::Detector;
use crate::erased::Erased;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::ticket::Ticket;
use crate::tracker::continued;
use crate::vocabulary::{Event, EventTag, EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp};

pub(super) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn fingerprint(n: u64) -> Fingerprint {
    let mut bytes = [0; 32];
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5151;
    for chunk in bytes.chunks_mut(8) {
        state ^= state >> 30;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ n;
        state ^= state >> 27;
        state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    Fingerprint(bytes)
}

/// What attributes declare once.
fn words() -> &'static [[Arc<str>; 4]; 3] {
    static WORDS: std::sync::OnceLock<[[Arc<str>; 4]; 3]> = std::sync::OnceLock::new();
    WORDS.get_or_init(|| {
        let fields = [
            ("contact.email", "email"),
            ("personal.name", "name"),
            ("financial.income", "income"),
        ];
        fields.map(|(category, field)| [category, field, "What the user typed", "HTTP POST /signup"].map(Arc::from))
    })
}

/// An event with three tags of one of `people`; a fifth of them shares.
fn event(n: u64, people: u64, at: i64) -> Event {
    let person = fingerprint(n % people + 1);
    let owner = Owner::from_stored(&format!("email:{}", &person.to_string()[..32])).unwrap();
    let share = n % 5 == 4;
    let event_type = if share {
        EventType::DataShare
    } else {
        EventType::DataStorage
    };
    let mut event = Event::new(
        event_type,
        if n.is_multiple_of(2) {
            "HTTP POST /signup"
        } else {
            "HTTP POST /profile"
        },
    );
    event.created_at = Timestamp(at);
    event.target = Some(if share {
        "POST api.mailchimp.com/3.0/lists/{id}".into()
    } else {
        "db:users".into()
    });
    event.recipient = share.then(|| "mailchimp".into());
    event.owner = Some(owner.clone());
    event.request_id = Some(format!("{:032x}", u128::from(n) << 64 | 0x1234_5678_9abc).into());
    event.extras.insert("action".into(), "insert".into());
    event.extras.insert("certain".into(), true.into());
    event.extras.insert(
        "trace_id".into(),
        format!("{:032x}", u128::from(n) * 7_777_777_777_777).into(),
    );
    event.extras.insert("table".into(), "users".into());
    for (at, [category, field, description, source]) in (0..).zip(words()) {
        event.shapes.push(crate::vocabulary::event::Shape {
            name: field.clone(),
            json_type: "string",
            length: Some(7 + usize::try_from(n % 23).unwrap()),
            part: None,
            count: 1,
        });
        event.tags.push(EventTag {
            tag: Tag {
                fingerprint: Some(fingerprint(3 * (n % people) + at)),
                category: category.clone(),
                field: field.clone(),
                description: description.clone(),
                owner: Some(owner.clone()),
                source: source.clone(),
                pii: true,
                created_at: event.created_at,
            },
            detail: serde_json::Map::new(),
        });
    }
    event
}

pub(super) fn record(n: u64, people: u64, at: i64) -> Record {
    Record::Event(Box::new(event(n, people, at)), Ticket::default())
}

fn folder_size(folder: &Folder) -> u64 {
    let files = std::fs::read_dir(folder.db().parent().unwrap()).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// The rows of the evidence file, as bare prepared statements on a file of the same schema write them.
fn raw(from: &Folder) -> (Duration, u64) {
    let folder = Folder::new();
    drop(folder.writer(9));
    let source = rusqlite::Connection::open(from.db()).unwrap();
    let target = rusqlite::Connection::open(folder.db()).unwrap();
    target
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; DELETE FROM instances")
        .unwrap();
    let mut spent = Duration::ZERO;
    let mut rows = 0;
    for (table, columns) in [("events", 16), ("texts", 3), ("fingerprints", 9), ("batches", 6)] {
        let mut select = source.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let mut all = select.query([]).unwrap();
        let sql = format!("INSERT INTO {table} VALUES ({})", vec!["?"; columns].join(", "));
        let mut insert = target.prepare(&sql).unwrap();
        loop {
            let mut batch: Vec<Vec<rusqlite::types::Value>> = Vec::new();
            while batch.len() < 2048 {
                let Some(row) = all.next().unwrap() else { break };
                batch.push((0..columns).map(|column| row.get(column).unwrap()).collect());
            }
            if batch.is_empty() {
                break;
            }
            rows += batch.len() as u64;
            let start = Spent::now();
            target.execute_batch("BEGIN IMMEDIATE").unwrap();
            for row in &batch {
                insert.execute(rusqlite::params_from_iter(row)).unwrap();
            }
            target.execute_batch("COMMIT").unwrap();
            spent += start.elapsed();
        }
    }
    (spent, rows)
}

/// Time of this thread on a processor: what others do on the machine counts less.
struct Spent(Duration);

impl Spent {
    fn now() -> Self {
        Spent(cpu_time(ClockId::ThreadCPUTime))
    }

    fn elapsed(&self) -> Duration {
        Spent::now().0 - self.0
    }
}

/// What the work on batches takes. Each is made just before, as the rows of the other side are: records come to the writer from
/// those who have just made them, not from memory that nobody has touched for long.
fn in_batches(events: u64, mut work: impl FnMut(&[Record])) -> Duration {
    let mut spent = Duration::ZERO;
    for first in (0..events).step_by(2048) {
        let records: Vec<Record> = (first..(first + 2048).min(events))
            .map(|n| record(n, 50_000, 1_700_000_000_000_000 + i64::try_from(n).unwrap() * 1000))
            .collect();
        let start = Spent::now();
        work(&records);
        spent += start.elapsed();
    }
    spent
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn percentiles(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

#[test]
#[ignore = "a benchmark: scripts/bench store"]
fn writing() {
    let events = number("EVENTS", 100_000);
    println!("{events} events with 3 tags, 1 of 5 a share; medians of 5 runs in turn");
    let (mut ours, mut theirs, mut bare, mut made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0.0;
    for _ in 0..5 {
        let (mut texts, known) = (super::texts::Texts::default(), super::batch::KnownValues::default());
        let place = super::batch::Place {
            instance: 1,
            n: 1,
            next_seq: 1,
            next_value: 1,
            at: 0,
            late: 0,
        };
        made.push(in_batches(events, |batch| {
            let prepared = super::batch::Prepared::new(&place, &mut texts, &known, batch).unwrap();
            std::hint::black_box(prepared.count());
        }));
        // The writer by itself, with and without what it makes for questions.
        let folder = Folder::new();
        let mut writer = folder.writer(1);
        writer.restore(0).unwrap();
        let mut spent = in_batches(events, |batch| {
            writer.append(batch, None).unwrap();
            while writer.maintain(false).unwrap() {}
        });
        let start = Spent::now();
        while writer.maintain(true).unwrap() {}
        spent += start.elapsed();
        ours.push(spent);
        drop(writer);
        let mut connection = super::tests::raw(&folder.db());
        diesel::connection::SimpleConnection::batch_execute(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        drop(connection);
        bytes = folder_size(&folder) as f64 / events as f64;
        theirs.push(raw(&folder).0);

        let folder = Folder::new();
        let mut writer = folder.writer(1);
        bare.push(in_batches(events, |batch| writer.append(batch, None).unwrap()));
    }
    let (ours, theirs, bare, made) = (median(ours), median(theirs), median(bare), median(made));
    let each = |all: Duration| all.as_nanos() as f64 / events as f64 / 1000.0;
    println!("raw prepared inserts of the same rows: {:.2} us an event", each(theirs));
    println!("rows and chain made, not written: {:.2} us", each(made));
    println!(
        "ours, no index: {:.2} us, {:.2}x raw",
        each(bare),
        bare.as_secs_f64() / theirs.as_secs_f64()
    );
    println!(
        "ours, index included: {:.2} us, {:.2}x raw",
        each(ours),
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
    println!("bytes an event, index included: {bytes:.0}");
}

/// A file with so many events, a twentieth as many people, and all their values. With `KEEP` in the environment it
/// is made in that folder, once.
fn file(events: u64) -> Kept {
    let Ok(keep) = std::env::var("KEEP") else {
        let folder = Folder::new();
        fill(folder.writer(1), events);
        return Kept(folder.db(), Some(folder));
    };
    let path = std::path::Path::new(&keep).join(format!("evidence-{events}.db"));
    if !path.exists() {
        fill(Writer::open(&path, &keys(), &instance()).unwrap(), events);
    }
    Kept(path, None)
}

/// A file's path, and the folder that goes with it.
struct Kept(PathBuf, Option<Folder>);

fn fill(mut writer: Writer, events: u64) {
    let people = people(events);
    writer.restore(0).unwrap();
    let detector = Detector::new(&[7; 32]);
    for first in (0..events).step_by(2048) {
        let mut batch = Vec::new();
        for n in first..(first + 2048).min(events) {
            let at = 1_700_000_000_000_000 + i64::try_from(n).unwrap() * 1000;
            let event = event(n, people, at);
            if n < people {
                for EventTag { tag, .. } in &event.tags {
                    batch.push(Record::Value(Box::new(value(&detector, tag.clone()))));
                }
            }
            let ticket = Ticket::default();
            let share = event.event_type == EventType::DataShare;
            batch.push(Record::Event(Box::new(event), ticket.clone()));
            if share {
                batch.push(Record::Outcome {
                    of: ticket,
                    outcome: Outcome::Status(200),
                    created_at: Timestamp(at),
                    late: None,
                });
            }
        }
        writer.append(&batch, None).unwrap();
        writer.maintain(false).unwrap();
    }
    writer.end().unwrap();
}

fn value(detector: &Detector, tag: Tag) -> Value {
    Value {
        fingerprint: tag.fingerprint.unwrap(),
        kind: Kind::Text,
        entry: detector.entry(Kind::Text, &format!("value {}", tag.fingerprint.unwrap())),
        tag: Arc::new(tag),
    }
}

fn people(events: u64) -> u64 {
    events / 20
}

#[test]
#[ignore = "a benchmark: scripts/bench store"]
fn verifying() {
    let Kept(path, _folder) = file(number("EVENTS", 500_000));
    let mut reader = Reader::open(&path).unwrap();
    let mut times = Vec::new();
    let mut all = 0;
    for _ in 0..number("TIMES", 5) {
        let (start, cpu) = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
        let verified = reader.verify().unwrap();
        times.push((start.elapsed(), cpu_time(ClockId::ProcessCPUTime) - cpu));
        assert!(verified.is_ok(), "{verified:?}");
        all = verified.instances[0].events;
    }
    let each = |time: Option<Duration>| time.unwrap().as_secs_f64() / all as f64;
    let wall = each(times.iter().map(|(wall, _)| *wall).min());
    let cpu = each(times.iter().map(|(_, cpu)| *cpu).min());
    println!(
        "verify: {all} events, {:.2} million a second; {:.2} us of CPU an event, all threads together",
        1e-6 / wall,
        1e6 * cpu
    );
}

#[test]
#[ignore = "a benchmark: scripts/bench store"]
fn starting() {
    // Three of a person.
    let values = number("VALUES", 1_000_000) / 3 * 3;
    let keep = std::env::var("KEEP").ok();
    let folder = Folder::new();
    let path = match keep {
        Some(keep) => PathBuf::from(keep).join(format!("values-{values}.db")),
        None => folder.db(),
    };
    if !path.exists() {
        let mut writer = Writer::open(&path, &keys(), &instance()).unwrap();
        writer.restore(0).unwrap();
        let detector = Detector::new(&[7; 32]);
        let all: Vec<u64> = (0..values / 3).collect();
        for some in all.chunks(1024) {
            let tags = some
                .iter()
                .flat_map(|n| event(*n, u64::MAX, 1_700_000_000_000_000 + n.cast_signed()).tags);
            let values = tags.map(|EventTag { tag, .. }| Record::Value(Box::new(value(&detector, tag))));
            writer.append(&values.collect::<Vec<_>>(), None).unwrap();
        }
        writer.end().unwrap();
    }
    for _ in 0..number("TIMES", 5) {
        let instance = Instance {
            id: Timestamp::now().0.to_be_bytes(),
            ..instance()
        };
        let start = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
        let spent = || {
            let cpu = cpu_time(ClockId::ProcessCPUTime) - start.1;
            format!("{} ms, {} ms of CPU", start.0.elapsed().as_millis(), cpu.as_millis())
        };
        let mut writer = Writer::open(&path, &keys(), &instance).unwrap();
        let restored = writer.restore(1_000_000).unwrap();
        let read = spent();
        let values = continued::values(&Erased::new(&keys()), false, restored.values);
        let registry = Registry::holding(Detector::new(&[7; 32]).with_shapes(true), 1_000_000, values);
        println!(
            "start: {} values read after {read}, known after {}",
            registry.len(),
            spent()
        );
    }
}

/// Time on processors, of this thread or of the process.
fn cpu_time(of: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(of);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
#[ignore = "a benchmark: scripts/bench store"]
fn asking() {
    for events in [number("EVENTS", 1_000_000), number("MORE", 5_000_000)] {
        let people = people(events);
        let Kept(path, _folder) = file(events);
        let mut reader = Reader::open(&path).unwrap();
        println!("{events} events, {people} people");
        let ask = |name: &str, ask: &mut dyn FnMut(u64)| {
            ask(0);
            let (mut waited, mut spent) = (Vec::new(), Vec::new());
            for n in 0..1000_u64 {
                let (start, cpu) = (Instant::now(), Spent::now());
                ask(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
                spent.push(cpu.elapsed());
                waited.push(start.elapsed());
            }
            let ((p50, p99), (cpu50, cpu99)) = (percentiles(waited), percentiles(spent));
            println!(
                "  {name}: p50 {} us, p99 {} us; of CPU time {} us and {} us",
                p50.as_micros(),
                p99.as_micros(),
                cpu50.as_micros(),
                cpu99.as_micros()
            );
        };
        let page = |limit| EventQuery {
            limit,
            ..EventQuery::default()
        };
        ask("events by type since a time, 50", &mut |n| {
            let since = 1_700_000_000_000_000 + i64::try_from(n % events).unwrap() * 1000;
            let query = EventQuery {
                event_type: Some("DATA_SHARE".into()),
                since: Some(Timestamp(since)),
                ..page(50)
            };
            reader.events(&query).unwrap();
        });
        ask("fingerprints by category, 50", &mut |_| {
            let query = FingerprintQuery {
                limit: 50,
                category: Some("contact.email".into()),
                cursor: None,
            };
            assert_eq!(reader.fingerprints(&query).unwrap().fingerprints.len(), 50);
        });
        ask("lineage of a fingerprint", &mut |n| {
            let query = EventQuery {
                fingerprint: Some(fingerprint(3 * (n % people)).to_string()),
                ..page(100)
            };
            assert!(!reader.events(&query).unwrap().events.is_empty());
        });
        ask("by owner", &mut |n| {
            let query = EventQuery {
                owner: Some(format!("email:{}", &fingerprint(n % people + 1).to_string()[..32])),
                ..page(100)
            };
            assert!(!reader.events(&query).unwrap().events.is_empty());
        });
        ask("events by category, 50", &mut |_| {
            let query = EventQuery {
                category: Some("financial.income".into()),
                ..page(50)
            };
            assert_eq!(reader.events(&query).unwrap().events.len(), 50);
        });
        let bytes = std::fs::metadata(&path).unwrap().len();
        println!("  {:.0} bytes an event", bytes as f64 / events as f64);
    }
}

fn instance() -> Instance {
    Instance {
        id: [9; 8],
        service: "shop".into(),
        environment: None,
        build: String::new(),
    }
}

/// A file to which everybody appends in turns, synced after each line.
struct Synced(std::fs::File);

impl std::io::Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes)?;
        self.0.sync_data()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a log line says of the event: the same words, flat, since `tracing` has no lists.
fn log(event: &Event) {
    let [first, second, third] = event.tags.as_slice() else {
        panic!("an event has three tags")
    };
    let print = |tag: &EventTag| tracing::field::display(tag.tag.fingerprint.unwrap());
    tracing::info!(
        event_type = event.event_type.as_str(),
        actor = &*event.actor,
        target = event.target.as_deref(),
        recipient = event.recipient.as_deref(),
        owner = event.owner.as_ref().map(Owner::as_str),
        request_id = event.request_id.as_deref(),
        action = "insert",
        certain = true,
        table = "users",
        fingerprint_1 = print(first),
        category_1 = &*first.tag.category,
        field_1 = &*first.tag.field,
        description_1 = &*first.tag.description,
        source_1 = &*first.tag.source,
        fingerprint_2 = print(second),
        category_2 = &*second.tag.category,
        field_2 = &*second.tag.field,
        description_2 = &*second.tag.description,
        source_2 = &*second.tag.source,
        fingerprint_3 = print(third),
        category_3 = &*third.tag.category,
        field_3 = &*third.tag.field,
        description_3 = &*third.tag.description,
        source_3 = &*third.tag.source,
    );
}

/// Calls a second, each thread doing so many.
fn rate(threads: u64, each: u64, call: impl Fn(u64) + Sync) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let call = &call;
            scope.spawn(move || (0..each).for_each(|n| call(thread * each + n)));
        }
    });
    (threads * each) as f64 / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a benchmark: scripts/bench store"]
fn durable() {
    use std::io::Write;
    const NAMES: [&str; 5] = [
        "the writer alone",
        "1 thread",
        "8 threads",
        "64 threads",
        "tracing JSON and fsync, 64 threads",
    ];
    let rounds = number("TIMES", 9);
    let mut ratios: [Vec<f64>; NAMES.len()] = Default::default();
    let (mut floors, mut spent) = (Vec::new(), Vec::new());
    let mut waits: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let folder = Folder::new();
        let mut file = std::fs::File::create(folder.db().with_extension("floor")).unwrap();
        let start = Instant::now();
        for _ in 0..1000 {
            file.write_all(&[7; 512]).unwrap();
            file.sync_data().unwrap();
        }
        let floor = 1000.0 / start.elapsed().as_secs_f64();
        floors.push(floor);
        let at = |n: u64| 1_700_000_000_000_000 + i64::try_from(n).unwrap();
        let mut writer = folder.writer(1);
        let records: Vec<_> = (0..1000).map(|n| record(n, 1000, at(n))).collect();
        let (start, cpu) = (Instant::now(), Spent::now());
        for record in records.chunks(1) {
            writer.append(record, None).unwrap();
        }
        spent.push(cpu.elapsed() / 1000);
        waits[0].push(1000.0 * start.elapsed().as_secs_f64());
        ratios[0].push(1000.0 / start.elapsed().as_secs_f64() / floor);
        drop(writer);
        for (ratios, (threads, each)) in ratios[1..].iter_mut().zip([(1, 1000), (8, 400), (64, 200)]) {
            let folder = Folder::new();
            let recorder = Recorder::start(folder.writer(1)).unwrap();
            let send = |n| {
                recorder
                    .send_durable(record(n, 1000, at(n)), Duration::from_secs(10))
                    .unwrap()
            };
            let rate = rate(threads, each, send);
            ratios.push(rate / floor);
            if threads == 1 {
                waits[1].push(1e6 / rate);
            }
            recorder.stop(Duration::from_secs(10));
        }
        let file = std::fs::File::create(folder.db().with_extension("json")).unwrap();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(std::sync::Mutex::new(Synced(file)))
            .finish();
        let dispatch = tracing::Dispatch::new(subscriber);
        let send = |n| tracing::dispatcher::with_default(&dispatch, || log(&event(n, 1000, at(n))));
        ratios[4].push(rate(64, 20, send) / floor);
    }
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "fsync floor: {:.0} a second; medians of {rounds} rounds, as parts of the floor",
        middle(floors)
    );
    println!("  a commit of the writer takes {} us of CPU", median(spent).as_micros());
    let [alone, handed] = waits.map(middle);
    println!("  a record takes {alone:.0} us by the writer alone, {handed:.0} us handed over to it");
    for (name, ratios) in NAMES.iter().zip(ratios) {
        println!("  {name}: {:.2}", middle(ratios));
    }
}

#[test]
#[ignore = "a benchmark: scripts/bench store"]
fn calling() {
    let at = 1_700_000_000_000_000;
    for threads in [1, 8] {
        // More than the appender's queue holds.
        let calls = if threads == 1 { 20_000 } else { 100_000 };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut lost, mut missing) = (0, 0);
        for _ in 0..number("TIMES", 3) {
            // What hooks have at hand when they call.
            let known: Vec<Event> = (0..1000).map(|n| event(5 * n, 1000, at)).collect();
            // CPU time of the calling threads alone, an event.
            let each = |call: &(dyn Fn(&Event) + Sync)| {
                let spent = std::sync::Mutex::new(Duration::ZERO);
                std::thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            let start = Spent::now();
                            for n in 0..calls {
                                call(&known[usize::try_from(n).unwrap() % known.len()]);
                            }
                            *spent.lock().unwrap() += start.elapsed();
                        });
                    }
                });
                spent.into_inner().unwrap().as_nanos() as f64 / (threads * calls) as f64
            };
            let folder = Folder::new();
            let recorder = Recorder::start(folder.writer(1)).unwrap();
            ours.push(each(&|event| {
                recorder.send(Record::Event(Box::new(event.clone()), Ticket::default()));
            }));
            recorder.stop(Duration::from_secs(60));
            let written: i64 = Reader::open(&folder.db())
                .unwrap()
                .summary()
                .unwrap()
                .events
                .values()
                .sum();
            missing += threads * calls - written.unsigned_abs();
            let file = std::fs::File::create(folder.db().with_extension("json")).unwrap();
            let (appender, guard) = tracing_appender::non_blocking(file);
            let errors = appender.error_counter();
            let subscriber = tracing_subscriber::fmt().json().with_writer(appender).finish();
            let dispatch = tracing::Dispatch::new(subscriber);
            theirs.push(each(&|event| {
                tracing::dispatcher::with_default(&dispatch, || log(event))
            }));
            drop(guard);
            lost += errors.dropped_lines();
        }
        let least = |all: Vec<f64>| all.into_iter().fold(f64::MAX, f64::min);
        let (ours, theirs) = (least(ours), least(theirs));
        println!(
            "{threads} threads: ours {ours:.0} ns, {missing} lost; tracing JSON, non-blocking: {theirs:.0} ns, \
             {lost} lost; ours / theirs {:.2}",
            ours / theirs
        );
    }
}
