//! Recall and precision of detection over a corpus whose expected findings no rule of the detector
//! made: `corpus/generate.py` knows what it put where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use provenance::config::Durability;
use provenance::{Tracked, egress, provenance_input};
use provenance_tests::{Evidence, text};
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Deserialize, Tracked)]
#[tracked(owner(id as "user"))]
struct Person {
    id: String,
    #[tracked("personal.name")]
    name: String,
    #[tracked("contact.email")]
    email: String,
    #[tracked("contact.phone")]
    phone: String,
    #[tracked("demographic.date_of_birth")]
    birthday: String,
    #[tracked("financial.income")]
    income: f64,
    #[tracked("financial.iban")]
    iban: String,
    #[tracked("contact.address")]
    address: String,
    #[tracked("x.note")]
    note: String,
    #[tracked("unique_id.customer")]
    customer: String,
}

#[derive(Deserialize)]
struct Document {
    form: String,
    content_type: String,
    content_encoding: Option<String>,
    body: String,
    expected: BTreeSet<(String, String)>,
}

#[provenance_input]
fn register(person: Person) {
    drop(person);
}

#[egress(recipient = "partner")]
fn send(agent: &ureq::Agent, url: &str, document: &Document, body: &[u8]) -> Result<(), ureq::Error> {
    let mut request = agent.post(url).header("content-type", &document.content_type);
    if let Some(encoding) = &document.content_encoding {
        request = request.header("content-encoding", encoding);
    }
    request.send(body)?;
    Ok(())
}

/// How often a form was found, missed, and taken for something else.
#[derive(Default)]
struct Score {
    found: usize,
    missed: usize,
    wrong: usize,
}

impl Score {
    fn recall(&self) -> f64 {
        share(self.found, self.missed)
    }

    fn precision(&self) -> f64 {
        share(self.found, self.wrong)
    }
}

fn share(part: usize, rest: usize) -> f64 {
    match part + rest {
        0 => 1.0,
        all => part as f64 / all as f64,
    }
}

fn rows<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Answers everything with 204; ends with the process.
fn partner() -> SocketAddr {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let address = server.server_addr().to_ip().unwrap();
    std::thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let _ = request.as_reader().read_to_end(&mut Vec::new());
            let _ = request.respond(tiny_http::Response::empty(204));
        }
    });
    address
}

/// Who and what one event says was sent.
fn findings(event: &Json) -> BTreeSet<(String, String)> {
    let tags = event["matched_tags"].as_array().unwrap();
    tags.iter()
        .map(|tag| {
            let owner = text(&tag["owner"]);
            (owner.trim_start_matches("user:").to_owned(), text(&tag["field"]))
        })
        .collect()
}

#[test]
fn what_is_sent_is_found_and_nothing_else() {
    use base64::Engine;

    let evidence = Evidence::new(|config| {
        config.owners_clear = true;
        config.egress.durability = Durability::Batched;
    });
    let _scoped = evidence.scoped();
    for person in rows::<Person>("people.jsonl") {
        register(person);
    }
    let documents: Vec<Document> = rows("documents.jsonl");
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("http://{}/in", partner());
    for document in &documents {
        let body = base64::engine::general_purpose::STANDARD
            .decode(&document.body)
            .unwrap();
        send(&agent, &url, document, &body).unwrap();
    }
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(shares.len(), documents.len());

    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    for (document, event) in documents.iter().zip(&shares) {
        let found = findings(event);
        let score = scores.entry(&document.form).or_default();
        score.found += document.expected.intersection(&found).count();
        score.missed += document.expected.difference(&found).count();
        score.wrong += found.difference(&document.expected).count();
        if std::env::var_os("ACCURACY_DETAILS").is_some() && found != document.expected {
            println!(
                "{}: {:?}",
                document.form,
                event["matched_tags"].as_array().unwrap().len()
            );
            println!("  missed {:?}", document.expected.difference(&found));
            println!("  wrong {:?}", found.difference(&document.expected));
        }
    }
    let mut all = Score::default();
    println!("{:<28} {:>7} {:>9}", "form", "recall", "precision");
    for (form, score) in &scores {
        println!("{form:<28} {:>7.3} {:>9.3}", score.recall(), score.precision());
        all.found += score.found;
        all.missed += score.missed;
        all.wrong += score.wrong;
    }
    println!("{:<28} {:>7.3} {:>9.3}", "all", all.recall(), all.precision());
    let poor: Vec<_> = scores
        .iter()
        .filter(|(_, score)| score.recall() < 0.99 || score.precision() < 0.99)
        .map(|(form, _)| form)
        .collect();
    assert!(poor.is_empty(), "{poor:?}");
}
