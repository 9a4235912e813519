//! The axum layer, over real HTTP: it records, and it changes nothing.

use axum::extract::{DefaultBodyLimit, Path};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use provenance::{Tracked, provenance_input};
use provenance_tests::{Evidence, fields, tag, text};
use serde::Deserialize;

/// Serves `router` on a thread of its own, with `evidence`'s tracker in force, for as long as the test lives.
fn serve(router: Router, evidence: Option<&Evidence>) -> String {
    let tracker = evidence.map(|evidence| evidence.tracker.clone());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _tracker = tracker.as_ref().map(provenance::test::scoped);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{}", receiver.recv().unwrap())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

#[derive(Deserialize, Tracked)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("contact.email", description = "Login")]
    email: String,
    #[tracked("financial.income")]
    income: f64,
    #[tracked("security.password")]
    password: String,
}

#[provenance_input]
async fn signup(Form(form): Form<Signup>) -> String {
    format!("{} {} {}", form.email.len(), form.income, form.password.len())
}

fn app() -> Router {
    Router::new()
        .route("/signup", post(signup))
        .route("/plain", post(async |body: String| body.len().to_string()))
        .route(
            "/json",
            post(async |Json(json): Json<serde_json::Value>| json.to_string().len().to_string()),
        )
        .route(
            "/people/{email}/notes",
            get(async |Path(email): Path<String>| email.len().to_string()),
        )
        .route("/unread", post(async || "unread"))
        .layer(provenance::axum::layer())
}

#[test]
fn one_event_a_request_and_the_typed_field_wins() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    let response = agent()
        .post(format!("{base}/signup?campaign=spring"))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("x-request-id", "req-0123456789")
        .send_form([
            ("email", "ada@example.com"),
            ("income", "4217.35"),
            ("password", "pa55phrase!"),
            ("phone", "+1 555 010 2030"),
        ])
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert_eq!(response, "15 4217.35 11");

    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0];
    assert_eq!(event["actor"], "HTTP POST /signup");
    assert_eq!(event["request_id"], "req-0123456789");
    assert_eq!(event["extras"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(fields(event), ["email", "income", "password", "campaign", "phone"]);
    assert_eq!(tag(event, "email")["description"], "Login");
    assert_eq!(tag(event, "email")["source"], "HTTP POST /signup");
    let owner = text(&tag(event, "email")["owner"]);
    assert!(owner.starts_with("email:") && !owner.contains("ada"), "{owner}");
    assert_eq!(tag(event, "phone")["owner"], owner.as_str());
    assert_eq!(tag(event, "campaign")["category"], "unknown");
    assert_eq!(tag(event, "campaign")["pii"], false);
    assert!(tag(event, "password")["fingerprint"].is_null());
    assert!(event["payload"]["fields"]["password"].get("length").is_none());
    assert_eq!(event["payload"]["fields"]["email"]["length"], 15);
    for raw in ["ada@example.com", "4217.35", "pa55phrase!", "010 2030"] {
        assert!(!evidence.holds(raw), "{raw}");
    }
}

#[test]
fn parameters_are_read_without_touching_handlers() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    let body = r#"{"user": {"email": "grace@example.com", "tags": ["a", "b"]}, "income": 5000}"#;
    agent()
        .post(format!("{base}/json"))
        .content_type("application/json")
        .send(body)
        .unwrap();
    agent()
        .get(format!("{base}/people/alan@example.com/notes?name=Alan%20Turing"))
        .call()
        .unwrap();
    agent()
        .post(format!("{base}/unread"))
        .send_form([("email", "never@example.com")])
        .unwrap();

    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 2, "what no handler read was not taken: {events:#?}");
    assert_eq!(fields(&events[0]), ["email", "tags", "tags", "income"]);
    assert_eq!(events[0]["payload"]["fields"]["email"]["in"], "json");
    assert_eq!(events[1]["actor"], "HTTP GET /people/{email}/notes");
    assert_eq!(fields(&events[1]), ["email", "name"]);
    assert_eq!(events[1]["payload"]["fields"]["email"]["in"], "path");
    assert!(!evidence.holds("turing"));
}

#[test]
fn handlers_answer_as_without_us() {
    let evidence = Evidence::default();
    let limited = || app().layer(DefaultBodyLimit::max(900_000));
    let (ours, plain) = (serve(limited(), Some(&evidence)), serve(limited(), None));
    let nested = "[".repeat(10_000) + &"]".repeat(10_000);
    let many = (0..100_000).map(|i| format!("p{i}=")).collect::<Vec<_>>().join("&");
    let huge = vec![b'x'; 1 << 20];
    let keyed = r#"{"alice@example.com": {"alice smith": 1}}"#;
    let form = "application/x-www-form-urlencoded";
    let cases: [(&str, &str, &[u8]); 8] = [
        ("/json", "application/json", b"{\"email\": \"a@example.com\""),
        ("/json", "application/json", b"\xff\xfe\x00"),
        ("/json", "application/json", nested.as_bytes()),
        ("/json", "application/json", keyed.as_bytes()),
        ("/json", "application/json", &huge),
        ("/signup", form, many.as_bytes()),
        ("/signup", form, b"email=%ff%fe&income=abc"),
        ("/plain", form, &huge),
    ];
    for (path, content_type, body) in cases {
        let answer = |base: &str| {
            // A server that refuses a large body may close before the client has sent it all.
            let send = || {
                agent()
                    .post(format!("{base}{path}"))
                    .content_type(content_type)
                    .send(body)
            };
            let mut response = (0..20).find_map(|_| send().ok()).unwrap();
            (response.status(), response.body_mut().read_to_string().unwrap())
        };
        assert_eq!(answer(&ours), answer(&plain), "{path} {content_type} {}", body.len());
    }
    assert_eq!(
        agent().get(format!("{ours}/nowhere?email=x")).call().unwrap().status(),
        StatusCode::NOT_FOUND.as_u16()
    );
    assert!(
        evidence.blind_spots().contains(&"capped_input".to_owned()),
        "{:?}",
        evidence.blind_spots()
    );
    assert!(!evidence.holds("alice"), "personal data as keys");
}

#[test]
fn interleaved_requests_keep_their_scopes() {
    let evidence = Evidence::default();
    let router = Router::new()
        .route(
            "/slow",
            post(async |Form(form): Form<Vec<(String, String)>>| {
                let before = provenance::Scope::current().unwrap().request_id().to_string();
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                let spawned = tokio::spawn(provenance::scoped(async {
                    provenance::Scope::current().unwrap().request_id().to_string()
                }));
                let after = spawned.await.unwrap();
                assert_eq!(before, after);
                form.len().to_string()
            }),
        )
        .layer(provenance::axum::layer());
    let base = serve(router, Some(&evidence));
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let url = format!("{base}/slow");
            std::thread::spawn(move || {
                let sent = agent().post(url).send_form([("email", format!("p{i}@example.com"))]);
                assert_eq!(sent.unwrap().body_mut().read_to_string().unwrap(), "1");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let events = evidence.of("DATA_COLLECTION");
    let ids: std::collections::HashSet<_> = events.iter().map(|event| text(&event["request_id"])).collect();
    let owners: std::collections::HashSet<_> = events.iter().map(|event| text(&event["extras"]["owner"])).collect();
    assert_eq!((events.len(), ids.len(), owners.len()), (8, 8, 8));
}

#[test]
fn a_request_id_that_is_somebodys_value_is_not_kept() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    {
        let _tracker = evidence.scoped();
        provenance::tag("user.unique_id", "login", "carol-lidd3ll").unwrap();
    }
    let signup = agent()
        .post(format!("{base}/signup"))
        .header("x-request-id", "carol-lidd3ll")
        .send_form([
            ("email", "ada@example.com"),
            ("income", "1"),
            ("password", "pa55phrase!"),
        ]);
    assert_eq!(signup.unwrap().status(), 200);
    assert_eq!(evidence.of("DATA_COLLECTION").len(), 1);
    assert!(!evidence.holds("lidd3ll"));
}

/// Sends bytes as they are, a write each, and gives the answer to its end, without its date.
fn raw(base: &str, writes: &[&[u8]]) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(base.trim_start_matches("http://")).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    for bytes in writes {
        stream.write_all(bytes).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut answer = Vec::new();
    // A server that refuses a body may reset the connection once it has answered, or wait for the body.
    let mut some = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut some) {
        answer.extend_from_slice(&some[..read]);
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(1)))
            .unwrap();
    }
    let answer = String::from_utf8(answer).unwrap();
    let dated = |line: &&str| !line.to_ascii_lowercase().starts_with("date: ");
    answer.split_inclusive("\r\n").filter(dated).collect()
}

fn posted(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

const MULTIPART: &str = "multipart/form-data; boundary=\"b-b\"";

fn part(name: &str, more: &str, value: &str) -> String {
    format!("--b-b\r\ncontent-disposition: form-data; name=\"{name}\"{more}\r\n\r\n{value}\r\n")
}

fn upload() -> String {
    let file = "; filename=\"ada.txt\"\r\ncontent-type: text/plain";
    let json = "\r\ncontent-type: application/json";
    [
        &*part("email", "", "ada@example.com"),
        &part("scan", file, "Ada's passport, number XK-20394857"),
        &part("details", json, r#"{"phone": "+15550102030"}"#),
        &part("nickname", "", "The Countess"),
        "--b-b--\r\n",
    ]
    .concat()
}

/// Reads a part at a time, and says so in between.
async fn take_parts(mut parts: axum::extract::Multipart) -> Result<String, axum::extract::multipart::MultipartError> {
    let mut lengths = Vec::new();
    while let Some(part) = parts.next_field().await? {
        let name = part.name().unwrap_or_default().to_owned();
        lengths.push(format!("{name}={}", part.bytes().await?.len()));
        if name == "email" {
            provenance::record_event("X_WELCOMED".parse().unwrap()).submit();
        }
    }
    Ok(lengths.join(" "))
}

fn parts_app() -> Router {
    Router::new()
        .route("/upload", post(take_parts))
        .route(
            "/first",
            post(async |mut parts: axum::extract::Multipart| {
                let first = parts.next_field().await.unwrap().unwrap();
                first.text().await.unwrap().len().to_string()
            }),
        )
        .layer(provenance::axum::layer())
}

#[test]
fn text_parts_are_read_as_the_handler_reads_them_and_files_are_counted() {
    let evidence = Evidence::default();
    let base = serve(parts_app(), Some(&evidence));
    let answer = raw(&base, &[&posted("/upload", MULTIPART, upload().as_bytes())]);
    assert!(answer.ends_with("email=15 scan=34 details=25 nickname=12"), "{answer}");

    // One event, or two if the body came in two frames: the input before what is done with it.
    let events = evidence.events();
    assert_eq!(events[0]["event_type"], "DATA_COLLECTION");
    assert_eq!(events[1]["event_type"], "X_WELCOMED");
    let collected = evidence.of("DATA_COLLECTION");
    let taken: Vec<_> = collected.iter().flat_map(fields).collect();
    assert_eq!(taken, ["email", "phone", "nickname"]);
    assert_eq!(events[0]["payload"]["fields"]["email"]["in"], "multipart");
    let tags = collected
        .iter()
        .flat_map(|event| event["matched_tags"].as_array().unwrap());
    assert!(
        tags.into_iter()
            .all(|each| each["owner"] == tag(&events[0], "email")["owner"])
    );
    assert!(
        collected
            .iter()
            .all(|event| event["request_id"] == events[1]["request_id"])
    );
    assert_eq!(evidence.blind_spots(), ["unvisited_input"], "the file");
    for raw in ["ada@example.com", "passport", "XK-20394857", "countess", "ada.txt"] {
        assert!(!evidence.holds(raw), "{raw}");
    }
}

#[test]
fn parts_that_the_handler_did_not_get_are_not_taken() {
    let evidence = Evidence::default();
    let base = serve(parts_app(), Some(&evidence));
    // The second part waits until the answer is there.
    let body = upload();
    let (first, rest) = body.split_at(
        body.find("--b-b\r\ncontent-disposition: form-data; name=\"scan\"")
            .unwrap()
            + 7,
    );
    let head = posted("/first", MULTIPART, &[]);
    let head = String::from_utf8(head).unwrap();
    let head = head.replace(
        "content-length: 0",
        &format!("content-length: {}", first.len() + rest.len()),
    );
    let answer = raw(&base, &[head.as_bytes(), first.as_bytes()]);
    assert!(answer.ends_with("15"), "{answer}");
    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 1);
    assert_eq!(fields(&events[0]), ["email"]);
}

#[test]
fn parts_beyond_the_caps_pass_and_are_counted() {
    let evidence = Evidence::default();
    let base = serve(parts_app(), Some(&evidence));
    let long = part("long", "", &"x".repeat(70_000)) + &part("phone", "", "+15550102030") + "--b-b--\r\n";
    let answer = raw(&base, &[&posted("/upload", MULTIPART, long.as_bytes())]);
    assert!(answer.ends_with("long=70000 phone=12"), "{answer}");
    let many = (0..1100)
        .map(|i| part("p", "", &format!("v{}", i % 2)))
        .collect::<String>()
        + "--b-b--\r\n";
    let answer = raw(&base, &[&posted("/upload", MULTIPART, many.as_bytes())]);
    assert!(answer.ends_with(" p=2"), "{}", answer.len());
    // Headers of a part that never end: nobody holds them for ever.
    let endless = format!("--b-b\r\nx-endless: {}", "x".repeat(200_000));
    let answer = raw(&base, &[&posted("/upload", MULTIPART, endless.as_bytes())]);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let collected: Vec<_> = evidence.of("DATA_COLLECTION").iter().flat_map(fields).collect();
    assert_eq!(collected, ["phone", "p", "p"]);
    assert_eq!(evidence.blind_spots(), ["capped_input"]);
}

mod frames {
    use axum::body::{Body, Bytes};
    use axum::extract::Request;
    use proptest::prelude::*;
    use tower_service::Service;

    use super::*;

    /// What looks like a boundary, and is none.
    fn value() -> impl Strategy<Value = String> {
        "[ -~\r\n]{0,40}(\r\n--b|--b-b|\r\n)?[a-z]{1,8}".prop_filter("a boundary", |value| !value.contains("\r\n--b-b"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// However a body is cut into frames, the same parts are seen, and the handler gets them whole.
        #[test]
        fn how_a_body_is_cut_does_not_matter(
            values in proptest::collection::vec((value(), any::<bool>()), 1..6),
            cuts in proptest::collection::vec(1_usize..60, 1..200),
        ) {
            let body = values.iter().enumerate().map(|(index, (value, is_file))| {
                let name = char::from(b'a' + u8::try_from(index).unwrap());
                part(&format!("field_{name}"), if *is_file { "; filename=\"f\"" } else { "" }, value)
            });
            let body = body.collect::<String>() + "--b-b--\r\n";
            let mut rest = Bytes::from(body);
            let mut frames = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let at = (*cuts.next().unwrap()).min(rest.len());
                frames.push(Ok::<_, std::convert::Infallible>(rest.split_to(at)));
            }
            let request = Request::post("/upload")
                .header("content-type", MULTIPART)
                .body(Body::from_stream(futures_util::stream::iter(frames)))
                .unwrap();

            let evidence = Evidence::default();
            let mut app = parts_app();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let answer = provenance::test::scoped_future(&evidence.tracker, async {
                let answer = app.call(request).await.unwrap();
                axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap()
            });
            let answer = runtime.block_on(answer);
            let expected: Vec<_> = values.iter().enumerate().map(|(index, (value, _))| {
                format!("field_{}={}", char::from(b'a' + u8::try_from(index).unwrap()), value.len())
            }).collect();
            prop_assert_eq!(std::str::from_utf8(&answer).unwrap(), expected.join(" "));

            let seen: Vec<_> = evidence.of("DATA_COLLECTION").iter().flat_map(|event| {
                let lengths = event["payload"]["fields"].as_object().unwrap().iter();
                lengths.map(|(name, shape)| format!("{name}={}", shape["length"])).collect::<Vec<_>>()
            }).collect();
            let texts: Vec<_> = expected.iter().zip(&values).filter(|(_, (_, is_file))| !is_file).map(|(e, _)| e.clone()).collect();
            prop_assert_eq!(seen, texts);
        }
    }
}

#[test]
fn headers_and_cookies_are_read_only_by_configured_name() {
    let configured = |name: &str| {
        let usual = provenance::config::Config::default().input_fields[name].clone();
        move |config: &mut provenance::config::Config, key: &str| {
            config.input_fields.insert(key.into(), usual.clone());
        }
    };
    let evidence = Evidence::new(|config| {
        configured("email")(config, "header:x-user-email");
        configured("phone")(config, "cookie:contact");
    });
    let base = serve(app(), Some(&evidence));
    let answer = agent()
        .post(format!("{base}/unread"))
        .header("X-User-Email", "ada@example.com")
        .header("X-Phone", "+15550102031")
        .header("email", "never@example.com")
        .header("phone", "+15550102032")
        .header("cookie", "session=9f8e7d6c5b4a; email=never%40example.com")
        .header("cookie", "theme=dark; Contact=\"%2B15550102030\"; broken; =; name=Ada")
        .send_empty();
    assert_eq!(answer.unwrap().status(), 200);

    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 1);
    assert_eq!(fields(&events[0]), ["x-user-email", "contact"], "nothing by accident");
    assert_eq!(tag(&events[0], "x-user-email")["category"], "contact.email");
    assert_eq!(
        tag(&events[0], "contact")["owner"],
        tag(&events[0], "x-user-email")["owner"]
    );
    assert_eq!(events[0]["payload"]["fields"]["x-user-email"]["in"], "header");
    assert_eq!(events[0]["payload"]["fields"]["contact"]["in"], "cookie");
    assert_eq!(events[0]["payload"]["fields"]["contact"]["length"], 12, "unescaped");
    assert!(!evidence.holds("ada@example.com"));

    // A parameter of the same value is the same person's: what a header brought in is recognised later.
    agent()
        .get(format!("{base}/people/ada@example.com/notes"))
        .call()
        .unwrap();
    let owner = |event: &serde_json::Value, field: &str| text(&tag(event, field)["owner"]);
    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(owner(&events[1], "email"), owner(&events[0], "x-user-email"));
    assert_eq!(
        tag(&events[1], "email")["fingerprint"],
        tag(&events[0], "x-user-email")["fingerprint"]
    );
}

fn every_shape() -> Router {
    let stream = async || {
        let frames = ["one ", "two ", "three"].map(Ok::<_, std::convert::Infallible>);
        axum::body::Body::from_stream(futures_util::stream::iter(frames))
    };
    let nested = Router::new()
        .route("/items/{id}", get(async |Path(id): Path<u32>| id.to_string()))
        .fallback(async || (StatusCode::NOT_FOUND, "no such item"));
    let service = Router::new().route("/deep", get(async || "deep"));
    Router::new()
        .route("/echo", post(async |body: axum::body::Body| body))
        .route(
            "/text",
            get(async |uri: axum::http::Uri| uri.to_string()).post(async |body: String| body),
        )
        .route("/stream", get(stream))
        .route("/upload", post(take_parts))
        .route(
            "/form",
            post(async |Form(form): Form<Vec<(String, String)>>| format!("{form:?}")),
        )
        .route("/early", post(async || (StatusCode::FORBIDDEN, "no")))
        .route("/empty", get(async || StatusCode::NO_CONTENT))
        .route(
            "/head",
            get(async || ([("x-a", "1")], "body")).options(async || [("allow", "GET")]),
        )
        .nest("/api", nested)
        .nest_service("/service", service)
        .layer(DefaultBodyLimit::max(1000))
}

#[test]
fn answers_are_the_same_to_the_byte() {
    let evidence = Evidence::default();
    let twice = every_shape()
        .layer(provenance::axum::layer())
        .layer(provenance::axum::layer());
    let (ours, plain) = (serve(twice, Some(&evidence)), serve(every_shape(), None));
    let form = "application/x-www-form-urlencoded";
    let upload = upload();
    let large = "x".repeat(3000);
    let get = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-user-email: a\r\n\r\n").into_bytes()
    };
    let expect = |length: usize, version: &str| {
        format!(
            "POST /form HTTP/{version}\r\nhost: h\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-type: {form}\r\n\
             content-length: {length}\r\n\r\n"
        )
        .into_bytes()
    };
    let chunked = |path: &str, content_type: &str, chunks: &[&str]| {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        for chunk in chunks {
            request += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        }
        (request + "0\r\n\r\n").into_bytes()
    };
    let early = String::from_utf8(expect(7, "1.1"))
        .unwrap()
        .replace("/form", "/early")
        .into_bytes();
    let cases: Vec<Vec<Vec<u8>>> = vec![
        vec![get("GET", "/text?email=ada@example.com")],
        vec![get("HEAD", "/text?email=ada@example.com")],
        vec![get("HEAD", "/stream")],
        vec![get("GET", "/stream")],
        vec![get("GET", "/empty")],
        vec![get("HEAD", "/head")],
        vec![get("OPTIONS", "/head")],
        vec![get("OPTIONS", "/text")],
        vec![get("DELETE", "/text")],
        vec![get("ADA", "/text")],
        vec![get("GET", "/nowhere/ada@example.com")],
        vec![get("GET", "/api/items/7")],
        vec![get("GET", "/api/items/seven")],
        vec![get("GET", "/api/nothing?email=ada@example.com")],
        vec![get("GET", "/service/deep")],
        vec![get("GET", "/%ff%fe/text")],
        vec![posted("/echo", form, b"email=a@example.com")],
        vec![posted("/echo", form, large.as_bytes())],
        vec![posted("/text", "text/plain", large.as_bytes())],
        vec![posted("/form", form, large.as_bytes())],
        vec![posted("/form", "text/plain", b"email=a")],
        vec![posted("/early", form, b"email=a")],
        vec![posted("/upload", MULTIPART, upload.as_bytes())],
        vec![posted(
            "/upload",
            MULTIPART,
            upload.replace("The Countess", &large).as_bytes(),
        )],
        vec![posted("/upload", MULTIPART, &upload.as_bytes()[..upload.len() - 9])],
        vec![posted("/upload", "multipart/form-data", upload.as_bytes())],
        vec![posted(
            "/upload",
            "multipart/form-data; boundary=other",
            upload.as_bytes(),
        )],
        vec![posted("/upload", form, upload.as_bytes())],
        vec![expect(7, "1.1"), b"email=a".to_vec()],
        vec![expect(5000, "1.1")],
        vec![early],
        vec![chunked("/echo", form, &["email=a@ex", "ample.com"])],
        vec![chunked("/form", form, &[&large, &large])],
        vec![chunked(
            "/upload",
            MULTIPART,
            &upload.split_inclusive('-').collect::<Vec<_>>(),
        )],
        vec![b"POST /form HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n".to_vec()],
    ];
    for writes in cases {
        let writes: Vec<&[u8]> = writes.iter().map(Vec::as_slice).collect();
        let shown = String::from_utf8_lossy(writes[0]).chars().take(120).collect::<String>();
        assert_eq!(raw(&ours, &writes), raw(&plain, &writes), "{shown}");
    }
    for raw in ["ada@example.com", "/nowhere", "passport"] {
        assert!(!evidence.holds(raw), "{raw}");
    }
    let actors: std::collections::BTreeSet<_> = evidence.events().iter().map(|event| text(&event["actor"])).collect();
    let expected = [
        "HTTP GET (no route)",
        "HTTP GET /api/items/{id}",
        "HTTP GET /text",
        "HTTP HEAD /text",
        "HTTP POST /echo",
        "HTTP POST /form",
        "HTTP POST /upload",
    ];
    assert_eq!(actors, expected.map(str::to_owned).into());
}

/// Waits for a condition that another thread makes true.
fn soon(condition: impl Fn() -> bool) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        condition()
    })
}

#[test]
fn what_was_taken_is_recorded_however_the_request_ends() {
    let evidence = Evidence::default();
    let forever = async |Form(form): Form<Vec<(String, String)>>| {
        assert_eq!(form.len(), 1);
        std::future::pending::<()>().await;
    };
    let frames = |form: Form<Vec<(String, String)>>| async move {
        assert_eq!(form.0.len(), 1);
        let scope = || provenance::Scope::current().map(|scope| scope.source().to_string());
        let frames = futures_util::stream::unfold(0, move |n| async move {
            provenance::record_event("X_FRAME".parse().unwrap()).submit();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            assert_eq!(
                scope().as_deref(),
                Some("HTTP POST /frames"),
                "also where the body is streamed"
            );
            Some((Ok::<_, std::convert::Infallible>("frame "), n + 1))
        });
        axum::body::Body::from_stream(frames)
    };
    let panics = async |Form(form): Form<Vec<(String, String)>>| {
        assert_eq!(form.len(), 1);
        std::panic::resume_unwind(Box::new("handler"));
        #[allow(unreachable_code)]
        ""
    };
    let router = Router::new()
        .route("/panics", post(panics))
        .route("/forever", post(forever))
        .route("/frames", post(frames))
        .layer(provenance::axum::layer());
    let base = serve(router, Some(&evidence));
    let form = "application/x-www-form-urlencoded";
    let send = |path: &str| {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(base.trim_start_matches("http://")).unwrap();
        stream.write_all(&posted(path, form, b"email=ada@example.com")).unwrap();
        stream
    };
    let collected = |path: &str| {
        let actor = format!("HTTP POST {path}");
        evidence
            .of("DATA_COLLECTION")
            .iter()
            .filter(|event| event["actor"] == actor.as_str())
            .count()
    };
    assert_eq!(raw(&base, &[&posted("/panics", form, b"email=ada@example.com")]), "");
    assert_eq!(collected("/panics"), 1);

    let stream = send("/forever");
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(stream);
    assert!(soon(|| collected("/forever") == 1), "the client went away");

    let mut stream = send("/frames");
    let mut some = [0; 64];
    assert!(std::io::Read::read(&mut stream, &mut some).unwrap() > 0);
    assert!(soon(|| evidence.of("X_FRAME").len() > 3));
    drop(stream);
    assert_eq!(collected("/frames"), 1);
    let events = evidence.events();
    let collection = events
        .iter()
        .position(|event| event["actor"] == "HTTP POST /frames")
        .unwrap();
    assert_eq!(events[collection]["event_type"], "DATA_COLLECTION");
    let frame = events.iter().find(|event| event["event_type"] == "X_FRAME").unwrap();
    assert_eq!(frame["request_id"], events[collection]["request_id"]);
}

#[test]
fn an_event_of_the_layer_alone_says_what_the_scope_says() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    agent()
        .post(format!("{base}/plain?email=ada@example.com"))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .send("body")
        .unwrap();
    let event = &evidence.of("DATA_COLLECTION")[0];
    assert_eq!(event["extras"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(event["request_id"].is_string());
}

#[test]
fn names_of_headers_and_cookies_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let load = |key: &str| {
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, format!("input_fields:\n  {key}: {{category: contact.email}}\n")).unwrap();
        provenance::Config::load(Some(&path))
    };
    for (key, read) in [
        ("header:X-User-Email", "header:x-user-email"),
        ("cookie:contact", "cookie:contact"),
    ] {
        assert!(load(key).unwrap().input_fields.contains_key(read));
    }
    for wrong in ["\"header:\"", "\"header:x user\"", "\"cookie:a;b\""] {
        let error = load(wrong).unwrap_err();
        assert!(
            error.is_config() && error.to_string().contains("header:x-user-email"),
            "{error}"
        );
    }
}

#[test]
fn values_of_many_parts_are_capped_together() {
    let evidence = Evidence::default();
    let app = Router::new()
        .route(
            "/many",
            post(async |mut parts: axum::extract::Multipart| {
                while let Ok(Some(part)) = parts.next_field().await {
                    part.bytes().await.unwrap();
                }
            }),
        )
        .layer(provenance::axum::layer());
    let base = serve(app, Some(&evidence));
    let part = |part: usize| {
        let addresses: Vec<_> = (0..2000).map(|n| format!("p{part}n{n}@example.com")).collect();
        let json = serde_json::json!(addresses);
        format!(
            "--b\r\ncontent-disposition: form-data; name=\"email\"\r\ncontent-type: application/json\r\n\r\n{json}\r\n"
        )
    };
    let body = (0..4).map(part).collect::<String>() + "--b--\r\n";
    let response = agent()
        .post(format!("{base}/many"))
        .header("content-type", "multipart/form-data; boundary=b")
        .send(&body)
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let values: usize = evidence
        .of("DATA_COLLECTION")
        .iter()
        .map(|event| fields(event).len())
        .sum();
    assert_eq!(values, 4096);
    assert_eq!(evidence.blind_spots(), ["capped_input"]);
}
