// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of prepared parts, shared by checkouts and by processes that run at the same
//! time.
//!
//! A part is a [`Component`]: a directory whose name contains a hash of its recipe. It is made in a
//! directory with another name, gets a [`manifest`], and is then renamed into place, under a
//! [`lock`]: no process sees it incomplete. This module does not know the contents of components.
//!
//! The directory may contain the user's own files. Only directories with a manifest that proves
//! their origin are removed.

mod digest;
pub mod lock;
pub mod manifest;
mod sharing;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::progress::{Progress, Task};
use digest::KEY_DIGITS;
pub use digest::{digest, digest_files};
use lock::Lock;
pub use manifest::Made;
use manifest::{Depth, Manifest, PARTIAL};
pub use sharing::unreachable;
use sharing::{SHARED_DIRECTORY, SHARED_FILE, share};

/// Directory of the locks. They stay when everything else is removed.
const LOCKS: &str = "locks";

/// The directory of prepared parts.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A part of the cache, which may not exist yet.
#[derive(Clone, Debug)]
pub struct Component {
    kind: &'static str,
    recipe: String,
    key: String,
    directory: PathBuf,
    lock: PathBuf,
    in_use: PathBuf,
}

impl Cache {
    /// Opens the requested directory, or that of the environment. Creates it.
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
        let is_new = !root.exists();
        fs::create_dir_all(&root)
            .map_err(|error| unreachable(&root, error))
            .with_context(|| format!("cannot create the cache directory {}", root.display()))?;
        // Absolute, because other programs run in other directories.
        let root = root
            .canonicalize()
            .map_err(|error| unreachable(&root, error))
            .with_context(|| format!("cannot use the cache directory {}", root.display()))?;
        if is_new {
            share(&root, SHARED_DIRECTORY);
        }
        Ok(Self { root })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of logs of how parts were made.
    pub fn logs(&self) -> Result<PathBuf> {
        self.directory("logs")
    }

    /// A directory for other data than components. Creates it, with the manifest that proves that
    /// it belongs to this program.
    pub fn directory(&self, kind: &'static str) -> Result<PathBuf> {
        let recipe = digest(kind.as_bytes());
        let directory = self.root.join(format!("{kind}-{}", &recipe[..KEY_DIGITS]));
        if !manifest::proves(&directory) {
            manifest::begin(&directory, kind, &recipe)?;
        }
        Ok(directory)
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
        let lock = self.root.join(LOCKS).join(format!("{kind}-{key}"));
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
        let path = self.in_use_lock();
        let lock = Lock::shared(&path)?;
        // Others hold it too, even users with read-only access.
        share(&self.path(LOCKS), SHARED_DIRECTORY);
        share(&path, SHARED_FILE);
        Ok(lock)
    }

    fn in_use_lock(&self) -> PathBuf {
        self.path(LOCKS).join("in-use")
    }

    /// Removes incomplete components of interrupted runs, of any recipe. The caller holds the lock
    /// of all makers of components.
    pub fn remove_partial(&self) -> Result<()> {
        for (name, path) in self.entries()? {
            if name.ends_with(PARTIAL) && manifest::proves(&path) {
                remove_own(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the other components of a component's kind, if the cache is not in use.
    pub fn retire(&self, component: &Component) -> Result<()> {
        let Ok(_alone) = Lock::try_exclusive(&self.in_use_lock())? else {
            return Ok(());
        };
        let beginning = format!("{}-", component.kind);
        for (name, path) in self.entries()? {
            let is_other =
                name != component.name() && name.strip_prefix(&beginning).is_some_and(is_key);
            if is_other && manifest::proves(&path) {
                remove_own(&path)?;
            }
        }
        Ok(())
    }

    /// Names and paths of all entries, sorted.
    fn entries(&self) -> Result<Vec<(String, PathBuf)>> {
        let context = || format!("cannot read {}", self.root.display());
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root).with_context(context)? {
            let entry = entry.with_context(context)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push((name, entry.path()));
        }
        entries.sort();
        Ok(entries)
    }

    /// Removes everything that this program made in it, once it is not in use, and returns the
    /// names of the remaining entries. The locks stay: others may wait for them.
    pub fn remove(&self, task: &Task) -> Result<Vec<String>> {
        let _alone = Lock::exclusive(&self.in_use_lock(), task)?;
        let mut left = Vec::new();
        for (name, path) in self.entries()? {
            if manifest::proves(&path) {
                remove_own(&path)?;
            } else if name != LOCKS {
                left.push(name);
            }
        }
        Ok(left)
    }
}

impl Component {
    /// Its directory, which may not exist yet.
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

    /// Its manifest, if the component is sound.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn examine(&self, depth: Depth) -> Result<Manifest> {
        Manifest::examine(&self.directory, &digest(self.recipe.as_bytes()), depth)
    }

    /// Makes the component if it is missing or not sound, and returns its manifest.
    ///
    /// `make` fills the given directory, which is empty except for a manifest; `fresh` makes the
    /// component again in any case. A component to replace must not be in use: this function waits
    /// for that, so the caller must not hold [`Cache::in_use`].
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
        // The name is fixed, so that the leftovers of an interrupted run are found and removed.
        let partial = partial(&self.directory);
        remove_own(&partial)?;
        let recipe = digest(self.recipe.as_bytes());
        manifest::begin(&partial, self.kind, &recipe)?;
        let made = make(&partial, &task)?;
        let manifest = Manifest::write(&partial, self.kind, &recipe, made)?;
        if self.directory.exists() {
            let _unused = Lock::exclusive(&self.in_use, &task)?;
            remove_own(&self.directory)?;
        }
        fs::rename(&partial, &self.directory)
            .with_context(|| format!("cannot put {} into place", self.name()))?;
        task.done();
        Ok(manifest)
    }
}

/// Whether a text is a component's key, not the rest of a longer kind's name.
fn is_key(text: &str) -> bool {
    text.len() == KEY_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The temporary directory in which a component is made.
fn partial(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(PARTIAL);
    directory.with_file_name(name)
}

/// Removes one of this program's directories, its manifest last: until then it can be recognized,
/// even after an interruption.
fn remove_own(directory: &Path) -> Result<()> {
    let context = || format!("cannot remove {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(context)?,
    };
    for entry in entries {
        let entry = entry.with_context(context)?;
        if entry.file_name() == manifest::FILE {
            continue;
        }
        let path = entry.path();
        if entry.file_type().with_context(context)?.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).with_context(context)?;
        }
    }
    remove_tree(directory)
}

/// Removes a directory and its contents, if it exists.
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
    fn others_of_a_kind_are_retired_unless_they_are_in_use() {
        let (directory, cache) = cache();
        let progress = Progress::new();
        let thing = |kind, recipe: &str| {
            let component = cache.component(kind, recipe.into());
            component
                .ensure(&progress, Depth::Quick, false, |d, _| make(d, "1"))
                .unwrap();
            component
        };
        let (old, new) = (thing("next", "old"), thing("next", "new"));
        let other = thing("next-kernel", "other");
        let mine = directory.path().join("next-0123456789ab");
        fs::create_dir(&mine).unwrap();
        let in_use = cache.in_use().unwrap();
        cache.retire(&new).unwrap();
        assert!(old.directory().exists());
        drop(in_use);
        cache.retire(&new).unwrap();
        assert!(!old.directory().exists());
        assert!(new.directory().exists() && other.directory().exists() && mine.exists());
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
                assert!(!directory.join("file").exists());
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
        // It has the same size, so only the full examination detects it.
        fs::write(component.path("file"), "THIRD").unwrap();
        assert_eq!(ensure(Depth::Quick, "x"), "THIRD");
        assert_eq!(ensure(Depth::Full, "after"), "after");
        fs::write(component.path(manifest::FILE), "{").unwrap();
        assert_eq!(ensure(Depth::Quick, "last"), "last");
    }

    /// Makes a component, and returns its directory.
    fn made(cache: &Cache, kind: &'static str) -> PathBuf {
        let component = cache.component(kind, "recipe".into());
        component
            .ensure(&Progress::new(), Depth::Quick, false, |d, _| make(d, "x"))
            .unwrap();
        component.directory().to_owned()
    }

    #[test]
    fn removing_the_cache_spares_what_it_did_not_make() {
        let (directory, cache) = cache();
        let component = made(&cache, "root");
        let logs = cache.logs().unwrap();
        fs::write(logs.join("root.log"), "x").unwrap();
        let mine = [
            "apt",
            "kernel",
            "logs",
            "root-0123456789ab",
            "root-fs",
            "toolchain-1.partial",
        ];
        for name in mine {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("mine"), "x").unwrap();
        }
        // A component's manifest in a directory of another name proves nothing.
        let manifest = component.join(manifest::FILE);
        let copy = directory.path().join("kernel").join(manifest::FILE);
        fs::copy(&manifest, copy).unwrap();
        let task = Progress::new().task("removing");
        let left = cache.remove(&task).unwrap();
        task.done();
        assert!(!component.exists() && !logs.exists());
        for name in mine {
            let file = directory.path().join(name).join("mine");
            assert!(file.exists(), "{name} lost its file");
        }
        assert_eq!(left, mine);
    }

    #[test]
    fn what_interrupted_runs_left_is_removed_and_nothing_else() {
        let (directory, cache) = cache();
        let component = made(&cache, "root");
        let interrupted = cache.component("root", "another recipe".into());
        let fail = |directory: &Path, _: &Task| {
            make(directory, "half")?;
            bail!("interrupted")
        };
        interrupted
            .ensure(&Progress::new(), Depth::Quick, false, fail)
            .unwrap_err();
        let partial = partial(interrupted.directory());
        assert!(partial.join("file").exists());
        fs::create_dir(directory.path().join("root-02.partial")).unwrap();
        cache.remove_partial().unwrap();
        assert!(!partial.exists());
        assert!(component.exists());
        assert!(directory.path().join("root-02.partial").exists());
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
