//! The source files of a cargo workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;

/// Most files that are listed, and how deep folders are followed: a link in a circle ends.
const MAX_FILES: usize = 100_000;
const MAX_DEPTH: usize = 32;

/// One source file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Relative to the workspace, with `/`.
    pub shown: String,
}

/// The `.rs` files of every library and program of the workspace that `manifest` (or the working
/// folder) belongs to, sorted. Tests, benchmarks, examples and build scripts are left out.
///
/// # Errors
/// cargo does not know the workspace; a folder cannot be read.
pub fn sources(manifest: Option<&Path>) -> Result<Vec<Source>, String> {
    let metadata = metadata(manifest)?;
    let root = PathBuf::from(
        metadata
            .get("workspace_root")
            .and_then(Json::as_str)
            .unwrap_or_default(),
    );
    let mut files = Vec::new();
    for folder in folders(&metadata) {
        walk(&folder, &mut files, 0)?;
    }
    files.sort();
    files.dedup();
    Ok(files
        .into_iter()
        .map(|path| {
            let shown = path
                .strip_prefix(&root)
                .unwrap_or(&path)
                .to_string_lossy()
                .replace('\\', "/");
            Source { path, shown }
        })
        .collect())
}

fn metadata(manifest: Option<&Path>) -> Result<Json, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    if let Some(manifest) = manifest {
        command.arg("--manifest-path").arg(manifest);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo does not start: {}", error.kind()))?;
    if !output.status.success() {
        return Err("cargo metadata failed; its reasons stand above".to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|_| "cargo metadata gave no JSON".to_owned())
}

/// The folders of the root files of what ships.
fn folders(metadata: &Json) -> Vec<PathBuf> {
    let list = |json: &Json, key: &str| json.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    let mut folders: Vec<PathBuf> = list(metadata, "packages")
        .iter()
        .flat_map(|package| list(package, "targets"))
        .filter(|target| {
            list(target, "kind")
                .iter()
                .filter_map(Json::as_str)
                .all(|kind| !matches!(kind, "test" | "bench" | "example" | "custom-build"))
        })
        .filter_map(|target| {
            let root = Path::new(target.get("src_path")?.as_str()?);
            Some(root.parent()?.to_owned())
        })
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: not readable: {}", folder.display(), error.kind());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && depth < MAX_DEPTH && !is_built(&path) {
            walk(&path, files, depth + 1)?;
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.is_file()
            && files.len() < MAX_FILES
        {
            files.push(path);
        }
    }
    Ok(())
}

/// cargo's own folder: where a root file lies beside Cargo.toml, it stands among the sources.
fn is_built(folder: &Path) -> bool {
    folder.join("CACHEDIR.TAG").exists()
}
