// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of prepared parts, shared by checkouts and by processes that run at the same
//! time.
//!
//! A part is a [`Component`]: a directory whose name says by a hash what it was made from. It is
//! made in a directory of another name, gets a [`manifest`], and only then is renamed into place,
//! under a [`lock`]: whoever sees it sees all of it. It knows nothing of what components hold.

pub mod lock;
pub mod manifest;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::progress::{Progress, Task};
use lock::Lock;
use manifest::{Depth, Manifest};

/// Digits of a hash in names: enough for the few components that ever share a directory.
const KEY_DIGITS: usize = 12;

/// What the cache holds: names of entries, or their beginnings before a hyphen.
const OWN: &[&str] = &["root", "kernel", "toolchain", "debug-kernel", "apt", "logs"];

/// End of the name of a component that is being made.
const PARTIAL: &str = ".partial";

/// The directory of prepared parts.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A part of the cache, there or still to be made.
#[derive(Clone, Debug)]
pub struct Component {
    kind: &'static str,
    recipe: String,
    key: String,
    directory: PathBuf,
    lock: PathBuf,
    in_use: PathBuf,
}

/// What a component's maker says about it.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Files without which it is of no use, by their path in the component.
    pub key_files: Vec<String>,
    /// What was found out while making it, such as versions.
    pub facts: Vec<(&'static str, String)>,
}

impl Cache {
    /// The directory that was asked for, or else that of the environment. It is created.
    pub fn open(asked: Option<&Path>) -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = match asked {
            Some(path) => path.to_owned(),
            None => match (variable("XDG_CACHE_HOME"), variable("HOME")) {
                (Some(cache), _) => Path::new(&cache).join("svm-demo"),
                (None, Some(home)) => Path::new(&home).join(".cache/svm-demo"),
                (None, None) => bail!(
                    "no place for prepared parts: give one by --cache DIR or set SVM_CACHE, \
                     XDG_CACHE_HOME or HOME"
                ),
            },
        };
        fs::create_dir_all(&root)
            .with_context(|| format!("cannot create the cache directory {}", root.display()))?;
        // Other programs run in other directories.
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot use the cache directory {}", root.display()))?;
        Ok(Self { root })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of logs of how parts were made.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// A path in it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The component of a kind that is made by a recipe. The recipe is any text that changes when
    /// the result would.
    pub fn component(&self, kind: &'static str, recipe: String) -> Component {
        let key = digest(recipe.as_bytes())[..KEY_DIGITS].to_owned();
        let directory = self.root.join(format!("{kind}-{key}"));
        let lock = self.root.join("locks").join(format!("{kind}-{key}"));
        Component {
            kind,
            recipe,
            key,
            directory,
            lock,
            in_use: self.in_use_lock(),
        }
    }

    /// Marks the cache as in use until the lock is dropped.
    pub fn in_use(&self) -> Result<Lock> {
        Lock::shared(&self.in_use_lock())
    }

    fn in_use_lock(&self) -> PathBuf {
        self.root.join("locks/in-use")
    }

    /// Removes what interrupted runs left of components, whatever they were made from. The caller
    /// holds the lock of all who make components.
    pub fn remove_partial(&self) -> Result<()> {
        for (name, path) in self.own_entries()? {
            if name.ends_with(PARTIAL) {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Names and paths of the entries that this program makes. A directory that was not filled by
    /// it may be given by mistake.
    fn own_entries(&self) -> Result<Vec<(String, PathBuf)>> {
        let context = || format!("cannot read {}", self.root.display());
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root).with_context(context)? {
            let entry = entry.with_context(context)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if OWN
                .iter()
                .any(|own| name == *own || name.starts_with(&format!("{own}-")))
            {
                entries.push((name, entry.path()));
            }
        }
        Ok(entries)
    }

    /// Removes all that is in it, once nobody uses it. The locks stay: others may wait for them.
    pub fn remove(&self, task: &Task) -> Result<()> {
        let _alone = Lock::exclusive(&self.in_use_lock(), task)?;
        for (_, path) in self.own_entries()? {
            remove_tree(&path)?;
        }
        Ok(())
    }
}

impl Component {
    /// Where it is, or will be.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path in it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }

    /// Kind and key: its name in the cache.
    pub fn name(&self) -> String {
        format!("{}-{}", self.kind, self.key)
    }

    /// What its manifest says, if the component is sound.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn examine(&self, depth: Depth) -> Result<Manifest> {
        Manifest::examine(&self.directory, &digest(self.recipe.as_bytes()), depth)
    }

    /// Returns the manifest of the component after making it where it is missing or not sound.
    ///
    /// `make` fills the empty directory that it is given; `fresh` makes it anew in any case. What
    /// is replaced must not be in use: this waits for it, so the caller must not hold
    /// [`Cache::in_use`].
    pub fn ensure(
        &self,
        progress: &Progress,
        depth: Depth,
        fresh: bool,
        make: impl FnOnce(&Path, &Task) -> Result<Made>,
    ) -> Result<Manifest> {
        if !fresh {
            if let Ok(manifest) = self.examine(depth) {
                return Ok(manifest);
            }
        }
        let task = progress.task(format!("preparing the {}", self.kind));
        let _lock = Lock::exclusive(&self.lock, &task)?;
        // Another process may have made it while this one waited.
        match self.examine(depth) {
            Ok(manifest) if !fresh => {
                task.done();
                return Ok(manifest);
            }
            Err(error) if self.directory.exists() => {
                progress.line(&format!(
                    "{} is damaged and made anew: {error:#}",
                    self.name()
                ));
            }
            _ => {}
        }
        // Its name is fixed, so that what an interrupted run left is found and removed.
        let partial = self
            .directory
            .with_file_name(format!("{}{PARTIAL}", self.name()));
        remove_tree(&partial)?;
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        let made = make(&partial, &task)?;
        let recipe = digest(self.recipe.as_bytes());
        let manifest = Manifest::write(&partial, self.kind, &recipe, made)?;
        if self.directory.exists() {
            let _unused = Lock::exclusive(&self.in_use, &task)?;
            remove_tree(&self.directory)?;
        }
        fs::rename(&partial, &self.directory)
            .with_context(|| format!("cannot put {} into place", self.name()))?;
        task.done();
        Ok(manifest)
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The SHA-256 of files: of their paths relative to `root`, and of their contents.
pub fn digest_files(root: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let path = root.join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        hash.update(digest(file.as_os_str().as_encoded_bytes()));
        hash.update(digest(&bytes));
    }
    Ok(hexadecimal(&hash.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes a directory and what is in it; one that is not there is removed already.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(directory: &Path, content: &str) -> Result<Made> {
        fs::write(directory.join("file"), content)?;
        Ok(Made {
            key_files: vec!["file".into()],
            facts: vec![("version", content.into())],
        })
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        (directory, cache)
    }

    #[test]
    fn a_component_is_made_once() {
        let (_directory, cache) = cache();
        let component = cache.component("thing", "recipe".into());
        let progress = Progress::new();
        let first = component
            .ensure(&progress, Depth::Quick, false, |d, _| make(d, "1"))
            .unwrap();
        assert_eq!(first.fact("version").unwrap(), "1");
        component
            .ensure(&progress, Depth::Full, false, |_, _| {
                panic!("it is there and sound")
            })
            .unwrap();
        let anew = component
            .ensure(&progress, Depth::Quick, true, |d, _| make(d, "2"))
            .unwrap();
        assert_eq!(anew.fact("version").unwrap(), "2");
    }

    #[test]
    fn another_recipe_is_another_component() {
        let (_directory, cache) = cache();
        let one = cache.component("thing", "recipe 1".into());
        let other = cache.component("thing", "recipe 2".into());
        assert_ne!(one.directory(), other.directory());
    }

    #[test]
    fn a_failed_attempt_leaves_nothing_in_place() {
        let (_directory, cache) = cache();
        let component = cache.component("thing", "recipe".into());
        let progress = Progress::new();
        let fail = |directory: &Path, _: &Task| {
            make(directory, "half")?;
            bail!("interrupted")
        };
        component
            .ensure(&progress, Depth::Quick, false, fail)
            .unwrap_err();
        assert!(!component.directory().exists());
        component
            .ensure(&progress, Depth::Quick, false, |directory, _| {
                assert_eq!(fs::read_dir(directory)?.count(), 0);
                make(directory, "whole")
            })
            .unwrap();
    }

    #[test]
    fn a_damaged_component_is_made_anew() {
        let (_directory, cache) = cache();
        let component = cache.component("thing", "recipe".into());
        let progress = Progress::new();
        let ensure = |depth, content: &str| {
            component
                .ensure(&progress, depth, false, |d, _| make(d, content))
                .unwrap();
            fs::read_to_string(component.path("file")).unwrap()
        };
        assert_eq!(ensure(Depth::Quick, "first"), "first");
        fs::remove_file(component.path("file")).unwrap();
        assert_eq!(ensure(Depth::Quick, "again"), "again");
        fs::write(component.path("file"), "longer than before").unwrap();
        assert_eq!(ensure(Depth::Quick, "third"), "third");
        // Of the same size: only the full examination sees it.
        fs::write(component.path("file"), "THIRD").unwrap();
        assert_eq!(ensure(Depth::Quick, "x"), "THIRD");
        assert_eq!(ensure(Depth::Full, "after"), "after");
        fs::write(component.path(manifest::FILE), "{").unwrap();
        assert_eq!(ensure(Depth::Quick, "last"), "last");
    }

    #[test]
    fn removing_the_cache_spares_what_it_did_not_make() {
        let (directory, cache) = cache();
        fs::create_dir(directory.path().join("root-0123")).unwrap();
        fs::write(directory.path().join("mine"), "x").unwrap();
        let task = Progress::new().task("removing");
        cache.remove(&task).unwrap();
        task.done();
        assert!(!directory.path().join("root-0123").exists());
        assert!(directory.path().join("mine").exists());
    }

    #[test]
    fn what_interrupted_runs_left_is_removed_and_nothing_else() {
        let (directory, cache) = cache();
        for name in ["root-01", "root-02.partial", "mine.partial"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        cache.remove_partial().unwrap();
        let left = |name: &str| directory.path().join(name).exists();
        assert!(left("root-01") && left("mine.partial"));
        assert!(!left("root-02.partial"));
    }

    #[test]
    fn processes_that_want_the_same_make_it_once() {
        let (_directory, cache) = cache();
        let made = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let component = cache.component("thing", "recipe".into());
                    component
                        .ensure(&Progress::new(), Depth::Quick, false, |directory, _| {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            make(directory, "x")
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_hash_of_files_sees_names_and_contents() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join("b"), "1").unwrap();
        let hash = |name: &str| digest_files(root, &[name.into()]).unwrap();
        let first = hash("a");
        assert_ne!(first, hash("b"));
        fs::write(root.join("a"), "2").unwrap();
        assert_ne!(first, hash("a"));
        assert!(digest_files(root, &["missing".into()]).is_err());
    }
}
