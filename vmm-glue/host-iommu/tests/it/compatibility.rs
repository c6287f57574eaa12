// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices can be assigned to which unit, and why the others cannot.

use crate::bench::{device, holds};
use host_iommu::compatibility::{
    Cap, HostDevice, Incompatible, NoPasidCapability, bypasses_read_only, capability, check,
    pasid_capability, pasid_limit, tracks_dirty, unit_flag, unit_flags,
};
use host_iommu::host::{Errno, HardwareInfo, VtdInfo};
use host_iommu::mock::MockDevice;
use pcie_ats::PasidWidth;
use proptest::prelude::*;
use std::collections::BTreeSet;
use vtd::Capabilities;
use vtd::config::{AddressWidth, Config, FirstStage, Pasids, Scalable, Stages};
use vtd::spec::capability::{Capability, ExtendedCapability};

fn scalable(config: &mut Config) -> &mut Scalable {
    config.scalable.as_mut().unwrap()
}

fn first(config: &mut Config) -> &mut FirstStage {
    match &mut scalable(config).stages {
        Stages::First(first) | Stages::Both { first, .. } => first,
        Stages::Second => panic!("the default has a first stage"),
    }
}

/// A device below a unit of the host with a configuration.
fn below(change: impl FnOnce(&mut Config)) -> HostDevice {
    let mut config = Config::default();
    change(&mut config);
    HostDevice {
        iommufd: Some(MockDevice::below(config).unwrap().info),
        behind_bridge: false,
    }
}

/// A unit that offers first stages alone, as it does above another one.
fn unit() -> Config {
    let info = device().info.vtd.unwrap();
    let mut config = Config::default().limited_by(info.cap, info.ecap);
    config.host_address_width = 48;
    config
}

/// A unit that offers second stages alone.
fn shadowing() -> Config {
    let mut config = Config {
        caching_mode: true,
        snoop_control: false,
        ..Config::default()
    };
    scalable(&mut config).stages = Stages::Second;
    config
}

#[test]
pub(crate) fn n4_9_each_reason_to_refuse_a_device_has_its_sentence() {
    let mut offers_second = unit();
    scalable(&mut offers_second).stages = Config::default().scalable.unwrap().stages;
    let legacy = HostDevice {
        iommufd: None,
        behind_bridge: false,
    };
    let mut other = below(|_| {});
    other.iommufd.as_mut().unwrap().vtd = None;
    let mut no_second = below(|_| {});
    let vtd = no_second.iommufd.as_mut().unwrap().vtd.as_mut().unwrap();
    vtd.ecap.0 &= !(1 << 46);
    let not_nested = |c: &mut Config| {
        if let Stages::Both { nested, .. } = &mut scalable(c).stages {
            *nested = false;
        }
    };
    let pasid_width = Incompatible::PasidWidth { unit: 20, host: 8 };
    let width = Incompatible::AddressWidth { unit: 48, host: 39 };
    let eight = |c: &mut Config| {
        scalable(c).pasids.as_mut().unwrap().width = PasidWidth::new(8).unwrap();
    };
    let narrow = |c: &mut Config| {
        c.second_stage_width = vtd::config::AddressWidth::Bits39;
        c.host_address_width = 39;
    };
    let cases = [
        (unit(), legacy, Incompatible::NoIommufd),
        (unit(), other, Incompatible::NotVtd),
        (unit(), below(not_nested), Incompatible::NoNesting),
        (unit(), no_second, Incompatible::NoSecondStage),
        (
            offers_second,
            below(|_| {}),
            Incompatible::SecondStageOffered,
        ),
        (
            unit(),
            below(|c| first(c).one_gib_pages = false),
            Incompatible::NoOneGibPages,
        ),
        (
            unit(),
            below(|c| first(c).five_levels = false),
            Incompatible::NoFiveLevels,
        ),
        (
            unit(),
            below(|c| first(c).extended_accessed = false),
            Incompatible::NoExtendedAccessed,
        ),
        (
            unit(),
            below(|c| scalable(c).supervisor_requests = false),
            Incompatible::NoSupervisorRequests,
        ),
        (unit(), below(eight), pasid_width),
        (unit(), below(narrow), width),
    ];
    let mut sentences = BTreeSet::new();
    for (unit, device, expected) in cases {
        assert_eq!(check(&unit, &device), Err(expected));
        assert!(sentences.insert(expected.to_string()), "{expected:?}");
    }
    assert_eq!(check(&unit(), &below(|_| {})), Ok(()));
    // What the unit does not offer, the host need not have.
    let mut less = unit();
    *first(&mut less) = FirstStage {
        five_levels: false,
        one_gib_pages: false,
        extended_accessed: false,
    };
    scalable(&mut less).supervisor_requests = false;
    scalable(&mut less).pasids = None;
    let device = below(|c| {
        *first(c) = *first(&mut less.clone());
        scalable(c).supervisor_requests = false;
        scalable(c).pasids = None;
    });
    assert_eq!(check(&less, &device), Ok(()));
}

#[test]
pub(crate) fn n4_43_devices_behind_bridges_are_refused_in_first_stage_mode() {
    let mut device = below(|_| {});
    device.behind_bridge = true;
    assert_eq!(check(&unit(), &device), Err(Incompatible::BehindBridge));
    assert_eq!(check(&shadowing(), &device), Ok(()));
}

#[test]
pub(crate) fn n3_27_shadowing_needs_caching_mode_and_no_snoop_control() {
    let legacy = HostDevice {
        iommufd: None,
        behind_bridge: false,
    };
    assert_eq!(check(&shadowing(), &legacy), Ok(()));
    let mut config = shadowing();
    config.caching_mode = false;
    assert_eq!(check(&config, &legacy), Err(Incompatible::NoCachingMode));
    let words =
        "Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU.";
    assert_eq!(Incompatible::NoCachingMode.to_string(), words);
    let mut config = shadowing();
    config.snoop_control = true;
    assert_eq!(check(&config, &legacy), Err(Incompatible::SnoopControl));
    // In legacy mode alone there is no first stage either.
    let mut config = shadowing();
    config.scalable = None;
    assert_eq!(check(&config, &legacy), Ok(()));
}

#[test]
pub(crate) fn n4_5_what_the_host_says_of_its_unit_is_kept_as_it_is() {
    let device = below(|_| {});
    let vtd = device.iommufd.unwrap().vtd.unwrap();
    assert_eq!(capability(&device, Cap::AwBits), Ok(vtd.cap.mgaw().into()));
    assert_eq!(capability(&device, Cap::Errata), Ok(u64::from(vtd.flags)));
    let caps = vtd::Capabilities::new(Config::default()).unwrap();
    assert_eq!((vtd.cap, vtd.ecap), (caps.cap(), caps.ecap()));
}

#[test]
pub(crate) fn n4_6_capabilities_have_their_bits_and_errors() {
    let numbers = [0, 1, 2, 3, 4, 5].map(Cap::from_number);
    let all = [
        Ok(Cap::IommuType),
        Ok(Cap::AwBits),
        Ok(Cap::Nesting),
        Ok(Cap::Fs1gp),
        Ok(Cap::Errata),
        Err(Errno::Invalid),
    ];
    assert_eq!(numbers, all);
    let mut device = below(|_| {});
    let vtd = |device: &mut HostDevice, change: fn(&mut VtdInfo)| {
        change(device.iommufd.as_mut().unwrap().vtd.as_mut().unwrap());
    };
    let get = |device: &HostDevice, cap| capability(device, cap);
    assert_eq!(get(&device, Cap::IommuType), Ok(1));
    assert_eq!(get(&device, Cap::Nesting), Ok(1));
    vtd(&mut device, |vtd| vtd.ecap.0 &= !(1 << 26));
    assert_eq!(get(&device, Cap::Nesting), Ok(0));
    assert_eq!(get(&device, Cap::Fs1gp), Ok(1));
    vtd(&mut device, |vtd| vtd.cap.0 &= !(1 << 56));
    assert_eq!(get(&device, Cap::Fs1gp), Ok(0));
    vtd(&mut device, |vtd| vtd.flags = 0);
    assert_eq!(get(&device, Cap::Errata), Ok(0));
    device.iommufd.as_mut().unwrap().vtd = None;
    assert_eq!(get(&device, Cap::Nesting), Err(Errno::Invalid));
    device.iommufd = None;
    assert_eq!(get(&device, Cap::Nesting), Err(Errno::NotSupported));
}

#[test]
pub(crate) fn n4_40_the_unit_says_what_it_wants_of_those_who_assign() {
    use unit_flag::*;
    let nested = WANT_NESTING_PARENT | WANT_NESTING_DIRTY_TRACKING;
    let all = nested | PASID_SUPPORTED | WANT_PASID_ATTACH;
    assert_eq!((all, unit_flags(&unit())), (15, 15));
    assert_eq!(unit_flags(&shadowing()), PASID_SUPPORTED);
    let mut config = unit();
    scalable(&mut config).pasids = None;
    assert_eq!(unit_flags(&config), nested);
    config.scalable = None;
    assert_eq!(unit_flags(&config), 0);
}

#[test]
pub(crate) fn n4_41_the_erratum_leaves_read_only_mappings_out() {
    let mut info = device().info;
    assert!(bypasses_read_only(&info));
    info.vtd.as_mut().unwrap().flags = 0;
    assert!(!bypasses_read_only(&info));
    info.vtd = None;
    assert!(!bypasses_read_only(&info));
}

#[test]
fn the_limit_of_pasids_is_that_of_all() {
    let info = device().info;
    assert_eq!(pasid_limit(&unit(), &info), 1 << 20);
    let narrow = HardwareInfo {
        max_pasid_log2: 6,
        ..info
    };
    assert_eq!(pasid_limit(&unit(), &narrow), 64);
    let without = HardwareInfo {
        max_pasid_log2: 0,
        ..info
    };
    assert_eq!(pasid_limit(&unit(), &without), 0);
    let mut config = unit();
    scalable(&mut config).pasids.as_mut().unwrap().width = PasidWidth::new(8).unwrap();
    assert_eq!(pasid_limit(&config, &info), 256);
    scalable(&mut config).pasids = None;
    assert_eq!(pasid_limit(&config, &info), 0);
}

#[test]
pub(crate) fn n4_45_the_limit_of_pasids_includes_the_device() {
    let info = HardwareInfo {
        max_pasid_log2: 6,
        ..device().info
    };
    assert_eq!(pasid_limit(&unit(), &info), 64);
}

#[test]
pub(crate) fn n4_48_the_guest_gets_a_pasid_capability() {
    let info = device().info;
    let there: &[(u16, u16)] = &[(0x100, 0x40), (0x200, 8)];
    let at = |offset| pasid_capability(&unit(), &info, offset, there);
    assert_eq!(at(None), Ok(Some(0xff8)));
    assert_eq!(at(Some(0x140)), Ok(Some(0x140)));
    for offset in [0x13c, 0x1fc, 0x200, 0x204] {
        let over = if offset < 0x140 { 0x100 } else { 0x200 };
        assert_eq!(
            at(Some(offset)),
            Err(NoPasidCapability::Overlaps { offset, over })
        );
    }
    for offset in [0, 0xfc, 0x142, 0xffc] {
        assert_eq!(at(Some(offset)), Err(NoPasidCapability::Offset(offset)));
    }
    let mut config = unit();
    scalable(&mut config).pasids = None;
    assert_eq!(pasid_capability(&config, &info, None, there), Ok(None));
}

#[test]
pub(crate) fn n4_49_dirty_tracking_is_used_where_the_host_has_it() {
    assert!(tracks_dirty(&device().info));
    let without = below(|c| scalable(c).second_stage_dirty = false);
    assert!(!tracks_dirty(&without.iommufd.unwrap()));
}

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
