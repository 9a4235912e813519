//! `provenance-audit recipients`: who got what.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use clap::Args;
use provenance::config::Recipient;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, StoredEvent};
use serde::Serialize;

use super::output::{self, Done, Failure, Paint, count, listed};
use super::place::{Period, Place};
use crate::declared::shown;
use crate::export::{Profile, Span, each_event, outcome, text};

/// Most addresses that are listed of one recipient.
const MOST_TARGETS: usize = 100;

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

/// What is known of one recipient.
#[derive(Serialize)]
struct Known {
    recipient: String,
    #[serde(flatten)]
    profile: Profile,
    /// Canonical categories, each with the number of shares that carried it.
    categories: BTreeMap<String, u64>,
    purposes: BTreeSet<String>,
    outcomes: BTreeMap<String, u64>,
    targets: BTreeSet<String>,
    /// Shares that no policy allowed.
    violations: u64,
    /// Shares that were not scanned, or not to their end.
    unscanned: u64,
    #[serde(flatten)]
    span: Option<Span>,
}

impl Recipients {
    pub(super) fn run(self) -> Done {
        self.period.check()?;
        let mut evidence = self.place.open()?;
        let known = &evidence.config.recipients;
        let mut recipients = Listing::default();
        let bar = output::progress("shares");
        for event_type in ["DATA_SHARE", "POLICY_VIOLATION"] {
            let query = EventQuery {
                event_type: Some(event_type.to_owned()),
                since: self.period.since,
                until: self.period.until,
                ..EventQuery::default()
            };
            each_event(&mut evidence.reader, &query, |event| {
                bar.inc(1);
                recipients.see(&event, known);
                Ok::<_, provenance::Error>(())
            })?;
        }
        bar.finish_and_clear();
        let recipients = recipients.sorted(known);
        let mut out = output::out();
        if self.json {
            output::json(&mut out, &serde_json::json!({ "recipients": recipients }))?;
        } else {
            plain(&mut out, &recipients, Paint::stdout())?;
        }
        output::finish(out)
    }
}

/// Recipients by name, as shares name them.
#[derive(Default)]
struct Listing(BTreeMap<String, Known>);

impl Listing {
    /// Counts a share or a violation in; newest first, so that the newest profile stays.
    fn see(&mut self, event: &StoredEvent, known: &BTreeMap<String, Recipient>) {
        let name = text(&event.extras, "recipient");
        if name.is_empty() {
            return;
        }
        let recipient = self.0.entry(name.to_owned()).or_insert_with(|| Known {
            recipient: name.to_owned(),
            profile: Profile::of(event, known),
            categories: BTreeMap::new(),
            purposes: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            targets: BTreeSet::new(),
            violations: 0,
            unscanned: 0,
            span: None,
        });
        if event.event_type == "POLICY_VIOLATION" {
            recipient.violations += 1;
            return;
        }
        recipient
            .span
            .get_or_insert_with(|| Span::none_yet(event.created_at))
            .see(event.created_at);
        let categories: BTreeSet<_> = event
            .matched_tags
            .iter()
            .map(|tag| canonical_category(text(tag, "category")).into_owned())
            .collect();
        for category in categories {
            *recipient.categories.entry(category).or_default() += 1;
        }
        let purpose = text(&event.extras, "purpose");
        if !purpose.is_empty() {
            recipient.purposes.insert(purpose.to_owned());
        }
        *recipient.outcomes.entry(outcome(event)).or_default() += 1;
        recipient.unscanned += u64::from(event.extras.contains_key("unscanned"));
        if recipient.targets.len() < MOST_TARGETS {
            recipient.targets.extend(event.target.clone());
        }
    }

    /// Undeclared ones first, then by name; those that are declared and were never seen last.
    fn sorted(self, known: &BTreeMap<String, Recipient>) -> Vec<Known> {
        let mut recipients: Vec<Known> = self.0.into_values().collect();
        recipients.sort_by(|one, other| {
            (one.profile.declared, &one.recipient).cmp(&(other.profile.declared, &other.recipient))
        });
        let unseen: Vec<_> = known
            .iter()
            .filter(|(name, _)| !recipients.iter().any(|seen| seen.recipient == **name))
            .map(|(name, known)| Known {
                recipient: name.clone(),
                profile: Profile {
                    declared: true,
                    role: known.role.clone(),
                    legal_name: known.legal_name.clone(),
                    country: known.country.clone(),
                    safeguard: known.safeguard.clone(),
                },
                categories: BTreeMap::new(),
                purposes: BTreeSet::new(),
                outcomes: BTreeMap::new(),
                targets: BTreeSet::new(),
                violations: 0,
                unscanned: 0,
                span: None,
            })
            .collect();
        recipients.extend(unseen);
        recipients
    }
}

fn plain(out: &mut impl Write, recipients: &[Known], paint: Paint) -> Result<(), Failure> {
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
        match &known.span {
            Some(span) => writeln!(
                out,
                "  {} from {} to {}",
                count(span.events, "share", "shares"),
                span.first,
                span.last
            )?,
            None => writeln!(out, "  declared, and no share with it is recorded")?,
        }
        let counted = |counts: &BTreeMap<String, u64>| {
            let counts: Vec<_> = counts.iter().map(|(what, times)| format!("{what} ({times})")).collect();
            shown(&counts.join(", "))
        };
        for (heading, line) in [
            ("categories", counted(&known.categories)),
            ("purposes", shown(&listed(&known.purposes))),
            ("outcomes", counted(&known.outcomes)),
            ("addresses", shown(&listed(&known.targets))),
        ] {
            if !line.is_empty() && line != "-" {
                writeln!(out, "  {heading:<10} {line}")?;
            }
        }
        if known.violations > 0 {
            let violations = count(known.violations, "violation", "violations");
            writeln!(out, "  {} of what its functions allow", paint.red(&violations))?;
        }
        if known.unscanned > 0 {
            let unscanned = count(known.unscanned, "share was", "shares were");
            writeln!(out, "  {unscanned} not scanned to the end: more may have been sent")?;
        }
    }
    Ok(())
}
