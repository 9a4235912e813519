//! `cargo provenance`: what a build declares about personal data, read from the build itself.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, Parser, Subcommand};
use provenance_audit::inventory_report::{self, Format};
use provenance_audit::{artifact, call_sites, workspace};
use serde_json::Value as Json;

/// Nothing was found that could be read: never to be taken for "nothing is declared".
const NOT_READ: u8 = 2;

#[derive(Parser)]
#[command(name = "cargo provenance", bin_name = "cargo provenance", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Lists every model, input, egress and derivation of a program, without running it
    Inventory(Inventory),
    /// Lists calls of HTTP, mail and cloud clients outside any `#[egress]` function: a list to look at
    Check(Check),
}

#[derive(Args)]
struct Check {
    /// How the list is written
    #[arg(long, value_enum, default_value = "table")]
    format: CheckFormat,
    /// The package's or workspace's Cargo.toml
    #[arg(long, value_name = "FILE")]
    manifest_path: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum CheckFormat {
    /// A line a call, for a terminal
    Table,
    /// An array of objects: file, line, library, call, function
    Json,
}

#[derive(Args)]
struct Inventory {
    /// How the list is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// A program that is built already; without it, cargo builds one
    #[arg(value_name = "PATH", conflicts_with = "Build")]
    path: Option<PathBuf>,
    #[command(flatten)]
    build: Build,
}

/// What is handed on to `cargo build`.
#[derive(Args)]
#[group(multiple = true)]
struct Build {
    /// The program to build, where the package has several
    #[arg(long, value_name = "NAME")]
    bin: Option<String>,
    /// An example to build instead
    #[arg(long, value_name = "NAME", conflicts_with = "bin")]
    example: Option<String>,
    /// Build with optimisations
    #[arg(long, short)]
    release: bool,
    /// Build with this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The package to build
    #[arg(long, short, value_name = "SPEC")]
    package: Option<String>,
    /// Features to activate
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
    let report = match Cli::parse_from(arguments).command {
        Subcommands::Inventory(inventory) => inventory.run(),
        Subcommands::Check(check) => check.run(),
    };
    match report {
        Ok(report) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().lock().write_all(report.as_bytes());
            ExitCode::SUCCESS
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
            None => self.build.program()?,
        };
        let artifact = artifact::read(&path).map_err(|error| error.to_string())?;
        Ok(inventory_report::render(&artifact, self.format))
    }
}

impl Check {
    fn run(self) -> Result<String, String> {
        let mut found = Vec::new();
        for file in workspace::sources(self.manifest_path.as_deref())? {
            let text = std::fs::read_to_string(&file.path)
                .map_err(|error| format!("{}: not readable: {}", file.shown, error.kind()))?;
            match call_sites::find(&file.shown, &text) {
                Ok(sites) => found.extend(sites),
                // A file that no target uses may hold anything.
                Err(reason) => eprintln!("warning: {reason}"),
            }
        }
        Ok(match self.format {
            CheckFormat::Json => serde_json::to_string_pretty(&found).unwrap_or_default() + "\n",
            CheckFormat::Table => call_sites::table(&found),
        })
    }
}

struct Program {
    name: String,
    path: PathBuf,
}

impl Build {
    /// Builds, and names the one program that came of it.
    fn program(&self) -> Result<PathBuf, String> {
        let mut programs = self.run()?;
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

    fn run(&self) -> Result<Vec<Program>, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // Diagnostics go to standard error, as cargo renders them; standard output is ours.
        let output = Command::new(cargo)
            .args(["build", "--message-format=json-render-diagnostics"])
            .args(self.arguments())
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

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let values = [
            ("--bin", &self.bin),
            ("--example", &self.example),
            ("--profile", &self.profile),
            ("--package", &self.package),
            ("--target", &self.target),
        ];
        for (flag, value) in values {
            if let Some(value) = value {
                arguments.extend([flag.into(), value.into()]);
            }
        }
        for features in &self.features {
            arguments.extend(["--features".into(), features.into()]);
        }
        for (flag, path) in [
            ("--target-dir", &self.target_dir),
            ("--manifest-path", &self.manifest_path),
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
