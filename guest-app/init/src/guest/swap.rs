// SPDX-License-Identifier: MIT OR Apache-2.0
//! A swap area in compressed memory, so that the kernel can swap pages out without a disk.

use std::fs;

use anyhow::{Context as _, Result};

/// Sets up `mib` MiB of swap on the first zram device; the module must be loaded.
pub fn set_up(mib: u32) -> Result<()> {
    fs::write("/sys/block/zram0/disksize", format!("{mib}M"))
        .context("cannot set the size of zram0; is the module zram loaded?")?;
    super::busybox(&["mkswap", "/dev/zram0"])?;
    super::busybox(&["swapon", "/dev/zram0"])
}
