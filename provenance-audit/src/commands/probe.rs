//! A synthetic person, sent through routes of a running host: what the hooks reported of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use provenance::inventory::Entry;
use provenance::store::EventQuery;
use provenance::{Kind, Pseudonyms, Timestamp};
use serde_json::{Map, Value as Json};

use super::doctor::{Findings, Level, blind_spots, in_words};
use super::hooks::{self, Earlier, Hook, Observed};
use super::host::{self, Call, Host};
use super::output::{self, count, listed};
use super::place::Evidence;
use super::synthetic::{Person, Probe};
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

/// All probes of one call, in their order.
pub(super) struct Run<'a> {
    pub(super) app: &'a str,
    pub(super) host: &'a Host,
    pub(super) probes: Vec<Probe>,
    pub(super) sent_as: SentAs,
    /// Headers that each request has.
    pub(super) headers: Vec<(String, String)>,
    pub(super) expected: &'a [Expected],
    pub(super) every_hook: bool,
    pub(super) wait: u64,
    pub(super) declared: &'a [Entry],
    pub(super) instance: Option<&'a str>,
}

/// What came of requests.
#[derive(Default)]
struct Reported {
    status: u16,
    /// The start of a refusal.
    said: String,
    /// By id.
    events: BTreeMap<String, Json>,
    /// Blind spots that were counted meanwhile, whoever caused them: kind and site.
    missed: BTreeSet<(String, String)>,
    since: Timestamp,
}

/// Fingerprints, with the parameters that each may be of.
type Known = HashMap<String, BTreeSet<String>>;

impl Run<'_> {
    /// Sends `person`, and says what each hook reported of them.
    pub(super) fn probe(
        mut self,
        person: &Person,
        evidence: Option<&mut Evidence>,
        findings: &mut Findings,
    ) -> Result<Vec<Hook>, String> {
        host::plain_http(self.app).map_err(|why| format!("--app: {why}"))?;
        let mut file = evidence.and_then(|evidence| Some((Pseudonyms::load(&evidence.config).ok()?, evidence)));
        if file.is_none() {
            findings.add(
                Level::Note,
                "values of the synthetic person are known by the names of their fields alone, and events by their request",
                "run this beside the host, with the service's configuration and key, to know them by their fingerprints",
            );
        }
        let earlier = Earlier::of(self.host);
        for probe in &mut self.probes {
            if let Some(input) = probe.complete(self.declared, &earlier.places)? {
                let names = probe
                    .parameters
                    .iter()
                    .map(|(name, _)| name.clone())
                    .collect::<Vec<_>>();
                let what = format!("{}: sent {}, as {input} declares", probe.route(), listed(&names));
                findings.add(Level::Note, what, "");
            }
        }
        let mut jar = BTreeMap::new();
        let (mut all, mut refused) = (Reported::default(), Vec::new());
        for (number, probe) in self.probes.iter().enumerate() {
            let reported = self.send(probe, number, person, &mut jar, &mut file)?;
            self.of_route(probe, number, person, &reported, findings)?;
            if reported.is_refused() {
                refused.push((probe.route(), reported.status));
            }
            all.events.extend(reported.events);
            all.missed.extend(reported.missed);
        }
        let known = file.as_ref().map(|(pseudonyms, _)| {
            let each = self.probes.iter().map(|probe| fingerprints(pseudonyms, probe, person));
            each.fold(Known::new(), |mut known, more| {
                for (fingerprint, names) in more {
                    known.entry(fingerprint).or_default().extend(names);
                }
                known
            })
        });
        if !all.events.is_empty() {
            self.of_values(&all, !refused.is_empty(), known.as_ref(), findings);
        }
        let observed = Observed {
            events: &all.events,
            moved: &all.missed,
            standing: &blind_spots(&self.host.get("status")?),
            refused: &refused,
            earlier: &earlier,
        };
        let hooks = hooks::of(self.declared, &observed);
        for hook in &hooks {
            if hook.missed || (self.every_hook && !hook.fired) {
                let how = if hook.fired {
                    "did not see all"
                } else {
                    "reported nothing"
                };
                let what = format!("{} {} {how}: {}", hooks::word(&hook.kind), hook.path, hook.why);
                findings.add(Level::Problem, what, hook.advice.clone());
            }
        }
        Ok(hooks)
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
        let request_id = request_id(person, number);
        let parameters: Vec<(String, String)> = probe
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), person.filled(value)))
            .collect();
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&parameters)
            .finish();
        let mut url = format!("{}{}", self.app.trim_end_matches('/'), probe.path);
        let mut headers = vec![("x-request-id".to_owned(), request_id.clone())];
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
                headers.push((
                    "content-type".to_owned(),
                    "application/x-www-form-urlencoded".to_owned(),
                ));
                form
            }
            (true, SentAs::Json) => {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
                let object: Map<_, _> = parameters
                    .iter()
                    .map(|(name, value)| (name.clone(), value.as_str().into()))
                    .collect();
                Json::Object(object).to_string()
            }
        };
        let (given, others): (Vec<_>, Vec<_>) = self
            .headers
            .iter()
            .cloned()
            .partition(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        headers.extend(others);
        let kept = jar.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies: Vec<_> = given.into_iter().map(|(_, cookies)| cookies).chain(kept).collect();
        if !cookies.is_empty() {
            headers.push(("cookie".to_owned(), cookies.join("; ")));
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
            // Who is signed in by a session of the user's is no synthetic person: of those nothing is shown.
            said: match self.headers.is_empty() && !answer.text.is_empty() {
                true => format!(" ({})", answer.text),
                false => String::new(),
            },
            status: answer.status,
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
    fn of_route(
        &self,
        probe: &Probe,
        number: usize,
        person: &Person,
        reported: &Reported,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let route = probe.route();
        if reported.is_refused() {
            findings.add(
                Level::Problem,
                format!("{route}: the application answers {}{}", reported.status, reported.said),
                match reported.status {
                    404 | 405 => "it has no such route",
                    401 | 403 => {
                        "it asks for a session: probe the route that signs in or up before this one, or name a variable \
                         that holds a cookie or token with --header-env"
                    }
                    400 | 409 | 415 | 422 => "it does not take what was sent: look at the parameters, and at --as",
                    _ => "look at its log",
                },
            );
        }
        let said = |event: &Json, key: &str| event.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let events = reported.events.values();
        let instances: BTreeSet<String> = events.clone().filter_map(instance).collect();
        let ours = request_id(person, number);
        if reported.events.is_empty() {
            let (what, advice) = self.nothing(&route, reported)?;
            findings.add(Level::Problem, what, advice);
            return Ok(());
        }
        let reported_by = count(reported.events.len() as u64, "event was", "events were");
        findings.add(Level::Fine, format!("{route}: {reported_by} reported"), "");
        if events.clone().all(|event| said(event, "request_id") != ours) {
            findings.add(
                Level::Warning,
                format!("{route}: its events do not carry the request's id"),
                "put provenance::axum::layer() on the router, with Router::layer: without it hooks have no request, and \
                 the fields of config alone are not looked at",
            );
        } else if events.clone().any(|event| said(event, "actor").ends_with("(no route)")) {
            findings.add(
                Level::Warning,
                format!("{route}: its events do not know the route"),
                "the layer is around the whole router, or the request met a fallback: put it on with Router::layer",
            );
        }
        if let Some(instance) = self.instance
            && !instances.is_empty()
            && !instances.contains(instance)
        {
            findings.add(
                Level::Warning,
                format!("{route}: reported by another process than the one that was asked for its status"),
                "several processes share the evidence: blind spots and the queue are each one's own; ask the audit address \
                 of the one that serves --app",
            );
        }
        Ok(())
    }

    /// Says what was reported of each value in all probes, and why not.
    fn of_values(&self, reported: &Reported, refused: bool, known: Option<&Known>, findings: &mut Findings) {
        let marked = self.probes.iter().flat_map(Probe::marked);
        let marked: BTreeSet<&String> = marked.map(|(name, _)| name).collect();
        for expected in ALL {
            let of_type: Vec<&Json> = reported
                .events
                .values()
                .filter(|event| event.get("event_type").and_then(Json::as_str) == Some(expected.event_type()))
                .collect();
            let mut missing = BTreeSet::new();
            let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for name in &marked {
                let mut with = of_type.iter().filter(|event| carries(event, name, known)).peekable();
                if with.peek().is_none() {
                    missing.insert((*name).clone());
                }
                for event in with {
                    places.entry(place(event)).or_default().insert((*name).clone());
                }
            }
            for (place, names) in places {
                let what = format!("{} ({place}): {}", expected.word(), listed(&names));
                findings.add(Level::Fine, what, "");
            }
            if missing.is_empty() {
                continue;
            }
            let level = match self.expected.contains(&expected) {
                true => Level::Problem,
                false => Level::Note,
            };
            let what = format!("not {}, as far as hooks saw: {}", expected.word(), listed(&missing));
            findings.add(level, what, why(expected, &of_type, reported, refused));
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
                          keep the guard of provenance::init() in main; is `enabled` true? Is the audit address that of the \
                          process behind --app?"
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
    for (name, value) in probe.marked() {
        let value = person.filled(value);
        for kind in kinds {
            if let Some(fingerprint) = pseudonyms.fingerprint(kind, &value) {
                known.entry(fingerprint.to_string()).or_default().insert(name.clone());
            }
        }
    }
    known
}

fn request_id(person: &Person, number: usize) -> String {
    format!("{REQUEST_ID}{}{number}", person.tag)
}

impl Reported {
    /// The application did not take the request.
    fn is_refused(&self) -> bool {
        !(200..400).contains(&self.status)
    }
}

fn instance(event: &Json) -> Option<String> {
    Some(event.get("extras")?.get("instance")?.as_str()?.to_owned())
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
fn why(expected: Expected, of_type: &[&Json], reported: &Reported, refused: bool) -> String {
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
    if refused && of_type.is_empty() {
        return "the application refused a request: what it began was rolled back, or never made".to_owned();
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
                                     #[egress] functions, which go unrecorded to hosts in ignored_hosts"
                .to_owned()
        }
        (Expected::Shared, false) => {
            "requests left, and it was not found in them, in any form that detection knows".to_owned()
        }
    }
}
