// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices can be assigned to which unit, and why the others cannot.

use crate::bench::device;
use host_iommu::compatibility::{
    Cap, HostDevice, Incompatible, NoPasidCapability, bypasses_read_only, capability, check,
    pasid_capability, pasid_limit, tracks_dirty, unit_flag, unit_flags,
};
use host_iommu::host::{Errno, HardwareInfo, VtdInfo};
use host_iommu::mock::MockDevice;
use pcie_ats::PasidWidth;
use std::collections::BTreeSet;
use vtd::config::{Config, FirstStage, Scalable, Stages};

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
