//! What an empty configuration means.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{
    Config, Durability, Egress, Fingerprints, InputField, OnEvidenceFailure, OnViolation, Storage, Streams, Token,
    Unregistered,
};

impl Default for Config {
    fn default() -> Self {
        Config {
            enabled: true,
            access_events: false,
            derivation_interval: Duration::ZERO,
            storage: Storage::Sqlite("runtime_provenance.db".into()),
            audit_token: Token::default(),
            audit_bind: SocketAddr::from(([127, 0, 0, 1], 8787)),
            audit_query_token: true,
            audit_tokens: Vec::new(),
            fingerprints: Fingerprints::HmacSha256,
            owners_clear: false,
            key_file: None,
            key: None,
            key_epoch: 1,
            checkpoints: None,
            service: program_name(),
            environment: None,
            ignored_hosts: vec!["localhost".into()],
            input_fields: input_fields(),
            tracked_models: BTreeMap::new(),
            recipients: BTreeMap::new(),
            suppress: Vec::new(),
            egress: Egress::default(),
            max_values: 1_000_000,
            spill_max_bytes: 1 << 30,
            spill_folder: None,
            follow_interval: Duration::from_secs(1),
            retention: BTreeMap::new(),
            file: None,
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Egress {
            durability: Durability::BeforeSend,
            on_violation: OnViolation::Record,
            read_ahead: 8 << 20,
            streams: Streams::Watch,
            unregistered: Unregistered::Ignore,
            on_evidence_failure: OnEvidenceFailure::Send,
        }
    }
}

fn program_name() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "service".to_owned())
}

/// Names under which forms and APIs usually send personal data: (category, description, names).
const USUAL: &[(&str, &str, &[&str])] = &[
    (
        "contact.email",
        "Email address",
        &["email", "email_address", "e_mail", "mail"],
    ),
    ("personal.name", "Name", &["name", "full_name", "display_name"]),
    ("name.first", "First name", &["first_name", "firstname", "given_name"]),
    (
        "name.last",
        "Last name",
        &["last_name", "lastname", "surname", "family_name"],
    ),
    ("account.username", "User name", &["username", "login"]),
    (
        "contact.phone_number",
        "Phone number",
        &["phone", "phone_number", "telephone", "mobile"],
    ),
    (
        "contact.address.street",
        "Postal address",
        &["address", "street", "address_line1", "address_line2"],
    ),
    ("contact.address.city", "City", &["city"]),
    (
        "contact.address.postal_code",
        "Postal code",
        &["postal_code", "postcode", "zip", "zip_code"],
    ),
    ("contact.address.country", "Country", &["country"]),
    (
        "demographic.date_of_birth",
        "Date of birth",
        &["birthday", "birth_date", "birthdate", "date_of_birth", "dob"],
    ),
    ("demographic.gender", "Gender", &["gender", "sex"]),
    ("financial.income", "Income", &["income", "monthly_income", "salary"]),
    ("financial.currency", "Currency", &["currency"]),
    (
        "financial.bank_account",
        "Bank account",
        &["iban", "account_number", "bank_account"],
    ),
    (
        "financial.credit_card",
        "Payment card",
        &["card_number", "credit_card", "credit_card_number"],
    ),
    (
        "government_id.national_identification_number",
        "Government identifier",
        &[
            "ssn",
            "social_security_number",
            "tax_id",
            "national_id",
            "passport_number",
        ],
    ),
    ("preferences.goals", "Goals", &["goals"]),
    ("preferences.budget_style", "Budget style", &["budget_style"]),
    ("preferences.week_start", "First day of the week", &["week_start"]),
    ("device.ip_address", "IP address", &["ip", "ip_address"]),
    (
        "security.password",
        "Password",
        &[
            "password",
            "passwd",
            "new_password",
            "old_password",
            "password_confirmation",
        ],
    ),
];

fn input_fields() -> BTreeMap<String, InputField> {
    USUAL
        .iter()
        .flat_map(|(category, description, names)| {
            names.iter().map(move |name| {
                let field = InputField {
                    category: (*category).to_owned(),
                    description: (*description).to_owned(),
                    pii: true,
                    kind: None,
                    secret: None,
                    owner: (*category == "contact.email").then(|| "email".to_owned()),
                };
                ((*name).to_owned(), field)
            })
        })
        .collect()
}
