#![deny(warnings)]
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};

use provenance::{Tracked, egress};

static AGENT: LazyLock<ureq::Agent> = LazyLock::new(ureq::agent);

/// Nobody listens there.
const URL: &str = "http://127.0.0.1:9/";

#[derive(Tracked, serde::Serialize)]
struct Mail {
    #[tracked("contact.email")]
    to: String,
}

type Job = Box<dyn Fn(i32) -> i32 + Send>;

struct Client {
    agent: Arc<ureq::Agent>,
    jobs: Sender<Job>,
    texts: Sender<String>,
    shared: Mutex<Vec<u8>>,
}

impl Client {
    #[egress(recipient = "partner", name = "Client::every", allow("contact.email"))]
    fn every<T: serde::Serialize + ?Sized>(&self, #[payload] mail: &Mail, body: &T) -> Result<u16, Box<dyn std::error::Error>> {
        let request = self.agent.post(URL).header("x", "y");
        let status = request.send_json(body).map(|answer| answer.status().as_u16());
        if status.is_ok() {
            return Ok(1);
        }
        let agent = ureq::agent();
        agent.run(ureq::http::Request::get(URL).body(())?).ok();
        agent.run(ureq::http::Request::get(URL).body("")?).ok();
        self.agent.run(ureq::http::Request::get(URL).body(())?).ok();
        AGENT.run(ureq::http::Request::get(URL).body(())?).ok();
        AGENT.get(URL).query("a", &mail.to).call().ok();
        self.jobs.send(Box::new(|x| x + 1))?;
        self.texts.send(Default::default())?;
        self.texts.send(String::from("x"))?;
        self.shared.lock().unwrap().push(match ureq::get(URL).call() {
            Ok(_) => 1,
            Err(_) => 0,
        });
        let mut retry = None;
        for n in 0..2 {
            let request = if n == 0 { ureq::get(URL) } else { ureq::head(URL) };
            if let Err(error) = request.call() {
                retry = Some(error);
                continue;
            }
            break;
        }
        let never = loop {
            match ureq::put(URL).send_empty() {
                Ok(answer) => break answer.status().as_u16(),
                Err(_) => break 7,
            }
        };
        Ok(never + u16::from(retry.is_some()))
    }

    #[egress(recipient = "partner")]
    async fn later(&self, url: String) -> impl Fn() -> bool + use<> {
        let handle = std::thread::spawn(move || ureq::get(&url).call().is_ok());
        let plain = std::thread::spawn(|| ureq::get(URL).call().is_ok());
        let both = handle.join().is_ok() && plain.join().is_ok();
        move || both && ureq::get(URL).call().is_ok()
    }
}

#[egress(recipient = "partner")]
fn boxed<'a>(url: &'a str) -> Pin<Box<dyn Future<Output = Result<(), ureq::Error>> + Send + 'a>> {
    Box::pin(async move {
        ureq::get(url).call()?;
        Ok(())
    })
}

#[egress(recipient = "smtp")]
fn whole(#[payload] Mail { to }: Mail) -> usize {
    if to.is_empty() {
        return 0;
    }
    to.len()
}

#[egress(recipient = "smtp", purpose = "receipts", basis = "contract", data_use = "essential.service")]
async fn whole_later(#[payload] mail: &mut Mail) -> Result<&str, std::num::ParseIntError> {
    "1".parse::<u8>()?;
    mail.to.push('!');
    Ok(&mail.to)
}

#[egress(recipient = "partner")]
fn builders(sink: &mut Vec<u8>, tx: Sender<u8>) -> impl Iterator<Item = bool> + use<> {
    trait Call {
        fn call(self) -> usize;
    }
    impl Call for &mut Vec<u8> {
        fn call(self) -> usize {
            self.push(1);
            self.len()
        }
    }
    let n = sink.call() + sink.call();
    tx.send(1).ok();
    tx.send(2).ok();
    drop(tx);
    (0..n).map(|_| ureq::get(URL).call().is_ok())
}

/// Not `Sync`, and its methods are named like a client's.
struct Mailer {
    sent: Cell<u32>,
    texts: Vec<String>,
}

impl Mailer {
    fn send(&self, by: u32) -> u32 {
        self.sent.set(self.sent.get() + by);
        by
    }

    fn call(&mut self) -> u32 {
        self.send(1)
    }

    fn send_json(&mut self, by: u32) -> u32 {
        self.send(by)
    }

    #[egress(recipient = "smtp")]
    fn borrowed(&mut self, #[payload] text: &str) -> Option<&mut String> {
        if text.is_empty() {
            return None;
        }
        self.texts.push(text.to_owned());
        self.texts.last_mut()
    }
}

struct Service {
    mailer: Mailer,
}

impl Service {
    #[egress(recipient = "partner")]
    fn in_closures(&mut self, other: Mailer) -> u32 {
        let borrowed: u32 = (0..3).map(|n| self.mailer.send(n)).sum();
        let mut again = || self.mailer.call();
        let twice = again() + again();
        let owned = move |n| other.send(n);
        borrowed + twice + owned(1) + owned(2)
    }

    #[egress(recipient = "partner")]
    async fn in_futures(&mut self) -> u32 {
        let first = async { self.mailer.call() }.await;
        first + async { self.mailer.call() }.await
    }
}

#[egress(recipient = "partner")]
async fn across_await(mut mailer: Mailer) -> u32 {
    mailer.send_json(later(2).await) + mailer.call()
}

async fn later(n: u32) -> u32 {
    n
}

fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing waits here"),
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

fn main() {
    let mailer = || Mailer { sent: Cell::new(0), texts: Vec::new() };
    assert_eq!(mailer().borrowed("a").map(|text| text.len()), Some(1));
    let mut service = Service { mailer: mailer() };
    assert_eq!(service.in_closures(mailer()), 8);
    assert_eq!(ready(service.in_futures()), 2);
    assert_eq!(ready(is_send(across_await(mailer()))), 3);

    let (jobs, got) = mpsc::channel();
    let (texts, _texts) = mpsc::channel();
    let agent = Arc::new(ureq::agent());
    let client = Client { agent, jobs, texts, shared: Mutex::default() };
    let mut mail = Mail { to: "a@b.example".into() };
    assert_eq!(client.every(&mail, "body").unwrap(), 8);
    assert_eq!(got.recv().unwrap()(1), 2);
    assert!(!ready(client.later(URL.into()))());
    assert!(ready(is_send(boxed(URL))).is_err());
    assert_eq!(ready(is_send(whole_later(&mut mail))).unwrap(), "a@b.example!");
    assert_eq!(whole(mail), 12);
    let (tx, rx) = mpsc::channel();
    assert_eq!(builders(&mut vec![0], tx).filter(|ok| *ok).count(), 0);
    assert_eq!(rx.iter().sum::<u8>(), 3);
}
