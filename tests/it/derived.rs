//! `#[derived]`: inputs are recognised among the arguments, the result is tracked from then on.

use std::time::Duration;

use provenance::{derived, provenance_input};
use provenance_tests::{Evidence, fields, tag, text};

#[provenance_input]
fn profile(email: &str, income: f64) -> usize {
    email.len() + income as usize
}

#[derived("score.credit", description = "Credit score", kind = "number")]
fn score(income: f64, expenses: &[f64]) -> Result<i64, String> {
    if income <= 0.0 {
        return Err("no income".into());
    }
    let spent: f64 = expenses.iter().sum();
    Ok(((income - spent) * 100_000.0 / income) as i64)
}

#[derived("score.label")]
async fn label(score: i64) -> Option<String> {
    (score > 10).then(|| "premium customer".to_owned())
}

#[tokio::test]
async fn a_derivation_names_its_inputs_and_its_result() {
    let evidence = Evidence::default();
    {
        let _tracker = evidence.scoped();
        let scope = provenance::Scope::new("job scoring");
        let _scope = scope.enter();
        profile("ada@example.com", 4200.0);
        assert_eq!(score(4200.0, &[1000.0, 50.0]), Ok(75_000));
        assert_eq!(score(0.0, &[]), Err("no income".into()));
    }
    let labelled = provenance::test::scoped_future(&evidence.tracker, label(75_000)).await;
    assert_eq!(labelled.as_deref(), Some("premium customer"));

    let events = evidence.of("DATA_DERIVATION");
    assert_eq!(events.len(), 2, "an Err derives nothing: {events:#?}");
    assert_eq!(events[0]["target"], "derived:score.credit");
    assert_eq!(fields(&events[0]), ["score", "income"]);
    assert_eq!(tag(&events[0], "score")["role"], "result");
    assert_eq!(tag(&events[0], "income")["role"], "input");
    assert_eq!(tag(&events[0], "score")["source"], "derived:score.credit");
    let owner = text(&tag(&events[0], "income")["owner"]);
    assert!(owner.starts_with("email:"));
    assert_eq!(tag(&events[0], "score")["owner"], owner.as_str());
    // The derived value is itself an input of the next derivation, without any scope.
    assert_eq!(fields(&events[1]), ["label", "score"]);
    assert_eq!(tag(&events[1], "label")["owner"], owner.as_str());
}

#[test]
fn what_is_said_again_within_an_interval_is_counted() {
    let said = |interval: Duration, pause: Duration| {
        let evidence = Evidence::new(|config| config.derivation_interval = interval);
        let in_force = evidence.scoped();
        let derive = |income: f64| {
            let scope = provenance::Scope::new("HTTP GET /score");
            let _scope = scope.enter();
            provenance::set_owner("user", 7);
            assert!(score(income, &[50.0]).is_ok());
        };
        {
            let scope = provenance::Scope::new("job import");
            let _scope = scope.enter();
            profile("ada@example.com", 4200.0);
        }
        (0..5).for_each(|_| derive(4200.0));
        derive(4300.0);
        std::thread::sleep(pause);
        derive(4400.0);
        let before_the_end = evidence.of("DATA_DERIVATION").len();
        drop(in_force);
        (before_the_end, evidence.restart().of("DATA_DERIVATION"))
    };
    let (count, events) = said(Duration::ZERO, Duration::ZERO);
    assert_eq!((count, events.len()), (7, 7), "off, each call is an event");

    let (count, events) = said(Duration::from_secs(3600), Duration::ZERO);
    assert_eq!((count, events.len()), (3, 4), "{events:#?}");
    // At the end, under the time of the last repeat.
    let told = &events[3];
    assert_eq!(told["extras"]["repeats"], 4);
    assert_eq!(told["request_id"], serde_json::Value::Null);
    assert_eq!(told["tags"], events[0]["tags"]);
    assert!(text(&told["created_at"]) > text(&events[0]["created_at"]));

    // An interval that has ended is told by the next derivation of anybody.
    let (count, events) = said(Duration::from_millis(20), Duration::from_millis(40));
    assert!(count >= 4, "{events:#?}");
    let repeats: i64 = events
        .iter()
        .filter_map(|event| event["extras"]["repeats"].as_i64())
        .sum();
    let recorded = events.iter().filter(|event| event["extras"]["repeats"].is_null());
    assert_eq!(recorded.count() as i64 + repeats, 7);
}
