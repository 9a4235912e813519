//! Requests to the audit API and its pages: method and target on a line, headers, an empty line, the body.
#![no_main]

use std::sync::OnceLock;

use provenance::config::{Config, Storage};
use provenance::{Tracker, record_event, test};
use provenance_audit::api::{Api, Options, Request, Source};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static API: OnceLock<Api> = OnceLock::new();
    let response = API.get_or_init(api).handle(&request(input));
    assert!((200..600).contains(&response.status));
    assert!(response.headers.iter().all(|(_, value)| !value.chars().any(char::is_control)));
    assert!(String::from_utf8(response.body.into_bytes().unwrap()).is_ok());
});

fn request(input: &[u8]) -> Request {
    let text = String::from_utf8_lossy(input);
    let (head, body) = text.split_once("\n\n").unwrap_or((&*text, ""));
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap_or("").split_once(' ').unwrap_or(("GET", ""));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().as_bytes().to_vec()));
    Request {
        method: method.to_owned(),
        path: format!("/runtime-audit/{path}"),
        query: query.map(str::to_owned),
        headers: headers.chain([("host".to_owned(), b"localhost".to_vec())]).collect(),
        body: body.as_bytes().to_vec(),
        client: None,
    }
}

/// Over evidence of its own, in a temporary folder.
fn api() -> Api {
    let folder = std::env::temp_dir().join(format!("provenance-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = Config {
        storage: Storage::Sqlite(folder.join("provenance.db")),
        ..Config::default()
    };
    let tracker = Tracker::open(config).unwrap();
    let _in_force = test::scoped(&tracker);
    for event_type in ["DATA_COLLECTION", "DATA_STORAGE", "DATA_SHARE"] {
        let event = record_event(event_type.parse().unwrap()).target("db:people");
        event.value("contact.email", "email", "ada@example.com").unwrap().submit_durable().unwrap();
    }
    Api::new(Source::Tracker(tracker), &Options::new()).unwrap()
}
