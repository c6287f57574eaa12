// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file systems that Linux programs expect.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

/// Type, mount point, options, and whether the guest can run without it.
const MOUNTS: &[(&str, &str, &str, bool)] = &[
    ("proc", "/proc", "", false),
    ("sysfs", "/sys", "", false),
    ("devtmpfs", "/dev", "mode=0755", false),
    ("tmpfs", "/dev/shm", "mode=1777", false),
    ("tmpfs", "/tmp", "mode=1777", false),
    ("tmpfs", "/run", "mode=0755", false),
    ("cgroup2", "/sys/fs/cgroup", "", true),
    // The user's own kernel may lack these.
    ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666", true),
    ("debugfs", "/sys/kernel/debug", "", true),
    ("tracefs", "/sys/kernel/tracing", "", true),
];

/// Mounts all of them.
pub fn mount_all() -> Result<()> {
    for &(kind, place, options, optional) in MOUNTS {
        match mount_one(kind, place, options) {
            Err(_) if optional => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn mount_one(kind: &str, place: &str, options: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("cannot create {place}"))?;
    mount(
        Some(kind),
        Path::new(place),
        Some(kind),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("cannot mount {kind} on {place}"))
}
