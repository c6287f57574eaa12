// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl crc32c`: prints the checksums of files, in the format of the usual tools.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use svmctl::Queue;

use super::work::{Work, measure, open};
use svm_cases::harness::report::print_json;
use svm_cases::system::files;

#[derive(Debug, Serialize)]
struct Line<'a> {
    file: &'a Path,
    crc32c: String,
    #[serde(flatten)]
    work: Work,
}

/// Prints a line for each file. If a file cannot be read, this is reported and the result is
/// `false`.
pub fn run(device: &Path, as_json: bool, paths: &[PathBuf]) -> anyhow::Result<bool> {
    let mut queue = open(device)?;
    let mut good = true;
    for path in paths {
        match checksum(&mut queue, path) {
            Ok((checksum, work)) => print(path, checksum, work, as_json)?,
            Err(error) => {
                eprintln!("svmctl: {}: {error:#}", path.display());
                good = false;
            }
        }
    }
    Ok(good)
}

fn print(path: &Path, checksum: u32, work: Work, as_json: bool) -> anyhow::Result<()> {
    let crc32c = format!("{checksum:08x}");
    if as_json {
        print_json(&Line {
            file: path,
            crc32c,
            work,
        })
    } else {
        Ok(writeln!(io::stdout(), "{crc32c}  {}", path.display())?)
    }
}

/// The checksum of a file, computed by the device.
fn checksum(queue: &mut Queue, path: &Path) -> anyhow::Result<(u32, Work)> {
    let file = File::open(path)?;
    let length = files::length(&file)?;
    if length == 0 {
        // A mapping cannot be empty.
        return measure(queue, 0, |_| Ok(0));
    }
    let map = files::map_read(&file, length)?;
    measure(queue, length, |queue| {
        queue
            .crc32c(&map, 0)
            .context("the device could not read the file (was it truncated meanwhile?)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use svmctl::model::{Model, TRANSFER_LOG2};

    fn checksum_of(contents: &[u8]) -> anyhow::Result<u32> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        let context = svmctl::Context::with_file(Box::new(Model::new().unwrap())).unwrap();
        let mut queue = context.start(4).unwrap();
        checksum(&mut queue, file.path()).map(|(checksum, _)| checksum)
    }

    #[test]
    fn a_file_has_the_checksum_of_its_contents() {
        // The check value of CRC-32C.
        assert_eq!(checksum_of(b"123456789").unwrap(), 0xe306_9283);
    }

    #[test]
    fn an_empty_file_has_checksum_zero() {
        assert_eq!(checksum_of(b"").unwrap(), 0);
    }

    #[test]
    fn a_long_file_takes_several_descriptors() {
        let contents = vec![0x5a; (1 << TRANSFER_LOG2) + 12_345];
        assert_eq!(checksum_of(&contents).unwrap(), ::crc32c::crc32c(&contents));
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let context = svmctl::Context::with_file(Box::new(Model::new().unwrap())).unwrap();
        let mut queue = context.start(4).unwrap();
        let mut error = |path: &str| {
            checksum(&mut queue, Path::new(path))
                .unwrap_err()
                .to_string()
        };
        assert!(error("/").contains("regular file"));
        assert!(error("/dev/null").contains("regular file"));
        assert!(error("/proc/self/status").contains("no length"));
        assert!(error("/nothing/here").contains("No such file"));
    }
}
