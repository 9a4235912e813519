//! Who looked, and why: chained AUDIT_ACCESS events, on disk before the answer is written.

use clap::Args;
use provenance::{Config, Owner, Tracker};

use crate::api::beside;

/// Longest reason, user name and the like that is kept, in characters.
const MAX_TEXT: usize = 256;
/// What stands for a word that may be somebody's.
const NOT_KEPT: &str = "{value}";

/// The options of commands that are themselves put on record.
#[derive(Args)]
pub(super) struct Recording {
    /// Why: kept with the evidence, so write a ticket or case number, and no personal data
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Leave no AUDIT_ACCESS event, as for a copy that must stay as it is
    #[arg(long)]
    pub(super) no_record: bool,
}

/// What was asked.
pub(super) struct Asked<'a> {
    /// `subject`.
    pub(super) command: &'static str,
    /// Whom it was about, as the evidence knows them.
    pub(super) owners: &'a [Owner],
    /// Identifiers that the reason must not repeat.
    pub(super) given: &'a [String],
    /// The filters.
    pub(super) filters: Vec<(&'static str, String)>,
}

impl Recording {
    /// Puts the access on record. An auditor who cannot write may read all the same: that is said.
    pub(super) fn put(&self, config: &Config, asked: &Asked<'_>) {
        if self.no_record {
            eprintln!("note: this access is not recorded, as --no-record says");
            return;
        }
        if let Err(why) = self.write(config, asked) {
            eprintln!(
                "note: this access is NOT RECORDED in the evidence: {why}\n  (--no-record says that this is meant)"
            );
        }
    }

    fn write(&self, config: &Config, asked: &Asked<'_>) -> Result<(), provenance::Error> {
        let tracker = Tracker::open_at(beside(config.clone()))?;
        let by = kept(&user(), &[]);
        let reason = kept(self.reason.as_deref().unwrap_or_default(), asked.given);
        let filters = asked.filters.iter().map(|(key, value)| format!(" {key}={value}"));
        let what: String = std::iter::once(asked.command.to_owned()).chain(filters).collect();
        let written = match asked.owners {
            [] => tracker.record_access(&by, &what, &reason, None),
            owners => owners
                .iter()
                .try_for_each(|owner| tracker.record_access(&by, &what, &reason, Some(owner))),
        };
        tracker.close();
        written
    }
}

/// A text without what may be personal in it: the identifiers that were asked for, and addresses.
fn kept(text: &str, given: &[String]) -> String {
    let mut text = text.to_owned();
    for identifier in given {
        let value = identifier
            .split_once(':')
            .map_or(identifier.as_str(), |(_, value)| value);
        // An id of one or two digits stands in ticket numbers and dates, too.
        if value.chars().count() > 2 {
            text = without(&text, value);
        }
    }
    let words: Vec<&str> = text
        .split_whitespace()
        .map(|word| if word.contains('@') { NOT_KEPT } else { word })
        .collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect()
}

/// The text without `value`, in whatever case it stands.
fn without(text: &str, value: &str) -> String {
    let (lower, value) = (text.to_ascii_lowercase(), value.to_ascii_lowercase());
    let (mut out, mut rest_at) = (String::with_capacity(text.len()), 0);
    for (at, _) in lower.match_indices(&value) {
        out.push_str(text.get(rest_at..at).unwrap_or_default());
        out.push_str(NOT_KEPT);
        rest_at = at + value.len();
    }
    out.push_str(text.get(rest_at..).unwrap_or_default());
    out
}

/// The user of the operating system; behind `sudo`, who called it, too.
fn user() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let own = std::process::Command::new("id")
        .arg("-un")
        .stderr(std::process::Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| variable("USERNAME"))
        .or_else(|| variable("USER"))
        .unwrap_or_else(|| "unknown".to_owned());
    match variable("SUDO_USER").filter(|caller| *caller != own) {
        Some(caller) => format!("{caller} as {own}"),
        None => own,
    }
}
