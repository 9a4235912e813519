//! Who gets personal data.

use std::collections::{BTreeMap, BTreeSet};

use provenance::config::Config;
use provenance::inventory::{Entry, canonical_category};
use provenance::store::{EventQuery, Flow, FlowQuery, Reader, StoredEvent};
use provenance::{Error, Timestamp};
use serde::Serialize;
use serde_json::Value as Json;

use super::{Profile, Seen, each_event, is_personal, outcome, short, special, text};

/// How many of the newest shares a page asks for what sums do not say.
const NEWEST: usize = 2000;
/// Most addresses that are listed of one recipient.
const MOST_TARGETS: usize = 100;

/// One recipient, declared or observed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Recipient {
    pub(crate) recipient: String,
    #[serde(flatten)]
    pub(crate) profile: Profile,
    /// Values by category: in how many shares.
    pub(crate) categories: BTreeMap<String, i64>,
    /// Those of them that GDPR Art. 9 or 10 protects.
    pub(crate) special_categories: BTreeSet<String>,
    /// As the attributes declare, and as the shares say that were read.
    pub(crate) purposes: BTreeSet<String>,
    /// Of the shares that were read: how they ended.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Of the shares that were read: how many went there.
    pub(crate) newest_shares: u64,
    /// Of them: those that were not scanned, or not to their end.
    pub(crate) unscanned: u64,
    /// Where they went, 100 addresses at most.
    pub(crate) targets: BTreeSet<String>,
    /// Findings against what the attributes allow, by category.
    pub(crate) violations: BTreeMap<String, i64>,
    /// UTC days, of shares in which personal data was found.
    pub(crate) first_day: Option<String>,
    pub(crate) last_day: Option<String>,
    /// When the shares were that were read.
    #[serde(skip)]
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) seen: Option<Seen>,
}

/// How far is looked.
pub(crate) enum Look {
    /// At sums by day, and at the newest 2000 shares: quick, however old the evidence is.
    Newest,
    /// At every share between two times.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    Each {
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    },
}

/// All recipients, undeclared ones first, and among each those who got something. `declared`: this program's inventory, if
/// it is known.
pub(crate) fn of(
    reader: &mut Reader,
    config: &Config,
    declared: &[Entry],
    look: &Look,
    progress: &mut dyn FnMut(),
) -> Result<Vec<Recipient>, Error> {
    let mut recipients: BTreeMap<String, Recipient> = BTreeMap::new();
    let shares = EventQuery {
        event_type: Some("DATA_SHARE".to_owned()),
        ..EventQuery::default()
    };
    match *look {
        Look::Newest => {
            for flow in &reader.flows(&FlowQuery::default())? {
                sum(&mut recipients, flow);
            }
            each_event(reader, &shares, NEWEST, |event| {
                progress();
                share(&mut recipients, &event);
                Ok::<_, Error>(())
            })?;
        }
        Look::Each { since, until } => {
            let shares = EventQuery { since, until, ..shares };
            each_event(reader, &shares, usize::MAX, |event| {
                progress();
                share(&mut recipients, &event);
                found(&mut recipients, &event);
                Ok::<_, Error>(())
            })?;
            let violations = EventQuery {
                event_type: Some("POLICY_VIOLATION".to_owned()),
                ..shares
            };
            each_event(reader, &violations, usize::MAX, |event| {
                progress();
                found(&mut recipients, &event);
                Ok::<_, Error>(())
            })?;
        }
    }
    for entry in declared.iter().filter(|entry| entry.kind == "egress") {
        if let Some(name) = entry.rest.get("recipient").and_then(Json::as_str) {
            let purpose = entry.rest.get("purpose").and_then(Json::as_str);
            at(&mut recipients, name).purposes.extend(purpose.map(str::to_owned));
        }
    }
    for (name, known) in &config.recipients {
        at(&mut recipients, name).profile.fill(Some(known));
    }
    let mut recipients: Vec<_> = recipients.into_values().collect();
    let unused = |recipient: &Recipient| recipient.categories.is_empty() && recipient.newest_shares == 0;
    recipients.sort_by(|a, b| {
        (a.profile.declared, unused(a), &a.recipient).cmp(&(b.profile.declared, unused(b), &b.recipient))
    });
    Ok(recipients)
}

fn at<'a>(recipients: &'a mut BTreeMap<String, Recipient>, name: &str) -> &'a mut Recipient {
    recipients.entry(name.to_owned()).or_insert_with(|| Recipient {
        recipient: name.to_owned(),
        ..Recipient::default()
    })
}

/// What a share says of itself; newest first, so that the newest profile stays.
fn share(recipients: &mut BTreeMap<String, Recipient>, event: &StoredEvent) {
    let recipient = at(recipients, text(&event.extras, "recipient"));
    recipient.newest_shares += 1;
    recipient.unscanned += u64::from(event.extras.contains_key("unscanned"));
    recipient
        .seen
        .get_or_insert_with(|| Seen::at(event.created_at))
        .again(event.created_at);
    *recipient.outcomes.entry(outcome(event)).or_default() += 1;
    let purpose = text(&event.extras, "purpose");
    if !purpose.is_empty() {
        recipient.purposes.insert(purpose.to_owned());
    }
    if recipient.targets.len() < MOST_TARGETS {
        recipient.targets.extend(event.target.clone());
    }
    recipient.profile.hear(event);
}

/// What was found in a share, or in one against what is allowed.
fn found(recipients: &mut BTreeMap<String, Recipient>, event: &StoredEvent) {
    let recipient = at(recipients, text(&event.extras, "recipient"));
    let categories: BTreeSet<String> = event
        .matched_tags
        .iter()
        .filter(|tag| is_personal(tag))
        .map(|tag| short(&canonical_category(text(tag, "category"))).to_owned())
        .collect();
    let day = event.created_at.to_string().get(..10).map(str::to_owned);
    for category in categories {
        recipient.count(&event.event_type, category, 1, day.as_deref().unwrap_or(""));
    }
}

/// The same of a whole day.
fn sum(recipients: &mut BTreeMap<String, Recipient>, flow: &Flow) {
    let key = &flow.key;
    let Some(name) = key.recipient.as_deref() else { return };
    if key.pii || key.event_type == "POLICY_VIOLATION" {
        at(recipients, name).count(&key.event_type, short(&key.category).to_owned(), flow.events, &key.day);
    }
}

impl Recipient {
    fn count(&mut self, event_type: &str, category: String, events: i64, day: &str) {
        match event_type {
            "DATA_SHARE" => {
                if special(&category).is_some() {
                    self.special_categories.insert(category.clone());
                }
                *self.categories.entry(category).or_default() += events;
                let earlier = |first: &String| first.as_str() <= day;
                self.first_day = self.first_day.take().filter(earlier).or_else(|| Some(day.to_owned()));
                let later = |last: &String| last.as_str() >= day;
                self.last_day = self.last_day.take().filter(later).or_else(|| Some(day.to_owned()));
            }
            "POLICY_VIOLATION" => *self.violations.entry(category).or_default() += events,
            _ => {}
        }
    }
}
