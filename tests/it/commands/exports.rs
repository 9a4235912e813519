//! `export` and `report`: what other tools and people read.

use std::collections::BTreeMap;

use provenance::EventType;
use provenance::config::Config;
use provenance::{Scope, set_owner, share};
use provenance_tests::text;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value as Json, json};

use super::{ADA, PATIENCE, Service, event};

fn lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_lines_are_the_events_newest_first() {
    let service = Service::new();
    let mut expected = service.0.events();
    expected.reverse();
    let exported = lines(&service.run("export", &["--format", "jsonl", "--no-record"]).ok().out);
    assert_eq!(exported, expected);
    let shares = lines(
        &service
            .run("export", &["--format", "jsonl", "--type", "DATA_SHARE", "--no-record"])
            .ok()
            .out,
    );
    assert_eq!(shares.len(), 3);
    let none = service
        .run("export", &["--format", "jsonl", "--since", "2100-01-01", "--no-record"])
        .ok();
    assert_eq!(none.out, "");
}

#[test]
fn a_table_has_a_row_for_each_tag() {
    let service = Service::new();
    let table = service
        .run(
            "export",
            &["--format", "csv", "--type", "DATA_COLLECTION", "--no-record"],
        )
        .ok()
        .out;
    let rows: Vec<Vec<&str>> = table
        .split_terminator("\r\n")
        .map(|row| row.split(',').collect())
        .collect();
    // Two collections of two values.
    assert_eq!(rows.len(), 1 + 4, "{table}");
    let column = |name: &str| rows[0].iter().position(|heading| *heading == name).unwrap();
    let fields: Vec<_> = rows[1..].iter().map(|row| row[column("tag_field")]).collect();
    assert_eq!(fields, ["income", "email", "email", "income"]);
    assert_eq!(rows[3][column("actor")], "HTTP POST /signup");
    assert_eq!(rows[3][column("tag_owner")], service.pseudonym("email", ADA));
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
}

#[test]
fn a_file_is_whole_or_not_there() {
    let service = Service::new();
    let path = service.folder().join("out.jsonl");
    std::fs::write(&path, "before").unwrap();
    let name = path.to_string_lossy().into_owned();
    let done = service
        .run("export", &["--format", "jsonl", "--out", &name, "--no-record"])
        .ok();
    assert_eq!(done.out, "");
    assert_eq!(lines(&std::fs::read_to_string(&path).unwrap()).len(), 7);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
        service
            .run("export", &["--format", "jsonl", "--out", "/dev/null", "--no-record"])
            .ok();
        assert!(!std::path::Path::new("/dev/null").metadata().unwrap().is_file());
    }
    let left: Vec<_> = std::fs::read_dir(service.folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

// ---- OpenLineage ----

/// What its schema (2-0-2) and those of its facets require.
fn check_run_event(run_event: &Json) {
    assert!(provenance::Timestamp::parse(&text(&run_event["eventTime"])).is_some());
    assert!(text(&run_event["producer"]).starts_with("urn:"));
    assert_eq!(
        run_event["schemaURL"],
        "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    );
    let types = ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"];
    assert!(types.contains(&run_event["eventType"].as_str().unwrap()));
    let is_uuid = |value: &Json| {
        let id = text(value);
        let groups: Vec<_> = id.split('-').map(str::len).collect();
        groups == [8, 4, 4, 4, 12]
            && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
            && id.as_bytes()[14] == b'8'
            && b"89ab".contains(&id.as_bytes()[19])
    };
    assert!(is_uuid(&run_event["run"]["runId"]), "{run_event}");
    for name in ["namespace", "name"] {
        assert!(!text(&run_event["job"][name]).is_empty());
    }
    let parent = &run_event["run"]["facets"]["parent"];
    let mut facets = vec![parent];
    assert!(is_uuid(&parent["run"]["runId"]) && parent["job"]["name"].is_string());
    for side in ["inputs", "outputs"] {
        for dataset in run_event[side].as_array().unwrap() {
            assert!(!text(&dataset["namespace"]).is_empty() && !text(&dataset["name"]).is_empty());
            facets.extend(dataset["facets"].as_object().unwrap().values());
            for field in dataset["facets"]["columnLineage"]["fields"]
                .as_object()
                .into_iter()
                .flatten()
            {
                for input in field.1["inputFields"].as_array().unwrap() {
                    assert!(["namespace", "name", "field"].iter().all(|key| input[*key].is_string()));
                }
            }
            for tag in dataset["facets"]["tags"]["tags"].as_array().into_iter().flatten() {
                assert!(tag["key"].is_string() && tag["value"].is_string());
            }
        }
    }
    for facet in facets {
        assert_eq!(facet["_producer"], run_event["producer"]);
        assert!(
            text(&facet["_schemaURL"]).starts_with("https://openlineage.io/spec/facets/"),
            "{facet}"
        );
    }
}

#[test]
fn run_events_follow_openlineage() {
    let service = Service::new();
    let _in_force = service.0.scoped();
    {
        let _scope = Scope::new("job mail").enter();
        share("api.mailchimp.example")
            .payload(ADA)
            .begin()
            .unwrap()
            .error("smtp");
        let pending = share("api.mailchimp.example").payload(ADA).begin().unwrap();
        std::mem::forget(pending);
    }
    service.0.tracker.flush(PATIENCE).unwrap();
    let export = || service.run("export", &["--format", "openlineage"]).ok().out;
    let exported = export();
    let run_events = lines(&exported);
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run_event in &run_events {
        check_run_event(run_event);
        runs.entry(text(&run_event["run"]["runId"]))
            .or_default()
            .push(text(&run_event["eventType"]));
    }
    // Four collections and writes, three shares with an outcome, one that failed, one without outcome yet.
    let mut ends: Vec<_> = runs.into_values().map(|types| types.join(" ")).collect();
    ends.sort();
    let complete = ["START COMPLETE"; 7];
    assert_eq!(ends, [&["START"][..], &complete, &["START FAIL"]].concat());
    // The export itself is on record, and moves nothing: the next one is the same.
    assert_eq!(exported, export());

    let stored = run_events
        .iter()
        .find(|run| text(&run["job"]["name"]).ends_with("DATA_STORAGE db:users"))
        .unwrap();
    assert_eq!(stored["job"]["namespace"], "tests");
    let users = &stored["outputs"][0];
    assert_eq!(
        (&users["namespace"], &users["name"]),
        (&json!("db://tests"), &json!("users"))
    );
    let lineage = &users["facets"]["columnLineage"]["fields"]["email"]["inputFields"][0];
    assert_eq!(
        (&lineage["namespace"], &lineage["name"], &lineage["field"]),
        (&json!("http://tests"), &json!("POST /signup"), &json!("email"))
    );
    assert_eq!(
        users["facets"]["tags"]["tags"][0],
        json!({ "key": "data_category", "value": "user.contact.email", "source": "provenance", "field": "email" })
    );
    let sent = run_events
        .iter()
        .find(|run| text(&run["job"]["name"]).ends_with("DATA_SHARE mailchimp"))
        .unwrap();
    assert_eq!(
        (&sent["outputs"][0]["namespace"], &sent["outputs"][0]["name"]),
        (&json!("recipient"), &json!("mailchimp"))
    );
}

// ---- Fides ----

/// A YAML document as JSON; what is not quoted must be a word of JSON's, or a key.
fn yaml(document: &str) -> Json {
    enum Open {
        List(Vec<Json>),
        Map(Map<String, Json>, Option<String>),
    }
    let (mut open, mut root): (Vec<Open>, _) = (Vec::new(), None);
    for event in Parser::new_from_str(document) {
        let value = match event.unwrap().0 {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop().unwrap() {
                Open::List(list) => Json::Array(list),
                Open::Map(map, _) => Json::Object(map),
            },
            Event::Scalar(scalar, style, ..) => match open.last_mut() {
                Some(Open::Map(_, key @ None)) => {
                    *key = Some(scalar.into_owned());
                    continue;
                }
                _ if style == ScalarStyle::DoubleQuoted => Json::String(scalar.into_owned()),
                _ => serde_json::from_str(&scalar).unwrap(),
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => assert!(map.insert(key.take().unwrap(), value).is_none(), "a key twice"),
        }
    }
    root.unwrap()
}

fn is_fides_key(value: &Json) -> bool {
    let key = text(value);
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.<>-".contains(&byte))
}

#[test]
fn a_manifest_follows_fideslang() {
    let service = Service::new();
    let _in_force = service.0.scoped();
    {
        let _scope = Scope::new("HTTP POST /evil").enter();
        set_owner("email", ADA);
        // What a YAML reader of either version stumbles over.
        event(
            "DATA_STORAGE",
            "db:yes: {no}\u{85}\u{2028}\u{7f}- #",
            &[("x.loyalty", "\"null\"\n~\u{feff}", "gold member")],
        );
        share("user").payload(ADA).begin().unwrap().sent();
    }
    service.0.tracker.flush(PATIENCE).unwrap();
    let document = service.run("export", &["--format", "fides"]).ok().out;
    assert!(
        document
            .chars()
            .all(|c| c == '\n' || !(c.is_control() || matches!(c, '\u{2028}' | '\u{feff}'))),
        "{document}"
    );
    let manifest = yaml(&document);
    let dataset = &manifest["dataset"][0];
    assert_eq!(dataset["fides_key"], "tests_db");
    let collections = dataset["collections"].as_array().unwrap();
    let field = |collection: &str| {
        let found = collections.iter().find(|one| one["name"] == collection);
        found.unwrap_or_else(|| panic!("{collection}: {collections:#?}"))["fields"][0].clone()
    };
    assert_eq!(field("users")["name"], "email");
    assert_eq!(field("users")["data_categories"], json!(["user.contact.email"]));
    // Its own category is not fideslang's: it stands in the description.
    let evil = field("yes: {no}\u{85}\u{2028}\u{7f}- #");
    assert_eq!(evil["data_categories"], json!(["user"]));
    assert_eq!(evil["description"], "(x.loyalty)");
    let systems = manifest["system"].as_array().unwrap();
    let keys: Vec<_> = systems.iter().map(|system| text(&system["fides_key"])).collect();
    // `user` means the people who use a system.
    assert_eq!(keys, ["tests", "mailchimp", "tracker.example", "user_"]);
    let declared: Vec<_> = systems[0]["egress"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| text(&flow["fides_key"]))
        .collect();
    assert_eq!(declared, ["mailchimp", "tracker.example", "user_"]);
    for declaration in systems[0]["privacy_declarations"].as_array().unwrap() {
        assert!(is_fides_key(&declaration["data_use"]), "{declaration}");
        assert_eq!(declaration["data_subjects"], json!(["TO_COMPLETE"]));
        for flow in declaration["egress"].as_array().into_iter().flatten() {
            assert!(declared.contains(&text(flow)));
        }
        for category in declaration["data_categories"].as_array().unwrap() {
            assert!(is_fides_key(category) && text(category).starts_with("user"));
        }
    }
    let mailchimp = &systems[1];
    assert_eq!(mailchimp["legal_name"], "The Rocket Science Group LLC");
    assert!(text(&mailchimp["description"]).contains("country: US; safeguard: SCC"));
    assert!(text(&systems[2]["description"]).ends_with("UNDECLARED"));
    assert_eq!(systems[2]["legal_name"], "TO_COMPLETE");
}

// ---- the record of processing activities ----

#[test]
fn the_record_says_what_is_known_and_what_is_to_be_completed() {
    let service = Service::new();
    let config = json!({ "storage_path": "provenance.db", "retention": { "DATA_COLLECTION": "400d", "financial.income": "36h" } });
    let path = service.folder().join("runtime_tracking.json");
    std::fs::write(&path, config.to_string()).unwrap();
    assert!(Config::load(Some(&path)).is_ok());
    let path = path.to_string_lossy().into_owned();
    let report = |args: &[&str]| service.run("report", &[&["--config", &path], args].concat()).ok();
    let record = report(&["--json"]).json();
    let activities = record["activities"].as_array().unwrap();
    let names: Vec<_> = activities.iter().map(|activity| text(&activity["name"])).collect();
    assert_eq!(names, ["newsletter", "HTTP POST /profile", "HTTP POST /signup"]);
    let [newsletter, profile, signup] = [0, 1, 2].map(|index| &activities[index]);
    assert_eq!(newsletter["purpose"], "newsletter");
    assert_eq!(newsletter["recipients"]["mailchimp"]["country"], "US");
    assert_eq!(
        profile["special_categories"],
        json!(["user.health_and_medical.genetic"])
    );
    assert!(profile["purpose"].is_null());
    assert_eq!(signup["stored_in"], json!(["db:users"]));
    assert_eq!(
        signup["time_limits"],
        json!(["DATA_COLLECTION: 400 days", "user.financial.income: 36 hours"])
    );
    let markdown = report(&[]).out;
    for part in [
        "| Controller, contact | TO COMPLETE |",
        "## tests: newsletter\n",
        "| Purpose | TO COMPLETE |",
        "| Transfers to third countries, safeguards | mailchimp: country US, safeguard SCC |",
        "tracker.example: country TO COMPLETE, safeguard TO COMPLETE",
        "| Time limits for erasure | TO COMPLETE |",
        "user.health\\_and\\_medical.genetic",
    ] {
        assert!(markdown.contains(part), "{part}: {markdown}");
    }
    // The same as a page that needs nothing else.
    let page = report(&["--format", "html"]).out;
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"),
        "{page}"
    );
    for part in [
        "<style>",
        "<mark>TO COMPLETE</mark>",
        "newsletter",
        "mailchimp: country US, safeguard SCC",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("<script") && !page.contains("href=\"/") && !page.contains("src="),
        "{page}"
    );
    let table = report(&["--format", "csv"]).out;
    assert_eq!(table.split_terminator("\r\n").count(), 1 + 3, "{table}");
    assert!(table.starts_with("Service,Activity,Purpose,"), "{table}");
    let out = service.folder().join("record.md");
    report(&["--out", &out.to_string_lossy()]);
    let begins = |text: &str| text.lines().next().unwrap().to_owned();
    assert_eq!(begins(&std::fs::read_to_string(out).unwrap()), begins(&markdown));
    // Types of their own are activities too; searching is none.
    assert!(EventType::is_well_formed("X_LETTER"));
    service.run("subject", &["--owner", ADA]).ok();
    assert_eq!(report(&["--json"]).json()["activities"].as_array().unwrap().len(), 3);
}
