// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this host must have to prepare a guest. Each function checks one requirement, and its error
//! says what is missing and what to do. Preparing stops at the first; the doctor calls all of them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Programs that preparing calls, and their packages.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("apt-config", "apt"),
    ("dpkg-deb", "dpkg"),
    ("perl", "perl"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("chroot", "coreutils"),
    ("tar", "tar"),
];

/// Path of Debian's keys, from their package.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The architecture.
pub fn architecture() -> Result<String> {
    let found = std::env::consts::ARCH;
    if found != "x86_64" {
        bail!("this host is {found}: guests can only be prepared on x86_64");
    }
    Ok(found.to_owned())
}

/// The user.
pub fn root() -> Result<String> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "preparing the guest needs root, to make a Debian root file system: run it as root \
             once (`svm-vm prepare`, or by sudo); guests then run without, given the same --cache"
        );
    }
    Ok("root".to_owned())
}

/// The programs.
pub fn programs() -> Result<String> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!(
            "missing programs: {}; on Debian: apt-get install {}",
            names.join(", "),
            packages.join(" ")
        );
    }
    Ok(format!("{} found", PROGRAMS.len()))
}

/// Debian's keys.
pub fn keyring() -> Result<PathBuf> {
    let path = Path::new(KEYRING);
    if !path.is_file() {
        bail!(
            "Debian's archive keys are missing ({KEYRING}): apt-get install debian-archive-keyring"
        );
    }
    Ok(path.to_owned())
}

/// Cargo: the one that runs this program, otherwise the one in `PATH`.
pub fn cargo() -> Result<PathBuf> {
    let own = std::env::var_os("CARGO")
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    own.or_else(|| find_program("cargo")).context(
        "cargo is missing: install a Rust toolchain (rustup, or Debian's packages) and have it in \
         PATH",
    )
}

/// The C compiler, which cargo also uses for linking.
pub fn compiler() -> Result<PathBuf> {
    find_program("cc").context("the C compiler cc is missing; on Debian: apt-get install gcc")
}

/// Room on the disk for `needed` MiB.
pub fn space(directory: &Path, needed: u64) -> Result<String> {
    let status = nix::sys::statvfs::statvfs(directory)
        .with_context(|| format!("cannot examine the file system of {}", directory.display()))?;
    let free = status.blocks_available() * status.fragment_size() / (1024 * 1024);
    if free < needed {
        bail!(
            "only {free} MiB are free in {}, and preparing takes {needed}: make room, or choose \
             another place by --cache or SVM_CACHE",
            directory.display()
        );
    }
    Ok(format!("{free} MiB free in {}", directory.display()))
}

/// The host's virtualization, as `--accel kvm` needs it.
pub fn kvm() -> Result<String> {
    let path = "/dev/kvm";
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| {
            format!(
                "{path} cannot be used: load the module kvm_intel or kvm_amd, allow nested \
             virtualization where this is a guest itself, or be in its group; or use --accel tcg"
            )
        })?;
    Ok(format!("{path} can be used"))
}

/// Searches a program in `PATH`, and in the directories that a user's `PATH` may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(OsStr::new(name)))
        .find(|candidate| candidate.is_file())
}
