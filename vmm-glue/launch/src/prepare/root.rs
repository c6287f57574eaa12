// SPDX-License-Identifier: MIT OR Apache-2.0
//! The components that are Debian root file systems: the `root`, with QEMU and the tools to build
//! modules for the distribution's kernel; and the `toolchain`, with the tools to build a kernel
//! with sanitizers.
//!
//! They are separate, because few users need the second, and it doubles the download.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt::Apt;
use super::recipe;
use crate::cache::{Cache, Component, Made};
use crate::external::External;
use crate::progress::Task;

/// Directory of the root file system in the component.
const TREE: &str = "fs";

/// The purpose of a root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Running guests, and building modules for the distribution's kernel.
    Guests,
    /// Building kernels with sanitizers, and modules for them.
    Kernels,
}

/// Files that the root cannot work without.
pub const KEY_FILES: &[&str] = &[
    "fs/usr/bin/qemu-system-x86_64",
    "fs/usr/bin/busybox",
    "fs/usr/bin/rustc",
    "fs/usr/bin/bindgen",
    "fs/usr/bin/make",
    "fs/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "fs/usr/lib/x86_64-linux-gnu/libc.so.6",
    "fs/usr/share/seabios/bios-256k.bin",
    "fs/usr/share/qemu/qboot.rom",
];

/// Files that the toolchain cannot work without.
const TOOLCHAIN_KEY_FILES: &[&str] = &[
    "fs/usr/bin/clang",
    "fs/usr/bin/ld.lld",
    "fs/usr/bin/llvm-objcopy",
    "fs/usr/bin/rustc",
    "fs/usr/bin/bindgen",
    "fs/usr/bin/make",
];

/// Directories that guests and builds never read.
const LEFT_OUT: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

impl Purpose {
    /// The component's kind.
    fn kind(self) -> &'static str {
        match self {
            Self::Guests => "root",
            Self::Kernels => "toolchain",
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Guests => recipe::PACKAGES,
            Self::Kernels => recipe::TOOLCHAIN_PACKAGES,
        }
    }

    fn key_files(self) -> &'static [&'static str] {
        match self {
            Self::Guests => KEY_FILES,
            Self::Kernels => TOOLCHAIN_KEY_FILES,
        }
    }
}

/// The component.
pub fn component(cache: &Cache, purpose: Purpose) -> Component {
    let qemu = match purpose {
        Purpose::Guests => format!(" qemu {}", recipe::QEMU_SERIES),
        Purpose::Kernels => String::new(),
    };
    let recipe = format!(
        "{} {} {} {}{qemu} packages {:?} backported {:?} without {LEFT_OUT:?}",
        purpose.kind(),
        recipe::REVISION,
        recipe::SUITE,
        recipe::BACKPORTS,
        purpose.packages(),
        recipe::BACKPORTED,
    );
    cache.component(purpose.kind(), recipe)
}

/// The root file system in the component.
pub fn tree(component: &Component) -> PathBuf {
    component.path(TREE)
}

/// QEMU's firmware directories in a root file system.
pub fn firmware(root: &Path) -> Vec<PathBuf> {
    ["usr/share/qemu", "usr/share/seabios"]
        .map(|directory| root.join(directory))
        .to_vec()
}

/// Makes it, with mmdebstrap, which it fetches for the purpose.
pub fn make(
    directory: &Path,
    purpose: Purpose,
    apt: &Apt,
    log: &Path,
    task: &Task,
) -> Result<Made> {
    let facts = match purpose {
        Purpose::Guests => vec![("qemu", upstream(&apt.qemu()?))],
        Purpose::Kernels => Vec::new(),
    };
    let packages = purpose.packages().join(",");
    install(directory, recipe::SUITE, &packages, apt, log, task)?;
    let key_files = purpose.key_files();
    Ok(Made {
        key_files: key_files.iter().map(|&file| file.to_owned()).collect(),
        facts,
    })
}

/// Makes the tree of a suite with packages, separated by commas.
pub fn install(
    directory: &Path,
    suite: &str,
    packages: &str,
    apt: &Apt,
    log: &Path,
    task: &Task,
) -> Result<()> {
    task.at("fetching mmdebstrap");
    let tools = directory.join("tools");
    apt.download(&["mmdebstrap".into()], &tools, task)?;
    let package = fs::read_dir(&tools)
        .context("cannot read the directory of tools")?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package of mmdebstrap")?;
    External::new("dpkg-deb")
        .arg("--extract")
        .arg(&package)
        .arg(&tools)
        .output()?;

    let _ = fs::remove_file(log);
    mmdebstrap(&tools, &directory.join(TREE), suite, packages, apt)?.run_logged(log, task)?;
    fs::remove_dir_all(&tools).context("cannot remove the tools")
}

fn mmdebstrap(
    tools: &Path,
    tree: &Path,
    suite: &str,
    packages: &str,
    apt: &Apt,
) -> Result<External> {
    let exclusions: Vec<_> = LEFT_OUT
        .iter()
        .map(|place| format!("path-exclude={place}\\n"))
        .collect();
    let quoted = quote(&apt.preferences())?;
    Ok(External::new("perl")
        .arg(tools.join("usr/bin/mmdebstrap"))
        .args([
            "--variant=apt",
            "--mode=root",
            "--architectures=amd64",
            "--dpkgopt=force-unsafe-io",
        ])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg(joined("--aptopt=", &apt.network()))
        .arg("--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\" \"$1/etc/dpkg/dpkg.cfg.d\"")
        .arg(format!(
            "--setup-hook=cp {quoted} \"$1/etc/apt/preferences.d/svm-demo\""
        ))
        .arg(format!(
            "--setup-hook=printf '{}' >\"$1/etc/dpkg/dpkg.cfg.d/svm-demo\"",
            exclusions.concat()
        ))
        .arg(format!("--include={packages}"))
        .arg(suite)
        .arg(tree)
        .arg(apt.sources())
        .env("LC_ALL", "C")
        .with_mounts(tree.parent().unwrap_or(tree)))
}

/// A path as a word of the shell.
fn quote(path: &Path) -> Result<String> {
    let word = path.to_str().context("a path that is not UTF-8")?;
    Ok(shlex::try_quote(word)?.into_owned())
}

fn joined(option: &str, path: &Path) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(option);
    word.push(path);
    word
}

/// QEMU's version as QEMU itself prints it.
pub fn upstream(version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version
        .split(['+', '-'])
        .next()
        .unwrap_or(version)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_without_the_distributions_part() {
        assert_eq!(upstream("1:11.1.3+ds-1~bpo13+1"), "11.1.3");
    }
}
