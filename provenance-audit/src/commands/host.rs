//! A running host, asked over HTTP.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value as Json;
use ureq::http::Uri;

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const MAX_BODY: u64 = 32 << 20;
/// Characters of an application's answer that are shown.
const MAX_TEXT: usize = 200;

/// The audit API of a host.
pub(super) struct Host {
    agent: ureq::Agent,
    base: String,
    token: String,
}

/// One answer of any server.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) cookies: Vec<String>,
    /// The start of its text, on one line.
    pub(super) text: String,
}

/// What is sent to an application.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Host {
    /// `url` is where the audit API listens, with or without `/runtime-audit`.
    pub(super) fn new(url: &str, token: String) -> Result<Self, String> {
        let base = url.trim_end_matches('/').trim_end_matches("/runtime-audit");
        plain_http(base).map_err(|why| format!("--url: {why}"))?;
        Ok(Host {
            agent: agent(),
            base: base.to_owned(),
            token,
        })
    }

    /// Whether the host is this machine.
    pub(super) fn is_near(&self) -> bool {
        let uri = self.base.parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    pub(super) fn shown(&self) -> &str {
        &self.base
    }

    /// The JSON behind a path of the audit API; why not, in plain words.
    pub(super) fn get(&self, path: &str) -> Result<Json, String> {
        let mut request = self.agent.get(format!("{}/runtime-audit/{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("x-audit-token", &self.token);
        }
        let mut response = request.call().map_err(|error| match error {
            ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
            ureq::Error::Io(error) => format!("it cannot be reached ({})", error.kind()),
            ureq::Error::HostNotFound => "there is no host of this name".to_owned(),
            _ => "it does not speak HTTP as expected".to_owned(),
        })?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec();
        let body: Option<Json> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
        match (status, body) {
            (200, Some(body)) => Ok(body),
            (401, _) => Err("it asks for a token: name the variable that holds it with --token-env".to_owned()),
            (403, _) => Err("it serves only requests that name localhost, as no audit token is set".to_owned()),
            (404, _) => Err("it has no audit API here: is this the audit address, or the application's?".to_owned()),
            (status, _) => Err(format!("it answers {status}, and not as the audit API does")),
        }
    }
}

/// Sends `call` once: redirects are not followed.
pub(super) fn send(call: Call<'_>) -> Result<Answer, String> {
    let mut request = ureq::http::Request::builder().method(call.method).uri(call.url);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(call.body)
        .map_err(|_| "not a request that can be sent".to_owned())?;
    let mut response = agent().run(request).map_err(|error| match error {
        ureq::Error::Io(error) => format!("the application cannot be reached ({})", error.kind()),
        ureq::Error::Timeout(_) => "the application does not answer in time".to_owned(),
        _ => "the application does not speak HTTP as expected".to_owned(),
    })?;
    let cookies = response.headers().get_all("set-cookie").iter();
    let cookies = cookies
        .filter_map(|cookie| Some(cookie.to_str().ok()?.split(';').next()?.trim().to_owned()))
        .collect();
    let text = response.body_mut().with_config().limit(MAX_BODY).read_to_vec();
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(Answer {
        status: response.status().as_u16(),
        cookies,
        text: words.join(" ").chars().take(MAX_TEXT).collect(),
    })
}

/// Whether a request can be sent there.
pub(super) fn plain_http(url: &str) -> Result<(), String> {
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(()),
        Ok(uri) if uri.scheme_str() == Some("https") => {
            Err("this command speaks plain HTTP: run it beside the host, or through a tunnel".to_owned())
        }
        _ => Err("expected an address such as http://127.0.0.1:8787".to_owned()),
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build();
    ureq::Agent::new_with_config(config)
}
