//! `provenance-audit completions` and `provenance-audit man`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};

use super::output::{self, Done, Failure};

/// Write the completions of a shell
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit completions bash > ~/.local/share/bash-completion/completions/provenance-audit
  provenance-audit completions zsh > ~/.zfunc/_provenance-audit
  provenance-audit completions fish > ~/.config/fish/completions/provenance-audit.fish")]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the manual page
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit man | man -l -
  provenance-audit man --dir /usr/local/share/man/man1   # a page for each subcommand, too")]
pub(super) struct Man {
    /// Write a page for the command and for each subcommand into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> Done {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        // Into memory first: the generator panics where it cannot write.
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "provenance-audit", &mut text);
        written(&text)
    }
}

impl Man {
    pub(super) fn run(self, command: Command) -> Done {
        let Some(dir) = self.dir else {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            return written(&text);
        };
        clap_mangen::generate_to(command, &dir)
            .map_err(|error| Failure::said(format!("--dir: {}: {}", dir.display(), error.kind())))?;
        Ok(std::process::ExitCode::SUCCESS)
    }
}

fn written(text: &[u8]) -> Done {
    let mut out = output::out();
    out.write_all(text)?;
    output::finish(out)
}
