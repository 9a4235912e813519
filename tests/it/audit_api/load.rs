//! Many clients that want to do harm, or are just slow, against `provenance-audit serve` as a process of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use provenance::record_event;

use super::{Host, PATIENCE, Running, command, events, get, names, serve};

const STATUS: &[u8] = b"GET /runtime-audit/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";

const PAGE: &[u8] = b"GET /runtime-audit/events?limit=500 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server over evidence whose pages are megabytes.
fn server() -> (Host, Running, SocketAddr) {
    let host = Host::open();
    {
        let _in_force = host.evidence.scoped();
        for name in names(500) {
            let target = name.repeat(16_000 / name.len());
            record_event("X_LETTER".parse().unwrap()).target(&target).submit();
        }
    }
    host.evidence.tracker.flush(PATIENCE).unwrap();
    let (running, addr) = serve(command(), &host.db(), &[]);
    (host, running, addr)
}

/// A figure of `/proc/PID/status`.
fn figure(running: &Running, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn begin(addr: SocketAddr, start: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(start).unwrap();
    stream
}

/// Asks as an honest client does, on a new connection; how long it took.
fn asked(addr: SocketAddr) -> Duration {
    let begun = Instant::now();
    get(addr, "/runtime-audit/status", &[]).ok();
    begun.elapsed()
}

/// How a client is slow.
#[derive(Clone, Copy, PartialEq)]
enum Slow {
    /// Answered, and kept open.
    Idle,
    /// A head that comes a byte a second.
    Head,
    /// Half a head, and no more.
    Half,
    /// A body that comes a byte a second.
    Body,
    /// Megabytes of answer, of which it reads a byte a second.
    Reader,
}

fn slow(addr: SocketAddr, how: Slow) -> TcpStream {
    match how {
        Slow::Head => begin(addr, STATUS),
        Slow::Half => begin(addr, &STATUS[..20]),
        Slow::Body => begin(
            addr,
            b"POST /runtime-audit/subjects HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        ),
        Slow::Idle => {
            let mut stream = begin(
                addr,
                b"HEAD /runtime-audit/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
            );
            let mut start = [0; 15];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200 OK");
            stream
        }
        Slow::Reader => {
            let mut stream = begin(addr, PAGE);
            stream.read_exact(&mut [0; 15]).unwrap();
            stream
        }
    }
}

/// More than there are places for.
#[test]
fn three_hundred_slow_clients_do_not_stop_the_next() {
    let (_host, running, addr) = server();
    let page = get(addr, "/runtime-audit/events?limit=500", &[]);
    assert!(page.text.len() > 4 << 20, "{}", page.text.len());
    let threads = figure(&running, "Threads:");

    // First those whose answers take work: it is done before anybody is timed.
    let answered = [Slow::Reader; 12].into_iter().chain([Slow::Idle; 40]);
    let others = [Slow::Head, Slow::Half, Slow::Body].into_iter().cycle().take(248);
    let mut clients: Vec<_> = answered.chain(others).map(|how| (how, slow(addr, how))).collect();
    // For a while longer than a head or a body may take.
    for second in 0..12 {
        let tick = Instant::now();
        let took = asked(addr);
        assert!(took < Duration::from_secs(5), "{took:?} in second {second}");
        for (how, stream) in &mut clients {
            stream.set_nonblocking(true).unwrap();
            match how {
                Slow::Head | Slow::Body => drop(stream.write(b"x")),
                Slow::Reader => drop(stream.read(&mut [0])),
                Slow::Idle | Slow::Half => {}
            }
        }
        let now = figure(&running, "Threads:");
        assert!(now <= threads + 4, "{now} threads");
        std::thread::sleep(Duration::from_secs(1).saturating_sub(tick.elapsed()));
    }
    // Who did not send what it began is gone.
    let unfinished = clients.iter_mut().filter(|(how, _)| *how != Slow::Reader);
    for (n, (_, stream)) in unfinished.enumerate() {
        let mut rest = vec![0; 1 << 16];
        let is_gone = loop {
            match stream.read(&mut rest) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        assert!(is_gone, "client {n}");
    }
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let (_host, running, addr) = server();
    let mut slow: Vec<_> = (0..60).map(|_| slow(addr, Slow::Reader)).collect();
    let resident = figure(&running, "VmRSS:") / 1024;
    assert!(resident < 300, "{resident} MiB");
    assert!(asked(addr) < Duration::from_secs(5));
    // The newest one is not who pays.
    let last = slow.last_mut().unwrap();
    let mut taken = 0;
    let mut piece = vec![0; 1 << 20];
    while taken < 4 << 20 {
        taken += last.read(&mut piece).unwrap();
    }
}

#[test]
fn heads_are_taken_to_16_kib_and_no_further() {
    let host = Host::open();
    let addr = host.server.addr();
    let status = |bytes: usize| {
        let mut stream = begin(addr, b"");
        let head = [STATUS, &vec![b'x'; bytes - STATUS.len() - 4], b"\r\n\r\n"].concat();
        let _ = stream.write_all(&head);
        let mut start = [0; 12];
        let read = stream.read_exact(&mut start);
        String::from_utf8_lossy(if read.is_ok() { &start } else { b"" }).into_owned()
    };
    assert_eq!(status(15 * 1024), "HTTP/1.1 200");
    let refused = status(17 * 1024);
    assert!(refused.is_empty() || refused == "HTTP/1.1 431", "{refused}");
}

#[test]
fn no_bytes_on_the_wire_make_it_fail() {
    let (_host, mut running, addr) = server();
    let json = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
    let body = |body: &[u8]| {
        [
            format!("POST /runtime-audit/subjects HTTP/1.1\r\n{json}{}\r\n\r\n", body.len()).as_bytes(),
            body,
        ]
        .concat()
    };
    let get = |target: &[u8]| {
        [
            b"GET /runtime-audit/",
            target,
            b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ]
        .concat()
    };
    let head = |lines: &[u8]| {
        let start = b"GET /runtime-audit/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        [start.as_slice(), lines, b"\r\n\r\n"].concat()
    };
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for hostile in [
        b"%".as_slice(),
        b"%0",
        b"%zz",
        b"%00",
        b"%ff%fe",
        b"%80",
        b"\0",
        b"\xff\xfe",
        b"\xc3\x28",
        b"\xf0\x9f\x98\x80",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"1e400",
        b"0x10",
        b"..%2f..%2fetc",
        b"<script>",
        b"\x7f\x01",
    ] {
        let with = |before: &[u8], after: &[u8]| [before, hostile, after].concat();
        sent.extend(
            [
                "status/",
                "lineage/",
                "view/",
                "view/events/",
                "view/lineage?fingerprint=",
                "?",
                "events?",
            ]
            .map(|before| get(&with(before.as_bytes(), b""))),
        );
        let names = [
            "limit",
            "event_type",
            "since",
            "until",
            "category",
            "recipient",
            "request_id",
            "fingerprint",
            "cursor",
            "audit_token",
        ];
        sent.extend(names.map(|name| get(&with(format!("events?{name}=").as_bytes(), b""))));
        sent.push(get(&with(b"events?", b"=1")));
        let headers = [
            "Host",
            "Cookie",
            "Authorization",
            "X-Audit-Token",
            "Origin",
            "Content-Length",
            "Transfer-Encoding",
            "Content-Type",
        ];
        sent.extend(headers.map(|name| head(&with(format!("{name}: ").as_bytes(), b""))));
        sent.push(head(&with(b"", b": x")));
        sent.push(body(hostile));
        sent.push(body(&with(
            b"{\"kind\": \"email\", \"reason\": \"case\", \"identifier\": \"",
            b"\"}",
        )));
        sent.push(body(&with(b"{\"kind\": ", b"}")));
        sent.push(
            [
                hostile,
                b" /runtime-audit/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            ]
            .concat(),
        );
        sent.push(
            [
                b"GET /runtime-audit/status HTTP/",
                hostile,
                b"\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            ]
            .concat(),
        );
    }
    sent.push(body(&b"[".repeat(60_000)));
    sent.push(head(&b"a: b\r\n".repeat(200)));
    let number = sent.len();
    for bytes in sent {
        let mut stream = begin(addr, b"");
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.get(..12).unwrap_or_default();
        // A panic would be a 500, or an end without an answer.
        let is_answered = ["20", "30", "40", "41", "42", "43"].iter().any(|begin| {
            status
                .strip_prefix("HTTP/1.1 ")
                .is_some_and(|code| code.starts_with(begin))
        });
        assert!(is_answered, "{}: {status}", String::from_utf8_lossy(&bytes));
    }
    assert!(number > 400 && running.0.try_wait().unwrap().is_none());
    assert!(asked(addr) < Duration::from_secs(5));
}

#[test]
fn a_listing_that_is_kept_shows_every_commit() {
    let host = Host::open();
    let (_running, addr) = serve(command(), &host.db(), &[]);
    let shown = || {
        // Several readers, each with pages of its own.
        let asking =
            [(); 4].map(|()| std::thread::spawn(move || get(addr, "/runtime-audit/events?limit=500", &[]).ok()));
        asking.map(|asked| events(&asked.join().unwrap()).len())
    };
    for round in 0..20 {
        assert_eq!(shown(), [round; 4]);
        host.record("X_LETTER", "personal.name", ["Ada Lovelace"]);
        assert_eq!(shown(), [round + 1; 4]);
    }
}
