//! What is on disk when the process has ended, however it did; and what a forked one does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use provenance::Tracker;

use super::{Process, config, event, events, init, lock, numbers, spills};

extern "C" fn panics() {
    panic!("on purpose: nothing may unwind from here");
}

#[test]
#[ignore = "run by other tests"]
fn child_ends() {
    let (guard, folder, how) = init(|config| {
        if std::env::var("RECORDER_HOW").unwrap() == "stuck" {
            config.spill_max_bytes = 0;
        }
    });
    if how == "abort" {
        provenance::flush_on_panic();
    }
    if how == "sigterm" {
        provenance::flush_on_sigterm().unwrap();
        provenance::flush_on_sigterm().unwrap();
    }
    let _locked = (how == "stuck").then(|| lock(&folder.join("provenance.db")));
    for n in 0..500 {
        event(n).submit();
    }
    match how.as_str() {
        "exit" | "stuck" => std::process::exit(7),
        "abort" => panics(),
        "lost" => std::process::abort(),
        "unwind" => panic!("on purpose: the guard is dropped"),
        _ => {
            println!("\nready .");
            std::thread::sleep(Duration::from_secs(20));
        }
    }
    drop(guard);
}

#[test]
fn what_was_sent_is_kept_however_the_process_ends() {
    let end = |how: &str, expected: i32, kept: usize| {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let mut process = Process::start("recorder::ends::child_ends", folder.path(), how);
        if how == "sigterm" {
            process.said("ready").unwrap();
            process.signal(libc::SIGTERM);
        }
        assert_eq!(process.end(), expected, "{how}");
        assert!(began.elapsed() < Duration::from_secs(8), "{how}: {:?}", began.elapsed());
        assert_eq!(events(folder.path()).len(), kept, "{how}");
    };
    std::thread::scope(|scope| {
        for (how, expected, kept) in [
            ("exit", 7, 500),
            ("unwind", 101, 500),
            ("abort", -libc::SIGABRT, 500),
            ("sigterm", -libc::SIGTERM, 500),
            // Without anybody who flushes nothing would be kept: they are all within the first wait.
            ("lost", -libc::SIGABRT, 0),
            ("stuck", 7, 0),
        ] {
            scope.spawn(move || end(how, expected, kept));
        }
    });
}

#[test]
fn a_program_whose_panics_abort_keeps_what_was_recorded_before() {
    use std::io::Write;
    let built = crate::inventory::cargo()
        .args(["build", "--quiet", "--manifest-path"])
        .arg(crate::inventory::fixture("aborts"))
        .env("CARGO_TARGET_DIR", crate::inventory::target())
        .status()
        .unwrap();
    assert!(built.success());
    let program = crate::inventory::target().join("debug/aborts");
    let end = |how: &str, locked: bool, kept: usize| {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(&program)
            .arg(folder.path())
            .arg(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stdin = child.stdin.take().unwrap();
        let mut process = Process { child, lines };
        process.said("ready").unwrap();
        let locked = locked.then(|| lock(&folder.path().join("provenance.db")));
        stdin.write_all(b"go\n").unwrap();
        assert_eq!(process.end(), -libc::SIGABRT, "{how}");
        if locked.is_some() {
            assert_eq!(spills(folder.path(), "spill").len(), 1, "{how}");
        }
        drop(locked);
        Tracker::open(config(folder.path())).unwrap().close();
        assert_eq!(
            numbers(&events(folder.path())),
            (0..kept as u64).collect::<Vec<_>>(),
            "{how}"
        );
    };
    end("main", false, 500);
    end("thread", false, 500);
    end("main", true, 500);
    // The control: all of them were within the first wait.
    end("lost", false, 0);
}

/// Runs `body` in a forked process, which ends with its code.
fn forked(body: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child goes on as this thread alone; it calls nothing that waits for another one, which
    // is what this tests.
    match unsafe { libc::fork() } {
        0 => std::process::exit(body()),
        pid => pid,
    }
}

fn status_of(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: the number lives as long as the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

#[test]
#[ignore = "run by other tests"]
fn child_forks() {
    let (guard, folder, _) = init(|_| {});
    provenance::flush_on_sigterm().unwrap();
    for n in 0..10 {
        event(n).submit();
    }
    let began = Instant::now();
    let pid = forked(|| {
        event(100).submit();
        let durable = event(101).submit_durable();
        let share = provenance::share("queue:letters").begin();
        let flushed = provenance::flush(Duration::from_secs(9));
        let refused =
            durable.is_err_and(|error| error.is_evidence()) && flushed.is_err_and(|error| error.is_evidence());
        if refused && share.is_ok() { 5 } else { 6 }
    });
    let status = status_of(pid);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 5, "{status}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let pid = forked(|| {
        std::thread::sleep(Duration::from_secs(20));
        6
    });
    // SAFETY: a call without pointers, to a process that was not waited for yet.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let status = status_of(pid);
    assert!(
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM,
        "{status}"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for n in 10..20 {
        event(n).submit();
    }
    drop(guard);
    assert_eq!(numbers(&events(&folder)), (0..20).collect::<Vec<_>>());
    println!("\nboth ended .");
}

#[test]
fn a_forked_process_records_nothing_and_leaves_its_parent_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start("recorder::ends::child_forks", folder.path(), "");
    assert!(process.said("both ended").is_some());
    assert_eq!(process.end(), 0);
}
