//! `provenance-audit verify`.

use std::io::Write;

use clap::Args;
use provenance::store::{Problem, Reader};

use super::found;
use super::output::{self, Done, Paint};
use super::place::Place;

/// Check that the evidence was not changed since it was written
///
/// Recomputes every hash chain; needs no key. Cutting off the newest events, or rewriting all of them, leaves a
/// chain that holds: compare its head with one that was noted elsewhere.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit verify --db runtime_provenance.db
  provenance-audit verify --db runtime_provenance.db --json > heads.json   # to be kept elsewhere

Exit codes: 0 every chain holds, 1 one is broken, 2 cannot tell.")]
pub(super) struct Verify {
    #[command(flatten)]
    place: Place,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Done {
        let mut reader = Reader::open(&self.place.path()?)?;
        let bar = output::progress("checking the chains");
        let verified = reader.verify()?;
        bar.finish_and_clear();
        let (mut out, paint) = (output::out(), Paint::stdout());
        if self.json {
            let answer = serde_json::json!({
                "ok": verified.is_ok(),
                "instances": verified.instances,
                "problem": verified.problem,
            });
            output::json(&mut out, &answer)?;
        } else {
            for instance in &verified.instances {
                let held = format!("{} events in {} batches hold", instance.events, instance.batches);
                match &instance.problem {
                    None => writeln!(out, "{}: {held}, head {}", instance.instance, instance.head)?,
                    Some(problem) => writeln!(
                        out,
                        "{}: {}: {}; before it {held}",
                        instance.instance,
                        paint.red("BROKEN"),
                        shown(problem)
                    )?,
                }
            }
            if let Some(problem) = &verified.problem {
                writeln!(out, "{}: {}", paint.red("BROKEN"), shown(problem))?;
            }
            if verified.instances.is_empty() {
                writeln!(out, "no evidence yet")?;
            }
        }
        let done = output::finish(out)?;
        if verified.is_ok() { Ok(done) } else { found() }
    }
}

fn shown(problem: &Problem) -> String {
    match &problem.event_id {
        Some(event) => format!("event {event}: {}", problem.what),
        None => problem.what.to_owned(),
    }
}
