//! What leaves through reqwest, async and blocking: on a real server, with real evidence.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use provenance::config::{OnEvidenceFailure, OnViolation, Streams};
use provenance::{Blocked, Scope, egress, set_owner, tag as register, test};
use provenance_tests::{Evidence, tag, text};
use reqwest::{Body, Client, Request, blocking, multipart};
use serde_json::{Value as Json, json};

mod middleware;
mod redirects;
mod server;
mod untouched;

use server::Server;

const ALICE: &str = "alice.liddell@wonder.example";

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn alice() {
    person(ALICE);
}

/// Makes a person's address known, as a sign-up does.
fn person(email: &str) {
    let scope = Scope::new("HTTP POST /signup");
    let _entered = scope.enter();
    set_owner("email", email);
    register("contact.email", "email", email).unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn only(events: Vec<Json>) -> Json {
    let [event] = <[Json; 1]>::try_from(events).expect("one event");
    event
}

/// How the shares ended, oldest first.
fn outcomes(evidence: &Evidence) -> Vec<String> {
    let shown = |share: &Json| {
        let extras = &share["extras"];
        match text(&extras["outcome"]).as_str() {
            "status" => format!("status {}", extras["status"]),
            "error" => format!("error {}", text(&extras["error"])),
            other => other.to_owned(),
        }
    };
    evidence.of("DATA_SHARE").iter().map(shown).collect()
}

#[egress(recipient = "mailchimp", purpose = "newsletter")]
async fn post(client: &Client, url: &str, body: Json) -> reqwest::Result<u16> {
    Ok(client.post(url).json(&body).send().await?.status().as_u16())
}

#[egress(recipient = "mailchimp")]
fn post_blocking(client: &blocking::Client, url: &str, body: Json) -> reqwest::Result<u16> {
    Ok(client.post(url).json(&body).send()?.status().as_u16())
}

/// The shares in an evidence file, as another process reads it.
fn shares(database: &std::path::Path) -> Vec<Json> {
    let query = provenance::store::EventQuery {
        limit: 100,
        event_type: Some("DATA_SHARE".into()),
        ..Default::default()
    };
    let page = provenance::store::Reader::open(database)
        .unwrap()
        .events(&query)
        .unwrap();
    page.events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap())
        .collect()
}

#[test]
fn a_share_is_on_disk_when_the_request_arrives() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let database = evidence.database();
    let server = Server::answering(move |_| {
        let outcome = |share: &Json| text(&share["extras"]["outcome"]);
        format!("200 {}", shares(&database).first().map_or("nothing".into(), outcome))
    });
    #[egress(recipient = "mailchimp", purpose = "newsletter")]
    async fn ask(client: &Client, url: &str) -> reqwest::Result<String> {
        client
            .post(url)
            .json(&json!({"email": ALICE, "plan": 2}))
            .send()
            .await?
            .text()
            .await
    }
    let url = server.url("/3.0/lists/1234/members?key=s3cret");
    assert_eq!(block_on(ask(&Client::new(), &url)).unwrap(), "pending");

    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(text(&share["target"]), "POST 127.0.0.1/3.0/lists/{id}/members");
    let extras = &share["extras"];
    assert_eq!(
        (&extras["recipient"], &extras["purpose"]),
        (&json!("mailchimp"), &json!("newsletter"))
    );
    assert_eq!(extras["status"], 200);
    assert_eq!(share["payload"]["fields"], json!(["email", "plan"]));
    let email = tag(&share, "email");
    assert_eq!(
        (text(&email["place"]), text(&email["form"])),
        ("body:/email".into(), "exact".into())
    );
    assert_eq!(email["source"], "HTTP POST /signup");
    for raw in [ALICE, "s3cret", "liddell"] {
        assert!(!evidence.holds(raw), "{raw} in the evidence");
    }
}

#[test]
fn a_blocking_share_is_on_disk_when_the_request_arrives() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let database = evidence.database();
    let server = Server::answering(move |_| {
        let pending = shares(&database)
            .iter()
            .filter(|share| share["extras"]["outcome"] == "pending")
            .count();
        format!("{} x", 200 + pending)
    });
    assert_eq!(
        post_blocking(&blocking::Client::new(), &server.url("/x"), json!({"email": ALICE})).unwrap(),
        201
    );
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["extras"]["status"], 201);
    assert_eq!(tag(&share, "email")["place"], "body:/email");
}

struct Api {
    client: Client,
    shared: Arc<Client>,
}

impl Api {
    /// Every shape in which a request is sent.
    #[egress(recipient = "crm")]
    async fn shapes<T: serde::Serialize + Sync>(&self, url: String, body: &T) -> Result<usize, Failed> {
        let client = &self.client;
        client.post(&url).json(body).send().await?;
        let request = client.get(&url);
        request.send().await?;
        self.client.execute(client.get(&url).build()?).await?;
        self.shared
            .execute(Request::new(reqwest::Method::GET, url.parse()?))
            .await?;
        let later = client.get(&url).send();
        later.await?;
        let held = client.get(&url);
        let later = held.send();
        tokio::time::timeout(Duration::from_secs(9), later).await??;
        let timed = client.get(&url);
        tokio::time::timeout(Duration::from_secs(9), timed.send()).await??;
        tokio::spawn(client.get(&url).send()).await??;
        tokio::spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { client.get(&url).send().await }
        })
        .await??;
        let all = join_all((0..3).map(|_| client.get(&url).send())).await;
        let mut pinned = client.get(&url).send();
        (&mut pinned).await?;
        let retry = async || client.get(&url).send().await;
        retry().await?;
        let sent = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => 1,
            _ => 0,
        };
        Ok(sent + all.into_iter().filter(Result::is_ok).count())
    }
}

#[test]
fn every_shape_of_a_send_is_seen() {
    let evidence = Evidence::default();
    let server = Server::start();
    let api = Api {
        client: Client::new(),
        shared: Arc::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let sent = runtime.block_on(test::scoped_future(&evidence.tracker, async {
        api.shapes(server.url("/x"), &json!({"a": 1})).await
    }));
    assert_eq!(sent.unwrap(), 4);
    assert_eq!(server.seen().len(), 15);
    // The future of the async closure borrows: it begins a call of its own.
    assert_eq!(outcomes(&evidence), vec!["status 200"; 15]);
    assert_eq!(evidence.blind_spots(), [""; 0]);
}

#[test]
fn free_functions_are_a_blind_spot() {
    #[egress(recipient = "weather")]
    async fn free(url: &str) -> reqwest::Result<u16> {
        Ok(reqwest::get(url).await?.status().as_u16())
    }
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let server = Server::start();
    assert_eq!(block_on(free(&server.url("/x"))).unwrap(), 200);
    assert_eq!(evidence.blind_spots(), ["egress_without_call"]);
}

#[test]
fn sends_in_parallel_keep_to_their_own_findings() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let email = |n: usize| format!("person{n}.surname@wonder.example");
    (0..50).for_each(|n| person(&email(n)));
    let server = Server::start();
    let everyone = |client: Client| {
        let url = server.url("/x");
        async move {
            let send = |n| post(&client, &url, json!({"to": email(n), "n": n}));
            join_all((0..50).map(send))
                .await
                .into_iter()
                .map(Result::unwrap)
                .count()
        }
    };
    assert_eq!(block_on(everyone(Client::new())), 50);
    let many = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new();
    let tasks = (0..50).map(|n| {
        let (client, url) = (client.clone(), server.url("/x"));
        let send = async move { post(&client, &url, json!({"to": email(n), "n": n})).await };
        many.spawn(test::scoped_future(&evidence.tracker, send))
    });
    let tasks: Vec<_> = tasks.collect();
    many.block_on(join_all(tasks))
        .into_iter()
        .for_each(|sent| assert_eq!(sent.unwrap().unwrap(), 200));

    let shares = evidence.of("DATA_SHARE");
    assert_eq!((shares.len(), server.seen().len()), (100, 100));
    let mut owners: Vec<String> = Vec::new();
    for share in &shares {
        assert_eq!(share["extras"]["status"], 200);
        let tags = share["matched_tags"].as_array().unwrap();
        assert_eq!(tags.len(), 1, "{share}");
        assert_eq!(tags[0]["place"], "body:/to");
        owners.push(text(&tags[0]["owner"]));
    }
    owners.sort();
    owners.dedup();
    assert_eq!(owners.len(), 50);
}

#[test]
fn what_is_dropped_is_unknown_and_what_is_never_polled_is_nothing() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let server = Server::answering(|_| {
        std::thread::sleep(Duration::from_secs(3));
        "200 late".into()
    });
    let client = Client::new();
    #[egress(recipient = "crm")]
    async fn never_polled(client: &Client, url: &str) {
        drop(client.get(url).send());
    }
    block_on(async {
        let url = server.url("/x");
        let send = post(&client, &url, json!(1));
        tokio::time::timeout(Duration::from_millis(300), send)
            .await
            .unwrap_err();
        tokio::select! {
            _ = post(&client, &url, json!(2)) => panic!("it has answered"),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        let task = tokio::spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { post(&client, &url, json!(3)).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        never_polled(&client, &url).await;
    });
    assert_eq!(server.seen().len(), 3);
    assert_eq!(outcomes(&evidence), ["unknown"; 3]);
}

#[test]
fn errors_become_a_kind() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let server = Server::answering(|line| {
        if line.contains("/slow") {
            std::thread::sleep(Duration::from_secs(1));
        }
        if line.contains("/round") {
            "307 /round"
        } else {
            "503 down"
        }
        .to_owned()
    });
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::builder()
        .timeout(Duration::from_millis(500))
        .redirect(reqwest::redirect::Policy::limited(1))
        .build()
        .unwrap();
    #[egress(recipient = "crm")]
    async fn broken(client: &Client, url: &str) -> reqwest::Result<u16> {
        let body = Body::wrap_stream(stream::iter([Ok("a"), Err(std::io::Error::other("no more"))]));
        Ok(client.post(url).body(body).send().await?.status().as_u16())
    }
    block_on(async {
        assert!(
            post(&client, &format!("http://{free}/"), json!(1))
                .await
                .unwrap_err()
                .is_connect()
        );
        assert!(
            post(&client, &server.url("/slow"), json!(1))
                .await
                .unwrap_err()
                .is_timeout()
        );
        assert!(
            post(&client, &server.url("/round"), json!(1))
                .await
                .unwrap_err()
                .is_redirect()
        );
        assert!(post(&client, "no url", json!(1)).await.unwrap_err().is_builder());
        assert!(
            post(&client, "ftp://127.0.0.1/", json!(1))
                .await
                .unwrap_err()
                .is_builder()
        );
        assert_eq!(post(&client, &server.url("/x"), json!(1)).await.unwrap(), 503);
        let failed = broken(&client, &server.url("/x")).await.unwrap_err();
        let mut chain = std::iter::successors(Some(&failed as &dyn std::error::Error), |error| error.source());
        assert!(chain.any(|error| error.to_string() == "no more"), "{failed:?}");
    });
    let got = outcomes(&evidence);
    assert_eq!(
        got[..5],
        [
            "error connect",
            "error timeout",
            "error redirect",
            "error request",
            "status 503"
        ]
    );
    assert!(got[5].starts_with("error "), "{got:?}");
    assert_eq!(got.len(), 6);
}

#[egress(recipient = "scoring", allow())]
async fn held(client: &Client, url: &str) -> reqwest::Result<reqwest::Response> {
    client.post(url).json(&json!({"email": ALICE})).send().await
}

#[egress(recipient = "scoring", allow())]
fn held_blocking(client: &blocking::Client, url: &str) -> reqwest::Result<blocking::Response> {
    let request = client.post(url).json(&json!({"email": ALICE}));
    request.send()
}

#[test]
fn what_is_blocked_opens_no_connection() {
    let evidence = Evidence::new(|config| config.egress.on_violation = OnViolation::Block);
    let _scoped = evidence.scoped();
    alice();
    let server = Server::start();
    let url = server.url("/x?q=1");
    for error in [
        block_on(held(&Client::new(), &url)).unwrap_err(),
        held_blocking(&blocking::Client::new(), &url).unwrap_err(),
    ] {
        let blocked = Blocked::find(&error).expect("the block");
        assert!(blocked.is_policy());
        assert_eq!(blocked.recipient(), "scoring");
        assert!(error.is_body() && !error.is_connect() && !error.is_timeout());
        assert!(!format!("{error} {error:?}").contains("alice"), "{error:?}");
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(outcomes(&evidence), ["blocked"; 2]);
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 2);
    assert!(Blocked::find(&std::io::Error::other("x")).is_none());
}

/// Locks the evidence for writers.
fn lock(evidence: &Evidence) -> diesel::SqliteConnection {
    use diesel::connection::SimpleConnection;
    let path = evidence.database();
    let mut connection = <diesel::SqliteConnection as diesel::Connection>::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("BEGIN IMMEDIATE").unwrap();
    connection
}

#[test]
fn a_task_waits_for_the_disk_without_holding_its_thread() {
    for refuse in [false, true] {
        let evidence = Evidence::new(|config| {
            config.spill_max_bytes = 0;
            if refuse {
                config.egress.on_evidence_failure = OnEvidenceFailure::Refuse;
            }
        });
        let _scoped = evidence.scoped();
        let server = Server::start();
        evidence.events();
        let locked = lock(&evidence);
        let ticks = AtomicUsize::new(0);
        let ticking = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                ticks.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (client, url) = (Client::new(), server.url("/x"));
        let sent = block_on(async {
            tokio::select! {
                sent = post(&client, &url, json!(1)) => sent,
                () = ticking => unreachable!(),
            }
        });
        assert!(ticks.load(Ordering::Relaxed) > 20, "{ticks:?}");
        drop(locked);
        if refuse {
            assert!(Blocked::find(&sent.unwrap_err()).unwrap().is_evidence());
            assert_eq!(server.connections(), 0);
        } else {
            assert_eq!(sent.unwrap(), 200);
        }
        assert!(evidence.blind_spots().contains(&"evidence_failure".to_owned()));
        assert_eq!(outcomes(&evidence), [if refuse { "blocked" } else { "status 200" }]);
    }
}

#[egress(recipient = "storage", allow("personal.name"))]
async fn upload(client: &Client, url: &str, body: impl Into<Body>) -> reqwest::Result<u16> {
    Ok(client.put(url).body(body).send().await?.status().as_u16())
}

#[egress(recipient = "storage", allow("personal.name"))]
async fn form(client: &Client, url: &str, form: multipart::Form) -> reqwest::Result<u16> {
    Ok(client.post(url).multipart(form).send().await?.status().as_u16())
}

/// `count` pieces of 64 KiB, then the last one; each after a wait.
fn long(count: usize, last: String, polled: Arc<AtomicUsize>) -> Body {
    Body::wrap_stream(stream::unfold(0, move |n| {
        let (last, polled) = (last.clone(), polled.clone());
        async move {
            tokio::task::yield_now().await;
            polled.fetch_add(1, Ordering::SeqCst);
            match n {
                n if n < count => Some((Ok::<_, std::io::Error>(vec![b'.'; 64 << 10]), n + 1)),
                n if n == count => Some((Ok(last.into_bytes()), n + 1)),
                _ => None,
            }
        }
    }))
}

#[test]
fn what_a_stream_carries_follows_with_the_outcome() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let server = Server::start();
    let client = Client::new();
    let ready = Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>("to: "), Ok(ALICE)]));
    block_on(async {
        upload(
            &client,
            &server.url("/x"),
            long(40, format!(" {ALICE} "), Arc::default()),
        )
        .await
        .unwrap();
        upload(&client, &server.url("/x"), ready).await.unwrap();
        form(&client, &server.url("/x"), multipart::Form::new().text("to", ALICE))
            .await
            .unwrap();
    });
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(outcomes(&evidence), ["status 200"; 3]);
    for share in &shares {
        assert_eq!(tag(share, "email")["form"], "embedded", "{share}");
    }
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 3);
    assert_eq!(evidence.blind_spots(), [""; 0]);
    assert!(server.seen()[0].head.to_ascii_lowercase().contains("chunked"));
    assert!(server.seen()[2].head.to_ascii_lowercase().contains("content-length"));
}

#[test]
fn a_stream_is_blocked_as_the_policy_says() {
    for (streams, connections) in [(Streams::Refuse, 0), (Streams::Watch, 1)] {
        let evidence = Evidence::new(|config| {
            config.egress.on_violation = OnViolation::Block;
            config.egress.streams = streams;
        });
        let _scoped = evidence.scoped();
        alice();
        let server = Server::start();
        let client = Client::new();
        let ready = multipart::Form::new().text("to", ALICE);
        let blocked = |error: reqwest::Error| Blocked::find(&error).cloned().expect("the block");
        let (whole, passing) = block_on(async {
            let whole = form(&client, &server.url("/x"), ready).await.unwrap_err();
            assert_eq!(server.connections(), 0);
            let body = long(9, format!(" {ALICE} "), Arc::default());
            (whole, upload(&client, &server.url("/x"), body).await.unwrap_err())
        });
        assert!(blocked(whole).is_policy());
        let passing = blocked(passing);
        assert!(if connections == 0 {
            passing.is_stream()
        } else {
            passing.is_policy()
        });
        assert_eq!(server.connections(), connections);
        assert_eq!(server.seen().len(), 0, "it has arrived whole");
        assert_eq!(outcomes(&evidence), ["blocked"; 2]);
    }
}

#[test]
fn a_long_stream_is_not_held() {
    let evidence = Evidence::new(|config| config.egress.read_ahead = 256 << 10);
    let _scoped = evidence.scoped();
    // It takes a connection, and reads nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let polled = Arc::new(AtomicUsize::new(0));
    let counted = polled.clone();
    let body = Body::wrap_stream(stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(vec![b'.'; 64 << 10])
    }));
    block_on(async {
        let client = Client::new();
        let sent = tokio::time::timeout(Duration::from_millis(500), upload(&client, &url, body));
        sent.await.unwrap_err();
    });
    let held = polled.load(Ordering::SeqCst) * 64;
    assert!((256..16 << 10).contains(&held), "{held} KiB");
    let share = only(evidence.of("DATA_SHARE"));
    assert_eq!(share["extras"]["outcome"], "unknown");
}

#[test]
fn a_stream_that_panics_does_so_where_it_would() {
    fn panics() -> Body {
        let first = stream::iter([Ok::<_, std::io::Error>("a")]);
        Body::wrap_stream(first.chain(stream::poll_fn(|_| panic!("the stream's own"))))
    }
    use futures_util::StreamExt;
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let server = Server::start();
    let (with, without) = block_on(async {
        let client = Client::new();
        let with = upload(&client, &server.url("/x"), panics()).await.unwrap_err();
        let without = client.put(server.url("/x")).body(panics()).send().await.unwrap_err();
        (with, without)
    });
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
    assert!(outcomes(&evidence)[0].starts_with("error"));
}

/// Answers as soon as a request's head is there, and gives what came in all.
fn early() -> (String, std::thread::JoinHandle<String>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let received = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let (mut all, mut piece, mut answered) = (Vec::new(), [0; 4096], false);
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            all.extend_from_slice(&piece[..n]);
            if !answered && all.windows(5).any(|bytes| bytes == b"lorem") {
                answered = true;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
                    .unwrap();
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    (url, received)
}

#[test]
fn what_follows_an_early_answer_is_held_back_too() {
    #[egress(recipient = "storage", allow("personal.name"))]
    async fn upload(client: &Client, url: &str, body: Body) -> reqwest::Result<reqwest::Response> {
        client.post(url).body(body).send().await
    }
    let evidence = Evidence::new(|config| config.egress.on_violation = OnViolation::Block);
    let _scoped = evidence.scoped();
    alice();
    let send = |last: String| {
        let (url, received) = early();
        block_on(async {
            let (sender, receiver) = tokio::sync::mpsc::channel::<String>(1);
            let pieces = stream::unfold(receiver, async |mut receiver| {
                Some((Ok::<_, std::convert::Infallible>(receiver.recv().await?), receiver))
            });
            sender.send("lorem ipsum".into()).await.unwrap();
            let answer = upload(&Client::new(), &url, Body::wrap_stream(pieces)).await.unwrap();
            assert_eq!(answer.status(), 200);
            sender.send(last).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(answer);
        });
        received.join().unwrap()
    };
    assert!(
        send("dolor sit".into()).contains("dolor sit"),
        "an early answer ends nothing"
    );
    assert_eq!(evidence.of("POLICY_VIOLATION").len(), 0);
    assert!(!send(format!(" <{ALICE}> ")).contains(ALICE), "it has left");
    let violation = only(evidence.of("POLICY_VIOLATION"));
    assert_eq!(violation["extras"]["action"], "blocked");
    assert_eq!(outcomes(&evidence), ["status 200"; 2]);
}
