//! `cargo provenance lock` and `check` on a workspace that changes, as a pull request would change it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

use crate::inventory::{fixture, target, tool};

/// The fixture `crm` in a repository of its own, below it as `services/crm`. Always in the same folder,
/// so that cargo knows what it has built there before.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let original = fixture("crm");
        let original = original.parent().unwrap();
        let repository = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lock").join(name);
        let folder = repository.join("services/crm");
        let _ = std::fs::remove_dir_all(&repository);
        std::fs::create_dir_all(repository.join(".git")).unwrap();
        let copy = Copy(folder);
        for file in [
            "Cargo.lock",
            "Cargo.toml",
            "crm/Cargo.toml",
            "crm/src/lib.rs",
            "crm/src/main.rs",
            "crm/src/bin/worker.rs",
            "tool/Cargo.toml",
            "tool/src/main.rs",
        ] {
            copy.write(file, &std::fs::read_to_string(original.join(file)).unwrap());
        }
        let provenance = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("provenance");
        copy.edit("crm/Cargo.toml", "../../../../provenance", provenance.to_str().unwrap());
        copy
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap()
    }

    #[track_caller]
    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replace(from, to));
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_in(".", arguments)
    }

    fn run_in(&self, folder: &str, arguments: &[&str]) -> Output {
        Command::new(tool())
            .arg("provenance")
            .args(arguments)
            .current_dir(self.0.join(folder))
            .env("CARGO_TARGET_DIR", target())
            .output()
            .unwrap()
    }

    /// What the command prints, if it ends with this code.
    #[track_caller]
    fn prints(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(stdout.clone()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stdout}\n{stderr}");
        stdout
    }
}

const LOCK: &str = r#"# Written by `cargo provenance lock`: what each program declares of personal data.
# Review it like code, and do not edit it.
version = 1

[bin.crm]

[bin.crm.types]
"crm::Address" = {}
"crm::NewUser" = { table = "users", owner = ["email"], model = true, subject = "customer" }

[bin.crm.fields]
"crm::Address.city" = { category = "contact.address.city", pii = false }
"crm::Address.street" = { category = "contact.address.street" }
"crm::NewUser.email" = { category = "contact.email" }
"crm::NewUser.income" = { category = "financial.income" }

[bin.crm.inputs]
"crm::moved" = { args = ["to: Address"], purpose = "contract" }

[bin.worker]

[bin.worker.types]
"crm::Address" = {}
"crm::NewUser" = { table = "users", owner = ["email"], model = true, subject = "customer" }

[bin.worker.fields]
"crm::Address.city" = { category = "contact.address.city", pii = false }
"crm::Address.street" = { category = "contact.address.street" }
"crm::NewUser.email" = { category = "contact.email" }
"crm::NewUser.income" = { category = "financial.income" }

[bin.worker.egress]
"worker::letter" = { recipient = "post", allow = ["contact.address"] }
"worker::receipt" = { recipient = "postmark", allow = ["contact.email"], payload = ["email: &str"], data_use = "essential.service", purpose = "receipts" }

[bin.worker.derivations]
"worker::score" = { category = "x.credit", value_kind = "number", args = ["income: f64"] }
"#;

// One after the other: all builds leave their programs under the same names.
#[test]
fn a_pull_request_is_told_what_it_changes() {
    let copy = Copy::new("pull-request");
    assert!(
        copy.prints(2, &["check"])
            .contains("cannot tell: there is no provenance.lock: write it with")
    );

    let printed = copy.prints(0, &["lock"]);
    assert!(
        printed.contains("provenance.lock is written: 12 changes, 16 facts of crm, worker."),
        "{printed}"
    );
    assert_eq!(copy.read("provenance.lock"), LOCK);
    let printed = copy.prints(0, &["check"]);
    assert_eq!(
        printed,
        "provenance.lock is current: 16 facts of crm, worker.\n\n0 calls stand outside any #[egress] function.\n"
    );

    // The lock is the workspace's, wherever the command is called.
    assert!(copy.run_in("tool/src", &["check"]).status.success());

    // A field, a category, a type's name, an egress function, a field's type and description, comments.
    copy.edit("crm/src/lib.rs", "//! What", "//!\n//! What");
    copy.edit(
        "crm/src/lib.rs",
        "    income: f64,",
        "    income: f64,\n    #[tracked(\"contact.phone\")]\n    phone: &'a str,",
    );
    copy.edit(
        "crm/src/lib.rs",
        "        income -> Double,",
        "        income -> Double,\n        phone -> Text,",
    );
    copy.edit("crm/src/lib.rs", "Where we write", "Where to write");
    copy.edit("crm/src/lib.rs", "\"financial.income\"", "\"financial.incom\"");
    copy.edit("crm/src/lib.rs", "struct Address", "struct Place");
    copy.edit("crm/src/main.rs", "Address", "Place");
    copy.edit(
        "crm/src/bin/worker.rs",
        "#[egress(recipient = \"post\", allow(\"contact.address\"))]\nfn letter() {}\n",
        "",
    );
    copy.edit("crm/src/bin/worker.rs", "essential.service", "marketing.newsletter");
    let text = copy.prints(1, &["check"]);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "crm/src/bin/worker.rs:7: changed egress `worker::receipt`: data_use: \"essential.service\" -> \"marketing.newsletter\" (in worker)",
            "crm/src/lib.rs:26: changed field `crm::NewUser.income`: category: \"financial.income\" -> \"financial.incom\" (in crm, worker)",
            "crm/src/lib.rs:28: new field `crm::NewUser.phone`: category = \"contact.phone\" (in crm, worker)",
            "crm/src/lib.rs:31: renamed type `crm::Address`: now `crm::Place` (in crm, worker)",
            "crm/src/main.rs:7: changed input `crm::moved`: args: [\"to: Address\"] -> [\"to: Place\"] (in crm)",
            "provenance.lock:33: lost egress `worker::letter`: recipient = \"post\", allow = [\"contact.address\"] (in worker)",
            "crm/src/bin/worker.rs:7: unknown data use `marketing.newsletter` of `worker::receipt`; did you mean `marketing`?",
            "crm/src/lib.rs:26: unknown category `financial.incom` of `crm::NewUser.income`; did you mean `financial.income`?",
            "",
            "provenance.lock: 6 changes. Where they are meant, run `cargo provenance lock` and commit the file. 2 keys are not in the taxonomy.",
            "",
            "0 calls stand outside any #[egress] function.",
        ]
    );

    let github = copy.prints(1, &["check", "--format", "github"]);
    let lines: Vec<_> = github.lines().collect();
    assert_eq!(
        lines[2],
        "::warning file=services/crm/crm/src/lib.rs,line=28,title=Personal data%3A new field::new field `crm::NewUser.phone`: category = \"contact.phone\" (in crm, worker)"
    );
    assert!(
        lines[5]
            .starts_with("::warning file=services/crm/provenance.lock,line=33,title=Personal data%3A lost egress::")
    );

    let markdown = copy.prints(1, &["check", "--format", "markdown"]);
    assert!(
        markdown.contains(
            "| new field | crm::NewUser.phone | category = \"contact.phone\" | crm, worker | crm/src/lib.rs:28 |"
        ),
        "{markdown}"
    );

    let report: Json = serde_json::from_str(&copy.prints(1, &["check", "--json"])).unwrap();
    assert_eq!(
        (&report["status"], &report["programs"]),
        (&json!("drift"), &json!(["crm", "worker"]))
    );
    assert_eq!(
        report["changes"][2],
        json!({
            "change": "new", "what": "field", "path": "crm::NewUser.phone", "now": null, "before": null,
            "after": {"category": "contact.phone"}, "programs": ["crm", "worker"],
            "file": "crm/src/lib.rs", "line": 28, "crate": "crm",
        })
    );
    assert_eq!(report["unknown_keys"][1]["nearest"], "financial.income");
    assert!(report["taxonomy"].as_str().unwrap().starts_with("fideslang 3."));

    // What is meant is locked; unknown keys fail only where they are to.
    copy.prints(0, &["lock", "--format", "json"]);
    assert!(copy.prints(0, &["check"]).contains("2 keys are not in the taxonomy"));
    copy.prints(1, &["check", "--deny", "unknown-keys"]);
    copy.prints(0, &["check", "--deny", "calls"]);
    copy.edit(
        "crm/src/main.rs",
        "fn main() {",
        "fn main() {\n    if false { ureq::get(\"x\").call(); }",
    );
    copy.write(
        "crm/src/main.rs",
        &copy.read("crm/src/main.rs").replace(
            "use crm",
            "mod ureq { pub fn get(_: &str) -> G { G } pub struct G; impl G { pub fn call(self) {} } }\nuse crm",
        ),
    );
    copy.prints(0, &["check"]);
    assert!(
        copy.prints(1, &["check", "--deny", "calls"])
            .contains("1 call stands outside")
    );
}

#[test]
fn what_cannot_be_compared_is_never_a_pass() {
    let copy = Copy::new("cannot-tell");
    copy.write("provenance.lock", LOCK);

    // A program without an inventory, named and unnamed.
    copy.edit("Cargo.toml", "\"worker\", \"crm\"", "\"tool\"");
    let printed = copy.prints(2, &["check"]);
    assert!(printed.contains("tool: carries no inventory"), "{printed}");
    let github = copy.prints(2, &["check", "--format", "github"]);
    assert!(github.starts_with("::error title=provenance cannot tell::"), "{github}");
    let report: Json = serde_json::from_str(&copy.prints(2, &["check", "--json"])).unwrap();
    assert_eq!(report["status"], "unknown");
    copy.prints(2, &["lock"]);
    assert_eq!(copy.read("provenance.lock"), LOCK, "written without an inventory");

    // Settings that cannot be meant.
    let wrong = |from: &str, to: &str, sentence: &str| {
        let before = copy.read("Cargo.toml");
        copy.edit("Cargo.toml", from, to);
        let printed = copy.prints(2, &["check"]);
        assert!(printed.contains(sentence), "{printed}");
        let refused = copy.run(&["inventory"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains(sentence));
        copy.write("Cargo.toml", &before);
    };
    let table = "[workspace.metadata.provenance]";
    wrong(
        "binaries",
        "binarys",
        "unknown key `binarys`; did you mean `binaries`? (there are binaries, features, profile)",
    );
    wrong(
        "[\"tool\"]",
        "[\"wroker\"]",
        "no package of the workspace has a program `wroker`; did you mean `worker`?",
    );
    wrong(
        "[\"tool\"]",
        "\"tool\"",
        "[workspace.metadata.provenance]: `binaries`: expected a list of texts",
    );
    wrong(table, &format!("{table}\nprofile = 3"), "`profile`: expected a text");

    // A lock that cannot be read.
    for (text, sentence) in [
        (
            "version = 2\n",
            "provenance.lock: written by a newer version (2); update cargo-provenance",
        ),
        ("version = 1\n<<<<<<< ours\n", "provenance.lock: line 2: not TOML"),
        ("", "provenance.lock: without a version"),
    ] {
        copy.write("provenance.lock", text);
        let printed = copy.prints(2, &["check"]);
        assert!(printed.contains(sentence), "{printed}");
    }

    // A build that fails; source that is read all the same.
    copy.write("provenance.lock", LOCK);
    copy.write("tool/src/main.rs", "fn main() { nothing }");
    assert!(copy.prints(2, &["check"]).contains("cargo build failed"));
    assert_eq!(
        copy.prints(0, &["check", "--source-only"]),
        "0 calls stand outside any #[egress] function.\n"
    );
}

#[test]
fn programs_that_are_built_already_are_read_as_they_are() {
    let copy = Copy::new("built");
    let tool = tool();
    let (tool, name) = (tool.to_str().unwrap(), tool.file_stem().unwrap().to_str().unwrap());
    copy.prints(0, &["lock", tool]);
    assert!(copy.read("provenance.lock").contains(&format!("\n[bin.{name}]\n")));
    assert!(
        copy.prints(0, &["check", tool])
            .contains("is current: 0 facts of cargo-provenance")
    );
    assert!(
        copy.prints(2, &["check", tool, tool])
            .contains("two programs are called `cargo-provenance`")
    );
    assert!(
        copy.prints(2, &["check", tool, "nowhere"])
            .contains("nowhere: cannot be read")
    );
}
