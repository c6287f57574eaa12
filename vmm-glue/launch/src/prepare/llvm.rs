// SPDX-License-Identifier: MIT OR Apache-2.0
//! The component `llvm`: LLVM's tools of one version, in a root file system of their own. A compiler's
//! reports of coverage take the tools of its LLVM, which the host may not have.

use std::path::Path;

use anyhow::{Result, ensure};

use super::apt::Apt;
use super::{recipe, root};
use crate::cache::{Cache, Component, Made};
use crate::progress::Task;

/// The tools.
const TOOLS: [&str; 2] = ["llvm-cov", "llvm-profdata"];

/// The component with the tools of LLVM `major`.
pub fn component(cache: &Cache, major: u32) -> Component {
    let recipe = format!(
        "llvm {major} {} {} {}",
        recipe::REVISION,
        recipe::SUITE,
        recipe::BACKPORTS,
    );
    cache.component("llvm", recipe)
}

/// Makes it.
pub fn make(directory: &Path, major: u32, apt: &Apt, log: &Path, task: &Task) -> Result<Made> {
    let package = format!("llvm-{major}");
    ensure!(
        !apt.versions(&package)?.is_empty(),
        "neither {} nor {} has {package}",
        recipe::SUITE,
        recipe::BACKPORTS,
    );
    root::install(directory, recipe::SUITE, &package, apt, log, task)?;
    Ok(Made {
        key_files: TOOLS
            .map(|tool| format!("fs/usr/lib/{package}/bin/{tool}"))
            .into(),
        facts: Vec::new(),
    })
}
