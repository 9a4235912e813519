//! The way in.

use maud::html;

use super::{ROOT, frame, is_page};
use crate::api::{Refusal, Reply, Request, without_token};

/// The form, after a first visit or a wrong token.
pub(super) fn show(request: &Request, refusal: &Refusal) -> Reply {
    let tried = request.method == "POST"
        || request
            .query
            .as_deref()
            .is_some_and(|query| query.contains("audit_token="));
    let problem = match refusal.status {
        429 => Some(refusal.message.as_str()),
        _ if tried => Some("That token is not known here."),
        _ => None,
    };
    let query = request.query.as_deref().unwrap_or("");
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let next = match request.is_reading() {
        true => checked_next(&without_token(&request.path, &pairs)),
        false => ROOT.to_owned(),
    };
    let body = html! {
        div.narrow {
            h1 { "Sign in" }
            p.lead { "This is the record of what a service does with personal data." }
            @if let Some(problem) = problem {
                p.problem role="alert" id="problem" { (problem) }
            }
            form.card method="post" action="/runtime-audit/sign-in" {
                input type="hidden" name="next" value=(next);
                // So that password managers know what the token belongs to.
                input type="text" name="username" value="audit" autocomplete="username" hidden;
                label for="token" { "Audit token" }
                input type="password" id="token" name="token" required autofocus autocomplete="current-password"
                    spellcheck="false" aria-describedby=[problem.map(|_| "problem")];
                button type="submit" { "Sign in" }
            }
            p.hint { "It is what " code { "audit_token" } " or " code { "RUNTIME_TRACKING_AUDIT_TOKEN" }
                " says in the service's configuration, or a token of your own. You stay signed in for eight hours." }
        }
    };
    frame("Sign in", None, None, body)
}

/// Where to go after signing in: to a page of ours, else to the map.
pub(super) fn checked_next(next: &str) -> String {
    let path = next.split('?').next().unwrap_or("");
    let plain = next.len() <= 2048 && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    match plain && is_page(path) && !path.ends_with("sign-in") && !path.ends_with("sign-out") {
        true => next.to_owned(),
        false => ROOT.to_owned(),
    }
}
