//! `provenance-audit doctor`: what is wrong with a host, or missing, in plain words.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use provenance::config::{Fingerprints, Storage};
use provenance::store::Reader;
use provenance::{Config, Tracker};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::hooks::Hook;
use super::host::Host;
use super::output::{self, Done, Failure, Paint, count, listed};
use super::place::{Evidence, Place};
use super::probe::Expected;
use super::seen::Seen;
use super::serve::token;
use super::synthetic::{Person, Probe};
use super::{found, hooks, probe};
use crate::artifact;
use crate::declared::shown;

/// Say what is wrong with a host or its evidence, or missing
///
/// Looks at /status of a running host and at the evidence file, and at what the program declares. With --probe it also
/// sends a synthetic person through routes that you name, says what each hook of the host reported of them, and
/// why nothing was reported where nothing was. What no route reaches cannot be probed from outside.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit doctor                                  # the host that the configuration names (audit.bind)
  provenance-audit doctor --db runtime_provenance.db       # the file alone
  provenance-audit doctor --url http://127.0.0.1:8787 --token-env AUDIT_TOKEN
  provenance-audit doctor --app http://127.0.0.1:8080 \\
      --probe 'POST /signup email={email} name={name} password={word} currency=EUR' \\
      --probe 'POST /newsletter' --expect stored,shared
  provenance-audit doctor --app http://127.0.0.1:8080 --header-env cookie=SESSION --probe 'POST:/expenses date={date} ..'

A probe is METHOD PATH NAME=VALUE..; in a value, {email}, {name}, {phone}, {number}, {date} and {word} stand for the
synthetic person's, {word.a} and {word.b} for different words. `..` adds the other fields that the inventory has for the
route. Values are random, the same in all probes of one run, and never a real person's (example.invalid, 555-01xx
numbers). Cookies that the application sets are sent back, so that a probe may sign up and the next act. THE
APPLICATION TREATS THE REQUESTS AS REAL: it keeps the account, and sends what it sends to its recipients. Remove the
account afterwards.

Exit codes: 0 nothing but notes and warnings; 1 a problem was found (a route that was refused or reported nothing, a
value that --expect names and that is missing, a hook that was reached and missed it; with --every-hook any that was
silent); 2 neither a host nor evidence can be read, or a probe cannot be sent.")]
pub(super) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// Where the host's audit API listens; without it, `audit.bind` of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "db")]
    url: Option<String>,
    /// The environment variable that holds the audit token; without it, the configuration's
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// The host's program; without it, what a running host says of itself
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
    /// A header for each probe, and the environment variable that holds it: cookie=SESSION, authorization=TOKEN
    #[arg(long, value_name = "HEADER=NAME", requires = "probe")]
    header_env: Vec<String>,
    /// What must be reported of the synthetic person; what else is missing is a note
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "collected",
        requires = "probe"
    )]
    expect: Vec<Expected>,
    /// Every declared hook must report the synthetic person
    #[arg(long, requires = "probe")]
    every_hook: bool,
    /// How long to wait for events after a probe
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600),
          requires = "probe")]
    wait: u64,
    /// Erase the synthetic person from the evidence again; takes the service's key and file
    #[arg(long, requires = "probe")]
    clean: bool,
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
        let headers = self.headers()?;
        let host = match self.place.db {
            Some(_) => None,
            None => Some(self.host(&config)?),
        };
        let status = host.as_ref().map(|host| host.get("status"));
        let mut evidence = self.evidence(&config, host.as_ref(), status.as_ref())?;
        match (&host, &status) {
            (Some(host), Some(Err(why))) => {
                let what = format!("the host at {} gives no status: {why}", shown(host.shown()));
                let advice = "is the service running, with provenance_audit::init(), or spawn() after provenance::init()? \
                              With `enabled: false` (RUNTIME_TRACKING_ENABLED) there is no audit server, as no hook does \
                              anything";
                if evidence.is_none() || self.url.is_some() {
                    return Err(Failure::said(format!("{what}\n  {advice}")));
                }
                findings.add(
                    Level::Problem,
                    what,
                    format!("{advice}. What follows is the evidence file's"),
                );
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
        let program = match (&self.program, &host, &status) {
            (Some(path), ..) => {
                artifact::read(path)
                    .map_err(|error| Failure::said(format!("--program: {error}")))?
                    .entries
            }
            (None, Some(host), Some(_)) => hooks::declared(host),
            _ => Vec::new(),
        };
        let (mut hooks, mut left) = (Vec::new(), Findings::default());
        // First: what it leaves is looked at with the rest.
        if let (Some(app), Some(host)) = (&self.app, &host) {
            let Some(status) = &status else {
                return Err(Failure::said(
                    "--probe: the host gives no status, so nothing could be told",
                ));
            };
            let run = probe::Run {
                app,
                host,
                probes,
                sent_as: self.sent_as,
                headers,
                expected: &self.expect,
                every_hook: self.every_hook,
                wait: self.wait,
                declared: &program,
                instance: status.get("instance").and_then(Json::as_str),
            };
            let person = Person::new();
            hooks = run
                .probe(&person, evidence.as_mut(), &mut findings)
                .map_err(Failure::said)?;
            self.leave(&person, evidence.as_ref(), &mut left);
        }
        let seen = match (&mut evidence, &host) {
            (Some(evidence), _) => Seen::in_file(evidence, &mut findings)?,
            (None, Some(host)) => Seen::at(host, &mut findings).map_err(Failure::said)?,
            (None, None) => Seen::default(),
        };
        seen.compare(&config, &mut findings);
        // What a probe says of each hook says more.
        if hooks.is_empty() {
            seen.hooks(status.as_ref(), &program, &mut findings);
        }
        self.write(findings, &hooks, left)
    }

    /// The headers of probes: what they hold is never shown.
    fn headers(&self) -> Result<Vec<(String, String)>, Failure> {
        let each = self.header_env.iter().map(|given| {
            let Some((header, variable)) = given.split_once('=').filter(|(header, _)| !header.is_empty()) else {
                return Err(Failure::said(
                    "--header-env: write HEADER=NAME, such as cookie=SESSION, where NAME is an environment variable",
                ));
            };
            let value = token(variable)
                .map_err(|_| Failure::said(format!("--header-env: {variable} is not set, empty, or not UTF-8")))?;
            Ok((header.to_owned(), value))
        });
        each.collect()
    }

    /// How the synthetic person goes again; and lets them go, if that was asked for.
    fn leave(&self, person: &Person, evidence: Option<&Evidence>, findings: &mut Findings) {
        let email = person.email();
        findings.add(
            Level::Note,
            format!("the synthetic person {email} stays where the application put them"),
            "remove the account in the application",
        );
        let by_hand = |file: &str| {
            format!(
                "then erase them from the evidence: provenance-audit erase --db {file} --owner email:{email} --reason \
                 'synthetic person' --yes"
            )
        };
        if !self.clean {
            let file = evidence.map(|evidence| evidence.config.storage.to_string());
            let what = "the evidence holds the synthetic person, too";
            findings.add(Level::Note, what, by_hand(file.as_deref().unwrap_or("FILE")));
            return;
        }
        match evidence.map(|evidence| erased(evidence, &email)) {
            Some(Ok((events, values))) => findings.add(
                Level::Fine,
                format!(
                    "the synthetic person was erased from {} and {} of the evidence",
                    count(events, "event", "events"),
                    count(values, "value", "values")
                ),
                "",
            ),
            Some(Err(why)) => findings.add(
                Level::Problem,
                format!("--clean: the synthetic person was not erased: {why}"),
                by_hand("FILE"),
            ),
            None => findings.add(
                Level::Problem,
                "--clean: the synthetic person was not erased, as the evidence file is not at hand",
                by_hand("FILE"),
            ),
        }
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

    fn write(&self, mut findings: Findings, hooks: &[Hook], left: Findings) -> Done {
        let (mut out, paint) = (output::out(), Paint::stdout());
        if !self.json {
            for level in [Level::Problem, Level::Warning, Level::Note, Level::Fine] {
                for finding in findings.0.iter().filter(|finding| finding.level == level) {
                    finding.write(&mut out, paint)?;
                }
            }
            write_hooks(&mut out, hooks, paint)?;
            if !left.0.is_empty() {
                writeln!(out)?;
            }
            left.0.iter().try_for_each(|finding| finding.write(&mut out, paint))?;
        }
        findings.0.extend(left.0);
        let number = |level| findings.0.iter().filter(|finding| finding.level == level).count();
        let problems = number(Level::Problem);
        if self.json {
            let mut answer = json!({ "problems": problems, "findings": findings.0 });
            if !self.probe.is_empty()
                && let Some(answer) = answer.as_object_mut()
            {
                answer.insert("hooks".to_owned(), json!(hooks));
            }
            output::json(&mut out, &answer)?;
        } else {
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

impl Finding {
    fn write(&self, out: &mut impl Write, paint: Paint) -> Result<(), Failure> {
        let word = match self.level {
            Level::Problem => paint.red("PROBLEM"),
            Level::Warning => paint.yellow("warning"),
            Level::Note => "note   ".to_owned(),
            Level::Fine => paint.green("fine   "),
        };
        writeln!(out, "{word}  {}", shown(&self.what))?;
        if !self.advice.is_empty() {
            writeln!(out, "         {}", shown(&self.advice))?;
        }
        Ok(())
    }
}

/// Erases a person who never was; gives the numbers of events and values.
fn erased(evidence: &Evidence, email: &str) -> Result<(u64, u64), provenance::Error> {
    // As `erase` does it: a chain of its own, and nothing of the service's own work.
    let tracker = Tracker::open(Config {
        enabled: true,
        service: "provenance-audit".to_owned(),
        max_values: 1,
        tracked_models: Default::default(),
        retention: Default::default(),
        ..evidence.config.clone()
    })?;
    let erased = tracker.erase("email", email, "synthetic person");
    tracker.close();
    erased.map(|erased| (erased.events, erased.values))
}

/// What each hook did with the synthetic person.
fn write_hooks(out: &mut impl Write, hooks: &[Hook], paint: Paint) -> Result<(), Failure> {
    if hooks.is_empty() {
        return Ok(());
    }
    let fired = hooks.iter().filter(|hook| hook.fired).count();
    writeln!(
        out,
        "\n{} of {} reported the synthetic person:",
        fired,
        count(hooks.len() as u64, "declared hook", "declared hooks")
    )?;
    for hook in hooks {
        let word = match hook.fired {
            _ if hook.missed => paint.red("MISSED"),
            true => paint.green("fired "),
            false => paint.yellow("silent"),
        };
        let at = hook.at.as_deref().unwrap_or("?");
        writeln!(
            out,
            "{word}   {} {} ({})",
            hooks::word(&hook.kind),
            shown(&hook.path),
            shown(at)
        )?;
        for (event_type, ids) in &hook.events {
            let some: Vec<String> = ids.iter().take(3).cloned().collect();
            let more = if ids.len() > some.len() { ", .." } else { "" };
            writeln!(
                out,
                "         {event_type} {}: {}{more}",
                ids.len(),
                shown(&listed(&some))
            )?;
        }
        for line in [&hook.why, &hook.advice].into_iter().filter(|line| !line.is_empty()) {
            writeln!(out, "         {}", shown(line))?;
        }
    }
    Ok(())
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
pub(super) type BlindSpots = BTreeMap<String, BTreeMap<String, u64>>;

/// The blind spots that a host tells of.
pub(super) fn blind_spots(status: &Json) -> BlindSpots {
    let mut spots = BlindSpots::new();
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
        "erased_person_met" => (
            "data of somebody who was erased",
            "it is still in the application's own database, or came back",
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
