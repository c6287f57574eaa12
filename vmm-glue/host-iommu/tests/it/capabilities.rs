// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told of the host's unit and of a device, to those who assign it and to the guest.

use crate::bench::device;
use crate::units::{below, scalable, shadowing, unit};
use host_iommu::compatibility::{
    Cap, HostDevice, NoPasidCapability, bypasses_read_only, capability, pasid_capability,
    pasid_limit, tracks_dirty, unit_flag, unit_flags,
};
use host_iommu::host::{Errno, HardwareInfo, VtdInfo};
use pcie_ats::PasidWidth;
use vtd::config::Config;

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
