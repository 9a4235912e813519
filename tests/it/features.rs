//! Builds without the runtime: the same source, and nothing happens.

use std::process::Command;

use crate::inventory::{cargo, fixture, target, tool};

#[test]
fn without_the_runtime_every_hook_is_a_no_op() {
    let manifest = fixture("bare");
    let built = cargo()
        .args(["build", "--manifest-path"])
        .arg(&manifest)
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let folder = tempfile::tempdir().unwrap();
    let program = target().join("debug/bare");
    let run = Command::new(&program).current_dir(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "16 42 15\nada@example.com\n");
    assert!(run.status.success() && run.stderr.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let inventory = Command::new(tool()).arg("inventory").arg(&program).output().unwrap();
    assert_eq!(
        inventory.status.code(),
        Some(2),
        "a build without the runtime carries no inventory"
    );
}

#[test]
fn without_the_runtime_its_dependencies_are_not_built() {
    let tree = cargo()
        .args(["tree", "--edges", "normal", "--prefix", "none", "--manifest-path"])
        .arg(fixture("bare"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("provenance-macros"), "{tree}");
    for dependency in [
        "diesel",
        "libsqlite3-sys",
        "ureq",
        "dashmap",
        "sha2",
        "toml",
        "saphyr-parser",
        "serde_json",
    ] {
        assert!(
            !tree.lines().any(|line| line.starts_with(&format!("{dependency} "))),
            "{dependency}:\n{tree}"
        );
    }
}
