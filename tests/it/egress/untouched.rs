//! Code under `#[egress]` means what it meant: the same bytes on the wire, and methods of other
//! types that have a client's names.

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};

use provenance::egress;
use provenance_tests::Evidence;
use serde_json::json;

use super::Partner;

macro_rules! twice {
    ($(fn $with:ident / $without:ident ($($arg:tt)*) $body:block)*) => {$(
        #[egress(recipient = "partner")]
        fn $with($($arg)*) -> Result<(), ureq::Error> $body
        fn $without($($arg)*) -> Result<(), ureq::Error> $body
    )*};
}

// The same body with the attribute and without.
twice! {
    fn sends / sends_plain (agent: &ureq::Agent, url: &str) {
        agent.post(url).send_json(json!({"b": 1, "a": [1.5, null, "x"]}))?;
        agent.post(url).send_form([("a b", "c&d"), ("e", "é")])?;
        agent.post(url).send("text")?;
        agent.post(url).send(String::from("string"))?;
        agent.post(url).send(&vec![1_u8, 2])?;
        agent.post(url).send(&[3_u8, 4])?;
        agent.post(url).send(())?;
        agent.put(url).send_empty()?;
        agent.get(url).query("q", "a b").query_pairs(vec![("x", "y"), ("z", "&")]).query_raw("r", "a%20b").call()?;
        agent.delete(url).force_send_body().content_type("text/x").send("bye")?;
        let request = agent.post(url).header("x-a", "1");
        request.send_json(json!([1]))?;
        let request = ureq::http::Request::post(url).header("x-b", "2").body("run")?;
        agent.run(request)?;
        for n in 0..2 {
            let request = if n == 0 { agent.get(url) } else { agent.head(url) };
            request.call()?;
        }
        Ok(())
    }
}

#[test]
fn the_wire_stays_the_same() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let agent = ureq::agent();
    let (with, without) = (Partner::start(), Partner::start());
    sends(&agent, &with.url("/p?k=v")).unwrap();
    sends_plain(&agent, &without.url("/p?k=v")).unwrap();
    let bytes = |partner: &Partner| -> Vec<(String, Vec<u8>)> {
        let own = partner.url("");
        let host = own.trim_start_matches("http://").to_owned();
        let seen = partner.seen.lock().unwrap();
        seen.iter()
            .map(|seen| (seen.head.replace(&host, "HOST"), seen.body.clone()))
            .collect()
    };
    assert_eq!(bytes(&with), bytes(&without));
    assert_eq!(bytes(&with).len(), 14);
    assert_eq!(evidence.of("DATA_SHARE").len(), 14);
}

#[test]
fn nothing_in_force_is_the_identity() {
    let partner = Partner::start();
    sends(&ureq::agent(), &partner.url("/p")).unwrap();
    assert_eq!(partner.seen.lock().unwrap().len(), 14);
}

type Job = Box<dyn Fn(i32) -> i32 + Send>;

struct Hub {
    jobs: mpsc::Sender<Job>,
    texts: mpsc::Sender<String>,
    shared: Mutex<mpsc::Sender<u8>>,
}

struct Builder(String);

impl Builder {
    fn send(self, suffix: &str) -> String {
        self.0 + suffix
    }

    fn call(&mut self) -> usize {
        self.0.push('!');
        self.0.len()
    }
}

impl Hub {
    #[egress(recipient = "nobody")]
    fn all(&self, mut owned: Builder, count: &mut u8) -> Result<usize, Box<dyn std::error::Error>> {
        self.jobs.send(Box::new(|x| x + 1))?;
        self.texts.send(Default::default())?;
        self.texts.send("a".into())?;
        self.shared.lock().unwrap().send(1)?;
        let tx = self.texts.clone();
        tx.send(format!("{}", *count))?;
        tx.send("again".to_owned())?;
        let reborrow = &mut *count;
        bump().send(reborrow);
        *reborrow += 1;
        let mut sinks = [Sink, Sink];
        sinks[0].send(count);
        let n = owned.call() + owned.call();
        let text = owned.send(&n.to_string());
        let send = move |x: u8| tx.send(x.to_string());
        send(3)?;
        let closure = || self.texts.send("closure".into());
        closure()?;
        Ok(text.len())
    }
}

struct Sink;

fn bump() -> Sink {
    Sink
}

impl Sink {
    fn send(&mut self, n: &mut u8) {
        *n += 1;
    }
}

#[test]
fn other_types_keep_their_methods() {
    let (jobs, got_jobs) = mpsc::channel();
    let (texts, got_texts) = mpsc::channel();
    let (bytes, _keep) = mpsc::channel();
    let hub = Hub {
        jobs,
        texts,
        shared: Mutex::new(bytes),
    };
    let mut count = 0;
    assert_eq!(hub.all(Builder("ab".into()), &mut count).unwrap(), "ab!!7".len());
    assert_eq!(count, 3);
    assert_eq!(got_jobs.try_iter().map(|job| job(1)).sum::<i32>(), 2);
    assert_eq!(
        got_texts.try_iter().collect::<Vec<_>>(),
        ["", "a", "0", "again", "3", "closure"]
    );
}

#[allow(clippy::ptr_arg, reason = "a reference to a named type, as transports take")]
trait Mailer {
    fn send(&self, text: &String) -> impl Future<Output = usize> + Send;
}

struct Post;

impl Mailer for Post {
    async fn send(&self, text: &String) -> usize {
        tokio::task::yield_now().await;
        text.len()
    }
}

#[egress(recipient = "nobody")]
async fn generic<M: Mailer + Sync, T: Clone + Default + Send>(mailer: &M, tx: tokio::sync::mpsc::Sender<T>) -> usize {
    tx.send(Default::default()).await.ok();
    let awaited = mailer.send(&format!("{}", 12)).await;
    let timed = tokio::time::timeout(std::time::Duration::from_secs(5), mailer.send(&format!("{}", 123))).await;
    awaited + timed.unwrap_or(0)
}

/// What `#[async_trait]` makes of a method.
#[egress(recipient = "nobody")]
fn boxed<'a>(url: &'a str) -> Pin<Box<dyn Future<Output = Result<u16, ureq::Error>> + Send + 'a>> {
    Box::pin(async move {
        tokio::task::yield_now().await;
        Ok(ureq::get(url).call()?.status().as_u16())
    })
}

#[egress(recipient = "nobody")]
fn lazily(urls: &[String]) -> impl Iterator<Item = bool> + '_ {
    urls.iter().map(|url| ureq::get(url).call().is_ok())
}

#[test]
fn futures_stay_send_and_generic() {
    let evidence = Evidence::default();
    let _scoped = evidence.scoped();
    let partner = Partner::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .worker_threads(1)
        .build()
        .unwrap();
    let (tx, mut rx) = tokio::sync::mpsc::channel::<Arc<str>>(1);
    let n = runtime.block_on(async { tokio::spawn(async move { generic(&Post, tx).await }).await.unwrap() });
    assert_eq!(n, 5);
    assert_eq!(rx.blocking_recv().as_deref(), Some(""));
    let url = partner.url("/b");
    assert_eq!(runtime.block_on(boxed(&url)).unwrap(), 200);
    assert_eq!(lazily(&[url.clone(), url]).filter(|ok| *ok).count(), 2);
    assert_eq!(evidence.of("DATA_SHARE").len(), 3);
}
