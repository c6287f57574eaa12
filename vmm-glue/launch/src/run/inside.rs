// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU inside of a guest that is a host: the prepared one, with its libraries and firmware, and the
//! library that is loaded into it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::machine::LIBRARIES;
use crate::additions::copy::Collection;
use crate::additions::elf;
use crate::prepare::{Prepared, Qemu, root};

/// Directory in the guest of what machines inside of it are made of.
pub const DIRECTORY: &str = "/svm/l2";

/// QEMU, and its firmware, in the guest.
pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";
pub const FIRMWARE: &str = "/usr/share/qemu";

/// Firmware that a q35 machine with a kernel needs.
const ROMS: &[&str] = &[
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
    "qboot.rom",
];

/// QEMU with the plug-in loaded into it, as a command.
const COMMAND: &str = "/usr/bin/qemu-with-svm-demo";

/// Adds that command to the files of a guest.
///
/// # Errors
///
/// Those of [`add_qemu`].
pub fn add_command(files: &mut Collection, prepared: &Prepared) -> Result<()> {
    add_qemu(files, prepared, Some(&prepared.plugin))?;
    let line = format!("LD_PRELOAD={DIRECTORY}/plugin.so exec {QEMU} -L {FIRMWARE} \"$@\"");
    files.place_text(&format!("#!/bin/sh\n{line}\n"), COMMAND, 0o755)
}

/// Adds QEMU to the files of a guest, and the library, if any, as `plugin.so`.
///
/// # Errors
///
/// QEMU is not the prepared one, or a file is missing.
pub fn add_qemu(files: &mut Collection, prepared: &Prepared, plugin: Option<&Path>) -> Result<()> {
    let Qemu::Prepared { root, .. } = &prepared.qemu else {
        bail!("the guest's own QEMU is the prepared one: leave --qemu out");
    };
    let program = root.join(QEMU.trim_start_matches('/'));
    let directory = root.join(LIBRARIES);
    let loader = directory.join("ld-linux-x86-64.so.2");
    files.place(&program, QEMU, 0o755)?;
    files.place(&loader, "/lib64/ld-linux-x86-64.so.2", 0o755)?;
    for library in elf::libraries_of_root(&program, plugin, &loader, &directory)? {
        let path = library
            .path
            .with_context(|| format!("{} needs {}", program.display(), library.name))?;
        let place = format!("/lib/x86_64-linux-gnu/{}", library.name);
        files.place(&path, &place, 0o755)?;
    }
    let firmware = root::firmware(root);
    for rom in ROMS {
        let found = firmware.iter().map(|directory| directory.join(rom));
        let path = found
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("the prepared root has no {rom}"))?;
        files.place(&path, &format!("{FIRMWARE}/{rom}"), 0o644)?;
    }
    if let Some(plugin) = plugin {
        files.place(plugin, &format!("{DIRECTORY}/plugin.so"), 0o755)?;
    }
    Ok(())
}
