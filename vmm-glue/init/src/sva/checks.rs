// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges what was read of a machine, item by item. Pure functions.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Iommu};

/// One item that shared virtual addressing needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is needed, and where.
    pub name: String,
    /// Whether it is there.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do where it is missing; empty otherwise.
    pub remedy: String,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Present,
    /// It is not.
    Missing,
    /// It could not be found out.
    Unknown,
    /// It is not, and is not necessary.
    Optional,
}

/// A bit of ECAP (VT-d 11.4.3) that Linux wants set.
struct EcapBit {
    bit: u32,
    name: &'static str,
    remedy: &'static str,
}

const ECAP_BITS: &[EcapBit] = &[
    EcapBit {
        bit: 43,
        name: "scalable mode (ECAP.SMTS)",
        remedy: "in QEMU: -device intel-iommu,scalable-mode=on",
    },
    EcapBit {
        bit: 47,
        name: "first-stage translation (ECAP.FSTS)",
        remedy: "in QEMU: -device intel-iommu,fsts=on",
    },
    EcapBit {
        bit: 40,
        name: "process address spaces (ECAP.PASID)",
        remedy: "in QEMU: -device intel-iommu,pasid-bits=20",
    },
    EcapBit {
        bit: 48,
        name: "coherent page walks (ECAP.SMPWCS)",
        remedy: "Linux refuses SVA without it; QEMU's model lacks it and the plug-in adds it",
    },
    EcapBit {
        bit: 29,
        name: "page requests (ECAP.PRS)",
        remedy: "in QEMU: -device intel-iommu,svm=on",
    },
    EcapBit {
        bit: 42,
        name: "page request drain (ECAP.PDS)",
        remedy: "in QEMU: -device intel-iommu,svm=on",
    },
    EcapBit {
        bit: 2,
        name: "device translation caches (ECAP.DT)",
        remedy: "in QEMU: -device intel-iommu,device-iotlb=on",
    },
];

/// CAP.FS1GP: first-stage pages of 1 GiB (VT-d 11.4.2).
const CAP_FS1GP: u32 = 56;
/// CAP.FS5LP: first-stage tables of five levels (VT-d 11.4.2).
const CAP_FS5LP: u32 = 60;

/// Kernel options that must be on, and what they give.
const OPTIONS: &[(&str, &str)] = &[
    ("CONFIG_INTEL_IOMMU", "the driver of VT-d"),
    (
        "CONFIG_INTEL_IOMMU_SVM",
        "shared virtual addressing in the driver of VT-d",
    ),
    (
        "CONFIG_IOMMU_SVA",
        "shared virtual addressing in the IOMMU core",
    ),
    ("CONFIG_PCI_ATS", "Address Translation Services"),
    ("CONFIG_PCI_PRI", "the Page Request Interface"),
    ("CONFIG_PCI_PASID", "process address space IDs"),
    ("CONFIG_RUST", "Rust modules, such as svm_demo"),
];

/// Judges a machine.
pub fn examine(facts: &Facts) -> Vec<Check> {
    let mut checks = command_line(facts);
    if facts.iommus.is_empty() {
        checks.push(check(
            "a VT-d remapping unit",
            Verdict::Missing,
            "none in /sys/class/iommu",
            "switch VT-d on in the firmware and boot with intel_iommu=on,sm_on; in QEMU add \
             -device intel-iommu",
        ));
    }
    for iommu in &facts.iommus {
        checks.extend(ecap(iommu));
        checks.extend(paging_match(iommu, facts));
    }
    checks.extend(kernel(facts));
    checks.extend(devices(facts));
    checks
}

/// Checks as text, one a line, the remedy below.
pub fn render(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Present => "ok     ",
            Verdict::Missing => "MISSING",
            Verdict::Unknown => "unknown",
            Verdict::Optional => "without",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark}  {}: {}", check.name, check.found);
        if !check.remedy.is_empty() {
            let _ = writeln!(text, "         -> {}", check.remedy);
        }
    }
    text
}

/// A check; the remedy is kept only where something is to be done.
fn check(
    name: impl Into<String>,
    verdict: Verdict,
    found: impl Into<String>,
    remedy: &str,
) -> Check {
    let remedy = if verdict == Verdict::Present {
        ""
    } else {
        remedy
    };
    Check {
        name: name.into(),
        verdict,
        found: found.into(),
        remedy: remedy.to_owned(),
    }
}

fn present(is: bool) -> Verdict {
    if is {
        Verdict::Present
    } else {
        Verdict::Missing
    }
}

fn command_line(facts: &Facts) -> Vec<Check> {
    // The options of `intel_iommu=`, those of a later one coming after those of an earlier one.
    let given: Vec<&str> = facts
        .command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("intel_iommu="))
        .flat_map(|options| options.split(','))
        .collect();
    let judge = |name: &str, on: &str, off: &str, default: &str| {
        let options = facts.kernel_options.as_ref();
        let by_default = options
            .and_then(|options| options.get(default))
            .is_some_and(|value| value == "y");
        let word = given
            .iter()
            .rev()
            .find(|&&option| option == on || option == off);
        let (is_on, found) = match word {
            Some(&word) => (word == on, format!("intel_iommu={word}")),
            None if by_default => (true, format!("not on it, and on by default ({default}=y)")),
            None => (false, format!("no intel_iommu={on} on it")),
        };
        let name = format!("kernel command line: {name}");
        check(
            name,
            present(is_on),
            found,
            "boot with intel_iommu=on,sm_on",
        )
    };
    vec![
        judge("VT-d on", "on", "off", "CONFIG_INTEL_IOMMU_DEFAULT_ON"),
        judge(
            "scalable mode on",
            "sm_on",
            "sm_off",
            "CONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON",
        ),
    ]
}

fn ecap(iommu: &Iommu) -> Vec<Check> {
    ECAP_BITS
        .iter()
        .map(|bit| {
            let set = iommu.ecap >> bit.bit & 1 != 0;
            check(
                format!("{}: {}", iommu.name, bit.name),
                present(set),
                format!(
                    "bit {} of ECAP {:#x} is {}",
                    bit.bit,
                    iommu.ecap,
                    u8::from(set)
                ),
                bit.remedy,
            )
        })
        .collect()
}

/// The IOMMU walks the processor's own page tables, so it must understand what the processor
/// puts there.
fn paging_match(iommu: &Iommu, facts: &Facts) -> Vec<Check> {
    let pairs = [
        (
            "la57",
            "five-level page tables",
            CAP_FS5LP,
            "FS5LP",
            "boot with no5lvl, or give the guest -cpu …,la57=off",
        ),
        (
            "pdpe1gb",
            "1 GiB pages",
            CAP_FS1GP,
            "FS1GP",
            "give QEMU -device intel-iommu,fs1gp=on, or the guest -cpu …,pdpe1gb=off",
        ),
    ];
    pairs
        .into_iter()
        .map(|(flag, what, bit, name, remedy)| {
            let label = format!(
                "{}: {what} as the processor has them (CAP.{name})",
                iommu.name
            );
            if facts.cpu_flags.is_empty() {
                return check(
                    label,
                    Verdict::Unknown,
                    "the processor's flags are not known",
                    "",
                );
            }
            let processor = facts.cpu_flags.contains(flag);
            let unit = iommu.cap >> bit & 1 != 0;
            let found = format!(
                "processor: {}, IOMMU: {}",
                if processor { "yes" } else { "no" },
                if unit { "yes" } else { "no" }
            );
            check(label, present(!processor || unit), found, remedy)
        })
        .collect()
}

fn kernel(facts: &Facts) -> Vec<Check> {
    let Some(options) = &facts.kernel_options else {
        return vec![check(
            "kernel options",
            Verdict::Unknown,
            "neither /proc/config.gz nor /boot/config-… can be read",
            "compare the kernel's configuration by hand: INTEL_IOMMU_SVM, IOMMU_SVA, PCI_ATS, \
             PCI_PRI, PCI_PASID, RUST",
        )];
    };
    OPTIONS
        .iter()
        .map(|&(option, gives)| {
            let value = options.get(option).map_or("not set", String::as_str);
            check(
                format!("kernel option {option}"),
                present(value == "y"),
                value,
                &format!("use a kernel with {option}=y: it gives {gives}"),
            )
        })
        .collect()
}

fn devices(facts: &Facts) -> Vec<Check> {
    let Some(devices) = &facts.devices else {
        return vec![check(
            "PCI devices",
            Verdict::Unknown,
            "no configuration space could be read beyond its first bytes",
            "run this as root, on a machine with PCI Express",
        )];
    };
    let mut checks = Vec::new();
    for device in devices {
        let at = format!(
            "{} [{:04x}:{:04x}]",
            device.address, device.vendor, device.device
        );
        let fixed = "a property of the device; Linux leaves SVA off, silently";
        let missing = |name: &str| check(format!("{at}: {name}"), Verdict::Missing, "none", fixed);
        let state = |enabled: bool| if enabled { "enabled" } else { "not enabled" };
        checks.push(device.pasid.map_or_else(
            || missing("PASID capability"),
            |pasid| {
                let found = format!("{} bits, {}", pasid.width, state(pasid.enabled));
                check(
                    format!("{at}: PASID capability"),
                    present(pasid.width > 0),
                    found,
                    fixed,
                )
            },
        ));
        checks.push(device.ats.map_or_else(
            || missing("ATS with page-aligned requests"),
            |ats| {
                let aligned = if ats.page_aligned {
                    "page-aligned"
                } else {
                    "not page-aligned"
                };
                let found = format!("{aligned}, {}", state(ats.enabled));
                let name = format!("{at}: ATS with page-aligned requests");
                check(name, present(ats.page_aligned), found, fixed)
            },
        ));
        checks.push(device.pri.map_or_else(
            || missing("PRI with PASID in responses"),
            |pri| {
                let required = pri.response_pasid_required;
                let with = if required {
                    "with PASID"
                } else {
                    "without PASID"
                };
                let name = format!("{at}: PRI with PASID in responses");
                check(
                    name,
                    present(required),
                    format!("{with}, {}", state(pri.enabled)),
                    fixed,
                )
            },
        ));
    }
    if checks.is_empty() {
        checks.push(check(
            "a device with ATS, PRI and PASID",
            Verdict::Missing,
            "none",
            "in QEMU: preload the plug-in and add -device svm-demo",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::pci::{Ats, Pasid, PciDevice, Pri};
    use super::*;

    /// A machine that has everything.
    fn complete() -> Facts {
        Facts {
            iommus: vec![Iommu {
                name: "dmar0".into(),
                cap: 1 << CAP_FS1GP,
                ecap: ECAP_BITS.iter().map(|bit| 1 << bit.bit).sum(),
            }],
            cpu_flags: ["fpu", "pdpe1gb"].map(str::to_owned).into(),
            kernel_options: Some(
                OPTIONS
                    .iter()
                    .map(|(name, _)| (name.to_string(), "y".to_owned()))
                    .collect(),
            ),
            command_line: "quiet intel_iommu=on,sm_on".into(),
            devices: Some(vec![PciDevice {
                address: "0000:00:03.0".into(),
                vendor: 0x1b36,
                device: 0x0010,
                ats: Some(Ats {
                    page_aligned: true,
                    enabled: true,
                }),
                pri: Some(Pri {
                    response_pasid_required: true,
                    enabled: true,
                }),
                pasid: Some(Pasid {
                    width: 20,
                    enabled: true,
                }),
            }]),
        }
    }

    /// Names of what is not present.
    fn lacking(facts: &Facts) -> Vec<String> {
        examine(facts)
            .into_iter()
            .filter(|check| check.verdict != Verdict::Present)
            .inspect(|check| assert!(!check.remedy.is_empty() || check.verdict == Verdict::Unknown))
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn a_complete_machine_lacks_nothing() {
        assert_eq!(lacking(&complete()), Vec::<String>::new());
    }

    #[test]
    fn each_bit_of_ecap_is_missed_by_its_name() {
        for bit in ECAP_BITS {
            let mut facts = complete();
            facts.iommus[0].ecap &= !(1 << bit.bit);
            assert_eq!(lacking(&facts), [format!("dmar0: {}", bit.name)]);
        }
    }

    #[test]
    fn large_pages_and_five_levels_must_match_the_processor() {
        let mut facts = complete();
        facts.iommus[0].cap = 0;
        assert!(lacking(&facts)[0].contains("FS1GP"));
        facts.cpu_flags = ["la57".to_owned()].into();
        assert!(lacking(&facts)[0].contains("FS5LP"));
        facts.cpu_flags = ["fpu".to_owned()].into();
        assert_eq!(lacking(&facts), Vec::<String>::new());
    }

    #[test]
    fn the_last_word_of_the_command_line_counts() {
        let mut facts = complete();
        facts.command_line = "intel_iommu=on,sm_on intel_iommu=sm_off".into();
        assert_eq!(lacking(&facts), ["kernel command line: scalable mode on"]);
        facts.command_line = String::new();
        assert_eq!(lacking(&facts).len(), 2);
        let options = facts.kernel_options.as_mut().unwrap();
        options.insert("CONFIG_INTEL_IOMMU_DEFAULT_ON".into(), "y".into());
        assert_eq!(lacking(&facts), ["kernel command line: scalable mode on"]);
    }

    #[test]
    fn each_kernel_option_is_missed_by_its_name() {
        for (option, _) in OPTIONS {
            let mut facts = complete();
            facts.kernel_options.as_mut().unwrap().remove(*option);
            assert_eq!(lacking(&facts), [format!("kernel option {option}")]);
        }
    }

    #[test]
    fn each_capability_of_a_device_is_missed() {
        let mut facts = complete();
        facts.devices.as_mut().unwrap()[0].ats = Some(Ats {
            page_aligned: false,
            enabled: true,
        });
        assert_eq!(lacking(&facts).len(), 1);
        facts.devices.as_mut().unwrap()[0].pri = None;
        facts.devices.as_mut().unwrap()[0].pasid = None;
        assert_eq!(lacking(&facts).len(), 3);
        facts.devices = Some(vec![]);
        assert_eq!(lacking(&facts), ["a device with ATS, PRI and PASID"]);
    }

    #[test]
    fn what_was_not_read_is_unknown_and_not_missing() {
        let mut facts = complete();
        facts.kernel_options = None;
        facts.devices = None;
        let unknown = examine(&facts)
            .iter()
            .filter(|c| c.verdict == Verdict::Unknown)
            .count();
        assert_eq!(unknown, 2);
    }
}
