//! The features `tracing` and `opentelemetry`: what the host's subscriber is told, and what it is not.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use provenance::{EventType, Scope, Tracked, egress, provenance_input, record_event};
use provenance_tests::{Evidence, text};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

#[derive(Clone, Debug, Default)]
struct Told {
    span: Option<String>,
    level: String,
    target: String,
    fields: Vec<(String, String)>,
}

impl Told {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name().to_owned(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name().to_owned(), value.to_owned()));
    }
}

/// Keeps what it is told, then does as the host's would.
#[derive(Clone)]
struct Listener {
    told: Arc<Mutex<Vec<Told>>>,
    then: fn(),
}

impl Listener {
    fn new(then: fn()) -> Self {
        Listener {
            told: Arc::default(),
            then,
        }
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "provenance" {
            return;
        }
        let mut told = Told {
            span: context.event_span(event).map(|span| span.name().to_owned()),
            level: event.metadata().level().to_string(),
            target: event.metadata().target().to_owned(),
            fields: Vec::new(),
        };
        event.record(&mut told);
        self.told.lock().unwrap().push(told);
        (self.then)();
    }
}

#[derive(Tracked)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("contact.email")]
    email: String,
    #[tracked("financial.income")]
    income: f64,
}

#[provenance_input]
fn signup(form: &Signup) -> usize {
    write(&form.email)
}

#[egress(recipient = "post", purpose = "welcome")]
fn write(#[payload] email: &str) -> usize {
    email.len()
}

fn ada() -> Signup {
    Signup {
        email: "ada@example.com".into(),
        income: 4217.35,
    }
}

#[test]
fn events_are_told_in_the_current_span_without_personal_data() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let listener = Listener::new(|| {});
    tracing::subscriber::with_default(Registry::default().with(listener.clone()), || {
        let _span = tracing::info_span!("request").entered();
        let scope = Scope::new("job signup");
        let _scope = scope.enter();
        signup(&ada());
    });

    let (told, events) = (listener.told(), evidence.events());
    assert_eq!(told.len(), events.len(), "{told:#?}");
    for (told, event) in told.iter().zip(&events) {
        assert_eq!(told.get("event_type"), event["event_type"].as_str());
        assert_eq!(told.get("request_id"), event["request_id"].as_str());
        assert_eq!((&*told.level, &*told.target), ("INFO", "provenance"));
        assert_eq!(told.span.as_deref(), Some("request"));
        if let Some(id) = told.get("event_id") {
            assert_eq!(Some(id), event["event_id"].as_str());
        }
    }
    assert_eq!(told[0].get("categories"), Some("contact.email,financial.income"));
    assert_eq!(told[0].get("values"), Some("2"));
    assert_eq!(told[1].get("recipient"), Some("post"));

    // Nothing that is, or stands for, a person.
    let all = format!("{told:?}");
    let mut private = vec![
        // (Ids are hex digits: three of them may be these letters.)
        "ada@".to_owned(),
        "example".to_owned(),
        "4217".to_owned(),
        "email:".to_owned(),
    ];
    for tag in events
        .iter()
        .flat_map(|event| event["matched_tags"].as_array().unwrap())
    {
        private.extend([text(&tag["fingerprint"]), text(&tag["owner"])]);
    }
    for private in private {
        assert!(!private.is_empty() && !all.contains(&private), "{private} in {all}");
    }
}

#[test]
fn a_send_of_a_task_is_told_like_any_other() {
    #[egress(recipient = "post")]
    async fn send(client: &reqwest::Client) -> bool {
        client.get("http://127.0.0.1:9/").send().await.is_err()
    }
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let listener = Listener::new(|| {});
    tracing::subscriber::with_default(Registry::default().with(listener.clone()), || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _span = tracing::info_span!("request").entered();
        assert!(runtime.block_on(send(&reqwest::Client::new())));
    });
    let told = listener.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].get("event_type"), Some("DATA_SHARE"));
    assert_eq!(told[0].span.as_deref(), Some("request"));
}

fn own(event_type: &str) {
    let event_type: EventType = event_type.parse().unwrap();
    record_event(event_type).submit();
}

/// As a global subscriber: `tracing` itself keeps a scoped one from being told of itself.
#[test]
fn a_subscriber_that_uses_our_hooks_is_not_told_of_itself() {
    if std::env::var_os("PROVENANCE_TEST_CHILD").is_some() {
        let evidence = Evidence::default();
        let _tracker = evidence.scoped();
        let listener = Listener::new(|| own("X_LOGGED"));
        tracing::subscriber::set_global_default(Registry::default().with(listener.clone())).unwrap();
        own("X_DONE");
        let types: Vec<_> = evidence
            .events()
            .iter()
            .map(|event| text(&event["event_type"]))
            .collect();
        assert_eq!(types, ["X_DONE", "X_LOGGED"], "what it does is recorded");
        assert_eq!(listener.told().len(), 1, "and told once: {:?}", listener.told());
        return;
    }
    let test = "tracing::a_subscriber_that_uses_our_hooks_is_not_told_of_itself";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("PROVENANCE_TEST_CHILD", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_subscriber_that_panics_harms_nobody() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let listener = Listener::new(|| std::panic::resume_unwind(Box::new("no space left")));
    tracing::subscriber::with_default(Registry::default().with(listener.clone()), || {
        assert_eq!(signup(&ada()), 15);
        own("X_DONE");
    });
    let types: Vec<_> = evidence
        .events()
        .iter()
        .map(|event| text(&event["event_type"]))
        .collect();
    assert_eq!(types, ["DATA_COLLECTION", "DATA_SHARE", "X_DONE"]);
    assert_eq!(listener.told().len(), 3, "the next event is told again");
    assert_eq!(evidence.blind_spots(), ["hook_panicked"]);
}

fn trace_ids(evidence: &Evidence) -> Vec<String> {
    let events = evidence.events();
    events.iter().map(|event| text(&event["extras"]["trace_id"])).collect()
}

#[test]
fn the_trace_is_opentelemetrys() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
    let mut expected = Vec::new();
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        own("X_OUTSIDE");
        expected.push(String::new());
        for _ in 0..2 {
            let _span = tracing::info_span!("request").entered();
            let context = opentelemetry::Context::current();
            expected.push(context.span().span_context().trace_id().to_string());
            // A span that is not entered stays as it is: its parent can still be set.
            let later = tracing::info_span!("later");
            own("X_INSIDE");
            let parent = tracing_opentelemetry::OpenTelemetrySpanExt::set_parent(&later, context);
            assert!(parent.is_ok(), "{parent:?}");
        }
    });
    let found = trace_ids(&evidence);
    assert_eq!(found, expected);
    assert_ne!(found[1], found[2]);
    assert!(found[1].len() == 32 && found[1].bytes().any(|b| b != b'0'), "{found:?}");
}
