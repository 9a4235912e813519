//! `provenance-audit verify` and `key`: evidence against itself, and against checkpoints kept elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::output::{self, Done, Failure};
use super::place::Place;
use provenance::checkpoint::{Checkpoint, Difference, PublicKey};
use provenance::store::{Problem, Reader, Verified};
use serde::Serialize;

/// Something does not hold.
const BROKEN: u8 = 1;
/// Something could not be checked, and nothing was found that does not hold.
const CANNOT_TELL: u8 = 2;
/// Longest line that is read as a checkpoint.
const MAX_LINE: u64 = 4096;
/// Most problems of checkpoints that are listed; more are counted.
const MAX_PROBLEMS: usize = 20;

/// What stands below the help of `verify`.
const HELP: &str = "Examples:
  provenance-audit verify --db runtime_provenance.db
  provenance-audit verify --db runtime_provenance.db --checkpoint /mnt/elsewhere/checkpoints.jsonl --public-key signing.pub

The public key is on /status of a service that writes checkpoints, or printed from the key file:
  provenance-audit key runtime_provenance.db.signing-key
Note it when the service is set up: whoever can replace the checkpoints can sign them with another key.

Exit codes: 0 everything holds; 1 something does not: the evidence, a checkpoint's signature, or the two differ;
2 something could not be checked: a file that cannot be read, or is no evidence, no checkpoint, no key.";

/// Check that the evidence was not changed since it was written
///
/// Recomputes every hash chain, without any key. Cutting off the newest events, or rewriting all of them,
/// leaves a chain that holds by itself: compare it with checkpoints that were kept elsewhere.
#[derive(Args)]
#[command(after_help = HELP)]
pub(super) struct Verify {
    #[command(flatten)]
    place: Place,
    /// Checkpoints that the evidence must agree with, a line each; may be given several times.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The key that must have signed every checkpoint: 64 hex digits, or a PEM file; several may be given.
    ///
    /// Without it, each checkpoint is checked with the key that it names itself, and the keys are printed.
    #[arg(long, value_name = "FILE|HEX", requires = "checkpoint")]
    public_key: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Print the public half of a key that signs checkpoints, for `verify --public-key`
#[derive(Args)]
pub(super) struct Key {
    /// The file of a signing key, or of a public key.
    file: PathBuf,
    /// Print PEM, as openssl reads it, instead of 64 hex digits.
    #[arg(long)]
    pem: bool,
}

impl Key {
    /// Prints the public half.
    ///
    /// # Errors
    /// The file cannot be read, or holds no such key.
    pub(super) fn run(&self) -> Done {
        let key = PublicKey::load(&self.file)?;
        let text = if self.pem { key.to_pem() } else { format!("{key}\n") };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What was found, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    /// `holds`, `does not hold` or `could not be checked`.
    result: &'static str,
    #[serde(flatten)]
    evidence: Verified,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints: Option<Checkpoints>,
}

/// What the checkpoints say.
#[derive(Default, Serialize)]
struct Checkpoints {
    /// Checkpoints that are signed, and that the evidence agrees with.
    agree: u64,
    /// The newest batch of each instance that they vouch for.
    newest: HashMap<String, Newest>,
    /// The keys that signed them.
    public_keys: BTreeSet<String>,
    /// Whether these were compared with keys that were given.
    public_keys_given: bool,
    problems: Vec<CheckpointProblem>,
    /// Problems beyond those listed.
    further_problems: u64,
    /// Lines that a crash of the writer left unfinished.
    unfinished: u64,
    /// Why some line, or file, could not be checked.
    unchecked: Vec<String>,
}

#[derive(Serialize)]
struct Newest {
    batch: i64,
    last_seq: i64,
    time: String,
}

#[derive(Serialize)]
struct CheckpointProblem {
    /// `FILE:LINE`.
    checkpoint: String,
    event_id: Option<String>,
    what: String,
    /// A batch that the evidence lacks: how much it has is told once that is known.
    #[serde(skip)]
    missing: Option<(String, i64)>,
}

impl Verify {
    /// Checks, and prints what was found.
    ///
    /// # Errors
    /// What could not be read: nothing is known then.
    pub(super) fn run(self) -> Done {
        let report = self.report();
        let mut out = std::io::stdout();
        match report {
            Ok(report) => {
                match self.json {
                    true => output::json(&mut out, &report)?,
                    false => report.print(&mut out)?,
                }
                Ok(report.code())
            }
            Err(error) if self.json => {
                let report = serde_json::json!({ "result": UNCHECKED, "error": error.to_string() });
                writeln!(out, "{report:#}")?;
                Ok(ExitCode::from(CANNOT_TELL))
            }
            Err(error) => Err(Failure::said(error.to_string())),
        }
    }

    fn report(&self) -> Result<Report, Box<dyn std::error::Error>> {
        let keys = self
            .public_key
            .iter()
            .map(|key| given(key))
            .collect::<Result<Vec<_>, _>>()?;
        let mut reader = Reader::connect(&self.place.storage().map_err(|failure| failure.to_string())?)?;
        // The chain afterwards: what a service writes meanwhile, and what its checkpoints say, is then checked too.
        let mut checkpoints = (!self.checkpoint.is_empty()).then(Checkpoints::default);
        if let Some(checkpoints) = &mut checkpoints {
            checkpoints.public_keys_given = !keys.is_empty();
            for file in &self.checkpoint {
                checkpoints.read(file, &keys, &mut reader)?;
            }
        }
        let evidence = reader.verify()?;
        if let Some(checkpoints) = &mut checkpoints {
            checkpoints.measure(&evidence);
        }
        let found = checkpoints.as_ref();
        let broken = !evidence.is_ok() || found.is_some_and(|found| !found.problems.is_empty());
        let result = match broken {
            true => DIFFERS,
            false if found.is_some_and(|found| !found.unchecked.is_empty()) => UNCHECKED,
            false => HOLDS,
        };
        Ok(Report {
            result,
            evidence,
            checkpoints,
        })
    }
}

const HOLDS: &str = "holds";
const DIFFERS: &str = "does not hold";
const UNCHECKED: &str = "could not be checked";

fn given(key: &str) -> Result<PublicKey, provenance::Error> {
    match PublicKey::parse(key) {
        Some(key) => Ok(key),
        None => PublicKey::load(Path::new(key)),
    }
}

impl Checkpoints {
    fn read(&mut self, file: &Path, keys: &[PublicKey], reader: &mut Reader) -> Result<(), provenance::Error> {
        let shown = file.display();
        let opened = match File::open(file) {
            Ok(opened) => opened,
            Err(error) => {
                self.unchecked
                    .push(format!("{shown}: cannot be read: {}", error.kind()));
                return Ok(());
            }
        };
        let mut lines = BufReader::new(opened);
        let (mut line, mut number, mut any) = (Vec::new(), 0_u64, false);
        loop {
            line.clear();
            number += 1;
            let at = format!("{shown}:{number}");
            match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") => {
                    self.unchecked.push(format!("{at}: too long for a checkpoint"));
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    self.unchecked.push(format!("{at}: cannot be read: {}", error.kind()));
                    break;
                }
            }
            let text = String::from_utf8_lossy(&line);
            match Checkpoint::parse(&text) {
                _ if text.trim().is_empty() => {}
                Some(checkpoint) => {
                    any = true;
                    self.take(at, &checkpoint, keys, reader)?;
                }
                None if is_unfinished(&text) => self.unfinished += 1,
                None if self.unchecked.len() < MAX_PROBLEMS => self.unchecked.push(format!("{at}: not a checkpoint")),
                None => {}
            }
        }
        if !any && self.unchecked.len() < MAX_PROBLEMS {
            self.unchecked.push(format!("{shown}: holds no checkpoint"));
        }
        Ok(())
    }

    fn take(
        &mut self,
        at: String,
        checkpoint: &Checkpoint,
        keys: &[PublicKey],
        reader: &mut Reader,
    ) -> Result<(), provenance::Error> {
        let Checkpoint {
            instance,
            batch,
            last_seq,
            time,
            public_key,
            ..
        } = checkpoint;
        if !checkpoint.is_signed() {
            self.problem(
                at,
                None,
                "the signature is wrong: the checkpoint was changed".to_owned(),
                None,
            );
            return Ok(());
        }
        if !keys.is_empty() && !keys.contains(public_key) {
            self.problem(at, None, format!("signed with another key: {public_key}"), None);
            return Ok(());
        }
        self.public_keys.insert(public_key.to_string());
        let last = format!("{instance}-{last_seq}");
        match checkpoint.compare(reader)? {
            None => {
                self.agree += 1;
                let newest = self.newest.entry(instance.clone()).or_insert_with(|| Newest {
                    batch: 0,
                    last_seq: 0,
                    time: String::new(),
                });
                if newest.batch < *batch {
                    *newest = Newest {
                        batch: *batch,
                        last_seq: *last_seq,
                        time: time.clone(),
                    };
                }
            }
            Some(Difference::OtherChain) => {
                let since = self
                    .newest
                    .get(instance)
                    .map_or(0, |newest| newest.last_seq)
                    .min(last_seq - 1);
                self.problem(
                    at,
                    Some(format!("{instance}-{}", since + 1)),
                    format!(
                        "batch {batch} has another chain than it had at {time}: between event {instance}-{} and {last} \
                         the evidence was changed, and its chain computed anew",
                        since + 1
                    ),
                    None,
                );
            }
            Some(Difference::BatchMissing) => {
                let what = format!("batch {batch}, which was there at {time}, is missing, with its last event {last}");
                self.problem(at, Some(last), what, Some((instance.clone(), *batch)));
            }
            Some(Difference::InstanceMissing) => {
                let what = format!("all events of instance {instance}, which were there at {time}, are missing");
                self.problem(at, Some(format!("{instance}-1")), what, None);
            }
        }
        Ok(())
    }

    fn problem(&mut self, checkpoint: String, event_id: Option<String>, what: String, missing: Option<(String, i64)>) {
        if self.problems.len() == MAX_PROBLEMS {
            self.further_problems += 1;
            return;
        }
        self.problems.push(CheckpointProblem {
            checkpoint,
            event_id,
            what,
            missing,
        });
    }

    /// Says of missing batches where the evidence ends.
    fn measure(&mut self, evidence: &Verified) {
        for problem in &mut self.problems {
            let Some((instance, batch)) = &problem.missing else {
                continue;
            };
            let held = evidence.instances.iter().find(|one| one.instance == *instance);
            if let Some(held) = held.filter(|held| held.problem.is_none() && held.batches < *batch) {
                problem.what.push_str(&format!(
                    "; the evidence ends with batch {}: its tail was cut off",
                    held.batches
                ));
            }
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        for problem in &self.problems {
            writeln!(out, "{}: BROKEN: {}", problem.checkpoint, problem.what)?;
        }
        if self.further_problems > 0 {
            writeln!(out, "BROKEN: {} more checkpoints", self.further_problems)?;
        }
        for reason in &self.unchecked {
            writeln!(out, "not checked: {reason}")?;
        }
        if self.unfinished > 0 {
            writeln!(out, "unfinished lines, passed over: {}", self.unfinished)?;
        }
        writeln!(out, "checkpoints that agree: {}", self.agree)?;
        let mut newest: Vec<_> = self.newest.iter().collect();
        newest.sort_by(|one, other| one.1.time.cmp(&other.1.time));
        for (instance, newest) in newest {
            writeln!(
                out,
                "{instance}: as signed at {} up to event {instance}-{} (batch {})",
                newest.time, newest.last_seq, newest.batch
            )?;
        }
        for key in &self.public_keys {
            match self.public_keys_given {
                true => writeln!(out, "signed with the given key {key}")?,
                false => writeln!(
                    out,
                    "signed with the key {key}: not compared with one that you noted (--public-key)"
                )?,
            }
        }
        Ok(())
    }
}

/// Whether a line is the beginning of a checkpoint: its writer was killed, or its disk full.
fn is_unfinished(line: &str) -> bool {
    let parsed = serde_json::from_str::<serde_json::Value>(line.trim());
    line.starts_with('{') && parsed.is_err_and(|error| error.is_eof())
}

impl Report {
    fn code(&self) -> ExitCode {
        match self.result {
            HOLDS => ExitCode::SUCCESS,
            DIFFERS => ExitCode::from(BROKEN),
            _ => ExitCode::from(CANNOT_TELL),
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        for instance in &self.evidence.instances {
            let held = format!("{} events in {} batches hold", instance.events, instance.batches);
            match &instance.problem {
                None => writeln!(out, "{}: {held}, head {}", instance.instance, instance.head)?,
                Some(problem) => writeln!(
                    out,
                    "{}: BROKEN: {}; before it {held}",
                    instance.instance,
                    shown(problem)
                )?,
            }
        }
        if let Some(problem) = &self.evidence.problem {
            writeln!(out, "BROKEN: {}", shown(problem))?;
        }
        if self.evidence.instances.is_empty() {
            writeln!(out, "no evidence yet")?;
        }
        match &self.checkpoints {
            Some(checkpoints) => checkpoints.print(out),
            None => Ok(()),
        }
    }
}

fn shown(problem: &Problem) -> String {
    match &problem.event_id {
        Some(event) => format!("event {event}: {}", problem.what),
        None => problem.what.to_owned(),
    }
}
