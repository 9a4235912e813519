//! Every hop of a redirect is a recipient.

use provenance::config::{OnViolation, Recipient};
use provenance::{Blocked, egress};
use provenance_tests::{Evidence, tag, text};
use reqwest::redirect::Policy;
use reqwest::{Client, blocking};
use serde_json::{Value as Json, json};

use super::{ALICE, Server, alice, block_on, outcomes};

#[egress(recipient = "partner")]
async fn post(client: &Client, url: &str) -> reqwest::Result<u16> {
    let request = client
        .post(url)
        .bearer_auth("token-of-ours")
        .json(&json!({"email": ALICE}));
    Ok(request.send().await?.status().as_u16())
}

#[egress(recipient = "partner")]
fn post_blocking(client: &blocking::Client, url: &str) -> reqwest::Result<u16> {
    Ok(client
        .post(url)
        .json(&json!({"email": ALICE}))
        .send()?
        .status()
        .as_u16())
}

/// A server that redirects `/307` and the like to another host, in two steps.
fn servers() -> (Server, Server) {
    let last = Server::start();
    let target = last.elsewhere("/last");
    let first = Server::answering(move |line| {
        let path = line.split(' ').nth(1).unwrap();
        match path.trim_start_matches('/').split_once('/') {
            Some((status, "first")) => format!("{status} /{status}/second"),
            Some((status, _)) => format!("{status} {target}"),
            None => "200 ok".into(),
        }
    });
    (first, last)
}

fn watched() -> reqwest::ClientBuilder {
    Client::builder().redirect(provenance::reqwest::redirect_policy(Policy::default()))
}

/// Target, recipient, `hop`, and the number of tags, of each share.
fn hops(shares: &[Json]) -> Vec<(String, String, Json, usize)> {
    let hop = |share: &Json| {
        let extras = &share["extras"];
        let tags = share["matched_tags"].as_array().unwrap().len();
        (
            text(&share["target"]),
            text(&extras["recipient"]),
            extras["hop"].clone(),
            tags,
        )
    };
    shares.iter().map(hop).collect()
}

#[test]
fn each_hop_is_a_share_with_what_it_carried() {
    for blocking in [false, true] {
        let evidence = Evidence::new(|config| {
            let broker = Recipient {
                hosts: vec!["localhost".into()],
                ..Recipient::default()
            };
            config.recipients.insert("broker".into(), broker);
        });
        let _scoped = evidence.scoped();
        alice();
        let (first, last) = servers();
        for status in ["307", "303"] {
            let url = first.url(&format!("/{status}/first"));
            let answered = if blocking {
                let policy = provenance::reqwest::redirect_policy(Policy::default());
                let client = blocking::Client::builder().redirect(policy).build().unwrap();
                post_blocking(&client, &url)
            } else {
                block_on(post(&watched().build().unwrap(), &url))
            };
            assert_eq!(answered.unwrap(), 200);
        }
        assert_eq!(last.seen().len(), 2);
        assert_eq!(last.seen()[0].body, json!({"email": ALICE}).to_string().as_bytes());
        assert_eq!(last.seen()[1].body, b"");
        let shares = evidence.of("DATA_SHARE");
        let share = |target: &str, to: &str, hop: Json, tags: usize| (target.to_owned(), to.to_owned(), hop, tags);
        assert_eq!(
            hops(&shares),
            [
                share("POST 127.0.0.1/{id}/first", "partner", Json::Null, 1),
                share("POST 127.0.0.1/{id}/second", "partner", json!(1), 1),
                share("POST localhost/last", "broker", json!(2), 1),
                share("POST 127.0.0.1/{id}/first", "partner", Json::Null, 1),
                share("GET 127.0.0.1/{id}/second", "partner", json!(1), 0),
                share("GET localhost/last", "broker", json!(2), 0),
            ]
        );
        let ends = [
            "status 307",
            "status 307",
            "status 200",
            "status 303",
            "status 303",
            "status 200",
        ];
        assert_eq!(outcomes(&evidence), ends);
        assert!(shares.iter().all(|share| share["extras"].get("evidence").is_none()));
    }
}

#[test]
fn without_the_policy_the_last_host_is_known_afterwards() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    alice();
    let (first, last) = servers();
    block_on(post(&Client::new(), &first.url("/307/first"))).unwrap();
    post_blocking(&blocking::Client::new(), &first.url("/308/second")).unwrap();
    assert_eq!(last.seen().len(), 2);
    let shares = evidence.of("DATA_SHARE");
    assert_eq!(
        outcomes(&evidence),
        ["redirected", "status 200", "redirected", "status 200"]
    );
    for after in [&shares[1], &shares[3]] {
        let extras = &after["extras"];
        assert_eq!(text(&after["target"]), "POST localhost/last");
        assert_eq!(extras["recipient"], "localhost");
        assert_eq!(
            (&extras["evidence"], &extras["certain"]),
            (&json!("after"), &json!(false))
        );
        assert_eq!(extras["reason"], "redirect_followed");
        assert_eq!(tag(after, "email")["place"], "body:/email");
    }
}

#[test]
fn a_hop_can_be_blocked_or_not_followed() {
    #[egress(recipient = "partner", allow())]
    async fn not_elsewhere(client: &Client, url: &str) -> reqwest::Result<u16> {
        Ok(client.post(url).body(ALICE).send().await?.status().as_u16())
    }
    let evidence = Evidence::new(|config| {
        let broker = Recipient {
            hosts: vec!["localhost".into()],
            on_violation: Some(OnViolation::Block),
            ..Recipient::default()
        };
        config.recipients.insert("broker".into(), broker);
    });
    let _scoped = evidence.scoped();
    alice();
    let (first, last) = servers();
    let error = block_on(not_elsewhere(&watched().build().unwrap(), &first.url("/307/second"))).unwrap_err();
    assert!(error.is_redirect());
    assert_eq!(Blocked::find(&error).expect("the block").recipient(), "broker");
    let stays = provenance::reqwest::redirect_policy(Policy::none());
    let client = Client::builder().redirect(stays).build().unwrap();
    assert_eq!(block_on(post(&client, &first.url("/307/first"))).unwrap(), 307);
    assert_eq!(last.connections(), 0);
    assert_eq!(
        outcomes(&evidence),
        ["status 307", "blocked", "status 307", "error not_followed"]
    );
}
