//! The store on real files: what it keeps, what it refuses, and what it notices.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::write::{Instance, Record, Value, Writer, is_empty};
use super::{EventQuery, FingerprintQuery, Reader, StoredEvent};
use super::{FlowQuery, postings};
use crate::Error;
use crate::detect::Entry;
use crate::key::{Keys, Origin};
use crate::recorder::Recorder;
use crate::ticket::Ticket;
use crate::vocabulary::{Event, EventTag, EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp};

/// A failure is shown with its input; files of seeds beside the sources would only gather dust.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(super) fn keys() -> Keys {
    Keys::from_master(&[7; 32], 1, Origin::Environment)
}

pub(super) fn instance(n: u64) -> Instance {
    Instance {
        id: n.to_be_bytes(),
        service: "shop".into(),
        environment: Some("test".into()),
        build: "b0".into(),
    }
}

pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(super) fn db(&self) -> PathBuf {
        self.0.path().join("evidence #1?.db")
    }

    pub(super) fn writer(&self, n: u64) -> Writer {
        Writer::open(&self.db(), &keys(), &instance(n)).unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.db()).unwrap()
    }

    /// Somebody with other tools.
    fn sql(&self, sql: &str) {
        raw(&self.db()).batch_execute(sql).unwrap();
    }
}

pub(super) fn raw(path: &Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    connection
}

fn owner(name: &str) -> Owner {
    Owner::from_stored(&format!("email:{name}")).unwrap()
}

pub(super) fn tag(byte: u8, category: &str, whose: Option<&str>) -> Tag {
    Tag {
        fingerprint: Some(Fingerprint([byte; 32])),
        category: category.into(),
        field: "email".into(),
        description: "Email address".into(),
        owner: whose.map(owner),
        source: "HTTP POST /signup".into(),
        pii: true,
        created_at: Timestamp(1_000_000 + i64::from(byte)),
    }
}

pub(super) fn event(event_type: EventType, at: i64, tags: Vec<Tag>) -> Event {
    let mut event = Event::new(event_type, "HTTP POST /signup");
    event.created_at = Timestamp(at);
    event.target = Some("db:users".into());
    event.owner = Some(owner("a"));
    event.request_id = Some("r1".into());
    event.user_id = Some("u1".into());
    event.payload = Map::from_iter([("email".into(), json!({"type": "string", "length": 17}))]);
    event.extras = Map::from_iter([("purpose".into(), json!("newsletter"))]);
    event.tags = tags
        .into_iter()
        .map(|tag| EventTag {
            tag,
            detail: Map::from_iter([("place".into(), json!("body")), ("category".into(), json!("shadowed"))]),
        })
        .collect();
    event
}

pub(super) fn record(event: Event) -> Record {
    Record::Event(Box::new(event), Ticket::default())
}

fn value(tag: Tag) -> Record {
    let fingerprint = tag.fingerprint.unwrap();
    Record::Value(Box::new(Value {
        fingerprint,
        kind: Kind::Email,
        entry: entry(),
        tag: Arc::new(tag),
    }))
}

/// Any entry that reads back as itself.
fn entry() -> Entry {
    crate::detect::Detector::new(&[1; 32]).entry(Kind::Email, "alice@example.com")
}

fn all() -> EventQuery {
    EventQuery {
        limit: 1000,
        ..EventQuery::default()
    }
}

fn events(folder: &Folder) -> Vec<StoredEvent> {
    folder.reader().events(&all()).unwrap().events
}

fn outcome_of(event: &StoredEvent) -> &str {
    event.extras["outcome"].as_str().unwrap()
}

#[test]
fn an_event_comes_back_as_it_went_in() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    let mut share = event(
        EventType::DataShare,
        5_000_000,
        vec![tag(1, "contact.email", Some("a"))],
    );
    share.recipient = Some("mailchimp".into());
    share.tags[0].tag.fingerprint = None;
    let ticket = Ticket::default();
    writer
        .append(&[Record::Event(Box::new(share), ticket.clone())], None)
        .unwrap();
    assert_eq!(ticket.seq(), Some(1));

    // The writer is still open: this is a reader beside a live service.
    let page = folder.reader().events(&all()).unwrap();
    let mut shown = serde_json::to_value(&page).unwrap();
    assert_eq!(
        shown["events"][0].as_object_mut().unwrap().remove("extras").unwrap(),
        json!({
            "purpose": "newsletter", "owner": "email:a", "recipient": "mailchimp", "service": "shop",
            "environment": "test", "build": "b0", "instance": "0000000000000001", "outcome": "pending",
        })
    );
    assert_eq!(
        shown,
        json!({"events": [{
            "event_id": "0000000000000001-1", "created_at": "1970-01-01T00:00:05.000000Z",
            "event_type": "DATA_SHARE", "actor": "HTTP POST /signup", "target": "db:users",
            "payload": {"email": {"type": "string", "length": 17}}, "request_id": "r1", "user_id": "u1",
            "matched_tags": [{
                "fingerprint": null, "category": "contact.email", "field": "email",
                "description": "Email address", "owner": "email:a", "source": "HTTP POST /signup", "pii": true,
                "created_at": "1970-01-01T00:00:01.000001Z", "place": "body",
            }],
        }], "next_cursor": null})
    );
}

#[test]
fn outcomes_are_rows_of_their_own_and_are_folded() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    let outcomes = [
        Some(Outcome::Status(204)),
        Some(Outcome::Sent),
        Some(Outcome::Error("timeout")),
        Some(Outcome::Blocked),
        Some(Outcome::Unknown),
        None,
    ];
    let tickets: Vec<_> = outcomes.iter().map(|_| Ticket::default()).collect();
    let shares: Vec<_> = (0..)
        .zip(&tickets)
        .map(|(at, ticket)| Record::Event(Box::new(event(EventType::DataShare, at, vec![])), ticket.clone()))
        .collect();
    writer.append(&shares, None).unwrap();
    let outcome = |of: &Ticket, outcome| Record::Outcome {
        of: of.clone(),
        outcome,
        created_at: Timestamp(9),
        late: None,
    };
    let ends: Vec<_> = tickets
        .iter()
        .zip(outcomes)
        .filter_map(|(ticket, end)| Some(outcome(ticket, end?)))
        .collect();
    writer.append(&ends, None).unwrap();
    // Of an event that never reached the disk.
    writer
        .append(&[outcome(&Ticket::default(), Outcome::Sent)], None)
        .unwrap();

    let shown = events(&folder);
    let words: Vec<_> = shown.iter().rev().map(outcome_of).collect();
    assert_eq!(words, ["status", "sent", "error", "blocked", "unknown", "pending"]);
    assert_eq!(shown[5].extras["status"], 204);
    assert_eq!(shown[5].extras["outcome_at"], "1970-01-01T00:00:00.000009Z");
    assert_eq!(shown[3].extras["error"], "timeout");
    let summary = folder.reader().summary().unwrap();
    assert_eq!(summary.events["DATA_SHARE"], 6);
    assert_eq!(summary.chain["last_seq"], 11);
    assert!(folder.reader().verify().unwrap().is_ok());

    // A share and its outcome within one batch.
    let ticket = Ticket::default();
    let share = Record::Event(Box::new(event(EventType::DataShare, 100, vec![])), ticket.clone());
    writer.append(&[share, outcome(&ticket, Outcome::Sent)], None).unwrap();
    assert_eq!(outcome_of(&events(&folder)[0]), "sent");

    // The service starts anew: what was not said by then is unknown.
    drop(writer);
    let mut other = instance(2);
    other.service = "another".into();
    Writer::open(&folder.db(), &keys(), &other).unwrap();
    assert_eq!(outcome_of(&events(&folder)[1]), "pending");
    std::thread::sleep(Duration::from_millis(2));
    folder.writer(3);
    assert_eq!(outcome_of(&events(&folder)[1]), "unknown");
}

#[test]
fn an_instance_that_ended_leaves_nothing_pending() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    writer
        .append(&[record(event(EventType::DataShare, 1, vec![]))], None)
        .unwrap();
    assert_eq!(outcome_of(&events(&folder)[0]), "pending");
    writer.end().unwrap();
    assert_eq!(outcome_of(&events(&folder)[0]), "unknown");
}

#[test]
fn filters_select() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    let mut share = event(
        EventType::DataShare,
        30,
        vec![tag(1, "contact.email", None), tag(2, "contact.email", None)],
    );
    share.recipient = Some("mailchimp".into());
    share.request_id = Some("r2".into());
    writer
        .append(
            &[
                record(event(
                    EventType::DataCollection,
                    10,
                    vec![tag(1, "contact.email", None)],
                )),
                record(event(
                    EventType::DataStorage,
                    20,
                    vec![tag(3, "financial.income", None)],
                )),
                record(share),
            ],
            None,
        )
        .unwrap();
    let mut reader = folder.reader();
    let mut select = |change: &dyn Fn(&mut EventQuery)| {
        let mut query = all();
        change(&mut query);
        let page = reader.events(&query).unwrap();
        page.events.iter().map(|e| e.created_at.0).collect::<Vec<_>>()
    };
    assert_eq!(select(&|_| {}), [30, 20, 10]);
    assert_eq!(select(&|q| q.event_type = Some("DATA_STORAGE".into())), [20]);
    assert_eq!(select(&|q| q.event_type = Some("X_NEVER".into())), [] as [i64; 0]);
    assert_eq!(select(&|q| q.since = Some(Timestamp(20))), [30, 20]);
    assert_eq!(select(&|q| q.until = Some(Timestamp(20))), [10]);
    assert_eq!(select(&|q| q.category = Some("contact.email".into())), [30, 10]);
    assert_eq!(select(&|q| q.recipient = Some("mailchimp".into())), [30]);
    assert_eq!(select(&|q| q.request_id = Some("r1".into())), [20, 10]);
    assert_eq!(
        select(&|q| {
            q.category = Some("contact.email".into());
            q.event_type = Some("DATA_COLLECTION".into());
            q.request_id = Some("r1".into());
            q.until = Some(Timestamp(30));
        }),
        [10]
    );
    assert_eq!(
        select(&|q| {
            q.category = Some("contact.email".into());
            q.recipient = Some("nobody".into());
        }),
        [] as [i64; 0]
    );
    assert_eq!(select(&|q| q.limit = 0), [] as [i64; 0]);
}

#[test]
fn every_filter_has_an_index() {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = diesel::sql_types::Text)]
        detail: String,
    }
    let folder = Folder::new();
    drop(folder.writer(1));
    let mut connection = raw(&folder.db());
    let order = "ORDER BY at DESC, n DESC, seq DESC LIMIT 100";
    for (sql, index) in [
        (
            format!("SELECT at, n, seq FROM events WHERE outcome_of IS NULL AND event_type = 1 AND (at, n, seq) < (5, 1, 1) {order}"),
            "events_by_type (event_type=? AND (at,n,seq)<",
        ),
        ("SELECT seq FROM events WHERE n = 1 AND outcome_of IN (1, 2) ORDER BY outcome_of, seq".into(), "events_by_share"),
        (
            "SELECT id FROM postings WHERE segment = 1 AND (term, at, n, seq) < (1, 2, 3, 4) \
             ORDER BY term DESC, at DESC, n DESC, seq DESC LIMIT 1"
                .into(),
            "postings_by_term (segment=? AND (term,at,n,seq)<",
        ),
        ("SELECT * FROM fingerprints ORDER BY created_at DESC, n DESC, id DESC LIMIT 9".into(), "fingerprints_by_time"),
        (
            "SELECT * FROM fingerprints WHERE category = 7 AND created_at <= 5 ORDER BY created_at DESC, n DESC, id DESC LIMIT 9".into(),
            "fingerprints_by_category (category=? AND created_at<?)",
        ),
    ] {
        let plan: Vec<Plan> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load(&mut connection).unwrap();
        let plan: Vec<_> = plan.into_iter().map(|row| row.detail).collect();
        assert!(plan[0].contains(index), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{sql}: {plan:?}");
    }
}

#[test]
fn what_came_before_a_time_is_found_at_once_in_a_busy_file() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    let seen = |at: i64| record(event(EventType::DataStorage, at, vec![]));
    // A hundred, then thousands within seconds, among them one that comes late.
    let times = (0..100).chain([103, 50]).chain(200..9_200);
    let records: Vec<_> = times.map(|at| seen(1000 * at)).collect();
    writer.append(&records, None).unwrap();
    let query = EventQuery {
        until: Some(Timestamp(51_000)),
        ..all()
    };
    let page = folder.reader().events(&query).unwrap();
    let seqs: Vec<_> = page
        .events
        .iter()
        .map(|event| event.event_id[17..].to_owned())
        .collect();
    let expected: Vec<_> = [102]
        .into_iter()
        .chain((1..=51).rev())
        .map(|seq: i64| seq.to_string())
        .collect();
    assert_eq!(seqs, expected);
    assert!(page.next_cursor.is_none());
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn pages_give_every_event_once_and_in_order(
        times in proptest::collection::vec((0_i64..6, 0_usize..3, any::<bool>(), proptest::bool::weighted(0.3)), 0..40),
        limit in 1_usize..8,
        by_category in any::<bool>(),
        until in proptest::option::of(0_i64..7_000),
    ) {
        let folder = Folder::new();
        let mut expected = Vec::new();
        // Ids above i64::MAX are negative in the file.
        let mut writers: Vec<_> = [1, 2, u64::MAX].map(|n| (folder.writer(n), 0, 0)).into();
        for (at, who, tagged, indexed) in times {
            let (writer, seq, latest) = &mut writers[who];
            *seq += 1;
            let tags = if tagged { vec![tag(1, "contact.email", None), tag(2, "contact.email", None)] } else { vec![] };
            writer.append(&[record(event(EventType::DataStorage, 1000 * at, tags))], None).unwrap();
            if indexed {
                while writer.maintain(true).unwrap() {}
            }
            // In the order of the chain, whatever the clock does.
            *latest = at.max(*latest);
            if (tagged || !by_category) && until.is_none_or(|until| 1000 * at < until) {
                expected.push((*latest, who, *seq, 1000 * at));
            }
        }
        expected.sort_by(|a, b| b.cmp(a));
        let mut reader = folder.reader();
        let mut query = EventQuery { limit, ..EventQuery::default() };
        query.category = by_category.then(|| "contact.email".into());
        query.until = until.map(Timestamp);
        let mut shown = Vec::new();
        loop {
            let page = reader.events(&query).unwrap();
            prop_assert!(page.events.len() <= limit);
            prop_assert!(page.next_cursor.is_none() || page.events.len() == limit);
            prop_assert!(shown.len() <= expected.len(), "going round in circles");
            shown.extend(page.events.into_iter().map(|e| (e.created_at.0, e.event_id)));
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        let id = |who: usize| [1, 2, u64::MAX][who];
        let expected: Vec<_> =
            expected.into_iter().map(|(_, who, seq, at)| (at, format!("{:016x}-{seq}", id(who)))).collect();
        prop_assert_eq!(shown, expected);
    }

    #[test]
    fn pages_give_every_fingerprint_once(
        rows in proptest::collection::btree_set((0_u8..4, 0_usize..3, 0_usize..4), 0..30),
        limit in 1_usize..6,
    ) {
        let folder = Folder::new();
        let mut writer = folder.writer(1);
        let categories = ["contact.email", "contact.phone", "financial.income"];
        let people = [None, Some("a"), Some("b"), Some("c")];
        let values: Vec<_> = rows.iter().map(|&(byte, c, o)| {
            let mut tag = tag(byte, categories[c], people[o]);
            tag.created_at = Timestamp(i64::from(byte / 2));
            value(tag)
        }).collect();
        writer.append(&values, None).unwrap();
        let mut reader = folder.reader();
        let mut query = FingerprintQuery { limit, ..FingerprintQuery::default() };
        let mut shown = Vec::new();
        loop {
            let page = reader.fingerprints(&query).unwrap();
            prop_assert!(shown.len() <= rows.len(), "going round in circles");
            for f in page.fingerprints {
                shown.push((f.first_seen_at.0, f.fingerprint, f.category, f.owner));
            }
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(shown.len(), rows.len());
        prop_assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), rows.len());
        prop_assert!(shown.is_sorted_by(|a, b| a.0 >= b.0));
    }

    #[test]
    fn a_cursor_from_elsewhere_is_an_input_error(cursor in "[0-9a-fA-F+-]{0,120}|\\PC{0,20}|[0-9a-f]{48}|f[0-9a-f]{48}") {
        let folder = Folder::new();
        drop(folder.writer(1));
        let mut reader = folder.reader();
        let given = reader.events(&EventQuery { cursor: Some(cursor.clone()), ..all() });
        let is_ours = |length| cursor.len() == length && cursor.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match given {
            Ok(page) => prop_assert!(is_ours(48) && page.events.is_empty()),
            Err(e) => prop_assert!(e.is_input() && e.to_string().starts_with("cursor:") && !is_ours(48)),
        }
        let given = reader.fingerprints(&FingerprintQuery { limit: 9, cursor: Some(cursor.clone()), ..Default::default() });
        match given {
            Ok(_) => prop_assert!(is_ours(49) && cursor.starts_with('f')),
            Err(e) => prop_assert!(e.is_input() && e.to_string().starts_with("cursor:")),
        }
    }
}

#[test]
fn fingerprints_are_summed_up_over_batches() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    let email = || tag(1, "contact.email", Some("a"));
    writer
        .append(&[value(email()), value(tag(2, "contact.phone", None))], None)
        .unwrap();
    writer
        .append(
            &[
                record(event(EventType::DataCollection, 5_000_000, vec![email(), email()])),
                record(event(EventType::DataStorage, 7_000_000, vec![email()])),
                // Another owner, and one that was never registered.
                record(event(
                    EventType::DataStorage,
                    8_000_000,
                    vec![tag(1, "contact.email", Some("b")), tag(9, "x.unknown", None)],
                )),
            ],
            None,
        )
        .unwrap();
    writer
        .append(&[record(event(EventType::DataStorage, 6_000_000, vec![email()]))], None)
        .unwrap();

    let mut reader = folder.reader();
    let page = reader
        .fingerprints(&FingerprintQuery {
            limit: 10,
            ..Default::default()
        })
        .unwrap();
    assert_eq!(page.fingerprints.len(), 2);
    let (phone, email) = (&page.fingerprints[0], &page.fingerprints[1]);
    assert_eq!(email.fingerprint, "01".repeat(32));
    assert_eq!(email.owner.as_deref(), Some("email:a"));
    assert_eq!(email.first_seen_event_id.as_deref(), Some("0000000000000001-1"));
    assert_eq!(
        (email.first_seen_at.0, email.last_seen_at.0, email.count),
        (1_000_001, 7_000_000, 3)
    );
    assert_eq!(
        (
            phone.first_seen_event_id.as_deref(),
            phone.count,
            phone.owner.as_deref()
        ),
        (None, 0, None)
    );
    let query = FingerprintQuery {
        limit: 10,
        category: Some("contact.phone".into()),
        cursor: None,
    };
    assert_eq!(reader.fingerprints(&query).unwrap().fingerprints.len(), 1);
    assert_eq!(reader.summary().unwrap().fingerprints, 2);
}

/// The writer has the rows in memory; an erasure by another process has not told it yet.
#[test]
fn what_others_changed_meanwhile_is_indexed_as_it_is_now() {
    for changed in [false, true] {
        let folder = Folder::new();
        let mut writer = folder.writer(1);
        let tags = vec![tag(1, "contact.email", Some("a"))];
        writer
            .append(&[record(event(EventType::DataStorage, 1, tags))], None)
            .unwrap();
        if changed {
            folder.sql("UPDATE events SET tags = x''");
        }
        while writer.maintain(true).unwrap() {}
        let mut entries = 0;
        let term = postings::Term::fingerprint(&[1; 32]);
        postings::each(&mut raw(&folder.db()), |entry| entries += usize::from(entry.0 == term)).unwrap();
        assert_eq!(entries, usize::from(!changed));
    }
}

#[test]
fn what_a_process_that_died_left_is_indexed_by_one_that_knows_its_values() {
    // Who was told of one value only cannot say in which events the others were.
    for (most, taken_over) in [(1, false), (10, true)] {
        let folder = Folder::new();
        let mut writer = folder.writer(1);
        let tags: Vec<_> = (0..5).map(|byte| tag(byte, "contact.email", Some("a"))).collect();
        let mut batch: Vec<_> = tags.iter().cloned().map(value).collect();
        batch.push(record(event(EventType::DataStorage, 1, tags)));
        writer.append(&batch, None).unwrap();
        drop(writer);
        let mut next = folder.writer(2);
        next.restore(most).unwrap();
        while next.maintain(true).unwrap() {}
        let mut entries = 0;
        postings::each(&mut raw(&folder.db()), |_| entries += 1).unwrap();
        assert_eq!(entries > 0, taken_over, "{most}");
        let query = FingerprintQuery {
            limit: 10,
            ..FingerprintQuery::default()
        };
        let found = folder.reader().fingerprints(&query).unwrap().fingerprints;
        assert!(found.iter().all(|value| value.count == 1), "{found:?}");
    }
}

/// By time, not by who indexed it first: the first process's event is indexed last, or not yet.
#[test]
fn a_value_was_first_seen_where_it_was_seen_first() {
    for is_indexed in [false, true] {
        let folder = Folder::new();
        let email = || tag(1, "contact.email", Some("a"));
        // Of now: whose last event is older counts as gone, and its index is taken over.
        let now = Timestamp::now().0;
        let seen = |after| record(event(EventType::DataStorage, now + after, vec![email()]));
        let mut first = folder.writer(1);
        first.append(&[value(email()), seen(1_000)], None).unwrap();
        let mut second = folder.writer(2);
        second.restore(10).unwrap();
        second.append(&[seen(2_000)], None).unwrap();
        if is_indexed {
            while second.maintain(true).unwrap() {}
            while first.maintain(true).unwrap() {}
        }
        let query = FingerprintQuery {
            limit: 10,
            ..FingerprintQuery::default()
        };
        let found = folder.reader().fingerprints(&query).unwrap().fingerprints;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].first_seen_event_id.as_deref(), Some("0000000000000001-1"));
        assert_eq!(found[0].count, 2);
    }
}

#[test]
fn values_and_links_survive_a_restart() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    let values: Vec<_> = (1..=5)
        .map(|byte| value(tag(byte, "contact.email", Some("a"))))
        .collect();
    writer.append(&values, None).unwrap();
    // Known already: neither doubled nor renewed.
    writer
        .append(&[value(tag(5, "contact.email", Some("a")))], None)
        .unwrap();
    let (a, b) = (owner("a"), Owner::from_stored("user:7").unwrap());
    writer
        .append(
            &[Record::Link(a.clone(), b.clone()), Record::Link(b.clone(), a.clone())],
            None,
        )
        .unwrap();
    drop(writer);

    let mut writer = folder.writer(2);
    let restored = writer.restore(3).unwrap();
    let bytes: Vec<_> = restored.values.iter().map(|v| v.fingerprint.0[0]).collect();
    assert_eq!(bytes, [5, 4, 3]);
    assert_eq!(restored.links, [(a, b)]);
    let newest = &restored.values[0];
    assert_eq!((newest.kind, &newest.entry), (Kind::Email, &entry()));
    assert_eq!(
        format!("{:?}", newest.tag),
        format!("{:?}", tag(5, "contact.email", Some("a")))
    );
    assert_eq!(writer.restore(1_000_000).unwrap().values.len(), 5);
}

#[test]
fn a_service_begins_begins_again_and_never_without_its_key() {
    let folder = Folder::new();
    let mut config = crate::Config {
        storage: crate::config::Storage::Sqlite(folder.db()),
        ..crate::Config::default()
    };
    let tracker = crate::Tracker::open(config.clone()).unwrap();
    let id = tracker.status()["key_id"].clone();
    tracker.close();
    let tracker = crate::Tracker::open(config.clone()).unwrap();
    assert_eq!(tracker.status()["key_id"], id);
    tracker.close();
    assert_eq!(folder.reader().summary().unwrap().key_id.as_deref(), id.as_str());

    let key = PathBuf::from(format!("{}.key", folder.db().display()));
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert!(refused(&folder, || crate::Tracker::open(config.clone()).map(drop)).is_key());
    config.key = Some(crate::config::Token("ab".repeat(32)));
    assert!(refused(&folder, || crate::Tracker::open(config.clone()).map(drop)).is_key());
    config.key = Some(crate::config::Token(String::from_utf8(kept).unwrap()));
    crate::Tracker::open(config).unwrap().close();
}

// What is not ours, or not for us.

/// `open` fails in this way and leaves every byte in the folder as it was.
fn refused(folder: &Folder, open: impl Fn() -> Result<(), Error>) -> Error {
    let look = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (std::fs::read(&path).unwrap_or_default(), path))
            .collect();
        files.sort();
        files
    };
    let before = look();
    let error = open().unwrap_err();
    assert_eq!(before, look(), "{error}");
    error
}

fn open_writer(folder: &Folder) -> Result<(), Error> {
    is_empty(&folder.db())?;
    Writer::open(&folder.db(), &keys(), &instance(9)).map(drop)
}

#[test]
fn files_of_others_are_left_untouched() {
    let folder = Folder::new();
    for (bytes, says) in [
        (&b"name;email\n"[..], "not a database"),
        (&[0; 4096], "not a database"),
        (b"SQLite format 3\0", "not a database"),
    ] {
        std::fs::write(folder.db(), bytes).unwrap();
        let error = refused(&folder, || open_writer(&folder));
        assert!(error.is_store() && error.to_string().contains(says), "{error}");
        assert!(refused(&folder, || Reader::open(&folder.db()).map(drop)).is_store());
    }
    // Databases of others, one of them with its changes still in a journal.
    for pragmas in [
        "",
        "PRAGMA journal_mode = WAL;",
        "PRAGMA application_id = 7; PRAGMA user_version = 1;",
    ] {
        let folder = Folder::new();
        let mut other = raw(&folder.0.path().join("x"));
        other
            .batch_execute(&format!("{pragmas} CREATE TABLE users (id INTEGER)"))
            .unwrap();
        std::fs::hard_link(folder.0.path().join("x"), folder.db()).unwrap();
        if pragmas.contains("WAL") {
            let journal = |name: &str| folder.0.path().join(name);
            std::fs::copy(journal("x-wal"), journal("evidence #1?.db-wal")).unwrap();
            assert!(std::fs::metadata(journal("evidence #1?.db-wal")).unwrap().len() > 0);
        }
        let error = refused(&folder, || open_writer(&folder));
        assert!(
            error.is_store() && error.to_string().contains("something else"),
            "{error}"
        );
        let error = refused(&folder, || Reader::open(&folder.db()).map(drop));
        assert!(error.is_store(), "{error}");
    }
}

#[test]
fn a_file_that_only_claims_to_be_ours_is_refused() {
    for (sql, says) in [
        ("DROP TABLE owner_links", "no table owner_links"),
        (
            "ALTER TABLE events RENAME TO e; CREATE VIEW events AS SELECT * FROM e",
            "no table events",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
            "triggers",
        ),
    ] {
        let folder = Folder::new();
        drop(folder.writer(1));
        folder.sql(sql);
        let error = open_writer(&folder).unwrap_err();
        assert!(error.is_store() && error.to_string().contains(says), "{error}");
        assert!(Reader::open(&folder.db()).err().unwrap().is_store());
    }
}

/// POSIX locks are a process's, not a descriptor's: whoever closes the file gives all of them up,
/// and another process may then take the last writer's leave, journal and all.
#[cfg(target_os = "linux")]
#[test]
fn looking_at_a_file_leaves_the_writers_locks() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    // The lock that stays is taken with the first use.
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    let inode = format!(":{} ", std::fs::metadata(folder.db()).unwrap().ino());
    let locks = || std::fs::read_to_string("/proc/locks").unwrap().matches(&inode).count();
    assert_eq!(locks(), 1);
    drop(folder.reader());
    assert_eq!(locks(), 1);
    assert!(!is_empty(&folder.db()).unwrap());
    assert_eq!(locks(), 1);
    drop(folder.writer(2));
    assert_eq!(locks(), 1);
    drop(writer);
    assert_eq!(locks(), 0);
}

/// An auditor may be another user than the service: what he leaves, the service could not open.
#[test]
fn reading_a_file_at_rest_leaves_nothing_beside_it() {
    let folder = evidence();
    let mut reader = folder.reader();
    reader.summary().unwrap();
    assert_eq!(reader.events(&all()).unwrap().events.len(), 12);
    assert!(reader.verify().unwrap().is_ok());
    let beside = || std::fs::read_dir(folder.0.path()).unwrap().count();
    assert_eq!(beside(), 1);
    drop(reader);
    assert_eq!(beside(), 1);
    // What is left of somebody's reading with other tools is no journal to be read.
    for name in ["-wal", "-shm"] {
        std::fs::write(format!("{}{name}", folder.db().display()), "").unwrap();
    }
    drop(folder.reader());
    assert_eq!(
        std::fs::metadata(format!("{}-shm", folder.db().display()))
            .unwrap()
            .len(),
        0
    );
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_at_work_is_at_work() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(folder.db(), &link).unwrap();
    let mut reader = Reader::open(&link).unwrap();
    assert_eq!(reader.events(&all()).unwrap().events.len(), 1);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn a_reader_follows_a_file_from_rest_to_work_and_back() {
    let folder = evidence();
    let mut reader = folder.reader();
    let mut shown = |expected: usize| {
        assert_eq!(reader.events(&all()).unwrap().events.len(), expected);
        let verified = reader.verify().unwrap();
        assert!(verified.is_ok(), "{:?}", verified.first_problem());
    };
    shown(12);
    for begun in 0..3_usize {
        let mut writer = folder.writer(3 + begun as u64);
        for written in 0..2 {
            shown(12 + 2 * begun + written);
            let event = event(EventType::DataStorage, 500, vec![tag(3, "contact.email", None)]);
            writer.append(&[record(event)], None).unwrap();
        }
        writer.end().unwrap();
    }
    shown(18);
}

#[test]
fn places_where_no_file_can_be_are_named() {
    let folder = Folder::new();
    let open = |path: PathBuf| {
        let error = is_empty(&path)
            .map(drop)
            .and_then(|()| Writer::open(&path, &keys(), &instance(1)).map(drop));
        let error = error.unwrap_err();
        assert!(error.is_store(), "{error}");
        error.to_string()
    };
    assert!(open(folder.0.path().join("no/where.db")).contains("does not exist"));
    assert!(open(folder.0.path().to_owned()).contains("is a folder"));
    #[cfg(unix)]
    assert!(open("/dev/null".into()).contains("no ordinary file"));
    std::fs::write(folder.db(), "x").unwrap();
    let below = open(folder.db().join("below.db"));
    assert!(
        below.contains("cannot be read") || below.contains("does not exist"),
        "{below}"
    );
    std::fs::remove_file(folder.db()).unwrap();
    let missing = Reader::open(&folder.db()).err().unwrap();
    assert!(
        missing.is_store() && missing.to_string().contains("no evidence file"),
        "{missing}"
    );
    assert!(!folder.db().exists());
}

#[test]
fn newer_files_and_other_keys_are_refused() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    drop(writer);
    assert!(!is_empty(&folder.db()).unwrap());

    let other = Keys::from_master(&[8; 32], 1, Origin::Environment);
    let error = refused(&folder, || Writer::open(&folder.db(), &other, &instance(2)).map(drop));
    assert!(
        error.is_key() && error.to_string().contains("another master key"),
        "{error}"
    );

    folder.sql("PRAGMA user_version = 2");
    let error = refused(&folder, || open_writer(&folder));
    assert!(
        error.is_store() && error.to_string().contains("newer version"),
        "{error}"
    );
    assert!(refused(&folder, || Reader::open(&folder.db()).map(drop)).is_store());
}

#[test]
fn a_killed_services_file_keeps_its_journal_when_the_key_is_wrong() {
    let folder = Folder::new();
    let (mut child, mut acked) = writing_child(&folder, 1);
    acked.by_ref().nth(20).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let wal = || std::fs::read(format!("{}-wal", folder.db().display())).unwrap();
    let (main, journal) = (std::fs::read(folder.db()).unwrap(), wal());
    assert!(!journal.is_empty());
    let other = Keys::from_master(&[8; 32], 1, Origin::Environment);
    assert!(Writer::open(&folder.db(), &other, &instance(2)).err().unwrap().is_key());
    assert_eq!((main, journal), (std::fs::read(folder.db()).unwrap(), wal()));
}

#[test]
fn an_empty_file_counts_as_none() {
    let folder = Folder::new();
    assert!(is_empty(&folder.db()).unwrap());
    std::fs::write(folder.db(), "").unwrap();
    assert!(is_empty(&folder.db()).unwrap());
    drop(folder.writer(1));
    assert!(folder.reader().verify().unwrap().is_ok());
}

#[cfg(unix)]
#[test]
fn only_its_user_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(folder.0.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        files += 1;
    }
    assert!(files >= 2, "the journal, too");
}

#[test]
fn hostile_content_gives_errors_or_is_shown() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    for n in 0..3 {
        let tags = vec![tag(1, "contact.email", Some("a")), tag(2, "contact.phone", None)];
        writer
            .append(
                &[
                    value(tag(n, "contact.email", None)),
                    record(event(EventType::DataShare, 1, tags)),
                ],
                None,
            )
            .unwrap();
    }
    drop(writer);
    // Without its constraints, the file takes anything.
    folder.sql(
        "INSERT INTO owner_links VALUES ('email:a', 'user:1', 1, 1, 1);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'",
    );
    let pristine = std::fs::read(folder.db()).unwrap();
    let evil = [
        "NULL",
        "-9223372036854775808",
        "9223372036854775807",
        "1e308",
        "'{\"a\":'",
        "'x'",
        "x'ff00fe'",
        "''",
    ];
    let columns = [
        (
            "events",
            "seq at after event_type actor target recipient payload extras outcome_of owner user_id request_id tags proof n",
        ),
        ("texts", "n id text"),
        ("batches", "batch_no first_seq events root chain n"),
        (
            "instances",
            "started_at service environment ended_at instance indexed late n",
        ),
        ("event_counts", "event_type name events"),
        (
            "fingerprints",
            "fingerprint tag category owner kind entry created_at n id",
        ),
        ("sights", "n id first_at first_n first_seq last_at events"),
        ("flows", "n day event_type actor target recipient tag events"),
        ("segments", "id level state n entries"),
        ("postings", "segment term at n seq entries"),
        ("keys", "key_id epoch check_value"),
        ("owner_links", "a b"),
    ];
    for (table, columns) in columns {
        for column in columns.split(' ') {
            for evil in evil {
                std::fs::write(folder.db(), &pristine).unwrap();
                let change = format!("PRAGMA synchronous = OFF; UPDATE OR REPLACE {table} SET {column} = {evil}");
                // (A part of a primary key refuses NULL all the same.)
                let _ = raw(&folder.db()).batch_execute(&change);
                // Whatever comes of it, it is not a panic.
                if let Ok(mut reader) = Reader::open(&folder.db()) {
                    let _ = reader.events(&all());
                    let _ = reader.events(&EventQuery {
                        category: Some("contact.email".into()),
                        ..all()
                    });
                    let _ = reader.fingerprints(&FingerprintQuery {
                        limit: 10,
                        ..Default::default()
                    });
                    let _ = reader.flows(&FlowQuery::default());
                    let _ = reader.identifiers("email:a");
                    let _ = reader.event("0000000000000001-1");
                    let _ = reader.summary();
                    let _ = reader.verify();
                }
                // What a writer reads.
                if table != "event_counts"
                    && let Ok(mut writer) = Writer::open(&folder.db(), &keys(), &instance(2))
                {
                    let _ = writer.restore(10);
                    while writer.maintain(true).unwrap_or(false) {}
                }
            }
        }
    }
    // The changes did arrive.
    std::fs::write(folder.db(), &pristine).unwrap();
    folder.sql("UPDATE events SET payload = NULL");
    assert!(folder.reader().events(&all()).unwrap_err().is_store());
    assert!(!folder.reader().verify().unwrap().is_ok());
    // Broken JSON is shown as what it is.
    std::fs::write(folder.db(), &pristine).unwrap();
    folder.sql("UPDATE events SET payload = x'007b'");
    assert_eq!(
        events(&folder)[0].payload,
        Map::from_iter([("unreadable".into(), Json::Bool(true))])
    );
}

// Tamper evidence.

/// Two instances, several batches, tags and an outcome.
fn evidence() -> Folder {
    static MADE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| std::fs::read(make_evidence().db()).unwrap());
    let folder = Folder::new();
    std::fs::write(folder.db(), made).unwrap();
    folder
}

fn make_evidence() -> Folder {
    let folder = Folder::new();
    for n in [1, 2] {
        let mut writer = folder.writer(n);
        for batch in 0..3 {
            let ticket = Ticket::default();
            let mut share = event(
                EventType::DataShare,
                100 + batch,
                vec![tag(1, "contact.email", Some("a"))],
            );
            share.recipient = Some("mailchimp".into());
            let outcome = Record::Outcome {
                of: ticket.clone(),
                outcome: Outcome::Status(200),
                created_at: Timestamp(1),
                late: None,
            };
            let two = vec![tag(1, "contact.email", None), tag(2, "contact.phone", Some("b"))];
            writer
                .append(
                    &[
                        record(event(EventType::DataStorage, batch, two)),
                        Record::Event(Box::new(share), ticket),
                        outcome,
                    ],
                    None,
                )
                .unwrap();
        }
        writer.end().unwrap();
    }
    folder
}

#[test]
fn an_untouched_chain_holds() {
    let folder = evidence();
    let verified = folder.reader().verify().unwrap();
    assert!(verified.is_ok(), "{verified:?}");
    let counts: Vec<_> = verified.instances.iter().map(|i| (i.events, i.batches)).collect();
    assert_eq!(counts, [(9, 3), (9, 3)]);
    let chain = folder.reader().summary().unwrap().chain;
    assert_eq!(
        Json::Object(chain),
        json!({
            "instances": 2, "batches": 6, "last_seq": 9, "checked": "tail", "ok": true,
            "head": {"instance": "0000000000000002", "batch": 3, "hash": verified.instances[1].head},
        })
    );
}

/// What only a copy of the head elsewhere can show.
#[test]
fn a_noted_head_shows_that_the_tail_was_cut() {
    let folder = evidence();
    let noted = folder.reader().verify().unwrap().instances[1].head.clone();
    assert_eq!(noted.len(), 64);
    folder.sql("DELETE FROM batches WHERE n = 2 AND batch_no = 3; DELETE FROM events WHERE n = 2 AND seq > 6");
    let cut = folder.reader().verify().unwrap();
    assert!(cut.is_ok());
    assert_ne!(cut.instances[1].head, noted);
}

#[test]
fn the_first_bad_event_is_named() {
    for (sql, bad) in [
        (
            "UPDATE events SET actor = (SELECT id FROM texts WHERE n = 2 AND text = 'status 200') WHERE n = 2 AND seq = 5",
            "0000000000000002-5",
        ),
        (
            "UPDATE texts SET text = replace(text, 'contact.phone', 'contact.email') WHERE n = 1",
            "0000000000000001-1",
        ),
        (
            "UPDATE events SET tags = x'' WHERE n = 1 AND seq = 2",
            "0000000000000001-2",
        ),
        ("DELETE FROM events WHERE n = 1 AND seq = 4", "0000000000000001-4"),
        ("DELETE FROM events WHERE n = 1 AND seq = 9", "0000000000000001-9"),
        ("DELETE FROM batches WHERE n = 1 AND batch_no = 2", "0000000000000001-4"),
        ("DELETE FROM batches WHERE n = 1 AND batch_no = 3", "0000000000000001-7"),
        ("DELETE FROM batches WHERE n = 1", "0000000000000001-1"),
        // Of an instance that is not there, its number is all that is known.
        ("DELETE FROM instances WHERE n = 2", "0000000000000002-1"),
        ("UPDATE instances SET service = 'x' WHERE n = 2", "0000000000000002-1"),
        // A row moved elsewhere.
        (
            "UPDATE events SET seq = 10 WHERE n = 2 AND seq = 9",
            "0000000000000002-9",
        ),
        (
            "INSERT INTO events SELECT n, 10, at, after, event_type, actor, target, recipient, outcome_of, owner, user_id, \
             request_id, payload, extras, tags, proof FROM events WHERE n = 1 AND seq = 1",
            "0000000000000001-10",
        ),
        // Batches swapped: 1 and 2 have the same number of events.
        (
            "UPDATE batches SET batch_no = 10 WHERE n = 1 AND batch_no = 1;
             UPDATE batches SET batch_no = 1, first_seq = 1 WHERE n = 1 AND batch_no = 2;
             UPDATE batches SET batch_no = 2, first_seq = 4 WHERE n = 1 AND batch_no = 10",
            "0000000000000001-1",
        ),
    ] {
        let folder = evidence();
        folder.sql(sql);
        let verified = folder.reader().verify().unwrap();
        let problem = verified.first_problem().unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(problem.event_id.as_deref(), Some(bad), "{sql}: {}", problem.what);
    }
    let folder = evidence();
    folder.sql("UPDATE events SET extras = x'007b7d' WHERE n = 2 AND seq = 7");
    let chain = folder.reader().summary().unwrap().chain;
    assert_eq!(chain["ok"], false);
    assert_eq!(chain["problem"]["event_id"], "0000000000000002-7");
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn any_changed_byte_and_any_removed_row_is_found(
        place in any::<proptest::sample::Index>(), row in any::<u64>(), byte in any::<proptest::sample::Index>(),
        bit in 0_u8..8, removed in proptest::bool::weighted(0.2),
    ) {
        #[derive(QueryableByName)]
        struct Cell {
            #[diesel(sql_type = diesel::sql_types::Text)]
            kind: String,
            #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Binary>)]
            bytes: Option<Vec<u8>>,
        }
        const COLUMNS: &[(&str, &str)] = &[
            ("events", "n seq at after event_type actor target recipient outcome_of owner user_id request_id \
                        payload extras tags proof"),
            ("texts", "n id text"),
            ("batches", "n batch_no first_seq events root chain"),
            ("instances", "n instance started_at service environment build version key_id"),
        ];
        let cells: Vec<_> = COLUMNS.iter().flat_map(|(t, cs)| cs.split_whitespace().map(move |c| (*t, c))).collect();
        let (table, column) = *place.get(&cells);
        let folder = evidence();
        let mut connection = raw(&folder.db());
        let count = diesel::sql_query(format!("SELECT 'n' AS kind, CAST(count(*) AS BLOB) AS bytes FROM {table}"))
            .get_result::<Cell>(&mut connection).unwrap();
        let count: u64 = String::from_utf8(count.bytes.unwrap()).unwrap().parse().unwrap();
        let key = match table {
            "events" => "n, seq",
            "texts" => "n, id",
            "batches" => "n, batch_no",
            _ => "n",
        };
        let row = row % count;
        let chosen = format!("({key}) = (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {row})");
        if removed {
            connection.batch_execute(&format!("DELETE FROM {table} WHERE {chosen}")).unwrap();
        } else {
            let cell: Cell = diesel::sql_query(format!(
                "SELECT typeof({column}) AS kind, CAST({column} AS BLOB) AS bytes FROM {table} WHERE {chosen}"
            )).get_result(&mut connection).unwrap();
            let literal = match (cell.kind.as_str(), cell.bytes) {
                ("null", _) | (_, None) => "'x'".to_owned(),
                ("integer", Some(digits)) => {
                    let number: i64 = String::from_utf8(digits).unwrap().parse().unwrap();
                    (number ^ (1 << (byte.index(63) / 8 * 8 + usize::from(bit)).min(62))).to_string()
                }
                (kind, Some(mut bytes)) => {
                    if bytes.is_empty() {
                        bytes.push(bit);
                    } else {
                        let at = byte.index(bytes.len());
                        bytes[at] ^= 1 << bit;
                    }
                    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                    if kind == "text" { format!("CAST(x'{hex}' AS TEXT)") } else { format!("x'{hex}'") }
                }
            };
            // A change of a key may meet another row: then that one is gone.
            connection.batch_execute(&format!("UPDATE OR REPLACE {table} SET {column} = {literal} WHERE {chosen}")).unwrap();
        }
        drop(connection);
        let verified = folder.reader().verify().unwrap();
        prop_assert!(!verified.is_ok(), "{} of {} row {}", column, table, row);
    }
}

// Several at once, and sudden ends.

#[test]
fn many_threads_open_a_fresh_file_at_once() {
    for _ in 0..5 {
        let folder = Folder::new();
        std::thread::scope(|scope| {
            for n in 1..=8 {
                let folder = &folder;
                scope.spawn(move || {
                    let mut writer = folder.writer(n);
                    writer
                        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
                        .unwrap();
                });
            }
        });
        assert_eq!(events(&folder).len(), 8);
        assert!(folder.reader().verify().unwrap().is_ok());
    }
}

/// This test binary again, as a service that writes durably and prints each acknowledged number.
fn writing_child(folder: &Folder, n: u64) -> (std::process::Child, impl Iterator<Item = u64> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::child_writes", "--ignored", "--nocapture"])
        .env("CHILD_DB", folder.db())
        .env("CHILD_ID", n.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    (
        child,
        lines.filter_map(|line| line.strip_prefix("acked ")?.parse().ok()),
    )
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child_writes() {
    let Some(db) = std::env::var_os("CHILD_DB") else { return };
    let n = std::env::var("CHILD_ID").unwrap().parse().unwrap();
    let recorder = Recorder::start(Writer::open(Path::new(&db), &keys(), &instance(n)).unwrap()).unwrap();
    for at in 0..20_000 {
        recorder.send(record(event(
            EventType::DataStorage,
            0,
            vec![tag(1, "contact.email", None)],
        )));
        let durable = record(event(EventType::DataShare, at, vec![]));
        recorder.send_durable(durable, Duration::from_secs(10)).unwrap();
        println!("acked {at}");
    }
}

#[test]
fn four_processes_open_a_fresh_file_at_once_and_lose_nothing_when_killed() {
    for round in 0..3 {
        let folder = Folder::new();
        let children: Vec<_> = (1..=4).map(|n| (n, writing_child(&folder, n))).collect();
        let acked: Vec<(u64, Vec<u64>)> = std::thread::scope(|scope| {
            let readers: Vec<_> = children
                .into_iter()
                .map(|(n, (mut child, mut acked))| {
                    scope.spawn(move || {
                        let mut seen: Vec<u64> = acked.by_ref().take(5 + 3 * n as usize + round).collect();
                        child.kill().unwrap();
                        seen.extend(acked);
                        child.wait().unwrap();
                        (n, seen)
                    })
                })
                .collect();
            readers.into_iter().map(|r| r.join().unwrap()).collect()
        });
        let mut reader = folder.reader();
        let verified = reader.verify().unwrap();
        assert!(verified.is_ok(), "{verified:?}");
        let query = EventQuery {
            event_type: Some("DATA_SHARE".into()),
            limit: 100_000,
            ..EventQuery::default()
        };
        let kept: BTreeSet<_> = reader
            .events(&query)
            .unwrap()
            .events
            .into_iter()
            .map(|e| (e.extras["instance"].as_str().unwrap().to_owned(), e.created_at.0))
            .collect();
        for (n, acked) in acked {
            assert!(acked.len() >= 8, "{n} was not started");
            for at in acked {
                assert!(kept.contains(&(format!("{n:016x}"), at as i64)), "{n} lost {at}");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn nothing_is_acknowledged_while_the_file_is_away() {
    let folder = Folder::new();
    let recorder = Recorder::start(folder.writer(1)).unwrap();
    let send = |at| {
        let ticket = Ticket::default();
        let share = Record::Event(Box::new(event(EventType::DataShare, at, vec![])), ticket.clone());
        (recorder.send_durable(share, Duration::from_millis(300)), ticket)
    };
    send(1).0.unwrap();
    let away = folder.0.path().join("away");
    std::fs::rename(folder.db(), &away).unwrap();
    let (refused, ticket) = send(2);
    assert!(refused.unwrap_err().is_evidence());
    assert_eq!(ticket.seq(), None);
    let status = recorder.status();
    assert!(status.retries > 0 && status.last_error.unwrap().contains("removed or replaced"));
    std::fs::write(folder.db(), "another").unwrap();
    assert!(send(3).0.is_err());

    // Put back: everything that was tried lands, once.
    std::fs::rename(&away, folder.db()).unwrap();
    recorder.flush(Duration::from_secs(5)).unwrap();
    assert_eq!(ticket.seq(), Some(2));
    let times: Vec<_> = events(&folder).iter().map(|e| e.created_at.0).collect();
    assert_eq!(times, [3, 2, 1]);
    assert!(folder.reader().verify().unwrap().is_ok());
    assert_eq!(recorder.status().last_error, None);
}

#[test]
fn a_batch_that_landed_after_all_is_not_written_twice() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    let ticket = Ticket::default();
    let batch = [Record::Event(
        Box::new(event(EventType::DataShare, 2, vec![])),
        ticket.clone(),
    )];
    writer.fail_after_commit = true;
    assert!(writer.append(&batch, None).is_err());
    assert_eq!(ticket.seq(), None);
    writer.append(&batch, None).unwrap();
    assert_eq!(ticket.seq(), Some(2));
    writer
        .append(&[record(event(EventType::DataStorage, 3, vec![]))], None)
        .unwrap();
    assert_eq!(events(&folder).len(), 3);
    assert!(folder.reader().verify().unwrap().is_ok());
}

#[test]
fn a_lock_held_by_another_process_delays_and_loses_nothing() {
    let folder = Folder::new();
    let recorder = Recorder::start(folder.writer(1)).unwrap();
    let mut other = raw(&folder.db());
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let share = || record(event(EventType::DataShare, 1, vec![]));
    let error = recorder.send_durable(share(), Duration::from_millis(200)).unwrap_err();
    assert!(
        error.is_evidence() && error.to_string().contains("still being tried"),
        "{error}"
    );
    for _ in 0..100 {
        recorder.send(share());
    }
    assert!(recorder.flush(Duration::from_millis(2500)).unwrap_err().is_evidence());
    other.batch_execute("COMMIT").unwrap();
    recorder.flush(Duration::from_secs(10)).unwrap();
    assert_eq!(events(&folder).len(), 101);
    let status = recorder.status();
    assert_eq!((status.written, status.refused, status.depth), (101, 0, 0));
    assert!(status.retries >= 1);
}

#[test]
fn a_full_disk_delays_and_loses_nothing() {
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    // As a full disk to SQLite, within this connection alone.
    writer.limit_pages(true);
    let recorder = Recorder::start(writer).unwrap();
    let big = || {
        let mut big = event(EventType::DataShare, 1, vec![]);
        big.payload.insert("x".into(), json!("y".repeat(200_000)));
        record(big)
    };
    assert!(
        recorder
            .send_durable(big(), Duration::from_millis(300))
            .unwrap_err()
            .is_evidence()
    );
    assert_eq!(recorder.status().last_error.map(|e| e.contains("full")), Some(true));
    // Stopping gives up in time, and says what was lost.
    let started = Instant::now();
    recorder.stop(Duration::from_millis(500));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(recorder.status().refused, 1);

    let mut writer = folder.writer(2);
    writer.limit_pages(true);
    let batch = [big()];
    assert!(writer.append(&batch, None).is_err());
    assert!(writer.append(&batch, None).is_err());
    writer.limit_pages(false);
    writer.append(&batch, None).unwrap();
    assert_eq!(events(&folder).len(), 1);
    assert!(folder.reader().verify().unwrap().is_ok());
}

#[test]
fn stop_flushes_and_later_sends_are_ignored() {
    let folder = Folder::new();
    let recorder = Recorder::start(folder.writer(1)).unwrap();
    for at in 0..5000 {
        recorder.send(record(event(EventType::DataStorage, at, vec![])));
    }
    recorder.stop(Duration::from_secs(20));
    recorder.send(record(event(EventType::DataStorage, 1, vec![])));
    recorder.stop(Duration::from_secs(20));
    assert_eq!((recorder.status().written, recorder.status().refused), (5000, 0));
    // The last connection has gone, and with it the journal.
    assert!(!PathBuf::from(format!("{}-wal", folder.db().display())).exists());
    let summary = folder.reader().summary().unwrap();
    assert_eq!(summary.events["DATA_STORAGE"], 5000);
    assert!(folder.reader().verify().unwrap().is_ok());
}

#[test]
fn a_recorder_that_is_just_dropped_writes_what_it_has() {
    let folder = Folder::new();
    let recorder = Recorder::start(folder.writer(1)).unwrap();
    recorder.send(record(event(EventType::DataStorage, 1, vec![])));
    let started = Instant::now();
    drop(recorder);
    assert!(started.elapsed() < Duration::from_secs(1));
    let until = Instant::now() + Duration::from_secs(10);
    while events(&folder).is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn many_threads_send_and_nothing_is_lost_or_reordered() {
    let folder = Folder::new();
    let recorder = Recorder::start(folder.writer(1)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_i64 {
            let recorder = &recorder;
            scope.spawn(move || {
                for at in 0..500 {
                    let one = record(event(EventType::DataStorage, thread * 1000 + at, vec![]));
                    match at % 50 {
                        0 => recorder.send_durable(one, Duration::from_secs(20)).unwrap(),
                        _ => recorder.send(one),
                    }
                }
            });
        }
    });
    recorder.flush(Duration::from_secs(20)).unwrap();
    let mut shown = folder
        .reader()
        .events(&EventQuery {
            limit: 10_000,
            ..EventQuery::default()
        })
        .unwrap()
        .events;
    assert_eq!(shown.len(), 4000);
    shown.sort_by_key(|e| e.event_id.rsplit_once('-').unwrap().1.parse::<u64>().unwrap());
    for thread in 0..8 {
        let own = shown.iter().map(|e| e.created_at.0).filter(|at| at / 1000 == thread);
        assert!(own.is_sorted());
    }
}

#[test]
fn the_hosts_instrumentation_sees_no_statement_of_ours() {
    use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};
    use std::sync::atomic::{AtomicUsize, Ordering};
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    struct Spy;
    impl Instrumentation for Spy {
        fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
            let connecting = matches!(
                event,
                InstrumentationEvent::StartEstablishConnection { .. }
                    | InstrumentationEvent::FinishEstablishConnection { .. }
            );
            if MINE.get() && !connecting {
                SEEN.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    set_default_instrumentation(|| Some(Box::new(Spy))).unwrap();
    MINE.set(true);
    let folder = Folder::new();
    let mut writer = folder.writer(1);
    writer
        .append(&[record(event(EventType::DataStorage, 1, vec![]))], None)
        .unwrap();
    assert_eq!(events(&folder).len(), 1);
    assert_eq!(SEEN.load(Ordering::Relaxed), 0);
    raw(&folder.db());
    assert!(SEEN.load(Ordering::Relaxed) > 0, "the spy is awake");
    MINE.set(false);
}
