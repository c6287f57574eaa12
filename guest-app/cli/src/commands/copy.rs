// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl copy`: copies one mapped file to another.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::fstatvfs;
use serde::Serialize;
use svmctl::Queue;

use super::work::{Work, measure, open};
use svm_cases::harness::report::print_json;
use svm_cases::system::files;

#[derive(Debug, Serialize)]
struct Line<'a> {
    source: &'a Path,
    destination: &'a Path,
    #[serde(flatten)]
    work: Work,
}

/// Copies, and with `--json` reports how much.
pub fn run(device: &Path, as_json: bool, source: &Path, destination: &Path) -> anyhow::Result<()> {
    let mut queue = open(device)?;
    let work = copy(&mut queue, source, destination)?;
    if as_json {
        print_json(&Line {
            source,
            destination,
            work,
        })?;
    }
    Ok(())
}

/// Copies `source` to `destination` with the device. An unfinished destination is removed.
fn copy(queue: &mut Queue, source: &Path, destination: &Path) -> anyhow::Result<Work> {
    let from = File::open(source).with_context(|| source.display().to_string())?;
    let length = files::length(&from).with_context(|| source.display().to_string())?;
    let metadata = from.metadata()?;
    match fs::metadata(destination) {
        Ok(old) if (old.dev(), old.ino()) == (metadata.dev(), metadata.ino()) => bail!(
            "{} and {} are the same file",
            source.display(),
            destination.display()
        ),
        Ok(old) => ensure!(
            old.is_file(),
            "{}: not a regular file: give the name of the copy",
            destination.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| destination.display().to_string()),
    }
    let to = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(metadata.permissions().mode() & 0o777)
        .open(destination)
        .with_context(|| destination.display().to_string())?;
    let unfinished = Unfinished(Some(destination));
    let work =
        fill(queue, &from, &to, length).with_context(|| destination.display().to_string())?;
    unfinished.keep();
    Ok(work)
}

fn fill(queue: &mut Queue, from: &File, to: &File, length: u64) -> anyhow::Result<Work> {
    if length == 0 {
        return Ok(measure(queue, 0, |_| Ok(()))?.1);
    }
    // Allocates all blocks before the first store: through a mapping, a full disk would cause a
    // signal.
    let size = i64::try_from(length).context("the file is too large")?;
    let disk = fstatvfs(to)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    // An in-memory file system without blocks does not report this number.
    ensure!(
        disk.blocks() == 0 || length <= free,
        "no space for {length} bytes: {free} are free"
    );
    posix_fallocate(to, 0, size).map_err(|error| match error {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG => {
            anyhow::anyhow!("no space for {length} bytes: {}", error.desc())
        }
        other => anyhow::anyhow!("cannot reserve {length} bytes: {}", other.desc()),
    })?;
    let source = files::map_read(from, length)?;
    let mut destination = files::map_write(to, length)?;
    let ((), work) = measure(queue, length, |queue| {
        queue
            .copy(&source, &mut destination)
            .context("the device could not copy (was a file truncated meanwhile?)")
    })?;
    destination.flush().context("cannot write the copy back")?;
    Ok(work)
}

/// Removes a file when dropped, unless told to keep it.
struct Unfinished<'a>(Option<&'a Path>);

impl Unfinished<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(path) = self.0 else { return };
        if let Err(error) = fs::remove_file(path) {
            eprintln!("svmctl: {}: cannot be removed: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use svmctl::model::{Model, Mutant, TRANSFER_LOG2};

    fn queue() -> Queue {
        let context = svmctl::Context::with_file(Box::new(Model::new().unwrap())).unwrap();
        context.start(4).unwrap()
    }

    #[test]
    fn a_copy_has_contents_length_and_mode_of_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for length in [0, 1, 4096, (1 << TRANSFER_LOG2) + 77] {
            let contents: Vec<u8> = (0..length).map(|n| (n * 13 + n / 509) as u8).collect();
            fs::write(&from, &contents).unwrap();
            fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
            // Longer than the source: none of its old content may remain.
            let work = copy(&mut queue(), &from, &to).unwrap();
            assert_eq!(work.bytes, length as u64);
            assert!(fs::read(&to).unwrap() == contents, "length {length}");
            assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o600);
        }
        fs::write(&from, b"short").unwrap();
        copy(&mut queue(), &from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"short");
    }

    #[test]
    fn a_file_is_not_copied_onto_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (from, link) = (dir.path().join("from"), dir.path().join("link"));
        fs::write(&from, b"precious").unwrap();
        std::os::unix::fs::symlink(&from, &link).unwrap();
        for to in [&from, &link] {
            let error = copy(&mut queue(), &from, to).unwrap_err().to_string();
            assert!(error.contains("the same file"), "{error}");
            assert_eq!(fs::read(&from).unwrap(), b"precious");
        }
    }

    #[test]
    fn a_missing_source_touches_no_destination() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        fs::write(&to, b"precious").unwrap();
        copy(&mut queue(), &dir.path().join("from"), &to).unwrap_err();
        assert_eq!(fs::read(&to).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_is_no_destination() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::write(&from, b"data").unwrap();
        let error = copy(&mut queue(), &from, dir.path()).unwrap_err();
        assert!(
            format!("{error:#}").contains("not a regular file"),
            "{error:#}"
        );
    }

    #[test]
    fn a_full_disk_is_an_error_before_anything_is_copied() {
        // Sparse and larger than any file system.
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        let mut size = 1u64 << 46;
        while file.set_len(size).is_err() {
            size >>= 1;
        }
        let error = copy(&mut queue(), &from, &to).unwrap_err();
        assert!(format!("{error:#}").contains("no space"), "{error:#}");
        assert!(!to.exists(), "the destination was left behind");
    }

    #[test]
    fn an_unfinished_copy_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, b"data").unwrap();
        let model = Model::with_mutant(Some(Mutant::FailureSpreads)).unwrap();
        let mut queue = svmctl::Context::with_file(Box::new(model))
            .unwrap()
            .start(4)
            .unwrap();
        // SAFETY: nothing is mapped at this address.
        let bad = unsafe {
            queue.execute(&svmctl::Descriptor::fill(
                std::ptr::without_provenance_mut(0x1000),
                8,
                0,
            ))
        };
        bad.unwrap_err();
        copy(&mut queue, &from, &to).unwrap_err();
        assert!(!to.exists(), "the destination was left behind");
    }
}
