//! Everything that may carry somebody's value, through every door at once: none of it is found again.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Multipart, Request};
use axum::routing::post;
use provenance::config::{Config, InputField, OnViolation};
use provenance::{Blocked, egress, tag};
use provenance_tests::Evidence;
use serde_json::{Value as Json, json};
use tower_service::Service;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// Stands in every raw value below, and in nothing that a program chose.
const MARK: &str = "zzqq";
const KNOWN: &str = "zzqq.known@evil.example";

/// Answers `/away/..` with a redirect that has everything in its address, anything else with 200.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                let away = String::from_utf8_lossy(&head).contains(" /away/");
                let to = format!("http://zzqq-user:zzqq-pass@localhost:{port}/in/zzqq.path@evil.example?t=zzqq-query");
                let answer = match away {
                    true => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\n"),
                    false => "HTTP/1.1 200 OK\r\nset-cookie: s=zzqq-set\r\n".to_owned(),
                };
                let _ = write!(stream, "{answer}content-length: 0\r\nconnection: close\r\n\r\n");
                // The rest of a body, so that closing does not reset what was answered.
                let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(200)));
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    port
}

#[egress(recipient = "partner")]
async fn by_reqwest(client: &reqwest::Client, url: &str) -> reqwest::Result<u16> {
    let part = reqwest::multipart::Part::bytes(b"zzqq-part".as_slice())
        .file_name("zzqq-file.txt")
        .mime_str("text/plain")?;
    let form = reqwest::multipart::Form::new()
        .part("upload", part)
        .text("zzqq1234part", KNOWN);
    let request = client
        .post(url)
        .bearer_auth("zzqq-bearer")
        .header("cookie", "session=zzqq-cookie; who=zzqq.known@evil.example")
        .header("x-user", KNOWN)
        .header("x-zzqq12345", KNOWN)
        .multipart(form);
    Ok(request.send().await?.status().as_u16())
}

#[egress]
async fn held_back(client: &reqwest::Client, url: &str, body: String) -> reqwest::Result<u16> {
    Ok(client.post(url).body(body).send().await?.status().as_u16())
}

#[egress(recipient = "partner")]
fn by_ureq(url: &str, body: &Json) -> Result<u16, Box<ureq::Error>> {
    let request = ureq::post(url)
        .header("authorization", "Basic zzqq-basic")
        .header("cookie", "session=zzqq-cookie")
        .header("x-user", KNOWN)
        .query("token", "zzqq-token");
    Ok(request.send_json(body)?.status().as_u16())
}

#[egress(recipient = "partner", allow("personal.name"))]
async fn limited(client: &reqwest::Client, url: &str, body: String) -> reqwest::Result<u16> {
    Ok(client.post(url).body(body).send().await?.status().as_u16())
}

async fn take(mut parts: Multipart) -> String {
    let mut count = 0;
    while let Ok(Some(part)) = parts.next_field().await {
        count += part.bytes().await.map_or(0, |bytes| bytes.len());
    }
    count.to_string()
}

fn incoming() -> Request {
    let part = |head: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n{value}\r\n");
    let body = [
        part("name=\"email\"", "zzqq.form@evil.example"),
        part("name=\"zzqq.name@evil.example\"", "zzqq-value"),
        part("name=\"scan\"; filename=\"zzqq-file.pdf\"", "zzqq-content"),
        "--b--\r\n".to_owned(),
    ];
    Request::post("/letters/zzqq.path@evil.example?email=zzqq.query@evil.example&note=zzqq-note")
        .header("content-type", "multipart/form-data; boundary=b")
        .header("x-user", "zzqq.header@evil.example")
        .header("cookie", "contact=zzqq.cookie%40evil.example; session=zzqq-session")
        .header("authorization", "Bearer zzqq-bearer")
        .header("x-request-id", "zzqq.known@evil.example")
        .header("traceparent", "zzqq")
        .body(Body::from(body.concat()))
        .unwrap()
}

/// Keeps what our own target says, field by field.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("provenance") {
            self.0.lock().unwrap().push_str(&format!("{event:?}\n"));
        }
    }
}

fn drive(evidence: &Evidence) -> Vec<String> {
    let mut said = Vec::new();
    let port = server();
    let url = |path: &str| {
        format!("http://zzqq-user:zzqq-pass@127.0.0.1:{port}{path}/zzqq.path%40evil.example/{KNOWN}?t=zzqq-query#zzqq")
    };
    tag("contact.email", "email", KNOWN).unwrap();
    tag("user.name", "login", "zzqq-host-8812").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut app: Router = Router::new()
            .route("/letters/{who}", post(take))
            .layer(provenance::axum::layer());
        let answer = app.call(incoming()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let client = reqwest::Client::builder()
            .redirect(provenance::reqwest::redirect_policy(Default::default()))
            .build()
            .unwrap();
        for path in ["/here", "/away"] {
            by_reqwest(&client, &url(path)).await.unwrap();
        }
        let nowhere = url("/x").replace(&format!("127.0.0.1:{port}"), "zzqq-host-8812.invalid:1");
        held_back(&client, &nowhere, "zzqq-body".into()).await.unwrap_err();
        evidence.tracker.set_on_violation(Some(OnViolation::Block));
        let error = limited(&client, &url("/x"), KNOWN.into()).await.unwrap_err();
        let blocked = Blocked::find(&error).unwrap();
        said.push(format!("{blocked} {blocked:?}"));
        evidence.tracker.set_on_violation(None);
    });
    for path in ["/here", "/away"] {
        by_ureq(
            &url(path),
            &json!({"email": KNOWN, "zzqq.key@evil.example": "zzqq-value"}),
        )
        .unwrap();
    }
    by_ureq("http://127.0.0.1:9/zzqq.path@evil.example", &json!("zzqq-text")).unwrap_err();
    said.push(format!("{:?}", evidence.tracker));
    said.push(Json::Object(evidence.tracker.status()).to_string());
    said
}

#[test]
fn nothing_that_came_or_went_is_found_again() {
    let test = "hostile::leaks::nothing_that_came_or_went_is_found_again";
    if std::env::var_os("PROVENANCE_TEST_CHILD").is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env("PROVENANCE_TEST_CHILD", "1")
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        assert!(!said.contains(MARK), "on the terminal: {said}");
        return;
    }
    let address = || InputField {
        category: "contact.email".into(),
        description: String::new(),
        pii: true,
        kind: None,
        secret: None,
        owner: Some("email".into()),
    };
    let evidence = Evidence::new(|config: &mut Config| {
        config.input_fields.insert("header:x-user".into(), address());
        config.input_fields.insert("cookie:contact".into(), address());
        config.access_events = true;
    });
    let _tracker = evidence.scoped();
    let log = Log::default();
    let said = tracing::subscriber::with_default(Registry::default().with(log.clone()), || drive(&evidence));

    let events = evidence.events();
    let of = |event_type: &str| events.iter().filter(|event| event["event_type"] == event_type).count();
    // Two sends and two hops for reqwest, one that failed, one held back; as many for ureq, and one that failed.
    assert_eq!(
        (of("DATA_COLLECTION"), of("DATA_SHARE"), of("POLICY_VIOLATION")),
        (1, 9, 1),
        "{events:#?}"
    );
    let log = log.0.lock().unwrap().clone();
    assert_eq!(log.lines().count(), 11, "{log}");
    for said in said.iter().chain([&log]) {
        assert!(!said.contains(MARK), "{said}");
    }
    let leaked: Vec<_> = events.iter().filter(|event| event.to_string().contains(MARK)).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
    assert!(!evidence.holds(MARK), "in the files");
}
