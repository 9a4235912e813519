//! The three partners that data leaves to, a function each.

use std::time::Duration;

use provenance::{Tracked, derived, egress};
use serde::{Deserialize, Serialize};

use crate::auth::sha256_hex;
use crate::models::{Spending, User};

/// Where the partners are, and the client that calls them.
pub struct Partners {
    agent: ureq::Agent,
    base: String,
}

/// What the marketing partner gets: the address as ad platforms ask for it, hashed.
#[derive(Serialize)]
pub struct Subscriber {
    email_sha256: String,
    first_name: String,
}

/// What the scoring partner gets.
#[derive(Serialize, Tracked)]
pub struct Applicant<'a> {
    #[tracked("demographic.date_of_birth")]
    birthday: &'a str,
    #[tracked("financial.income")]
    income: f64,
}

/// What the AI partner gets: prose, with a person's income, goals and spending in it.
#[derive(Serialize)]
pub struct Prompt {
    model: &'static str,
    input: String,
}

/// What the scoring partner answers.
#[derive(Deserialize)]
struct Scored {
    #[serde(default)]
    score: Option<f64>,
}

/// What the AI partner answers.
#[derive(Deserialize)]
pub struct Answer {
    #[serde(default)]
    pub output_text: String,
}

impl Partners {
    /// `base` is a URL such as `http://127.0.0.1:9000`, to which the partners' paths are added.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        Partners {
            agent: config.new_agent(),
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    /// Puts a person on the newsletter's list.
    #[egress(
        name = "Partners::subscribe",
        recipient = "marketing",
        purpose = "newsletter",
        basis = "consent",
        allow("contact.email", "name.first", "personal.name")
    )]
    pub fn subscribe(&self, subscriber: &Subscriber) -> Result<(), ureq::Error> {
        let url = format!("{}/marketing/v1/subscribers", self.base);
        self.agent.post(url).send_json(subscriber)?;
        Ok(())
    }

    /// Asks for a person's credit score.
    #[derived("score.credit", kind = "number", name = "Partners::score")]
    #[egress(
        name = "Partners::score",
        recipient = "scoring",
        purpose = "credit-scoring",
        basis = "contract",
        allow("demographic.date_of_birth", "financial.income")
    )]
    pub fn score(&self, applicant: &Applicant<'_>) -> Result<Option<f64>, ureq::Error> {
        let url = format!("{}/scoring/v1/score", self.base);
        let scored: Scored = self.agent.post(url).send_json(applicant)?.body_mut().read_json()?;
        Ok(scored.score)
    }

    /// Asks for advice on a person's budget.
    #[egress(
        name = "Partners::advise",
        recipient = "ai",
        purpose = "insights",
        basis = "consent",
        allow("financial", "preferences.goals", "behavior.purchase_history")
    )]
    pub fn advise(&self, prompt: &Prompt) -> Result<Answer, ureq::Error> {
        let url = format!("{}/ai/v1/responses", self.base);
        self.agent.post(url).send_json(prompt)?.body_mut().read_json()
    }
}

impl Subscriber {
    pub fn new(user: &User) -> Self {
        Subscriber {
            email_sha256: sha256_hex(&user.email.to_lowercase()),
            first_name: first_name(&user.name),
        }
    }
}

#[derived("name.first", description = "What letters begin with")]
fn first_name(name: &str) -> String {
    name.split_whitespace().next().unwrap_or_default().to_owned()
}

impl<'a> Applicant<'a> {
    pub fn new(user: &'a User) -> Self {
        Applicant {
            birthday: &user.birthday,
            income: user.income,
        }
    }
}

impl Prompt {
    pub fn new(user: &User, spending: &Spending) -> Self {
        let currency = &user.currency;
        let mut input = format!(
            "You are a budget coach. I earn {:.2} {currency} a month. My goals: {}. ",
            user.income, user.goals
        );
        if spending.by_category.is_empty() {
            input.push_str("I have not noted any spending yet. ");
        } else {
            let items: Vec<_> = spending
                .by_category
                .iter()
                .map(|(category, amount)| format!("{amount:.2} {currency} on {category}"))
                .collect();
            input.push_str(&format!("In {} I spent {}. ", spending.month, items.join(", ")));
        }
        input.push_str("What are my next three steps?");
        Prompt {
            model: "budget-coach-1",
            input,
        }
    }
}
