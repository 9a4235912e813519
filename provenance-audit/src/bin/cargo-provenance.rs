//! `cargo provenance`: what a build declares about personal data, read from the build itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, Parser, Subcommand, ValueEnum};
use provenance_audit::check_report::{self, Report};
use provenance_audit::lockfile::{self, Lock};
use provenance_audit::workspace::{FieldLines, Settings, Workspace};
use provenance_audit::{artifact, call_sites, declared, inventory_report};
use serde_json::Value as Json;

/// The builds are not what the lock says.
const DRIFT: u8 = 1;

/// Nothing was found that could be read: never to be taken for "nothing is declared".
const NOT_READ: u8 = 2;

/// Most bytes of a source file that is searched for a field's line.
const MAX_SOURCE: u64 = 8 << 20;

const SETTINGS: &str = "\
Cargo.toml may say which programs are meant, and how they are built:
  [workspace.metadata.provenance]      # or [package.metadata.provenance]
  binaries = [\"crm\", \"worker\"]
  features = [\"loyalty\"]
  profile = \"release\"";

#[derive(Parser)]
#[command(
    name = "cargo provenance",
    bin_name = "cargo provenance",
    version,
    about = "What a build declares of personal data, read from the build itself"
)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Lists every model, input, egress and derivation of a program, without running it
    Inventory(Inventory),
    /// Writes provenance.lock: what the programs declare, to be committed and reviewed like code
    Lock(Locking),
    /// Compares the programs with provenance.lock, and lists calls of HTTP, mail and cloud clients outside `#[egress]`
    Check(Check),
}

#[derive(Args)]
#[command(after_help = format!("\
Examples:
  cargo provenance inventory
  cargo provenance inventory --bin crm --format html > inventory.html
  cargo provenance inventory target/release/crm --json

{SETTINGS}

Exit codes: 0 read, 2 not read (no inventory in the file, or no file)"))]
struct Inventory {
    /// How the list is written
    #[arg(long, value_enum, default_value = "table")]
    format: inventory_report::Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// A program that is built already; without it, cargo builds one
    #[arg(value_name = "PATH", conflicts_with_all = ["Selection", "Build"])]
    path: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    build: Build,
}

#[derive(Args)]
#[command(after_help = format!("\
Examples:
  cargo provenance lock
  cargo provenance lock --features loyalty
  cargo provenance lock target/release/crm target/release/worker

{SETTINGS}

Exit codes: 0 provenance.lock says what the programs declare, 2 nothing was written (no build, or a program
without an inventory)"))]
struct Locking {
    /// How the changes to the file are written
    #[arg(long, value_enum, default_value = "text")]
    format: check_report::Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Args)]
#[command(after_help = format!("\
Examples:
  cargo provenance check
  cargo provenance check --format github         # annotations on the lines of a pull request
  cargo provenance check --format markdown >> \"$GITHUB_STEP_SUMMARY\"
  cargo provenance check --deny unknown-keys --deny calls
  cargo provenance check --source-only           # only the list of calls: builds nothing

{SETTINGS}

Exit codes:
  0  the programs declare what provenance.lock says (with --source-only: the source was read)
  1  drift: something is new, lost, changed or renamed; or found, where --deny forbids it
  2  cannot tell: no provenance.lock, no build, a program without an inventory. Wins over 1

Calls outside #[egress] and keys that the taxonomy does not have are listed; alone they do not change the
exit code, unless --deny names them. The calls are read from the source and are a list to look at."))]
struct Check {
    /// How the report is written
    #[arg(long, value_enum, default_value = "text")]
    format: check_report::Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// What else makes the exit code 1
    #[arg(long, value_enum, value_name = "WHAT")]
    deny: Vec<Deny>,
    /// Only the calls outside `#[egress]`, from the source: builds and compares nothing
    #[arg(long, conflicts_with = "path")]
    source_only: bool,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deny {
    /// Calls outside any `#[egress]` function
    Calls,
    /// Categories, data uses and subjects that the taxonomy does not have
    UnknownKeys,
}

/// Programs to read together.
#[derive(Args)]
struct Programs {
    /// Programs that are built already; without them, cargo builds those that Cargo.toml names, or all
    #[arg(value_name = "PATH")]
    path: Vec<PathBuf>,
    #[command(flatten)]
    build: Build,
}

/// Which program to build.
#[derive(Args)]
#[group(multiple = true)]
struct Selection {
    /// The program to build, where the package has several
    #[arg(long, value_name = "NAME")]
    bin: Option<String>,
    /// An example to build instead
    #[arg(long, value_name = "NAME", conflicts_with = "bin")]
    example: Option<String>,
    /// The package to build
    #[arg(long, short, value_name = "SPEC")]
    package: Option<String>,
}

/// How to build: handed on to `cargo build`.
#[derive(Args)]
#[group(multiple = true)]
struct Build {
    /// Build with optimisations
    #[arg(long, short)]
    release: bool,
    /// Build with this profile
    #[arg(long, value_name = "NAME", conflicts_with = "release")]
    profile: Option<String>,
    /// Features to activate, besides those that Cargo.toml names
    #[arg(long, short = 'F')]
    features: Vec<String>,
    /// Activate all features
    #[arg(long)]
    all_features: bool,
    /// Leave out the default features
    #[arg(long)]
    no_default_features: bool,
    /// Build for this target
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Where cargo puts what it builds
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// The package's or workspace's Cargo.toml
    #[arg(long, value_name = "FILE")]
    manifest_path: Option<PathBuf>,
    /// Cargo.lock must not change
    #[arg(long)]
    locked: bool,
    /// No network
    #[arg(long)]
    offline: bool,
}

fn main() -> ExitCode {
    // As a cargo subcommand, the first argument is the subcommand's own name.
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|argument| argument == "provenance") {
        arguments.remove(1);
    }
    let outcome = match Cli::parse_from(arguments).command {
        Subcommands::Inventory(inventory) => inventory.run().map(|report| (report, 0)),
        Subcommands::Lock(lock) => lock.run().map(|report| (report, 0)),
        Subcommands::Check(check) => check.run(),
    };
    match outcome {
        Ok((report, code)) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().lock().write_all(report.as_bytes());
            ExitCode::from(code)
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(NOT_READ)
        }
    }
}

impl Inventory {
    fn run(self) -> Result<String, String> {
        let path = match self.path {
            Some(path) => path,
            None => self.build.program(&self.selection)?,
        };
        let artifact = artifact::read(&path).map_err(|error| error.to_string())?;
        let format = if self.json {
            inventory_report::Format::Json
        } else {
            self.format
        };
        Ok(inventory_report::render(&artifact, format))
    }
}

impl Locking {
    fn run(self) -> Result<String, String> {
        let workspace = Workspace::read(self.programs.build.manifest_path.as_deref())?;
        let mut report = report_of(&workspace);
        let (now, problems) = self.programs.read(&workspace, &mut report)?;
        if !problems.is_empty() {
            return Err(problems.join("\nerror: "));
        }
        let path = workspace.root().join(lockfile::FILE);
        let failed = |error: std::io::Error| format!("{}: {}", lockfile::FILE, error.kind());
        let before = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        // One that cannot be read (a merge's marks, an older format) is written anew.
        let locked = Lock::parse(&before).unwrap_or_default();
        let text = now.text();
        if text != before {
            std::fs::write(&path, &text).map_err(failed)?;
        }
        report.changes = lockfile::compare(&locked, &now);
        refine(&workspace, &mut report);
        report.now = Some(now);
        report.written = Some(text != before);
        let format = if self.json {
            check_report::Format::Json
        } else {
            self.format
        };
        Ok(report.render(format, colours()))
    }
}

impl Check {
    fn run(self) -> Result<(String, u8), String> {
        let workspace = Workspace::read(self.programs.build.manifest_path.as_deref())?;
        let mut report = report_of(&workspace);
        report.calls = Some(calls(&workspace)?);
        if !self.source_only {
            match self.compare(&workspace, &mut report) {
                Ok(()) => refine(&workspace, &mut report),
                Err(problem) => report.problems.push(problem),
            }
        }
        let denied = |what| self.deny.contains(&what);
        let code = if !report.problems.is_empty() {
            NOT_READ
        } else if !report.changes.is_empty()
            || (denied(Deny::Calls) && report.calls.as_ref().is_some_and(|calls| !calls.is_empty()))
            || (denied(Deny::UnknownKeys) && !report.unknown_keys.is_empty())
        {
            DRIFT
        } else {
            0
        };
        let format = if self.json {
            check_report::Format::Json
        } else {
            self.format
        };
        Ok((report.render(format, colours()), code))
    }

    fn compare(&self, workspace: &Workspace, report: &mut Report) -> Result<(), String> {
        let file = std::fs::read_to_string(workspace.root().join(lockfile::FILE));
        // Before anything is built: that may take minutes.
        let locked = match file {
            Ok(text) => Lock::parse(&text).map_err(|why| format!("{}: {why}", lockfile::FILE))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!(
                    "there is no {}: write it with `cargo provenance lock`, and commit it",
                    lockfile::FILE
                ));
            }
            Err(error) => return Err(format!("{}: {}", lockfile::FILE, error.kind())),
        };
        let (now, problems) = self.programs.read(workspace, report)?;
        report.changes = lockfile::compare(&locked, &now);
        report.problems = problems;
        report.now = Some(now);
        Ok(())
    }
}

fn report_of(workspace: &Workspace) -> Report {
    Report {
        packages: workspace.package_names().map(str::to_owned).collect(),
        within_repository: workspace.within_repository(),
        ..Report::default()
    }
}

/// Calls of client libraries outside `#[egress]`, in every source file that ships.
fn calls(workspace: &Workspace) -> Result<Vec<call_sites::CallSite>, String> {
    let mut found = Vec::new();
    for file in workspace.sources()? {
        let text = std::fs::read_to_string(&file.path)
            .map_err(|error| format!("{}: not readable: {}", file.shown, error.kind()))?;
        match call_sites::find(&file.shown, &text) {
            Ok(sites) => found.extend(sites),
            // A file that no target uses may hold anything.
            Err(reason) => eprintln!("warning: {reason}"),
        }
    }
    Ok(found)
}

/// Attributes name the line that they stand on; a field has one of its own.
fn refine(workspace: &Workspace, report: &mut Report) {
    let mut sources: BTreeMap<String, FieldLines> = BTreeMap::new();
    let ours = report.packages.clone();
    let mut line = |file: &Option<String>, package: &Option<String>, line: &mut Option<usize>, field: &str| {
        if let (Some(file), Some(package), Some(at)) = (file, package, *line)
            && ours.contains(package)
        {
            let read = || source(workspace.root(), file).map(|text| FieldLines::of(&text));
            let lines = sources
                .entry(file.clone())
                .or_insert_with(|| read().unwrap_or_default());
            *line = lines.line(at, field).or(*line);
        }
    };
    for change in &mut report.changes {
        if change.kind == lockfile::Kind::Field
            && let Some((_, field)) = change.path.rsplit_once('.')
        {
            line(&change.place.file, &change.place.package, &mut change.place.line, field);
        }
    }
    for unknown in &mut report.unknown_keys {
        if let Some(field) = &unknown.field {
            line(&unknown.file, &unknown.package, &mut unknown.line, field);
        }
    }
    lockfile::sort(&mut report.changes);
    report.unknown_keys.sort();
}

/// A source file that an inventory names: only one below the workspace.
fn source(root: &Path, file: &str) -> Option<String> {
    let path = root.join(file).canonicalize().ok()?;
    let is_below = path.starts_with(root.canonicalize().ok()?);
    let is_file = path
        .metadata()
        .is_ok_and(|file| file.is_file() && file.len() <= MAX_SOURCE);
    (is_below && is_file).then(|| std::fs::read_to_string(path).ok())?
}

/// On a terminal, unless `NO_COLOR` says otherwise.
fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Programs {
    /// What the programs declare, and why some of them could not be read.
    fn read(&self, workspace: &Workspace, report: &mut Report) -> Result<(Lock, Vec<String>), String> {
        let paths: Vec<PathBuf> = match &*self.path {
            [] => {
                let settings = workspace.settings()?;
                // The lock is the workspace's, wherever the command is called.
                let manifest = workspace.root().join("Cargo.toml");
                let built = self
                    .build
                    .run(workspace, &settings, &Selection::none(), Some(&manifest))?;
                built.into_iter().map(|program| program.path).collect()
            }
            paths => paths.to_vec(),
        };
        if paths.is_empty() {
            return Err("the build makes no program; inventories are read from linked programs".to_owned());
        }
        let (mut lock, mut problems) = (Lock::default(), Vec::new());
        for path in &paths {
            match artifact::read(path) {
                Ok(artifact) if lock.programs().any(|program| program == artifact.program) => {
                    problems.push(format!("two programs are called `{}`", artifact.program));
                }
                Ok(artifact) => {
                    lock.add(&artifact.program, &artifact.entries);
                    report.unknown_keys.extend(declared::unknown_keys(&artifact.entries));
                }
                Err(error) if error.is_absent() && self.path.is_empty() => problems.push(format!(
                    "{error}. If it is not meant, name those that are: `binaries = [..]` in [workspace.metadata.provenance]"
                )),
                Err(error) => problems.push(error.to_string()),
            }
        }
        report.unknown_keys.sort();
        report.unknown_keys.dedup();
        Ok((lock, problems))
    }
}

impl Selection {
    /// No program in particular: what the settings name, or all.
    fn none() -> Self {
        Selection {
            bin: None,
            example: None,
            package: None,
        }
    }

    fn is_none(&self) -> bool {
        self.bin.is_none() && self.example.is_none() && self.package.is_none()
    }

    fn arguments(&self, settings: &Settings) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut say = |flag: &str, value: &str| arguments.extend([flag.into(), value.into()]);
        if self.is_none() {
            settings.packages.iter().for_each(|package| say("--package", package));
            settings.binaries.iter().for_each(|binary| say("--bin", binary));
        }
        let values = [
            ("--bin", &self.bin),
            ("--example", &self.example),
            ("--package", &self.package),
        ];
        for (flag, value) in values {
            if let Some(value) = value {
                say(flag, value);
            }
        }
        arguments
    }
}

struct Program {
    name: String,
    path: PathBuf,
}

impl Build {
    /// Builds, and names the one program that came of it.
    fn program(&self, selection: &Selection) -> Result<PathBuf, String> {
        let workspace = Workspace::read(self.manifest_path.as_deref())?;
        let manifest = self.manifest_path.as_deref();
        let mut programs = self.run(&workspace, &workspace.settings()?, selection, manifest)?;
        match (programs.pop(), programs.is_empty()) {
            (Some(program), true) => Ok(program.path),
            (Some(last), false) => {
                programs.push(last);
                let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
                Err(format!(
                    "the build makes several programs; choose one with --bin NAME (and -p PACKAGE where two have \
                     the same name): {}",
                    names.join(", ")
                ))
            }
            (None, _) => Err("the build makes no program; inventories are read from linked programs".to_owned()),
        }
    }

    fn run(
        &self,
        workspace: &Workspace,
        settings: &Settings,
        selection: &Selection,
        manifest: Option<&Path>,
    ) -> Result<Vec<Program>, String> {
        let packages = match &selection.package {
            Some(package) => vec![package.clone()],
            None if selection.is_none() && !settings.packages.is_empty() => settings.packages.clone(),
            None => workspace.default_packages(manifest),
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // Diagnostics go to standard error, as cargo renders them; standard output is ours.
        let output = Command::new(cargo)
            .args(["build", "--message-format=json-render-diagnostics"])
            .args(selection.arguments(settings))
            .args(self.arguments(settings, &packages, manifest))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cargo does not start: {}", error.kind()))?;
        if !output.status.success() {
            return Err("cargo build failed; its reasons stand above".to_owned());
        }
        let mut programs: Vec<Program> = output.stdout.split(|byte| *byte == b'\n').filter_map(program).collect();
        programs.sort_by(|one, other| (&one.name, &one.path).cmp(&(&other.name, &other.path)));
        programs.dedup_by(|one, other| one.path == other.path);
        Ok(programs)
    }

    fn arguments(&self, settings: &Settings, packages: &[String], manifest: Option<&Path>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let profile = self
            .profile
            .as_ref()
            .or(settings.profile.as_ref().filter(|_| !self.release));
        for (flag, value) in [("--profile", profile), ("--target", self.target.as_ref())] {
            if let Some(value) = value {
                arguments.extend([flag.into(), value.into()]);
            }
        }
        for features in settings.features_of(packages).iter().chain(&self.features) {
            arguments.extend(["--features".into(), features.into()]);
        }
        for (flag, path) in [
            ("--target-dir", self.target_dir.as_deref()),
            ("--manifest-path", manifest),
        ] {
            if let Some(path) = path {
                arguments.extend([flag.into(), path.into()]);
            }
        }
        let switches = [
            ("--release", self.release),
            ("--all-features", self.all_features),
            ("--no-default-features", self.no_default_features),
            ("--locked", self.locked),
            ("--offline", self.offline),
        ];
        arguments.extend(
            switches
                .iter()
                .filter(|(_, on)| *on)
                .map(|(flag, _)| OsString::from(flag)),
        );
        arguments
    }
}

/// The program that one of cargo's messages names, if it names one. Build scripts are run, not shipped.
fn program(message: &[u8]) -> Option<Program> {
    let message: Json = serde_json::from_slice(message).ok()?;
    let target = message.get("target")?;
    let kinds = target.get("kind")?.as_array()?;
    let ships = kinds
        .iter()
        .filter_map(Json::as_str)
        .any(|kind| matches!(kind, "bin" | "example"));
    (ships && message.get("reason")? == "compiler-artifact").then_some(())?;
    Some(Program {
        name: target.get("name")?.as_str()?.to_owned(),
        path: message.get("executable")?.as_str()?.into(),
    })
}
