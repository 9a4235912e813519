//! A synthetic person, sent through routes of a running host: what the hooks reported of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use provenance::inventory::Entry;
use provenance::store::EventQuery;
use provenance::{Kind, Pseudonyms, Timestamp};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::doctor::{Findings, Level, blind_spots, in_words};
use super::host::{self, Call, Host};
use super::output::{self, count, listed};
use super::place::Evidence;
use crate::export::text;

/// How often a host is asked for more events.
const PAUSE: Duration = Duration::from_millis(200);
/// How long nothing new comes before it counts as all.
const QUIET: Duration = Duration::from_millis(1500);
/// What the id of a probe's request begins with.
const REQUEST_ID: &str = "provenance-probe-0";

/// How the parameters of a probe are sent.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SentAs {
    /// As an HTML form
    Form,
    /// As a JSON object of texts
    Json,
}

/// What a probe may be expected to show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(super) enum Expected {
    /// Came in
    Collected,
    /// Was committed to a table
    Stored,
    /// Was computed with
    Derived,
    /// Was sent to a recipient
    Shared,
}

const ALL: [Expected; 4] = [
    Expected::Collected,
    Expected::Stored,
    Expected::Derived,
    Expected::Shared,
];

impl Expected {
    fn event_type(self) -> &'static str {
        match self {
            Expected::Collected => "DATA_COLLECTION",
            Expected::Stored => "DATA_STORAGE",
            Expected::Derived => "DATA_DERIVATION",
            Expected::Shared => "DATA_SHARE",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Expected::Collected => "collected",
            Expected::Stored => "stored",
            Expected::Derived => "used in a derivation",
            Expected::Shared => "shared",
        }
    }
}

/// One request, as it was asked for.
pub(super) struct Probe {
    method: String,
    path: String,
    parameters: Vec<(String, String)>,
}

impl Probe {
    /// `POST /signup email={email} currency=EUR`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            Err(format!(
                "--probe: {what}; write METHOD PATH NAME=VALUE.., such as 'POST /signup email={{email}} name={{name}}'"
            ))
        };
        let mut words = text.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return wrong("there is no method, or no path");
        };
        if !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return wrong("the method is not in capitals");
        }
        if !path.starts_with('/') {
            return wrong("the path does not begin with /");
        }
        let mut parameters = Vec::new();
        for word in words {
            let Some((name, value)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return wrong("a parameter has no = in it");
            };
            parameters.push((name.to_owned(), value.to_owned()));
        }
        Ok(Probe {
            method: method.to_owned(),
            path: path.to_owned(),
            parameters,
        })
    }
}

/// Who does not exist.
struct Person {
    tag: String,
    values: [(&'static str, String); 6],
}

impl Person {
    fn new() -> Self {
        // Unlike any other run's: nothing here is a secret.
        let seed = format!("{:?} {} {:?}", Timestamp::now(), std::process::id(), Instant::now());
        let hash = Sha256::digest(seed);
        let mut bytes = hash.iter().copied();
        let mut next = || bytes.next().unwrap_or_default();
        let tag: String = (0..5).map(|_| format!("{:02x}", next())).collect();
        let letters: String = (0..8).map(|_| char::from(b'a' + next() % 26)).collect();
        let number = 100_000 + (u32::from(next()) << 8 | u32::from(next())) * 7;
        Person {
            values: [
                ("{email}", format!("provenance-probe-{tag}@example.com")),
                ("{name}", format!("Probe {}", capital(&letters))),
                ("{phone}", format!("+1 202 555 01{:02}", next() % 100)),
                ("{number}", number.to_string()),
                (
                    "{date}",
                    format!("19{}-0{}-1{}", 50 + next() % 50, 1 + next() % 9, next() % 10),
                ),
                ("{word}", format!("probe-{tag}")),
            ],
            tag,
        }
    }

    fn filled(&self, value: &str) -> String {
        let fill = |text: String, (mark, value): &(&str, String)| text.replace(mark, value);
        self.values.iter().fold(value.to_owned(), fill)
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(chars)
        .collect()
}

/// All probes of one call, in their order.
pub(super) struct Run<'a> {
    pub(super) app: &'a str,
    pub(super) host: &'a Host,
    pub(super) probes: &'a [Probe],
    pub(super) sent_as: SentAs,
    pub(super) expected: &'a [Expected],
    pub(super) wait: u64,
    pub(super) program: &'a [Entry],
}

/// What came of requests.
#[derive(Default)]
struct Reported {
    status: u16,
    /// The application did not take the request.
    refused: bool,
    /// By id.
    events: BTreeMap<String, Json>,
    /// Blind spots that were counted meanwhile, whoever caused them: kind and site.
    missed: BTreeSet<(String, String)>,
    since: Timestamp,
}

/// Fingerprints, with the parameters that each may be of.
type Known = HashMap<String, BTreeSet<String>>;

impl Run<'_> {
    pub(super) fn probe(&self, evidence: Option<&mut Evidence>, findings: &mut Findings) -> Result<(), String> {
        host::plain_http(self.app).map_err(|why| format!("--app: {why}"))?;
        let person = Person::new();
        let mut file = evidence.and_then(|evidence| Some((Pseudonyms::load(&evidence.config).ok()?, evidence)));
        if file.is_none() {
            findings.add(
                Level::Note,
                "values of the synthetic person are known by the names of their fields alone, and events by their request",
                "run this beside the host, with the service's configuration and key, to know them by their fingerprints",
            );
        }
        let mut jar = BTreeMap::new();
        let mut all = Reported::default();
        for (number, probe) in self.probes.iter().enumerate() {
            let reported = self.send(probe, number, &person, &mut jar, &mut file)?;
            self.of_route(probe, &reported, findings)?;
            all.events.extend(reported.events);
            all.missed.extend(reported.missed);
            all.refused |= reported.refused;
        }
        let known = file.as_ref().map(|(pseudonyms, _)| {
            let each = self.probes.iter().map(|probe| fingerprints(pseudonyms, probe, &person));
            each.fold(Known::new(), |mut known, more| {
                for (fingerprint, names) in more {
                    known.entry(fingerprint).or_default().extend(names);
                }
                known
            })
        });
        if !all.events.is_empty() {
            self.of_values(&all, known.as_ref(), findings);
        }
        let sites: BTreeSet<String> = all.events.values().filter_map(site).collect();
        let mut silent = Vec::new();
        for entry in self.program {
            let what = match entry.kind.as_str() {
                "input" => "input",
                "model" => "model",
                "egress" => "egress function",
                "derived" => "derivation",
                _ => continue,
            };
            let at = entry.at.as_deref().unwrap_or("?");
            match sites.contains(&entry.path) {
                true => findings.add(
                    Level::Fine,
                    format!("{what} {} ({at}) reported the synthetic person", entry.path),
                    "",
                ),
                false => silent.push(format!("{what} {} ({at})", entry.path)),
            }
        }
        if !silent.is_empty() {
            findings.add(
                Level::Note,
                format!(
                    "these hooks reported nothing of the synthetic person: {}",
                    listed(&silent)
                ),
                "no probe reached them, or they saw none of the values; name routes that do",
            );
        }
        findings.add(
            Level::Note,
            format!(
                "the synthetic person {} stays where the application put them",
                person.filled("{email}")
            ),
            "remove the account in the application",
        );
        Ok(())
    }

    fn send(
        &self,
        probe: &Probe,
        number: usize,
        person: &Person,
        jar: &mut BTreeMap<String, String>,
        file: &mut Option<(Pseudonyms, &mut Evidence)>,
    ) -> Result<Reported, String> {
        let before = blind_spots(&self.host.get("status")?);
        let since = Timestamp::now();
        let request_id = format!("{REQUEST_ID}{}{number}", person.tag);
        let parameters: Vec<(String, String)> = probe
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), person.filled(value)))
            .collect();
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&parameters)
            .finish();
        let mut url = format!("{}{}", self.app.trim_end_matches('/'), probe.path);
        let mut headers = vec![("x-request-id", request_id.clone())];
        let has_body = !matches!(probe.method.as_str(), "GET" | "HEAD");
        let body = match (has_body, self.sent_as) {
            (false, _) => {
                if !form.is_empty() {
                    url.push(if url.contains('?') { '&' } else { '?' });
                    url.push_str(&form);
                }
                String::new()
            }
            (true, SentAs::Form) => {
                headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
                form
            }
            (true, SentAs::Json) => {
                headers.push(("content-type", "application/json".to_owned()));
                let object: Map<_, _> = parameters
                    .iter()
                    .map(|(name, value)| (name.clone(), value.as_str().into()))
                    .collect();
                Json::Object(object).to_string()
            }
        };
        if !jar.is_empty() {
            let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            headers.push(("cookie", cookies.join("; ")));
        }
        let answer = host::send(Call {
            method: &probe.method,
            url: &url,
            headers,
            body,
        })?;
        for cookie in answer.cookies {
            if let Some((name, value)) = cookie.split_once('=') {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        let events = self.events(&request_id, since, probe, person, file)?;
        let mut missed = BTreeSet::new();
        for (kind, sites) in blind_spots(&self.host.get("status")?) {
            for (site, times) in sites {
                let earlier = before
                    .get(&kind)
                    .and_then(|sites| sites.get(&site))
                    .copied()
                    .unwrap_or(0);
                if times > earlier {
                    missed.insert((kind.clone(), site));
                }
            }
        }
        Ok(Reported {
            status: answer.status,
            refused: !(200..400).contains(&answer.status),
            events,
            missed,
            since,
        })
    }

    /// Events of the request, and those that carry the person's values, until no more come.
    fn events(
        &self,
        request_id: &str,
        since: Timestamp,
        probe: &Probe,
        person: &Person,
        file: &mut Option<(Pseudonyms, &mut Evidence)>,
    ) -> Result<BTreeMap<String, Json>, String> {
        let bar = output::progress("events of the synthetic person");
        let (begun, mut quiet_since, mut before) = (Instant::now(), Instant::now(), String::new());
        loop {
            let mut events = BTreeMap::new();
            let page = self.host.get(&format!("events?limit=500&request_id={request_id}"))?;
            for event in page.get("events").and_then(Json::as_array).into_iter().flatten() {
                let id = event.get("event_id").and_then(Json::as_str).unwrap_or_default();
                events.insert(id.to_owned(), event.clone());
            }
            if let Some((pseudonyms, evidence)) = file {
                for fingerprint in fingerprints(pseudonyms, probe, person).into_keys() {
                    let query = EventQuery {
                        limit: 500,
                        since: Some(since),
                        fingerprint: Some(fingerprint),
                        ..EventQuery::default()
                    };
                    let page = evidence.reader.events(&query).map_err(|error| error.to_string())?;
                    for event in page.events {
                        let id = event.event_id.clone();
                        events.entry(id).or_insert_with(|| serde_json::json!(event));
                    }
                }
            }
            bar.set_position(events.len() as u64);
            let now = serde_json::json!(events).to_string();
            if now != before {
                (before, quiet_since) = (now, Instant::now());
            }
            let over = begun.elapsed() > Duration::from_secs(self.wait);
            if over || (quiet_since.elapsed() > QUIET && !events.is_empty()) {
                bar.finish_and_clear();
                return Ok(events);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Says whether a route answered, and whether anything was reported of it.
    fn of_route(&self, probe: &Probe, reported: &Reported, findings: &mut Findings) -> Result<(), String> {
        let route = format!("{} {}", probe.method, probe.path);
        if reported.refused {
            findings.add(
                Level::Problem,
                format!("{route}: the application answers {}", reported.status),
                match reported.status {
                    404 | 405 => "it has no such route",
                    401 | 403 => "it asks for a session: probe the route that signs in or up before this one",
                    400 | 409 | 415 | 422 => "it does not take what was sent: look at the parameters, and at --as",
                    _ => "look at its log",
                },
            );
        }
        match reported.events.len() as u64 {
            0 => {
                let (what, advice) = self.nothing(&route, reported)?;
                findings.add(Level::Problem, what, advice);
            }
            events => findings.add(
                Level::Fine,
                format!("{route}: {} reported", count(events, "event was", "events were")),
                "",
            ),
        }
        Ok(())
    }

    /// Says what was reported of each value in all probes, and why not.
    fn of_values(&self, reported: &Reported, known: Option<&Known>, findings: &mut Findings) {
        let marked: BTreeSet<&String> = self
            .probes
            .iter()
            .flat_map(|probe| &probe.parameters)
            .filter(|(_, value)| value.contains('{'))
            .map(|(name, _)| name)
            .collect();
        for expected in ALL {
            let of_type: Vec<&Json> = reported
                .events
                .values()
                .filter(|event| event.get("event_type").and_then(Json::as_str) == Some(expected.event_type()))
                .collect();
            let mut missing = BTreeSet::new();
            for name in &marked {
                let with: BTreeSet<String> = of_type
                    .iter()
                    .filter(|event| carries(event, name, known))
                    .map(|event| place(event))
                    .collect();
                if with.is_empty() {
                    missing.insert((*name).clone());
                } else {
                    findings.add(
                        Level::Fine,
                        format!("{name} was {}: {}", expected.word(), listed(&with)),
                        "",
                    );
                }
            }
            if missing.is_empty() {
                continue;
            }
            let level = match self.expected.contains(&expected) {
                true => Level::Problem,
                false => Level::Note,
            };
            let what = format!("not {}, as far as hooks saw: {}", expected.word(), listed(&missing));
            findings.add(level, what, why(expected, &of_type, reported));
        }
    }

    /// Why there is no event at all.
    fn nothing(&self, route: &str, reported: &Reported) -> Result<(String, String), String> {
        let page = self.host.get(&format!("events?limit=100&since={}", reported.since))?;
        let others: BTreeSet<String> = page
            .get("events")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(|event| event.get("actor").and_then(Json::as_str))
            .map(str::to_owned)
            .collect();
        let what = format!("{route}: nothing was reported");
        if !others.is_empty() {
            let advice = format!(
                "events of others, or of this request without its id, came in at that time: {}. Without the layer of \
                 provenance::axum the request's id is not taken over; with the service's key and file this command finds \
                 them by fingerprint",
                listed(&others)
            );
            return Ok((what, advice));
        }
        let mut advice =
            "no hook ran: put provenance::axum::layer() on the router and #[provenance_input] on the handler; \
                          keep the guard of provenance::init() in main; is `enabled` true?"
                .to_owned();
        for (kind, site) in &reported.missed {
            advice.push_str(&format!(" Counted meanwhile: {} at {site}.", in_words(kind).0));
        }
        Ok((what, advice))
    }
}

/// Whether an event has a tag of the value that was sent as this parameter.
fn carries(event: &Json, name: &str, known: Option<&Known>) -> bool {
    let tags = event.get("matched_tags").and_then(Json::as_array).into_iter().flatten();
    tags.filter_map(Json::as_object)
        .any(|tag| match (known, tag.get("fingerprint")) {
            // Secrets have none.
            (Some(known), Some(Json::String(fingerprint))) => {
                known.get(fingerprint).is_some_and(|names| names.contains(name))
            }
            _ => text(tag, "field").eq_ignore_ascii_case(name),
        })
}

/// The fingerprints that the values of a probe may have.
fn fingerprints(pseudonyms: &Pseudonyms, probe: &Probe, person: &Person) -> Known {
    let kinds = [Kind::Text, Kind::Email, Kind::Phone, Kind::Number, Kind::Date, Kind::Id];
    let mut known = Known::new();
    for (name, value) in probe.parameters.iter().filter(|(_, value)| value.contains('{')) {
        let value = person.filled(value);
        for kind in kinds {
            if let Some(fingerprint) = pseudonyms.fingerprint(kind, &value) {
                known.entry(fingerprint.to_string()).or_default().insert(name.clone());
            }
        }
    }
    known
}

fn site(event: &Json) -> Option<String> {
    Some(event.get("extras")?.get("site")?.get("path")?.as_str()?.to_owned())
}

/// Where an event saw a value.
fn place(event: &Json) -> String {
    let said = |key: &str| event.get(key).and_then(Json::as_str).unwrap_or_default();
    let recipient = event
        .get("extras")
        .and_then(|extras| extras.get("recipient"))
        .and_then(Json::as_str);
    match (said("event_type"), recipient) {
        ("DATA_SHARE", Some(recipient)) => recipient.to_owned(),
        ("DATA_STORAGE", _) => said("target").to_owned(),
        _ => said("actor").to_owned(),
    }
}

/// Why values were not reported, as far as that can be told from outside.
fn why(expected: Expected, of_type: &[&Json], reported: &Reported) -> String {
    let kinds: &[&str] = match expected {
        Expected::Collected => &["unvisited_input", "capped_input"],
        Expected::Stored => &["bypassed_model", "uninstrumented_connection", "model_without_hook"],
        Expected::Derived => &[],
        Expected::Shared => &["egress_without_call", "unscanned_body", "evidence_failure"],
    };
    let missed: BTreeSet<_> = reported
        .missed
        .iter()
        .filter(|(kind, _)| kinds.contains(&kind.as_str()))
        .map(|(kind, site)| {
            let (what, advice) = in_words(kind);
            format!("counted meanwhile: {what}, at {site}: {advice}")
        })
        .collect();
    if !missed.is_empty() {
        return listed(&missed);
    }
    if reported.refused && of_type.is_empty() {
        return "the application refused a request before".to_owned();
    }
    match (expected, of_type.is_empty()) {
        (Expected::Collected, true) => "no input hook ran: #[provenance_input], or the layer".to_owned(),
        (Expected::Collected, false) => {
            "the hook ran and did not take it for personal data: name it in input_fields, or \
                                         put #[tracked] on its field"
                .to_owned()
        }
        (Expected::Stored, true) => {
            "no write of a tracked model was committed: the route writes nothing, or not through \
                                     a #[tracked_model] (raw SQL and .set(..) need the feature sql-fallback)"
                .to_owned()
        }
        (Expected::Stored, false) => {
            "rows were written; it is not among their tracked columns, or was changed before (a \
                                      password is hashed)"
                .to_owned()
        }
        (Expected::Derived, _) => "no #[derived] function took it".to_owned(),
        (Expected::Shared, true) => {
            "nothing was sent that a hook saw: `cargo provenance check` lists calls outside of \
                                     #[egress] functions"
                .to_owned()
        }
        (Expected::Shared, false) => {
            "requests left, and it was not found in them, in any form that detection knows".to_owned()
        }
    }
}
