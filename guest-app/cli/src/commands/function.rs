// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PCI function of the device, and who has it: its own driver, or a program by vfio-pci.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use svm_cases::harness::report::print_json;
use svm_init::events::{Event, RESULTS_VARIABLE, Status, TestEvent};
use svmctl::abi::ids;

/// Where the kernel shows PCI functions.
const DEVICES: &str = "/sys/bus/pci/devices";
/// The driver that gives a function to a program.
pub const DRIVER: &str = "vfio-pci";

/// The function of an address, or the first of the device.
pub fn find(address: Option<&str>) -> anyhow::Result<PathBuf> {
    if let Some(address) = address {
        let full = match address.matches(':').count() {
            1 => format!("0000:{address}"),
            _ => address.to_owned(),
        };
        let path = Path::new(DEVICES).join(&full);
        ensure!(path.exists(), "there is no PCI function {full}");
        return Ok(path);
    }
    let id = |path: &Path, file: &str| {
        let text = fs::read_to_string(path.join(file)).ok()?;
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let mut paths: Vec<PathBuf> = fs::read_dir(DEVICES)
        .context(DEVICES)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .find(|path| {
            id(path, "vendor") == Some(ids::VENDOR_ID) && id(path, "device") == Some(ids::DEVICE_ID)
        })
        .with_context(|| {
            format!(
                "there is no function {:04x}:{:04x}: `lspci -nn` lists what there is",
                ids::VENDOR_ID,
                ids::DEVICE_ID
            )
        })
}

/// A function that was taken from its driver.
pub struct Bound {
    directory: PathBuf,
    address: String,
    before: Option<String>,
}

impl Bound {
    /// Takes a function from its driver, and gives it to vfio-pci; none if that has it already.
    pub fn take(directory: &Path) -> anyhow::Result<Option<Bound>> {
        let name = directory.file_name().context("a function has a name")?;
        let bound = Bound {
            directory: directory.to_owned(),
            address: name.to_string_lossy().into_owned(),
            before: driver(directory),
        };
        if bound.before.as_deref() == Some(DRIVER) {
            return Ok(None);
        }
        ensure!(
            Path::new("/sys/bus/pci/drivers").join(DRIVER).exists(),
            "the kernel has no driver {DRIVER}: `modprobe {DRIVER}`"
        );
        let taken = bound.change(Some(DRIVER)).and_then(|()| {
            let taken = driver(directory).as_deref() == Some(DRIVER);
            ensure!(taken, "{DRIVER} did not take it; `dmesg` may say why");
            Ok(())
        });
        match taken {
            Ok(()) => Ok(Some(bound)),
            Err(error) => {
                bound.give_back()?;
                Err(error)
            }
        }
    }

    /// Unbinds it from its driver and binds another: one by name, or any that knows it.
    fn change(&self, to: Option<&str>) -> anyhow::Result<()> {
        write(&self.directory.join("driver_override"), to.unwrap_or("\n"))?;
        if driver(&self.directory).is_some() {
            write(&self.directory.join("driver/unbind"), &self.address)?;
        }
        write(Path::new("/sys/bus/pci/drivers_probe"), &self.address)
    }

    /// Gives it back to the driver that it was taken from.
    pub fn give_back(self) -> anyhow::Result<()> {
        self.change(None)?;
        let now = driver(&self.directory);
        ensure!(
            now == self.before,
            "{} had the driver {:?} and has {now:?} now",
            self.address,
            self.before
        );
        Ok(())
    }
}

fn driver(directory: &Path) -> Option<String> {
    let link = fs::read_link(directory.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Prints how a check ended, and tells the first process of a guest.
pub fn report(event: &TestEvent, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        print_json(event)?;
    } else {
        let mark = match event.status {
            Status::Ok => "ok    ",
            Status::Failed => "FAILED",
            Status::Skipped => "skipped",
        };
        let count = |key: &str| event.counters.get(key).copied().unwrap_or(0);
        writeln!(
            io::stdout(),
            "{mark}  {:44} {:4} translations {:4} invalidations {:8} µs  {}",
            event.name,
            count("translation_requests"),
            count("invalidations"),
            event.micros,
            event.message
        )?;
    }
    if let Some(path) = std::env::var_os(RESULTS_VARIABLE) {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        Event::Test(event.clone()).write_to(&mut file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_not_there_is_said() {
        let error = find(Some("ff:1f.7")).unwrap_err().to_string();
        assert_eq!(error, "there is no PCI function 0000:ff:1f.7");
    }
}
