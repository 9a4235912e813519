//! Who may ask: a token, the session that a token opened, or else the loopback `Host`; and what that opens.

mod sessions;
mod throttle;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use provenance::config::AuditRole;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::{Options, Refusal, Request};
use sessions::Sessions;
use throttle::Throttle;

/// The query parameter that may carry the token.
pub(crate) const QUERY_TOKEN: &str = "audit_token";
/// The form field that a page of ours adds, and that a page of others cannot know.
pub(crate) const FORM_KEY: &str = "form_key";
/// A session ends this long after its sign-in.
pub(crate) const SESSION_SECONDS: u64 = 8 * 3600;

pub(crate) struct Access {
    /// None: only loopback is served.
    tokens: Vec<Known>,
    query_token: bool,
    cookie: String,
    /// Makes form keys; `None` where the system gave no random bytes: no form is taken then.
    secret: Option<[u8; 32]>,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
}

/// Digests are compared, not tokens: they have one length, and the token itself is not kept.
struct Known {
    name: String,
    digest: [u8; 32],
    roles: Vec<AuditRole>,
}

/// Whom a request comes from.
#[derive(Clone)]
pub(crate) struct Caller {
    name: String,
    roles: Vec<AuditRole>,
    by: By,
}

#[derive(Clone)]
enum By {
    Loopback,
    Header,
    Query,
    Session([u8; 32]),
}

impl Caller {
    pub(crate) fn may(&self, role: AuditRole) -> bool {
        self.roles.contains(&role)
    }

    /// # Errors
    /// 403, naming the role.
    pub(crate) fn must(&self, role: AuditRole) -> Result<(), Refusal> {
        if self.may(role) {
            return Ok(());
        }
        let role = match role {
            AuditRole::Read => "read",
            AuditRole::Subject => "subject",
            AuditRole::Erase => "erase",
        };
        Err(Refusal::new(403, format!("this token lacks the role `{role}`")))
    }

    /// As the access log shows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn has_session(&self) -> bool {
        matches!(self.by, By::Session(_))
    }

    pub(crate) fn by_query(&self) -> bool {
        matches!(self.by, By::Query)
    }
}

impl Access {
    pub(crate) fn new(options: &Options, evidence: &str) -> Self {
        let main = (!options.token.is_empty()).then(|| Known {
            name: "audit_token".to_owned(),
            digest: digest(options.token.as_bytes()),
            roles: vec![AuditRole::Read, AuditRole::Subject],
        });
        let named = options.tokens.iter().filter(|named| !named.token.0.is_empty());
        let named = named.map(|named| Known {
            name: named.name.clone(),
            digest: digest(named.token.0.as_bytes()),
            roles: named.roles.clone(),
        });
        // Cookies know no ports: two servers of one machine must not share theirs.
        let [a, b, c, d, ..] = digest(evidence.as_bytes());
        Access {
            tokens: main.into_iter().chain(named).collect(),
            query_token: options.query_token,
            cookie: format!("provenance_audit_{a:02x}{b:02x}{c:02x}{d:02x}"),
            secret: random(),
            sessions: Mutex::default(),
            throttle: Mutex::default(),
        }
    }

    pub(crate) fn is_protected(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// # Errors
    /// 401, 403 and 429, which tell nothing of what is asked for.
    pub(crate) fn check(&self, request: &Request, query: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<Caller, Refusal> {
        if !self.is_protected() {
            return match names_loopback(&request.headers) {
                true => Ok(Caller {
                    name: "local".to_owned(),
                    roles: vec![AuditRole::Read, AuditRole::Subject],
                    by: By::Loopback,
                }),
                false => Err(Refusal::new(
                    403,
                    "without an audit token only requests to localhost, 127.0.0.1 or [::1] by that name are served",
                )),
            };
        }
        if let Some(caller) = self.session(&request.headers) {
            return Ok(caller);
        }
        let from_headers: Vec<&[u8]> = tokens_of(&request.headers).collect();
        let changes = !matches!(request.method.as_str(), "GET" | "HEAD");
        let from_query: Vec<&[u8]> = query
            .iter()
            .filter(|(name, value)| self.query_token && !changes && name == QUERY_TOKEN && !value.is_empty())
            .map(|(_, value)| value.as_bytes())
            .collect();
        let by = match from_headers.is_empty() {
            true => By::Query,
            false => By::Header,
        };
        let given: Vec<&[u8]> = from_headers.into_iter().chain(from_query).collect();
        if given.is_empty() {
            return Err(unauthorised());
        }
        let known = self.known(&given, request.client)?;
        Ok(Caller {
            name: known.name.clone(),
            roles: known.roles.clone(),
            by,
        })
    }

    /// The token among those that were given. Attempts that fail cost their client, and one that has
    /// spent too much must wait before it is listened to.
    fn known(&self, given: &[&[u8]], client: Option<IpAddr>) -> Result<&Known, Refusal> {
        lock(&self.throttle).admit(client)?;
        // All that are given are compared with all that are known, so that time tells nothing.
        let mut found = None;
        for (index, known) in self.tokens.iter().enumerate() {
            let equal = given.iter().fold(false, |equal, given| {
                equal | bool::from(digest(given).ct_eq(&known.digest))
            });
            if equal {
                found = found.or(Some(index));
            }
        }
        match found.and_then(|index| self.tokens.get(index)) {
            Some(known) => Ok(known),
            None => {
                lock(&self.throttle).failed(client);
                Err(unauthorised())
            }
        }
    }

    /// Opens a session; gives the cookie's header.
    ///
    /// # Errors
    /// 401 and 429, as [`Access::check`].
    pub(crate) fn sign_in(&self, token: &str, request: &Request) -> Result<String, Refusal> {
        let token = token.trim();
        if token.is_empty() {
            return Err(unauthorised());
        }
        let known = self.known(&[token.as_bytes()], request.client)?;
        self.open_session(&known.name, request)
    }

    /// A session for somebody who brought a token already.
    pub(crate) fn open_session(&self, name: &str, request: &Request) -> Result<String, Refusal> {
        let id = random().ok_or_else(|| Refusal::new(500, "the system gives no random bytes for a session"))?;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        lock(&self.sessions).open(digest(hex.as_bytes()), name);
        Ok(self.cookie(&hex, SESSION_SECONDS, request))
    }

    /// Ends a session; gives the header that removes the cookie.
    pub(crate) fn sign_out(&self, caller: &Caller, request: &Request) -> String {
        if let By::Session(id) = &caller.by {
            lock(&self.sessions).close(id);
        }
        self.cookie("", 0, request)
    }

    fn cookie(&self, value: &str, seconds: u64, request: &Request) -> String {
        let secure = if request.is_https() { "; Secure" } else { "" };
        let name = &self.cookie;
        format!("{name}={value}; Path=/runtime-audit; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    fn session(&self, headers: &[(String, Vec<u8>)]) -> Option<Caller> {
        let cookies = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        let pairs = cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';'));
        let mut given = pairs.filter_map(|pair| {
            let pair = pair.trim_ascii();
            pair.strip_prefix(self.cookie.as_bytes())?.strip_prefix(b"=")
        });
        given.find_map(|id| {
            let id = digest(id);
            let name = lock(&self.sessions).get(&id)?;
            let known = self.tokens.iter().find(|known| known.name == name)?;
            Some(Caller {
                name,
                roles: known.roles.clone(),
                by: By::Session(id),
            })
        })
    }

    /// A short word that only this process can make, for these parts.
    ///
    /// # Errors
    /// 500: the system gave no random bytes at the start.
    pub(crate) fn word<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> Result<String, Refusal> {
        let secret = self
            .secret
            .ok_or_else(|| Refusal::new(500, "the system gives no random bytes for a confirmation"))?;
        let mut hash = Sha256::new_with_prefix(secret);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let hex: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(format!(
            "{}-{}",
            hex.get(..4).unwrap_or_default(),
            hex.get(4..).unwrap_or_default()
        ))
    }

    /// What a form on a page for this caller carries.
    pub(crate) fn form_key(&self, caller: &Caller) -> String {
        let id = match &caller.by {
            By::Session(id) => *id,
            _ => [0; 32],
        };
        let key = digest(&[self.secret.unwrap_or_default(), id].concat());
        key.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a form comes from a page that this caller was shown. Who brings a token with the form needs
    /// no proof: no page of others knows it.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check_form(&self, caller: &Caller, given: Option<&str>) -> Result<(), Refusal> {
        let expected = self.form_key(caller);
        let brought = bool::from(given.unwrap_or("").as_bytes().ct_eq(expected.as_bytes()));
        if brought && self.secret.is_some() || matches!(caller.by, By::Header) {
            return Ok(());
        }
        Err(Refusal::new(
            403,
            "this form is not one that was shown to you, or its session has ended: open the page again",
        ))
    }
}

/// What a browser says of the page that a request comes from must be this one.
///
/// # Errors
/// 403.
pub(crate) fn check_origin(request: &Request) -> Result<(), Refusal> {
    let foreign = || Refusal::new(403, "this request comes from another site");
    if let Some(site) = request.header("sec-fetch-site")
        && !matches!(site, "same-origin" | "none")
    {
        return Err(foreign());
    }
    match request.header("origin") {
        // Pages that send no referrer say `null` of themselves: the form's key tells who they are.
        None | Some("null") => Ok(()),
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            match host.is_some() && host == request.header("host") {
                true => Ok(()),
                false => Err(foreign()),
            }
        }
    }
}

fn unauthorised() -> Refusal {
    Refusal::new(401, "unauthorised")
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tokens_of(headers: &[(String, Vec<u8>)]) -> impl Iterator<Item = &[u8]> {
    let given = headers.iter().filter_map(|(name, value)| {
        if name.eq_ignore_ascii_case("x-audit-token") {
            Some(value.as_slice())
        } else if name.eq_ignore_ascii_case("authorization") {
            bearer(value)
        } else {
            None
        }
    });
    given.filter(|token| !token.is_empty())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// A page of another site whose name was made to point to this machine (DNS rebinding) still sends
/// its own name as `Host`. Every `Host` must name loopback, and there must be one.
fn names_loopback(headers: &[(String, Vec<u8>)]) -> bool {
    let mut hosts = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| std::str::from_utf8(value).ok().and_then(without_port))
        .peekable();
    hosts.peek().is_some()
        && hosts.all(|host| {
            host.is_some_and(|host| {
                host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            })
        })
}

/// `localhost:8787` -> `localhost`, `[::1]:8787` -> `::1`.
fn without_port(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => port.parse::<u16>().ok().map(|_| name),
        None => rest.is_empty().then_some(name),
    }
}
