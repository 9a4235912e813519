//! The one error type of this crate.

use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong while provenance was set up or asked to do something by hand.
///
/// Hooks never return it: they count what they could not do and go on. No text of an
/// error carries a personal value, a key or a token.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrorKind {
    Config,
    Key,
    Store,
    /// Of a store that is gone or damaged: nothing is to be expected of it any more.
    Lost,
    AlreadyInitialised,
    Evidence,
    Input,
    Inventory,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// A configuration error that stands at a place: `file:line: message`.
    pub(crate) fn config_at(file: &Path, line: Option<usize>, message: impl fmt::Display) -> Self {
        let file: PathBuf = file.to_path_buf();
        let text = match line {
            Some(line) => format!("{}:{line}: {message}", file.display()),
            None => format!("{}: {message}", file.display()),
        };
        Error::new(ErrorKind::Config, text)
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The configuration (file, environment or builder) is wrong.
    pub fn is_config(&self) -> bool {
        self.0.kind == ErrorKind::Config
    }

    /// The key is missing, malformed, or not the one the store was written with.
    pub fn is_key(&self) -> bool {
        self.0.kind == ErrorKind::Key
    }

    /// The evidence store cannot be opened, read or written.
    pub fn is_store(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Store | ErrorKind::Lost)
    }

    /// The evidence file is gone or damaged.
    #[cfg(feature = "runtime")]
    pub(crate) fn is_lost(&self) -> bool {
        self.0.kind == ErrorKind::Lost
    }

    /// `init()` was called before in this process; the first tracker stays.
    pub fn is_already_initialised(&self) -> bool {
        self.0.kind == ErrorKind::AlreadyInitialised
    }

    /// A record could not be persisted in time.
    pub fn is_evidence(&self) -> bool {
        self.0.kind == ErrorKind::Evidence
    }

    /// An argument that the caller gave is not acceptable.
    pub fn is_input(&self) -> bool {
        self.0.kind == ErrorKind::Input
    }

    /// A build-time inventory is absent or malformed.
    pub fn is_inventory(&self) -> bool {
        self.0.kind == ErrorKind::Inventory
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}
