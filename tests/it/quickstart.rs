//! The example of the front page, run as it stands there.

use std::process::Command;

use provenance_tests::{fields, program, tag, text};
use serde_json::Value as Json;

#[test]
fn one_sign_up_is_collected_stored_and_shared() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program("quickstart"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Json = serde_json::from_slice(&output.stdout).unwrap();
    let events = printed["events"].as_array().unwrap();
    let types: Vec<String> = events.iter().map(|event| text(&event["event_type"])).collect();
    assert_eq!(types, ["DATA_SHARE", "DATA_STORAGE", "DATA_COLLECTION"], "newest first");
    assert_eq!(fields(&events[0]), ["email"]);
    assert_eq!(events[0]["extras"]["recipient"], "newsletter");
    assert_eq!(events[0]["extras"]["outcome"], "status");
    assert_eq!(fields(&events[1]), ["email", "income"]);
    assert_eq!(events[1]["extras"]["certain"], true);
    let owner = text(&tag(&events[2], "email")["owner"]);
    assert!(owner.starts_with("email:"));
    assert!(
        events
            .iter()
            .all(|event| tag(event, "email")["owner"] == owner.as_str())
    );
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ada@"));
}
