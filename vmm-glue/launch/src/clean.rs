// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removes the files of runs and preparations, and nothing else.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cache::lock::Lock;
use crate::cache::{Cache, remove_tree};
use crate::cli::{CleanOptions, Place};
use crate::installation::Installation;
use crate::progress::Progress;
use crate::run;

/// Directories below the installation's build directory.
const OWN: &[&str] = &["guest", "guest-programs", "plugin", "plugin-host"];

/// `svm-vm clean`.
pub fn command(place: &Place, options: &CleanOptions) -> Result<ExitCode> {
    let progress = Progress::new();
    // Removing only the cache needs no checkout.
    match Installation::find() {
        Ok(installation) => {
            remove_runs(&installation.runs(), &progress)?;
            for name in OWN {
                remove_tree(&installation.work(name))?;
            }
        }
        Err(error) if !options.all => return Err(error),
        Err(_) => {}
    }
    if options.all {
        let cache = Cache::open(place.cache.as_deref())?;
        let task = progress.task(format!("removing {}", cache.root().display()));
        let left = cache.remove(&task)?;
        task.done();
        if !left.is_empty() {
            progress.line(&format!(
                "{} keeps what no manifest shows to be svm-vm's: {}",
                cache.root().display(),
                left.join(", ")
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the folders of runs: those with a run's lock that no run holds.
fn remove_runs(runs: &Path, progress: &Progress) -> Result<()> {
    let context = || format!("cannot read {}", runs.display());
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(context)?,
    };
    for entry in entries {
        let directory = entry.with_context(context)?.path();
        let lock = directory.join(run::LOCK);
        if !lock.is_file() {
            continue;
        }
        match Lock::try_exclusive(&lock)? {
            Ok(_lock) => remove_tree(&directory)?,
            Err(holder) => progress.line(&format!(
                "{} is kept: it is in use by {holder}",
                directory.display()
            )),
        }
    }
    Ok(())
}
