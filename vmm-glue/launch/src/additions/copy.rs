// SPDX-License-Identifier: MIT OR Apache-2.0
//! Collects the files for `--copy`: files, directories, and the libraries of the programs in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use svm_init::paths;

use super::elf::{self, Kind};

/// Mount points of the guest's first process to which files may be copied, with the mode of the
/// directory: it copies them later.
const LATE: &[(&str, u32)] = &[("tmp", 0o1777), ("run", 0o755)];

/// Directories to which nothing can be copied.
const CLOSED: &[&str] = &["proc", "sys", "dev", "svm", "init"];

/// Bits of a mode that are preserved.
const MODE: u32 = 0o7777;

/// An item in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A directory, with its mode.
    Directory(u32),
    /// A file of this machine, with its mode.
    File(PathBuf, u32),
    /// A file with this content, and its mode.
    Content(Vec<u8>, u32),
    /// A symbolic link, and its target.
    Link(PathBuf),
}

/// The collected items, by their path in the guest without the first slash, so that a directory
/// comes before its contents.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    items: BTreeMap<PathBuf, Item>,
}

impl Collection {
    /// Adds the files of one `--copy`.
    ///
    /// # Errors
    ///
    /// It cannot be read, its path in the guest is not allowed, or it is a program that cannot run
    /// there.
    pub fn add(&mut self, argument: &Path) -> Result<()> {
        let (from, to) = split(argument);
        let metadata = fs::metadata(&from).with_context(|| {
            format!(
                "cannot copy {}: a file or directory was expected, and after a colon its absolute \
                 path in the guest (option --copy)",
                from.display()
            )
        })?;
        let place = place(&from, to.as_deref())?;
        self.make_way(&place)?;
        if metadata.is_dir() {
            let mut programs = Vec::new();
            self.directory(&from, &place, &mut programs)?;
            // A library may be copied next to its program.
            let own: Vec<_> = self
                .items
                .keys()
                .filter(|path| path.starts_with(&place))
                .filter_map(|path| path.file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            for program in programs {
                self.libraries(&program, &own)?;
            }
            return Ok(());
        }
        if let Kind::Foreign(machine) = elf::kind(&from)? {
            bail!(
                "{} is a program for {machine}, and the guest is x86-64: build it for that (option \
                 --copy)",
                from.display()
            );
        }
        self.file(&from, &place, &metadata)?;
        self.libraries(&from, &[])
    }

    /// Adds the script that a shell runs.
    pub fn script(&mut self, content: Vec<u8>) {
        let place = PathBuf::from(paths::SCRIPT.trim_start_matches('/'));
        self.items.insert(place, Item::Content(content, 0o644));
    }

    /// Adds a file at a path that no user can choose.
    ///
    /// # Errors
    ///
    /// A file is where a directory of that path was expected.
    pub fn place(&mut self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let place = PathBuf::from(to.trim_start_matches('/'));
        self.make_way(&place)?;
        self.items.insert(place, Item::File(absolute(from)?, mode));
        Ok(())
    }

    /// Adds a file with this content at such a path.
    ///
    /// # Errors
    ///
    /// Those of [`Self::place`].
    pub fn place_text(&mut self, text: &str, to: &str, mode: u32) -> Result<()> {
        let place = PathBuf::from(to.trim_start_matches('/'));
        self.make_way(&place)?;
        self.items.insert(place, Item::Content(text.into(), mode));
        Ok(())
    }

    /// The collected items, in an order in which they can be packed.
    pub fn items(&self) -> impl Iterator<Item = (&Path, &Item)> {
        self.items.iter().map(|(path, item)| (path.as_path(), item))
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        let files = self.items.values().filter_map(|item| match item {
            Item::File(path, _) => fs::metadata(path).ok(),
            _ => None,
        });
        files.map(|metadata| metadata.len()).sum()
    }

    fn directory(&mut self, from: &Path, place: &Path, programs: &mut Vec<PathBuf>) -> Result<()> {
        let context = || format!("cannot read {}", from.display());
        let mode = fs::metadata(from)
            .with_context(context)?
            .permissions()
            .mode()
            & MODE;
        self.items.insert(place.to_owned(), Item::Directory(mode));
        for entry in fs::read_dir(from).with_context(context)? {
            let entry = entry.with_context(context)?;
            let (path, place) = (entry.path(), place.join(entry.file_name()));
            let metadata = path.symlink_metadata().with_context(context)?;
            if metadata.is_dir() {
                self.directory(&path, &place, programs)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).with_context(context)?;
                self.items.insert(place, Item::Link(target));
            } else {
                self.file(&path, &place, &metadata)?;
                programs.push(path);
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, place: &Path, metadata: &fs::Metadata) -> Result<()> {
        ensure!(
            metadata.is_file(),
            "cannot copy {}: it is neither a file nor a directory (option --copy)",
            from.display()
        );
        let mode = metadata.permissions().mode() & MODE;
        let item = Item::File(absolute(from)?, mode);
        self.items.insert(place.to_owned(), item);
        Ok(())
    }

    /// Adds loader and libraries of a program, except those in `own`, which are copied with it.
    fn libraries(&mut self, program: &Path, own: &[String]) -> Result<()> {
        let Kind::Dynamic { loader, bits } = elf::kind(program)? else {
            return Ok(());
        };
        let directory = match bits {
            64 => "lib/x86_64-linux-gnu",
            _ => "lib/i386-linux-gnu",
        };
        for library in elf::libraries(program, &loader)? {
            let Some(path) = library.path else {
                if own.contains(&library.name) {
                    continue;
                }
                bail!(
                    "{} needs the library {}, which is not on this machine: install it, or set \
                     LD_LIBRARY_PATH to where it is, or link the program statically",
                    program.display(),
                    library.name
                );
            };
            let item = Item::File(absolute(&path)?, 0o755);
            let place = Path::new(directory).join(&library.name);
            self.make_way(&place)?;
            let before = self.items.insert(place, item.clone());
            if let Some(before) = before.filter(|before| *before != item) {
                bail!(
                    "two programs need {} from two places, {before:?} and {item:?}: copy them in \
                     runs of their own",
                    library.name
                );
            }
        }
        let place = relative(&loader)?;
        self.make_way(&place)?;
        let item = Item::File(absolute(&loader)?, 0o755);
        self.items.insert(place, item);
        Ok(())
    }

    /// Adds the parent directories of a path.
    fn make_way(&mut self, place: &Path) -> Result<()> {
        for directory in place.ancestors().skip(1) {
            if directory.as_os_str().is_empty() {
                break;
            }
            let late = directory.strip_prefix(late()).unwrap_or(directory);
            let mode = LATE
                .iter()
                .find(|(name, _)| late == Path::new(name))
                .map_or(0o755, |(_, mode)| *mode);
            match self
                .items
                .entry(directory.to_owned())
                .or_insert(Item::Directory(mode))
            {
                Item::Directory(_) => {}
                _ => bail!(
                    "/{} is a file, but --copy puts something else below it",
                    directory.display()
                ),
            }
        }
        Ok(())
    }
}

/// Splits `FILE:PATH`. If a file with the whole argument as its name exists, that file is meant.
fn split(argument: &Path) -> (PathBuf, Option<PathBuf>) {
    let bytes = argument.as_os_str().as_bytes();
    let colon = bytes.windows(2).rposition(|pair| pair == b":/");
    match colon {
        Some(colon) if !argument.exists() => {
            let path = |bytes| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
            (path(&bytes[..colon]), Some(path(&bytes[colon + 1..])))
        }
        _ => (argument.to_owned(), None),
    }
}

/// The path of a file in the archive, without the first slash.
fn place(from: &Path, to: Option<&Path>) -> Result<PathBuf> {
    let name = || {
        // `.` and paths that end in `..` have a name only after they are resolved.
        let path = match from.file_name() {
            Some(_) => from.to_owned(),
            None => absolute(from)?,
        };
        let name = path.file_name().map(ToOwned::to_owned);
        name.with_context(|| format!("{} has no name to copy it by", from.display()))
    };
    let path = match to {
        None => Path::new(paths::HOME).join(name()?),
        Some(to) if to.as_os_str().as_bytes().ends_with(b"/") => to.join(name()?),
        Some(to) => to.to_owned(),
    };
    relative(&path)
}

fn relative(path: &Path) -> Result<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => bail!(
                "{} cannot be a place in the guest: an absolute path without `..` was expected \
                 (option --copy)",
                path.display()
            ),
        }
    }
    let first = parts.iter().next().unwrap_or_default().to_string_lossy();
    if first.is_empty() || CLOSED.contains(&&*first) {
        bail!(
            "nothing can be copied to {} in the guest: choose a place such as {} or /tmp (option \
             --copy)",
            path.display(),
            paths::HOME
        );
    }
    if LATE.iter().any(|(name, _)| *name == first) {
        return Ok(late().join(parts));
    }
    Ok(parts)
}

fn late() -> &'static Path {
    Path::new(paths::LATE.trim_start_matches('/'))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(arguments: &[PathBuf]) -> Result<Vec<String>> {
        let mut collection = Collection::default();
        for argument in arguments {
            collection.add(argument)?;
        }
        let items = collection.items();
        Ok(items.map(|(path, _)| path.display().to_string()).collect())
    }

    fn argument(path: &Path, to: &str) -> PathBuf {
        PathBuf::from(format!("{}{to}", path.display()))
    }

    #[test]
    fn a_file_has_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a:b");
        fs::write(&file, "x").unwrap();
        for (to, expected) in [
            ("", &["root", "root/a:b"][..]),
            (":/opt/x/y", &["opt", "opt/x", "opt/x/y"]),
            (":/opt/", &["opt", "opt/a:b"]),
            (":/bin/mine", &["bin", "bin/mine"]),
            (
                ":/tmp/mine",
                &["svm", "svm/late", "svm/late/tmp", "svm/late/tmp/mine"],
            ),
        ] {
            assert_eq!(added(&[argument(&file, to)]).unwrap(), expected, "{to}");
        }
        let mut collection = Collection::default();
        collection.add(&argument(&file, ":/tmp/mine")).unwrap();
        let tmp = collection.items[Path::new("svm/late/tmp")].clone();
        assert_eq!(tmp, Item::Directory(0o1777));
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "x").unwrap();
        for to in [
            ":/proc/x",
            ":/dev/x",
            ":/svm/plan.json",
            ":/init",
            ":/a/../b",
        ] {
            let error = added(&[argument(&file, to)]).unwrap_err().to_string();
            assert!(error.contains("--copy"), "{to}: {error}");
        }
        let error = added(&[directory.path().join("none")]).unwrap_err();
        assert!(error.to_string().contains("was expected"), "{error}");
        let error = added(&[argument(&file, ":/opt"), argument(&file, ":/opt/x")]).unwrap_err();
        assert!(error.to_string().contains("/opt is a file"), "{error}");
    }

    #[test]
    fn a_directory_goes_with_all_that_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("d");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::write(top.join("sub/f"), "x").unwrap();
        std::os::unix::fs::symlink("sub/f", top.join("l")).unwrap();
        let mut collection = Collection::default();
        collection.add(&top).unwrap();
        let at = |path: &str| collection.items[Path::new(path)].clone();
        assert!(matches!(at("root/d/sub"), Item::Directory(_)));
        assert!(matches!(at("root/d/sub/f"), Item::File(..)));
        assert_eq!(at("root/d/l"), Item::Link("sub/f".into()));
        assert_eq!(collection.size(), 1);
    }

    #[test]
    fn a_program_takes_its_loader_and_libraries_along() {
        let own = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::copy(&own, directory.path().join("p")).unwrap();
        for argument in [own, directory.path().to_owned()] {
            let found = added(&[argument]).unwrap();
            for path in [
                "lib/x86_64-linux-gnu/libc.so.6",
                "lib64/ld-linux-x86-64.so.2",
            ] {
                assert!(found.iter().any(|found| found == path), "{path}: {found:?}");
            }
        }
    }
}
