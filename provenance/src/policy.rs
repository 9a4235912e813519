//! Who a host is, what may go there, and what is left alone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::allow;
use crate::config::{Config, OnViolation, Recipient, Suppress};
use crate::vocabulary::Timestamp;

/// The recipient of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Name from `#[egress]`, from `recipients`, or the host itself.
    pub(crate) name: String,
    /// Whether `recipients` knows it.
    pub(crate) declared: bool,
}

impl Resolved {
    /// What `recipients` says of it.
    pub(crate) fn registered<'c>(&self, config: &'c Config) -> Option<&'c Recipient> {
        config.recipients.get(&self.name)
    }
}

/// Resolves a host against the attribute's recipient and the config's register.
///
/// A host that is named exactly goes before a suffix, a longer suffix before a shorter one, and a
/// narrow range of addresses before a wide one.
pub(crate) fn recipient(config: &Config, attribute: Option<&str>, host: &str) -> Resolved {
    if let Some(name) = attribute {
        return Resolved {
            name: name.to_owned(),
            declared: config.recipients.contains_key(name),
        };
    }
    let host = bare(host);
    let known = config
        .recipients
        .iter()
        .flat_map(|(name, recipient)| recipient.hosts.iter().map(move |pattern| (name, pattern)))
        .filter_map(|(name, pattern)| Some((precision(pattern, &host)?, name)))
        .max_by_key(|(precision, _)| *precision);
    match known {
        Some((_, name)) => Resolved {
            name: name.clone(),
            declared: true,
        },
        None => Resolved {
            name: host,
            declared: false,
        },
    }
}

/// Whether calls outside `#[egress]` to this host go unrecorded. `localhost` stands for every
/// name of this machine's loopback.
pub(crate) fn is_ignored(config: &Config, host: &str) -> bool {
    let host = bare(host);
    let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    config
        .ignored_hosts
        .iter()
        .any(|pattern| precision(pattern, &host).is_some() || (loopback && bare(pattern) == "localhost"))
}

/// What a violation does at this recipient.
pub(crate) fn on_violation(config: &Config, recipient: &str) -> OnViolation {
    config
        .recipients
        .get(recipient)
        .and_then(|r| r.on_violation)
        .unwrap_or(config.egress.on_violation)
}

/// The rules that leave findings out of a share to one recipient, each with its place among all.
pub(crate) struct Suppression<'c>(Vec<(usize, &'c Suppress)>);

impl<'c> Suppression<'c> {
    /// Those that apply now.
    pub(crate) fn of(config: &'c Config, recipient: &str) -> Self {
        if config.suppress.is_empty() {
            return Suppression(Vec::new());
        }
        let now = Timestamp::now();
        let applies = |rule: &Suppress| {
            let named = rule.recipient.as_deref();
            !rule.has_expired(now) && named.is_none_or(|named| named.eq_ignore_ascii_case(recipient))
        };
        let rules = config.suppress.iter().enumerate();
        Suppression(rules.filter(|(_, rule)| applies(rule)).collect())
    }

    /// The first rule that a finding fits; one that is declared has no place.
    pub(crate) fn rule(&self, category: &str, place: Option<&str>) -> Option<usize> {
        let fits = |rule: &Suppress| {
            let of = rule.category.as_deref();
            of.is_none_or(|of| allow::allows(&[of], category))
                && rule.place.as_deref().is_none_or(|at| stands(at, place))
        };
        self.0.iter().find(|(_, rule)| fits(rule)).map(|(number, _)| *number)
    }
}

fn stands(pattern: &str, place: Option<&str>) -> bool {
    let Some(place) = place else { return false };
    match pattern.strip_suffix('*') {
        Some(beginning) => place.starts_with(beginning),
        None => place == pattern,
    }
}

/// How precisely `pattern` names `host` (a bare one); `None` if it does not.
fn precision(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix("*.") {
        Some(suffix) => {
            let suffix = bare(suffix);
            let below = host.strip_suffix(suffix.as_str())?.strip_suffix('.')?;
            (!below.is_empty() && !suffix.is_empty()).then_some(suffix.len())
        }
        None if pattern.contains('/') => {
            let range = pattern.trim().parse::<IpNet>().ok()?;
            let address = host.parse::<IpAddr>().ok()?.to_canonical();
            range.contains(&address).then_some(usize::from(range.prefix_len()))
        }
        None => (bare(pattern) == host).then_some(usize::MAX),
    }
}

/// A host as it is compared: lower case, without port, brackets and the root's dot.
fn bare(host: &str) -> String {
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        // More than one colon: an IPv6 address without brackets, and so without a port.
        None if host.matches(':').count() > 1 => host,
        None => host.split(':').next().unwrap_or(host),
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    fn config() -> Config {
        let hosts = |hosts: &[&str]| Recipient {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..Recipient::default()
        };
        Config {
            ignored_hosts: vec![
                "localhost".into(),
                "*.svc.cluster.local".into(),
                "Metrics.Example".into(),
                "192.168.0.0/16".into(),
            ],
            recipients: [
                ("aws".to_owned(), hosts(&["*.amazonaws.com"])),
                (
                    "mail".to_owned(),
                    hosts(&["email.eu-west-1.amazonaws.com", "SMTP.Example.com"]),
                ),
                ("storage".to_owned(), hosts(&["*.s3.amazonaws.com"])),
                ("office".to_owned(), hosts(&["10.0.0.0/8", "2001:db8::/32"])),
                ("printer".to_owned(), hosts(&["10.1.0.0/16", "10.9.9.9"])),
            ]
            .into(),
            ..Config::default()
        }
    }

    #[track_caller]
    fn resolves(host: &str, name: &str, declared: bool) {
        let resolved = recipient(&config(), None, host);
        assert_eq!((resolved.name.as_str(), resolved.declared), (name, declared), "{host}");
    }

    #[test]
    fn a_rule_leaves_out_what_fits_all_that_it_names() {
        let rule = |category: &str, recipient: &str, place: &str, expires: Option<i64>| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Suppress {
                category: some(category),
                recipient: some(recipient),
                place: some(place),
                reason: "known".into(),
                expires: expires.map(Timestamp),
            }
        };
        let config = Config {
            suppress: vec![
                rule("contact.email", "mail", "", Some(1)),
                rule("contact.email", "mail", "body:/support/*", Some(i64::MAX)),
                rule("user.contact", "", "header:from", None),
            ],
            ..Config::default()
        };
        for (recipient, category, place, expected) in [
            ("mail", "contact.email", Some("body:/support/email"), Some(1)),
            ("Mail", "user.contact.email", Some("body:/support/"), Some(1)),
            ("mail", "contact.email", Some("body:/user/email"), None),
            ("mail", "contact.email", None, None),
            ("mail", "contact.phone_number", Some("body:/support/phone"), None),
            ("other", "contact.email", Some("body:/support/email"), None),
            ("other", "contact.phone_number", Some("header:from"), Some(2)),
            ("other", "contact.phone_number", Some("header:from-x"), None),
        ] {
            let found = Suppression::of(&config, recipient).rule(category, place);
            assert_eq!(found, expected, "{recipient} {category} {place:?}");
        }
    }

    #[test]
    fn the_attributes_name_wins_over_the_register() {
        let named = recipient(&config(), Some("postmark"), "smtp.example.com");
        assert_eq!((named.name.as_str(), named.declared), ("postmark", false));
        assert!(recipient(&config(), Some("mail"), "elsewhere.example").declared);
    }

    #[test]
    fn hosts_are_matched_by_the_most_precise_pattern() {
        resolves("sqs.amazonaws.com", "aws", true);
        resolves("bucket.s3.amazonaws.com", "storage", true);
        resolves("email.eu-west-1.amazonaws.com", "mail", true);
    }

    #[test]
    fn addresses_are_matched_by_the_narrowest_range() {
        resolves("10.2.0.1", "office", true);
        resolves("10.1.0.1:8080", "printer", true);
        resolves("10.9.9.9", "printer", true);
        resolves("[2001:db8::7]:443", "office", true);
        resolves("::ffff:10.1.0.1", "printer", true);
        for elsewhere in ["11.0.0.1", "2001:db9::1", "10.1.0.1.evil.example", "10.1"] {
            assert!(!recipient(&config(), None, elsewhere).declared, "{elsewhere}");
        }
    }

    #[test]
    fn case_port_and_trailing_dot_do_not_matter() {
        resolves("smtp.example.com", "mail", true);
        resolves("SMTP.example.COM.", "mail", true);
        resolves("smtp.example.com:587", "mail", true);
        resolves("smtp.example.com.:587", "mail", true);
        resolves("[2001:DB9::1]:443", "2001:db9::1", false);
        resolves("2001:db9::1", "2001:db9::1", false);
    }

    #[test]
    fn a_suffix_begins_at_a_dot_and_needs_something_before_it() {
        resolves("evilamazonaws.com", "evilamazonaws.com", false);
        resolves("amazonaws.com", "amazonaws.com", false);
        resolves("amazonaws.com.evil.example", "amazonaws.com.evil.example", false);
        resolves(".amazonaws.com", ".amazonaws.com", false);
        resolves("", "", false);
    }

    #[test]
    fn localhost_stands_for_the_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.0.0.1:9",
            "::1",
            "[::1]:8080",
        ] {
            assert!(is_ignored(&config(), host), "{host}");
        }
        for host in [
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "128.0.0.1",
            "[2001:db8::1]",
        ] {
            assert!(!is_ignored(&config(), host), "{host}");
        }
        let none = Config {
            ignored_hosts: Vec::new(),
            ..config()
        };
        assert!(!is_ignored(&none, "127.0.0.1"));
    }

    #[test]
    fn ignored_hosts_take_suffixes() {
        assert!(is_ignored(&config(), "billing.svc.cluster.local"));
        assert!(is_ignored(&config(), "metrics.example"));
        assert!(is_ignored(&config(), "192.168.7.7:80"));
        assert!(!is_ignored(&config(), "192.169.7.7"));
        assert!(!is_ignored(&config(), "svc.cluster.local"));
    }

    #[test]
    fn a_recipients_own_rule_goes_before_the_general_one() {
        let mut config = config();
        config.egress.on_violation = OnViolation::Block;
        assert_eq!(on_violation(&config, "mail"), OnViolation::Block);
        if let Some(mail) = config.recipients.get_mut("mail") {
            mail.on_violation = Some(OnViolation::Record);
        }
        assert_eq!(on_violation(&config, "mail"), OnViolation::Record);
        assert_eq!(on_violation(&config, "unheard.example"), OnViolation::Block);
    }
}
