//! A server on loopback that keeps each request as it arrived, byte for byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it arrived.
#[derive(Clone)]
pub(super) struct Seen {
    /// Which connection it came on, from 0.
    pub(super) connection: usize,
    /// Request line and headers.
    pub(super) head: String,
    /// As framed: with the sizes of its chunks.
    pub(super) body: Vec<u8>,
}

pub(super) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn start() -> Self {
        Server::answering(|_| "200 ok".to_owned())
    }

    /// `answer` gets the request line and gives status and text: `200 ok`, `307 http://elsewhere/`.
    pub(super) fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections, answer) = (server.seen.clone(), server.connections.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, number, &seen, &*answer));
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// By a name that is another host's to a client.
    pub(super) fn elsewhere(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.address.port())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What arrived, without the port and the boundary of a multipart body, which are random.
    pub(super) fn wire(&self) -> Vec<(usize, String, String)> {
        let own = self.address.to_string();
        let plain = |seen: Seen| {
            let head = seen.head.replace(&own, "HOST");
            let mut body = String::from_utf8_lossy(&seen.body).into_owned();
            let boundary = head
                .split("boundary=")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next());
            let boundary = boundary.map(str::to_owned);
            let head = match &boundary {
                Some(boundary) => {
                    body = body.replace(boundary, "BOUNDARY");
                    head.replace(boundary, "BOUNDARY")
                }
                None => head,
            };
            (seen.connection, head, body)
        };
        self.seen().into_iter().map(plain).collect()
    }
}

fn serve(mut stream: TcpStream, connection: usize, seen: &Mutex<Vec<Seen>>, answer: &dyn Fn(&str) -> String) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = Vec::new();
    loop {
        let Some(end) = read_until(&mut stream, &mut buffer, |bytes| {
            find(bytes, b"\r\n\r\n").map(|at| at + 4)
        }) else {
            return;
        };
        let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let end = if lower.contains("transfer-encoding: chunked") {
            // Nobody sends another request before this one is answered.
            read_until(&mut stream, &mut buffer, |bytes| {
                let ended = bytes == b"0\r\n\r\n" || bytes.ends_with(b"\r\n0\r\n\r\n");
                ended.then_some(bytes.len())
            })
        } else {
            let length = length.unwrap_or(0);
            read_until(&mut stream, &mut buffer, |bytes| {
                (bytes.len() >= length).then_some(length)
            })
        };
        let Some(end) = end else { return };
        let body: Vec<u8> = buffer.drain(..end).collect();
        let line = head.lines().next().unwrap().to_owned();
        let is_head = line.starts_with("HEAD ");
        seen.lock().unwrap().push(Seen { connection, head, body });
        let text = answer(&line);
        let (status, text) = text.split_once(' ').unwrap();
        let (location, text) = match status.starts_with('3') {
            true => (format!("location: {text}\r\n"), ""),
            false => (String::new(), text),
        };
        let length = if is_head { 0 } else { text.len() };
        let text = if is_head { "" } else { text };
        let answer = format!("HTTP/1.1 {status} X\r\n{location}content-length: {length}\r\n\r\n{text}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, done: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
    let mut piece = [0; 64 << 10];
    loop {
        if let Some(end) = done(buffer) {
            return Some(end);
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => buffer.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
