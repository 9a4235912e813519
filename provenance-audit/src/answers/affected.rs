//! Who was affected by what a recipient got.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use provenance::Error;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader};
use serde::Serialize;

use super::{Seen, each_event, short, text};

/// Most shares that are read.
const MOST: usize = 200_000;
/// Most people that are listed; more are counted.
const LISTED: usize = 1000;

/// Who was affected.
#[derive(Debug, Serialize)]
pub(crate) struct Affected {
    pub(crate) shares: usize,
    /// How many people are known to be in them.
    pub(crate) people: usize,
    /// Shares with values that are known to be nobody's.
    pub(crate) shares_of_unknown_people: usize,
    pub(crate) categories: BTreeMap<String, u64>,
    /// Of the identifiers that were given: those that are affected, by their place in the list.
    pub(crate) matched: Vec<usize>,
    /// People whom none of the given identifiers names.
    pub(crate) unmatched_people: usize,
    /// The most affected first, 1000 at most.
    pub(crate) listed: Vec<AffectedPerson>,
    /// Whether all shares were read.
    pub(crate) complete: bool,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AffectedPerson {
    /// Pseudonyms that are known to be one person's.
    pub(crate) identifiers: BTreeSet<String>,
    pub(crate) categories: BTreeSet<String>,
    #[serde(flatten)]
    pub(crate) seen: Seen,
}

/// Who is in the shares that `query` selects. `given`: pseudonyms to be matched.
pub(crate) fn of(reader: &mut Reader, query: &EventQuery, given: &[Option<String>]) -> Result<Affected, Error> {
    let wanted = query
        .category
        .as_deref()
        .map(|category| short(&canonical_category(category)).to_owned());
    let mut by_owner: BTreeMap<String, AffectedPerson> = BTreeMap::new();
    let mut affected = Affected {
        shares: 0,
        people: 0,
        shares_of_unknown_people: 0,
        categories: BTreeMap::new(),
        matched: Vec::new(),
        unmatched_people: 0,
        listed: Vec::new(),
        complete: true,
    };
    affected.complete = each_event(reader, query, MOST, |event| {
        affected.shares += 1;
        let mut people: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let (mut unknown, mut names) = (false, BTreeSet::new());
        for tag in &event.matched_tags {
            let canonical = canonical_category(text(tag, "category"));
            let category = short(&canonical).to_owned();
            if wanted.as_deref().is_some_and(|wanted| wanted != category) {
                continue;
            }
            names.insert(category.clone());
            let of_event = text(&event.extras, "owner");
            match text(tag, "owner") {
                "" if of_event.is_empty() => unknown = true,
                "" => {
                    people.entry(of_event).or_default().insert(category);
                }
                owner => {
                    people.entry(owner).or_default().insert(category);
                }
            }
        }
        affected.shares_of_unknown_people += usize::from(unknown);
        for name in names {
            *affected.categories.entry(name).or_default() += 1;
        }
        for (owner, categories) in people {
            let person = by_owner.entry(owner.to_owned()).or_insert_with(|| AffectedPerson {
                identifiers: BTreeSet::from([owner.to_owned()]),
                categories: BTreeSet::new(),
                seen: Seen::at(event.created_at),
            });
            person.seen.again(event.created_at);
            person.categories.extend(categories);
        }
    })?;
    let people = joined(reader, by_owner)?;
    affected.people = people.len();
    let mut by_identifier: HashMap<&str, usize> = HashMap::new();
    for (index, person) in people.iter().enumerate() {
        by_identifier.extend(person.identifiers.iter().map(|identifier| (identifier.as_str(), index)));
    }
    let mut named = HashSet::new();
    for (index, identifier) in given.iter().enumerate() {
        if let Some(person) = identifier.as_deref().and_then(|known| by_identifier.get(known)) {
            named.insert(*person);
            affected.matched.push(index);
        }
    }
    affected.unmatched_people = people.len().saturating_sub(named.len());
    affected.listed = people;
    affected
        .listed
        .sort_by_key(|person| std::cmp::Reverse(person.seen.events));
    affected.listed.truncate(LISTED);
    Ok(affected)
}

/// Identifiers of one person are one person.
fn joined(reader: &mut Reader, mut by_owner: BTreeMap<String, AffectedPerson>) -> Result<Vec<AffectedPerson>, Error> {
    let mut people = Vec::new();
    while let Some((owner, mut person)) = by_owner.pop_first() {
        for other in reader.identifiers(&owner)? {
            if let Some(same) = by_owner.remove(&other) {
                person.categories.extend(same.categories);
                // One share may name both; the larger count is certain.
                person.seen.events = person.seen.events.max(same.seen.events);
                person.seen.first_at = person.seen.first_at.min(same.seen.first_at);
                person.seen.last_at = person.seen.last_at.max(same.seen.last_at);
            }
            person.identifiers.insert(other);
        }
        people.push(person);
    }
    Ok(people)
}
