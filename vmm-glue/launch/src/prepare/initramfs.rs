// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packs the guest's initial file system: a cpio archive in the format "newc" that the kernel
//! unpacks. It is not compressed: decompression would cost the guest more than reading.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};
use svm_init::paths;
use svm_init::plan::Plan;

use super::{Prepared, driver};
use crate::additions::Added;
use crate::additions::copy::Item;
use crate::external::External;

/// Directories of the guest; `svm-init` mounts on the empty ones.
const DIRECTORIES: &[&str] = &[
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "proc",
    "root",
    "run",
    "sbin",
    "svm",
    "svm/modules",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
];

/// The shell's start-up file.
const PROFILE: &str = "\
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
export LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/lib/i386-linux-gnu
PS1='svm-demo:\\w# '
cat /etc/motd
";

/// The greeting of an interactive shell.
const GREETING: &str = "\
The device's driver is loaded: /dev/svm0. Try `svmctl demo`, `svmctl info`, `svmctl doctor`.
`exit` or Ctrl-A X ends the guest; the kernel's log is in `dmesg`.
";

const USERS: &str = "root::0:0:root:/root:/bin/sh\n";

/// Writes the archive of a run.
pub fn pack(prepared: &Prepared, plan: &Plan, added: &Added, to: &Path) -> Result<()> {
    let mut archive = Archive {
        out: Vec::new(),
        inode: 0,
    };
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.program("init", &prepared.init)?;
    archive.link("bin/svm-init", "/init")?;
    archive.program("bin/svmctl", &prepared.svmctl)?;
    archive.program("bin/svm-sum", &prepared.sum)?;
    archive.program("bin/busybox", &prepared.busybox)?;
    for name in busybox_programs(&prepared.busybox)? {
        archive.link(&format!("bin/{name}"), "busybox")?;
    }
    for (name, file) in &prepared.modules {
        archive.program(&format!("svm/modules/{name}.ko"), file)?;
    }
    let order = prepared.modules.iter().map(|(name, _)| format!("{name}\n"));
    archive.text("svm/modules/order", &order.collect::<String>())?;
    archive.program(&format!("svm/modules/{}", driver::FILE), &prepared.driver)?;
    let (configuration, release) = &prepared.configuration;
    archive.file(&format!("boot/config-{release}"), configuration, 0o644)?;
    archive.text("etc/profile", PROFILE)?;
    archive.text("etc/motd", GREETING)?;
    archive.text("etc/passwd", USERS)?;
    for (module, file) in &added.modules {
        archive.program(&format!("svm/modules/{}.ko", module.name), file)?;
    }
    for (path, item) in added.files.items() {
        let name = path.to_str().with_context(|| {
            format!("{} cannot be packed: its name is no UTF-8", path.display())
        })?;
        match item {
            Item::Directory(mode) => archive.directory_of(name, *mode)?,
            Item::File(file, mode) => archive.file(name, file, *mode)?,
            Item::Content(content, mode) => {
                archive.entry(name, ModeFileType::Regular, *mode, content)?;
            }
            Item::Link(target) => archive.link(name, &target.to_string_lossy())?,
        }
    }
    let plan = serde_json::to_string(plan).context("cannot write the plan")?;
    archive.text(paths::PLAN.trim_start_matches('/'), &plan)?;
    let bytes = archive
        .finish()
        .context("cannot pack the initial file system")?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// The names that busybox answers to.
fn busybox_programs(busybox: &Path) -> Result<Vec<String>> {
    let list = External::new(busybox).arg("--list").output()?;
    // It is already packed under its own name.
    Ok(list
        .lines()
        .filter(|&name| name != "busybox")
        .map(str::to_owned)
        .collect())
}

/// An archive during writing.
struct Archive {
    out: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32, data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(data.len())
            .map_err(|_| io::Error::other(format!("{name} has {} bytes, too many", data.len())))?;
        let mut writer = Builder::new(name)
            .ino(self.inode)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind)
            .write(&mut self.out, size);
        writer.write_all(data)?;
        writer.finish()?;
        Ok(())
    }

    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.directory_of(name, 0o755)
    }

    fn directory_of(&mut self, name: &str, mode: u32) -> io::Result<()> {
        self.entry(name, ModeFileType::Directory, mode, &[])
    }

    fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, ModeFileType::Symlink, 0o777, target.as_bytes())
    }

    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.entry(name, ModeFileType::Regular, 0o644, text.as_bytes())
    }

    fn program(&mut self, name: &str, file: &Path) -> Result<()> {
        self.file(name, file, 0o755)
    }

    fn file(&mut self, name: &str, file: &Path, mode: u32) -> Result<()> {
        let data = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.entry(name, ModeFileType::Regular, mode, &data)
            .with_context(|| format!("cannot pack {}", file.display()))
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        trailer(&mut self.out)?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_holds_what_was_packed() {
        let mut archive = Archive {
            out: Vec::new(),
            inode: 0,
        };
        archive.directory("bin").unwrap();
        archive.link("bin/sh", "busybox").unwrap();
        archive.text("etc/motd", "hello").unwrap();
        let bytes = archive.finish().unwrap();

        let mut found = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            found.push((name, mode, content));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("bin", 0o040_755, ""),
            ("bin/sh", 0o120_777, "busybox"),
            ("etc/motd", 0o100_644, "hello"),
        ]
        .map(|(name, mode, content)| (name.to_owned(), mode, content.to_owned()));
        assert_eq!(found, expected);
    }
}
