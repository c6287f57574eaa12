// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that a guest sends: a tar archive on a disk, or over a serial port if its kernel has
//! no driver for the disk, unpacked into the run's folder.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use svm_init::paths;
use svm_init::plan::{Exit, Fetch};

use super::machine::{Files, with_path};
use crate::cache::remove_tree;
use crate::prepare::Prepared;

/// The module that drives the disk.
pub const MODULE: &str = "virtio_blk";

/// Options of a kernel with a built-in driver.
const BUILT_IN: [&str; 2] = ["CONFIG_VIRTIO_BLK", "CONFIG_VIRTIO_PCI"];

/// Size of the disk. The file is sparse.
const DISK: u64 = 64 << 30;

/// The files to fetch, if any, and the transport.
pub fn plan(prepared: &Prepared, paths: &[String]) -> Option<Fetch> {
    let has_module = prepared.modules.iter().any(|(name, _)| name == MODULE);
    let options = &prepared.kernel_options;
    let built_in = BUILT_IN.map(|option| options.get(option).is_some_and(|value| value == "y"));
    let by = match has_module || built_in == [true, true] {
        true => Exit::Disk,
        false => Exit::Port,
    };
    (!paths.is_empty()).then(|| Fetch {
        paths: paths.to_vec(),
        by,
    })
}

/// Creates the archive's file, and returns QEMU's arguments for it.
pub fn arguments(fetch: &Fetch, files: &Files) -> Result<Vec<std::ffi::OsString>> {
    let file = File::create(&files.archive)
        .with_context(|| format!("cannot create {}", files.archive.display()))?;
    Ok(match fetch.by {
        Exit::Disk => {
            file.set_len(DISK)
                .with_context(|| format!("cannot make {} large", files.archive.display()))?;
            // If the host's disk is full, the guest gets an error and is not stopped.
            let drive = "if=none,id=fetch,format=raw,werror=report,discard=unmap,file=";
            let device = format!("virtio-blk-pci,drive=fetch,serial={}", paths::FETCH_DISK);
            vec![
                "-drive".into(),
                with_path(drive, &files.archive),
                "-device".into(),
                device.into(),
            ]
        }
        Exit::Port => vec![
            "-chardev".into(),
            with_path("file,id=fetch,path=", &files.archive),
            "-serial".into(),
            "chardev:fetch".into(),
        ],
    })
}

/// Unpacks the archive into the run's folder, and removes it.
pub fn unpack(files: &Files) -> Result<()> {
    let archive = File::open(&files.archive)
        .with_context(|| format!("cannot read {}", files.archive.display()))?;
    fs::create_dir_all(&files.fetched)
        .with_context(|| format!("cannot create {}", files.fetched.display()))?;
    tar::Archive::new(std::io::BufReader::new(archive))
        .unpack(&files.fetched)
        .with_context(|| format!("cannot unpack into {}", files.fetched.display()))?;
    discard(files)
}

/// Removes the archive, if there is one.
pub fn discard(files: &Files) -> Result<()> {
    match fs::remove_file(&files.archive) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", files.archive.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the files that an earlier run fetched.
pub fn clear(directory: &Path) -> Result<()> {
    remove_tree(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_the_archive_on_the_disk_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let source = directory.path().join("source");
        fs::write(&source, "content").unwrap();
        let fetch = Fetch {
            paths: vec!["/root/a".into()],
            by: Exit::Disk,
        };
        arguments(&fetch, &files).unwrap();
        let disk = File::options().write(true).open(&files.archive).unwrap();
        let mut archive = tar::Builder::new(disk);
        archive.append_path_with_name(&source, "root/a").unwrap();
        archive.into_inner().unwrap();
        assert_eq!(fs::metadata(&files.archive).unwrap().len(), DISK);
        unpack(&files).unwrap();
        let fetched = files.fetched.join("root/a");
        assert_eq!(fs::read_to_string(fetched).unwrap(), "content");
        assert!(!files.archive.exists());
    }
}
