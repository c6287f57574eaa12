// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI function and its driver, through sysfs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// Offset of the command register in configuration space (PCI 3.0, 6.2.2).
const COMMAND: u64 = 4;
/// Memory Space Enable: the function answers accesses to its BARs.
const MEMORY_SPACE: u16 = 1 << 1;
/// Bus Master Enable: the function may send requests.
const BUS_MASTER: u16 = 1 << 2;
/// Offset of the first capability's offset in configuration space (PCI 3.0, 6.7).
const CAPABILITIES: u64 = 0x34;
/// Id of the power management capability.
const POWER_MANAGEMENT: u8 = 1;
/// Offset of the capability's register PMCSR, whose bits 1:0 are the state (PCI PM 1.2, 3.2.4).
const PMCSR: u64 = 4;
/// The state D3hot.
const D3_HOT: u16 = 3;

/// A function's configuration space contents from before it was silenced.
#[derive(Debug)]
pub struct Silenced {
    register: u64,
    value: u16,
}

/// A register of a configuration space.
fn word(config: &File, register: u64) -> io::Result<u16> {
    let mut word = [0; 2];
    config.read_exact_at(&mut word, register)?;
    Ok(u16::from_le_bytes(word))
}

/// The function of a device file.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its address, such as `0000:00:02.0`.
    address: String,
    driver: PathBuf,
}

impl Function {
    /// The function of `/dev/svmN`.
    ///
    /// # Errors
    ///
    /// The device file does not belong to a PCI function that is bound to its driver.
    pub fn of(device: &Path) -> anyhow::Result<Function> {
        let name = device.file_name().unwrap_or_default();
        let link = Path::new("/sys/class/svm_demo").join(name).join("device");
        let path = link
            .canonicalize()
            .with_context(|| format!("{} has no function", device.display()))?;
        let address = path.file_name().unwrap_or_default();
        let driver = path.join("driver").canonicalize();
        Ok(Function {
            address: address.to_string_lossy().into_owned(),
            driver: driver.context("the function has no driver")?,
        })
    }

    /// A file of the function.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new("/sys/bus/pci/devices")
            .join(&self.address)
            .join(name)
    }

    /// The directory of a device in debugfs; `None` if there is no debugfs.
    ///
    /// # Errors
    ///
    /// There is debugfs, and the driver has no directory for the device.
    pub fn debugfs(device: &Path) -> anyhow::Result<Option<PathBuf>> {
        let all = Path::new("/sys/kernel/debug");
        // If debugfs is not mounted, the directory is empty.
        if !fs::read_dir(all).is_ok_and(|mut entries| entries.next().is_some()) {
            return Ok(None);
        }
        let name = device.file_name().unwrap_or_default();
        let directory = all.join("svm_demo").join(name);
        ensure!(directory.exists(), "no {}", directory.display());
        Ok(Some(directory))
    }

    /// Number of free contexts of the device, found without opening it.
    ///
    /// # Errors
    ///
    /// The driver does not report it.
    pub fn free_contexts(device: &Path) -> anyhow::Result<usize> {
        let name = device.file_name().unwrap_or_default();
        let path = Path::new("/sys/class/svm_demo")
            .join(name)
            .join("contexts_available");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// Name of the driver's module.
    ///
    /// # Errors
    ///
    /// The driver is part of the kernel.
    pub fn module(&self) -> anyhow::Result<String> {
        let path = self.driver.join("module").canonicalize();
        let path = path.context("the driver is no module")?;
        let name = path.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    /// Unbinds the driver from the function.
    ///
    /// # Errors
    ///
    /// Those of the driver core.
    pub fn unbind(&self) -> io::Result<()> {
        fs::write(self.driver.join("unbind"), &self.address)
    }

    /// Binds the driver to the function.
    ///
    /// # Errors
    ///
    /// Those of the driver's probe.
    pub fn bind(&self) -> io::Result<()> {
        fs::write(self.driver.join("bind"), &self.address)
    }

    /// Removes the function, as if it had been unplugged.
    ///
    /// # Errors
    ///
    /// Those of the PCI core.
    pub fn remove(&self) -> io::Result<()> {
        fs::write(self.file("remove"), "1")
    }

    /// Looks for functions that Linux does not know yet.
    ///
    /// # Errors
    ///
    /// Those of the PCI core.
    pub fn rescan() -> io::Result<()> {
        fs::write("/sys/bus/pci/rescan", "1")
    }

    /// Resets the function.
    ///
    /// # Errors
    ///
    /// Those of the PCI core.
    pub fn reset(&self) -> io::Result<()> {
        fs::write(self.file("reset"), "1")
    }

    /// Silences the function behind the driver's back: it answers no register accesses and sends
    /// nothing. It uses D3hot, in which all registers read as ones. A function without power
    /// management is silenced by its command register; then the machine determines what is read.
    ///
    /// # Errors
    ///
    /// Those of accesses to configuration space; the function does not accept the written value.
    pub fn silence(&self) -> anyhow::Result<Silenced> {
        let config = self.configuration()?;
        let word = |at| word(&config, at);
        let mut capability = word(CAPABILITIES)? & 0xff;
        while capability != 0 && word(capability.into())? as u8 != POWER_MANAGEMENT {
            capability = word(capability.into())? >> 8;
        }
        let (register, silent) = match capability {
            0 => (COMMAND, word(COMMAND)? & !(MEMORY_SPACE | BUS_MASTER)),
            at => (u64::from(at) + PMCSR, word(u64::from(at) + PMCSR)? | D3_HOT),
        };
        self.change(&config, register, silent)
    }

    /// Makes the function decode no accesses to its registers, behind the driver's back: writes
    /// have no effect, and the machine determines what is read.
    ///
    /// # Errors
    ///
    /// As [`Function::silence`].
    pub fn hide(&self) -> anyhow::Result<Silenced> {
        let config = self.configuration()?;
        let command = word(&config, COMMAND)?;
        self.change(&config, COMMAND, command & !MEMORY_SPACE)
    }

    /// Writes a register of the configuration space.
    fn change(&self, config: &File, register: u64, new: u16) -> anyhow::Result<Silenced> {
        let value = word(config, register)?;
        config.write_all_at(&new.to_le_bytes(), register)?;
        if word(config, register)? != new {
            bail!("{} does not take {new:#06x} at {register:#x}", self.address);
        }
        Ok(Silenced { register, value })
    }

    fn configuration(&self) -> io::Result<File> {
        let path = self.file("config");
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// Lets the function answer again. The contents of its registers may be lost.
    ///
    /// # Errors
    ///
    /// Those of accesses to configuration space.
    pub fn wake(&self, silenced: &Silenced) -> io::Result<()> {
        let config = self.configuration()?;
        config.write_all_at(&silenced.value.to_le_bytes(), silenced.register)
    }
}
