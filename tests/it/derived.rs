//! `#[derived]`: inputs are recognised among the arguments, the result is tracked from then on.

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
