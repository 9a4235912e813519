//! The audit pages, as somebody with a browser sees them. The people and recipients here are the only ones there are.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use provenance::config::{AuditRole, AuditToken, Recipient, Token};
use provenance::record_event;
use provenance_audit::{Server, spawn_for};
use provenance_tests::Evidence;
use provenance_tests::browser::Browser;
use serde_json::Value as Json;

const TOKEN: &str = "correct-horse-battery-staple";
/// Of somebody who may erase.
const DPO: &str = "the-dpo-has-a-token-too";
const PATIENCE: Duration = Duration::from_secs(20);

/// A service that has done something with the data of two people.
struct Host {
    server: Server,
    evidence: Evidence,
}

impl Host {
    fn start(token: &str) -> Self {
        let evidence = Evidence::new(|config| {
            config.audit_token = Token(token.into());
            if !token.is_empty() {
                let roles = vec![AuditRole::Read, AuditRole::Subject, AuditRole::Erase];
                let token = Token(DPO.into());
                config.audit_tokens.push(AuditToken {
                    name: "dpo".into(),
                    token,
                    roles,
                });
            }
            let mailer = Recipient {
                role: Some("processor".into()),
                legal_name: Some("Mailer Limited".into()),
                country: Some("IE".into()),
                safeguard: Some("adequacy".into()),
                ..Recipient::default()
            };
            config.recipients.insert("mailer".into(), mailer);
        });
        let host = Host {
            server: spawn_for(evidence.tracker.clone(), "127.0.0.1:0").unwrap(),
            evidence,
        };
        host.live();
        host
    }

    fn live(&self) {
        let _in_force = self.evidence.scoped();
        for (email, income) in [("ada@example.com", "61815"), ("alan@example.com", "72926")] {
            let _scope = provenance::Scope::new("HTTP POST /signup").enter();
            provenance::set_owner("email", email);
            record_event("DATA_COLLECTION".parse().unwrap())
                .value("contact.email", "email", email)
                .unwrap()
                .value("financial.income", "income", income)
                .unwrap()
                .value("health_and_medical.genetic", "allergies", format!("nuts, says {email}"))
                .unwrap()
                .submit();
            record_event("DATA_STORAGE".parse().unwrap())
                .target("db:people")
                .value("contact.email", "email", email)
                .unwrap()
                .value("financial.income", "income", income)
                .unwrap()
                .submit();
            let share = provenance::share("smtp.example.com")
                .recipient("mailer")
                .purpose("letters");
            share.payload(&format!("To: {email}")).begin().unwrap().sent();
        }
        let _scope = provenance::Scope::new("HTTP POST /loan").enter();
        provenance::set_owner("email", "ada@example.com");
        let share = provenance::share("loans.example").recipient("lender").purpose("loan");
        share.payload("ada@example.com income=61815").begin().unwrap().sent();
        self.evidence.tracker.flush(PATIENCE).unwrap();
    }

    fn page(&self, page: &str) -> String {
        format!("http://{}/runtime-audit/{page}", self.server.addr())
    }
}

const PAGES: [(&str, &str); 8] = [
    ("", "Data map"),
    ("view/events", "Events"),
    ("view/lineage", "Lineage"),
    ("view/person", "Person"),
    ("view/recipients", "Recipients"),
    ("view/incident", "Incident"),
    ("view/declared", "Declared and observed"),
    ("view/health", "Health"),
];

#[test]
fn the_questions_of_an_auditor_are_answered_from_the_pages() {
    let host = Host::start(TOKEN);
    let mut browser = Browser::start();

    // Signing in, with a wrong token first.
    browser.go(&host.page("view/recipients"));
    assert_eq!(browser.text("h1"), "Sign in");
    browser.fill("#token", "wrong");
    browser.follow("button[type=submit]");
    assert!(browser.text("[role=alert]").contains("not known"));
    browser.go(&host.page("view/recipients"));
    browser.fill("#token", TOKEN);
    browser.follow("button[type=submit]");
    assert_eq!(browser.eval("location.pathname"), "/runtime-audit/view/recipients");
    assert_eq!(browser.eval("document.cookie"), "", "no script could read it");
    browser.complaints.clear(); // of the 401s

    // Which recipients got income?
    browser.fill("input[name=category]", "financial.income");
    browser.follow("form.dates button");
    let rows = browser.text("tbody");
    assert!(rows.contains("lender") && !rows.contains("Mailer Limited"), "{rows}");
    assert!(rows.contains("not declared"), "{rows}");

    // What was observed of this person, and who was told?
    browser.follow("nav a[href$='view/person']");
    browser.fill("input[name=identifier]", "Ada@Example.com");
    browser.fill("input[name=reason]", "Art. 15 request, case 117");
    browser.follow("main button[type=submit]");
    assert_eq!(
        browser.eval("location.pathname + location.search"),
        "/runtime-audit/view/person"
    );
    let answer = browser.text("main");
    for told in [
        "Mailer Limited",
        "IE",
        "adequacy",
        "lender",
        "people",
        "HTTP POST /signup",
        "letters",
        "loan",
        "Art. 9",
    ] {
        assert!(answer.contains(told), "{told} in {answer}");
    }
    assert!(
        !browser
            .eval("document.documentElement.outerHTML")
            .to_string()
            .to_lowercase()
            .contains("ada@")
    );

    // The annex, on paper and as a file.
    let folder = tempfile::tempdir().unwrap();
    browser.download_to(folder.path());
    browser.click("button[value=json]");
    let file: Json = serde_json::from_slice(&std::fs::read(downloaded(folder.path(), "person.json")).unwrap()).unwrap();
    assert_eq!(file["recipients"].as_array().unwrap().len(), 2, "{file}");
    browser.follow("button[value=annex]");
    let annex = browser.text("article");
    assert!(
        annex.contains("no copy of the data") && annex.contains("Mailer Limited"),
        "{annex}"
    );
    assert!(annex.contains("TO COMPLETE"), "{annex}");
    let paper = browser.call("Page.printToPDF", serde_json::json!({}));
    assert!(paper["data"].as_str().unwrap().starts_with("JVBERi"), "a PDF");

    // A lineage, from an event.
    browser.go(&host.page("view/events?event_type=DATA_SHARE&recipient=lender"));
    browser.follow("tbody .time a");
    assert!(browser.text("h1").contains("lender"));
    browser.follow("a[href*='view/lineage?fingerprint=']");
    assert!(browser.text("h1").starts_with("What became of"));
    let line = browser.text(".timeline");
    let order =
        ["collected", "stored", "shared"].map(|stage| line.find(stage).unwrap_or_else(|| panic!("{stage}: {line}")));
    assert!(order.is_sorted(), "{line}");

    // Who was affected by the mailer?
    browser.go(&host.page("view/recipients"));
    browser.follow("a[href*='view/incident?recipient=mailer']");
    browser.fill("input[name=reason]", "Breach at the mailer, case 118");
    browser.click("main details summary");
    browser.fill("textarea", "nobody@example.com\nalan@example.com");
    browser.follow("main button[type=submit]");
    assert_eq!(browser.text("h1"), "2 people were affected");
    let answer = browser.text("main");
    assert!(answer.contains("1 of 2 are affected: line 2"), "{answer}");

    // Was the evidence changed?
    browser.go(&host.page("view/health"));
    browser.follow("main a.button");
    assert!(browser.text(".verdict[role=status]").contains("Every chain holds"));
    let log = browser.text("[aria-label='Access log']");
    assert!(
        log.contains("case 117") && log.contains("case 118") && log.contains("subject:json"),
        "{log}"
    );

    assert_eq!(browser.complaints, Vec::<String>::new());
    browser.follow(".out button");
    assert_eq!(browser.text("h1"), "Sign in");
    assert_eq!(host.evidence.of("AUDIT_ACCESS").len(), 4);
}

#[test]
fn a_person_is_erased_by_who_has_seen_whom_to_tell() {
    let host = Host::start(TOKEN);
    let mut browser = Browser::start();
    browser.go(&host.page("view/person"));
    browser.fill("#token", DPO);
    browser.follow("button[type=submit]");
    browser.complaints.clear(); // of the 401
    let search = |browser: &mut Browser, email: &str| {
        browser.go(&host.page("view/person"));
        browser.fill("input[name=identifier]", email);
        browser.fill("input[name=reason]", "Art. 17 request, case 119");
        browser.follow("main button[type=submit]");
    };
    search(&mut browser, "ada@example.com");
    browser.follow("button[formaction$='view/erase']");
    assert_eq!(browser.text("h1"), "What would be erased");
    assert_eq!(
        browser.eval("location.pathname + location.search"),
        "/runtime-audit/view/erase"
    );
    let told = browser.text("[aria-label='Who must be told']");
    assert!(told.contains("Mailer Limited") && told.contains("lender"), "{told}");
    let page = browser.eval("document.documentElement.outerHTML").to_string();
    assert!(!page.to_lowercase().contains("ada@"), "{page}");
    // Neither without the word nor without the box.
    let word = browser.text(".word");
    browser.click("button.danger");
    assert_eq!(browser.text("h1"), "What would be erased");
    browser.fill("input[name=confirmation]", &word);
    browser.click("button.danger");
    assert!(host.evidence.of("DATA_ERASURE").is_empty());
    browser.click("input[type=checkbox]");
    browser.follow("button.danger");
    assert_eq!(browser.text("h1"), "Erased");
    assert!(browser.text(".verdict").contains("out of the evidence"));
    assert!(
        browser.text("main").contains("Mailer Limited"),
        "whom to tell, once more"
    );
    browser.follow(".verdict a");
    assert!(browser.text("main").contains("case 119"));
    browser.go(&host.page("view/health?check=all"));
    assert!(browser.text(".verdict[role=status]").contains("Every chain holds"));
    assert!(browser.text("[aria-label='Access log']").contains("erasure"));
    search(&mut browser, "ada@example.com");
    assert_eq!(browser.text("h1"), "Nothing was observed");
    search(&mut browser, "alan@example.com");
    assert!(browser.text("main").contains("Mailer Limited"));
    assert_eq!(browser.complaints, Vec::<String>::new());

    // The evidence as a file, from the list of events.
    let folder = tempfile::tempdir().unwrap();
    browser.download_to(folder.path());
    browser.go(&host.page("view/events?event_type=DATA_SHARE&recipient=mailer"));
    browser.fill("form.export input[name=reason]", "case 120");
    browser.click("form.export button");
    let file = String::from_utf8(std::fs::read(downloaded(folder.path(), "provenance.jsonl")).unwrap()).unwrap();
    assert_eq!(file.lines().count(), 2, "{file}");
}

/// The file that the browser has put there.
fn downloaded(folder: &std::path::Path, name: &str) -> PathBuf {
    let begun = Instant::now();
    loop {
        let whole = folder.join(name);
        if whole.exists() {
            return whole;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing was downloaded");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_map_is_a_picture_that_leads_on() {
    let host = Host::start("");
    let mut browser = Browser::start();
    browser.go(&host.page(""));
    let names = browser
        .eval("document.querySelector('svg').textContent")
        .as_str()
        .unwrap()
        .to_owned();
    for name in [
        "contact.email",
        "financial.income",
        "health_and_medical",
        "people",
        "mailer",
        "lender",
        "◆",
    ] {
        assert!(names.contains(name), "{name} in {names}");
    }
    // No two boxes of a column overlap, and all of them are inside.
    let overlaps = browser.eval(
        "(() => { const boxes = [...document.querySelectorAll('svg .box')].map(b => b.getBBox()); \
         const view = document.querySelector('svg').viewBox.baseVal; \
         return boxes.filter((a, i) => a.y < 0 || a.y + a.height > view.height || a.x + a.width > view.width || \
         boxes.some((b, j) => j !== i && a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height)).length; })()",
    );
    assert_eq!(overlaps, 0);
    let lines = browser.eval("document.querySelectorAll('svg .line').length");
    assert_eq!(lines, 8, "three collected, two stored, three shared");
    // By the keyboard.
    browser.eval("[...document.querySelectorAll('svg a')].find(a => a.textContent.includes('lender')).focus()");
    browser.eval("window.before = true");
    browser.press("Enter");
    let begun = Instant::now();
    while browser.text(".filters").is_empty() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(browser.text(".filters").contains("lender"));
    let table = browser.text("table");
    assert!(
        table.contains("financial.income") && !table.contains("health_and_medical"),
        "{table}"
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn every_page_can_be_used_by_everybody() {
    let host = Host::start("");
    let mut browser = Browser::start();
    for (page, title) in PAGES {
        browser.go(&host.page(page));
        assert_eq!(browser.text("h1"), title);
        let faults = browser.eval(
            "(() => { const all = s => [...document.querySelectorAll(s)]; const faults = []; \
             if (all('h1').length !== 1) faults.push('h1'); \
             for (const s of ['header', 'main', 'footer', 'html[lang]', 'nav[aria-label]', '[aria-current=page]']) if (!document.querySelector(s)) faults.push(s); \
             all('input:not([type=hidden]), select, textarea').filter(i => !i.labels.length).forEach(i => faults.push('label of ' + i.name)); \
             all('th').filter(t => !t.scope).forEach(t => faults.push('scope of ' + t.innerText)); \
             all('a').filter(a => !(a.textContent.trim() || a.getAttribute('aria-label'))).forEach(a => faults.push('empty link ' + a.href)); \
             all('[id]').forEach(e => { if (all('#' + e.id).length > 1) faults.push('two of ' + e.id); }); \
             if (document.scripts.length) faults.push('script'); \
             all('link[rel=stylesheet]').filter(l => !l.sheet?.cssRules.length).forEach(() => faults.push('style')); \
             return faults; })()",
        );
        assert_eq!(faults, serde_json::json!([]), "{page}");
        browser.press("Tab");
        assert_eq!(browser.eval("document.activeElement.className"), "skip", "{page}");
    }
    // On a telephone nothing but tables and the picture may be wider than the screen, and these scroll by themselves.
    let narrow = serde_json::json!({ "width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", narrow);
    for (page, _) in PAGES {
        browser.go(&host.page(page));
        let width = browser.eval("document.documentElement.scrollWidth");
        assert!(width.as_i64().unwrap() <= 360, "{page}: {width}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn text_can_be_read_in_light_and_dark() {
    let host = Host::start("");
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        let media = serde_json::json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", media);
        for (page, _) in PAGES {
            browser.go(&host.page(page));
            // WCAG 2.2, 1.4.3: at least 4.5 to 1, of what stands on the page or on a card.
            let faint = browser.eval(
                "(() => { const rgb = c => { const m = c.match(/[\\d.]+/g).map(Number); return c.startsWith('color(') ? m.map((v, i) => i < 3 ? v * 255 : v) : m; }; \
                 const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; }; \
                 const under = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; }; \
                 const found = new Set(); \
                 for (const e of document.querySelectorAll('main *:not(svg *), header *, footer *')) { \
                   if (e.closest('.chip') || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue; \
                   const style = getComputedStyle(e); if (style.opacity !== '1' || e.closest('.absent')) continue; \
                   const [a, b] = [light(rgb(style.color).slice(0, 3)), light(under(e))].sort((x, y) => y - x); \
                   const ratio = (a + .05) / (b + .05); if (ratio < 4.5) found.add(e.className + ' ' + e.tagName + ' ' + ratio.toFixed(2)); } \
                 return [...found]; })()",
            );
            assert_eq!(faint, serde_json::json!([]), "{scheme} {page}");
        }
    }
}

/// Python of a folder with the validators, as `scripts/test` makes it.
fn python() -> Option<PathBuf> {
    std::env::var_os("PROVENANCE_TEST_PYTHON").map(PathBuf::from)
}

#[test]
fn the_description_is_valid_and_the_server_keeps_it() {
    let Some(python) = python() else {
        eprintln!("not checked: PROVENANCE_TEST_PYTHON is not set; scripts/test sets it");
        return;
    };
    let host = Host::start(TOKEN);
    let description = host.page("openapi.json");
    let document: Json = ureq::get(&description)
        .header("x-audit-token", TOKEN)
        .call()
        .unwrap()
        .into_body()
        .read_json()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(python.with_file_name(program))
            .args(args)
            .current_dir(folder.path())
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {text}");
    };
    run("openapi-spec-validator", &[&file.to_string_lossy()]);
    let base = format!("http://{}/runtime-audit", host.server.addr());
    let header = format!("X-Audit-Token: {DPO}");
    run(
        "schemathesis",
        &[
            "run",
            &file.to_string_lossy(),
            "--url",
            &base,
            "--header",
            &header,
            "--max-examples",
            "15",
            "--max-time",
            "20",
            "--generation-with-security-parameters",
            "false",
            "--phases",
            "examples,coverage,fuzzing",
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--no-color",
        ],
    );
}

/// Pictures of each page, wide and narrow, light and dark, in the folder that PROVENANCE_PICTURES names.
#[test]
#[ignore = "for people to look at"]
fn pictures_to_be_looked_at() {
    let folder = PathBuf::from(std::env::var_os("PROVENANCE_PICTURES").expect("PROVENANCE_PICTURES names a folder"));
    let host = Host::start(TOKEN);
    host.live_longer();
    let mut browser = Browser::start();
    browser.go(&host.page(""));
    browser.fill("#token", DPO);
    browser.follow("button[type=submit]");
    let fingerprint = host.evidence.of("DATA_COLLECTION")[0]["matched_tags"][0]["fingerprint"].clone();
    let fingerprint = fingerprint.as_str().unwrap();
    let share = host.evidence.of("DATA_SHARE")[0]["event_id"].clone();
    let lineage = format!("view/lineage?fingerprint={fingerprint}");
    let event = format!("view/events/{}", share.as_str().unwrap());
    for (width, height) in [(1280, 900), (390, 844)] {
        for scheme in ["light", "dark"] {
            let screen =
                serde_json::json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
            browser.call("Emulation.setDeviceMetricsOverride", screen);
            let media = serde_json::json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.call("Emulation.setEmulatedMedia", media);
            let picture = |browser: &mut Browser, name: &str| {
                let wide = browser.eval("document.documentElement.scrollWidth").as_i64().unwrap();
                if wide > width {
                    eprintln!("{name} {width} {scheme}: {wide} wide");
                }
                let shot = browser.call(
                    "Page.captureScreenshot",
                    serde_json::json!({ "captureBeyondViewport": true }),
                );
                let bytes = base64::Engine::decode(
                    &base64::engine::general_purpose::STANDARD,
                    shot["data"].as_str().unwrap(),
                )
                .unwrap();
                std::fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), bytes).unwrap();
            };
            for (page, name) in [
                ("", "map"),
                ("view/events", "events"),
                (&event, "event"),
                ("view/lineage", "values"),
                (&lineage, "lineage"),
                ("view/person", "person"),
                ("view/recipients", "recipients"),
                ("view/incident", "incident"),
                ("view/declared", "declared"),
                ("view/health?check=all", "health"),
                ("view/erase", "erase"),
                ("view/nothing", "missing"),
            ] {
                browser.go(&host.page(page));
                picture(&mut browser, name);
            }
            browser.go(&host.page("view/incident"));
            browser.fill("input[name=recipient]", "mailer");
            browser.fill("input[name=reason]", "case 118");
            browser.click("main details summary");
            browser.fill("textarea", "nobody@example.com\nalan@example.com");
            browser.follow("main button[type=submit]");
            picture(&mut browser, "incident-answer");
            browser.go(&host.page("view/person"));
            browser.fill("input[name=identifier]", "ada@example.com");
            browser.fill("input[name=reason]", "case 117");
            browser.follow("main button[type=submit]");
            picture(&mut browser, "person-answer");
            browser.follow("button[formaction$='view/erase']");
            picture(&mut browser, "erase-preview");
            browser.go(&host.page("view/person"));
            browser.fill("input[name=identifier]", "ada@example.com");
            browser.fill("input[name=reason]", "case 117");
            browser.follow("main button[type=submit]");
            browser.follow("button[value=annex]");
            picture(&mut browser, "annex");
            let record = ureq::get(host.page("export?format=ropa-html&reason=look")).header("x-audit-token", DPO);
            let record = record.call().unwrap().into_body().read_to_string().unwrap();
            let file = folder.join("record.html");
            std::fs::write(&file, record).unwrap();
            browser.go(&format!("file://{}", file.display()));
            picture(&mut browser, "record");
        }
    }
    browser.go(&host.page("view/person"));
    browser.fill("input[name=identifier]", "alan@example.com");
    browser.fill("input[name=reason]", "case 117");
    browser.follow("main button[type=submit]");
    browser.follow("button[formaction$='view/erase']");
    let word = browser.text(".word");
    browser.fill("input[name=confirmation]", &word);
    browser.click("input[type=checkbox]");
    browser.follow("button.danger");
    let shot = browser.call(
        "Page.captureScreenshot",
        serde_json::json!({ "captureBeyondViewport": true }),
    );
    let bytes = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        shot["data"].as_str().unwrap(),
    );
    std::fs::write(folder.join("erased.png"), bytes.unwrap()).unwrap();
}

impl Host {
    /// More of the same, with names as long as they get.
    fn live_longer(&self) {
        let _in_force = self.evidence.scoped();
        for number in 0..12 {
            let email = format!("person{number}@example.org");
            let _scope = provenance::Scope::new(format!(
                "HTTP POST /accounts/settings/notifications/preferences/{}",
                number % 3
            ))
            .enter();
            provenance::set_owner("email", email.as_str());
            provenance::link_owner(("user", 1000 + i64::from(number)), ("email", email.as_str()));
            record_event("DATA_COLLECTION".parse().unwrap())
                .value("contact.email", "notification_email_address", email.as_str())
                .unwrap()
                .value("contact.phone_number", "phone", format!("+49 171 55501{number:02}"))
                .unwrap()
                .submit();
            for recipient in [
                "analytics-and-measurement-platform.eu-central-1.cloud.example.com",
                "support-desk",
            ] {
                let share = provenance::share("api.example.net")
                    .recipient(recipient)
                    .purpose("product improvement");
                let share = share.payload(&format!("{{\"contact\": \"{email}\"}}")).begin().unwrap();
                match number % 3 {
                    0 => share.status(503),
                    1 => share.error("timeout"),
                    _ => share.status(204),
                }
            }
        }
        self.evidence.tracker.flush(PATIENCE).unwrap();
    }
}
