// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removes what runs and preparations left.

use std::process::ExitCode;

use anyhow::Result;

use crate::cache::{Cache, remove_tree};
use crate::checkout::Checkout;
use crate::cli::{CleanOptions, Place};
use crate::progress::Progress;

/// Directories below the checkout's `target/` that this program fills.
const OWN: &[&str] = &["runs", "guest", "guest-programs", "plugin", "plugin-host"];

/// `svm-vm clean`.
pub fn command(place: &Place, options: &CleanOptions) -> Result<ExitCode> {
    let progress = Progress::new();
    // Whoever only wants the cache gone needs no checkout.
    match Checkout::find() {
        Ok(checkout) => {
            for name in OWN {
                remove_tree(&checkout.path("target").join(name))?;
            }
        }
        Err(error) if !options.all => return Err(error),
        Err(_) => {}
    }
    if options.all {
        let cache = Cache::open(place.cache.as_deref())?;
        let task = progress.task(format!("removing {}", cache.root().display()));
        cache.remove(&task)?;
        task.done();
    }
    Ok(ExitCode::SUCCESS)
}
