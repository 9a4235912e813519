//! `provenance-audit`: answers from the evidence, for people and for scripts.

use std::process::ExitCode;

fn main() -> ExitCode {
    provenance_audit::commands::main()
}
