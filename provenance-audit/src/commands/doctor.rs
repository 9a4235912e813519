//! `provenance-audit doctor`: what is wrong with a host, or missing, in plain words.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use provenance::Config;
use provenance::config::{Fingerprints, Storage};
use provenance::inventory::Entry;
use provenance::store::{EventQuery, Reader, StoredEvent};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::host::Host;
use super::output::{self, Done, Failure, Paint, count};
use super::place::{Evidence, Place};
use super::probe::{Expected, Probe};
use super::serve::token;
use super::{found, probe};
use crate::artifact;
use crate::declared::shown;
use crate::export::{each_event, text};

/// Pages of events that are read of a host whose file is not at hand.
const PAGES: usize = 40;

/// Say what is wrong with a host or its evidence, or missing
///
/// Looks at /status of a running host and at the evidence file, and, with --program, at what the program declares. With
/// --probe it also sends a synthetic person through routes that you name, says what each hook reported of them, and
/// why nothing was reported where nothing was. What no route reaches cannot be probed from outside.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit doctor                                  # the host that the configuration names (audit.bind)
  provenance-audit doctor --db runtime_provenance.db       # the file alone
  provenance-audit doctor --url http://127.0.0.1:8787 --token-env AUDIT_TOKEN --program target/release/crm
  provenance-audit doctor --app http://127.0.0.1:8080 \\
      --probe 'POST /signup email={email} name={name} password={word} currency=EUR' \\
      --probe 'POST /newsletter' --expect stored,shared

A probe is METHOD PATH NAME=VALUE..; in a value, {email}, {name}, {phone}, {number}, {date} and {word} stand for the
synthetic person's. They are random, the same in all probes of one run, and never a real person's (example.com, 555
numbers). Cookies that the application sets are sent back, so that a probe may sign up and the next act. THE
APPLICATION TREATS THE REQUESTS AS REAL: it keeps the account, and sends what it sends to its recipients. Remove the
account afterwards.

Exit codes: 0 nothing but notes and warnings; 1 a problem was found; 2 neither a host nor evidence can be read.")]
pub(super) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// Where the host's audit API listens; without it, `audit.bind` of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "db")]
    url: Option<String>,
    /// The environment variable that holds the audit token; without it, the configuration's
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// The host's program: what it declares is compared with what was observed
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where the application listens, for --probe
    #[arg(long, value_name = "URL", requires = "probe")]
    app: Option<String>,
    /// A route, and what to send to it: METHOD PATH NAME=VALUE.. (see below)
    #[arg(long, value_name = "REQUEST", requires = "app", conflicts_with = "db")]
    probe: Vec<String>,
    /// How probes are sent
    #[arg(
        long = "as",
        value_enum,
        default_value = "form",
        value_name = "FORM",
        requires = "probe"
    )]
    sent_as: probe::SentAs,
    /// What must be reported of the synthetic person; what else is missing is a note
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "collected",
        requires = "probe"
    )]
    expect: Vec<Expected>,
    /// How long to wait for events after a probe
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600),
          requires = "probe")]
    wait: u64,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Evidence is missing, wrong or at risk.
    Problem,
    /// Something is not seen, or not said.
    Warning,
    /// Good to know.
    Note,
    /// Looked at, and as it should be.
    Fine,
}

/// One thing to be told.
#[derive(Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What is the case.
    pub(super) what: String,
    /// What to do; empty where there is nothing.
    pub(super) advice: String,
}

#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, level: Level, what: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Finding {
            level,
            what: what.into(),
            advice: advice.into(),
        });
    }
}

impl Doctor {
    pub(super) fn run(self) -> Done {
        let config = self.place.config()?;
        let mut findings = Findings::default();
        let probes = self
            .probe
            .iter()
            .map(|text| Probe::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Failure::said)?;
        let host = match self.place.db {
            Some(_) => None,
            None => Some(self.host(&config)?),
        };
        let status = host.as_ref().map(|host| host.get("status"));
        let mut evidence = self.evidence(&config, host.as_ref(), status.as_ref())?;
        match (&host, &status) {
            (Some(host), Some(Err(why))) => {
                let what = format!("the host at {} gives no status: {why}", shown(host.shown()));
                if evidence.is_none() || self.url.is_some() {
                    return Err(Failure::said(what));
                }
                let advice = "is the service running, with provenance_audit::init(), or spawn() after \
                              provenance::init()? What follows is the evidence file's";
                findings.add(Level::Problem, what, advice);
            }
            (Some(host), Some(Ok(status))) => {
                let of = format!("the host at {} answers", shown(host.shown()));
                findings.add(Level::Fine, of, "");
                running(status, &mut findings);
            }
            _ => {}
        }
        configured(&config, evidence.as_ref(), &mut findings);
        let status = status.and_then(Result::ok);
        let program = match &self.program {
            Some(path) => {
                artifact::read(path)
                    .map_err(|error| Failure::said(format!("--program: {error}")))?
                    .entries
            }
            None => Vec::new(),
        };
        // First: what it leaves is looked at with the rest.
        if let (Some(app), Some(host)) = (&self.app, &host) {
            if status.is_none() {
                return Err(Failure::said(
                    "--probe: the host gives no status, so nothing could be told",
                ));
            }
            let run = probe::Run {
                app,
                host,
                probes: &probes,
                sent_as: self.sent_as,
                expected: &self.expect,
                wait: self.wait,
                program: &program,
            };
            run.probe(evidence.as_mut(), &mut findings).map_err(Failure::said)?;
        }
        let seen = match (&mut evidence, &host) {
            (Some(evidence), _) => Seen::in_file(evidence, &mut findings)?,
            (None, Some(host)) => Seen::at(host, &mut findings).map_err(Failure::said)?,
            (None, None) => Seen::default(),
        };
        seen.compare(status.as_ref(), &program, &config, &mut findings);
        self.write(&findings)
    }

    fn host(&self, config: &Config) -> Result<Host, Failure> {
        let token = match &self.token_env {
            Some(name) => token(name)?,
            None => config.audit_token.0.clone(),
        };
        let bound = format!("http://{}", config.audit_bind);
        Host::new(self.url.as_deref().unwrap_or(&bound), token).map_err(Failure::said)
    }

    /// The evidence file: as named, else the one that a host on this machine writes.
    fn evidence(
        &self,
        config: &Config,
        host: Option<&Host>,
        status: Option<&Result<Json, String>>,
    ) -> Result<Option<Evidence>, Failure> {
        if self.place.db.is_some() {
            return self.place.open().map(Some);
        }
        let mut config = config.clone();
        if let (Some(host), Some(Ok(status))) = (host, status)
            && host.is_near()
            && let Some(path) = status.get("storage_path").and_then(Json::as_str)
        {
            config.storage = Storage::Sqlite(path.into());
        } else if self.url.is_some() {
            return Ok(None);
        }
        let Storage::Sqlite(path) = &config.storage else {
            return Ok(None);
        };
        Ok(Reader::open(path).ok().map(|reader| Evidence { config, reader }))
    }

    fn write(&self, findings: &Findings) -> Done {
        let (mut out, paint) = (output::out(), Paint::stdout());
        let number = |level| findings.0.iter().filter(|finding| finding.level == level).count();
        let problems = number(Level::Problem);
        if self.json {
            output::json(&mut out, &json!({ "problems": problems, "findings": findings.0 }))?;
        } else {
            for level in [Level::Problem, Level::Warning, Level::Note, Level::Fine] {
                let word = match level {
                    Level::Problem => paint.red("PROBLEM"),
                    Level::Warning => paint.yellow("warning"),
                    Level::Note => "note   ".to_owned(),
                    Level::Fine => paint.green("fine   "),
                };
                for finding in findings.0.iter().filter(|finding| finding.level == level) {
                    writeln!(out, "{word}  {}", shown(&finding.what))?;
                    if !finding.advice.is_empty() {
                        writeln!(out, "         {}", shown(&finding.advice))?;
                    }
                }
            }
            writeln!(
                out,
                "\n{}, {}, {}",
                count(problems as u64, "problem", "problems"),
                count(number(Level::Warning) as u64, "warning", "warnings"),
                count(number(Level::Note) as u64, "note", "notes")
            )?;
        }
        let done = output::finish(out)?;
        if problems > 0 { found() } else { Ok(done) }
    }
}

/// What the running process says of itself.
fn running(status: &Json, findings: &mut Findings) {
    if status.get("embedded") == Some(&Json::Bool(false)) {
        findings.add(
            Level::Note,
            "this is an audit server over a file: of the service itself it knows nothing",
            "ask the service's own audit address for its queue and its blind spots",
        );
        return;
    }
    let number = |of: Option<&Json>, key: &str| of.and_then(|of| of.get(key)).and_then(Json::as_u64).unwrap_or(0);
    let queue = status.get("queue");
    let refused = number(queue, "refused");
    if refused > 0 {
        findings.add(
            Level::Problem,
            format!(
                "{} could not be queued in time, and are lost",
                count(refused, "record", "records")
            ),
            "the disk is too slow, full or locked by another process: look at queue.last_error on /status",
        );
    }
    if let Some(error) = queue.and_then(|queue| queue.get("last_error")).and_then(Json::as_str) {
        findings.add(
            Level::Problem,
            format!("the recorder cannot write: {error}"),
            "records wait in memory until it can; a crash would lose them",
        );
    } else if number(queue, "retries") > 0 {
        let retries = count(number(queue, "retries"), "commit", "commits");
        findings.add(Level::Note, format!("{retries} had to be tried again"), "");
    } else if queue.is_some_and(Json::is_object) {
        findings.add(Level::Fine, "the recorder writes", "");
    }
    let evicted = number(status.get("registry"), "evicted");
    if evicted > 0 {
        findings.add(
            Level::Warning,
            format!(
                "{} forgotten, as the registry is full: they are not recognised when they leave",
                count(evicted, "value was", "values were")
            ),
            "raise registry.max_values",
        );
    }
    let chain = status.get("chain");
    match chain.and_then(|chain| chain.get("ok")).and_then(Json::as_bool) {
        Some(false) => findings.add(
            Level::Problem,
            "the chain of the evidence is broken",
            "run `provenance-audit verify`; it names the first bad event",
        ),
        Some(true) => findings.add(
            Level::Fine,
            "the newest part of the chain holds (`verify` looks at all of it)",
            "",
        ),
        None => {}
    }
    for note in status.get("notes").and_then(Json::as_array).into_iter().flatten() {
        findings.add(Level::Warning, note.as_str().unwrap_or_default(), "");
    }
    for (kind, sites) in blind_spots(status) {
        let (what, advice) = in_words(&kind);
        let total: u64 = sites.values().sum();
        let places: Vec<_> = sites
            .iter()
            .take(20)
            .map(|(site, times)| format!("{site} ({times})"))
            .collect();
        let more = if sites.len() > 20 { ", .." } else { "" };
        findings.add(
            Level::Warning,
            format!("{what}: {}: {}{more}", count(total, "time", "times"), places.join(", ")),
            advice,
        );
    }
}

/// Blind spots by kind and site.
pub(super) fn blind_spots(status: &Json) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut spots: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for spot in status.get("blind_spots").and_then(Json::as_array).into_iter().flatten() {
        let said = |key: &str| spot.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let times = spot.get("count").and_then(Json::as_u64).unwrap_or(0);
        *spots.entry(said("kind")).or_default().entry(said("site")).or_default() += times;
    }
    spots
}

/// A kind of blind spot, and what to do about it.
pub(super) fn in_words(kind: &str) -> (&str, &'static str) {
    match kind {
        "unvisited_input" => (
            "arguments that cannot be read",
            "derive Tracked or Serialize on what they hold",
        ),
        "capped_input" => (
            "input beyond a cap, or not decodable",
            "what lies beyond it was not looked at; smaller bodies are",
        ),
        "unscanned_body" => (
            "bodies that left and were not scanned to the end",
            "send what is in memory, or name what a function sends by #[payload]",
        ),
        "model_without_hook" => (
            "models of the configuration that no attribute serves",
            "put #[tracked_model] on them, or enable the feature sql-fallback",
        ),
        "bypassed_model" => (
            "writes around a model whose values the SQL text does not tell",
            "write through the model, or with literals and binds that can be read",
        ),
        "uninstrumented_connection" => (
            "writes on connections that the hooks do not see",
            "open connections after provenance::init(), and set no other default instrumentation",
        ),
        "egress_without_call" => (
            "egress functions in which no call was seen",
            "the client is called somewhere else: move the call into the function, put the middleware on the client, or \
             name what is sent by #[payload]",
        ),
        "unseen_redirect" => (
            "redirects that a client followed without telling where to",
            "let provenance follow them: see the page of the client's integration",
        ),
        "evidence_failure" => (
            "shares whose record was not on disk in time",
            "look at the disk; egress.on_evidence_failure: refuse would have kept them in",
        ),
        "owner_conflict" => (
            "rows in which two people seem to be one",
            "an address may have passed to somebody else; link_owner says who is who",
        ),
        "hook_panicked" => (
            "hooks in which the host's own code panicked",
            "look at Display, Serialize and Tracked of what the site handles",
        ),
        "evidence_lost" => (
            "evidence files that were removed, replaced or damaged while they were written",
            "evidence goes on in another file: see docs/the-store.md",
        ),
        other => (other, "see docs/evidence.md"),
    }
}

/// What the configuration leaves open.
fn configured(config: &Config, evidence: Option<&Evidence>, findings: &mut Findings) {
    if !config.enabled {
        findings.add(
            Level::Problem,
            "enabled: false: every hook does nothing",
            "remove it, or RUNTIME_TRACKING_ENABLED",
        );
    }
    if config.retention.is_empty() {
        findings.add(
            Level::Warning,
            "no retention is set: events are kept for ever",
            "set `retention` in the configuration, for example {DATA_COLLECTION: 400d}",
        );
    }
    if config.fingerprints == Fingerprints::Sha256 {
        findings.add(
            Level::Note,
            "fingerprints: sha256: whoever has the file can guess values",
            "hmac-sha256 needs the key for that",
        );
    }
    if config.owners_clear {
        findings.add(
            Level::Warning,
            "owners: clear: the evidence holds identifiers of people",
            "keyed owners are found by their identifier just as well",
        );
    }
    if let Some(Storage::Sqlite(path)) = evidence.map(|evidence| &evidence.config.storage) {
        let mut key = path.clone().into_os_string();
        key.push(".key");
        let is_said = findings
            .0
            .iter()
            .any(|finding| finding.what.contains("created beside the database"));
        if Path::new(&key).exists() && !is_said {
            findings.add(
                Level::Warning,
                "the master key lies beside the evidence: it protects copies of the database alone",
                "give it through RUNTIME_TRACKING_KEY or key_file",
            );
        }
    }
}

/// What was observed, as far as it is compared.
#[derive(Default)]
struct Seen {
    events: BTreeMap<String, u64>,
    /// Types and tables of models, and paths of attributes, that some event names.
    sites: BTreeSet<String>,
    models: BTreeSet<String>,
    recipients: BTreeSet<String>,
    undeclared: BTreeMap<String, u64>,
    without_person: u64,
    unknown_outcomes: u64,
    uncertain: u64,
}

impl Seen {
    fn in_file(evidence: &mut Evidence, findings: &mut Findings) -> Result<Self, Failure> {
        let path = evidence.config.storage.to_string();
        findings.add(Level::Fine, format!("the evidence in {path} can be read"), "");
        let bar = output::progress("events");
        let mut seen = Seen::default();
        let query = EventQuery::default();
        each_event(&mut evidence.reader, &query, |event: StoredEvent| {
            bar.inc(1);
            let persons = event
                .matched_tags
                .iter()
                .any(|tag| tag.get("owner").is_some_and(|owner| !owner.is_null()));
            seen.see(&event.event_type, &event.extras, event.target.as_deref(), persons);
            Ok::<_, provenance::Error>(())
        })?;
        bar.finish_and_clear();
        Ok(seen)
    }

    fn at(host: &Host, findings: &mut Findings) -> Result<Self, String> {
        let mut seen = Seen::default();
        let mut cursor = String::new();
        for page in 0..=PAGES {
            if page == PAGES {
                findings.add(
                    Level::Note,
                    format!("only the newest {} events were looked at", PAGES * 500),
                    "name the evidence file with --db to look at all of them",
                );
                break;
            }
            let answer = host.get(&format!("events?limit=500{cursor}"))?;
            for event in answer.get("events").and_then(Json::as_array).into_iter().flatten() {
                let nothing = Map::new();
                let extras = event.get("extras").and_then(Json::as_object).unwrap_or(&nothing);
                let event_type = event.get("event_type").and_then(Json::as_str).unwrap_or_default();
                let tags = event.get("matched_tags").and_then(Json::as_array).into_iter().flatten();
                let persons = tags
                    .into_iter()
                    .any(|tag| tag.get("owner").is_some_and(Json::is_string));
                seen.see(event_type, extras, event.get("target").and_then(Json::as_str), persons);
            }
            match answer.get("next_cursor").and_then(Json::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        Ok(seen)
    }

    fn see(&mut self, event_type: &str, extras: &Map<String, Json>, target: Option<&str>, persons: bool) {
        *self.events.entry(event_type.to_owned()).or_default() += 1;
        for key in ["model", "table"] {
            self.models.insert(text(extras, key).to_owned());
        }
        self.models
            .extend(target.and_then(|target| target.strip_prefix("db:")).map(str::to_owned));
        if let Some(site) = extras.get("site").and_then(Json::as_object) {
            self.sites.insert(text(site, "path").to_owned());
        }
        let certain = extras.get("certain").and_then(Json::as_bool).unwrap_or(true);
        self.uncertain += u64::from(event_type == "DATA_STORAGE" && !certain);
        self.without_person +=
            u64::from(event_type == "DATA_COLLECTION" && !persons && text(extras, "owner").is_empty());
        if event_type == "DATA_SHARE" {
            let recipient = text(extras, "recipient");
            self.recipients.insert(recipient.to_owned());
            if extras.get("recipient_declared") == Some(&Json::Bool(false)) {
                *self.undeclared.entry(recipient.to_owned()).or_default() += 1;
            }
            self.unknown_outcomes += u64::from(text(extras, "outcome") == "unknown");
        }
    }

    /// Declared against observed.
    fn compare(&self, status: Option<&Json>, program: &[Entry], config: &Config, findings: &mut Findings) {
        let of = |event_type: &str| self.events.get(event_type).copied().unwrap_or(0);
        if self.events.keys().all(|event_type| event_type == "AUDIT_ACCESS") {
            findings.add(
                Level::Problem,
                "nothing was ever recorded",
                "does main keep the guard of provenance::init() (`let _provenance = ..`, not `let _ = ..`)? Do \
                 attributes stand on models and handlers? Was a request made? --probe finds out",
            );
            return;
        }
        let total: u64 = self.events.values().sum();
        findings.add(Level::Fine, format!("{} recorded", count(total, "event", "events")), "");
        for (recipient, shares) in &self.undeclared {
            if !config.recipients.contains_key(recipient) {
                findings.add(
                    Level::Warning,
                    format!(
                        "recipient {recipient} is undeclared: it got {}",
                        count(*shares, "share", "shares")
                    ),
                    "say in `recipients` who it is: hosts, role, legal_name, country, safeguard",
                );
            }
        }
        for name in config.recipients.keys().filter(|name| !self.recipients.contains(*name)) {
            findings.add(
                Level::Note,
                format!("recipient {name} is declared, and no share with it was observed"),
                "",
            );
        }
        if of("POLICY_VIOLATION") > 0 {
            findings.add(
                Level::Warning,
                format!(
                    "{} of what egress functions allow",
                    count(of("POLICY_VIOLATION"), "violation", "violations")
                ),
                "`provenance-audit export --format jsonl --type POLICY_VIOLATION` lists them",
            );
        }
        if self.unknown_outcomes > 0 {
            findings.add(
                Level::Note,
                format!(
                    "nobody can tell how {} ended",
                    count(self.unknown_outcomes, "share", "shares")
                ),
                "the process ended first, or the client is one that no hook knows",
            );
        }
        if self.without_person > 0 {
            findings.add(
                Level::Note,
                format!(
                    "{} of nobody known: a person's answer misses them",
                    count(self.without_person, "collection is", "collections are")
                ),
                "say whose they are: owner(..) on the type, `owner` of input_fields, or set_owner",
            );
        }
        if self.uncertain > 0 {
            findings.add(
                Level::Note,
                format!(
                    "{} uncertain (certain: false)",
                    count(self.uncertain, "write is", "writes are")
                ),
                "extras.reason says why; the feature sqlite-probe closes most of these gaps for SQLite",
            );
        }
        self.models_unseen(status, program, findings);
        for (kind, what, advice) in [
            (
                "egress",
                "egress function",
                "was it ever called? A helper that calls the client elsewhere is not seen",
            ),
            ("input", "input", "was it ever called?"),
            (
                "derived",
                "derivation",
                "was it ever called, with values that are registered?",
            ),
        ] {
            for entry in program.iter().filter(|entry| entry.kind == kind) {
                if !self.sites.contains(&entry.path) {
                    findings.add(
                        Level::Warning,
                        format!("{what} {} was never seen", place(entry)),
                        advice,
                    );
                }
            }
        }
        if program.is_empty() {
            findings.add(
                Level::Note,
                "egress functions and inputs that were never seen are not listed",
                "name the host's program with --program to compare what it declares",
            );
        }
    }

    /// Models that no write and no load was seen of.
    fn models_unseen(&self, status: Option<&Json>, program: &[Entry], findings: &mut Findings) {
        let mut unseen = BTreeMap::new();
        let declared = status
            .and_then(|status| status.get("tracked_models"))
            .and_then(Json::as_object);
        for (name, model) in declared.into_iter().flatten() {
            let table = model.get("table").and_then(Json::as_str).unwrap_or(name);
            let at = model.get("at").and_then(Json::as_str).unwrap_or_default();
            if !self.models.contains(table) && !self.models.contains(name) {
                unseen.insert(table.to_owned(), format!("{name} ({at})"));
            }
        }
        for entry in program.iter().filter(|entry| entry.kind == "model") {
            let table = text(&entry.rest, "table");
            if !self.models.contains(table) {
                unseen.insert(table.to_owned(), place(entry));
            }
        }
        for (table, model) in unseen {
            findings.add(
                Level::Warning,
                format!("model {model} of table {table} is declared, and no write of it was ever seen"),
                "writes around the model are seen with the feature sql-fallback; a table that only reads needs \
                 access_events to show up",
            );
        }
    }
}

fn place(entry: &Entry) -> String {
    match &entry.at {
        Some(at) => format!("{} ({at})", entry.path),
        None => entry.path.clone(),
    }
}
