//! The audit API over HTTP: one thread that serves connections, a few that read the evidence.
//!
//! hyper, not `tiny_http`: a host must survive whoever can reach the port. `tiny_http` 0.12 allocates
//! what `Content-Length` declares when it drops a request, so that one request without a token aborts
//! the process; it also has no time-outs, no cap on the head, and a thread for every connection.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::http::{HeaderValue, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::api::{self, Api, MAX_BODY, Request, Response};
use crate::outgoing::Outgoing;

/// Requests that read the evidence at the same time.
const READERS: usize = 4;
/// Connections at the same time.
const MAX_CONNECTIONS: usize = 256;
/// The request line and all headers, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send a head, or to think of the next request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to send a body.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// After this a connection finishes the request in hand and closes, so that a client which does not
/// read its answer cannot hold it.
const CONNECTION_AGE: Duration = Duration::from_secs(60);
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of answers that wait for clients to read them, of all connections together.
const MAX_UNREAD: u64 = 64 << 20;

/// A running audit server. Dropping it stops it.
#[must_use = "dropping the server stops it"]
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `api` on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Error::Unprotected`] and [`Error::Bind`].
    pub fn start(api: Api, addr: impl ToSocketAddrs + std::fmt::Debug) -> Result<Self, Error> {
        let failed = |source| Error::Bind {
            addr: format!("{addr:?}"),
            source,
        };
        let listener = TcpListener::bind(&addr).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        // Checked on what was bound, as a name may resolve to anything; nothing is accepted before.
        if !api.is_protected() && !bound.ip().is_loopback() {
            return Err(Error::Unprotected(bound));
        }
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(READERS)
            .build()
            .map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("provenance-audit".into())
            .spawn(move || {
                // `stopped` ends with a message, or with the handle itself.
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, Arc::new(api)) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_timeout(LAST_PATIENCE);
            })
            .map_err(failed)?;
        Ok(Server {
            addr: bound,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The address that is served.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the process ends.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // It ends with the process only: `self` holds the other end of `stopped`.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, api: Arc<Api>) {
    let connections = Arc::new(Connections::default());
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let slot = connections.clone().slot().await;
                let api = api.clone();
                tokio::spawn(connection(stream, client.ip(), api, slot));
            }
            // Out of file descriptors, or a client that left already: the host may free some.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The connections in hand. Where there are too many, or too much waits to be read, the one that has done nothing for
/// the longest time goes: slow clients take places from each other, not from who asks.
#[derive(Default)]
struct Connections {
    open: Mutex<BTreeMap<u64, Open>>,
    last: AtomicU64,
    freed: Notify,
}

struct Open {
    /// When it last had to do with us; `None` while its request is answered.
    since: Option<Instant>,
    /// Bytes of its answer that it has not taken.
    unread: u64,
    close: Arc<Notify>,
}

/// One connection's place.
struct Slot {
    number: u64,
    /// Whether an export is being sent.
    exports: AtomicBool,
    close: Arc<Notify>,
    connections: Arc<Connections>,
}

impl Connections {
    async fn slot(self: Arc<Self>) -> Slot {
        loop {
            // Made before looking, so that a place that is freed in between wakes it.
            let freed = self.freed.notified();
            if let Some(slot) = self.try_slot() {
                return slot;
            }
            freed.await;
        }
    }

    fn try_slot(self: &Arc<Self>) -> Option<Slot> {
        let mut open = self.open();
        if open.len() >= MAX_CONNECTIONS && !end_one(&mut open, |_| true) {
            return None;
        }
        let (number, close) = (self.last.fetch_add(1, Ordering::Relaxed), Arc::new(Notify::new()));
        let connection = Open {
            since: Some(Instant::now()),
            unread: 0,
            close: close.clone(),
        };
        open.insert(number, connection);
        Some(Slot {
            number,
            exports: AtomicBool::new(false),
            close,
            connections: self.clone(),
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the connection among these that has been idle for the longest time.
fn end_one(open: &mut BTreeMap<u64, Open>, among: impl Fn(&Open) -> bool) -> bool {
    let idle = open.iter().filter(|(_, connection)| among(connection));
    let idle = idle.filter_map(|(number, connection)| Some((connection.since?, *number)));
    let oldest = idle.min().and_then(|(_, oldest)| open.remove(&oldest));
    if let Some(gone) = &oldest {
        gone.close.notify_one();
    }
    oldest.is_some()
}

impl Slot {
    /// Its request is answered now.
    fn is_busy(&self) {
        if let Some(connection) = self.connections.open().get_mut(&self.number) {
            connection.since = None;
        }
    }

    /// It has so many bytes of its answer to read yet.
    fn has_to_read(&self, unread: u64) {
        let mut open = self.connections.open();
        if let Some(connection) = open.get_mut(&self.number) {
            connection.since.get_or_insert_with(Instant::now);
            connection.unread = unread;
        }
        while open.values().map(|connection| connection.unread).sum::<u64>() > MAX_UNREAD
            && end_one(&mut open, |connection| connection.unread > 0)
        {}
        drop(open);
        self.connections.freed.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
        self.connections.freed.notify_one();
    }
}

async fn connection(stream: TcpStream, client: IpAddr, api: Arc<Api>, slot: Slot) {
    let slot = Arc::new(slot);
    let service = service_fn(|request| respond(api.clone(), client, request, slot.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Errors are the client's: it left, or does not speak HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = slot.close.notified() => return,
        () = sleep(CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = slot.close.notified() => return,
            // An export goes on for as long as its client takes something.
            () = sleep(LAST_PATIENCE) => if !slot.exports.load(Ordering::Acquire) { return },
        }
    }
}

async fn respond(
    api: Arc<Api>,
    client: IpAddr,
    request: hyper::Request<Incoming>,
    slot: Arc<Slot>,
) -> Result<hyper::Response<Unread>, Infallible> {
    let response = match whole(request, client).await {
        Ok(request) => {
            slot.is_busy();
            let answered = tokio::task::spawn_blocking(move || api.handle(&request)).await;
            answered.unwrap_or_else(|_| api::unread(500))
        }
        Err(status) => api::unread(status),
    };
    Ok(answer(response, slot))
}

/// The request with its body, if it may have one; else the status of the refusal.
async fn whole(request: hyper::Request<Incoming>, client: IpAddr) -> Result<Request, u16> {
    let (head, body) = request.into_parts();
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_owned()))
        .collect();
    if let Some(authority) = head.uri.authority() {
        headers.push(("host".into(), authority.as_str().into()));
    }
    let body = match head.method.as_str() {
        "POST" if body.size_hint().lower() > MAX_BODY as u64 => return Err(413),
        "POST" => match timeout(BODY_PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes().to_vec(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(413),
            Ok(Err(_)) => return Err(400),
            Err(_) => return Err(408),
        },
        // Never read.
        _ => Vec::new(),
    };
    Ok(Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers,
        body,
        client: Some(client),
    })
}

fn answer(response: Response, slot: Arc<Slot>) -> hyper::Response<Unread> {
    let body = match response.body {
        api::Body::Whole(body) => Outgoing::whole(body),
        api::Body::Stream(stream) => {
            let close = slot.close.clone();
            match Outgoing::written(stream, move || close.notify_one()) {
                Ok(body) => body,
                Err(_) => return answer(api::unread(500), slot),
            }
        }
    };
    let mut answer = hyper::Response::new(Unread::new(body, slot));
    *answer.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

/// The body of an answer, as far as the client has not taken it. While an export is sent the connection is busy.
struct Unread {
    body: Outgoing,
    slot: Arc<Slot>,
}

impl Unread {
    fn new(body: Outgoing, slot: Arc<Slot>) -> Self {
        match body.size_hint().exact() {
            Some(length) => slot.has_to_read(length),
            None => slot.exports.store(true, Ordering::Release),
        }
        Unread { body, slot }
    }
}

impl Body for Unread {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Some(length) = self.body.size_hint().exact() {
            self.slot.has_to_read(length);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.slot.exports.store(false, Ordering::Release);
        self.slot.has_to_read(0);
    }
}
