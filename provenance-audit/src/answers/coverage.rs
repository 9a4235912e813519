//! What the evidence cannot say: blind spots, losses, and declared code that was never seen to run.

use serde_json::{Value as Json, json};

use super::declared::Comparison;

/// `status`: what the running service says of itself, if there is one.
pub(crate) fn of(status: Option<&serde_json::Map<String, Json>>, comparison: &Comparison) -> Json {
    let said = |key: &str| status.and_then(|status| status.get(key)).cloned().unwrap_or(Json::Null);
    let unvisited = comparison.declared.iter().filter(|entry| entry.kind == "unvisited");
    json!({
        "embedded": status.is_some(),
        "blind_spots": said("blind_spots"),
        "reads_without_model": said("reads_without_model"),
        "registry": said("registry"),
        "queue": said("queue"),
        "inventory_known": comparison.inventory_known,
        "declared_seen": comparison.seen,
        "declared_never_seen": comparison.never_seen,
        "unvisited_inputs": unvisited.collect::<Vec<_>>(),
    })
}
