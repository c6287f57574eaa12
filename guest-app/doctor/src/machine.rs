// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges a machine as a whole: command line, IOMMU, processor, kernel. Pure functions.

use crate::check::{Check, Verdict};
use crate::facts::{Facts, Iommu, IommuKind};

/// A bit of ECAP (VT-d 11.4.3) that Linux requires.
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

/// Kernel options that must be on, and what they provide.
const OPTIONS: &[(&str, &str)] = &[
    (
        "CONFIG_IOMMU_SVA",
        "shared virtual addressing in the IOMMU core",
    ),
    ("CONFIG_PCI_ATS", "Address Translation Services"),
    ("CONFIG_PCI_PRI", "the Page Request Interface"),
    ("CONFIG_PCI_PASID", "process address space IDs"),
];

/// Options of the IOMMU driver that must be on.
const INTEL_OPTIONS: &[(&str, &str)] = &[
    ("CONFIG_INTEL_IOMMU", "the driver of VT-d"),
    (
        "CONFIG_INTEL_IOMMU_SVM",
        "shared virtual addressing in the driver of VT-d",
    ),
];
const AMD_OPTIONS: &[(&str, &str)] = &[("CONFIG_AMD_IOMMU", "the driver of AMD-Vi")];

/// Only this project's driver needs it.
const RUST: (&str, &str) = ("CONFIG_RUST", "Rust modules, such as svm_demo");

/// Bits of AMD's extended feature register: GTSup and PPRSup.
const AMD_GT: u32 = 4;
const AMD_PPR: u32 = 1;

/// Judges a machine without its devices.
pub fn examine(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    let amd = is_amd(facts);
    if facts.iommus.is_empty() {
        checks.push(no_iommu(facts));
    }
    checks.extend(forbidden(facts));
    let vtd = |iommu: &Iommu| matches!(iommu.kind, IommuKind::Vtd { .. });
    if facts.iommus.is_empty() && !amd || facts.iommus.iter().any(vtd) {
        checks.extend(command_line(facts));
    }
    for iommu in &facts.iommus {
        checks.extend(examine_iommu(iommu, facts));
    }
    checks.extend(kernel(facts, amd));
    checks
}

/// Whether the machine's IOMMU is AMD's, or would be if Linux drove one. In a virtual machine, the
/// IOMMU and the processor may be of different makers.
fn is_amd(facts: &Facts) -> bool {
    if !facts.iommus.is_empty() {
        let amd = |iommu: &Iommu| matches!(iommu.kind, IommuKind::Amd { .. });
        return facts.iommus.iter().any(amd);
    }
    let virtual_machine = facts.cpu_flags.contains("hypervisor");
    let by_processor = facts.vendor == "AuthenticAMD" && !virtual_machine;
    facts.has_ivrs || !facts.has_dmar && by_processor
}

/// Linux drives no IOMMU: does the firmware describe one?
fn no_iommu(facts: &Facts) -> Check {
    let (found, remedy) = match (facts.has_dmar, facts.has_ivrs) {
        (true, _) => (
            "none in /sys/class/iommu, though the firmware tells of VT-d (table DMAR)",
            "boot with intel_iommu=on,sm_on, and see `dmesg | grep DMAR`",
        ),
        (_, true) => (
            "none in /sys/class/iommu, though the firmware tells of AMD-Vi (table IVRS)",
            "boot with nothing that switches it off, and see `dmesg | grep AMD-Vi`",
        ),
        _ => (
            "none in /sys/class/iommu, and the firmware tells of none (tables DMAR, IVRS)",
            "switch VT-d or AMD-Vi on in the firmware; in QEMU add -device intel-iommu",
        ),
    };
    Check::new(
        "an IOMMU that Linux drives",
        Verdict::Missing,
        found,
        remedy,
    )
}

/// Options of the kernel's command line, each with a word that turns off something SVA needs.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("iommu", "off", "the IOMMU"),
    ("amd_iommu", "off", "AMD-Vi"),
    ("pci", "noats", "Address Translation Services"),
];

/// What the command line turns off.
pub(crate) fn forbidden(facts: &Facts) -> Vec<Check> {
    let words = || facts.command_line.split_whitespace();
    let mut checks = Vec::new();
    for (option, off, what) in FORBIDDEN {
        let mut given = words().filter_map(|word| word.strip_prefix(option)?.strip_prefix('='));
        if given.any(|values| values.split(',').any(|value| value == *off)) {
            checks.push(Check::new(
                format!("kernel command line: {what} not switched off"),
                Verdict::Missing,
                format!("{option}={off}"),
                &format!("boot without {option}={off}"),
            ));
        }
    }
    checks
}

/// Judges one IOMMU.
pub(crate) fn examine_iommu(iommu: &Iommu, facts: &Facts) -> Vec<Check> {
    match iommu.kind {
        IommuKind::Vtd { cap, ecap } => {
            let mut checks = vtd_bits(&iommu.name, ecap);
            checks.extend(paging_match(&iommu.name, cap, facts));
            checks
        }
        IommuKind::Amd { features } => amd_bits(&iommu.name, features, facts),
        IommuKind::Other => vec![Check::new(
            format!("{}: what it can do", iommu.name),
            Verdict::Unknown,
            "neither VT-d nor AMD-Vi; Linux shows no registers of it",
            "compare by hand: it needs PASIDs, the processor's page table format, ATS and page \
             requests (or stalls)",
        )],
    }
}

pub(crate) fn command_line(facts: &Facts) -> Vec<Check> {
    // The options of every `intel_iommu=`, in the order of the command line.
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
        let remedy = "boot with intel_iommu=on,sm_on";
        Check::new(name, Verdict::of(is_on), found, remedy)
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

fn vtd_bits(unit: &str, ecap: u64) -> Vec<Check> {
    ECAP_BITS
        .iter()
        .map(|bit| {
            let set = ecap >> bit.bit & 1 != 0;
            Check::new(
                format!("{unit}: {}", bit.name),
                Verdict::of(set),
                format!("bit {} of ECAP {ecap:#x} is {}", bit.bit, u8::from(set)),
                bit.remedy,
            )
        })
        .collect()
}

/// The IOMMU walks the processor's own page tables, so it must support every format that the
/// processor uses there.
fn paging_match(unit: &str, cap: u64, facts: &Facts) -> Vec<Check> {
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
            let label = format!("{unit}: {what} as the processor has them (CAP.{name})");
            if facts.cpu_flags.is_empty() {
                let found = "the processor's flags are not known";
                return Check::new(label, Verdict::Unknown, found, "");
            }
            let processor = facts.cpu_flags.contains(flag);
            let has = cap >> bit & 1 != 0;
            let found = format!("processor: {}, IOMMU: {}", yes(processor), yes(has));
            Check::new(label, Verdict::of(!processor || has), found, remedy)
        })
        .collect()
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// What AMD-Vi needs: the bits of its extended feature register, and a domain type for which Linux
/// gives a device a PASID table.
fn amd_bits(unit: &str, features: u64, facts: &Facts) -> Vec<Check> {
    let bits = [
        (
            AMD_GT,
            "GTSup",
            "guest translation, the processor's page tables",
        ),
        (AMD_PPR, "PPRSup", "page requests"),
    ];
    let fixed = "a property of the IOMMU; the firmware may have switched it off";
    let mut checks: Vec<_> = bits
        .into_iter()
        .map(|(bit, name, what)| {
            let set = features >> bit & 1 != 0;
            let found = format!(
                "bit {bit} of the features {features:#x} is {}",
                u8::from(set)
            );
            let label = format!("{unit}: {what} ({name})");
            Check::new(label, Verdict::of(set), found, fixed)
        })
        .collect();
    let given: Vec<&str> = facts.command_line.split_whitespace().collect();
    let guest_tables = given
        .iter()
        .filter_map(|word| word.strip_prefix("amd_iommu="))
        .flat_map(|options| options.split(','))
        .any(|option| option == "pgtbl_v2");
    let pass_through = given.contains(&"iommu=pt") || given.contains(&"iommu.passthrough=1");
    let found = match (guest_tables, pass_through) {
        (true, _) => "amd_iommu=pgtbl_v2",
        (_, true) => "pass-through",
        _ => "neither amd_iommu=pgtbl_v2 nor iommu=pt on the command line",
    };
    // A device's own default domain can still be pass-through.
    let verdict = match guest_tables || pass_through {
        true => Verdict::Present,
        false => Verdict::Unknown,
    };
    let label = format!("{unit}: domains that leave room for PASIDs");
    let remedy = "boot with amd_iommu=pgtbl_v2 or iommu=pt";
    checks.push(Check::new(label, verdict, found, remedy));
    checks
}

fn kernel(facts: &Facts, amd: bool) -> Vec<Check> {
    let Some(options) = &facts.kernel_options else {
        return vec![Check::new(
            "kernel options",
            Verdict::Unknown,
            "neither /proc/config.gz nor /boot/config-… can be read",
            "compare the kernel's configuration by hand: INTEL_IOMMU_SVM, IOMMU_SVA, PCI_ATS, \
             PCI_PRI, PCI_PASID, RUST",
        )];
    };
    let vendor = if amd { AMD_OPTIONS } else { INTEL_OPTIONS };
    let judge = |&(option, gives): &(&str, &str), without: Verdict| {
        let value = options.get(option).map_or("not set", String::as_str);
        let verdict = if value == "y" {
            Verdict::Present
        } else {
            without
        };
        let remedy = format!("use a kernel with {option}=y: it gives {gives}");
        Check::new(format!("kernel option {option}"), verdict, value, &remedy)
    };
    let needed = vendor.iter().chain(OPTIONS);
    needed
        .map(|option| judge(option, Verdict::Missing))
        .chain(std::iter::once(judge(&RUST, Verdict::Optional)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vtd(cap: u64, ecap: u64) -> Iommu {
        Iommu {
            name: "dmar0".into(),
            kind: IommuKind::Vtd { cap, ecap },
        }
    }

    fn all_bits() -> u64 {
        ECAP_BITS.iter().map(|bit| 1 << bit.bit).sum()
    }

    /// A machine that lacks nothing.
    fn complete() -> Facts {
        let options = INTEL_OPTIONS.iter().chain(OPTIONS).chain([&RUST]);
        Facts {
            iommus: vec![vtd(1 << CAP_FS1GP, all_bits())],
            cpu_flags: ["fpu", "pdpe1gb"].map(str::to_owned).into(),
            kernel_options: Some(
                options
                    .map(|(name, _)| (name.to_string(), "y".to_owned()))
                    .collect(),
            ),
            command_line: "quiet intel_iommu=on,sm_on".into(),
            ..Facts::default()
        }
    }

    /// Names of the items that are not present.
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
    fn a_machine_without_an_iommu_lacks_it_first() {
        let mut facts = complete();
        facts.iommus.clear();
        assert_eq!(lacking(&facts), ["an IOMMU that Linux drives"]);
    }

    #[test]
    fn the_firmware_says_whether_there_could_be_an_iommu() {
        let found = |facts: &Facts| examine(facts)[0].found.clone();
        let mut facts = complete();
        facts.iommus.clear();
        assert!(found(&facts).contains("tells of none"));
        facts.has_dmar = true;
        assert!(found(&facts).contains("tells of VT-d"));
        (facts.has_dmar, facts.has_ivrs) = (false, true);
        assert!(found(&facts).contains("tells of AMD-Vi"));
        // The needs of VT-d are not checked then.
        facts.command_line = String::new();
        let missing = [
            "an IOMMU that Linux drives",
            "kernel option CONFIG_AMD_IOMMU",
        ];
        assert_eq!(lacking(&facts), missing);
        // Without tables the processor decides, unless this is a virtual machine.
        facts.has_ivrs = false;
        facts.vendor = "AuthenticAMD".into();
        assert_eq!(lacking(&facts), missing);
        facts.cpu_flags.insert("hypervisor".into());
        assert!(lacking(&facts).contains(&"kernel command line: VT-d on".to_owned()));
    }

    #[test]
    fn what_the_command_line_switches_off_is_said() {
        let mut facts = complete();
        facts.command_line += " iommu=soft,off pci=noats,realloc";
        let missing = [
            "kernel command line: the IOMMU not switched off",
            "kernel command line: Address Translation Services not switched off",
        ];
        assert_eq!(lacking(&facts), missing);
    }

    #[test]
    fn each_bit_of_ecap_is_missed_by_its_name() {
        for bit in ECAP_BITS {
            let mut facts = complete();
            facts.iommus = vec![vtd(1 << CAP_FS1GP, all_bits() & !(1 << bit.bit))];
            assert_eq!(lacking(&facts), [format!("dmar0: {}", bit.name)]);
        }
    }

    #[test]
    fn large_pages_and_five_levels_must_match_the_processor() {
        let mut facts = complete();
        facts.iommus = vec![vtd(0, all_bits())];
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
        for (option, _) in INTEL_OPTIONS.iter().chain(OPTIONS).chain([&RUST]) {
            let mut facts = complete();
            facts.kernel_options.as_mut().unwrap().remove(*option);
            assert_eq!(lacking(&facts), [format!("kernel option {option}")]);
        }
    }

    #[test]
    fn a_kernel_without_rust_is_fit_for_other_devices() {
        let mut facts = complete();
        facts.kernel_options.as_mut().unwrap().remove("CONFIG_RUST");
        let checks = examine(&facts);
        assert!(checks.iter().all(|check| check.verdict != Verdict::Missing));
    }

    #[test]
    fn amd_needs_its_own_bits_and_options() {
        let mut facts = complete();
        let unit = |features| Iommu {
            name: "ivhd0".into(),
            kind: IommuKind::Amd { features },
        };
        facts.iommus = vec![unit(1 << AMD_GT | 1 << AMD_PPR)];
        facts.command_line = "iommu=pt".into();
        assert_eq!(lacking(&facts), ["kernel option CONFIG_AMD_IOMMU"]);
        let options = facts.kernel_options.as_mut().unwrap();
        options.insert("CONFIG_AMD_IOMMU".into(), "y".into());
        assert_eq!(lacking(&facts), Vec::<String>::new());
        facts.iommus = vec![unit(0)];
        facts.command_line = String::new();
        assert_eq!(lacking(&facts).len(), 3);
    }

    #[test]
    fn what_was_not_read_is_unknown_and_not_missing() {
        let mut facts = complete();
        facts.kernel_options = None;
        facts.iommus[0].kind = IommuKind::Other;
        let verdicts: Vec<_> = examine(&facts).iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Unknown; 2]);
    }
}
