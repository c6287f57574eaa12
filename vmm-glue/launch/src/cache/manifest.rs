// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manifest of a component, and the check whether it still matches. It also proves that a
//! directory belongs to this program, from its creation to its removal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::digest::{KEY_DIGITS, digest};
use super::sharing::{SHARED_DIRECTORY, SHARED_FILE, share, unreachable};

/// Name of the manifest in a component.
pub const FILE: &str = "manifest.json";

/// Suffix of the name of a component while it is made.
pub(super) const PARTIAL: &str = ".partial";

/// The result of making a component.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Files that it cannot work without, by their path in the component.
    pub key_files: Vec<String>,
    /// Facts from making it, such as versions.
    pub facts: Vec<(&'static str, String)>,
}

/// Version of the manifest format.
const FORM: u32 = 1;

/// The depth of an examination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The manifest, and presence and size of the key files: microseconds.
    Quick,
    /// Also the contents of the key files, and names, kinds and sizes of all others.
    Full,
}

/// The contents of a manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    form: u32,
    kind: String,
    recipe: String,
    key_files: Vec<KeyFile>,
    tree: String,
    facts: BTreeMap<String, String>,
}

/// The part of a manifest that gives the purpose of a directory. While the directory is being
/// filled, the manifest has only this part.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Purpose {
    form: u32,
    kind: String,
    recipe: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeyFile {
    path: String,
    size: u64,
    sha256: String,
}

/// Creates a directory to fill, with a manifest that only proves that it belongs to this program.
pub fn begin(directory: &Path, kind: &str, recipe: &str) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    share(directory, SHARED_DIRECTORY);
    let purpose = Purpose {
        form: FORM,
        kind: kind.to_owned(),
        recipe: recipe.to_owned(),
    };
    put(directory, &purpose)
}

/// Whether the manifest in a directory proves that this program made the directory: it matches the
/// directory's name.
pub fn proves(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(PARTIAL).unwrap_or(&name);
    let is_directory = directory
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir());
    let purpose = fs::read_to_string(directory.join(FILE))
        .ok()
        .and_then(|text| serde_json::from_str::<Purpose>(&text).ok());
    let (Some((kind, key)), Some(purpose), true) = (name.rsplit_once('-'), purpose, is_directory)
    else {
        return false;
    };
    purpose.kind == kind && key.len() == KEY_DIGITS && purpose.recipe.starts_with(key)
}

fn put(directory: &Path, manifest: &impl Serialize) -> Result<()> {
    let path = directory.join(FILE);
    let text = serde_json::to_string_pretty(manifest).context("cannot write a manifest")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    share(&path, SHARED_FILE);
    Ok(())
}

impl Manifest {
    /// Writes the manifest of a component that is complete.
    pub fn write(directory: &Path, kind: &str, recipe: &str, made: Made) -> Result<Self> {
        let key_files = made
            .key_files
            .into_iter()
            .map(|path| {
                let bytes = read(directory, &path)?;
                Ok(KeyFile {
                    size: bytes.len() as u64,
                    sha256: digest(&bytes),
                    path,
                })
            })
            .collect::<Result<_>>()?;
        let facts = made
            .facts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let tree = tree_digest(directory)?;
        let manifest = Self {
            form: FORM,
            kind: kind.to_owned(),
            recipe: recipe.to_owned(),
            key_files,
            tree,
            facts,
        };
        put(directory, &manifest)?;
        Ok(manifest)
    }

    /// Reads the manifest of a component and checks whether it matches.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn examine(directory: &Path, recipe: &str, depth: Depth) -> Result<Self> {
        let path = directory.join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|error| unreachable(directory, error))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no manifest", path.display()))?;
        ensure!(
            manifest.form == FORM,
            "its manifest has form {}, not {FORM}",
            manifest.form
        );
        ensure!(manifest.recipe == recipe, "it was made by another recipe");
        for file in &manifest.key_files {
            let path = directory.join(&file.path);
            let size = fs::metadata(&path)
                .with_context(|| format!("cannot examine {}", path.display()))?
                .len();
            if size != file.size {
                bail!("{} has {size} bytes, not {}", path.display(), file.size);
            }
            if depth == Depth::Full && digest(&read(directory, &file.path)?) != file.sha256 {
                bail!("{} has another content", path.display());
            }
        }
        if depth == Depth::Full && tree_digest(directory)? != manifest.tree {
            bail!("files were added, removed or changed in size");
        }
        Ok(manifest)
    }

    /// A fact from making the component.
    pub fn fact(&self, name: &str) -> Result<&str> {
        self.facts
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("the manifest of the {} does not tell its {name}", self.kind))
    }
}

fn read(directory: &Path, relative: &str) -> Result<Vec<u8>> {
    let path = directory.join(relative);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A hash over names, kinds, modes and sizes of all files but the manifest.
fn tree_digest(directory: &Path) -> Result<String> {
    let mut lines = Vec::new();
    walk(directory, directory, &mut lines)?;
    lines.sort();
    Ok(digest(lines.join("\n").as_bytes()))
}

fn walk(root: &Path, directory: &Path, lines: &mut Vec<String>) -> Result<()> {
    let context = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = entry.path();
        let metadata = path.symlink_metadata().with_context(context)?;
        let relative = path.strip_prefix(root).unwrap_or(&path);
        if relative == Path::new(FILE) {
            continue;
        }
        // A directory's size depends on the file system.
        let size = if metadata.is_dir() {
            0
        } else {
            metadata.size()
        };
        lines.push(format!(
            "{:o} {size} {}",
            metadata.mode(),
            relative.display()
        ));
        if metadata.is_dir() {
            walk(root, &path, lines)?;
        }
    }
    Ok(())
}
