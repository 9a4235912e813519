//! stub
use super::output::Done;
use clap::Args;
/// stub
#[derive(Args)]
pub(super) struct Doctor {}
impl Doctor {
    pub(super) fn run(self) -> Done {
        super::found()
    }
}
