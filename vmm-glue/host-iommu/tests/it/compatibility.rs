// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices can be assigned to which unit, and why the others cannot.

use crate::units::{below, first, scalable, shadowing, unit};
use host_iommu::compatibility::{HostDevice, Incompatible, check};
use pcie_ats::PasidWidth;
use std::collections::BTreeSet;
use vtd::config::{Config, FirstStage, Stages};

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
