//! What commands write: to standard output the answer, to standard error everything else.

use std::io::{self, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// What a command ends with.
pub(super) type Done = Result<ExitCode, Failure>;

/// Why a command did not end well.
#[derive(Debug)]
pub(super) enum Failure {
    /// To be told, in one line that says what to do.
    Said(String),
    /// Nobody reads the answer any more.
    Closed,
}

impl Failure {
    pub(super) fn said(message: impl Into<String>) -> Self {
        Failure::Said(message.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Said(message) => f.write_str(message),
            Failure::Closed => f.write_str("nobody reads the answer"),
        }
    }
}

impl From<provenance::Error> for Failure {
    fn from(error: provenance::Error) -> Self {
        Failure::Said(error.to_string())
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Failure::Said(error.to_string())
    }
}

/// Of writing an answer.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            kind => Failure::Said(format!("the answer cannot be written: {kind}")),
        }
    }
}

/// Standard output, buffered: [`finish`] writes what is left.
pub(super) fn out() -> io::BufWriter<StdoutLock<'static>> {
    io::BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

/// Writes what is left; an answer that is not whole is a failure.
pub(super) fn finish(mut out: impl Write) -> Done {
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One JSON document, indented, with a line feed.
pub(super) fn json(out: &mut impl Write, answer: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, answer).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Colours, where somebody sees them.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn stdout() -> Self {
        Paint(io::stdout().is_terminal() && wanted())
    }

    pub(super) fn stderr() -> Self {
        Paint(io::stderr().is_terminal() && wanted())
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// <https://no-color.org>: set to anything but nothing.
fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Says how far a long work is: on standard error, if that is a terminal.
pub(super) fn progress(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}: {human_pos} ({elapsed})") {
        bar.set_style(style);
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

/// `1 event`, `2 events`.
pub(super) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

pub(super) use crate::shown::listed;
