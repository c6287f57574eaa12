// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices can be assigned, for any unit and any device: by the registers of both, and by what
//! the sentences say.

use crate::bench::holds;
use crate::units::first;
use host_iommu::compatibility::{HostDevice, Incompatible, check};
use host_iommu::mock::MockDevice;
use pcie_ats::PasidWidth;
use proptest::prelude::*;
use std::collections::BTreeSet;
use vtd::Capabilities;
use vtd::config::{AddressWidth, Config, FirstStage, Pasids, Scalable, Stages};
use vtd::spec::capability::{Capability, ExtendedCapability};

/// Bits of CAP_REG and ECAP_REG (sections 11.4.2 and 11.4.3).
const CM: u64 = 1 << 7;
const FS1GP: u64 = 1 << 56;
const FS5LP: u64 = 1 << 60;
const SC: u64 = 1 << 7;
const NEST: u64 = 1 << 26;
const SRS: u64 = 1 << 31;
const EAFS: u64 = 1 << 34;
const PASID: u64 = 1 << 40;
const SSTS: u64 = 1 << 46;
const FSTS: u64 = 1 << 47;

/// A unit: any that its own rules allow.
fn units() -> impl Strategy<Value = Config> {
    let first =
        any::<[bool; 3]>().prop_map(
            |[five_levels, one_gib_pages, extended_accessed]| FirstStage {
                five_levels,
                one_gib_pages,
                extended_accessed,
            },
        );
    let stages = (first, 0..4).prop_map(|(first, kind)| match kind {
        0 => Stages::First(first),
        1 => Stages::Second,
        kind => Stages::Both {
            first,
            nested: kind == 2,
        },
    });
    let pasids = (0u8..=20).prop_map(|bits| {
        let width = PasidWidth::new(bits).ok()?;
        Some(Pasids {
            width,
            execute_requests: false,
        })
    });
    let widths = prop_oneof![
        Just((AddressWidth::Bits39, 39)),
        Just((AddressWidth::Bits48, 48)),
        Just((AddressWidth::Bits48, 52)),
        Just((AddressWidth::Bits57, 52)),
    ];
    let scalable = (stages, pasids, any::<bool>(), prop::bool::weighted(0.9));
    let rest = (scalable, widths, any::<[bool; 4]>());
    rest.prop_filter_map("it contradicts itself", |(scalable, widths, switches)| {
        let (stages, pasids, supervisor_requests, is_scalable) = scalable;
        let [caching_mode, snoop_control, device_tlbs, page_requests] = switches;
        let mut config = Config {
            caching_mode,
            snoop_control,
            second_stage_width: widths.0,
            host_address_width: widths.1,
            ..Config::default()
        };
        config.device_tlbs = config.device_tlbs.filter(|_| device_tlbs);
        if let Some(tlbs) = &mut config.device_tlbs {
            tlbs.page_requests = page_requests;
        }
        let dirty = !matches!(stages, Stages::First(_));
        config.scalable = config.scalable.filter(|_| is_scalable).map(|s| Scalable {
            stages,
            pasids,
            supervisor_requests,
            second_stage_dirty: dirty,
            ..s
        });
        Capabilities::new(config).is_ok().then_some(config)
    })
}

/// A device below a unit of the host, which may lack more than a unit of ours can.
fn devices() -> impl Strategy<Value = HostDevice> {
    let lacking = proptest::sample::subsequence(vec![NEST, SSTS, EAFS, SRS], 0..=1);
    let is = prop::bool::weighted(0.9);
    let all = (
        units(),
        lacking,
        is,
        prop::bool::weighted(0.9),
        any::<bool>(),
    );
    all.prop_map(|(config, lacking, iommufd, is_vtd, behind_bridge)| {
        let mut info = MockDevice::below(config).unwrap().info;
        if let Some(vtd) = &mut info.vtd {
            vtd.ecap.0 &= !lacking.iter().sum::<u64>();
        }
        info.vtd = info.vtd.filter(|_| is_vtd);
        HostDevice {
            iommufd: Some(info).filter(|_| iommufd),
            behind_bridge,
        }
    })
}

/// The registers of a unit.
fn registers(config: &Config) -> (u64, u64) {
    let caps = Capabilities::new(*config).unwrap();
    (caps.cap().0, caps.ecap().0)
}

/// The PASID width that ECAP_REG reports, 0 without PASIDs.
fn pasid_bits(ecap: u64) -> u8 {
    match ecap & PASID {
        0 => 0,
        _ => (ecap >> 35 & 0x1f) as u8 + 1,
    }
}

/// The first reason by what the registers of both units say: the unit's, then the host's.
fn naive(unit: &Config, device: &HostDevice) -> Option<Incompatible> {
    let (cap, ecap) = registers(unit);
    let first = |reasons: &[(bool, Incompatible)]| {
        let found = reasons.iter().find(|(applies, _)| *applies);
        found.map(|(_, reason)| *reason)
    };
    if ecap & FSTS == 0 {
        return first(&[
            (cap & CM == 0, Incompatible::NoCachingMode),
            (ecap & SC != 0, Incompatible::SnoopControl),
        ]);
    }
    let vtd = device.iommufd.and_then(|info| info.vtd);
    let before = first(&[
        (device.iommufd.is_none(), Incompatible::NoIommufd),
        (device.behind_bridge, Incompatible::BehindBridge),
        (vtd.is_none(), Incompatible::NotVtd),
    ]);
    let (Some(vtd), None) = (vtd, before) else {
        return before;
    };
    let (below, extended) = (vtd.cap.0, vtd.ecap.0);
    let (bits, others) = (pasid_bits(ecap), pasid_bits(extended));
    let (reach, mgaw) = (unit.host_address_width, (below >> 16 & 0x3f) as u8 + 1);
    first(&[
        (extended & NEST == 0, Incompatible::NoNesting),
        (extended & SSTS == 0, Incompatible::NoSecondStage),
        (ecap & SSTS != 0, Incompatible::SecondStageOffered),
        (cap & !below & FS1GP != 0, Incompatible::NoOneGibPages),
        (cap & !below & FS5LP != 0, Incompatible::NoFiveLevels),
        (
            ecap & !extended & EAFS != 0,
            Incompatible::NoExtendedAccessed,
        ),
        (
            ecap & !extended & SRS != 0,
            Incompatible::NoSupervisorRequests,
        ),
        (
            bits > others,
            Incompatible::PasidWidth {
                unit: bits,
                host: others,
            },
        ),
        (
            reach > mgaw,
            Incompatible::AddressWidth {
                unit: reach,
                host: mgaw,
            },
        ),
    ])
}

#[test]
pub(crate) fn the_reason_is_the_first_that_the_registers_give() {
    holds(1000, (units(), devices()), |(unit, device)| {
        prop_assert_eq!(check(&unit, &device).err(), naive(&unit, &device));
        Ok(())
    });
}

/// Does what a sentence says, as a user would: the last `NAME=VALUE` that it has.
fn obeyed(unit: &Config, sentence: &str) -> Option<Config> {
    let (mut config, words) = (*unit, sentence.replace(['.', ',', ';', ':'], " "));
    if sentence.ends_with("smaller aw-bits") {
        config.host_address_width = 39;
        config.second_stage_width = AddressWidth::Bits39;
        return Some(config);
    }
    let word = words.split_whitespace().rfind(|word| word.contains('='))?;
    let (name, value) = word.split_once('=')?;
    match (name, value) {
        ("caching-mode", "on") => config.caching_mode = true,
        ("snoop-control", "off") => config.snoop_control = false,
        // The sentence of QEMU names what is to be changed.
        ("fsts", "off" | "on") => {
            let scalable = config.scalable.as_mut()?;
            scalable.stages = Stages::Second;
        }
        ("ssts", "off") => {
            let first = *first(&mut config);
            let scalable = config.scalable.as_mut()?;
            scalable.stages = Stages::First(first);
            scalable.second_stage_dirty = false;
        }
        ("fs1gp", "off") => first(&mut config).one_gib_pages = false,
        ("fs5lp", "off") => first(&mut config).five_levels = false,
        ("pasid-bits", bits) => {
            let width = PasidWidth::new(bits.parse().ok()?).ok();
            let scalable = config.scalable.as_mut()?;
            scalable.pasids = scalable
                .pasids
                .zip(width)
                .map(|(pasids, width)| Pasids { width, ..pasids });
        }
        _ => return None,
    }
    Some(config)
}

#[test]
pub(crate) fn who_does_what_the_sentences_say_has_the_device_in_the_end() {
    holds(1000, (units(), devices()), |(unit, device)| {
        let (mut unit, mut heard) = (unit, BTreeSet::new());
        while let Err(reason) = check(&unit, &device) {
            let sentence = reason.to_string();
            prop_assert!(heard.insert(sentence.clone()), "in vain: {sentence}");
            let changed = obeyed(&unit, &sentence);
            let Some(changed) = changed else {
                return Err(TestCaseError::fail(format!("what to do? {sentence}")));
            };
            prop_assert!(Capabilities::new(changed).is_ok(), "{sentence}");
            unit = changed;
        }
        Ok(())
    });
}

#[test]
pub(crate) fn a_unit_that_is_limited_by_the_hosts_is_taken_and_loses_no_more() {
    let below = (units(), units());
    holds(1000, below, |(unit, host)| {
        let (cap, ecap) = registers(&host);
        let limit = |unit: Config| unit.limited_by(Capability(cap), ExtendedCapability(ecap));
        let limited = limit(unit);
        prop_assert_eq!(limit(limited), limited, "a second time nothing changes");
        let (had, had_extended) = registers(&unit);
        prop_assert!(Capabilities::new(limited).is_ok());
        let (has, has_extended) = registers(&limited);
        let device = HostDevice {
            iommufd: Some(MockDevice::below(host).unwrap().info),
            behind_bridge: false,
        };
        prop_assert_eq!(has_extended & FSTS, had_extended & FSTS);
        if ecap & NEST == 0 || had_extended & FSTS == 0 {
            return Ok(());
        }
        prop_assert_eq!(check(&limited, &device), Ok(()));
        // What both have is left.
        for bit in [FS1GP, FS5LP] {
            prop_assert_eq!(has & bit, had & cap & bit);
        }
        for bit in [EAFS, SRS, SC, PASID] {
            prop_assert_eq!(has_extended & bit, had_extended & ecap & bit);
        }
        let bits = pasid_bits(had_extended).min(pasid_bits(ecap));
        prop_assert_eq!(pasid_bits(has_extended), bits);
        let reach = unit.host_address_width.min((cap >> 16 & 0x3f) as u8 + 1);
        prop_assert_eq!(limited.host_address_width, reach);
        Ok(())
    });
}
