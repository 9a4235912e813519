//! Code under `#[egress]` means what it meant: the same bytes on as many connections, and methods of other types
//! that have a client's names.

use std::time::Duration;

use futures_util::stream;
use provenance::egress;
use provenance_tests::Evidence;
use reqwest::{Body, Client, Method, Request, blocking, multipart};
use serde_json::json;

use super::{Failed, Server, block_on};

macro_rules! twice {
    ($(async fn $with:ident / $without:ident ($($arg:tt)*) $body:block)*) => {$(
        #[egress(recipient = "partner")]
        async fn $with($($arg)*) -> Result<(), Failed> $body
        async fn $without($($arg)*) -> Result<(), Failed> $body
    )*};
    ($(fn $with:ident / $without:ident ($($arg:tt)*) $body:block)*) => {$(
        #[egress(recipient = "partner")]
        fn $with($($arg)*) -> Result<(), Failed> $body
        fn $without($($arg)*) -> Result<(), Failed> $body
    )*};
}

fn pieces(texts: &'static [&'static str]) -> Body {
    Body::wrap_stream(stream::iter(texts.iter().map(|text| Ok::<_, std::io::Error>(*text))))
}

/// With a boundary of the usual length: now and then a random one is shorter.
fn plain_form() -> multipart::Form {
    let forms = std::iter::repeat_with(multipart::Form::new);
    forms.take(1000).find(|form| form.boundary().len() == 67).unwrap()
}

fn blocking_form() -> blocking::multipart::Form {
    let forms = std::iter::repeat_with(blocking::multipart::Form::new);
    forms.take(1000).find(|form| form.boundary().len() == 67).unwrap()
}

/// Its pieces come one by one, each after a wait.
fn slowly(texts: &'static [&'static str]) -> Body {
    Body::wrap_stream(stream::unfold(texts.iter(), |mut texts| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Some((Ok::<_, std::io::Error>(*texts.next()?), texts))
    }))
}

// The same body with the attribute and without.
twice! {
    async fn sends / sends_plain (client: &Client, url: &str) {
        client.post(url).json(&json!({"b": 1, "a": [1.5, null, "x"]})).send().await?.text().await?;
        client.post(url).form(&[("a b", "c&d"), ("e", "é")]).send().await?.text().await?;
        client.post(url).body("text").send().await?.text().await?;
        client.post(url).body(String::new()).send().await?.text().await?;
        client.post(url).send().await?.text().await?;
        client.get(url).query(&[("q", "a b"), ("x", "&")]).send().await?.text().await?;
        client.head(url).send().await?;
        client.put(url).body(pieces(&["one", "two", "", "three"])).send().await?.text().await?;
        client.put(url).body(pieces(&[])).send().await?.text().await?;
        client.put(url).body(slowly(&["slow", "er"])).send().await?.text().await?;
        let form = plain_form().text("name", "value").text("other", "välue");
        client.post(url).multipart(form).send().await?.text().await?;
        let part = multipart::Part::stream_with_length(slowly(&["abc", "de"]), 5).file_name("f.txt");
        client.post(url).multipart(plain_form().text("a", "b").part("f", part)).send().await?.text().await?;
        let part = multipart::Part::stream(pieces(&["abc", "de"]));
        client.post(url).multipart(plain_form().part("f", part)).send().await?.text().await?;
        let request = client.delete(url).header("x-a", "1").basic_auth("u", Some("p"));
        request.send().await?.text().await?;
        let mut request = Request::new(Method::PATCH, url.parse()?);
        *request.body_mut() = Some("patched".into());
        client.execute(request).await?.text().await?;
        for n in 0..2 {
            let request = if n == 0 { client.get(url) } else { client.head(url) };
            request.send().await?.text().await?;
        }
        Ok(())
    }
}

twice! {
    fn sends_blocking / sends_blocking_plain (client: &blocking::Client, url: &str) {
        client.post(url).json(&json!({"b": 1})).send()?.text()?;
        client.post(url).form(&[("a b", "c&d")]).send()?.text()?;
        client.post(url).body("text").send()?.text()?;
        client.post(url).send()?.text()?;
        client.put(url).body(blocking::Body::new(std::io::Cursor::new("reader"))).send()?.text()?;
        client.put(url).body(blocking::Body::sized(std::io::Cursor::new("sized"), 5)).send()?.text()?;
        client.post(url).multipart(blocking_form().text("name", "value")).send()?.text()?;
        let request = client.get(url);
        request.send()?.text()?;
        let request = client.delete(url).build()?;
        client.execute(request)?.text()?;
        Ok(())
    }
}

#[test]
fn the_wire_stays_the_same() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let (with, without) = (Server::start(), Server::start());
    block_on(async {
        sends(&Client::new(), &with.url("/p?k=v")).await.unwrap();
        sends_plain(&Client::new(), &without.url("/p?k=v")).await.unwrap();
    });
    for (with, without) in with.wire().into_iter().zip(without.wire()) {
        assert_eq!(with, without);
    }
    assert_eq!((with.seen().len(), without.seen().len()), (17, 17));
    assert_eq!((with.connections(), without.connections()), (1, 1));
    assert_eq!(evidence.of("DATA_SHARE").len(), 17);
}

#[test]
fn the_wire_of_blocking_clients_stays_the_same() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let (with, without) = (Server::start(), Server::start());
    sends_blocking(&blocking::Client::new(), &with.url("/p")).unwrap();
    sends_blocking_plain(&blocking::Client::new(), &without.url("/p")).unwrap();
    assert_eq!(with.wire(), without.wire());
    assert_eq!((with.seen().len(), with.connections()), (9, 1));
    assert_eq!(evidence.of("DATA_SHARE").len(), 9);
}

#[test]
fn nothing_in_force_is_the_identity() {
    let server = Server::start();
    block_on(sends(&Client::new(), &server.url("/p"))).unwrap();
    sends_blocking(&blocking::Client::new(), &server.url("/p")).unwrap();
    assert_eq!(server.seen().len(), 26);
}
