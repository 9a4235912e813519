//! From files and environment to a [`Config`].

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Config, Storage, Token, read, tree};
use crate::Error;
use crate::error::ErrorKind;

/// Far above any configuration that a person writes.
const MAX_BYTES: u64 = 1 << 20;

const FILES: [&str; 4] = [
    "runtime_tracking.yaml",
    "runtime_tracking.yml",
    "runtime_tracking.json",
    "runtime_tracking.toml",
];

impl Config {
    /// Reads the configuration: the explicit `path`, else `RUNTIME_TRACKING_CONFIG`, else the
    /// working folder's `runtime_tracking.{yaml,yml,json,toml}`, else the defaults; then the
    /// environment over it.
    ///
    /// # Errors
    /// [`Error::is_config`]: a file named explicitly that is missing; broken syntax; an unknown key or a
    /// wrong value, with file, line, key, what was expected and the nearest known key.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let file = match (path, variable("RUNTIME_TRACKING_CONFIG")) {
            (Some(path), _) => Some(path.to_path_buf()),
            (None, Some(path)) => Some(PathBuf::from(path)),
            (None, None) => FILES.map(PathBuf::from).into_iter().find(|file| file.exists()),
        };
        let mut config = match file {
            Some(file) => from_file(&file)?,
            None => Config {
                storage: Storage::Sqlite(absolute(Path::new("runtime_provenance.db"))),
                ..Config::default()
            },
        };
        from_environment(&mut config)?;
        Ok(config)
    }
}

/// A variable that is set to nothing is how compose files and shells leave one out.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn from_file(file: &Path) -> Result<Config, Error> {
    from_text(file, &contents(file)?)
}

/// In the syntax that the file's name says.
pub(crate) fn from_text(file: &Path, text: &str) -> Result<Config, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let parsed = match extension.to_ascii_lowercase().as_str() {
        "json" => tree::json::parse(text),
        "toml" => tree::toml::parse(text),
        #[cfg(feature = "yaml")]
        "yaml" | "yml" => tree::yaml::parse(text),
        #[cfg(not(feature = "yaml"))]
        "yaml" | "yml" => {
            return Err(Error::config_at(
                file,
                None,
                "this build does not read YAML: enable the feature `yaml` of the crate `provenance`, or use JSON or TOML",
            ));
        }
        _ => {
            return Err(Error::config_at(
                file,
                None,
                "expected a file name that ends in .yaml, .yml, .json or .toml",
            ));
        }
    };
    let root = parsed.map_err(|error| Error::config_at(file, error.line, error.message))?;
    read::read(file, &root)
}

fn contents(file: &Path) -> Result<String, Error> {
    let wrong = |message: String| Error::config_at(file, None, message);
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong("there is no such configuration file".to_owned()),
        kind => wrong(format!("the configuration file cannot be read: {kind}")),
    };
    // Asked before opening: a pipe would block, a device would never end.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(wrong("expected a configuration file, found something else".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("larger than {MAX_BYTES} bytes: is this the right file?")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::config_at(file, Some(line), "not UTF-8: save the file as UTF-8")
    })
}

fn from_environment(config: &mut Config) -> Result<(), Error> {
    let text = |name: &str| match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(wrong_variable(name, "expected text in UTF-8")),
    };
    if let Some(token) = text("RUNTIME_TRACKING_AUDIT_TOKEN")? {
        config.audit_token = Token(token);
    }
    if let Some(key) = text("RUNTIME_TRACKING_KEY")? {
        config.key = Some(Token(key));
    }
    if let Some(enabled) = text("RUNTIME_TRACKING_ENABLED")? {
        config.enabled = match enabled.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                return Err(wrong_variable(
                    "RUNTIME_TRACKING_ENABLED",
                    "expected true or false (or 1 or 0)",
                ));
            }
        };
    }
    if let Some(storage) = text("RUNTIME_TRACKING_STORAGE")? {
        config.storage = storage_of(&storage, Path::new(""))
            .map_err(|expected| wrong_variable("RUNTIME_TRACKING_STORAGE", expected))?;
    }
    Ok(())
}

fn wrong_variable(name: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Config, format!("environment variable {name}: {expected}"))
}

/// What `storage_path` names, relative to `folder`.
pub(super) fn storage_of(text: &str, folder: &Path) -> Result<Storage, &'static str> {
    match text.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(Storage::Postgres(Token(text.to_owned()))),
        Some(_) => Err("expected the path of a SQLite file, or a postgres:// URL"),
        None if text.trim().is_empty() => {
            Err("expected the path of a SQLite file, or a postgres:// URL, found an empty text")
        }
        None if text == ":memory:" => {
            Err("expected the path of a SQLite file: evidence in memory would not outlive the process")
        }
        None => Ok(Storage::Sqlite(absolute(&folder.join(text)))),
    }
}

/// So that a later change of the working folder changes nothing.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
