//! A partner for the demo: answers all three roles on loopback, and keeps nothing.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::thread;

use serde_json::{Value as Json, json};
use tiny_http::{Header, Response, Server};

/// Starts the stub on a free port; it answers until the process ends.
pub fn start() -> io::Result<SocketAddr> {
    let server = Server::http("127.0.0.1:0").map_err(io::Error::other)?;
    let address = server
        .server_addr()
        .to_ip()
        .ok_or_else(|| io::Error::other("the stub partner has no address"))?;
    thread::Builder::new().name("stub-partner".into()).spawn(move || {
        for mut request in server.incoming_requests() {
            let body: Json = serde_json::from_reader(request.as_reader()).unwrap_or_default();
            let response = answer(request.url(), &body);
            // A caller that hung up is its own business.
            let _ = request.respond(response);
        }
    })?;
    Ok(address)
}

fn answer(path: &str, body: &Json) -> Response<Cursor<Vec<u8>>> {
    let (status, answer) = match path {
        "/marketing/v1/subscribers" => (201, json!({"subscribed": true})),
        "/scoring/v1/score" => {
            let income = body["income"].as_f64().unwrap_or_default();
            (200, json!({"score": (income / 10.0).clamp(300.0, 850.0).round()}))
        }
        "/ai/v1/responses" => (
            200,
            json!({"output_text": "Pay yourself first, review subscriptions, and set one goal a month."}),
        ),
        _ => (404, json!({"error": "no such path"})),
    };
    let response = Response::from_string(answer.to_string()).with_status_code(status);
    match Header::from_bytes("content-type", "application/json") {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}
