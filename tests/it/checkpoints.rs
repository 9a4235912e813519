//! Signed checkpoints, `provenance-audit verify` with and without them, and keys that rotate.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance::config::{CheckpointPlace, Checkpoints, Config, Storage, Token};
use provenance::store::{EventQuery, Reader};
use provenance::{Kind, Pseudonyms, Scope, Tracker, record_event, set_owner, tag, test};
use provenance_tests::postgres::Database;
use provenance_tests::{Evidence, program, text};
use serde_json::Value as Json;

const SOON: Duration = Duration::from_millis(20);

fn to_file(path: &Path, every: Duration) -> Option<Checkpoints> {
    Some(Checkpoints {
        to: CheckpointPlace::File(path.to_owned()),
        every,
        key_file: None,
    })
}

/// Evidence with checkpoints in a folder of their own.
struct Kept {
    evidence: Evidence,
    elsewhere: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        let elsewhere = tempfile::tempdir().unwrap();
        let path = elsewhere.path().join("checkpoints.jsonl");
        let evidence = Evidence::new(|config| config.checkpoints = to_file(&path, SOON));
        Kept { evidence, elsewhere }
    }

    /// Twelve events in four batches, and a checkpoint of each. (Of more, where the machine is very busy.)
    fn filled() -> Self {
        let kept = Kept::new();
        for _ in 0..4 {
            kept.record();
        }
        kept.evidence.tracker.close();
        kept
    }

    fn record(&self) {
        let before = last_seq(&self.evidence.tracker);
        {
            let _tracker = self.evidence.scoped();
            record_three();
        }
        self.evidence.tracker.flush(Duration::from_secs(10)).unwrap();
        until(|| last_seq(&self.evidence.tracker) == before + 3);
    }

    fn checkpoints(&self) -> PathBuf {
        self.elsewhere.path().join("checkpoints.jsonl")
    }

    fn lines(&self) -> Vec<Json> {
        lines(&self.checkpoints())
    }

    fn public_key(&self) -> String {
        text(&self.evidence.tracker.status()["checkpoints"]["public_key"])
    }
}

fn record_three() {
    for name in ["X_ONE", "X_TWO", "X_THREE"] {
        let event = record_event(name.parse().unwrap());
        let event = event.value("contact.email", "email", "ada@example.com").unwrap();
        event.submit();
    }
}

fn lines(path: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn status(tracker: &Tracker) -> Json {
    tracker.status()["checkpoints"].clone()
}

fn batch(tracker: &Tracker) -> i64 {
    status(tracker)["last"]["batch"].as_i64().unwrap_or(0)
}

fn last_seq(tracker: &Tracker) -> i64 {
    status(tracker)["last"]["last_seq"].as_i64().unwrap_or(0)
}

fn until(mut true_at_last: impl FnMut() -> bool) {
    let start = Instant::now();
    while !true_at_last() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn command() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PROGRAM.get_or_init(|| program("provenance-audit")))
}

/// Exit code, and all that was said.
fn said(output: Output) -> (i32, String) {
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn verify(database: &Path, further: &[&str]) -> (i32, String) {
    let mut command = command();
    said(
        command
            .args(["verify", "--db"])
            .arg(database)
            .args(further)
            .output()
            .unwrap(),
    )
}

/// With checkpoints, and the key that must have signed them.
fn verify_with(database: &Path, checkpoints: &Path, key: &str) -> (i32, String) {
    let checkpoints = checkpoints.to_str().unwrap();
    verify(database, &["--checkpoint", checkpoints, "--public-key", key])
}

/// A copy of the evidence, as somebody with a SQLite shell leaves it.
fn edited(kept: &Kept, name: &str, edit: &str) -> PathBuf {
    let copy = kept.elsewhere.path().join(name);
    std::fs::copy(kept.evidence.database(), &copy).unwrap();
    let mut connection = SqliteConnection::establish(copy.to_str().unwrap()).unwrap();
    connection.batch_execute(edit).unwrap();
    copy
}

#[test]
fn what_was_not_touched_holds() {
    let kept = Kept::filled();
    let (database, key) = (kept.evidence.database(), kept.public_key());
    let (code, text) = verify(&database, &[]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = verify_with(&database, &kept.checkpoints(), &key);
    assert_eq!(code, 0, "{text}");
    let lines = kept.lines();
    assert!(lines.len() >= 4, "{lines:?}");
    assert!(
        text.contains(&format!("checkpoints that agree: {}", lines.len())),
        "{text}"
    );
    assert!(text.contains("-12 (batch"), "{text}");
    let checkpoints = kept.checkpoints();
    let (code, text) = verify(&database, &["--checkpoint", checkpoints.to_str().unwrap()]);
    assert!(
        code == 0 && text.contains("not compared") && text.contains(&key),
        "{text}"
    );
    let (code, text) = verify(&database, &["--checkpoint", checkpoints.to_str().unwrap(), "--json"]);
    let report: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["result"]), (0, &"holds".into()));
    assert_eq!(report["checkpoints"]["agree"], lines.len());
    assert_eq!(report["instances"][0]["instance"], kept.evidence.tracker.instance_id());
}

#[test]
fn each_edit_is_found_and_named() {
    let kept = Kept::filled();
    let instance = kept.evidence.tracker.instance_id();
    let key = kept.public_key();
    let last = batch(&kept.evidence.tracker);
    let second = format!("-{}", first_seq(&kept.evidence.database(), 2));
    let swap = "UPDATE batches SET batch_no = 1000 WHERE batch_no = 2;
        UPDATE batches SET batch_no = 2 WHERE batch_no = 3;
        UPDATE batches SET batch_no = 3 WHERE batch_no = 1000;";
    let swap_chains = "CREATE TEMP TABLE two AS SELECT chain FROM batches WHERE batch_no = 2;
        UPDATE batches SET chain = (SELECT chain FROM batches WHERE batch_no = 3) WHERE batch_no = 2;
        UPDATE batches SET chain = (SELECT chain FROM two) WHERE batch_no = 3;";
    let swap_events = "UPDATE events SET seq = 1000 WHERE seq = 5; UPDATE events SET seq = 5 WHERE seq = 8;
        UPDATE events SET seq = 8 WHERE seq = 1000;";
    // The first bad event; where the batches are swapped, the first of the second batch.
    for (name, edit, first) in [
        ("changed", "UPDATE events SET actor = actor + 1 WHERE seq = 7", "-7"),
        ("removed", "DELETE FROM events WHERE seq = 7", "-7"),
        ("events swapped", swap_events, "-5"),
        ("batches swapped", swap, &*second),
        ("chains swapped", swap_chains, &*second),
        ("batch removed", "DELETE FROM batches WHERE batch_no = 2", &*second),
    ] {
        let copy = edited(&kept, name, edit);
        for (code, text) in [verify(&copy, &[]), verify_with(&copy, &kept.checkpoints(), &key)] {
            assert_eq!(code, 1, "{name}: {text}");
            assert!(
                text.contains(&format!("BROKEN: event {instance}{first}: ")),
                "{name}: {text}"
            );
        }
        let (code, text) = verify(&copy, &["--json"]);
        let report: Json = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &report["result"]), (1, &"does not hold".into()));
        assert_eq!(
            report["instances"][0]["problem"]["event_id"],
            format!("{instance}{first}")
        );
    }

    // Cut off as a whole, the tail is missed by nobody but a checkpoint.
    let cut = format!(
        "DELETE FROM events WHERE seq >= (SELECT first_seq FROM batches WHERE batch_no = {last});
        DELETE FROM batches WHERE batch_no = {last};"
    );
    let copy = edited(&kept, "cut", &cut);
    let (code, text) = verify(&copy, &[]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = verify_with(&copy, &kept.checkpoints(), &key);
    assert_eq!(code, 1, "{text}");
    let told = format!(
        "batch {last}, which was there at {}, is missing, with its last event {instance}-12; the evidence ends with batch {}",
        text_of_last(&kept),
        last - 1
    );
    assert!(text.contains(&told), "{told}\n{text}");
}

fn first_seq(database: &Path, batch: i64) -> i64 {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        first_seq: i64,
    }
    let mut connection = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    let batch = format!("SELECT first_seq FROM batches WHERE batch_no = {batch}");
    diesel::sql_query(batch)
        .get_result::<Row>(&mut connection)
        .unwrap()
        .first_seq
}

fn text_of_last(kept: &Kept) -> String {
    text(&kept.lines().last().unwrap()["time"])
}

#[test]
fn evidence_made_anew_is_not_what_was_signed() {
    let kept = Kept::filled();
    let instance = kept.evidence.tracker.instance_id();
    let key = kept.public_key();
    // Whoever has the machine has the master key, and the means to begin again.
    let other = Kept::filled();
    let (database, forged) = (other.evidence.database(), other.checkpoints());
    assert_eq!(verify(&database, &[]).0, 0);
    let (code, text) = verify_with(&database, &kept.checkpoints(), &key);
    assert_eq!(code, 1, "{text}");
    let told = format!("all events of instance {instance}, which were there at");
    assert!(text.contains(&told), "{text}");
    // With checkpoints to match, signed by a key of their own.
    assert_eq!(verify(&database, &["--checkpoint", forged.to_str().unwrap()]).0, 0);
    let (code, text) = verify_with(&database, &forged, &key);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&format!("signed with another key: {}", other.public_key())),
        "{text}"
    );
    // The key may change in good order.
    let keys = [key, other.public_key()];
    let checkpoints = forged.to_str().unwrap();
    let (code, text) = verify(
        &database,
        &[
            "--checkpoint",
            checkpoints,
            "--public-key",
            &keys[0],
            "--public-key",
            &keys[1],
        ],
    );
    assert_eq!(code, 0, "{text}");
}

#[test]
fn the_instances_of_a_fleet_have_checkpoints_each_and_a_missing_tail_is_named() {
    let server = Database::new("SELECT 1");
    let elsewhere = tempfile::tempdir().unwrap();
    let places = ["a.jsonl", "b.jsonl"].map(|name| elsewhere.path().join(name));
    let key = elsewhere.path().join("signing.pem");
    let make = format!("umask 077; openssl genpkey -algorithm ed25519 -out {}", key.display());
    assert!(Command::new("sh").args(["-c", &make]).status().unwrap().success());
    let trackers = places.each_ref().map(|place| {
        let tracker = Tracker::open(Config {
            storage: Storage::Postgres(Token(server.url())),
            key: Some(Token("ab".repeat(32))),
            checkpoints: Some(Checkpoints {
                to: CheckpointPlace::File(place.clone()),
                every: SOON,
                key_file: Some(key.clone()),
            }),
            ..Config::default()
        });
        tracker.unwrap()
    });
    for tracker in &trackers {
        for batches in 1..=3 {
            {
                let _in_force = test::scoped(tracker);
                record_three();
            }
            tracker.flush(Duration::from_secs(10)).unwrap();
            until(|| last_seq(tracker) == 3 * batches);
        }
    }
    let key = text(&status(&trackers[0])["public_key"]);
    let verify = |places: &[&Path]| {
        let mut command = command();
        command.args(["verify", "--db", &server.url(), "--public-key", &key]);
        for place in places {
            command.arg("--checkpoint").arg(place);
        }
        said(command.output().unwrap())
    };
    let both = places.each_ref().map(PathBuf::as_path);
    let (code, said) = verify(&both);
    assert_eq!(code, 0, "{said}");

    // The tail of one chain is cut off, as whoever administers the server can: what is left holds by itself.
    let b = trackers[1].instance_id();
    trackers.iter().for_each(Tracker::close);
    let cut = "DELETE FROM provenance.events WHERE seq > 6 AND n = (SELECT max(n) FROM provenance.instances);
         DELETE FROM provenance.batches WHERE first_seq > 6 AND n = (SELECT max(n) FROM provenance.instances);";
    server.connect().batch_execute(cut).unwrap();
    assert_eq!(verify(&both[..1]).0, 0, "the other's say nothing of it");
    let (code, said) = verify(&both);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("{b}-9")) || said.contains(&format!("{b}-7")),
        "{said}"
    );
}

#[test]
fn a_checkpoint_that_was_changed_or_is_none_is_named() {
    let kept = Kept::filled();
    let key = kept.public_key();
    let written = std::fs::read_to_string(kept.checkpoints()).unwrap();
    let last = batch(&kept.evidence.tracker);
    let changed = |name: &str, text: String| {
        let path = kept.elsewhere.path().join(name);
        std::fs::write(&path, text).unwrap();
        verify_with(&kept.evidence.database(), &path, &key)
    };
    for (name, from, to) in [
        ("batch", &*format!("\"batch\":{last}"), "\"batch\":1"),
        ("time", "\"time\":\"20", "\"time\":\"19"),
        ("seq", "\"last_seq\":12", "\"last_seq\":13"),
    ] {
        let (code, text) = changed(name, written.replacen(from, to, 1));
        assert_eq!(code, 1, "{name}: {text}");
        assert!(
            text.contains(&format!("{name}:")) && text.contains("the signature is wrong"),
            "{text}"
        );
    }
    // A crash leaves half a line: what is whole counts, and the next one stands on its own.
    let half = written.len() - 40;
    let (code, text) = changed("torn", format!("{}\n{written}", &written[..half]));
    assert!(code == 0 && text.contains("unfinished lines, passed over: 1"), "{text}");
    for (name, content) in [
        ("words", format!("{written}not a checkpoint\n")),
        ("more", written.replacen('{', "{\"more\":1,", 1)),
        ("empty", String::new()),
        ("half", written[..40].to_owned()),
        ("long", "x".repeat(100_000)),
    ] {
        let (code, text) = changed(name, content);
        assert_eq!(code, 2, "{name}: {text}");
        assert!(text.contains("not checked: "), "{text}");
    }
    let missing = kept.elsewhere.path().join("missing");
    assert_eq!(verify_with(&kept.evidence.database(), &missing, &key).0, 2);
    for bad in [
        "",
        "abc",
        missing.to_str().unwrap(),
        kept.checkpoints().to_str().unwrap(),
    ] {
        let (code, text) = verify_with(&kept.evidence.database(), &kept.checkpoints(), bad);
        assert_eq!(code, 2, "{bad}: {text}");
    }
}

#[test]
fn a_torn_line_does_not_spoil_the_next() {
    let kept = Kept::new();
    kept.record();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(kept.checkpoints())
        .unwrap();
    file.write_all(b"{\"format\":\"prov").unwrap();
    kept.record();
    let (code, text) = verify_with(&kept.evidence.database(), &kept.checkpoints(), &kept.public_key());
    assert!(code == 0 && text.contains("-6 (batch"), "{text}");
}

#[test]
fn one_at_the_end_and_none_without_news() {
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("checkpoints.jsonl");
    let hour = Duration::from_secs(3600);
    let evidence = Evidence::new(|config| config.checkpoints = to_file(&path, hour));
    {
        let _tracker = evidence.scoped();
        record_three();
    }
    evidence.tracker.close();
    evidence.tracker.close();
    assert_eq!(lines(&path).len(), 1);
    assert_eq!(lines(&path)[0]["last_seq"], 3);
    let open = || {
        Tracker::open(Config {
            storage: Storage::Sqlite(evidence.database()),
            checkpoints: to_file(&path, SOON),
            ..Config::default()
        })
        .unwrap()
    };
    let idle = open();
    std::thread::sleep(SOON * 5);
    idle.close();
    assert_eq!(lines(&path).len(), 1, "a start says nothing new");
    // Another process takes over: its chain is another, the key the same.
    let next = open();
    {
        let _tracker = test::scoped(&next);
        record_three();
    }
    next.close();
    let lines = lines(&path);
    assert_eq!(lines.len(), 2);
    assert_ne!(lines[0]["instance"], lines[1]["instance"]);
    assert_eq!(lines[0]["public_key"], lines[1]["public_key"]);
    let key = text(&lines[0]["public_key"]);
    assert_eq!(verify_with(&evidence.database(), &path, &key).0, 0);
}

#[cfg(unix)]
#[test]
fn the_signing_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let kept = Kept::filled();
    let key = kept.evidence.folder.path().join("provenance.db.signing-key");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(&kept.checkpoints()), 0o600);
    let public = kept.public_key();
    let notes = kept.evidence.tracker.status()["notes"].to_string();
    assert!(notes.contains("provenance.db.signing-key"), "{notes}");

    let open = |key_file: Option<&Path>| {
        Tracker::open(Config {
            storage: Storage::Sqlite(kept.evidence.database()),
            checkpoints: Some(Checkpoints {
                key_file: key_file.map(Path::to_owned),
                ..to_file(&kept.checkpoints(), SOON).unwrap()
            }),
            ..Config::default()
        })
    };
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    for refused in [open(None).unwrap_err(), open(Some(&key)).unwrap_err()] {
        assert!(
            refused.is_key() && refused.to_string().contains("chmod 600"),
            "{refused}"
        );
    }
    let (code, text) = said(command().arg("key").arg(&key).output().unwrap());
    assert!(code == 2 && text.contains("chmod 600"), "{text}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        said(command().arg("key").arg(&key).output().unwrap()),
        (0, format!("{public}\n"))
    );

    // One that was named is never made.
    let missing = kept.elsewhere.path().join("missing");
    let refused = open(Some(&missing)).unwrap_err();
    assert!(
        refused.is_key() && refused.to_string().contains("openssl genpkey"),
        "{refused}"
    );
    assert!(!missing.exists());
    // The master key does not sign.
    let master = kept.evidence.folder.path().join("provenance.db.key");
    assert!(open(Some(&master)).unwrap_err().is_key());
}

#[test]
fn openssl_makes_keys_and_checks_signatures() {
    let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).output().unwrap();
    let kept = Kept::filled();
    let folder = kept.elsewhere.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let own = kept.evidence.folder.path().join("provenance.db.signing-key");

    let public = openssl(&["pkey", "-pubout", "-in", own.to_str().unwrap()]);
    let (code, pem) = said(command().args(["key", "--pem"]).arg(&own).output().unwrap());
    assert_eq!((code, pem.as_bytes()), (0, &public.stdout[..]));
    std::fs::write(path("public.pem"), &pem).unwrap();
    let (code, text) = verify_with(&kept.evidence.database(), &kept.checkpoints(), &path("public.pem"));
    assert_eq!(code, 0, "{text}");

    // What the format says, by hand.
    let line = kept.lines().pop().unwrap();
    let message: String = ["format", "instance", "batch", "last_seq", "chain", "time", "public_key"]
        .iter()
        .map(|key| {
            line[*key]
                .as_str()
                .map_or_else(|| line[*key].to_string(), str::to_owned)
                + "\n"
        })
        .collect();
    let signature = self::text(&line["signature"]);
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    std::fs::write(path("signature"), signature).unwrap();
    for (said, holds) in [(message.clone(), true), (message.replace("v1", "v2"), false)] {
        std::fs::write(path("message"), said).unwrap();
        let verify = ["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", &path("public.pem")];
        let files = ["-in", &path("message"), "-sigfile", &path("signature")];
        let output = openssl(&[&verify[..], &files[..]].concat());
        assert_eq!(output.status.success(), holds, "{output:?}");
    }

    // And the other way round.
    let made = openssl(&["genpkey", "-algorithm", "ed25519", "-out", &path("made.pem")]);
    assert!(made.status.success());
    let checkpoints = folder.join("other.jsonl");
    let evidence = Evidence::new(|config| {
        config.checkpoints = Some(Checkpoints {
            key_file: Some(path("made.pem").into()),
            ..to_file(&checkpoints, SOON).unwrap()
        });
    });
    {
        let _tracker = evidence.scoped();
        record_three();
    }
    evidence.tracker.close();
    let (code, text) = verify_with(&evidence.database(), &checkpoints, &path("made.pem"));
    assert_eq!(code, 0, "{text}");
}

#[test]
fn an_endpoint_that_is_down_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/hook/s3cret?token=s3cret");
    let evidence = Evidence::new(|config| {
        config.checkpoints = Some(Checkpoints {
            to: CheckpointPlace::Url(Token(url)),
            every: SOON,
            key_file: None,
        });
    });
    let tracker = &evidence.tracker;
    let record = || {
        let _tracker = evidence.scoped();
        record_three();
        tracker.flush(Duration::from_secs(10)).unwrap();
    };
    record();
    until(|| status(tracker)["failed"].as_u64().unwrap() > 1);
    let down = status(tracker);
    assert_eq!((down["written"].as_u64(), down["last"].is_null()), (Some(0), true));
    assert_eq!(down["last_error"], "connection refused");
    assert_eq!(down["to"], format!("http://127.0.0.1:{port}"));
    assert!(!Json::Object(tracker.status()).to_string().contains("s3cret"));
    // Nobody waits for it.
    record();

    let server = tiny_http::Server::http(("127.0.0.1", port)).unwrap();
    let receive = |answer: u16| {
        let mut request = server.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!(
            (request.method().as_str(), request.url()),
            ("POST", "/hook/s3cret?token=s3cret")
        );
        let mut body = String::new();
        request.as_reader().read_to_string(&mut body).unwrap();
        let answer = tiny_http::Response::empty(answer);
        request
            .respond(answer.with_header("Location: /".parse::<tiny_http::Header>().unwrap()))
            .unwrap();
        body
    };
    receive(500);
    until(|| status(tracker)["last_error"] == "status 500");
    receive(302);
    until(|| status(tracker)["last_error"] != "status 500");
    assert_eq!(status(tracker)["written"], 0, "a redirect is not followed");
    let body = receive(204);
    until(|| status(tracker)["written"] == 1);
    assert!(status(tracker)["last_error"].is_null());
    let posted: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(posted["last_seq"], 6);

    // The last one, before close() returns.
    let received = std::thread::scope(|scope| {
        let last = scope.spawn(|| {
            loop {
                // On a very busy machine there may be one more before.
                let body = receive(200);
                if serde_json::from_str::<Json>(&body).unwrap()["last_seq"] == 9 {
                    break body;
                }
            }
        });
        {
            let _tracker = evidence.scoped();
            record_three();
        }
        tracker.close();
        last.join().unwrap()
    });

    let saved = evidence.folder.path().join("saved.jsonl");
    std::fs::write(&saved, format!("{body}\n{received}\n")).unwrap();
    let key = text(&posted["public_key"]);
    let (code, text) = verify_with(&evidence.database(), &saved, &key);
    assert_eq!(code, 0, "{text}");
    // The hooks did not see it.
    let mut reader = Reader::open(&evidence.database()).unwrap();
    let all = EventQuery {
        limit: 100,
        ..EventQuery::default()
    };
    let types: Vec<_> = reader
        .events(&all)
        .unwrap()
        .events
        .into_iter()
        .map(|event| event.event_type)
        .collect();
    assert_eq!(types.len(), 9);
    assert!(types.iter().all(|name| name.starts_with("X_")), "{types:?}");
}

#[test]
fn a_place_that_cannot_be_written_harms_nobody() {
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("not/there/checkpoints.jsonl");
    let evidence = Evidence::new(|config| config.checkpoints = to_file(&path, SOON));
    {
        let _tracker = evidence.scoped();
        record_three();
    }
    evidence.tracker.flush(Duration::from_secs(10)).unwrap();
    until(|| status(&evidence.tracker)["last_error"] == "entity not found");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    until(|| batch(&evidence.tracker) > 0);
    assert_eq!(lines(&path)[0]["last_seq"], 3);
    assert!(status(&evidence.tracker)["failed"].as_u64().unwrap() > 0);
}

#[test]
fn a_place_that_cannot_be_right_is_refused_at_start() {
    let kept = Kept::filled();
    let database = kept.evidence.database();
    let open = |to: CheckpointPlace| {
        let tracker = Tracker::open(Config {
            storage: Storage::Sqlite(database.clone()),
            checkpoints: Some(Checkpoints {
                to,
                ..to_file(Path::new(""), SOON).unwrap()
            }),
            ..Config::default()
        });
        tracker.unwrap_err()
    };
    let refused = open(CheckpointPlace::File(database.clone()));
    assert!(
        refused.is_config() && refused.to_string().contains("something other than checkpoints"),
        "{refused}"
    );
    let refused = open(CheckpointPlace::File(kept.elsewhere.path().to_owned()));
    assert!(
        refused.is_config() && refused.to_string().contains("expected a file"),
        "{refused}"
    );
    // The tests are built without TLS for ureq.
    let refused = open(CheckpointPlace::Url(Token("https://witness.example/s3cret".into())));
    assert!(
        refused.is_config() && refused.to_string().contains("`rustls`"),
        "{refused}"
    );
    assert!(!refused.to_string().contains("s3cret"), "{refused}");
    let refused = open(CheckpointPlace::Url(Token("http://local host/s3cret".into())));
    assert!(
        refused.is_config() && !refused.to_string().contains("s3cret"),
        "{refused}"
    );
    // Nothing began to write.
    let (code, text) = verify(&database, &["--json"]);
    let report: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((code, report["instances"].as_array().unwrap().len()), (0, 1));
}

/// Whoever opens the same evidence under this epoch.
fn under(folder: &Path, key_epoch: u32) -> Config {
    Config {
        storage: Storage::Sqlite(folder.join("provenance.db")),
        key_epoch,
        ..Config::default()
    }
}

#[test]
fn old_values_stay_recognised_and_searchable_when_the_key_rotates() {
    const EMAIL: &str = "ada@example.com";
    let folder = tempfile::tempdir().unwrap();
    let session = |epoch: u32, work: &mut dyn FnMut(&Tracker)| {
        let tracker = Tracker::open(under(folder.path(), epoch)).unwrap();
        {
            let _tracker = test::scoped(&tracker);
            let _scope = Scope::new("job").enter();
            set_owner("user", 7);
            work(&tracker);
        }
        tracker.close();
        text(&tracker.status()["key_id"])
    };
    let fingerprints = |epoch: u32| {
        let pseudonyms = Pseudonyms::load(&under(folder.path(), epoch)).unwrap();
        let all = pseudonyms.fingerprints(Kind::Email, EMAIL);
        assert_eq!(pseudonyms.fingerprint(Kind::Email, EMAIL), all.first().copied());
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // Sends the address; gives the fingerprints under which it was found.
    let share = || {
        let share = provenance::share("smtp.example.com");
        share.payload(format!("To: {EMAIL}").as_bytes()).begin().unwrap().sent();
    };
    let found = || {
        let mut reader = Reader::open(&folder.path().join("provenance.db")).unwrap();
        let query = EventQuery {
            limit: 1,
            event_type: Some("DATA_SHARE".into()),
            ..EventQuery::default()
        };
        let share = reader.events(&query).unwrap().events.pop().unwrap();
        share
            .matched_tags
            .iter()
            .map(|tag| text(&tag["fingerprint"]))
            .collect::<Vec<_>>()
    };
    let first = session(1, &mut |_| {
        tag("contact.email", "email", EMAIL).unwrap();
        tag("personal.name", "name", "Ada Lovelace").unwrap();
    });
    let before = fingerprints(1);
    assert_eq!(before.len(), 1);

    // Not met again yet: recognised as what it was.
    let second = session(2, &mut |_| share());
    assert_ne!(first, second);
    assert_eq!(found(), before);
    let both = fingerprints(2);
    assert_eq!(both[1..], before);
    assert_ne!(both[0], both[1]);

    // Met again: one value, under its new fingerprint, with where it was first seen.
    session(2, &mut |tracker| {
        assert_eq!(tracker.status()["registry_size"], 2);
        let given = tag("contact.email", "email", EMAIL).unwrap().unwrap();
        assert_eq!(given.to_string(), both[0]);
        assert_eq!(tracker.status()["registry_size"], 2);
        share();
    });
    assert_eq!(found(), both[..1]);
    // And after a restart, by what the store holds.
    session(2, &mut |tracker| {
        assert_eq!(tracker.status()["registry_size"], 2);
        share();
    });
    assert_eq!(found(), both[..1]);
    session(3, &mut |_| share());
    assert_eq!(found(), both[..1]);
    let three = fingerprints(3);
    assert_eq!(three[1..], both);

    // Each event stays under the fingerprint that it was written with.
    let mut reader = Reader::open(&folder.path().join("provenance.db")).unwrap();
    let of = |fingerprint: &str, reader: &mut Reader| {
        let query = EventQuery {
            limit: 100,
            fingerprint: Some(fingerprint.into()),
            ..EventQuery::default()
        };
        reader.events(&query).unwrap().events.len()
    };
    assert_eq!([of(&both[1], &mut reader), of(&both[0], &mut reader)], [1, 3]);

    // There is no way back, nor for the commands.
    for refused in [
        Tracker::open(under(folder.path(), 2)).unwrap_err(),
        Pseudonyms::load(&under(folder.path(), 1)).err().unwrap(),
    ] {
        assert!(
            refused.is_key() && refused.to_string().contains("later epoch"),
            "{refused}"
        );
    }
    assert_eq!(verify(&folder.path().join("provenance.db"), &[]).0, 0);
}

#[test]
fn the_configuration_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let file = folder.path().join("runtime_tracking.yaml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file))
    };
    let given = load("checkpoints: {to: kept/c.jsonl, every: 5m, key_file: keys/signing.pem}\nkey_epoch: 3").unwrap();
    let checkpoints = given.checkpoints.unwrap();
    assert_eq!(
        checkpoints.to,
        CheckpointPlace::File(folder.path().join("kept/c.jsonl"))
    );
    assert_eq!(checkpoints.key_file.unwrap(), folder.path().join("keys/signing.pem"));
    assert_eq!((checkpoints.every, given.key_epoch), (Duration::from_secs(300), 3));
    for loopback in [
        "http://localhost:1/x",
        "http://127.0.0.1/",
        "http://[::1]:99",
        "https://example.com/hook",
    ] {
        let checkpoints = load(&format!("checkpoints: {{to: \"{loopback}\"}}"))
            .unwrap()
            .checkpoints
            .unwrap();
        assert_eq!(
            (checkpoints.to, checkpoints.every),
            (CheckpointPlace::Url(Token(loopback.into())), Duration::from_secs(60))
        );
    }
    for (written, line, expected) in [
        ("checkpoints:\n  tu: x", 2, "did you mean `to`?"),
        ("checkpoints:\n  every: 5m", 1, "the key `to` is missing"),
        (
            "checkpoints:\n  to: c\n  every: 5d",
            3,
            "expected a time such as 60s, 5m or 1h, found `5d`",
        ),
        ("checkpoints:\n  to: c\n  every: 0s", 3, "expected a time"),
        (
            "checkpoints:\n  to: http://example.com/s3cret",
            2,
            "expected an https:// URL; plain http://",
        ),
        (
            "checkpoints:\n  to: http://localhost.example.com/s3cret",
            2,
            "expected an https:// URL; plain http://",
        ),
        (
            "checkpoints:\n  to: http://localhost:80@example.com/s3cret",
            2,
            "expected an https:// URL; plain http://",
        ),
        (
            "checkpoints:\n  to: ftp://example.com/s3cret",
            2,
            "expected the path of a file, or an https:// URL",
        ),
        ("checkpoints:\n  to: https:///s3cret", 2, "expected a host"),
        ("key_epoch: 0", 1, "expected a whole number from 1 to 64, found 0"),
        ("key_epoch: 65", 1, "expected a whole number from 1 to 64, found 65"),
    ] {
        let error = load(written).unwrap_err();
        assert!(error.is_config(), "{error}");
        let told = error.to_string();
        assert!(
            told.contains(&format!("yaml:{line}: ")) && told.contains(expected),
            "{written}: {told}"
        );
        assert!(!told.contains("s3cret"), "{told}");
    }
}
