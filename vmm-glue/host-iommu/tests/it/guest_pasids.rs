// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binding a guest's PASIDs in the interface before iommufd.

use crate::bench::{FD, device, pasid};
use host_iommu::guest_pasids::{
    BindData, Bound, Device, FORMAT_VTD, GPASID_VALID, GuestPasids, VERSION, vtd_flag,
};
use host_iommu::host::{Errno, FirstStage, HostIommu, Operation, ParentFlags};
use host_iommu::ids::{IdSpaces, SetId};
use host_iommu::mock::{Call, MockDevice, MockHost};

const GUEST: SetId = SetId(1);

struct Bench {
    host: MockHost,
    ids: IdSpaces<Option<Bound>>,
    guest: GuestPasids,
    devices: [Device; 2],
}

impl Bench {
    /// Two devices with a parent, and ids 1 to 9, of which 5 and 6 are allocated.
    fn with(mock: MockDevice) -> Self {
        let mut host = MockHost::new();
        let ioas = host.alloc_ioas(FD).unwrap();
        let ids = [host.bind(FD, mock), host.bind(FD, mock)];
        let flags = ParentFlags {
            pasid: true,
            ..ParentFlags::default()
        };
        let parent = host.alloc_parent(ids[0], ioas, flags).unwrap();
        let devices = ids.map(|id| {
            host.attach(id, None, parent).unwrap();
            Device {
                id,
                parent,
                pci: true,
                info: mock.info,
            }
        });
        let mut spaces = IdSpaces::new();
        for id in [5, 6] {
            spaces.allocate(GUEST, id, id, None).unwrap();
        }
        host.calls.clear();
        Bench {
            host,
            ids: spaces,
            guest: GuestPasids::new(),
            devices,
        }
    }

    fn new() -> Self {
        Bench::with(device())
    }

    fn bind(&mut self, n: usize, data: &BindData) -> Result<(), Errno> {
        let device = self.devices[n];
        self.guest
            .bind(&mut self.host, &mut self.ids, &device, data)
    }

    fn unbind(&mut self, n: usize, hpasid: u32) -> Result<(), Errno> {
        let device = self.devices[n].id;
        let (host, ids) = (&mut self.host, &mut self.ids);
        self.guest.unbind(host, ids, device, pasid(hpasid))
    }

    fn stage(&self, n: usize, hpasid: u32) -> Option<FirstStage> {
        self.host
            .attached_stage(self.devices[n].id, Some(pasid(hpasid)))
    }

    fn recorded(&self, hpasid: u32) -> Option<Bound> {
        *self.ids.find(None, hpasid, |_| true).unwrap().unwrap()
    }
}

const DATA: BindData = BindData {
    version: VERSION,
    format: FORMAT_VTD,
    address_width: 48,
    flags: GPASID_VALID,
    table: 0x1234_5000,
    hpasid: 5,
    gpasid: 77,
    vtd_flags: 0,
};

#[test]
pub(crate) fn n1_40_a_pasid_is_bound_and_unbound() {
    let mut b = Bench::new();
    assert_eq!(b.bind(0, &DATA), Ok(()));
    assert_eq!(b.stage(0, 5).unwrap().table, 0x1234_5000);
    assert_eq!(b.unbind(0, 5), Ok(()));
    assert_eq!((b.stage(0, 5), b.host.page_tables()), (None, 1));
    assert_eq!(b.unbind(0, 5), Err(Errno::NoEntry));
}

#[test]
pub(crate) fn n1_41_data_have_a_version_a_format_and_flags() {
    assert_eq!((vtd_flag::SRE, vtd_flag::EAFE, vtd_flag::WPE), (1, 2, 64));
    let mut b = Bench::new();
    for wrong in [
        BindData { version: 2, ..DATA },
        BindData { format: 2, ..DATA },
        BindData { flags: 2, ..DATA },
        BindData {
            vtd_flags: 128,
            ..DATA
        },
    ] {
        assert_eq!(b.bind(0, &wrong), Err(Errno::Invalid), "{wrong:?}");
    }
    // Memory types are known, and cannot be handed down.
    for flag in [vtd_flag::PCD, vtd_flag::PWT, vtd_flag::EMTE, vtd_flag::CD] {
        let data = BindData {
            vtd_flags: flag,
            ..DATA
        };
        assert_eq!(b.bind(0, &data), Err(Errno::NotSupported));
    }
    assert_eq!(b.host.calls, []);
}

#[test]
pub(crate) fn n1_42_what_the_hardware_cannot_do_is_refused() {
    let mut without = device();
    let vtd = without.info.vtd.as_mut().unwrap();
    vtd.cap.0 &= !(1 << 60);
    vtd.ecap.0 &= !(1 << 31 | 1 << 34);
    let mut b = Bench::with(without);
    let five_levels = BindData {
        address_width: 57,
        ..DATA
    };
    let supervisor = BindData {
        vtd_flags: vtd_flag::SRE,
        ..DATA
    };
    let accessed = BindData {
        vtd_flags: vtd_flag::EAFE,
        ..DATA
    };
    for data in [five_levels, supervisor, accessed] {
        assert_eq!(b.bind(0, &data), Err(Errno::Invalid), "{data:?}");
        assert_eq!(Bench::new().bind(0, &data), Ok(()), "{data:?}");
    }
    let mut narrow = device();
    narrow.info.max_pasid_log2 = 19;
    assert_eq!(Bench::with(narrow).bind(0, &DATA), Err(Errno::Invalid));
    let mut b = Bench::new();
    for hpasid in [0, 1 << 20, u64::MAX] {
        assert_eq!(b.bind(0, &BindData { hpasid, ..DATA }), Err(Errno::Invalid));
    }
    let width = BindData {
        address_width: 39,
        ..DATA
    };
    assert_eq!(b.bind(0, &width), Err(Errno::Invalid));
    let hpasid = 7;
    assert_eq!(b.bind(0, &BindData { hpasid, ..DATA }), Err(Errno::NoEntry));
    b.devices[1].pci = false;
    assert_eq!(b.bind(1, &DATA), Err(Errno::NotSupported));
    b.bind(0, &DATA).unwrap();
    assert_eq!(b.bind(0, &DATA), Err(Errno::Busy));
}

#[test]
pub(crate) fn n1_43_the_first_stage_is_nested_in_the_parent() {
    let mut b = Bench::new();
    let data = BindData {
        address_width: 57,
        vtd_flags: vtd_flag::SRE | vtd_flag::EAFE,
        ..DATA
    };
    b.bind(0, &data).unwrap();
    let expected = FirstStage {
        table: 0x1234_5000,
        address_width: 57,
        supervisor_requests: true,
        extended_accessed: true,
        write_protect: false,
    };
    assert_eq!(b.stage(0, 5), Some(expected));
    let data = BindData {
        hpasid: 6,
        vtd_flags: vtd_flag::WPE,
        ..DATA
    };
    b.bind(0, &data).unwrap();
    assert!(b.stage(0, 6).unwrap().write_protect);
}

#[test]
pub(crate) fn n1_44_a_pasid_can_be_bound_to_several_devices() {
    let mut b = Bench::new();
    assert_eq!((b.bind(0, &DATA), b.bind(1, &DATA)), (Ok(()), Ok(())));
    assert!(b.stage(0, 5).is_some() && b.stage(1, 5).is_some());
    b.unbind(0, 5).unwrap();
    assert!(b.stage(0, 5).is_none() && b.stage(1, 5).is_some());
}

#[test]
pub(crate) fn n1_45_the_guests_own_number_is_recorded() {
    let mut b = Bench::new();
    b.bind(0, &DATA).unwrap();
    let gpasid = Some(pasid(77));
    assert_eq!(b.recorded(5), Some(Bound { gpasid }));
    // It need not be given.
    let data = BindData {
        hpasid: 6,
        flags: 0,
        ..DATA
    };
    b.bind(0, &data).unwrap();
    assert_eq!(b.recorded(6), Some(Bound { gpasid: None }));
}

#[test]
pub(crate) fn n1_46_a_failure_leaves_nothing_behind() {
    for operation in [Operation::AllocNested, Operation::Attach] {
        let mut b = Bench::new();
        b.host.fail(operation, 0, Errno::NoMemory);
        assert_eq!(b.bind(0, &DATA), Err(Errno::NoMemory));
        assert_eq!((b.recorded(5), b.host.page_tables()), (None, 1));
        // What another device has stays.
        b.bind(1, &DATA).unwrap();
        let before = b.recorded(5);
        b.host.fail(operation, 0, Errno::NoMemory);
        let other = BindData { gpasid: 78, ..DATA };
        assert_eq!(b.bind(0, &other), Err(Errno::NoMemory));
        assert_eq!(b.recorded(5), before);
    }
}

#[test]
pub(crate) fn n1_47_unbinding_does_not_free_the_pasid() {
    let mut b = Bench::new();
    b.bind(0, &DATA).unwrap();
    b.host.calls.clear();
    b.unbind(0, 5).unwrap();
    // Detached first, which invalidates and drains, then freed.
    assert!(matches!(
        b.host.calls[..],
        [Call::Detach(..), Call::Free(_)]
    ));
    assert_eq!(b.ids.in_use(), 2);
    assert_eq!(b.recorded(5), None);
    // One that cannot be detached stays bound.
    b.bind(0, &DATA).unwrap();
    b.host.fail(Operation::Detach, 0, Errno::Busy);
    assert_eq!(b.unbind(0, 5), Err(Errno::Busy));
    assert_eq!(b.bind(0, &DATA), Err(Errno::Busy));
    assert_eq!(b.unbind(0, 5), Ok(()));
}
