//! Who was affected by what a recipient got.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use provenance::Error;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader, StoredEvent};
use serde::Serialize;

use super::{Seen, each_event, is_within, short, text, was_kept_in};

/// Most shares that are read for a page.
pub(crate) const MOST: usize = 200_000;
/// Most people that are listed; more are counted.
const LISTED: usize = 1000;

/// Whose data a recipient got.
#[derive(Debug)]
pub(crate) struct Found {
    /// Shares that left, or may have left.
    pub(crate) shares: u64,
    /// Of them: those with values that are known to be nobody's, or that were not scanned to their end.
    pub(crate) shares_of_unknown_people: u64,
    /// Shares of which nothing left: they affect nobody.
    pub(crate) blocked_shares: u64,
    /// In how many shares each category was.
    pub(crate) categories: BTreeMap<String, u64>,
    pub(crate) people: Vec<AffectedPerson>,
    /// Whether all shares were read.
    pub(crate) complete: bool,
    by_identifier: HashMap<String, usize>,
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

/// The answer, with what of a list of identifiers it names.
#[derive(Debug, Serialize)]
pub(crate) struct Affected {
    pub(crate) shares: u64,
    /// How many people are known to be in them.
    pub(crate) people: usize,
    pub(crate) shares_of_unknown_people: u64,
    pub(crate) blocked_shares: u64,
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

/// Who is in the shares that `query` selects, `most` of them at most. A category stands for those below it, too.
pub(crate) fn of(
    reader: &mut Reader,
    query: &EventQuery,
    most: usize,
    progress: &mut dyn FnMut(),
) -> Result<Found, Error> {
    let wanted = query.category.as_deref().map(canonical_category);
    let query = EventQuery {
        event_type: Some("DATA_SHARE".to_owned()),
        category: None,
        ..query.clone()
    };
    let mut found = Found {
        shares: 0,
        shares_of_unknown_people: 0,
        blocked_shares: 0,
        categories: BTreeMap::new(),
        people: Vec::new(),
        complete: true,
        by_identifier: HashMap::new(),
    };
    let mut by_owner = BTreeMap::new();
    found.complete = each_event(reader, &query, most, |event| {
        progress();
        found.take(&mut by_owner, &event, wanted.as_deref());
        Ok::<_, Error>(())
    })?;
    found.join(reader, by_owner)?;
    Ok(found)
}

impl Found {
    fn take(&mut self, by_owner: &mut BTreeMap<String, AffectedPerson>, event: &StoredEvent, wanted: Option<&str>) {
        let of_event = text(&event.extras, "owner");
        let mut people: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut unknown = wanted.is_none() && event.extras.contains_key("unscanned");
        let mut names = BTreeSet::new();
        for tag in &event.matched_tags {
            let canonical = canonical_category(text(tag, "category"));
            if wanted.is_some_and(|wanted| !is_within(&canonical, wanted)) {
                continue;
            }
            let name = short(&canonical).to_owned();
            names.insert(name.clone());
            match [text(tag, "owner"), of_event]
                .into_iter()
                .find(|owner| !owner.is_empty())
            {
                Some(owner) => {
                    people.entry(owner).or_default().insert(name);
                }
                None => unknown = true,
            }
        }
        if names.is_empty() && wanted.is_some() {
            return;
        }
        if was_kept_in(event) {
            self.blocked_shares += 1;
            return;
        }
        self.shares += 1;
        self.shares_of_unknown_people += u64::from(unknown);
        for name in names {
            *self.categories.entry(name).or_default() += 1;
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
    }

    /// Identifiers of one person are one person.
    fn join(&mut self, reader: &mut Reader, mut by_owner: BTreeMap<String, AffectedPerson>) -> Result<(), Error> {
        while let Some((owner, mut person)) = by_owner.pop_first() {
            for other in reader.identifiers(&owner)? {
                if let Some(same) = by_owner.remove(&other) {
                    person.categories.extend(same.categories);
                    // One share may name both; the larger count is certain.
                    let events = person.seen.events.max(same.seen.events);
                    person.seen.with(&same.seen);
                    person.seen.events = events;
                }
                person.identifiers.insert(other);
            }
            let place = self.people.len();
            self.by_identifier
                .extend(person.identifiers.iter().map(|identifier| (identifier.clone(), place)));
            self.people.push(person);
        }
        Ok(())
    }

    /// Which of the people a pseudonym names.
    pub(crate) fn place_of(&self, identifier: &str) -> Option<usize> {
        self.by_identifier.get(identifier).copied()
    }

    /// What is shown. `given`: pseudonyms to be matched.
    pub(crate) fn answer(mut self, given: &[Option<String>]) -> Affected {
        let mut named = HashSet::new();
        let mut matched = Vec::new();
        for (index, identifier) in given.iter().enumerate() {
            if let Some(person) = identifier.as_deref().and_then(|known| self.place_of(known)) {
                named.insert(person);
                matched.push(index);
            }
        }
        let people = self.people.len();
        self.people.sort_by_key(|person| std::cmp::Reverse(person.seen.events));
        self.people.truncate(LISTED);
        Affected {
            shares: self.shares,
            people,
            shares_of_unknown_people: self.shares_of_unknown_people,
            blocked_shares: self.blocked_shares,
            categories: self.categories,
            matched,
            unmatched_people: people.saturating_sub(named.len()),
            listed: self.people,
            complete: self.complete,
        }
    }
}
