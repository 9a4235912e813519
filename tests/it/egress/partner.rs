//! A partner's server on loopback, which keeps what it is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provenance::store::{EventQuery, Reader};
use serde_json::Value as Json;

/// One request as it arrived.
pub(super) struct Seen {
    /// Request line and headers.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// `200 text`, as it was answered.
    pub(super) answer: String,
}

pub(super) struct Partner {
    address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Partner {
    pub(super) fn start() -> Self {
        Partner::answering(|_| "200 ok".to_owned())
    }

    /// `answer` gets the request's head and gives status and body: `200 ok`.
    pub(super) fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let partner = Partner {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let seen = partner.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &answer, &seen);
            }
        });
        partner
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// The shares in an evidence file, as another process reads it.
pub(super) fn shares(database: &Path) -> Vec<Json> {
    let query = EventQuery {
        limit: 100,
        event_type: Some("DATA_SHARE".into()),
        ..EventQuery::default()
    };
    let page = Reader::open(database).unwrap().events(&query).unwrap();
    page.events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap())
        .collect()
}

fn serve(stream: TcpStream, answer: &dyn Fn(&str) -> String, seen: &Mutex<Vec<Seen>>) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    if head.is_empty() {
        return;
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    if lower.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            body.push(byte[0]);
        }
    }
    let text = answer(&head);
    seen.lock().unwrap().push(Seen {
        head,
        body,
        answer: text.clone(),
    });
    let (status, text) = text.split_once(' ').unwrap();
    let text = if status == "204" { "" } else { text };
    let _ = write!(
        &stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
}
