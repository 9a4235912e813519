//! The audit pages, as somebody with a browser sees them. The people and recipients here are the only ones there are.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use provenance::config::{Recipient, Token};
use provenance::record_event;
use provenance_audit::{Server, spawn_for};
use provenance_tests::Evidence;
use provenance_tests::browser::Browser;
use serde_json::Value as Json;

const TOKEN: &str = "correct-horse-battery-staple";
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
    let file: Json = serde_json::from_slice(&std::fs::read(downloaded(folder.path())).unwrap()).unwrap();
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

/// The file that the browser has put there.
fn downloaded(folder: &std::path::Path) -> PathBuf {
    let begun = Instant::now();
    loop {
        let whole = folder.join("person.json");
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
    let header = format!("X-Audit-Token: {TOKEN}");
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
