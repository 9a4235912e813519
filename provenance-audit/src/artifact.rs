//! Reads the inventory out of a program's file, without running it.

use std::fmt;
use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSection};
use provenance::inventory::{self, Entry};

/// Names of the section in ELF, Mach-O and PE files.
const SECTIONS: [&str; 3] = ["prov_inv", "__prov_inv", ".prov"];

/// What a program's file declares.
#[derive(Debug)]
pub struct Artifact {
    /// The file's name, without its folder and `.exe`.
    pub program: String,
    /// Every use of an attribute, in order of kind, path and place.
    pub entries: Vec<Entry>,
    /// The build's name on events: see [`inventory::hash`].
    pub build: String,
}

/// Why a file gives no inventory.
#[derive(Debug)]
pub struct ArtifactError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unreadable(std::io::ErrorKind),
    Archive,
    NotAnObject,
    CutOff,
    NoSection,
    Malformed(provenance::Error),
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.why {
            Why::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
            Why::Archive => f.write_str("a library; inventories are read from linked programs"),
            Why::NotAnObject => f.write_str("not a program (ELF, Mach-O or PE), or cut off"),
            Why::CutOff => f.write_str("the inventory section is cut off"),
            Why::NoSection => f.write_str(
                "carries no inventory: it does not use provenance, or was built without its feature `runtime`",
            ),
            Why::Malformed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ArtifactError {}

impl ArtifactError {
    /// It is a program, and carries no inventory.
    pub fn is_absent(&self) -> bool {
        matches!(self.why, Why::NoSection)
    }
}

/// Reads the inventory of the program at `path`.
///
/// # Errors
/// The file cannot be read, is no object file, is cut off, carries no inventory, or one that
/// [`inventory::parse`] refuses.
pub fn read(path: &Path) -> Result<Artifact, ArtifactError> {
    let failed = |why| ArtifactError {
        path: path.to_path_buf(),
        why,
    };
    let file = std::fs::read(path).map_err(|error| failed(Why::Unreadable(error.kind())))?;
    let section = section(&file).map_err(failed)?;
    Ok(Artifact {
        program: path
            .with_extension("")
            .file_name()
            .filter(|_| path.extension().is_some_and(|extension| extension == "exe"))
            .or(path.file_name())
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        entries: inventory::parse(&section).map_err(|error| failed(Why::Malformed(error)))?,
        build: inventory::hash(&section),
    })
}

fn section(file: &[u8]) -> Result<Vec<u8>, Why> {
    if file.starts_with(b"!<arch>\n") {
        return Err(Why::Archive);
    }
    let object = object::File::parse(file).map_err(|_| Why::NotAnObject)?;
    let mut bytes = Vec::new();
    // Files that are not linked yet may have the section more than once.
    for section in object.sections() {
        if section.name().is_ok_and(|name| SECTIONS.contains(&name)) {
            bytes.extend_from_slice(section.data().map_err(|_| Why::CutOff)?);
        }
    }
    if bytes.is_empty() {
        Err(Why::NoSection)
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn this_programs_file_says_what_its_memory_says() {
        let artifact = read(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(artifact.entries, inventory::inventory());
        assert!(artifact.entries.iter().any(|entry| entry.kind == "runtime"));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused_with_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for permille in [0, 1, 10, 300, 500, 900, 999] {
            let length = whole.len() / 1000 * permille;
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("cut off"), "{permille}: {error}");
        }
    }
}
