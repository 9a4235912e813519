//! Evidence that is taken out: written while it is sent, whole or broken off.

use super::*;

fn export(addr: SocketAddr, query: &str, token: &str) -> Answer {
    get(
        addr,
        &format!("/runtime-audit/export?{query}"),
        &[("x-audit-token", token)],
    )
}

#[test]
fn each_format_is_given_and_recorded() {
    let host = guarded();
    people(&host);
    let addr = host.server.addr();
    let before = host.evidence.events();
    for (format, media, part) in [
        ("jsonl", "application/x-ndjson", "\"event_type\":\"DATA_SHARE\""),
        ("csv", "text/csv; charset=utf-8", "event_id,created_at,event_type,"),
        ("openlineage", "application/x-ndjson", "\"eventType\":\"COMPLETE\""),
        ("fides", "application/yaml", "fides_key: \"tests\""),
        ("ropa", "text/markdown; charset=utf-8", "## tests: letters"),
        ("ropa-csv", "text/csv; charset=utf-8", "Service,Activity,Purpose,"),
        ("ropa-html", "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("ropa-json", "application/json; charset=utf-8", "\"activities\""),
    ] {
        let answer = export(addr, &format!("format={format}&reason=case+9"), READER);
        assert_eq!(answer.status, 200, "{format}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], media);
        assert_eq!(answer.headers["transfer-encoding"], "chunked");
        let name = answer.headers["content-disposition"].to_str().unwrap();
        assert!(name.starts_with("attachment; filename=\"provenance."), "{name}");
        assert!(answer.text.contains(part), "{format}: {}", answer.text);
        assert!(!answer.text.contains("ada@") && !answer.text.contains("AB negative"));
        let recorded = host.evidence.of("AUDIT_ACCESS").pop().unwrap();
        assert_eq!(recorded["target"], format!("export format={format}"));
        assert_eq!(recorded["actor"], "audit:reader");
        assert_eq!(recorded["extras"]["reason"], "case 9");
    }
    let all = export(addr, "format=jsonl&reason=case+9", READER).text;
    let mut lines: Vec<Json> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.reverse();
    assert_eq!(lines[..before.len()], before, "the events as the API shows them");
    // Filters are those of `/events`.
    let shares = export(
        addr,
        "format=jsonl&event_type=DATA_SHARE&recipient=mailer&since=2001-01-01&category=&reason=case+9",
        READER,
    );
    assert_eq!(shares.text.lines().count(), 2, "{}", shares.text);
    let recorded = host.evidence.of("AUDIT_ACCESS").pop().unwrap();
    assert_eq!(
        recorded["target"],
        "export format=jsonl event_type=DATA_SHARE recipient=mailer since=2001-01-01"
    );
    assert!(Reader::open(&host.db()).unwrap().verify().unwrap().is_ok());
}

#[test]
fn what_is_refused_leaves_nothing() {
    let host = guarded();
    people(&host);
    let addr = host.server.addr();
    export(addr, "format=jsonl&reason=case+9", "none").error(401);
    assert!(
        export(addr, "format=jsonl&reason=case+9", DESK)
            .error(403)
            .contains("`read`")
    );
    for (query, name) in [
        ("format=jsonl", "reason: "),
        ("format=jsonl&reason=of+ada%40example.com", "reason: "),
        ("reason=case+9", "format: "),
        ("format=xml&reason=case+9", "format: "),
        ("format=jsonl&reason=case+9&limit=5", "limit: "),
        ("format=jsonl&reason=case+9&since=yesterday", "since: "),
    ] {
        let error = export(addr, query, READER).error(400);
        assert!(error.starts_with(name) && !error.contains("ada@"), "{query}: {error}");
    }
    // A page of others that embeds the address of an export.
    for foreign in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let headers = [("x-audit-token", READER), foreign];
        get(addr, "/runtime-audit/export?format=jsonl&reason=case+9", &headers).error(403);
    }
    let target = "/runtime-audit/export?format=jsonl&reason=case+9";
    let head = request("HEAD", addr, target, &[("x-audit-token", READER)]);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    request("POST", addr, target, &[("x-audit-token", READER)]).error(405);
    assert!(host.evidence.of("AUDIT_ACCESS").is_empty());
    // Without the service's key nothing can be recorded, so nothing is given.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(host.db(), &copy).unwrap();
    let server = Server::start(Api::new(Source::File(copy), &Options::new()).unwrap(), "127.0.0.1:0").unwrap();
    let error = get(server.addr(), target, &[]).error(503);
    assert!(
        error.contains("RUNTIME_TRACKING_KEY") && error.contains("--config"),
        "{error}"
    );
}

/// Most memory that a process ever had, in KiB.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Asks for an export, and reads no more than its beginning.
fn begin(addr: SocketAddr, format: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET /runtime-audit/export?format={format}&reason=case+9 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    stream
}

/// The rest of an answer, and whether its last chunk came.
fn rest(mut stream: TcpStream) -> (usize, bool) {
    let (mut length, mut tail, mut piece) = (0, Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return (length, tail.ends_with(b"\r\n0\r\n\r\n")),
            Ok(read) => {
                length += read;
                tail.extend_from_slice(&piece[..read]);
                tail.drain(..tail.len().saturating_sub(64));
            }
        }
        if tail.ends_with(b"\r\n0\r\n\r\n") {
            return (length, true);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_thousand_events_pass_through_little_memory() {
    const EVENTS: usize = 100_000;
    let host = Host::open();
    {
        let _in_force = host.evidence.scoped();
        for number in 0..EVENTS {
            let event = record_event("X_LETTER".parse().unwrap()).target("printer:2");
            event.extra("page", number as i64).submit();
            if number % 5000 == 0 {
                host.evidence.tracker.flush(PATIENCE).unwrap();
            }
        }
    }
    host.evidence.tracker.flush(PATIENCE).unwrap();
    let (running, addr) = serve(command(), &host.db(), &[]);
    let process = running.0.id();
    get(addr, "/runtime-audit/events?limit=500", &[]).ok();
    let before = peak(process);
    let (length, whole) = rest(begin(addr, "jsonl"));
    assert!(whole && length > EVENTS * 100, "{length}");
    let grown = peak(process) - before;
    assert!(grown < 24 * 1024, "{grown} KiB more, from {before}");

    // Two clients that stop reading take both turns, and nobody else's.
    let stalled = [begin(addr, "jsonl"), begin(addr, "jsonl")];
    let third = get(addr, "/runtime-audit/export?format=csv&reason=case+9", &[]);
    assert!(third.error(503).contains("two exports"), "{}", third.text);
    assert_eq!(third.headers["retry-after"], "10");
    get(addr, "/runtime-audit/events?limit=500", &[]).ok();
    assert!(peak(process) - before < 24 * 1024);
    // They lose them after a while, and what they have does not look whole.
    let begun = Instant::now();
    while get(
        addr,
        "/runtime-audit/export?format=ropa&event_type=X_NONE&reason=case+9",
        &[],
    )
    .status
        == 503
    {
        assert!(begun.elapsed() < PATIENCE, "the turns are not given back");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The second began a moment later.
    std::thread::sleep(Duration::from_secs(3));
    for stream in stalled {
        assert!(!rest(stream).1);
    }
}

#[test]
fn an_error_on_the_way_breaks_off() {
    let host = Host::open();
    let long = "x".repeat(4000);
    {
        let _in_force = host.evidence.scoped();
        for number in 0..8000 {
            let event = record_event("X_LETTER".parse().unwrap()).target("printer:2");
            event.extra("page", format!("{number} {long}")).submit();
            if number % 500 == 0 {
                host.evidence.tracker.flush(PATIENCE).unwrap();
            }
        }
    }
    host.evidence.tracker.close();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(host.db(), &copy).unwrap();
    std::fs::copy(host.db().with_extension("db.key"), copy.with_extension("db.key")).unwrap();
    let server = Server::start(
        Api::new(Source::File(copy.clone()), &Options::new()).unwrap(),
        "127.0.0.1:0",
    )
    .unwrap();
    let whole = rest(begin(server.addr(), "jsonl"));
    assert!(whole.1 && whole.0 > 8000 * 4000, "{whole:?}");
    let stream = begin(server.addr(), "jsonl");
    // What is not in a buffer yet is gone.
    let file = std::fs::File::options().write(true).open(&copy).unwrap();
    file.set_len(8192).unwrap();
    let (length, is_whole) = rest(stream);
    assert!(!is_whole && length < whole.0, "{length} of {whole:?}");
}
