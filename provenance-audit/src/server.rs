//! The audit API over HTTP: one thread that serves connections, a few that read the evidence.
//!
//! hyper, not `tiny_http`: a host must survive whoever can reach the port. `tiny_http` 0.12 allocates
//! what `Content-Length` declares when it drops a request, so that one request without a token aborts
//! the process; it also has no time-outs, no cap on the head, and a thread for every connection.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::api::{Api, Request, Response};

/// Requests that read the evidence at the same time.
const READERS: usize = 4;
/// Connections at the same time; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 256;
/// The request line and all headers, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send a head, or to think of the next request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// After this a connection finishes the request in hand and closes, so that a client which does not
/// read its answer cannot hold it.
const CONNECTION_AGE: Duration = Duration::from_secs(60);
const LAST_PATIENCE: Duration = Duration::from_secs(5);

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
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let api = api.clone();
                tokio::spawn(async move {
                    connection(stream, api).await;
                    drop(slot);
                });
            }
            // Out of file descriptors, or a client that left already: the host may free some.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream, api: Arc<Api>) {
    let service = service_fn(|request| respond(api.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Errors are the client's: it left, or does not speak HTTP.
    if timeout(CONNECTION_AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_PATIENCE, connection).await;
    }
}

async fn respond(api: Arc<Api>, request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let request = head(&request);
    let response = tokio::task::spawn_blocking(move || api.handle(&request)).await;
    Ok(match response {
        Ok(response) => answer(response),
        Err(_) => status(500),
    })
}

/// The request without its body, which is never read.
fn head(request: &hyper::Request<Incoming>) -> Request {
    let mut headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_owned()))
        .collect();
    if let Some(authority) = request.uri().authority() {
        headers.push(("host".into(), authority.as_str().into()));
    }
    Request {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
        headers,
    }
}

fn answer(response: Response) -> hyper::Response<Full<Bytes>> {
    let mut builder = hyper::Response::builder().status(response.status);
    for (name, value) in response.headers {
        builder = builder.header(name, value);
    }
    builder
        .body(Full::new(response.body.into()))
        .unwrap_or_else(|_| status(500))
}

fn status(status: u16) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}
