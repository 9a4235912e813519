//! The middleware for reqwest-middleware, with and without `#[egress]` around its client.

use http::Extensions;
use provenance::config::OnViolation;
use provenance::{Blocked, egress};
use provenance_tests::{Evidence, tag, text};
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};

use super::{ALICE, Server, alice, block_on, outcomes};

fn recording() -> ClientWithMiddleware {
    ClientBuilder::new(Client::new())
        .with(provenance::reqwest::middleware())
        .build()
}

/// Adds a header, and tries again once.
struct Twice;

#[async_trait::async_trait]
impl Middleware for Twice {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        request.headers_mut().insert("x-user", ALICE.parse().unwrap());
        let again = request.try_clone().unwrap();
        next.clone().run(request, extensions).await?;
        next.run(again, extensions).await
    }
}

#[egress(recipient = "crm", allow("contact.email"))]
async fn send(client: &ClientWithMiddleware, url: &str) -> reqwest_middleware::Result<()> {
    client.post(url).body("x").send().await?;
    let request = client.get(url);
    request.send().await?;
    client.execute(client.get(url).build()?).await?;
    Ok(())
}

#[test]
fn the_middleware_and_the_attribute_make_one_event() {
    let evidence = Evidence::new(|config| config.ignored_hosts.clear());
    let _scoped = evidence.scoped();
    alice();
    let server = Server::start();
    let plain = ClientWithMiddleware::from(Client::new());
    block_on(async {
        send(&recording(), &server.url("/x")).await.unwrap();
        send(&plain, &server.url("/x")).await.unwrap();
        assert_eq!(evidence.of("DATA_SHARE").len(), 6);
        // Outside the attribute, the middleware alone.
        recording().post(server.url("/y?q=1")).body(ALICE).send().await.unwrap();
        plain.get(server.url("/y")).send().await.unwrap();
    });
    let shares = evidence.of("DATA_SHARE");
    assert_eq!((shares.len(), server.seen().len()), (7, 8));
    assert_eq!(outcomes(&evidence), ["status 200"; 7]);
    assert!(shares[..6].iter().all(|share| share["extras"]["recipient"] == "crm"));
    assert_eq!(shares[6]["extras"]["recipient"], "127.0.0.1");
    assert_eq!(text(&shares[6]["target"]), "POST 127.0.0.1/y");
    assert_eq!(tag(&shares[6], "email")["place"], "body");
}

#[test]
fn what_other_middlewares_do_is_seen_and_each_retry_is_a_send() {
    let evidence = Evidence::new(|config| config.ignored_hosts.clear());
    let _scoped = evidence.scoped();
    alice();
    let server = Server::start();
    let twice = ClientBuilder::new(Client::new()).with(Twice).build();
    let recorded = ClientBuilder::from_client(twice.clone())
        .with(provenance::reqwest::middleware())
        .build();
    block_on(async {
        send(&twice, &server.url("/x")).await.unwrap();
        recorded.get(server.url("/y")).send().await.unwrap();
    });
    let shares = evidence.of("DATA_SHARE");
    assert_eq!((shares.len(), server.seen().len()), (8, 8));
    for share in shares {
        assert_eq!(tag(&share, "email")["place"], "header:x-user");
    }
}

#[test]
fn ignored_hosts_are_left_alone_outside_the_attribute() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let server = Server::start();
    block_on(async {
        recording().get(server.url("/x")).send().await.unwrap();
        assert_eq!(evidence.of("DATA_SHARE").len(), 0);
        send(&recording(), &server.url("/x")).await.unwrap();
    });
    assert_eq!(evidence.of("DATA_SHARE").len(), 3);
}

#[test]
fn a_block_is_an_error_of_the_middleware() {
    #[egress(recipient = "scoring", allow())]
    async fn held(client: &ClientWithMiddleware, url: &str) -> reqwest_middleware::Result<Response> {
        client.post(url).body(ALICE).send().await
    }
    let evidence = Evidence::new(|config| config.egress.on_violation = OnViolation::Block);
    let _scoped = evidence.scoped();
    alice();
    let server = Server::start();
    let error = block_on(held(&recording(), &server.url("/x"))).unwrap_err();
    assert_eq!(Blocked::find(&error).expect("the block").recipient(), "scoring");
    let reqwest_middleware::Error::Middleware(error) = error else {
        panic!("{error:?}")
    };
    assert!(error.downcast_ref::<Blocked>().is_some());
    assert_eq!(server.connections(), 0);
    assert_eq!(outcomes(&evidence), ["blocked"]);
}
