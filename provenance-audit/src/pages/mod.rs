//! What people look at: HTML from the same answers that the API gives as JSON. No script; nothing from elsewhere.

mod declared;
mod erase;
mod event;
mod events;
mod health;
mod incident;
mod lineage;
mod map;
mod parts;
mod person;
mod recipients;
mod sign_in;

use std::borrow::Cow;

use maud::{DOCTYPE, Markup, html};
use provenance::config::AuditRole;

use crate::access::{Caller, check_origin};
use crate::api::{Api, Refusal, Reply, Request, without_token};
use crate::params::Form;
use crate::sheet::STYLE;

const HTML: &str = "text/html; charset=utf-8";
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const ROOT: &str = "/runtime-audit/";

/// The pages, as the navigation lists them.
const NAVIGATION: [(&str, &str); 8] = [
    ("", "Map"),
    ("view/events", "Events"),
    ("view/lineage", "Lineage"),
    ("view/person", "Person"),
    ("view/recipients", "Recipients"),
    ("view/incident", "Incident"),
    ("view/declared", "Declared"),
    ("view/health", "Health"),
];

type Pairs<'a> = [(Cow<'a, str>, Cow<'a, str>)];

/// Whether a path is one of ours, there or not: errors are pages then.
pub(crate) fn is_page(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/runtime-audit") else {
        return false;
    };
    matches!(rest, "" | "/" | "/sign-in" | "/sign-out") || rest.starts_with("/view/")
}

/// What needs no access: the style sheet, and the way in.
pub(crate) fn public(api: &Api, request: &Request) -> Result<Option<Reply>, Refusal> {
    match (request.path.as_str(), request.is_reading()) {
        ("/runtime-audit/style.css", true) => Ok(Some(Reply::new("text/css; charset=utf-8", STYLE))),
        ("/runtime-audit/sign-in", false) if request.method == "POST" => {
            check_origin(request)?;
            let form = Form::read(&request.body);
            let cookie = match api.access().is_protected() {
                true => api.access().sign_in(form.get("token").unwrap_or(""), request)?,
                false => return Ok(Some(redirect(ROOT.to_owned()))),
            };
            let next = sign_in::checked_next(form.get("next").unwrap_or(""));
            Ok(Some(redirect(next).with("set-cookie", cookie)))
        }
        _ => Ok(None),
    }
}

/// A page, for somebody who may be here.
pub(crate) fn answer(api: &Api, request: &Request, pairs: &Pairs<'_>, caller: &Caller) -> Result<Reply, Refusal> {
    let path = request.path.as_str();
    if request.is_reading() && pairs.iter().any(|(name, _)| name == crate::access::QUERY_TOKEN) {
        // Out of the address, before it is in a history, a bookmark or a picture of the screen.
        let clean = redirect(without_token(path, pairs));
        return Ok(match caller.by_query() {
            true => clean.with("set-cookie", api.access().open_session(caller.name(), request)?),
            false => clean,
        });
    }
    let page = path.strip_prefix(ROOT).unwrap_or("");
    let takes_form = matches!(page, "view/person" | "view/incident" | "view/erase" | "sign-out");
    match request.method.as_str() {
        "GET" | "HEAD" if page != "sign-out" => {}
        "POST" if takes_form => {
            let form = Form::read(&request.body);
            api.access().check_form(caller, form.get(crate::access::FORM_KEY))?;
            return match page {
                "view/person" => person::found(api, caller, &form),
                "view/incident" => incident::found(api, caller, &form),
                "view/erase" => erase::found(api, caller, &form),
                _ => Ok(redirect(ROOT.to_owned()).with("set-cookie", api.access().sign_out(caller, request))),
            };
        }
        _ => {
            let methods = match (page, takes_form) {
                ("sign-out", _) => "POST",
                (_, true) => "GET, HEAD, POST",
                (_, false) => "GET, HEAD",
            };
            return Err(Refusal::new(405, format!("this page takes {methods}")).with("allow", methods));
        }
    }
    if path == "/runtime-audit" || page == "sign-in" {
        return Ok(redirect(ROOT.to_owned()));
    }
    match page {
        "view/person" | "view/incident" => caller.must(AuditRole::Subject)?,
        "view/erase" => caller.must(AuditRole::Erase)?,
        _ => caller.must(AuditRole::Read)?,
    }
    let here = Here { api, caller, page };
    match page {
        "" => map::show(&here, pairs),
        "view/events" => events::show(&here, pairs),
        "view/lineage" => lineage::show(&here, pairs),
        "view/person" => Ok(person::ask(&here)),
        "view/erase" => Ok(erase::ask(&here)),
        "view/recipients" => recipients::show(&here, pairs),
        "view/incident" => incident::ask(&here, pairs),
        "view/declared" => declared::show(&here, pairs),
        "view/health" => health::show(&here, pairs),
        _ => match page.strip_prefix("view/events/") {
            Some(event_id) => event::show(&here, event_id),
            None => Err(Refusal::new(404, "there is no page here")),
        },
    }
}

/// An error as a page; without access the way in.
pub(crate) fn refused(request: &Request, refusal: Refusal) -> Reply {
    let asks_for_token = refusal.status == 401 || refusal.status == 429;
    let mut reply = if asks_for_token {
        sign_in::show(request, &refusal)
    } else {
        let body = html! {
            h1 { (headline(refusal.status)) }
            p.lead { (refusal.message) }
            p { a href=(ROOT) { "To the map" } }
        };
        // What pages there are is told to who may be here.
        let is_inside = !matches!(refusal.status, 403 | 413 | 414);
        frame("Not shown", is_inside.then_some("none of them"), None, body)
    };
    reply.status = refusal.status;
    reply.headers.extend(refusal.headers);
    reply
}

fn headline(status: u16) -> &'static str {
    match status {
        400 => "That cannot be asked like this",
        403 => "Not allowed",
        404 => "Not found",
        405 => "Not that way",
        409 => "Not confirmed",
        413 | 414 => "Too long",
        503 => "Not possible here",
        _ => "Something is wrong",
    }
}

fn redirect(to: String) -> Reply {
    let mut reply = Reply::new(HTML, "").with("location", to);
    reply.status = 303;
    reply
}

/// Where a page stands, and who looks at it.
pub(crate) struct Here<'a> {
    pub(crate) api: &'a Api,
    pub(crate) caller: &'a Caller,
    page: &'a str,
}

impl Here<'_> {
    /// A whole page.
    fn page(&self, title: &str, body: Markup) -> Reply {
        let page = match self.page {
            page if page.starts_with("view/events") => "view/events",
            "view/erase" => "view/person",
            page => page,
        };
        frame(title, Some(page), Some(self), body)
    }

    /// The hidden field that every form carries.
    fn form_key(&self) -> Markup {
        html! { input type="hidden" name=(crate::access::FORM_KEY) value=(self.api.access().form_key(self.caller)); }
    }
}

/// `current`: the page among the navigation's; `None` leaves it out.
fn frame(title: &str, current: Option<&str>, here: Option<&Here<'_>>, body: Markup) -> Reply {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) " · Provenance" }
                link rel="stylesheet" href="/runtime-audit/style.css";
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header.top {
                    div.bar {
                        a.brand href=(ROOT) { "Provenance" }
                        @if let Some(current) = current {
                            nav aria-label="Pages" {
                                ul {
                                    @for (path, name) in NAVIGATION {
                                        li {
                                            @if path == current {
                                                a href={ (ROOT) (path) } aria-current="page" { (name) }
                                            } @else {
                                                a href={ (ROOT) (path) } { (name) }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                        @if let Some(here) = here.filter(|here| here.caller.has_session()) {
                            form.out method="post" action="/runtime-audit/sign-out" {
                                (here.form_key())
                                span { (here.caller.name()) }
                                button.quiet type="submit" { "Sign out" }
                            }
                        }
                    }
                }
                main id="main" tabindex="-1" { (body) }
                footer {
                    @if let Some(here) = here {
                        p { "Service " strong { (parts::service(here)) } " · " (provenance::Timestamp::now().to_string().get(..16).unwrap_or("").replace('T', " ")) " UTC" }
                    }
                    p { "The evidence says what hooks observed. No event does not mean that nothing happened." }
                }
            }
        }
    };
    let mut reply = Reply::new(HTML, page.into_string());
    reply.policy = POLICY;
    reply
}
