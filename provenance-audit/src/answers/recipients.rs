//! Who gets personal data.

use std::collections::{BTreeMap, BTreeSet};

use provenance::Error;
use provenance::config::Config;
use provenance::inventory::Entry;
use provenance::store::{EventQuery, Flow, FlowQuery, Reader};
use serde::Serialize;
use serde_json::Value as Json;

use super::{each_event, outcome, short, special, text};

/// How many of the newest shares are asked for what sums do not say.
const NEWEST: usize = 2000;

/// One recipient, declared or observed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Recipient {
    pub(crate) recipient: String,
    /// Whether the configuration knows it.
    pub(crate) declared: bool,
    pub(crate) role: Option<String>,
    pub(crate) legal_name: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) safeguard: Option<String>,
    /// Values by category: in how many shares.
    pub(crate) categories: BTreeMap<String, i64>,
    /// Those of them that GDPR Art. 9 or 10 protects.
    pub(crate) special_categories: BTreeSet<String>,
    /// As the attributes declare, and as the newest 2000 shares say.
    pub(crate) purposes: BTreeSet<String>,
    /// Of the newest 2000 shares: how they ended.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Of the newest 2000 shares: how many went there.
    pub(crate) newest_shares: u64,
    /// Findings against what the attributes allow, by category.
    pub(crate) violations: BTreeMap<String, i64>,
    /// UTC days, of shares in which personal data was found.
    pub(crate) first_day: Option<String>,
    pub(crate) last_day: Option<String>,
}

/// All recipients, undeclared ones first, and among them those who got something. `declared`: this program's inventory, if it is known.
pub(crate) fn of(reader: &mut Reader, config: &Config, declared: &[Entry]) -> Result<Vec<Recipient>, Error> {
    let flows = reader.flows(&FlowQuery::default())?;
    let mut recipients: BTreeMap<String, Recipient> = BTreeMap::new();
    for (name, known) in &config.recipients {
        let recipient = at(&mut recipients, name);
        recipient.declared = true;
        recipient.role.clone_from(&known.role);
        recipient.legal_name.clone_from(&known.legal_name);
        recipient.country.clone_from(&known.country);
        recipient.safeguard.clone_from(&known.safeguard);
    }
    for entry in declared.iter().filter(|entry| entry.kind == "egress") {
        if let Some(name) = entry.rest.get("recipient").and_then(Json::as_str) {
            let recipient = at(&mut recipients, name);
            recipient
                .purposes
                .extend(entry.rest.get("purpose").and_then(Json::as_str).map(str::to_owned));
        }
    }
    for flow in &flows {
        sum(&mut recipients, flow);
    }
    let newest = EventQuery {
        event_type: Some("DATA_SHARE".to_owned()),
        ..EventQuery::default()
    };
    each_event(reader, &newest, NEWEST, |event| {
        let recipient = at(&mut recipients, text(&event.extras, "recipient"));
        recipient.newest_shares += 1;
        *recipient.outcomes.entry(outcome(&event)).or_default() += 1;
        let said = |key: &str| Some(text(&event.extras, key).to_owned()).filter(|text| !text.is_empty());
        recipient.purposes.extend(said("purpose"));
        recipient.declared |= event.extras.get("recipient_declared").and_then(Json::as_bool) == Some(true);
        recipient.role = recipient.role.take().or_else(|| said("recipient_role"));
        recipient.country = recipient.country.take().or_else(|| said("recipient_country"));
        recipient.safeguard = recipient.safeguard.take().or_else(|| said("recipient_safeguard"));
    })?;
    let mut recipients: Vec<_> = recipients.into_values().collect();
    let unused = |recipient: &Recipient| recipient.categories.is_empty() && recipient.newest_shares == 0;
    recipients.sort_by(|a, b| (a.declared, unused(a), &a.recipient).cmp(&(b.declared, unused(b), &b.recipient)));
    Ok(recipients)
}

fn at<'a>(recipients: &'a mut BTreeMap<String, Recipient>, name: &str) -> &'a mut Recipient {
    recipients.entry(name.to_owned()).or_insert_with(|| Recipient {
        recipient: name.to_owned(),
        ..Recipient::default()
    })
}

fn sum(recipients: &mut BTreeMap<String, Recipient>, flow: &Flow) {
    let key = &flow.key;
    let Some(name) = key.recipient.as_deref() else { return };
    let category = short(&key.category).to_owned();
    match key.event_type.as_str() {
        "DATA_SHARE" if key.pii => {
            let recipient = at(recipients, name);
            if special(&category).is_some() {
                recipient.special_categories.insert(category.clone());
            }
            *recipient.categories.entry(category).or_default() += flow.events;
            let day = || Some(key.day.clone());
            recipient.first_day = recipient
                .first_day
                .take()
                .map(|first| first.min(key.day.clone()))
                .or_else(day);
            recipient.last_day = recipient
                .last_day
                .take()
                .map(|last| last.max(key.day.clone()))
                .or_else(day);
        }
        "POLICY_VIOLATION" => *at(recipients, name).violations.entry(category).or_default() += flow.events,
        _ => {}
    }
}
