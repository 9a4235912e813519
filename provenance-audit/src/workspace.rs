//! A cargo workspace: its source files, and what its manifests say of programs to lock.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Most files that are listed, and how deep folders are followed: a link in a circle ends.
const MAX_FILES: usize = 100_000;
const MAX_DEPTH: usize = 32;

/// A workspace, as cargo describes it.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    metadata: Json,
}

/// What `[workspace.metadata.provenance]` and `[package.metadata.provenance]` say.
///
/// | key | value | meaning |
/// |---|---|---|
/// | `binaries` | list of texts | the programs that are locked; without it, all that `cargo build` makes |
/// | `features` | list of texts | features to build them with; of a package, that package's |
/// | `profile` | text | the profile to build them with |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Programs, sorted.
    pub binaries: Vec<String>,
    /// The packages that have them, sorted.
    pub packages: Vec<String>,
    /// Features, each with the package that it is said of; the workspace's without.
    features: Vec<(Option<String>, String)>,
    /// A profile's name.
    pub profile: Option<String>,
}

const KEYS: [&str; 3] = ["binaries", "features", "profile"];

/// One source file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Relative to the workspace, with `/`.
    pub shown: String,
}

impl Workspace {
    /// The workspace that `manifest` (or the working folder) belongs to.
    ///
    /// # Errors
    /// cargo does not know it.
    pub fn read(manifest: Option<&Path>) -> Result<Self, String> {
        let metadata = metadata(manifest)?;
        let root = metadata.get("workspace_root").and_then(Json::as_str);
        Ok(Workspace {
            root: root.unwrap_or_default().into(),
            metadata,
        })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its folder, as seen from the repository that it stands in: `services/crm`, empty where it is the repository.
    pub fn within_repository(&self) -> String {
        let repository = self.root.ancestors().find(|folder| folder.join(".git").exists());
        let within = repository.and_then(|repository| self.root.strip_prefix(repository).ok());
        within.unwrap_or(Path::new("")).to_string_lossy().replace('\\', "/")
    }

    /// The names of its packages.
    pub fn package_names(&self) -> impl Iterator<Item = &str> {
        self.packages().map(|package| text(package, "name"))
    }

    /// The packages that `cargo build` builds: of `manifest` or the working folder, the package that it belongs
    /// to, or all that the workspace builds by default.
    pub fn default_packages(&self, manifest: Option<&Path>) -> Vec<String> {
        let here = match manifest {
            Some(manifest) => manifest.parent().map(|folder| folder.join(".")),
            None => std::env::current_dir().ok(),
        };
        let here = here.and_then(|folder| folder.canonicalize().ok()).unwrap_or_default();
        let folder = |package: &Json| Path::new(text(package, "manifest_path")).parent().map(Path::to_owned);
        let nearest = self
            .packages()
            .filter_map(|package| Some((folder(package)?.canonicalize().ok()?, package)))
            .filter(|(folder, _)| here.starts_with(folder))
            .max_by_key(|(folder, _)| folder.components().count());
        match nearest {
            Some((folder, package)) if Some(&folder) != self.root.canonicalize().ok().as_ref() => {
                vec![text(package, "name").to_owned()]
            }
            _ => {
                let ids = self.metadata.get("workspace_default_members").and_then(Json::as_array);
                let is_default =
                    |package: &&Json| ids.is_some_and(|ids| package.get("id").is_some_and(|id| ids.contains(id)));
                self.packages()
                    .filter(is_default)
                    .map(|package| text(package, "name").to_owned())
                    .collect()
            }
        }
    }

    /// What its manifests say of programs to lock.
    ///
    /// # Errors
    /// An unknown key, with the nearest; a value of another type; a program that no package has; two profiles.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let of_workspace = self
            .metadata
            .get("metadata")
            .and_then(|metadata| metadata.get("provenance"));
        if let Some(said) = of_workspace {
            settings.take("[workspace.metadata.provenance]", said, None)?;
        }
        for package in self.packages() {
            if let Some(said) = package.get("metadata").and_then(|metadata| metadata.get("provenance")) {
                let name = text(package, "name");
                settings.take(&format!("[package.metadata.provenance] of `{name}`"), said, Some(name))?;
            }
        }
        settings.binaries.sort();
        settings.binaries.dedup();
        let programs: Vec<(&str, &str)> = self
            .packages()
            .flat_map(|package| programs(package).map(move |program| (program, text(package, "name"))))
            .collect();
        for name in &settings.binaries {
            let owners: Vec<&str> = programs
                .iter()
                .filter(|(program, _)| program == name)
                .map(|(_, owner)| *owner)
                .collect();
            match *owners {
                [owner] => settings.packages.push(owner.to_owned()),
                [] => {
                    let near = nearest(name, programs.iter().map(|(program, _)| *program));
                    return Err(format!(
                        "binaries: no package of the workspace has a program `{name}`{near}"
                    ));
                }
                _ => {
                    return Err(format!(
                        "binaries: several packages have a program `{name}`: {}",
                        owners.join(", ")
                    ));
                }
            }
        }
        settings.packages.sort();
        settings.packages.dedup();
        Ok(settings)
    }

    /// The `.rs` files of every library and program, sorted. Tests, benchmarks, examples and build
    /// scripts are left out.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn sources(&self) -> Result<Vec<Source>, String> {
        let mut files = Vec::new();
        for folder in folders(&self.metadata) {
            walk(&folder, &mut files, 0)?;
        }
        files.sort();
        files.dedup();
        Ok(files
            .into_iter()
            .map(|path| {
                let shown = path
                    .strip_prefix(&self.root)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .replace('\\', "/");
                Source { path, shown }
            })
            .collect())
    }

    fn packages(&self) -> impl Iterator<Item = &Json> {
        let packages = self.metadata.get("packages").and_then(Json::as_array);
        packages.map(Vec::as_slice).unwrap_or_default().iter()
    }
}

impl Settings {
    /// Features as cargo takes them, for a build of these packages: cargo refuses those of others.
    pub fn features_of(&self, packages: &[String]) -> Vec<String> {
        let named = |(package, feature): &(Option<String>, String)| match package {
            Some(package) => packages.contains(package).then(|| format!("{package}/{feature}")),
            None => Some(feature.clone()),
        };
        self.features.iter().filter_map(named).collect()
    }

    fn take(&mut self, table: &str, said: &Json, package: Option<&str>) -> Result<(), String> {
        let said = said.as_object().ok_or_else(|| format!("{table}: expected a table"))?;
        for (key, value) in said {
            let list = || {
                let texts = value
                    .as_array()
                    .map(|list| list.iter().map(|item| item.as_str().map(str::to_owned)));
                texts
                    .and_then(Iterator::collect::<Option<Vec<String>>>)
                    .ok_or_else(|| format!("{table}: `{key}`: expected a list of texts"))
            };
            match key.as_str() {
                "binaries" => self.binaries.extend(list()?),
                "features" => {
                    let of_package = list()?.into_iter().map(|feature| (package.map(str::to_owned), feature));
                    self.features.extend(of_package);
                }
                "profile" => {
                    let profile = value
                        .as_str()
                        .ok_or_else(|| format!("{table}: `profile`: expected a text"))?;
                    match &self.profile {
                        Some(other) if other != profile => {
                            return Err(format!(
                                "{table}: `profile`: `{other}` is said elsewhere; a build has one"
                            ));
                        }
                        _ => self.profile = Some(profile.to_owned()),
                    }
                }
                unknown => {
                    let near = nearest(unknown, KEYS.into_iter());
                    return Err(format!(
                        "{table}: unknown key `{unknown}`{near} (there are {})",
                        KEYS.join(", ")
                    ));
                }
            }
        }
        Ok(())
    }
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// The programs that a package builds.
fn programs(package: &Json) -> impl Iterator<Item = &str> {
    let targets = package.get("targets").and_then(Json::as_array);
    let is_program = |target: &&Json| {
        let kinds = target.get("kind").and_then(Json::as_array);
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
    };
    targets
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter(is_program)
        .map(|target| text(target, "name"))
}

/// `; did you mean `this`?`, where one of `known` is near.
fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> String {
    let reach = (written.len() / 3).clamp(1, 4);
    known
        .map(|key| (strsim::damerau_levenshtein(written, key), key))
        .filter(|(distance, _)| *distance <= reach)
        .min()
        .map(|(_, key)| format!("; did you mean `{key}`?"))
        .unwrap_or_default()
}

/// Where the types of one file have their fields.
#[derive(Debug, Default)]
pub struct FieldLines {
    types: Vec<TypeLines>,
}

#[derive(Debug)]
struct TypeLines {
    whole: RangeInclusive<usize>,
    /// The named fields, each with its line.
    fields: Vec<(String, usize)>,
}

impl FieldLines {
    /// Reads a file; one that does not parse has none.
    pub fn of(source: &str) -> Self {
        let mut lines = FieldLines::default();
        if let Ok(file) = syn::parse_file(source) {
            lines.visit_file(&file);
        }
        lines
    }

    /// The line on which the type that stands at `line` has its `field`.
    pub fn line(&self, line: usize, field: &str) -> Option<usize> {
        let mut fields = self
            .types
            .iter()
            .filter(|of_type| of_type.whole.contains(&line))
            .flat_map(|of_type| &of_type.fields);
        fields.find(|(name, _)| name == field).map(|(_, line)| *line)
    }

    fn begin(&mut self, item: &impl Spanned) {
        let span = item.span();
        self.types.push(TypeLines {
            whole: span.start().line..=span.end().line,
            fields: Vec::new(),
        });
    }
}

impl<'a> Visit<'a> for FieldLines {
    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.begin(item);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.begin(item);
        visit::visit_item_enum(self, item);
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        if let (Some(name), Some(of_type)) = (&field.ident, self.types.last_mut()) {
            of_type
                .fields
                .push((name.unraw().to_string(), name.span().start().line));
        }
    }
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
