//! The API as a router, for hosts that serve it from their own port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http;
use axum::routing::any;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use provenance::Tracker;

use crate::Error;
use crate::api::{self, Api, MAX_BODY, Options, Request, Response, Source};
use crate::outgoing::Outgoing;

/// The audit API and its pages below `/runtime-audit`, to be merged into a host's router.
///
/// It is refused without a token: whoever reaches the host reaches it. Time-outs and the number of connections
/// are the host's. Where its server tells who connects (`into_make_service_with_connect_info::<SocketAddr>()`), wrong
/// tokens are counted by address; else all clients share one account.
///
/// # Errors
/// [`Error::NoToken`], [`Error::Storage`].
pub fn router<S: Clone + Send + Sync + 'static>(tracker: Tracker) -> Result<Router<S>, Error> {
    let options = Options::of(tracker.config());
    let api = Api::new(Source::Tracker(tracker), &options)?;
    if !api.is_protected() {
        return Err(Error::NoToken);
    }
    let api = Arc::new(api);
    let serve = move |request: http::Request<Body>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(respond(api, request).await) }
    };
    Ok(Router::new()
        .route("/runtime-audit", any(serve.clone()))
        .route("/runtime-audit/", any(serve.clone()))
        .route("/runtime-audit/{*path}", any(serve)))
}

async fn respond(api: Arc<Api>, request: http::Request<Body>) -> http::Response<Body> {
    let (head, body) = request.into_parts();
    let client = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_owned()))
        .collect();
    if let Some(authority) = head.uri.authority() {
        headers.push(("host".into(), authority.as_str().into()));
    }
    let body = match head.method.as_str() {
        "POST" => match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(error) if error.is::<LengthLimitError>() => return answer(api::unread(413)),
            Err(_) => return answer(api::unread(400)),
        },
        _ => Vec::new(),
    };
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers,
        body,
        client,
    };
    let response = tokio::task::spawn_blocking(move || api.handle(&request)).await;
    answer(response.unwrap_or_else(|_| api::unread(500)))
}

fn answer(response: Response) -> http::Response<Body> {
    let body = match response.body {
        api::Body::Whole(body) => Body::from(body),
        // A client that takes nothing any more is the host's server's to close; the export ends all the same.
        api::Body::Stream(stream) => match Outgoing::written(stream, || {}) {
            Ok(body) => Body::new(body),
            Err(_) => return answer(api::unread(500)),
        },
    };
    let mut builder = http::Response::builder().status(response.status);
    for (name, value) in response.headers {
        builder = builder.header(name, &*value);
    }
    builder
        .body(body)
        .unwrap_or_else(|_| http::Response::new(Body::empty()))
}
