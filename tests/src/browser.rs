//! A headless Chromium of the test's own, driven through its DevTools protocol: no driver program, no download.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tungstenite::{Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(20);

/// One page in one browser; both end with it.
pub struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    socket: WebSocket<TcpStream>,
    session: String,
    last: u64,
    /// What the browser complained of: errors of the network, and what the policy of the page refused.
    pub complaints: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Default for Browser {
    fn default() -> Self {
        Browser::start()
    }
}

impl Browser {
    /// Starts `chromium` (of Debian's package of that name) on a profile of its own.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--no-proxy-server",
            ])
            .args(["--remote-debugging-port=0", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the Debian package `chromium` is needed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("chromium ended").unwrap();
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                break address.trim().to_owned();
            }
        };
        // So that it never waits for us to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        let host = address
            .trim_start_matches("ws://")
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        let stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(address, stream).unwrap();
        let mut browser = Browser {
            child,
            _profile: profile,
            socket,
            session: String::new(),
            last: 0,
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"]
            .as_str()
            .unwrap()
            .to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: Json) -> Json {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let message = self.next();
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    fn next(&mut self) -> Json {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                let message: Json = serde_json::from_str(&text).unwrap();
                let entry = &message["params"]["entry"];
                if message["method"] == "Log.entryAdded" && matches!(entry["level"].as_str(), Some("error" | "warning"))
                {
                    self.complaints.push(entry.to_string());
                }
                return message;
            }
        }
    }

    /// Goes to an address, and waits until its page is there.
    pub fn go(&mut self, url: &str) {
        self.mark();
        self.call("Page.navigate", json!({ "url": url }));
        self.arrive();
    }

    /// Clicks what `selector` finds first; a page that follows is waited for.
    pub fn follow(&mut self, selector: &str) {
        self.mark();
        self.click(selector);
        self.arrive();
    }

    /// Clicks in the middle of what `selector` finds first, with the mouse.
    pub fn click(&mut self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{block: 'center'}}); \
             const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        assert!(
            place.is_array(),
            "there is no {selector} on {}",
            self.eval("document.body.innerText")
        );
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types a text into what `selector` finds first, over what is there.
    pub fn fill(&mut self, selector: &str, text: &str) {
        let found = self.eval(&format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return false; e.focus(); e.value = ''; return true; }})()",
            json!(selector)
        ));
        assert_eq!(found, true, "there is no {selector}");
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key, such as `Tab`.
    pub fn press(&mut self, key: &str) {
        let code = if key == "Tab" { 9 } else { 13 };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// What an expression gives on the page.
    pub fn eval(&mut self, expression: &str) -> Json {
        let answer = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true }),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text of what `selector` finds first; empty where it finds nothing.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap().to_owned()
    }

    /// Where files go that pages offer.
    pub fn download_to(&mut self, folder: &Path) {
        let session = std::mem::take(&mut self.session);
        let behaviour = json!({ "behavior": "allow", "downloadPath": folder });
        self.call("Browser.setDownloadBehavior", behaviour);
        self.session = session;
    }

    fn mark(&mut self) {
        self.eval("window.before = true");
    }

    /// Until the page that was marked is gone and the next one is whole.
    fn arrive(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let answer = self.call(
                "Runtime.evaluate",
                json!({ "expression": "document.readyState === 'complete' && !window.before", "returnByValue": true }),
            );
            if answer["result"]["value"] == true {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no page came, after {PATIENCE:?}");
    }
}
