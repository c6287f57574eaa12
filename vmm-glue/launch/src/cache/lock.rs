// SPDX-License-Identifier: MIT OR Apache-2.0
//! File locks between processes. The kernel releases them when their holder ends, in any way.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::sharing::unreachable;
use crate::progress::Task;

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock exclusively. Waits for others, and shows the holder.
    pub fn exclusive(path: &Path, task: &Task) -> Result<Self> {
        let file = match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, Errno::EWOULDBLOCK)) => {
                task.waits(&format!("waiting for another svm-vm{}", holder(&file)));
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, error)| error)
                    .with_context(|| format!("cannot lock {}", path.display()))?
            }
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        Ok(Self {
            _file: signed(file),
        })
    }

    /// Takes the lock exclusively, or returns its holder.
    pub fn try_exclusive(path: &Path) -> Result<Result<Self, String>> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Ok(Self {
                _file: signed(lock),
            })),
            Err((file, Errno::EWOULDBLOCK)) => Ok(Err(format!("another svm-vm{}", holder(&file)))),
            Err((_, error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Takes the lock shared.
    pub fn shared(path: &Path) -> Result<Self> {
        // A user with read-only access to the cache may use it, too.
        let file = open(path).or_else(|error| File::open(path).map_err(|_| error))?;
        let file = Flock::lock(file, FlockArg::LockShared)
            .map_err(|(_, error)| error)
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .map_err(|error| unreachable(directory, error))
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| unreachable(path, error))
        .with_context(|| format!("cannot open the lock {}", path.display()))
}

/// Writes the holder of the lock, for waiting processes. This is only informative, so errors are
/// ignored.
fn signed(mut lock: Flock<File>) -> Flock<File> {
    let _ = lock.set_len(0);
    let _ = lock.rewind();
    let _ = write!(lock, "{}", std::process::id());
    lock
}

/// ` (pid N)`, if it is known.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let mut file = file;
    match file.read_to_string(&mut text) {
        Ok(_) if !text.is_empty() => format!(" (pid {text})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/lock");
        let held = Lock::try_exclusive(&path).unwrap().unwrap();
        let holder = Lock::try_exclusive(&path).unwrap().unwrap_err();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        drop(held);
        Lock::try_exclusive(&path).unwrap().unwrap();
    }

    #[test]
    fn sharers_exclude_only_an_exclusive_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let _one = Lock::shared(&path).unwrap();
        let _other = Lock::shared(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_err());
    }
}
