//! Who a host is, what may go there, and what is left alone.

use crate::config::{Config, OnViolation};

/// The recipient of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Name from `#[egress]`, from `recipients`, or the host itself.
    pub(crate) name: String,
    /// Whether `recipients` knows it.
    pub(crate) declared: bool,
}

/// Resolves a host (no port) against the attribute's recipient and the config's register.
pub(crate) fn recipient(config: &Config, attribute: Option<&str>, host: &str) -> Resolved {
    let _ = config;
    Resolved {
        name: attribute.unwrap_or(host).to_owned(),
        declared: false,
    }
}

/// Whether calls outside `#[egress]` to this host go unrecorded.
pub(crate) fn is_ignored(config: &Config, host: &str) -> bool {
    config.ignored_hosts.iter().any(|ignored| ignored == host)
}

/// Whether `category` may leave under `allow` (same category, or below one that is listed).
pub(crate) fn allows(allow: &[&str], category: &str) -> bool {
    allow.contains(&category)
}

/// What a violation does at this recipient.
pub(crate) fn on_violation(config: &Config, recipient: &str) -> OnViolation {
    config
        .recipients
        .get(recipient)
        .and_then(|r| r.on_violation)
        .unwrap_or(config.egress.on_violation)
}
