// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what is to be judged, from `/proc`, `/sys` and `/boot`. What cannot be read is absent:
//! that is a result, not an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use super::pci::PciDevice;

/// What was read of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The remapping units that Linux drives.
    pub iommus: Vec<Iommu>,
    /// Flags of the processor, as `/proc/cpuinfo` names them.
    pub cpu_flags: BTreeSet<String>,
    /// The kernel's options, where its configuration can be read: `CONFIG_…` and its value.
    pub kernel_options: Option<BTreeMap<String, String>>,
    /// The kernel's command line.
    pub command_line: String,
    /// Functions with ATS, PRI or PASID. `None` where none's configuration space could be read
    /// whole: that takes root.
    pub devices: Option<Vec<PciDevice>>,
}

/// A VT-d remapping unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// Linux's name, such as `dmar0`.
    pub name: String,
    /// Capability register (VT-d 11.4.2).
    pub cap: u64,
    /// Extended capability register (VT-d 11.4.3).
    pub ecap: u64,
}

impl Facts {
    /// Reads the machine whose file system is at `root`.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        Self {
            iommus: read_iommus(&root.join("sys/class/iommu")),
            cpu_flags: parse_cpu_flags(&text("proc/cpuinfo")),
            kernel_options: read_options(root),
            command_line: text("proc/cmdline").trim().to_owned(),
            devices: read_devices(&root.join("sys/bus/pci/devices")),
        }
    }
}

/// Names of a directory's entries, sorted.
fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn read_iommus(class: &Path) -> Vec<Iommu> {
    let register = |name: &str, register: &str| {
        let text = fs::read_to_string(class.join(name).join("intel-iommu").join(register)).ok()?;
        u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    entries(class)
        .into_iter()
        .filter_map(|name| {
            let (cap, ecap) = (register(&name, "cap")?, register(&name, "ecap")?);
            Some(Iommu { name, cap, ecap })
        })
        .collect()
}

fn read_devices(bus: &Path) -> Option<Vec<PciDevice>> {
    let all: Vec<_> = entries(bus)
        .into_iter()
        .filter_map(|address| {
            let config = fs::read(bus.join(&address).join("config")).ok()?;
            PciDevice::parse(&address, &config)
        })
        .collect();
    if all.is_empty() {
        return None;
    }
    let relevant =
        |device: &PciDevice| device.ats.is_some() || device.pri.is_some() || device.pasid.is_some();
    Some(all.into_iter().filter(relevant).collect())
}

fn parse_cpu_flags(cpuinfo: &str) -> BTreeSet<String> {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.trim_start().strip_prefix(':'))
        .map(|flags| flags.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The running kernel's options: from itself, or from the file that distributions put beside it.
fn read_options(root: &Path) -> Option<BTreeMap<String, String>> {
    let own = root.join("proc/config.gz");
    if own.exists() {
        let output = Command::new("zcat").arg(&own).output().ok()?;
        if output.status.success() {
            return Some(parse_options(&String::from_utf8_lossy(&output.stdout)));
        }
    }
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).ok()?;
    let release = release.trim();
    let places = [
        format!("boot/config-{release}"),
        format!("usr/lib/modules/{release}/config"),
    ];
    places.iter().find_map(|place| {
        fs::read_to_string(root.join(place))
            .ok()
            .map(|text| parse_options(&text))
    })
}

fn parse_options(config: &str) -> BTreeMap<String, String> {
    config
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_machine_is_read_from_its_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(
            root,
            "sys/class/iommu/dmar0/intel-iommu/cap",
            b"d2008c222f0686\n",
        );
        write(
            root,
            "sys/class/iommu/dmar0/intel-iommu/ecap",
            b"18d9a20000f46\n",
        );
        write(
            root,
            "proc/cpuinfo",
            b"processor\t: 0\nflags\t\t: fpu pdpe1gb\n",
        );
        write(
            root,
            "proc/cmdline",
            b"console=ttyS0 intel_iommu=on,sm_on\n",
        );
        write(root, "proc/sys/kernel/osrelease", b"7.2.12\n");
        write(
            root,
            "boot/config-7.2.12",
            b"# CONFIG_A is not set\nCONFIG_RUST=y\n",
        );
        write(
            root,
            "sys/bus/pci/devices/0000:00:03.0/config",
            &super::super::pci::tests::config(&[(0x000f, 1 << 5, 0)]),
        );
        let facts = Facts::read(root);
        assert_eq!(facts.iommus[0].ecap, 0x0001_8d9a_2000_0f46);
        assert!(facts.cpu_flags.contains("pdpe1gb"));
        assert_eq!(facts.command_line, "console=ttyS0 intel_iommu=on,sm_on");
        assert_eq!(facts.kernel_options.unwrap()["CONFIG_RUST"], "y");
        assert_eq!(facts.devices.unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Facts::read(directory.path()), Facts::default());
    }
}
