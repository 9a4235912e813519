//! The files that evidence goes on in where the one before was lost: `<file>.continued-1`, `-2`, .. beside it.

use std::path::{Path, PathBuf};

use crate::config::Storage;

const MARK: &str = ".continued-";

/// The first file, and how many came after it.
fn split(path: &Path) -> (PathBuf, u32) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.rsplit_once(MARK) {
        Some((first, number)) if !first.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()) => {
            match number.parse() {
                Ok(number) => (path.with_file_name(first), number),
                Err(_) => (path.to_owned(), 0),
            }
        }
        _ => (path.to_owned(), 0),
    }
}

/// The file that a path names, or that was lost first before it.
pub(crate) fn first(path: &Path) -> PathBuf {
    split(path).0
}

/// Where evidence may go on after this file: the next name. Another process may have begun it.
pub(crate) fn next(path: &Path) -> Option<PathBuf> {
    let (first, number) = split(path);
    let mut name = first.into_os_string();
    name.push(format!("{MARK}{}", number.checked_add(1)?));
    Some(name.into())
}

/// The folder that a file is in.
pub(crate) fn folder(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    })
}

/// Where the evidence of this storage is written to now: what is named, or the last file beside it in which
/// evidence goes on (`<file>.continued-1`, ..), because what was written before was removed, replaced or damaged
/// while a service ran. Asks the folder only.
pub fn in_force(storage: &Storage) -> Storage {
    let Storage::Sqlite(path) = storage else {
        return storage.clone();
    };
    let Some(folder) = folder(path) else {
        return storage.clone();
    };
    let (start, _) = split(path);
    let beside = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let last = beside
        .filter_map(|entry| Some(path.with_file_name(entry.file_name().to_str()?)))
        .map(|found| (split(&found), found))
        .filter(|((first, number), _)| *first == start && *number > 0)
        .max_by_key(|((_, number), _)| *number);
    match last {
        Some((_, found)) => Storage::Sqlite(found),
        None => storage.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_lead_from_a_file_to_the_next_and_back() {
        let path = Path::new("a/b.db");
        let one = next(path).unwrap();
        let two = next(&one).unwrap();
        assert_eq!(two, Path::new("a/b.db.continued-2"));
        assert_eq!((first(&two), first(path)), (path.to_owned(), path.to_owned()));
        assert_eq!(first(Path::new("b.continued-x")), Path::new("b.continued-x"));
        assert_eq!(first(Path::new(".continued-1")), Path::new(".continued-1"));
    }

    #[test]
    fn the_last_file_beside_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let now = || in_force(&Storage::Sqlite(file("b.db")));
        assert_eq!(now(), Storage::Sqlite(file("b.db")));
        let names = [
            "c.db.continued-9",
            "b.db.continued-2",
            "b.db.continued-10",
            "b.db.continued-10-wal",
            "b.db.continued-",
        ];
        for name in names {
            std::fs::write(file(name), "").unwrap();
        }
        assert_eq!(now(), Storage::Sqlite(file("b.db.continued-10")));
        assert_eq!(
            in_force(&Storage::Sqlite("b.db".into())),
            Storage::Sqlite("b.db".into())
        );
    }
}
