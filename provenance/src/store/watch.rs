//! Whether what is written still goes into the file that stands at the path.
//!
//! SQLite writes on into a file that was removed, and does not look at pages that it has in memory. So the
//! writer asks the file system before each commit and after it: a few microseconds.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::schema::{self, Mode};
use super::statement::statement;
use crate::Error;
use crate::error::ErrorKind;

/// How long a look waits for others.
const PATIENCE: Duration = Duration::from_millis(500);

/// A file at work.
pub(super) struct Watch {
    path: PathBuf,
    id: FileId,
    /// The write-ahead log, which stays the same one as long as a connection is open.
    log: PathBuf,
    log_id: Option<FileId>,
    /// As it was when it was last looked at: it changes with checkpoints, and does not shrink.
    length: u64,
    changed: Option<SystemTime>,
}

impl Watch {
    /// # Errors
    /// There is no file.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let found = std::fs::metadata(path).map_err(|_| gone(path))?;
        // SQLite follows links: the log is beside what they name.
        let mut log = std::fs::canonicalize(path).map_err(|_| gone(path))?.into_os_string();
        log.push("-wal");
        Ok(Watch {
            path: path.to_owned(),
            id: FileId::of(&found),
            log: log.into(),
            log_id: None,
            length: found.len(),
            changed: found.modified().ok(),
        })
    }

    /// Looks whether it is there, and, where others or a checkpoint changed it, whether it can be read, and holds what
    /// was written: up to this batch of the writer with this number.
    ///
    /// # Errors
    /// [`Error::is_lost`] where it is not; others where it cannot be told now.
    pub(super) fn check(&mut self, n: i64, batch_no: i64) -> Result<(), Error> {
        let found = std::fs::metadata(&self.path).map_err(|_| gone(&self.path))?;
        if FileId::of(&found) != self.id {
            return Err(gone(&self.path));
        }
        match (
            std::fs::metadata(&self.log).ok().map(|log| FileId::of(&log)),
            self.log_id,
        ) {
            (Some(now), Some(before)) if now != before => return Err(gone(&self.path)),
            (None, Some(_)) => return Err(gone(&self.path)),
            (now, _) => self.log_id = now,
        }
        let changed = found.modified().ok();
        if found.len() < self.length || changed != self.changed {
            look(&self.path, n, batch_no, found.len() < self.length)?;
            self.length = found.len();
            self.changed = changed;
        }
        Ok(())
    }
}

/// Reads what is needed to go on, as a stranger would: nothing of it in memory yet.
fn look(path: &Path, n: i64, batch_no: i64, shrunk: bool) -> Result<(), Error> {
    let failed = |e: diesel::result::Error| schema::failed(path, &e);
    let mut connection = schema::connect(path, Mode::Read, PATIENCE)?;
    if schema::check(&mut connection, path)? == 0 {
        return Err(gone(path));
    }
    if shrunk {
        // Somebody made it smaller on purpose (VACUUM), or cut it off.
        let found = statement!("SELECT quick_check FROM pragma_quick_check(1)")
            .typed::<diesel::sql_types::Text>()
            .get_result::<String>(&mut connection)
            .map_err(failed)?;
        if found != "ok" {
            return Err(Error::new(
                ErrorKind::Lost,
                format!("{}: the file was cut off while it is written", path.display()),
            ));
        }
    }
    let last = statement!("SELECT ifnull(max(batch_no), 0) FROM batches WHERE n = ?", n)
        .typed::<diesel::sql_types::BigInt>()
        .get_result::<i64>(&mut connection)
        .map_err(failed)?;
    if last < batch_no {
        return Err(gone(path));
    }
    // The last rows, and so the root and the way to them.
    for (table, key) in [("events", "seq"), ("texts", "id"), ("fingerprints", "id")] {
        connection
            .batch_execute(&format!(
                "SELECT * FROM {table} WHERE n = {n} ORDER BY {key} DESC LIMIT 1"
            ))
            .map_err(failed)?;
    }
    Ok(())
}

fn gone(path: &Path) -> Error {
    Error::new(
        ErrorKind::Lost,
        format!(
            "{}: the file, or its write-ahead log, was removed or replaced while it is written",
            path.display()
        ),
    )
}

/// What tells a file from another one at the same path.
#[derive(PartialEq, Eq, Clone, Copy)]
struct FileId(u64, u64);

impl FileId {
    #[cfg(unix)]
    fn of(found: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        FileId(found.dev(), found.ino())
    }

    /// Elsewhere an open database file can be neither removed nor replaced.
    #[cfg(not(unix))]
    fn of(_: &std::fs::Metadata) -> Self {
        FileId(0, 0)
    }
}
