//! A person is erased by the API, by whoever may, after a look at who must be told.

use provenance::Pseudonyms;

use super::*;

const DPO: &str = "dpo-token-of-some-length";
const ADA: &str = "ada@example.com";

/// With a token that may erase beside those of [`guarded`].
fn erasing() -> Host {
    let host = Host::start(|config| {
        config.audit_token = Token(TOKEN.into());
        let token = |name: &str, token: &str, roles: &[AuditRole]| AuditToken {
            name: name.into(),
            token: Token(token.into()),
            roles: roles.to_vec(),
        };
        config.audit_tokens = vec![
            token("reader", READER, &[AuditRole::Read]),
            token("desk", DESK, &[AuditRole::Subject]),
            token("dpo", DPO, &[AuditRole::Read, AuditRole::Subject, AuditRole::Erase]),
        ];
        let mailer = Recipient {
            legal_name: Some("Mailer Limited".into()),
            country: Some("IE".into()),
            ..Recipient::default()
        };
        config.recipients.insert("mailer".into(), mailer);
    });
    people(&host);
    host
}

fn erase(addr: SocketAddr, confirmation: Option<&str>, headers: &[(&str, &str)]) -> Answer {
    let body =
        serde_json::json!({ "kind": "email", "identifier": ADA, "reason": "case 17", "confirmation": confirmation });
    post(addr, "/runtime-audit/erasure", JSON, &body.to_string(), headers)
}

fn word(preview: &Json) -> String {
    assert_eq!(preview["state"], "preview", "{preview}");
    preview["confirmation"].as_str().unwrap().to_owned()
}

/// Whether the bytes of a pseudonym stand in a file of the evidence.
fn stands(host: &Host, owner: &str) -> bool {
    let digits = owner.split_once(':').unwrap().1;
    let bytes = (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    let files = std::fs::read_dir(host.evidence.folder.path()).unwrap();
    // Another process looks: closing a file in this one would drop SQLite's locks on it.
    let files = files.map(|file| file.unwrap().path());
    let all = Command::new("cat").args(files).output().unwrap().stdout;
    let has = |part: &[u8]| all.windows(part.len()).any(|window| window == part);
    has(&bytes) || has(digits.as_bytes())
}

#[test]
fn a_person_goes_after_a_word_that_was_given_for_what_was_shown() {
    let host = erasing();
    let addr = host.server.addr();
    let dpo = [("x-audit-token", DPO)];
    let ada = Pseudonyms::load(host.evidence.tracker.config()).unwrap();
    let ada = ada.owner("email", ADA).unwrap().as_str().to_owned();

    // Who may not, and from where not.
    for token in [TOKEN, READER, DESK] {
        let error = erase(addr, None, &[("x-audit-token", token)]).error(403);
        assert!(error.contains("`erase`"), "{error}");
    }
    erase(addr, None, &[]).error(401);
    let body = serde_json::json!({ "kind": "email", "identifier": ADA, "reason": "case 17" }).to_string();
    let in_query = format!("/runtime-audit/erasure?audit_token={DPO}");
    post(addr, &in_query, JSON, &body, &[]).error(401);
    for foreign in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        erase(addr, None, &[dpo[0], foreign]).error(403);
    }
    post(addr, "/runtime-audit/erasure", FORM, "kind=email", &dpo).error(415);
    get(addr, "/runtime-audit/erasure", &dpo).error(405);
    assert!(host.evidence.of("AUDIT_ACCESS").is_empty() && host.evidence.of("DATA_ERASURE").is_empty());

    // Without a word nothing changes, and it is said who must be told.
    let preview = erase(addr, None, &dpo);
    assert!(!preview.text.contains("ada@"), "{}", preview.text);
    let preview = preview.ok();
    let told = preview["to_be_told"].as_array().unwrap();
    let names: Vec<_> = told.iter().map(|told| told["recipient"].as_str().unwrap()).collect();
    assert_eq!(names, ["mailer", "stranger"]);
    assert_eq!(told[0]["legal_name"], "Mailer Limited");
    assert_eq!(
        (&preview["events"], &preview["identifiers"]),
        (&4.into(), &1.into()),
        "{preview}"
    );
    assert!(host.evidence.of("DATA_ERASURE").is_empty() && stands(&host, &ada));
    let looks = host.evidence.of("AUDIT_ACCESS");
    assert_eq!(looks.len(), 1);
    assert_eq!(looks[0]["actor"], "audit:dpo");
    assert_eq!(looks[0]["extras"]["reason"], "case 17");
    assert!(
        looks[0]["target"]
            .as_str()
            .unwrap()
            .starts_with("erasure:preview erased:"),
        "{}",
        looks[0]
    );
    assert!(looks[0]["extras"]["owner"].is_null(), "who is to go is not named");

    // Words that do not fit: another one, another's, and one for what was shown before somebody else got data.
    let stale = word(&preview);
    for wrong in ["0000-0000", "", "yes", &format!("{stale}0")] {
        match wrong {
            "" => assert_eq!(
                word(&erase(addr, Some(wrong), &dpo).ok()),
                stale,
                "as if it were not there"
            ),
            wrong => assert!(erase(addr, Some(wrong), &dpo).error(409).starts_with("confirmation: ")),
        }
    }
    let alan = serde_json::json!({ "kind": "email", "identifier": "alan@example.com", "reason": "case 18", "confirmation": stale });
    post(addr, "/runtime-audit/erasure", JSON, &alan.to_string(), &dpo).error(409);
    {
        let _in_force = host.evidence.scoped();
        let _scope = provenance::Scope::new("HTTP POST /loan").enter();
        provenance::set_owner("email", ADA);
        share_with("lender", "To: ada@example.com");
        host.evidence.tracker.flush(PATIENCE).unwrap();
    }
    erase(addr, Some(&stale), &dpo).error(409);
    assert!(host.evidence.of("DATA_ERASURE").is_empty() && stands(&host, &ada));

    let word_now = word(&erase(addr, None, &dpo).ok());
    assert_ne!(word_now, stale);
    let erased = erase(addr, Some(&word_now.to_uppercase()), &dpo).ok();
    assert_eq!(erased["state"], "erased", "{erased}");
    assert_eq!(erased["to_be_told"].as_array().unwrap().len(), 3);
    assert_eq!(erased["log"]["owners"], serde_json::json!([ada]));
    assert!(!stands(&host, &ada), "no byte of the pseudonym is left");
    let records = host.evidence.of("DATA_ERASURE");
    let states: Vec<_> = records
        .iter()
        .map(|record| record["extras"]["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["begun", "done"]);
    assert!(
        records
            .iter()
            .all(|record| record["actor"] == "audit:dpo" && record["extras"]["reason"] == "case 17")
    );
    assert_eq!(records[1]["event_id"], erased["event_id"]);
    let last = host.evidence.of("AUDIT_ACCESS").pop().unwrap();
    assert!(
        last["target"].as_str().unwrap().starts_with("erasure erased:"),
        "{last}"
    );
    assert!(Reader::open(&host.db()).unwrap().verify().unwrap().is_ok());

    // A word is good once; who is gone is not there any more, and Alan is.
    erase(addr, Some(&word_now), &dpo).error(409);
    let again = erase(addr, None, &dpo).ok();
    assert_eq!((&again["events"], &again["values"]), (&0.into(), &0.into()), "{again}");
    erase(addr, Some(&word_now), &dpo).error(409);
    assert_eq!(subjects(addr, ADA, &dpo).ok()["events"], 0);
    assert_eq!(
        subjects(addr, "alan@example.com", &dpo).ok()["recipients"][0]["recipient"],
        "mailer"
    );
    assert_eq!(host.evidence.of("DATA_ERASURE").len(), 2);
}

#[test]
fn a_form_erases_with_its_key_alone() {
    let host = erasing();
    let addr = host.server.addr();
    let cookie = cookie(&sign_in(&host, DPO));
    let session = [("cookie", cookie.as_str())];
    let page = get(addr, "/runtime-audit/view/erase", &session);
    assert_eq!(page.status, 200, "{}", page.text);
    let key = form_key(&page.text);
    let send = |key: &str, more: &[(&str, &str)], headers: &[(&str, &str)]| {
        let pairs = [&[("form_key", key), ("reason", "case 17")], more].concat();
        post(
            addr,
            "/runtime-audit/view/erase",
            FORM,
            &form(&pairs),
            &[&session[..], headers].concat(),
        )
    };
    let ada = [("kind", "email"), ("identifier", ADA)];
    assert_eq!(send("0123", &ada, &[]).status, 403);
    assert_eq!(send(&key, &ada, &[("origin", "https://evil.example")]).status, 403);
    let preview = send(&key, &ada, &[("origin", "null")]);
    assert_eq!(preview.status, 200, "{}", preview.text);
    assert!(!preview.text.contains("ada@"), "no page repeats an identifier");
    assert!(preview.text.contains("Mailer Limited") && preview.text.contains("Art. 19"));
    let field = |name: &str| {
        let rest = preview.text.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let owner = field("owner");
    let shown = preview
        .text
        .split("class=\"word\">")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    assert_eq!(
        send(&key, &[("owner", &owner), ("confirmation", "0000-0000")], &[]).status,
        409
    );
    assert!(host.evidence.of("DATA_ERASURE").is_empty());
    let erased = send(&key, &[("owner", &owner), ("confirmation", shown)], &[]);
    assert_eq!(erased.status, 200, "{}", erased.text);
    assert!(erased.text.contains("out of the evidence"));
    assert!(!stands(&host, &owner));

    // The button is shown to whom it is good for.
    for (token, shown) in [(DESK, false), (DPO, true)] {
        let headers = [("x-audit-token", token)];
        let body = form(&[
            ("kind", "email"),
            ("identifier", "alan@example.com"),
            ("reason", "case 7"),
        ]);
        let person = post(addr, "/runtime-audit/view/person", FORM, &body, &headers);
        assert_eq!(person.text.contains("/runtime-audit/view/erase"), shown);
    }
    assert_eq!(
        host.with("/runtime-audit/view/erase", &[("x-audit-token", DESK)])
            .status,
        403
    );
}

#[test]
fn without_a_token_nobody_is_erased() {
    let host = mailer();
    people(&host);
    let error = erase(host.server.addr(), None, &[("origin", "null")]).error(403);
    assert!(error.contains("`erase`"), "{error}");
    assert_eq!(host.get("/runtime-audit/view/erase").status, 403);
    assert!(host.evidence.of("AUDIT_ACCESS").is_empty());
}

#[test]
fn a_server_beside_the_service_erases_with_its_key() {
    let host = erasing();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("runtime_tracking.yaml");
    let text = format!("audit:\n  tokens: [{{name: dpo, token: {DPO}, roles: [erase, subject]}}]\n");
    std::fs::write(&config, text).unwrap();
    let config = config.to_string_lossy().into_owned();
    let dpo = [("x-audit-token", DPO)];
    let mut other = command();
    other.env("RUNTIME_TRACKING_KEY", "f".repeat(64));
    let (wrong, addr) = serve(other, &host.db(), &["--config", &config]);
    let error = erase(addr, None, &dpo).error(503);
    assert!(
        error.contains("RUNTIME_TRACKING_KEY") && error.contains("--config"),
        "{error}"
    );
    drop(wrong);

    let (_running, addr) = serve(command(), &host.db(), &["--config", &config]);
    let preview = erase(addr, None, &dpo).ok();
    assert_eq!(preview["to_be_told"].as_array().unwrap().len(), 2, "{preview}");
    let erased = erase(addr, Some(&word(&preview)), &dpo).ok();
    assert_eq!(erased["state"], "erased", "{erased}");
    // The service forgets the person within two seconds.
    let found = || {
        let _in_force = host.evidence.scoped();
        share_with("probe", "To: ada@example.com");
        let share = host.evidence.of("DATA_SHARE").pop().unwrap();
        share["matched_tags"].as_array().unwrap().len()
    };
    let begun = Instant::now();
    while found() > 0 {
        assert!(begun.elapsed() < PATIENCE, "still known");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(subjects(addr, ADA, &dpo).ok()["events"], 0);
    assert!(Reader::open(&host.db()).unwrap().verify().unwrap().is_ok());
}
