// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the facts that the checks judge, from `/proc`, `/sys` and `/boot`. A fact that cannot be
//! read is absent: that is a result, not an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config_space::{Function, ParseError};
use crate::dmar::{Bdf, Dmar};

/// What was read of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The remapping units that Linux drives.
    pub iommus: Vec<Iommu>,
    /// The processor's maker, as `/proc/cpuinfo` names it: `GenuineIntel`, `AuthenticAMD`.
    pub vendor: String,
    /// Flags of the processor, as `/proc/cpuinfo` names them.
    pub cpu_flags: BTreeSet<String>,
    /// The kernel's options, if its configuration can be read: `CONFIG_…` and its value.
    pub kernel_options: Option<BTreeMap<String, String>>,
    /// The kernel's command line.
    pub command_line: String,
    /// The firmware's table of VT-d units. Only root can read it.
    pub dmar: Option<Dmar>,
    /// The firmware has a table of VT-d units (DMAR), whether or not it can be read.
    pub has_dmar: bool,
    /// The firmware has a table of AMD-Vi units (IVRS).
    pub has_ivrs: bool,
    /// Every PCI function, in the order of addresses.
    pub devices: Vec<PciDevice>,
}

/// A remapping unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// Linux's name, such as `dmar0`.
    pub name: String,
    /// Its kind and registers.
    pub kind: IommuKind,
}

/// Kinds of remapping units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IommuKind {
    /// Intel VT-d.
    Vtd {
        /// Capability register (VT-d 11.4.2).
        cap: u64,
        /// Extended capability register (VT-d 11.4.3).
        ecap: u64,
    },
    /// AMD-Vi.
    Amd {
        /// Extended feature register.
        features: u64,
    },
    /// Another kind, whose registers Linux does not show.
    Other,
}

/// A PCI function and how Linux set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Domain, bus, device and function, as Linux writes them.
    pub address: String,
    /// Its configuration space.
    pub function: Result<Function, ParseError>,
    /// The driver that is bound to it.
    pub driver: Option<String>,
    /// Number of its IOMMU group.
    pub group: Option<String>,
    /// Type of the group's default domain, as Linux names it.
    pub group_type: Option<String>,
    /// Its IOMMU.
    pub iommu: Option<String>,
    /// Addresses of the bridges above it, from the root bus down.
    pub bridges: Vec<String>,
    /// The physical function, if this is a virtual one (SR-IOV).
    pub physical: Option<String>,
}

impl Facts {
    /// Reads the machine whose file system is at `root`.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let tables = root.join("sys/firmware/acpi/tables");
        let table = fs::read(tables.join("DMAR")).ok();
        Self {
            iommus: read_iommus(&root.join("sys/class/iommu")),
            vendor: cpu_field(&text("proc/cpuinfo"), "vendor_id").to_owned(),
            cpu_flags: parse_cpu_flags(&text("proc/cpuinfo")),
            kernel_options: read_options(root),
            command_line: text("proc/cmdline").trim().to_owned(),
            dmar: table.and_then(|table| Dmar::parse(&table)),
            has_dmar: tables.join("DMAR").exists(),
            has_ivrs: tables.join("IVRS").exists(),
            devices: read_devices(&root.join("sys/bus/pci/devices")),
        }
    }

    /// The device with an address.
    pub fn device(&self, address: &str) -> Option<&PciDevice> {
        self.devices.iter().find(|device| device.address == address)
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
    let register = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        // A second register follows AMD's.
        let first = text.trim().split(':').next()?;
        u64::from_str_radix(first.trim_start_matches("0x"), 16).ok()
    };
    entries(class)
        .into_iter()
        .map(|name| {
            let at = |file: &str| register(class.join(&name).join(file));
            let kind = match (at("intel-iommu/cap"), at("intel-iommu/ecap")) {
                (Some(cap), Some(ecap)) => IommuKind::Vtd { cap, ecap },
                _ => at("amd-iommu/features")
                    .map_or(IommuKind::Other, |features| IommuKind::Amd { features }),
            };
            Iommu { name, kind }
        })
        .collect()
}

fn read_devices(bus: &Path) -> Vec<PciDevice> {
    entries(bus)
        .into_iter()
        .map(|address| {
            let directory = bus.join(&address);
            let link = |name: &str| {
                let target = fs::read_link(directory.join(name)).ok()?;
                Some(target.file_name()?.to_string_lossy().into_owned())
            };
            let config = fs::read(directory.join("config")).unwrap_or_default();
            let group_type = fs::read_to_string(directory.join("iommu_group/type")).ok();
            PciDevice {
                function: Function::parse(&config),
                driver: link("driver"),
                group: link("iommu_group"),
                group_type: group_type.map(|text| text.trim().to_owned()),
                iommu: link("iommu"),
                bridges: bridges(&directory),
                physical: link("physfn"),
                address,
            }
        })
        .collect()
}

/// The functions among the parents of a device's directory: its path to the root bus.
fn bridges(directory: &Path) -> Vec<String> {
    let Ok(real) = fs::canonicalize(directory) else {
        return Vec::new();
    };
    let parents = real.parent().into_iter().flat_map(Path::components);
    parents
        .filter_map(|part| part.as_os_str().to_str())
        .filter(|name| Bdf::parse(name).is_some())
        .map(str::to_owned)
        .collect()
}

fn parse_cpu_flags(cpuinfo: &str) -> BTreeSet<String> {
    let flags = cpu_field(cpuinfo, "flags");
    flags.split_whitespace().map(str::to_owned).collect()
}

/// The field of this name for the first processor in `/proc/cpuinfo`; empty if there is none.
fn cpu_field<'a>(cpuinfo: &'a str, name: &str) -> &'a str {
    let mut lines = cpuinfo.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
        .map_or("", str::trim)
}

/// The running kernel's options: from the kernel itself, or from the file that distributions
/// install alongside it.
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

/// The options in the text of a kernel's configuration: `CONFIG_…` and its value. Options that are
/// not set are left out.
pub fn parse_options(config: &str) -> BTreeMap<String, String> {
    config
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config_space::tests::{ENDPOINT, ROOT_PORT, accelerator};

    fn write(root: &Path, path: &str, text: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(root: &Path, path: &str, target: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(root.join(target), path).unwrap();
    }

    #[test]
    fn a_machine_is_read_from_its_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let files: &[(&str, &[u8])] = &[
            ("sys/class/iommu/dmar0/intel-iommu/cap", b"d2008c222f0686\n"),
            ("sys/class/iommu/dmar0/intel-iommu/ecap", b"18d9a20000f46\n"),
            (
                "sys/class/iommu/ivhd0/amd-iommu/features",
                b"5f77ef22294ada:0\n",
            ),
            ("sys/class/iommu/smmu3.0/name", b""),
            ("proc/cpuinfo", b"processor\t: 0\nflags\t\t: fpu pdpe1gb\n"),
            ("proc/cmdline", b"console=ttyS0 intel_iommu=on,sm_on\n"),
            ("proc/sys/kernel/osrelease", b"7.2.12\n"),
            (
                "boot/config-7.2.12",
                b"# CONFIG_A is not set\nCONFIG_RUST=y\n",
            ),
        ];
        for (path, text) in files {
            write(root, path, text);
        }
        let table = crate::dmar::tests::table(&[(2, 1, &[])]);
        write(root, "sys/firmware/acpi/tables/DMAR", &table);
        let port = "sys/devices/pci0000:00/0000:00:1c.0";
        let device = &format!("{port}/0000:01:00.0");
        write(
            root,
            &format!("{port}/config"),
            accelerator(ROOT_PORT).bytes(),
        );
        write(
            root,
            &format!("{device}/config"),
            accelerator(ENDPOINT).bytes(),
        );
        write(root, "sys/kernel/iommu_groups/7/type", b"DMA-FQ\n");
        link(root, "sys/bus/pci/devices/0000:00:1c.0", port);
        link(root, "sys/bus/pci/devices/0000:01:00.0", device);
        link(
            root,
            &format!("{device}/iommu_group"),
            "sys/kernel/iommu_groups/7",
        );
        link(root, &format!("{device}/iommu"), "sys/class/iommu/dmar0");
        link(
            root,
            &format!("{device}/driver"),
            "sys/bus/pci/drivers/idxd",
        );

        let facts = Facts::read(root);
        let kinds: Vec<_> = facts.iommus.iter().map(|iommu| iommu.kind).collect();
        let (cap, ecap) = (0x00d2_008c_222f_0686, 0x0001_8d9a_2000_0f46);
        let features = 0x005f_77ef_2229_4ada;
        assert_eq!(
            kinds,
            [
                IommuKind::Vtd { cap, ecap },
                IommuKind::Amd { features },
                IommuKind::Other
            ]
        );
        assert!(facts.cpu_flags.contains("pdpe1gb"));
        assert_eq!(facts.command_line, "console=ttyS0 intel_iommu=on,sm_on");
        assert_eq!(facts.kernel_options.as_ref().unwrap()["CONFIG_RUST"], "y");
        assert!(facts.dmar.as_ref().unwrap().root_ports[0].flag);
        assert_eq!(facts.devices.len(), 2);
        let device = facts.device("0000:01:00.0").unwrap();
        assert!(device.function.as_ref().unwrap().ats.is_some());
        assert_eq!(device.bridges, ["0000:00:1c.0"]);
        assert_eq!(device.driver.as_deref(), Some("idxd"));
        assert_eq!(device.group.as_deref(), Some("7"));
        assert_eq!(device.group_type.as_deref(), Some("DMA-FQ"));
        assert_eq!(device.iommu.as_deref(), Some("dmar0"));
        assert_eq!(device.physical, None);
        assert!(facts.device("0000:00:1c.0").unwrap().bridges.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Facts::read(directory.path()), Facts::default());
    }
}
