//! Bodies that are not held whole, and bodies under an encoding.

use std::io::Read;

use provenance::config::{OnViolation, Streams};
use provenance::egress;
use provenance::store::Reader;
use provenance_tests::{Evidence, tag, text};
use serde_json::json;
use ureq::unversioned::multipart::{Form, Part};
use ureq::{Error, SendBody};

use super::wire::{Wire, gzipped};
use super::{ALICE, alice, only};

#[egress(recipient = "storage", allow("personal.name"))]
fn upload(url: &str, reader: &mut dyn Read) -> Result<(), Error> {
    ureq::put(url).send(SendBody::from_reader(reader))?;
    Ok(())
}

/// Filler with a person's address in it, and again far behind.
fn long(length: usize) -> String {
    let mut body = "lorem ipsum ".repeat(length / 12);
    body.insert_str(length / 3, &format!(" <{ALICE}> "));
    body.insert_str(length / 2, " Alice Pleasance ");
    body
}

#[test]
fn what_is_longer_than_read_ahead_is_scanned_as_it_passes() {
    let evidence = Evidence::new(|config| config.egress.read_ahead = 1000);
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    let body = long(500_000);
    upload(&wire.url("/x"), &mut body.as_bytes()).unwrap();

    let share = only(evidence.of("DATA_SHARE"));
    let at = body.find(ALICE).unwrap();
    assert_eq!(
        tag(&share, "email")["place"],
        format!("body@{at}..{}", at + ALICE.len())
    );
    assert_eq!(tag(&share, "email")["form"], "embedded");
    assert_eq!(tag(&share, "name")["category"], "personal.name");
    assert_eq!(share["payload"]["length"], body.len());
    assert_eq!(share["payload"]["found"].as_array().unwrap().len(), 2);
    assert_eq!(share["extras"]["status"], 200);
    assert_eq!(share["extras"]["owner"], tag(&share, "email")["owner"]);
    assert!(share["extras"]["unscanned"].is_null(), "{share}");
    let violation = only(evidence.of("POLICY_VIOLATION"));
    assert_eq!(violation["payload"]["categories"], json!(["contact.email"]));
    assert_eq!(violation["extras"]["action"], "recorded");
    assert_eq!(evidence.blind_spots().len(), 0);
    assert!(!evidence.holds(ALICE));
}

#[test]
fn late_findings_are_found_by_category_and_held_by_the_chain() {
    let evidence = Evidence::new(|config| config.egress.read_ahead = 1000);
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    upload(&wire.url("/x"), &mut long(200_000).as_bytes()).unwrap();
    evidence.events();
    let mut reader = Reader::open(&evidence.database()).unwrap();
    assert!(reader.verify().unwrap().is_ok());
    for recipient in [None, Some("storage")] {
        let query = provenance::store::EventQuery {
            limit: 10,
            category: Some("contact.email".into()),
            event_type: Some("DATA_SHARE".into()),
            recipient: recipient.map(str::to_owned),
            ..Default::default()
        };
        let page = reader.events(&query).unwrap();
        assert_eq!(page.events.len(), 1);
        assert!(!page.events[0].actor.is_empty());
        assert_eq!(page.events[0].matched_tags.len(), 2);
    }
    evidence.tracker.close();

    // Whoever takes a late tag out breaks the chain.
    assert!(!still_holds_without(&evidence.database()));
}

/// Removes the late tags; whether the chain still holds.
fn still_holds_without(database: &std::path::Path) -> bool {
    use diesel::prelude::*;
    let mut connection = diesel::SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    let sql = "UPDATE events SET tags = x'' WHERE outcome_of IS NOT NULL AND length(tags) > 0";
    assert_eq!(diesel::sql_query(sql).execute(&mut connection).unwrap(), 1);
    drop(connection);
    Reader::open(database).unwrap().verify().unwrap().is_ok()
}

#[test]
fn a_blocked_stream_is_cut_off_or_refused() {
    for streams in [Streams::Watch, Streams::Refuse] {
        let evidence = Evidence::new(|config| {
            config.egress.read_ahead = 1000;
            config.egress.on_violation = OnViolation::Block;
            config.egress.streams = streams;
        });
        let _scoped = evidence.scoped();
        alice();
        let wire = Wire::start();
        let body = long(3_000_000);
        let Err(Error::Other(error)) = upload(&wire.url("/x"), &mut body.as_bytes()) else {
            panic!("not blocked")
        };
        let blocked = error.downcast::<provenance::Blocked>().unwrap();
        assert_eq!(
            (blocked.is_stream(), blocked.is_policy()),
            match streams {
                Streams::Refuse => (true, false),
                Streams::Watch => (false, true),
            }
        );
        let share = only(evidence.of("DATA_SHARE"));
        assert_eq!(share["extras"]["outcome"], "blocked", "{share}");
        std::thread::sleep(std::time::Duration::from_millis(50));
        let seen = wire.seen.lock().unwrap();
        match streams {
            Streams::Refuse => {
                assert_eq!(share["extras"]["reason"], "stream");
                assert_eq!(seen.len(), 0);
                assert_eq!(evidence.of("POLICY_VIOLATION").len(), 0);
            }
            Streams::Watch => {
                assert!(share["extras"]["passed"].as_u64().unwrap() <= body.find(ALICE).unwrap() as u64);
                assert!(
                    seen.iter()
                        .all(|(_, bytes)| !String::from_utf8_lossy(bytes).contains(ALICE))
                );
                assert_eq!(only(evidence.of("POLICY_VIOLATION"))["extras"]["action"], "blocked");
            }
        }
        drop(seen);
        // What holds nothing that may not leave is sent as ever, if it is not refused as such.
        let clean = upload(&wire.url("/x"), &mut "lorem ".repeat(10_000).as_bytes());
        assert_eq!(clean.is_ok(), streams == Streams::Watch);
        upload(&wire.url("/x"), &mut "short".as_bytes()).unwrap();
    }
}

#[test]
fn files_and_memory_are_scanned_whole_before_they_leave() {
    #[egress(recipient = "storage", allow())]
    fn put(url: &str, file: std::fs::File, bytes: Option<Vec<u8>>) -> Result<(), Error> {
        match bytes {
            Some(bytes) => ureq::put(url).send(bytes)?,
            None => ureq::put(url).send(file)?,
        };
        Ok(())
    }
    let evidence = Evidence::new(|config| {
        config.egress.read_ahead = 1000;
        config.egress.on_violation = OnViolation::Block;
    });
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    let path = evidence.folder.path().join("body.txt");
    // Beyond what one scan takes.
    let body = long(18_000_000);
    std::fs::write(&path, &body).unwrap();
    let open = || std::fs::File::open(&path).unwrap();
    assert!(put(&wire.url("/x"), open(), None).is_err());
    assert!(put(&wire.url("/x"), open(), Some(body.clone().into_bytes())).is_err());
    assert_eq!(wire.seen.lock().unwrap().len(), 0, "something has left");
    for share in evidence.of("DATA_SHARE") {
        assert_eq!(share["extras"]["outcome"], "blocked");
        assert_eq!(share["matched_tags"].as_array().unwrap().len(), 2);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(!evidence.holds(ALICE));
}

#[test]
fn multipart_bodies_are_scanned() {
    #[egress(recipient = "storage")]
    fn form(url: &str, text: &str, read: &'static str) -> Result<(), Error> {
        ureq::post(url).send(
            Form::new()
                .text("who", text)
                .part("r", Part::owned_reader(read.as_bytes())),
        )?;
        Ok(())
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    form(&wire.url("/x"), ALICE, "Alice Pleasance").unwrap();
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(tag(&share, "email")["form"], "embedded");
    assert_eq!(tag(&share, "name")["form"], "embedded");
    assert_eq!(evidence.blind_spots().len(), 0);
}

#[test]
fn compressed_bodies_are_scanned_decoded() {
    #[egress(recipient = "storage")]
    fn zipped(url: &str, encoding: &str, bytes: &[u8]) -> Result<(), Error> {
        ureq::post(url).header("content-encoding", encoding).send(bytes)?;
        ureq::post(url)
            .header("content-encoding", encoding)
            .send(SendBody::from_reader(&mut &*bytes))?;
        Ok(())
    }
    let evidence = Evidence::new(|config| config.egress.read_ahead = 1000);
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    let url = wire.url("/x");
    zipped(&url, "gzip", &gzipped(json!({"email": ALICE}).to_string().as_bytes())).unwrap();
    // Long, and hard to compress.
    let noise: String = (0..50_000_u64)
        .map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let long = gzipped(format!("{noise} {ALICE} {noise}").as_bytes());
    assert!(long.len() > 200_000);
    zipped(&url, "gzip", &long).unwrap();
    zipped(&url, "compress", b"opaque").unwrap();
    zipped(&url, "gzip", format!("no gzip at all: {ALICE}").as_bytes()).unwrap();
    let shares = evidence.of("DATA_SHARE");
    let shown: Vec<_> = shares
        .iter()
        .map(|share| {
            let tags = share["matched_tags"].as_array().unwrap();
            let place = tags.first().map_or(String::new(), |tag| text(&tag["place"]));
            (
                text(&share["payload"]["encoding"]),
                place,
                share["extras"]["unscanned"] == true,
            )
        })
        .collect();
    let at = noise.len() + 1;
    let far = format!("body@{at}..{}", at + ALICE.len());
    let row = |encoding: &str, place: &str, unscanned| (encoding.to_owned(), place.to_owned(), unscanned);
    assert_eq!(shown[0], row("gzip", "body:/email", false));
    assert_eq!(shown[1], row("gzip", "body:/email", false));
    // In memory, what is decoded is bounded by what is read ahead.
    assert_eq!(shown[2], row("gzip", "", true));
    assert_eq!(shown[3], row("gzip", &far, false));
    assert_eq!(shown[4], row("other", "", true));
    assert_eq!((shown[6].1.is_empty(), shown[6].2), (false, true));
}

#[test]
fn nothing_lies_between_what_is_read_ahead_and_what_is_watched() {
    #[egress(recipient = "storage")]
    fn put(url: &str, encoding: &str, bytes: &[u8]) -> Result<(), Error> {
        ureq::put(url)
            .header("content-encoding", encoding)
            .send(SendBody::from_reader(&mut &*bytes))?;
        Ok(())
    }
    let wire = Wire::start();
    let found = |read_ahead: usize, at: usize, encoding: &str, bytes: &[u8]| {
        let evidence = Evidence::new(|config| config.egress.read_ahead = read_ahead);
        let _scoped = evidence.scoped();
        alice();
        put(&wire.url("/x"), encoding, bytes).unwrap();
        let share = only(evidence.of("DATA_SHARE"));
        let place = format!("body@{at}..{}", at + ALICE.len());
        assert_eq!(tag(&share, "email")["place"], place, "{share}");
        assert!(share["extras"]["unscanned"].is_null(), "{share}");
    };
    // Beyond what one scan takes.
    let scan = 8 << 20;
    let mut body = "lorem ipsum ".repeat((scan + 300_000) / 12);
    let at = scan + 10_000;
    body.replace_range(at..at + ALICE.len() + 1, &format!(" {ALICE}"));
    found(scan + 30_000, at + 1, "identity", body.as_bytes());
    // What is read ahead stands for more than is decoded at first.
    let noise: String = (0..20_000_u64)
        .map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let plain = format!(
        "{}{ALICE} {}{noise}",
        "lorem ipsum ".repeat(2000),
        "lorem ipsum ".repeat(2000)
    );
    found(1000, 24_000, "gzip", &gzipped(plain.as_bytes()));
}

/// Never ends, but for the patience of who reads it.
struct Endless(usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0 += 1;
        match self.0 {
            0..40 => {
                buffer.fill(b'x');
                Ok(buffer.len())
            }
            _ => Err(std::io::Error::other("enough")),
        }
    }
}

#[test]
fn a_stream_that_fails_says_how_far_it_came() {
    let evidence = Evidence::new(|config| config.egress.read_ahead = 1000);
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    let error = upload(&wire.url("/x"), &mut Endless(0)).unwrap_err();
    assert!(
        matches!(&error, Error::Io(error) if error.to_string() == "enough"),
        "{error}"
    );
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["extras"]["error"], "io");
    assert!(share["extras"]["passed"].as_u64().unwrap() > 1_000_000);
}

#[test]
fn a_reader_that_panics_is_the_hosts_affair() {
    struct Panics(usize);
    impl Read for Panics {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            assert!(self.0 < 3, "its own affair");
            buffer.fill(b'x');
            Ok(buffer.len())
        }
    }
    let evidence = Evidence::new(|config| config.egress.read_ahead = 1000);
    let _scoped = evidence.scoped();
    alice();
    let wire = Wire::start();
    let mut reader = Panics(0);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| upload(&wire.url("/x"), &mut reader)));
    assert!(result.is_err());
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["extras"]["outcome"], "unknown", "{share}");
}
