//! One person is erased, or what was kept for its time ends; everybody else's evidence stays, and so does the chain.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance::config::{Config, Recipient, Storage, Token};
use provenance::store::{EventQuery, Reader};
use provenance::{
    Kind, Owner, Pseudonyms, Scope, Timestamp, Tracker, link_owner, record_event, set_owner, tag, test, tracked_model,
};
use provenance_tests::Evidence;
use provenance_tests::postgres::{Database, Private};
use serde_json::{Value as Json, json};

const ADA: &str = "ada@example.com";
const ALAN: &str = "alan@example.com";
const PHONE: &str = "+49 171 5550123";

/// Of another process than the one that a test has open.
fn config(storage: &Storage) -> Config {
    Config {
        storage: storage.clone(),
        service: "tests".into(),
        key: matches!(storage, Storage::Postgres(_)).then(|| Token("ab".repeat(32))),
        ..Config::default()
    }
}

/// In a file, and in a PostgreSQL database.
fn stores(change: impl Fn(&mut Config)) -> [(Evidence, Option<Database>); 2] {
    let database = Database::new("SELECT 1");
    let on_server = Evidence::on_server(&database, &change);
    [(Evidence::new(&change), None), (on_server, Some(database))]
}

/// Somebody signs up, and a newsletter service hears of it.
fn sign_up(tracker: &Tracker, email: &str, user: i32) {
    let _tracker = test::scoped(tracker);
    let _scope = Scope::new("HTTP POST /signup").enter();
    set_owner("email", email);
    link_owner(("user", user), ("email", email));
    let event = record_event("X_SIGNED_UP".parse().unwrap()).target("db:users");
    let event = event.value("contact.email", "email", email).unwrap();
    let event = event
        .value("financial.income", "income", 4_200.5 + f64::from(user))
        .unwrap();
    event.extra("words", format!("of user {user}")).submit();
    share("mailchimp", email);
}

/// Sends a text, and gives nothing but the record.
fn share(recipient: &str, payload: &str) {
    let share = provenance::share("https://api.example.com/lists").recipient(recipient);
    share.payload(payload.as_bytes()).begin().unwrap().sent();
}

/// The fields that are found in what is sent now.
fn found(evidence: &Evidence, payload: &str) -> usize {
    let _tracker = evidence.scoped();
    share("probe", payload);
    let shares = evidence.of("DATA_SHARE");
    shares.last().unwrap()["matched_tags"].as_array().unwrap().len()
}

fn pseudonyms(storage: &Storage) -> Pseudonyms {
    Pseudonyms::load(&config(storage)).unwrap()
}

/// Everything by which a person could be found in bytes: packed and in digits.
fn traces(storage: &Storage, email: &str, user: i32) -> Vec<Vec<u8>> {
    let pseudonyms = pseudonyms(storage);
    let owners = [("email", email.to_owned()), ("user", user.to_string())];
    let owners = owners.map(|(kind, identifier)| pseudonyms.owner(kind, &identifier).unwrap().as_str().to_owned());
    let digits = owners.map(|owner| owner.split_once(':').unwrap().1.to_owned());
    let email = pseudonyms.fingerprint(Kind::Email, email).unwrap().to_string();
    let income = (4_200.5 + f64::from(user)).to_string();
    let income = pseudonyms.fingerprint(Kind::Number, &income).unwrap().to_string();
    let digits = digits.into_iter().chain([email, income]);
    digits
        .flat_map(|digits| {
            let bytes = (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap());
            [bytes.collect(), digits.into_bytes()]
        })
        .collect()
}

/// How many of these bytes stand anywhere in the files, or in rows of the database.
fn standing(storage: &Storage, traces: &[Vec<u8>]) -> usize {
    match storage {
        Storage::Sqlite(path) => standing_in_files(path.parent().unwrap(), traces),
        Storage::Postgres(url) => {
            let rows = rows(&url.0);
            let hex = |trace: &[u8]| trace.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let stands =
                |trace: &&Vec<u8>| rows.contains(&hex(trace)) || rows.contains(&*String::from_utf8_lossy(trace));
            traces.iter().filter(stands).count()
        }
    }
}

/// Every row of every table as text, its bytes as digits.
fn rows(url: &str) -> String {
    #[derive(QueryableByName)]
    struct Text {
        #[diesel(sql_type = diesel::sql_types::Text)]
        text: String,
    }
    let mut connection = PgConnection::establish(url).unwrap();
    let mut text = |sql: String| diesel::sql_query(sql).load::<Text>(&mut connection).unwrap();
    let tables = text("SELECT tablename::text AS text FROM pg_tables WHERE schemaname = 'provenance'".into());
    assert!(tables.len() > 10);
    let all = tables
        .into_iter()
        .flat_map(|table| text(format!("SELECT t::text AS text FROM provenance.{} t", table.text)));
    all.map(|row| row.text).collect()
}

/// Another process looks: closing a file in this one would drop SQLite's locks on it.
fn standing_in_files(folder: &Path, traces: &[Vec<u8>]) -> usize {
    let mut cat = Command::new("find");
    let found = cat
        .arg(folder)
        .args(["-type", "f", "-exec", "cat", "{}", "+"])
        .output()
        .unwrap();
    let bytes = found.stdout;
    let stands = |trace: &&Vec<u8>| memchr::memmem::find(&bytes, trace).is_some();
    traces.iter().filter(stands).count()
}

fn holds(storage: &Storage) -> bool {
    let verified = Reader::connect(storage).unwrap().verify().unwrap();
    assert!(verified.is_ok(), "{:?}", verified.first_problem());
    true
}

/// All events, oldest first, as the audit API shows them.
fn events(storage: &Storage) -> Vec<Json> {
    let query = EventQuery {
        limit: 100_000,
        ..EventQuery::default()
    };
    let page = Reader::connect(storage).unwrap().events(&query).unwrap();
    let mut events: Vec<Json> = page.events.iter().map(|event| json!(event)).collect();
    events.reverse();
    events
}

fn of_person<'e>(events: &'e [Json], owner: &'e Owner) -> impl Iterator<Item = &'e Json> {
    let owner = owner.as_str();
    events
        .iter()
        .filter(move |event| event["extras"]["owner"] == owner || event["user_id"] == owner)
}

#[test]
fn one_person_goes_and_everybody_else_stays() {
    for (evidence, _database) in stores(|config| {
        let known = Recipient {
            legal_name: Some("The Rocket Science Group".into()),
            country: Some("US".into()),
            ..Recipient::default()
        };
        config.recipients.insert("mailchimp".into(), known);
    }) {
        for (email, user) in [(ADA, 1), (ALAN, 2)] {
            sign_up(&evidence.tracker, email, user);
        }
        let storage = evidence.storage();
        let before = evidence.events();
        let alan = pseudonyms(&storage).owner("email", ALAN).unwrap();
        let ada = pseudonyms(&storage).owner("email", ADA).unwrap();
        let traces = traces(&storage, ADA, 1);
        assert!(standing(&storage, &traces) >= 5, "bytes, and the link's digits");
        assert!(holds(&storage));

        let preview = evidence.tracker.erasure_preview("email", ADA).unwrap();
        assert_eq!((preview.identifiers, preview.events, preview.values), (2, 2, 2));
        assert_eq!(evidence.events(), before, "a preview changes nothing");
        let erased = evidence
            .tracker
            .erase("user", "1", &format!("ticket 17 of {ADA}"))
            .unwrap();
        assert_eq!((erased.identifiers, erased.events, erased.values), (2, 2, 2));
        assert!(erased.log_emptied && erased.damaged == 0);
        let told = json!(erased.to_be_told);
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
        assert_eq!(told[0]["recipient"], "mailchimp");
        assert_eq!(told[0]["legal_name"], "The Rocket Science Group");
        assert_eq!((&told[0]["country"], &told[0]["shares"]), (&json!("US"), &json!(1)));
        assert_eq!(told[0]["categories"], json!(["user.contact.email"]));

        assert!(holds(&storage));
        let after = evidence.events();
        let of = |events: &[Json]| -> Vec<Json> { of_person(events, &alan).cloned().collect() };
        assert_eq!(of(&before).len(), 2);
        assert_eq!(of(&before), of(&after));
        assert_eq!(of_person(&before, &ada).count(), 2);
        assert_eq!(of_person(&after, &ada).count(), 0);
        // What is left of hers says what was done, and to whom it went; not whose it was.
        let left: Vec<&Json> = after.iter().filter(|event| event["extras"]["erased"] == true).collect();
        assert_eq!(left.len(), 2);
        assert_eq!(left[0]["event_type"], "X_SIGNED_UP");
        assert_eq!(
            (&left[0]["target"], &left[0]["actor"]),
            (&json!("db:users"), &json!("HTTP POST /signup"))
        );
        assert_eq!(left[1]["extras"]["recipient"], "mailchimp");
        assert_eq!(left[1]["extras"]["outcome"], "sent");
        for event in left {
            assert_eq!((&event["matched_tags"], &event["payload"]), (&json!([]), &json!({})));
            assert!(event["request_id"].is_null() && event["user_id"].is_null() && event["extras"]["words"].is_null());
        }
        // The records, which name nobody.
        let records = evidence.of("DATA_ERASURE");
        let states: Vec<&Json> = records.iter().map(|record| &record["extras"]["state"]).collect();
        assert_eq!(states, ["begun", "done"]);
        for record in &records {
            assert_eq!(record["extras"]["owner"], erased.person.as_str());
            assert_eq!(record["extras"]["reason"], "ticket 17 of {value}");
            assert_eq!(record["extras"]["erasure"], erased.erasure.as_str());
        }
        assert_eq!(records[0]["extras"]["recipients"][0]["recipient"], "mailchimp");
        assert_eq!(records[1]["extras"]["events"], 2);
        assert_eq!(records[1]["event_id"], erased.event_id.as_deref().unwrap());
        assert_eq!(standing(&storage, &traces), 0);

        assert_eq!(found(&evidence, ADA), 0, "detection forgets at once");
        assert_eq!(found(&evidence, ALAN), 1);
        let evidence = evidence.restart();
        assert_eq!((found(&evidence, ADA), found(&evidence, ALAN)), (0, 1));
        assert!(holds(&storage));
        assert_eq!(standing(&storage, &traces), 0);
        // Again: nothing is left to do, and it is said again.
        let again = evidence.tracker.erase("email", ADA, "").unwrap();
        assert_eq!((again.events, again.values, again.to_be_told.len()), (0, 0, 0));
    }
}

#[test]
fn a_mailing_to_500_keeps_the_other_499() {
    for (evidence, _database) in stores(|_| {}) {
        let address = |n: u32| format!("reader-{n}@example.com");
        let everybody: Vec<String> = (0..500).map(address).collect();
        {
            let _tracker = evidence.scoped();
            for address in &everybody {
                let _scope = Scope::new("HTTP POST /signup").enter();
                set_owner("email", address);
                tag("contact.email", "email", address).unwrap();
            }
            share("mailchimp", &everybody.join(" "));
        }
        let shared = evidence.of("DATA_SHARE").remove(0);
        let tags = shared["matched_tags"].as_array().unwrap().clone();
        let whom = pseudonyms(&evidence.storage()).owner("email", &everybody[250]).unwrap();
        let erased = evidence.tracker.erase("email", &everybody[250], "").unwrap();
        assert_eq!((erased.events, erased.to_be_told.len()), (1, 1));
        assert!(holds(&evidence.storage()));
        let left = evidence.of("DATA_SHARE").remove(0);
        let others: Vec<Json> = tags
            .iter()
            .filter(|tag| tag["owner"] != whom.as_str())
            .cloned()
            .collect();
        assert!(
            tags.len() == others.len() + 1 && others.len() > 200,
            "{} of {}",
            others.len(),
            tags.len()
        );
        assert_eq!(left["matched_tags"], json!(others));
        assert_eq!(left["payload"], shared["payload"], "what is about many stays");
        assert_eq!(left["request_id"], shared["request_id"]);
        // And a second one of them.
        evidence.tracker.erase("email", &everybody[251], "").unwrap();
        let left = evidence.of("DATA_SHARE").remove(0);
        assert_eq!(left["matched_tags"].as_array().unwrap().len(), others.len() - 1);
        assert!(holds(&evidence.storage()));
    }
}

#[test]
fn a_value_of_two_stays_with_the_other() {
    for (evidence, _database) in stores(|_| {}) {
        for (email, user) in [(ADA, 1), (ALAN, 2)] {
            sign_up(&evidence.tracker, email, user);
            let _tracker = evidence.scoped();
            let _scope = Scope::new("HTTP POST /phone").enter();
            set_owner("email", email);
            tag("contact.phone_number", "phone", PHONE).unwrap();
        }
        assert_eq!(found(&evidence, PHONE), 2, "a tag for each");
        evidence.tracker.erase("email", ADA, "").unwrap();
        let evidence = evidence.restart();
        assert_eq!(found(&evidence, PHONE), 1);
        let shares = evidence.of("DATA_SHARE");
        let alan = pseudonyms(&evidence.storage()).owner("email", ALAN).unwrap();
        assert_eq!(shares.last().unwrap()["matched_tags"][0]["owner"], alan.as_str());
        evidence.tracker.erase("email", ALAN, "").unwrap();
        assert_eq!(found(&evidence, PHONE), 0);
    }
}

diesel::table! {
    users (id) { id -> Integer, email -> Text }
}

#[tracked_model(owner(email, id as "user"))]
#[derive(Queryable, Selectable, Insertable, AsChangeset, Identifiable)]
#[diesel(table_name = users, check_for_backend(diesel::sqlite::Sqlite))]
struct User {
    id: i32,
    #[tracked("contact.email")]
    email: String,
}

#[test]
fn a_load_of_an_old_row_does_not_bring_a_person_back_and_a_new_row_does() {
    for (evidence, _database) in stores(|_| {}) {
        let storage = evidence.storage();
        let user = || User {
            id: 1,
            email: ADA.into(),
        };
        let mut db = {
            let _tracker = evidence.scoped();
            let mut db = SqliteConnection::establish(":memory:").unwrap();
            db.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL)")
                .unwrap();
            diesel::insert_into(users::table)
                .values(user())
                .execute(&mut db)
                .unwrap();
            db
        };
        assert_eq!(found(&evidence, ADA), 1);
        let traces = traces(&storage, ADA, 1);
        evidence.tracker.erase("email", ADA, "").unwrap();
        let load = |evidence: &Evidence, db: &mut SqliteConnection| {
            let _tracker = evidence.scoped();
            let loaded: Vec<User> = users::table.select(User::as_select()).load(db).unwrap();
            assert_eq!(loaded[0].email, ADA);
        };
        for _ in 0..3 {
            load(&evidence, &mut db);
        }
        assert_eq!(found(&evidence, ADA), 0);
        let spots = Json::Object(evidence.tracker.status())["blind_spots"].clone();
        let met: Vec<&Json> = spots
            .as_array()
            .unwrap()
            .iter()
            .filter(|spot| spot["kind"] == "erased_person_met")
            .collect();
        assert_eq!((met.len(), &met[0]["count"]), (1, &json!(1)), "once a day: {spots}");
        // Nor after a restart; and an update of the old row says nothing of them either.
        let evidence = evidence.restart();
        load(&evidence, &mut db);
        {
            let _tracker = evidence.scoped();
            diesel::update(&user()).set(user()).execute(&mut db).unwrap();
        }
        assert_eq!(found(&evidence, ADA), 0);
        assert_eq!(standing(&storage, &traces), 0);
        // The row goes, and a new one comes.
        {
            let _tracker = evidence.scoped();
            diesel::delete(users::table).execute(&mut db).unwrap();
            diesel::insert_into(users::table)
                .values(user())
                .execute(&mut db)
                .unwrap();
        }
        assert_eq!(found(&evidence, ADA), 1);
        // That is kept.
        let evidence = evidence.restart();
        assert_eq!(found(&evidence, ADA), 1);
        // And so is the host's word.
        evidence.tracker.erase("email", ADA, "").unwrap();
        load(&evidence, &mut db);
        assert_eq!(found(&evidence, ADA), 0);
        evidence.tracker.readmit("user", "1").unwrap();
        load(&evidence, &mut db);
        assert_eq!(found(&evidence, ADA), 1);
    }
}

#[test]
fn other_processes_forget_within_two_seconds_and_sweep_what_they_wrote_meanwhile() {
    for (evidence, _database) in stores(|_| {}) {
        let storage = evidence.storage();
        sign_up(&evidence.tracker, ADA, 1);
        evidence.tracker.flush(Duration::from_secs(9)).unwrap();
        let other = Tracker::open(config(&storage)).unwrap();
        let traces = traces(&storage, ADA, 1);
        evidence.tracker.erase("email", ADA, "").unwrap();
        // Not heard of it yet.
        {
            let _tracker = test::scoped(&other);
            share("late", ADA);
        }
        std::thread::sleep(Duration::from_millis(2_000));
        {
            let _tracker = test::scoped(&other);
            share("later", ADA);
        }
        other.flush(Duration::from_secs(9)).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while standing(&storage, &traces) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(standing(&storage, &traces), 0);
        let shares = evidence.of("DATA_SHARE");
        assert_eq!(shares.len(), 3);
        assert!(
            shares.iter().all(|share| share["matched_tags"] == json!([])),
            "{shares:?}"
        );
        assert!(holds(&storage));
        // Who comes back in one, is back in the other.
        sign_up(&other, ADA, 1);
        other.flush(Duration::from_secs(9)).unwrap();
        std::thread::sleep(Duration::from_millis(2_200));
        let _tracker = evidence.scoped();
        let _scope = Scope::new("HTTP POST /login").enter();
        set_owner("email", ADA);
        tag("contact.email", "email", ADA).unwrap();
        drop(_scope);
        drop(_tracker);
        other.close();
        assert_eq!(found(&evidence, ADA), 0, "a scope's owner alone brings nobody back");
    }
}

const CHILD: &str = "PROVENANCE_TEST_ERASES";

/// Erases, as another process: run by the test below.
#[test]
fn erases_as_a_child() {
    let Ok(place) = std::env::var(CHILD) else {
        return;
    };
    let storage = match place.starts_with("postgres:") {
        true => Storage::Postgres(Token(place)),
        false => Storage::Sqlite(place.into()),
    };
    let tracker = Tracker::open(config(&storage)).unwrap();
    println!("\nbegins");
    tracker.erase("email", ADA, "ticket 17").unwrap();
    tracker.close();
}

/// Evidence as it was when it was closed, as often as it is asked for.
struct Copies {
    evidence: Evidence,
    database: Option<Database>,
}

/// What is removed when it is dropped.
enum Copy {
    File(tempfile::TempDir),
    Database(Database),
}

impl Copies {
    fn make(&self) -> Copy {
        match &self.database {
            Some(database) => Copy::Database(Database::copy_of(database)),
            None => {
                let to = tempfile::tempdir().unwrap();
                for file in ["provenance.db", "provenance.db.key"] {
                    std::fs::copy(self.evidence.folder.path().join(file), to.path().join(file)).unwrap();
                }
                Copy::File(to)
            }
        }
    }
}

impl Copy {
    /// As `--db` takes it.
    fn name(&self) -> String {
        match self {
            Copy::File(folder) => folder.path().join("provenance.db").to_str().unwrap().to_owned(),
            Copy::Database(database) => database.url(),
        }
    }

    fn storage(&self) -> Storage {
        match self {
            Copy::File(_) => Storage::Sqlite(self.name().into()),
            Copy::Database(_) => Storage::Postgres(Token(self.name())),
        }
    }
}

#[test]
fn killed_in_the_middle_it_goes_on_and_comes_to_the_same_end() {
    for (evidence, database) in stores(|_| {}) {
        for round in 0..250 {
            sign_up(&evidence.tracker, ADA, 1);
            if round % 25 == 0 {
                sign_up(&evidence.tracker, ALAN, 2);
            }
        }
        let traces = traces(&evidence.storage(), ADA, 1);
        evidence.tracker.close();
        let rounds = if database.is_some() { 8 } else { 12 };
        let copies = Copies { evidence, database };
        let rest = |storage: &Storage| -> Vec<Json> {
            let mut events = events(storage);
            events.retain(|event| event["event_type"] != "DATA_ERASURE");
            events
        };
        let erase = |storage: &Storage| {
            let tracker = Tracker::open(config(storage)).unwrap();
            let erased = tracker.erase("email", ADA, "ticket 17").unwrap();
            tracker.close();
            assert!(holds(storage));
            erased
        };
        let copy = copies.make();
        let began = Instant::now();
        let told = json!(erase(&copy.storage()).to_be_told);
        let takes = began.elapsed();
        let expected = rest(&copy.storage());
        assert_eq!(
            expected
                .iter()
                .filter(|event| event["extras"]["erased"] == true)
                .count(),
            500
        );
        let mut interrupted = 0;
        for round in 0..rounds {
            let copy = copies.make();
            let storage = copy.storage();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "erasure::erases_as_a_child", "--nocapture"])
                .env(CHILD, copy.name())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "begins"));
            std::thread::sleep(takes * round / rounds);
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(holds(&storage), "in the middle, too");
            let left = standing(&storage, &traces);
            let said = |state: &str| events(&storage).iter().any(|event| event["extras"]["state"] == state);
            // Once it is said to be done, what is left are bytes of the journal alone, and it may not be gone on with.
            let begun = said("begun") && !said("done");
            interrupted += u32::from(left > 0 && begun);
            let erased = erase(&storage);
            assert_eq!(standing(&storage, &traces), 0);
            assert_eq!(rest(&storage), expected);
            if begun && left > 0 {
                assert_eq!(json!(erased.to_be_told), told, "what was found before the interruption");
            }
        }
        assert!(
            interrupted > 0,
            "killed too early or too late: {interrupted} of {rounds}"
        );
    }
}

#[test]
fn events_and_tags_end_with_their_retention() {
    for (evidence, _database) in stores(|config| {
        config.retention.insert("X_SIGNED_UP".into(), Duration::from_secs(1));
        config.retention.insert("contact.email".into(), Duration::from_secs(1));
    }) {
        let storage = evidence.storage();
        sign_up(&evidence.tracker, ADA, 1);
        let began = Instant::now();
        assert_eq!(evidence.events().len(), 2);
        let traces = traces(&evidence.storage(), ADA, 1);
        let fingerprint = pseudonyms(&evidence.storage()).fingerprint(Kind::Email, ADA).unwrap();
        assert!(standing(&storage, &traces) > 0);
        let ended = |evidence: &Evidence| {
            let events = evidence.events();
            let shares: Vec<&Json> = events
                .iter()
                .filter(|event| event["event_type"] == "DATA_SHARE")
                .collect();
            !events.iter().any(|event| event["event_type"] == "X_SIGNED_UP")
                && shares.len() == 1
                && shares[0]["matched_tags"] == json!([])
        };
        while !ended(&evidence) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", evidence.events());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(began.elapsed() > Duration::from_secs(1));
        assert!(holds(&evidence.storage()));
        let records = evidence.of("DATA_ERASURE");
        let said = |key: &str| records.iter().any(|record| !record["extras"][key].is_null());
        assert!(said("event_type") && said("category"), "{records:?}");
        assert!(records.iter().all(|record| record["extras"]["kind"] == "retention"));
        let share = evidence.of("DATA_SHARE").remove(0);
        assert_eq!(
            share["extras"]["recipient"], "mailchimp",
            "of the event only the tag went"
        );
        // Its value is no longer kept either.
        let mut stands = vec![fingerprint.to_string().into_bytes()];
        let digits = fingerprint.to_string();
        stands.push(
            (0..32)
                .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
                .collect(),
        );
        while standing(&storage, &stands) > 0 {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(100));
        }
        let summary = Reader::connect(&storage).unwrap().summary().unwrap();
        assert_eq!((summary.events["X_SIGNED_UP"], summary.events["DATA_SHARE"]), (0, 1));
        let evidence = evidence.restart();
        assert!(holds(&evidence.storage()));
    }
}

/// Somebody with other tools.
fn sql(storage: &Storage, sql: &str) {
    match storage {
        Storage::Sqlite(path) => SqliteConnection::establish(path.to_str().unwrap())
            .unwrap()
            .batch_execute(sql),
        Storage::Postgres(url) => PgConnection::establish(&url.0)
            .unwrap()
            .batch_execute(&format!("SET search_path = provenance; {sql}")),
    }
    .unwrap();
}

#[test]
fn what_is_pruned_by_hand_is_covered_by_a_record_and_what_is_not_is_named() {
    for (evidence, database) in stores(|_| {}) {
        for round in 0..300 {
            sign_up(
                &evidence.tracker,
                if round % 2 == 0 { ADA } else { ALAN },
                1 + round % 2,
            );
        }
        evidence.tracker.flush(Duration::from_secs(9)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let now = Timestamp::now();
        std::thread::sleep(Duration::from_millis(20));
        sign_up(&evidence.tracker, ADA, 1);
        assert!(
            evidence
                .tracker
                .prune("data_share", now, "", true)
                .unwrap_err()
                .is_input()
        );
        let preview = evidence.tracker.prune("DATA_SHARE", now, "", true).unwrap();
        assert_eq!((preview.events, preview.event_id), (300, None));
        assert_eq!(evidence.of("DATA_SHARE").len(), 301);
        let storage = evidence.storage();
        evidence.tracker.flush(Duration::from_secs(9)).unwrap();
        let pruned = evidence.tracker.prune("DATA_SHARE", now, "ticket 3", false).unwrap();
        assert_eq!(pruned.events, 300);
        assert_eq!(evidence.of("DATA_SHARE").len(), 1);
        assert_eq!(evidence.of("X_SIGNED_UP").len(), 301);
        let record = evidence.of("DATA_ERASURE").remove(0);
        assert_eq!(record["event_id"], pruned.event_id.unwrap());
        assert_eq!(
            (&record["extras"]["event_type"], &record["extras"]["reason"]),
            (&json!("DATA_SHARE"), &json!("ticket 3"))
        );
        assert!(holds(&storage));
        let nothing = evidence.tracker.prune("DATA_SHARE", now, "", false).unwrap();
        assert_eq!((nothing.events, nothing.event_id), (0, None));
        // Asked for by what they held, stubs are not shown either.
        let query = EventQuery {
            limit: 1000,
            recipient: Some("mailchimp".into()),
            ..EventQuery::default()
        };
        let page = Reader::connect(&storage).unwrap().events(&query).unwrap();
        assert_eq!(page.events.len(), 1);
        // The records themselves stay.
        std::thread::sleep(Duration::from_millis(5));
        evidence
            .tracker
            .prune("DATA_ERASURE", Timestamp::now(), "", false)
            .unwrap();
        assert!(holds(&storage));
        assert!(
            evidence
                .of("DATA_ERASURE")
                .iter()
                .any(|record| record["extras"]["event_type"] == "DATA_SHARE")
        );
        evidence.tracker.close();

        // In a copy somebody changes the record that covers the stubs; in another one what is left of a stub.
        let copies = Copies { evidence, database };
        let first_problem = |edit: &str| {
            let copy = copies.make();
            sql(&copy.storage(), edit);
            let verified = Reader::connect(&copy.storage()).unwrap().verify().unwrap();
            let problem = verified.first_problem().cloned().unwrap();
            assert!(problem.event_id.unwrap().ends_with("-2"));
            problem.what
        };
        let uncovered = first_problem("UPDATE events SET extras = payload WHERE event_type = 7");
        assert!(uncovered.contains("no record of a retention covers it"), "{uncovered}");
        first_problem("UPDATE events SET at = at + 1, after = after - 1000 WHERE seq = 2");
    }
}

#[test]
fn a_reader_that_stays_is_told_of() {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    fn stays<C: Connection>(evidence: &Evidence, mut reader: C, begin: &str, count: &'static str)
    where
        diesel::query_builder::SqlQuery: for<'q> diesel::query_dsl::methods::LoadQuery<'q, C, Count>,
    {
        sign_up(&evidence.tracker, ADA, 1);
        evidence.tracker.flush(Duration::from_secs(9)).unwrap();
        reader.batch_execute(begin).unwrap();
        assert!(diesel::sql_query(count).get_result::<Count>(&mut reader).unwrap().n > 0);
        assert!(!evidence.tracker.erase("email", ADA, "").unwrap().log_emptied);
        reader.batch_execute("COMMIT").unwrap();
        assert!(evidence.tracker.erase("email", ADA, "").unwrap().log_emptied);
    }
    let [(in_file, _), (on_server, database)] = stores(|_| {});
    let file = SqliteConnection::establish(in_file.database().to_str().unwrap()).unwrap();
    stays(&in_file, file, "BEGIN", "SELECT count(*) AS n FROM events");
    let server = database.as_ref().unwrap().connect();
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    stays(&on_server, server, begin, "SELECT count(*) AS n FROM provenance.events");
}

/// The command, on evidence of the tests.
fn command(db: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(provenance_tests::program("provenance-audit"));
    if db.starts_with("postgres:") {
        command.env("RUNTIME_TRACKING_KEY", "ab".repeat(32));
    }
    let (name, rest) = arguments.split_first().unwrap();
    let output = command.args([name, "--db", db]).args(rest).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn the_command_asks_first_and_repeats_erasures_on_a_restored_backup() {
    for (evidence, database) in stores(|_| {}) {
        for (email, user) in [(ADA, 1), (ALAN, 2)] {
            sign_up(&evidence.tracker, email, user);
        }
        evidence.tracker.close();
        let traces = traces(&evidence.storage(), ADA, 1);
        let copies = Copies { evidence, database };
        let (now, restored) = (copies.make(), copies.make());
        let (db, storage) = (&*now.name(), now.storage());
        let elsewhere = tempfile::tempdir().unwrap();
        let log = elsewhere.path().join("erasures.jsonl");
        let log = log.to_str().unwrap();
        let owner = format!("email:{ADA}");
        let (code, said) = command(db, &["erase", "--owner", &owner]);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("to be told: mailchimp") && said.contains("nothing was changed"),
            "{said}"
        );
        assert!(standing(&storage, &traces) > 0);
        let reason = format!("asked by {ADA}");
        let (code, said) = command(
            db,
            &["erase", "--owner", &owner, "--reason", &reason, "--log", log, "--yes"],
        );
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains(ADA));
        assert_eq!(standing(&storage, &traces), 0);
        assert!(holds(&storage));
        let records: Vec<Json> = events(&storage);
        let record = records
            .iter()
            .rfind(|event| event["event_type"] == "DATA_ERASURE")
            .unwrap();
        assert_eq!(record["extras"]["reason"], "asked by {value}");
        assert!(
            record["actor"]
                .as_str()
                .unwrap()
                .starts_with("provenance-audit erase (")
        );
        // Repeated where it was done, nothing happens.
        let replay = ["erase", "--replay", log, "--yes"];
        let (code, said) = command(db, &replay);
        assert!(code == Some(0) && said.contains("is done already"), "{said}");

        assert!(standing(&restored.storage(), &traces) > 0);
        let (code, said) = command(&restored.name(), &replay);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(standing(&restored.storage(), &traces), 0);
        assert!(holds(&restored.storage()));
        let (_, said) = command(&restored.name(), &replay);
        assert!(said.contains("is done already"), "{said}");
        let alan = pseudonyms(&restored.storage()).owner("email", ALAN).unwrap();
        assert_eq!(of_person(&events(&restored.storage()), &alan).count(), 2);

        let prune = ["prune", "--before", "2100-01-01", "--type", "X_SIGNED_UP"];
        let (code, said) = command(db, &prune);
        assert!(code == Some(0) && said.contains("2 would end"), "{said}");
        let (code, said) = command(db, &[&prune[..], &["--yes"]].concat());
        assert!(
            code == Some(0) && said.contains("2 events and 0 values ended"),
            "{said}"
        );
        let (code, said) = command(db, &["verify"]);
        assert!(code == Some(0), "{said}");
    }
    let (code, said) = command("/nowhere/at/all.db", &["erase", "--owner", &format!("email:{ADA}")]);
    assert!(code == Some(2) && !said.contains(ADA), "{said}");
}

#[test]
fn after_the_documented_steps_a_servers_files_hold_nothing_of_them() {
    let server = Private::start();
    let config = Config {
        key: Some(Token("ab".repeat(32))),
        ..config(&Storage::Postgres(Token(server.url())))
    };
    let storage = config.storage.clone();
    let tracker = Tracker::open(config).unwrap();
    for (email, user) in [(ADA, 1), (ALAN, 2)] {
        sign_up(&tracker, email, user);
    }
    tracker.flush(Duration::from_secs(9)).unwrap();
    let (hers, his) = (traces(&storage, ADA, 1), traces(&storage, ALAN, 2));
    let files = |traces: &[Vec<u8>]| {
        sql(&storage, "CHECKPOINT");
        standing_in_files(Path::new(&server.data()), traces)
    };
    let whole = files(&hers);
    assert!(whole >= 5 && files(&his) == whole);
    assert!(tracker.erase("email", ADA, "").unwrap().log_emptied);
    assert_eq!(standing(&storage, &hers), 0);
    assert!(files(&hers) > 0, "what a vacuum frees is not written over yet");
    // docs/the-store.md
    for step in ["VACUUM FULL", "SELECT pg_switch_wal()", "CHECKPOINT"] {
        PgConnection::establish(&server.url())
            .unwrap()
            .batch_execute(step)
            .unwrap();
    }
    assert_eq!(files(&hers), 0);
    assert_eq!(files(&his), whole);
    tracker.close();
    assert!(holds(&storage));
}
