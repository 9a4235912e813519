//! `provenance-audit recipients`: who got what.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use provenance::inventory::canonical_category;
use serde_json::{Value as Json, json};

use super::output::{self, Done, Failure, Paint, count};
use super::place::{Period, Place};
use crate::answers::recipients::{self, Look, Recipient};
use crate::shown::{listed, shown};

/// List the recipients: what they are, what they got, when; undeclared ones first
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit recipients --db runtime_provenance.db
  provenance-audit recipients --since 2026-11-01 --json | jq '.recipients[] | select(.declared | not)'

What is said of a recipient is what its newest share says, then what `recipients` of the configuration says. Recipients
that the configuration declares and no share names are listed last.

Exit codes: 0 answered, 2 cannot tell.")]
pub(super) struct Recipients {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    period: Period,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Recipients {
    pub(super) fn run(self) -> Done {
        self.period.check()?;
        let mut evidence = self.place.open()?;
        let look = Look::Each {
            since: self.period.since,
            until: self.period.until,
        };
        let bar = output::progress("shares");
        let listed = recipients::of(&mut evidence.reader, &evidence.config, &[], &look, &mut || bar.inc(1))?;
        bar.finish_and_clear();
        let mut out = output::out();
        if self.json {
            let listed: Vec<Json> = listed.iter().map(as_json).collect();
            output::json(&mut out, &json!({ "recipients": listed }))?;
        } else {
            plain(&mut out, &listed, Paint::stdout())?;
        }
        output::finish(out)
    }
}

fn as_json(known: &Recipient) -> Json {
    let mut shown = json!({
        "recipient": known.recipient,
        "declared": known.profile.declared,
        "role": known.profile.role,
        "legal_name": known.profile.legal_name,
        "country": known.profile.country,
        "safeguard": known.profile.safeguard,
        "categories": canonical(known),
        "purposes": known.purposes,
        "outcomes": known.outcomes,
        "targets": known.targets,
        "violations": known.violations.values().sum::<i64>(),
        "unscanned": known.unscanned,
    });
    if let (Some(shown), Some(seen)) = (shown.as_object_mut(), &known.seen) {
        shown.insert("events".into(), seen.events.into());
        shown.insert("first".into(), json!(seen.first_at));
        shown.insert("last".into(), json!(seen.last_at));
    }
    shown
}

/// Categories in full.
fn canonical(known: &Recipient) -> BTreeMap<String, i64> {
    let categories = known.categories.iter();
    categories
        .map(|(name, shares)| (canonical_category(name).into_owned(), *shares))
        .collect()
}

fn plain(out: &mut impl Write, recipients: &[Recipient], paint: Paint) -> Result<(), Failure> {
    if recipients.is_empty() {
        writeln!(out, "no share is recorded")?;
    }
    for (index, known) in recipients.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let name = shown(&known.recipient);
        match known.profile.declared {
            true => writeln!(out, "{}", paint.bold(&name))?,
            false => writeln!(out, "{}  {}", paint.bold(&name), paint.red("UNDECLARED"))?,
        }
        let profile: Vec<_> = known
            .profile
            .words()
            .into_iter()
            .filter(|word| word != "undeclared recipient")
            .collect();
        if !profile.is_empty() {
            writeln!(out, "  {}", shown(&profile.join("; ")))?;
        }
        match &known.seen {
            Some(seen) => writeln!(
                out,
                "  {} from {} to {}",
                count(seen.events, "share", "shares"),
                seen.first_at,
                seen.last_at
            )?,
            None => writeln!(out, "  declared, and no share with it is recorded")?,
        }
        for (heading, line) in [
            ("categories", counted(&canonical(known))),
            ("purposes", shown(&listed(&known.purposes))),
            ("outcomes", counted(&known.outcomes)),
            ("addresses", shown(&listed(&known.targets))),
        ] {
            if !line.is_empty() && line != "-" {
                writeln!(out, "  {heading:<10} {line}")?;
            }
        }
        let violations: i64 = known.violations.values().sum();
        if violations > 0 {
            let violations = count(violations.unsigned_abs(), "violation", "violations");
            writeln!(out, "  {} of what its functions allow", paint.red(&violations))?;
        }
        if known.unscanned > 0 {
            let unscanned = count(known.unscanned, "share was", "shares were");
            writeln!(out, "  {unscanned} not scanned to the end: more may have been sent")?;
        }
    }
    Ok(())
}

fn counted<N: std::fmt::Display>(counts: &BTreeMap<String, N>) -> String {
    let counts: Vec<_> = counts.iter().map(|(what, times)| format!("{what} ({times})")).collect();
    shown(&counts.join(", "))
}
