//! The command `provenance-audit`. docs/commands.md says what each subcommand is for.

mod affected;
mod doctor;
mod erase;
mod export;
mod hooks;
mod host;
mod manual;
mod output;
mod people;
mod place;
mod probe;
mod prune;
mod recipients;
mod record;
mod report;
mod seen;
mod serve;
mod subject;
mod synthetic;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use output::{Done, Failure};

/// The command could not answer: what it was asked with, or what it was to read, is not usable.
const CANNOT_TELL: u8 = 2;
/// The command answered, and something is not as it should be.
const FOUND: u8 = 1;

/// Read the evidence that a service keeps of what it does with personal data.
///
/// The file may be in use: reading never blocks the service that writes it. Which file it is, and the key
/// that tells whose records are whose, come from the service's own configuration, or from --db.
#[derive(Parser)]
#[command(name = "provenance-audit", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes:
  0  answered
  1  answered, and something is not as it should be: a broken chain, a problem that `doctor` found,
     lines that `affected` could not read
  2  no answer: wrong arguments, or evidence or a key that cannot be read

Colours and progress bars go to terminals only; NO_COLOR=1 keeps colours out there, too.")]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    Serve(serve::Serve),
    Verify(verify::Verify),
    Key(verify::Key),
    Subject(subject::SubjectArgs),
    Affected(affected::Affected),
    Recipients(recipients::Recipients),
    Report(report::Report),
    Export(export::Export),
    Doctor(doctor::Doctor),
    Erase(erase::Erase),
    Prune(prune::Prune),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Runs the command with the arguments of this process.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Commands::Serve(serve) => serve.run(),
        Commands::Verify(verify) => verify.run(),
        Commands::Key(key) => key.run(),
        Commands::Subject(subject) => subject.run(),
        Commands::Affected(affected) => affected.run(),
        Commands::Recipients(recipients) => recipients.run(),
        Commands::Report(report) => report.run(),
        Commands::Export(export) => export.run(),
        Commands::Doctor(doctor) => doctor.run(),
        Commands::Erase(erase) => erase.run().map_err(|error| Failure::said(error.to_string())),
        Commands::Prune(prune) => prune.run().map_err(|error| Failure::said(error.to_string())),
        Commands::Completions(completions) => completions.run(Cli::command()),
        Commands::Man(man) => man.run(Cli::command()),
    };
    match done {
        Ok(code) => code,
        // A reader that has seen enough (`| head`) is no failure.
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Said(message)) => {
            eprintln!("{} {message}", output::Paint::stderr().red("provenance-audit:"));
            ExitCode::from(CANNOT_TELL)
        }
    }
}

fn found() -> Done {
    Ok(ExitCode::from(FOUND))
}
