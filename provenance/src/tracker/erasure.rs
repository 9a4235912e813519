//! Erasing people and ending retentions in a running process, and following what others erase.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{BlindSpot, Moment, Tracker};
use crate::Error;
use crate::config::Storage;
use crate::erased::ErasureId;
use crate::error::ErrorKind;
use crate::hex::hex;
use crate::scope::Scope;
use crate::store::erase::{Eraser, Got, Removed};
use crate::store::follow::News;
use crate::store::retention::{KIND, Mark, Rule};
use crate::tracked::Value;
use crate::vocabulary::{Event, EventTag, EventType, Late, Owner, Tag, Timestamp};

/// How long the record of an erasure may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one look works at a retention.
const STRETCH: Duration = Duration::from_millis(300);
/// An erasure that nobody has worked at for so long is taken over.
const ABANDONED: i64 = 60_000_000;
/// How often that is looked for, in looks.
const ABANDONED_EVERY: u64 = 30;
/// For how long what others stored of somebody who was erased waits for word that they are back.
const RETURN: Duration = Duration::from_secs(10);
/// Longest reason that is kept, in characters.
const MAX_REASON: usize = 256;

/// What [`Tracker::erase`] did, or would do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Erasure {
    /// Names it in the records: 32 hex digits. Empty for a preview.
    pub erasure: String,
    /// What stands for the person in the records of the erasure (`erased:` and 32 hex digits): made with the key, and
    /// leads to nothing else.
    pub person: String,
    /// Identifiers that are known to be this person's.
    pub identifiers: usize,
    /// Events of which something was removed, or would be.
    pub events: u64,
    /// Registered values, likewise.
    pub values: u64,
    /// Rows that do not read as anything that was written, and were left as they are: `verify` names the first.
    pub damaged: u64,
    /// Who got something of the person, and must be told (GDPR Art. 19).
    pub to_be_told: Vec<ToBeTold>,
    /// The DATA_ERASURE that says it is done.
    pub event_id: Option<String>,
    /// `false` where a reader kept the write-ahead log (`-wal`) from being emptied: removed bytes may stand there until
    /// the file has no reader for a moment. On PostgreSQL, where a reader or a missing right kept the tables from being
    /// vacuumed.
    pub log_emptied: bool,
    /// The pseudonyms that were erased, for a log that [`Tracker::erase_owner`] repeats after a backup is restored.
    pub owners: Vec<Owner>,
}

/// A recipient of shares.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ToBeTold {
    /// Name, as shares have it.
    pub recipient: String,
    /// As the configuration says.
    pub legal_name: Option<String>,
    /// As the configuration says.
    pub country: Option<String>,
    /// How many shares with something of the person.
    pub shares: u64,
    /// The first of them.
    pub first_at: Timestamp,
    /// The last of them.
    pub last_at: Timestamp,
    /// What they carried, canonical.
    pub categories: Vec<String>,
}

/// What [`Tracker::prune`] ended, or would end.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Events that were reduced to stubs, or lost tags of the category.
    pub events: u64,
    /// Values that were forgotten with them.
    pub values: u64,
    /// The DATA_ERASURE that covers it; `None` for a preview, or where there was nothing to do.
    pub event_id: Option<String>,
}

impl Tracker {
    pub(crate) fn erase_identified(&self, kind: &str, identifier: &str, reason: &str) -> Result<Erasure, Error> {
        let owner = self.identified(kind, identifier)?;
        self.erase_owner(&owner, &without(reason, identifier))
    }

    /// As [`Tracker::erase`], for a person by the pseudonym that the evidence has.
    ///
    /// # Errors
    /// As [`Tracker::erase`].
    pub fn erase_owner(&self, owner: &Owner, reason: &str) -> Result<Erasure, Error> {
        self.erase_people(std::slice::from_ref(owner), reason)
    }

    /// As [`Tracker::erase_owner`], for one person under several pseudonyms.
    ///
    /// # Errors
    /// As [`Tracker::erase`].
    pub fn erase_people(&self, named: &[Owner], reason: &str) -> Result<Erasure, Error> {
        let Some(first) = named.first() else {
            return Err(Error::new(ErrorKind::Input, "nobody is named who could be erased"));
        };
        let reason = self.told_of_nobody(reason);
        // Links are among what waits.
        self.flush(PATIENCE)?;
        let mut eraser = Eraser::open(&self.storage())?;
        let owners = self.identifiers_of(&mut eraser, named)?;
        let people: Vec<_> = owners
            .iter()
            .map(|owner| (self.0.erased.person(owner), owner.clone()))
            .collect();
        let mut new = ErasureId::default();
        getrandom::fill(&mut new)
            .map_err(|_| Error::new(ErrorKind::Store, "the system gives no random bytes for an id"))?;
        let survey = eraser.survey(&owners)?;
        let mut recipients = survey.recipients;
        let erasure = eraser.begin(&people, new)?;
        if erasure != new {
            // One that was interrupted, after which the events do not say it all.
            for (recipient, got) in eraser.recorded(&hex(&erasure))? {
                recipients.entry(recipient).or_default().take_in(got);
            }
        }
        self.0.erased.note_own(erasure);
        for (person, _) in &people {
            self.0.erased.add(*person, erasure);
        }
        self.forget(&owners);
        let person = format!("erased:{}", hex(&self.0.erased.person(first)));
        let to_be_told = self.to_be_told(recipients);
        let extras = json!({
            "kind": "person",
            "erasure": hex(&erasure),
            "reason": reason,
            "identifiers": owners.len(),
        });
        let told: Vec<Json> = to_be_told
            .iter()
            .map(|told| {
                json!({ "recipient": told.recipient, "shares": told.shares, "first_at": told.first_at,
                    "last_at": told.last_at, "categories": told.categories })
            })
            .collect();
        self.say(&person, &extras, json!({ "state": "begun", "recipients": told }))?;
        // With that record everything is on disk that was under way.
        let mut removed = eraser.erase(&erasure, &owners)?;
        // What was recorded by hooks that had begun.
        self.flush(PATIENCE)?;
        removed.add(eraser.erase(&erasure, &owners)?);
        self.home().forgotten.these(removed.values.clone());
        self.forget(&owners);
        let counts = json!({
            "state": "done", "events": removed.events, "tags": removed.tags, "values": removed.values.len(),
            "links": removed.links, "damaged": removed.damaged,
        });
        let event_id = self.say(&person, &extras, counts)?;
        eraser.finish(&erasure)?;
        let log_emptied = eraser.clean()?;
        Ok(Erasure {
            erasure: hex(&erasure),
            person,
            identifiers: owners.len(),
            events: removed.events,
            values: removed.values.len() as u64,
            damaged: removed.damaged,
            to_be_told,
            event_id,
            log_emptied,
            owners,
        })
    }

    /// What [`Tracker::erase`] would do, and who is to be told. Nothing is changed.
    ///
    /// # Errors
    /// As [`Tracker::erase`].
    pub fn erasure_preview(&self, kind: &str, identifier: &str) -> Result<Erasure, Error> {
        self.erasure_preview_of(&self.identified(kind, identifier)?)
    }

    /// As [`Tracker::erasure_preview`], for a person by the pseudonym that the evidence has.
    ///
    /// # Errors
    /// As [`Tracker::erase`].
    pub fn erasure_preview_of(&self, owner: &Owner) -> Result<Erasure, Error> {
        self.flush(PATIENCE)?;
        let mut eraser = Eraser::open(&self.storage())?;
        let owners = self.identifiers_of(&mut eraser, std::slice::from_ref(owner))?;
        let survey = eraser.survey(&owners)?;
        Ok(Erasure {
            erasure: String::new(),
            person: format!("erased:{}", hex(&self.0.erased.person(owner))),
            identifiers: owners.len(),
            events: survey.events,
            values: survey.values,
            damaged: 0,
            to_be_told: self.to_be_told(survey.recipients),
            event_id: None,
            log_emptied: true,
            owners,
        })
    }

    /// A person who was erased is known again from now on, as after an input of theirs.
    ///
    /// # Errors
    /// [`Error::is_input`] where `kind` is no kind, or `identifier` is empty.
    pub fn readmit(&self, kind: &str, identifier: &str) -> Result<(), Error> {
        self.readmit_owner(&self.identified(kind, identifier)?);
        Ok(())
    }

    pub(crate) fn readmit_owner(&self, owner: &Owner) {
        if self.0.erased.readmit(owner) {
            // What was refused before is looked at again.
            self.0.registry.renew();
        }
    }

    /// Ends what was kept of `what`, an event type or a category, before a time; as a `retention` of the configuration
    /// does by itself. Of events of a type their type and time stay, as stubs that nobody is shown; of a category the
    /// tags are removed, and the values that were not seen since. Recorded as a DATA_ERASURE, which the chain's check
    /// asks for. With `preview` nothing is changed.
    ///
    /// # Errors
    /// [`Error::is_input`] where `what` is neither; [`Error::is_store`] and [`Error::is_evidence`] where it could not be
    /// finished: call it again.
    pub fn prune(&self, what: &str, before: Timestamp, reason: &str, preview: bool) -> Result<Pruned, Error> {
        let rule = Rule::parse(what).ok_or_else(|| {
            Error::new(
                ErrorKind::Input,
                "neither an event type such as DATA_COLLECTION nor a category such as contact.email",
            )
        })?;
        // What is still to come must not be older than what is said to be gone.
        let before = before.min(Timestamp(Timestamp::now().0 - 1_000));
        self.flush(PATIENCE)?;
        let mut eraser = Eraser::open(&self.storage())?;
        let due = eraser.due(&rule, before, Mark::default())?;
        let mut pruned = Pruned {
            events: 0,
            values: 0,
            event_id: None,
        };
        if preview || due == 0 {
            pruned.events = due;
            return Ok(pruned);
        }
        pruned.event_id = self.say_retention(&rule, before, due, &self.told_of_nobody(reason))?;
        let mut mark = Mark::default();
        loop {
            let ended = eraser.end(&rule, before, &mut mark)?;
            pruned.events += ended.events;
            pruned.values += ended.values.len() as u64;
            self.home().forgotten.these(ended.values);
            if !ended.more {
                break;
            }
        }
        eraser.clean()?;
        Ok(pruned)
    }

    fn say_retention(&self, rule: &Rule, before: Timestamp, due: u64, reason: &str) -> Result<Option<String>, Error> {
        let (key, name) = match rule {
            Rule::Type(name) => ("event_type", name.as_str()),
            Rule::Category(name) => ("category", name.as_str()),
            Rule::Values => ("values", "last seen before"),
        };
        let extras = json!({ "kind": KIND, key: name, "before": before, "due": due, "reason": reason });
        self.say("", &extras, json!({}))
    }

    /// Records a DATA_ERASURE, and waits until it is on disk.
    fn say(&self, person: &str, extras: &Json, more: Json) -> Result<Option<String>, Error> {
        let actor = Scope::current().map_or_else(|| "host".into(), |scope| scope.source().clone());
        let mut event = Event::new(EventType::DataErasure, actor);
        event.owner = Owner::from_stored(person);
        for members in [extras, &more] {
            if let Json::Object(members) = members {
                event.extras.extend(members.clone());
            }
        }
        let ticket = self.record_of(event, &Moment::nobodys());
        self.flush(PATIENCE)?;
        Ok(self.event_id(&ticket))
    }

    fn identified(&self, kind: &str, identifier: &str) -> Result<Owner, Error> {
        self.0.owners.identified(kind, Value::Text(identifier)).ok_or_else(|| {
            Error::new(
                ErrorKind::Input,
                "no identifier: give its kind (`email`, `user`) and its value",
            )
        })
    }

    /// All identifiers of a person, those that are named first.
    fn identifiers_of(&self, eraser: &mut Eraser, named: &[Owner]) -> Result<Vec<Owner>, Error> {
        let mut owners = named.to_vec();
        for owner in named {
            let known = self.registry().identifiers(owner);
            for other in eraser.identifiers(owner)?.into_iter().chain(known) {
                if !owners.contains(&other) {
                    owners.push(other);
                }
            }
        }
        Ok(owners)
    }

    /// Nothing of them is detected from now on.
    fn forget(&self, owners: &[Owner]) {
        for owner in owners {
            self.registry().forget_person(owner);
        }
        self.0.values.clear();
        self.0.people.clear();
        self.0.registered.clear();
    }

    fn to_be_told(&self, recipients: impl IntoIterator<Item = (String, Got)>) -> Vec<ToBeTold> {
        let told = |(recipient, got): (String, Got)| {
            let known = self.config().recipients.get(&recipient);
            ToBeTold {
                legal_name: known.and_then(|known| known.legal_name.clone()),
                country: known.and_then(|known| known.country.clone()),
                recipient,
                shares: got.shares,
                first_at: Timestamp(got.first_at),
                last_at: Timestamp(got.last_at),
                categories: got.categories.into_iter().collect(),
            }
        };
        recipients.into_iter().map(told).collect()
    }

    /// A reason without what is known to be somebody's.
    fn told_of_nobody(&self, reason: &str) -> String {
        let words = reason.split_whitespace().map(|word| {
            let tells = word.contains('@') || self.tells(word);
            if tells { "{value}" } else { word }
        });
        let reason = words.collect::<Vec<_>>().join(" ");
        reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
    }

    /// A tag of somebody who was erased, without what says whose it is.
    pub(super) fn refused(&self, tag: &Tag) -> Option<Tag> {
        let owner = tag.owner.as_ref().filter(|owner| self.0.erased.has(owner))?;
        self.met(owner, "registration");
        Some(nobodys(tag))
    }

    pub(super) fn are_erased(&self, a: &Owner, b: &Owner) -> bool {
        self.0.erased.has(a) || self.0.erased.has(b)
    }

    /// Takes over what others have stored. What is of somebody who was erased waits for a while: who stored it may have
    /// seen before this process that they are back.
    pub(super) fn learn(&self, news: News, waiting: &mut Waiting) {
        let now = Instant::now();
        waiting.0.retain(|(since, _)| now.duration_since(*since) < RETURN);
        let waited = std::mem::take(&mut waiting.0).into_iter();
        for (since, News { values, links }) in waited.chain([(now, news)]) {
            let gone = |owner: &Owner| self.0.erased.has(owner);
            let (later, values): (Vec<_>, Vec<_>) = values
                .into_iter()
                .partition(|value| value.tag.owner.as_ref().is_some_and(gone));
            let (unlinked, links): (Vec<_>, Vec<_>) = links.into_iter().partition(|(a, b)| self.are_erased(a, b));
            for value in values {
                let tag = (*value.tag).clone();
                self.registry().register(value.fingerprint, &value.entry, tag, true);
            }
            for (a, b) in links {
                self.registry().link(&a, &b);
            }
            if !later.is_empty() || !unlinked.is_empty() {
                let news = News {
                    values: later,
                    links: unlinked,
                };
                waiting.0.push((since, news));
            }
        }
    }

    fn met(&self, owner: &Owner, place: &'static str) {
        if self.0.erased.is_first_met(owner, place) {
            self.blind_spot(BlindSpot::ErasedPersonMet, place);
        }
    }

    /// No event names somebody who was erased, until they come back.
    pub(super) fn without_erased(&self, event: &mut Event) {
        if self.0.erased.is_empty() {
            return;
        }
        self.take_out(&mut event.owner);
        let user = event.user_id.as_deref().and_then(Owner::from_stored);
        if user.is_some_and(|user| self.0.erased.has(&user)) {
            event.user_id = None;
        }
        event.tags.iter_mut().for_each(|tag| self.tag_without_erased(tag));
    }

    pub(super) fn late_without_erased(&self, late: &mut Late) {
        if self.0.erased.is_empty() {
            return;
        }
        self.take_out(&mut late.owner);
        late.tags.iter_mut().for_each(|tag| self.tag_without_erased(tag));
    }

    fn take_out(&self, owner: &mut Option<Owner>) {
        if let Some(erased) = owner.take_if(|owner| self.0.erased.has(owner)) {
            self.met(&erased, "event");
        }
    }

    fn tag_without_erased(&self, tag: &mut EventTag) {
        if let Some(owner) = tag.tag.owner.as_ref().filter(|owner| self.0.erased.has(owner)) {
            self.met(owner, "event");
            tag.tag = nobodys(&tag.tag);
        }
    }

    /// How much later than others this process does what one of them has to do: the first finds it, and the others
    /// nothing.
    fn later_by(&self, most: i64) -> i64 {
        let [.., a, b] = self.0.instance.id;
        most * i64::from(u16::from_be_bytes([a, b])) / 65_536
    }

    /// What follows others' erasures, and applies the retention.
    pub(super) fn keeping(&self, eraser: Eraser, version: i64) -> Keeping {
        Keeping {
            eraser,
            version,
            looks: 0,
            theirs: HashMap::new(),
            rules: Duty::all(&self.config().retention),
        }
    }
}

fn nobodys(tag: &Tag) -> Tag {
    Tag {
        fingerprint: None,
        owner: None,
        ..tag.clone()
    }
}

/// The text without `value`, in whatever case it stands; an id of one or two digits stands in dates, too.
fn without(text: &str, value: &str) -> String {
    if value.trim().len() < 3 {
        return text.to_owned();
    }
    let (lower, value) = (text.to_ascii_lowercase(), value.trim().to_ascii_lowercase());
    let (mut out, mut rest) = (String::with_capacity(text.len()), 0);
    for (at, _) in lower.match_indices(&value) {
        out.push_str(text.get(rest..at).unwrap_or_default());
        out.push_str("{value}");
        rest = at + value.len();
    }
    out.push_str(text.get(rest..).unwrap_or_default());
    out
}

/// What others stored of people who were erased, and when it was seen.
#[derive(Default)]
pub(super) struct Waiting(Vec<(Instant, News)>);

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the keeper's thread has of erasures.
pub(super) struct Keeping {
    eraser: Eraser,
    /// Of the table of erasures, as far as it was followed.
    version: i64,
    looks: u64,
    /// Those of others' erasures who were known here.
    theirs: HashMap<ErasureId, Vec<Owner>>,
    rules: Vec<Duty>,
}

impl Keeping {
    /// `stirred`: others may have written.
    pub(super) fn look(&mut self, tracker: &Tracker, stirred: bool, last: bool) {
        if stirred {
            // A file that cannot be used now is looked at again; the recorder says what is wrong with it.
            let _ = self.follow(tracker);
        }
        if !last {
            self.looks += 1;
            if self.looks % ABANDONED_EVERY == 1 {
                let _ = self.take_over(tracker);
            }
            let _ = self.retain(tracker);
        }
    }

    fn follow(&mut self, tracker: &Tracker) -> Result<(), Error> {
        for erasure in tracker.0.erased.lifted() {
            self.eraser.lift(&erasure)?;
        }
        let mut begun: BTreeSet<ErasureId> = BTreeSet::new();
        let mut done: BTreeSet<ErasureId> = BTreeSet::new();
        for change in self.eraser.changes(self.version)? {
            self.version = change.version;
            let erasure = change.erasure;
            if change.is_lifted {
                if tracker.0.erased.remove(&erasure) {
                    tracker.0.registry.renew();
                }
                self.theirs.remove(&erasure);
                continue;
            }
            if tracker.0.erased.is_own(&erasure) {
                continue;
            }
            tracker.0.erased.add(change.person, erasure);
            if !self.theirs.contains_key(&erasure) {
                begun.insert(erasure);
            }
            if change.is_done {
                done.insert(erasure);
            }
        }
        if !begun.is_empty() {
            // By their hashes: what they are called may be erased already.
            let known: Vec<Owner> = tracker.registry().owners().into_iter().collect();
            let known: Vec<Owner> = known.into_iter().filter(|owner| tracker.0.erased.has(owner)).collect();
            tracker.forget(&known);
            for erasure in begun {
                self.theirs.insert(erasure, known.clone());
            }
        }
        let mut any = false;
        for erasure in done {
            any = true;
            // What was recorded here before it was known.
            let Some(owners) = self.theirs.remove(&erasure).filter(|owners| !owners.is_empty()) else {
                continue;
            };
            tracker.flush(PATIENCE)?;
            let removed = self.eraser.erase(&erasure, &owners)?;
            if removed.events > 0 || !removed.values.is_empty() {
                self.say_more(tracker, &erasure, &removed)?;
                self.eraser.clean()?;
            }
        }
        if any {
            tracker.home().forgotten.all_but(self.eraser.values()?);
        }
        Ok(())
    }

    fn say_more(&self, tracker: &Tracker, erasure: &ErasureId, removed: &Removed) -> Result<(), Error> {
        let extras = json!({ "kind": "person", "erasure": hex(erasure), "state": "done",
            "reason": "recorded by another process meanwhile" });
        let counts = json!({ "events": removed.events, "tags": removed.tags, "values": removed.values.len() });
        tracker.say("", &extras, counts).map(drop)
    }

    /// Finishes what a process that died had begun.
    fn take_over(&mut self, tracker: &Tracker) -> Result<(), Error> {
        let now = Timestamp::now().0;
        let patience = ABANDONED + tracker.later_by(ABANDONED);
        let mut left: HashMap<ErasureId, Vec<Owner>> = HashMap::new();
        for change in self.eraser.changes(0)? {
            if let Some(owner) = change.owner.filter(|_| !change.is_done)
                && now.saturating_sub(change.touched_at) > patience
            {
                left.entry(change.erasure).or_default().push(owner);
            }
        }
        for owners in left.into_values() {
            tracker.erase_people(&owners, "taken up after an interruption")?;
        }
        Ok(())
    }

    fn retain(&mut self, tracker: &Tracker) -> Result<(), Error> {
        let until = Instant::now() + STRETCH;
        let mut worked = false;
        for duty in &mut self.rules {
            if duty.until.is_none() {
                let before = duty.before(Timestamp::now(), tracker);
                if duty.last.is_some_and(|last| before <= last) {
                    continue;
                }
                duty.last = Some(before);
                let due = self.eraser.due(&duty.rule, before, duty.mark)?;
                if due == 0 {
                    continue;
                }
                tracker.say_retention(&duty.rule, before, due, "retention of the configuration")?;
                duty.until = Some(before);
            }
            while let Some(before) = duty.until {
                if Instant::now() >= until {
                    return Ok(());
                }
                let began = Instant::now();
                let ended = self.eraser.end(&duty.rule, before, &mut duty.mark)?;
                tracker.home().forgotten.these(ended.values);
                worked = true;
                if !ended.more {
                    duty.until = None;
                    duty.mark = Mark::default();
                }
                // As much time for those who write.
                std::thread::sleep(began.elapsed());
            }
        }
        // A server vacuums by itself.
        if worked && matches!(tracker.config().storage, Storage::Sqlite(_)) {
            self.eraser.clean()?;
        }
        Ok(())
    }
}

/// A retention that is applied.
struct Duty {
    rule: Rule,
    kept: i64,
    /// What was said last.
    last: Option<Timestamp>,
    /// What it is at.
    until: Option<Timestamp>,
    mark: Mark,
}

impl Duty {
    fn all(retention: &std::collections::BTreeMap<String, Duration>) -> Vec<Self> {
        let micros = |kept: &Duration| i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let duty = |rule: Rule, kept: i64| Duty {
            rule,
            kept,
            last: None,
            until: None,
            mark: Mark::default(),
        };
        let mut all: Vec<Duty> = retention
            .iter()
            .filter_map(|(name, kept)| Some(duty(Rule::parse(name)?, micros(kept))))
            .collect();
        // Values end where every event ends that could speak of them.
        let carriers = ["DATA_COLLECTION", "DATA_STORAGE", "DATA_DERIVATION", "DATA_SHARE"];
        let times: Option<Vec<i64>> = carriers.iter().map(|name| retention.get(*name).map(micros)).collect();
        if let Some(longest) = times.and_then(|times| times.into_iter().max()) {
            all.push(duty(Rule::Values, longest));
        }
        all
    }

    /// In steps, so that not every second has a record of its own.
    fn before(&self, now: Timestamp, tracker: &Tracker) -> Timestamp {
        const SECOND: i64 = 1_000_000;
        let step = (self.kept / 100).clamp(SECOND, 86_400 * SECOND);
        let later = tracker.later_by(step.min(60 * SECOND));
        let before = now.0.saturating_sub(self.kept.saturating_add(later));
        Timestamp(before.div_euclid(step).saturating_mul(step))
    }
}
