//! The field inventory that every build carries: see INVENTORY.md for the format.

/// Hash of this binary's inventory: names the build on every event.
pub(crate) fn build_hash() -> String {
    String::new()
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {}

/// The entries of this binary.
pub fn inventory() -> Vec<Entry> {
    Vec::new()
}

/// How many copies of this runtime are linked into the program.
pub(crate) fn runtimes() -> usize {
    1
}

/// The names in `tracked_models` that no model of this binary serves.
pub(crate) fn models_without_hook(config: &crate::config::Config, entries: &[Entry]) -> Vec<String> {
    let _ = (config, entries);
    Vec::new()
}
