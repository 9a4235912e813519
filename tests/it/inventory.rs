//! `cargo provenance inventory` on workspaces that real cargo builds, as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

/// The fixture `name`, with the workspace's own versions of every crate.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (ours, theirs) = (
        here.join("../Cargo.lock"),
        here.join("fixtures").join(name).join("Cargo.lock"),
    );
    let age = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    if age(&theirs) < age(&ours) {
        // In one step: tests run at the same time.
        let copy = tempfile::NamedTempFile::new_in(theirs.parent().unwrap()).unwrap();
        std::fs::write(copy.path(), std::fs::read(ours).unwrap()).unwrap();
        copy.persist(&theirs).unwrap();
    }
    theirs.with_file_name("Cargo.toml")
}

/// Where fixtures are built: beside the workspace's own builds, and kept like them.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("fixtures")
}

pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub(crate) fn tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| provenance_tests::program("cargo-provenance"))
}

fn inventory<const N: usize>(arguments: [&str; N]) -> Output {
    Command::new(tool())
        .args(["provenance", "inventory"])
        .args(arguments)
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap()
}

/// What the command prints of a fixture that it builds.
fn report<const N: usize>(name: &str, arguments: [&str; N]) -> String {
    let manifest = fixture(name);
    let output = Command::new(tool())
        .args(["provenance", "inventory", "--manifest-path"])
        .arg(manifest)
        .args(arguments)
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn entries(json: &str) -> Vec<Json> {
    serde_json::from_str(json).unwrap()
}

/// The refusal: exit 2, nothing on standard output, and this sentence at the end of standard error.
#[track_caller]
fn refused(output: &Output, sentence: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default();
    assert_eq!(
        (output.status.code(), last.contains(sentence)),
        (Some(2), true),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());
}

fn program(profile: &str, name: &str) -> PathBuf {
    target()
        .join(profile)
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION)
}

#[test]
fn every_declaration_is_in_the_file_and_in_memory() {
    let printed = entries(&report("shop", ["--format", "json"]));
    let of =
        |entry: &Json| [&entry["kind"], &entry["path"], &entry["crate"]].map(|text| text.as_str().unwrap().to_owned());
    assert_eq!(
        printed.iter().map(of).collect::<Vec<_>>(),
        [
            // A library of another edition, a module that nobody mentions, functions that nobody calls.
            ["derived", "legacy::unreferenced::score", "legacy"],
            ["derived", "shop::unreferenced::score", "shop"],
            // Two methods of one name.
            ["egress", "shop::unreferenced::send", "shop"],
            ["egress", "shop::unreferenced::send", "shop"],
            // Generic, never instantiated.
            ["input", "shop::unreferenced::order", "shop"],
            ["model", "shop::models::Long", "shop"],
            ["model", "shop::models::NewCustomer", "shop"],
            ["model", "shop::models::Short", "shop"],
            ["runtime", "provenance", "provenance"],
            ["tracked", "shop::unreferenced::Order", "shop"],
        ]
    );
    let customer = printed
        .iter()
        .find(|entry| entry["path"] == "shop::models::NewCustomer")
        .unwrap();
    let field = |name: &str, category: &str, description: &str, pii: bool| json!({"name": name, "category": category, "description": description, "value_kind": null, "pii": pii, "secret": null});
    assert_eq!(
        customer["fields"],
        json!([
            field("email", "contact.email", "Where \"we\" write | <b>\u{2014}", true),
            field("note", "x.own.note", "", false),
        ])
    );
    assert_eq!(
        (&customer["table"], &customer["owner"]),
        (&json!("customers"), &json!(["email"]))
    );
    assert_eq!(customer["at"], "shop/src/models.rs:14");
    assert_eq!(printed[2]["allow"], json!(["contact.email", "financial.emount"]));
    assert_eq!(
        (&printed[2]["recipient"], &printed[2]["purpose"]),
        (&json!("postmark"), &json!("receipts"))
    );
    assert_eq!((&printed[3]["recipient"], printed[3].get("allow")), (&Json::Null, None));
    assert_eq!(printed[1]["value_kind"], "number");

    let run = Command::new(program("debug", "shop")).output().unwrap();
    assert_eq!(entries(&String::from_utf8(run.stdout).unwrap()), printed);
}

#[test]
fn link_time_optimisation_and_strip_lose_nothing() {
    let release = report("shop", ["--format", "json", "--release"]);
    let file = std::fs::read(program("release", "shop")).unwrap();
    assert!(!file.windows(8).any(|bytes| bytes == b".symtab\0"), "not stripped");
    assert_eq!(entries(&release), entries(&report("shop", ["--format", "json"])));
    let run = Command::new(program("release", "shop")).output().unwrap();
    assert_eq!(entries(&String::from_utf8(run.stdout).unwrap()), entries(&release));
}

#[test]
fn a_field_is_listed_if_it_is_compiled() {
    let loyal = report("shop", ["--bin", "shop-loyal", "--features", "loyalty"]);
    assert!(loyal.contains("customers.points: x.own.points"), "{loyal}");
    assert!(!report("shop", []).contains("x.own.points"));
}

#[test]
fn people_are_told_of_unknown_categories_with_the_nearest() {
    let table = report("shop", []);
    assert!(
        table.contains("customers.email: contact.emial (unknown; did you mean contact.email?)"),
        "{table}"
    );
    assert!(table.contains("allows contact.email, financial.emount (unknown; did you mean financial.amount?)"));
    assert!(table.contains("customers.note: x.own.note, not personal"));
    assert!(table.contains("3 models, 1 tracked type, 1 input, 2 egress functions, 2 derivations"));

    assert!(table.contains("; taxonomy fideslang 3."), "{table}");

    let page = report("shop", ["--format", "html"]);
    assert!(
        page.contains("Where &quot;we&quot; write | &lt;b&gt;\u{2014}"),
        "{page}"
    );
    assert!(page.contains("<title>Personal data in shop</title>") && page.contains("unknown, near contact.email"));

    let markdown = report("shop", ["--format", "markdown"]);
    let table: Vec<_> = markdown.lines().take_while(|line| !line.is_empty()).collect();
    assert!(
        table.len() > 10 && table.iter().all(|line| line.matches('|').count() == 5),
        "{markdown}"
    );
}

#[test]
fn the_taxonomy_is_named_on_the_inventory_and_on_status() {
    let said = provenance_tests::Evidence::default().tracker.status()["taxonomy"].clone();
    let inventory = provenance::inventory();
    let runtime = inventory.iter().find(|entry| entry.kind == "runtime").unwrap();
    assert_eq!(runtime.rest["taxonomy"], said);
    assert!(said.as_str().unwrap().starts_with("fideslang "));
}

#[test]
fn a_program_is_chosen_if_there_are_several() {
    let manifest = fixture("two-programs");
    let manifest = manifest.to_str().unwrap();
    refused(
        &inventory(["--manifest-path", manifest]),
        "several programs; choose one with --bin NAME (and -p PACKAGE where two have the same name): one, two",
    );
    refused(
        &inventory(["--manifest-path", manifest, "--bin", "two"]),
        "two: carries no inventory",
    );
    refused(
        &inventory(["--manifest-path", manifest, "--bin", "three"]),
        "cargo build failed",
    );
    refused(
        &inventory(["--manifest-path", "nowhere/Cargo.toml"]),
        "cargo metadata failed",
    );
}

#[test]
fn files_without_an_inventory_are_refused_with_a_sentence() {
    report("shop", []);
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        inventory([path.to_str().unwrap()])
    };
    refused(
        &inventory([folder.path().join("missing").to_str().unwrap()]),
        "missing: cannot be read: entity not found",
    );
    refused(
        &read("empty", b""),
        "empty: not a program (ELF, Mach-O or PE), or cut off",
    );
    refused(
        &read("text", b"#!/bin/sh\n"),
        "text: not a program (ELF, Mach-O or PE), or cut off",
    );
    refused(
        &read("lib.rlib", b"!<arch>\n"),
        "lib.rlib: a library; inventories are read from linked programs",
    );

    let whole = std::fs::read(program("debug", "shop")).unwrap();
    refused(
        &read("half", &whole[..whole.len() / 2]),
        "half: not a program (ELF, Mach-O or PE), or cut off",
    );

    let begins = b"{\"v\":1,\"kind\":";
    let last = whole.windows(begins.len()).rposition(|bytes| bytes == begins).unwrap();
    let end = last + whole[last..].iter().position(|byte| *byte == b'\n').unwrap();
    let with = |offset: usize, byte: u8| {
        let mut patched = whole.clone();
        patched[offset] = byte;
        patched
    };
    refused(
        &read("open", &with(end, b' ')),
        "open: the inventory section is cut off: its last entry has no end",
    );
    refused(&read("newer", &with(last + 5, b'2')), "written by a newer version");
    refused(&read("garbled", &with(last, b'(')), "not a JSON object");
}

#[test]
fn the_commands_own_inventory_can_be_read_too() {
    let output = inventory(["--format", "json", tool().to_str().unwrap()]);
    let entries = entries(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(entries.iter().filter(|entry| entry["kind"] == "runtime").count(), 1);
}

#[test]
fn check_lists_calls_outside_egress_functions() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "Cargo.toml",
        "[package]\nname = \"crm\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
    );
    write(
        "src/main.rs",
        "mod mail;\nfn main() {\n    ureq::get(\"https://partner.example\").call();\n}\n",
    );
    write(
        "src/mail/mod.rs",
        "#[provenance::egress(recipient = \"mail\")]\nfn sent(agent: &ureq::Agent) { agent.get(\"x\").call(); }\n\
         async fn unseen(http: reqwest::Client) {\n    http.post(\"x\").send().await;\n}\n",
    );
    write(
        "tests/it.rs",
        "#[test] fn t() { ureq::get(\"x\").call(); }\nfn helper() { ureq::get(\"x\").call(); }",
    );
    let check = |arguments: &[&str]| {
        Command::new(tool())
            .args(["provenance", "check", "--source-only", "--manifest-path"])
            .arg(folder.path().join("Cargo.toml"))
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = check(&["--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        found["calls"],
        json!([
            { "file": "src/mail/mod.rs", "line": 4, "library": "reqwest", "call": "send", "function": "unseen" },
            { "file": "src/main.rs", "line": 3, "library": "ureq", "call": "call", "function": "main" },
        ])
    );
    let table = String::from_utf8(check(&[]).stdout).unwrap();
    assert!(
        table.contains("src/main.rs:3: ureq `call` in main\n2 calls stand outside"),
        "{table}"
    );

    write("Cargo.toml", "[package]\n");
    refused(&check(&[]), "cargo metadata failed");
}
