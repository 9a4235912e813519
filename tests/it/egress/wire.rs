//! What is on the wire, byte for byte: with the attribute, with the middleware, with both, and without us.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provenance::egress;
use provenance_tests::Evidence;
use serde_json::json;
use ureq::unversioned::multipart::{Form, Part};
use ureq::{Agent, Error, SendBody};

/// A request's bytes, and the number of the connection on which they came.
type Request = (usize, Vec<u8>);

/// Every byte that arrives.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<Request>>>,
}

impl Wire {
    /// Answers by the path: `/301`, `/307`, ..: a redirect to the query; `/slow`: nothing; `/cut`: hangs up;
    /// `/404`; anything else is 200. Connections are kept.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let seen = wire.seen.clone();
        std::thread::spawn(move || {
            let connections = AtomicUsize::new(0);
            for stream in listener.incoming().flatten() {
                let (seen, number) = (seen.clone(), connections.fetch_add(1, Ordering::Relaxed));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    while let Some(request) = request(&stream, &mut reader) {
                        let answer = answer(&request);
                        seen.lock().unwrap().push((number, request));
                        match answer {
                            Some(answer) => (&stream).write_all(answer.as_bytes()).unwrap_or_default(),
                            None => return,
                        }
                    }
                });
            }
        });
        wire
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The same server under another name.
    pub(super) fn elsewhere(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.address.port())
    }

    /// What came, without what differs between two runs: the port, and a form's boundary.
    pub(super) fn normal(&self) -> Vec<(usize, String)> {
        let port = self.address.port().to_string();
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|(connection, bytes)| {
                let mut text = String::from_utf8_lossy(bytes).replace(&port, "PORT");
                if let Some((_, rest)) = text.split_once("boundary=") {
                    let boundary = rest.split_once("\r\n").unwrap().0.to_owned();
                    text = text.replace(&boundary, "BOUNDARY");
                }
                (*connection, text)
            })
            .collect()
    }
}

fn request(stream: &TcpStream, reader: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if text.contains("expect: 100-continue") {
        { stream }.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if let Err(_broken) = reader.read_exact(&mut body) {
        head.extend_from_slice(b"(broken)");
        return Some(head);
    }
    if text.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            if reader.read_until(b'\n', &mut body).ok()? == 0 {
                break;
            }
        }
    }
    head.extend(body);
    Some(head)
}

fn answer(request: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(request).lines().next()?.to_owned();
    let path = line.split(' ').nth(1)?.to_owned();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    Some(match path {
        "/slow" => {
            std::thread::sleep(Duration::from_secs(3));
            return None;
        }
        "/cut" => return None,
        "/404" => "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".into(),
        "/301" | "/302" | "/303" | "/307" | "/308" => {
            format!(
                "HTTP/1.1 {} R\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n",
                &path[1..]
            )
        }
        "/body" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nok".into(),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(),
    })
}

/// Gives its bytes seven at a time.
struct Slowly<'a>(&'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.len().min(7).min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

macro_rules! twice {
    ($(fn $with:ident / $without:ident ($($arg:tt)*) $body:block)*) => {$(
        #[egress(recipient = "partner")]
        fn $with($($arg)*) -> Result<(), Error> $body
        fn $without($($arg)*) -> Result<(), Error> $body
    )*};
}

twice! {
    fn bodies / bodies_plain (agent: &Agent, wire: &Wire, file: &std::path::Path) {
        let url = wire.url("/x?k=v");
        agent.post(&url).header("x-a", "1").send_json(json!({"b": "é", "a": [1.5, null]}))?;
        agent.post(&url).content_type("application/vnd.x+json").send_json(json!([1]))?;
        agent.post(&url).send_form([("a b", "c&d"), ("e", "é")])?;
        agent.post(&url).send(&[1_u8, 2, 3])?;
        agent.post(&url).send(())?;
        agent.post(&url).send_empty()?;
        agent.put(&url).send("")?;
        agent.post(&url).send(SendBody::from_reader(&mut &b"a reader's"[..]))?;
        agent.post(&url).send(SendBody::from_reader(&mut Slowly(b"a slow reader's bytes")))?;
        agent.post(&url).send(SendBody::from_owned_reader(std::io::empty()))?;
        agent.post(&url).header("content-length", "4").send(SendBody::from_reader(&mut &b"four"[..]))?;
        let typed = || agent.post(&url).content_type("text/x");
        typed().header("content-length", "4").send(SendBody::from_reader(&mut &b"four"[..]))?;
        typed().header("content-length", "9").send(SendBody::from_reader(&mut Slowly(b"nine byte")))?;
        agent.post(&url).send(SendBody::from_json(&json!({"x": 1}))?)?;
        agent.post(&url).send(std::fs::File::open(file)?)?;
        let opened = std::fs::File::open(file)?;
        agent.put(&url).send(&opened)?;
        agent.post(&url).send(Form::new().text("name", "value").part("f", Part::file(file)?.mime_str("text/x")?))?;
        agent.post(&url).send(Form::new().part("r", Part::owned_reader(&b"read"[..])))?;
        agent.post(&url).header("expect", "100-continue").send("after a word")?;
        agent.post(&url).header("content-encoding", "gzip").send(&*gzipped(b"zipped"))?;
        agent.get(&url).query("q", "a b").header("x-y", "z").call()?;
        agent.delete(&url).call()?;
        agent.get(&url).force_send_body().send("with")?;
        agent.run(ureq::http::Request::post(&url).header("x-b", "2").body("run")?)?;
        agent.run(ureq::http::Request::post(&url).body(SendBody::from_reader(&mut &b"read"[..]))?)?;
        agent.run(ureq::http::Request::put(&url).body(std::fs::File::open(file)?)?)?;
        agent.run(ureq::http::Request::get(&url).body(())?)?;
        agent.post(&url).config().timeout_global(Some(Duration::from_secs(9))).build().send("configured")?;
        Ok(())
    }

    fn forwards / forwards_plain (agent: &Agent, wire: &Wire) {
        let response = agent.get(wire.url("/body")).call()?;
        agent.post(wire.url("/x")).send(response)?;
        Ok(())
    }

    fn redirects / redirects_plain (agent: &Agent, wire: &Wire) {
        let (here, there) = (wire.url("/end?x=1"), wire.elsewhere("/end"));
        for status in [301, 302, 303] {
            agent.post(wire.url(&format!("/{status}?{there}"))).header("x-key", "k").header("authorization", "a")
                .header("cookie", "c=d").send_json(json!({"a": 1}))?;
            agent.post(wire.url(&format!("/{status}?{here}"))).send(SendBody::from_reader(&mut &b"read"[..]))?;
        }
        for status in [307, 308] {
            let url = wire.url(&format!("/{status}?{there}"));
            agent.get(&url).header("x-key", "k").call()?;
            let failed = agent.post(&url).send("a");
            assert!(matches!(failed, Err(Error::RedirectFailed)));
        }
        agent.get(wire.url(&format!("/302?/302?/302?{there}"))).call()?;
        let failed = agent.get(wire.url("/404")).call();
        assert!(matches!(failed, Err(Error::StatusCode(404))));
        let around = agent.get(wire.url("/302?/302?/302?/end")).config().max_redirects(2).build();
        let failed = around.call();
        assert!(matches!(failed, Err(Error::TooManyRedirects)));
        // A retry of the program's own.
        for _ in 0..2 {
            let failed = agent.post(wire.url("/cut")).send("again");
            assert!(failed.is_err());
        }
        agent.get(wire.url("/end")).call()?;
        Ok(())
    }

    fn free / free_plain (wire: &Wire) {
        ureq::post(wire.url("/x")).send_json(json!([1]))?;
        ureq::get(wire.url("/x")).call()?;
        ureq::run(ureq::http::Request::post(wire.url("/x")).body("run")?)?;
        Ok(())
    }
}

pub(super) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn watched() -> Agent {
    let middleware = provenance::ureq::middleware();
    Agent::config_builder().middleware(middleware).build().into()
}

#[track_caller]
fn same(one: &Wire, other: &Wire) {
    let (one, other) = (one.normal(), other.normal());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
}

#[test]
fn bodies_are_byte_identical_and_connections_are_kept() {
    let evidence = Evidence::new(|config| config.ignored_hosts.clear());
    let file = evidence.folder.path().join("body.txt");
    std::fs::write(&file, "the file's text").unwrap();
    let plain = Wire::start();
    bodies_plain(&ureq::agent(), &plain, &file).unwrap();
    let sends = plain.seen.lock().unwrap().len();
    assert_eq!(sends, 28);
    let connections = plain.seen.lock().unwrap().last().unwrap().0 + 1;
    assert!(connections < 5, "{connections}");

    let _scoped = evidence.scoped();
    let ours = Wire::start();
    bodies(&ureq::agent(), &ours, &file).unwrap();
    same(&ours, &plain);
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), sends);
    assert!(shares.iter().all(|share| share["extras"]["status"] == 200));
    assert_eq!(evidence.blind_spots().len(), 0, "{:?}", evidence.blind_spots());

    let ours = Wire::start();
    bodies_plain(&watched(), &ours, &file).unwrap();
    same(&ours, &plain);
    assert_eq!(evidence.of("DATA_SHARE").len(), 2 * sends);

    let ours = Wire::start();
    bodies(&watched(), &ours, &file).unwrap();
    same(&ours, &plain);
    assert_eq!(evidence.of("DATA_SHARE").len(), 3 * sends);
}

#[test]
fn a_response_is_passed_on() {
    let evidence = Evidence::default();
    let plain = Wire::start();
    forwards_plain(&ureq::agent(), &plain).unwrap();
    let _scoped = evidence.scoped();
    let ours = Wire::start();
    forwards(&ureq::agent(), &ours).unwrap();
    // Read ahead, the response has given its connection back by then.
    let requests = |wire: &Wire| wire.normal().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(requests(&ours), requests(&plain));
    assert_eq!(evidence.of("DATA_SHARE")[1]["payload"]["length"], 2);
}

#[test]
fn redirects_and_retries_are_byte_identical() {
    let evidence = Evidence::new(|config| config.ignored_hosts.clear());
    let plain = Wire::start();
    redirects_plain(&ureq::agent(), &plain).unwrap();

    let _scoped = evidence.scoped();
    let sends = plain.seen.lock().unwrap().len();
    let ours = Wire::start();
    redirects(&ureq::agent(), &ours).unwrap();
    same(&ours, &plain);
    // Of a redirect that ends in an error, ureq tells nothing: two hops of it are missing.
    let shown: Vec<_> = evidence
        .of("DATA_SHARE")
        .iter()
        .map(|share| share["target"].to_string() + &share["extras"].to_string())
        .collect();
    assert_eq!(shown.len(), sends - 2, "{shown:#?}");
    assert_eq!(evidence.blind_spots(), ["unseen_redirect"]);

    let ours = Wire::start();
    redirects_plain(&watched(), &ours).unwrap();
    same(&ours, &plain);
    assert_eq!(evidence.of("DATA_SHARE").len(), 2 * (sends - 2));
}

#[test]
fn free_functions_are_seen() {
    let evidence = Evidence::default();
    let plain = Wire::start();
    free_plain(&plain).unwrap();
    let _scoped = evidence.scoped();
    let ours = Wire::start();
    free(&ours).unwrap();
    same(&ours, &plain);
    assert_eq!(evidence.of("DATA_SHARE").len(), 3);
}

#[test]
fn a_long_body_is_byte_identical_where_its_length_is_not_said() {
    #[egress(recipient = "storage")]
    fn long(url: &str, file: &std::path::Path) -> Result<(), Error> {
        let text = vec![b'x'; 300_000];
        ureq::post(url).send(SendBody::from_reader(&mut &text[..]))?;
        ureq::post(url).send(&text)?;
        ureq::post(url).send(std::fs::File::open(file)?)?;
        Ok(())
    }
    let evidence = Evidence::new(|config| config.egress.read_ahead = 1000);
    let file = evidence.folder.path().join("body.txt");
    std::fs::write(&file, vec![b'y'; 300_000]).unwrap();
    let plain = Wire::start();
    long(&plain.url("/x"), &file).unwrap();
    let _scoped = evidence.scoped();
    let ours = Wire::start();
    long(&ours.url("/x"), &file).unwrap();
    let bodies = |wire: &Wire| -> Vec<String> {
        let normal = wire.normal().into_iter();
        normal
            .map(|(_, text)| text.replace("\r\n", "").len().to_string() + text.split("\r\n\r\n").next().unwrap())
            .collect()
    };
    assert_eq!(bodies(&ours)[1..], bodies(&plain)[1..]);
    let payloads = |wire: &Wire| {
        wire.seen.lock().unwrap()[0]
            .1
            .iter()
            .filter(|byte| **byte == b'x')
            .count()
    };
    assert_eq!(payloads(&ours), payloads(&plain));
}
