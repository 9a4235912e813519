#![deny(warnings)]
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use diesel::prelude::*;
use provenance::{Tracked, egress};
use reqwest::{Client, Request, RequestBuilder, Response, blocking};
use reqwest_middleware::ClientWithMiddleware;

static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);

/// Nobody listens there.
const URL: &str = "http://127.0.0.1:9/";

diesel::table! { notes (id) { id -> Integer, text -> Text } }

#[derive(Tracked, serde::Serialize)]
struct Mail {
    #[tracked("contact.email")]
    to: String,
}

#[async_trait::async_trait]
trait Partner {
    async fn tell<T: serde::Serialize + Sync>(&self, body: &T) -> reqwest::Result<Response>;
    async fn ask(&self, url: &str) -> Result<u16, reqwest_middleware::Error>;
}

struct Api {
    client: Client,
    stack: Arc<ClientWithMiddleware>,
    builder: Cell<Option<RequestBuilder>>,
}

struct Shared {
    client: Client,
    stack: Arc<ClientWithMiddleware>,
}

#[async_trait::async_trait]
impl Partner for Shared {
    #[egress(recipient = "partner")]
    async fn tell<T: serde::Serialize + Sync>(&self, body: &T) -> reqwest::Result<Response> {
        let request = self.client.post(URL).json(body);
        let request = request.try_clone().unwrap_or(request);
        request.send().await?.error_for_status()
    }

    #[egress(recipient = "partner")]
    async fn ask(&self, url: &str) -> Result<u16, reqwest_middleware::Error> {
        let request = self.stack.get(url);
        if url.is_empty() {
            return self.stack.execute(Request::new(reqwest::Method::GET, URL.parse().unwrap())).await.map(|_| 1);
        }
        Ok(request.send().await?.status().as_u16())
    }
}

impl Api {
    #[egress(recipient = "partner", name = "Api::all", allow("contact.email"))]
    async fn all(&self, #[payload] mail: &Mail) -> Result<u16, Box<dyn std::error::Error>> {
        let sent = self.client.post(URL).json(mail).send().await;
        let kept = self.builder.take().map(|builder| builder.send());
        if let Some(kept) = kept {
            kept.await.ok();
        }
        self.client.execute(self.client.get(URL).build()?).await.ok();
        self.stack.execute(self.client.get(URL).build()?).await.ok();
        CLIENT.execute(CLIENT.get(URL).build()?).await.ok();
        let either = if sent.is_ok() { CLIENT.get(URL) } else { CLIENT.head(URL) };
        let answer = match either.send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(error) if error.is_connect() => 7,
            Err(error) => return Err(error.into()),
        };
        let urls = [URL; 2];
        let mut failed = 0;
        for url in urls {
            let retry = async |url: &str| CLIENT.get(url).send().await;
            failed += u16::from(retry(url).await.is_err());
            failed += u16::from(async { CLIENT.get(url).send().await }.await.is_err());
        }
        Ok(answer + failed)
    }
}

#[egress(recipient = "partner")]
fn boxed<'a>(url: &'a str) -> Pin<Box<dyn Future<Output = reqwest::Result<Response>> + Send + 'a>> {
    Box::pin(CLIENT.get(url).send())
}

#[egress(recipient = "partner")]
fn opaque(request: RequestBuilder) -> impl Future<Output = reqwest::Result<Response>> + Send + 'static {
    request.send()
}

#[egress(recipient = "partner")]
fn blocks(client: &blocking::Client, urls: &[&str]) -> reqwest::Result<usize> {
    let request = client.get(URL);
    let failed = request.send().is_err();
    let all = urls.iter().filter(|url| client.get(**url).send().is_err()).count();
    client.execute(client.get(URL).build()?).err();
    Ok(all + usize::from(failed))
}

/// Its methods are named like a client's.
struct Signal {
    sent: Cell<u32>,
}

impl Signal {
    fn send(&self) -> u32 {
        self.sent.replace(self.sent.get() + 1)
    }

    async fn execute(&mut self, by: &str) -> usize {
        self.send();
        by.len()
    }
}

struct Job(String);

impl Job {
    fn send(self) -> impl Future<Output = String> {
        async move { self.0 }
    }

    fn execute<T: Default + PartialEq>(&self, by: T) -> bool {
        by == T::default()
    }
}

/// Borrowed, moved, awaited, and by reference.
#[egress(recipient = "nobody")]
async fn others(signal: &mut Signal, job: Job, db: &mut SqliteConnection) -> QueryResult<usize> {
    let first = signal.send() + signal.send();
    let length = signal.execute(&format!("{first}")).await + signal.execute("by").await;
    let defaults = job.execute::<u8>(0) && job.execute(String::new()) && job.execute(String::from(""));
    let text = job.send().await;
    diesel::sql_query("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").execute(db)?;
    let insert = diesel::insert_into(notes::table).values((notes::id.eq(1), notes::text.eq(&text)));
    let inserted = insert.execute(db)?;
    let deleted = diesel::delete(notes::table);
    Ok(length + usize::from(defaults) + text.len() + inserted + deleted.execute(db)?)
}

fn is_send<T: Send>(value: T) -> T {
    value
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stack = Arc::new(ClientWithMiddleware::from(Client::new()));
    let mail = Mail { to: "a@b.example".into() };
    runtime.block_on(async {
        let builder = Cell::new(Some(CLIENT.get(URL)));
        let api = Api { client: Client::new(), stack: stack.clone(), builder };
        assert_eq!(api.all(&mail).await.unwrap(), 11);
        let shared = Shared { client: Client::new(), stack };
        assert!(is_send(shared.tell(&mail)).await.unwrap_err().is_connect());
        assert!(shared.ask(URL).await.is_err() && shared.ask("").await.is_err());
        assert!(boxed(URL).await.is_err());
        assert!(is_send(opaque(CLIENT.get(URL))).await.is_err());
        let mut signal = Signal { sent: Cell::new(0) };
        let mut db = SqliteConnection::establish(":memory:").unwrap();
        assert_eq!(others(&mut signal, Job("job".into()), &mut db).await.unwrap(), 3 + 1 + 3 + 1 + 1);
        assert_eq!(signal.sent.get(), 4);
    });
    assert_eq!(blocks(&blocking::Client::new(), &[URL; 3]).unwrap(), 4);
}
