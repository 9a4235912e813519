//! What a rule leaves out of events and of the policy, and what is known by its shape alone.

use provenance::Timestamp;
use provenance::config::{OnViolation, Suppress, Unregistered};

use super::*;

const SUPPORT: &str = "support@wonder.example";

fn rule(category: &str, place: &str, expires: Option<&str>) -> Suppress {
    Suppress {
        category: Some(category.into()),
        recipient: Some("scoring".into()),
        place: (!place.is_empty()).then(|| place.to_owned()),
        reason: "stands in every mail".into(),
        expires: expires.map(|day| Timestamp::parse(day).unwrap()),
    }
}

#[test]
fn a_rule_leaves_findings_out_and_says_how_many() {
    let evidence = Evidence::new(|config| {
        config.egress.on_violation = OnViolation::Block;
        config.suppress = vec![
            rule("contact", "", Some("2020-01-01")),
            rule("contact.email", "body:/support*", Some("9000-01-01")),
        ];
    });
    let _scoped = evidence.scoped();
    alice();
    person(SUPPORT, &[]);
    let partner = Partner::start();
    let url = partner.url("/x");
    only_income(&url, &json!({"support": SUPPORT, "income": 4200.0})).unwrap();
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["extras"]["suppressed"], 1, "{share}");
    assert_eq!(findings(&share), []);
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 0);
    // Elsewhere the same value is what it was.
    only_income(&url, &json!({"support": SUPPORT, "reply": SUPPORT})).unwrap_err();
    let share = &evidence.of("DATA_SHARE")[1];
    assert_eq!(share["extras"]["suppressed"], 1, "{share}");
    assert_eq!(
        findings(share),
        [("email".into(), "body:/reply".into(), "exact".into())],
        "{share}"
    );
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 1);
    // What a rule leaves out is not taken for declared alone, and other recipients are none of its business.
    post_json(&url, json!({"support": SUPPORT})).unwrap();
    assert_eq!(findings(&evidence.of("DATA_SHARE")[2]).len(), 1);

    let status = provenance::tracker().unwrap().status();
    let rules = status["suppress"].as_array().unwrap();
    let seen: Vec<_> = rules
        .iter()
        .map(|rule| (&rule["expired"], &rule["suppressed"]))
        .collect();
    assert_eq!(seen, [(&json!(true), &json!(0)), (&json!(false), &json!(2))]);
    assert_eq!(rules[1]["reason"], "stands in every mail");
}

#[test]
fn what_was_never_registered_is_a_finding_where_that_is_asked_for() {
    let body = json!({
        "note": "ask eve@elsewhere.example or +44 20 7946 0958",
        "card": "4111 1111 1111 1111",
        "from": ["198.51.100.7", ALICE],
    });
    let shapes = [
        ("contact.email", "body:/note"),
        ("contact.phone_number", "body:/note"),
        ("financial.credit_card", "body:/card"),
        ("device.ip_address", "body:/from/0"),
    ];
    for (unregistered, expected, violations) in [
        (Unregistered::Ignore, 0, 1),
        (Unregistered::Record, 4, 1),
        (Unregistered::Judge, 4, 2),
    ] {
        let evidence = Evidence::new(|config| config.egress.unregistered = unregistered);
        let _scoped = evidence.scoped();
        alice();
        let partner = Partner::start();
        only_income(&partner.url("/x"), &body).unwrap();
        only_income(&partner.url("/x"), &json!({"mail": "eve@elsewhere.example"})).unwrap();
        let share = &evidence.of("DATA_SHARE")[0];
        let tags = share["matched_tags"].as_array().unwrap();
        let found: Vec<_> = tags
            .iter()
            .filter(|tag| tag["form"] == "unregistered")
            .map(|tag| (text(&tag["category"]), text(&tag["place"])))
            .collect();
        assert_eq!(found.len(), expected, "{share}");
        assert_eq!(tags.len(), expected + 1, "{share}");
        for (category, place) in shapes.iter().take(expected) {
            assert!(
                found.contains(&((*category).to_owned(), (*place).to_owned())),
                "{category} at {place}: {share}"
            );
        }
        for tag in tags.iter().filter(|tag| tag["form"] == "unregistered") {
            assert!(tag["owner"].is_null() && tag["fingerprint"].is_null(), "{tag}");
            assert_eq!(tag["confidence"], "low");
        }
        assert_eq!(evidence.of("POLICY_VIOLATION").len(), violations);
        for raw in ["eve@elsewhere", "7946", "4111", "198.51.100.7"] {
            assert!(!evidence.holds(raw), "{raw} in the evidence");
        }
    }
}
