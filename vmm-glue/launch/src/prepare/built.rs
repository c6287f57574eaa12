// SPDX-License-Identifier: MIT OR Apache-2.0
//! The component `debug-kernel`: a small kernel, built from the distribution's source, that checks
//! the driver: its locks, its memory, its objects, and its behaviour when memory runs out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt::{Apt, KernelPackages};
use super::{kernel, recipe, sandbox, series::Series};
use crate::cache::{Cache, Component, Made};
use crate::progress::Task;

/// The script that runs inside the toolchain.
const SCRIPT: &str = include_str!("../../scripts/debug-kernel.sh");

/// The kernel's options.
const OPTIONS: &str = include_str!("../../scripts/debug.config");

/// The component with a kernel of a series; it is made with the toolchain.
pub fn component(cache: &Cache, toolchain: &Component, series: Series) -> Component {
    let recipe = format!(
        "debug-kernel {} {series} with {}\n{SCRIPT}\n{OPTIONS}\n{}",
        recipe::REVISION,
        toolchain.name(),
        kernel::UNPACK,
    );
    cache.component("debug-kernel", recipe)
}

/// The kernel's image in the component.
pub fn image(component: &Component) -> kernel::Image {
    kernel::Image {
        packed: component.path("vmlinuz"),
        unpacked: Some(component.path("vmlinux")),
    }
}

/// The kernel's configuration in the component.
pub fn configuration(component: &Component, release: &str) -> PathBuf {
    component.path(&format!("{}/.config", headers(release)))
}

fn headers(release: &str) -> String {
    format!("usr/src/linux-headers-{release}")
}

/// Fetches the source, and unpacks it if this host can; this can run while the toolchain is made.
pub fn fetch(
    apt: &Apt,
    series: Series,
    directory: &Path,
    log: &Path,
    task: &Task,
) -> Result<KernelPackages> {
    let kernel = apt.kernel(series)?;
    let package = format!("{}={}", kernel.source, kernel.version);
    apt.download(&[package], &directory.join(kernel::PACKAGES), task)?;
    kernel::unpack_early(directory, kernel::Extent::All, log, task)?;
    Ok(kernel)
}

/// Makes the component from the fetched source.
pub fn make(
    directory: &Path,
    kernel: &KernelPackages,
    toolchain: &Path,
    log: &Path,
    task: &Task,
) -> Result<Made> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("debug-kernel.sh", SCRIPT)?;
    write("debug.config", OPTIONS)?;
    let program = ["/bin/sh", "/mnt/debug-kernel.sh"];
    sandbox::enter(toolchain, directory, None, &program).run_logged(log, task)?;
    for waste in [kernel::PACKAGES, "build"] {
        let waste = directory.join(waste);
        fs::remove_dir_all(&waste).with_context(|| format!("cannot remove {}", waste.display()))?;
    }
    let path = directory.join("release");
    let release =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let release = release.trim().to_owned();
    let mut key_files: Vec<_> = ["vmlinuz", "vmlinux"].map(str::to_owned).into();
    let needed = [
        ".config",
        "Makefile",
        "Module.symvers",
        "include/config/auto.conf",
        "rust/libkernel.rmeta",
        "rust/libmacros.so",
        "scripts/target.json",
        "tools/objtool/objtool",
    ];
    key_files.extend(needed.map(|file| format!("{}/{file}", headers(&release))));
    Ok(Made {
        key_files,
        facts: vec![("release", release), ("version", kernel.version.clone())],
    })
}
