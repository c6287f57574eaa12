// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host in memory refuses what Linux 7.2 refuses, with the same error numbers.

use crate::bench::{FD, device, pasid};
use host_iommu::host::{
    DeviceId, Errno, FaultCode, FaultQueueId, FaultResponse, FirstStage, HostIommu, HwptId,
    Invalidation, IoasId, Mapping, NestedFlags, Operation, ParentFlags,
};
use host_iommu::mock::{MockDevice, MockHost};
use vtd::config::Stages;
use vtd::{Capabilities, Config};

const STAGE: FirstStage = FirstStage {
    table: 0x1000,
    address_width: 48,
    supervisor_requests: false,
    extended_accessed: false,
    write_protect: false,
};

const PARENT: ParentFlags = ParentFlags {
    dirty_tracking: true,
    pasid: true,
};

const NESTED: NestedFlags = NestedFlags {
    pasid: true,
    fault_queue: None,
};

struct Bench {
    host: MockHost,
    device: DeviceId,
    ioas: IoasId,
    parent: HwptId,
    nested: HwptId,
}

fn with(mock: MockDevice) -> Bench {
    let mut host = MockHost::new();
    let device = host.bind(FD, mock);
    let ioas = host.alloc_ioas(FD).unwrap();
    let parent = host.alloc_parent(device, ioas, PARENT).unwrap();
    let nested = host.alloc_nested(device, parent, &STAGE, NESTED).unwrap();
    Bench {
        host,
        device,
        ioas,
        parent,
        nested,
    }
}

fn bench() -> Bench {
    with(device())
}

fn without(bits: u64) -> MockDevice {
    let mut mock = device();
    mock.info.vtd.as_mut().unwrap().ecap.0 &= !bits;
    mock
}

fn errno<T: std::fmt::Debug>(result: Result<T, host_iommu::host::HostError>) -> Errno {
    result.unwrap_err().errno
}

#[test]
fn parents_need_nesting_and_what_their_flags_say() {
    let mut b = bench();
    let nothing = DeviceId {
        iommufd: FD,
        id: 99,
    };
    assert_eq!(
        errno(b.host.alloc_parent(nothing, b.ioas, PARENT)),
        Errno::NoEntry
    );
    let wrong = IoasId {
        iommufd: FD,
        id: b.parent.id,
    };
    assert_eq!(
        errno(b.host.alloc_parent(b.device, wrong, PARENT)),
        Errno::Invalid
    );
    // NEST, SSTS, SSADS, SMPWCS.
    for (bits, tracking, plain) in [
        (1 << 26, false, false),
        (1 << 46, false, false),
        (1 << 45, false, true),
        (1 << 48, false, true),
    ] {
        let device = b.host.bind(FD, without(bits));
        let with = b.host.alloc_parent(device, b.ioas, PARENT);
        assert_eq!(with.is_ok(), tracking, "{bits:#x}");
        assert_eq!(errno(with), Errno::NotSupported);
        let flags = ParentFlags {
            pasid: true,
            ..ParentFlags::default()
        };
        assert_eq!(
            b.host.alloc_parent(device, b.ioas, flags).is_ok(),
            plain,
            "{bits:#x}"
        );
    }
}

#[test]
fn read_only_mappings_and_parents_exclude_each_other() {
    let mut b = bench();
    let mapping = |iova, writable| Mapping {
        iova,
        host: 0x1000,
        length: 0x1000,
        writable,
    };
    assert_eq!(
        errno(b.host.map(b.ioas, &mapping(0, false))),
        Errno::Invalid
    );
    b.host.map(b.ioas, &mapping(0, true)).unwrap();
    assert_eq!(errno(b.host.map(b.ioas, &mapping(0, true))), Errno::Exists);
    assert_eq!(
        errno(b.host.map(b.ioas, &mapping(0x10, true))),
        Errno::Invalid
    );
    assert_eq!(errno(b.host.unmap(b.ioas, 0, 0x800)), Errno::NoEntry);
    b.host.unmap(b.ioas, 0, 0x1000).unwrap();
    assert_eq!(errno(b.host.unmap(b.ioas, 0, 0x1000)), Errno::NoEntry);
    let other = b.host.alloc_ioas(FD).unwrap();
    b.host.map(other, &mapping(0, false)).unwrap();
    assert_eq!(
        errno(b.host.alloc_parent(b.device, other, PARENT)),
        Errno::Invalid
    );
}

#[test]
fn nested_page_tables_need_a_parent_and_a_queue() {
    let mut b = bench();
    let alloc = |b: &mut Bench, parent, queue| {
        let flags = NestedFlags {
            pasid: true,
            fault_queue: queue,
        };
        b.host.alloc_nested(b.device, parent, &STAGE, flags)
    };
    let nested = b.nested;
    assert_eq!(errno(alloc(&mut b, nested, None)), Errno::Invalid);
    let nothing = HwptId {
        iommufd: FD,
        id: 99,
    };
    assert_eq!(errno(alloc(&mut b, nothing, None)), Errno::Invalid);
    let parent = b.parent;
    let no_queue = FaultQueueId {
        iommufd: FD,
        id: parent.id,
    };
    let before = b.host.page_tables();
    assert_eq!(errno(alloc(&mut b, parent, Some(no_queue))), Errno::NoEntry);
    assert_eq!(b.host.page_tables(), before);
    let other = b.host.alloc_fault_queue(FD + 1).unwrap();
    assert_eq!(errno(alloc(&mut b, parent, Some(other))), Errno::NoEntry);
    let queue = b.host.alloc_fault_queue(FD).unwrap();
    let hwpt = alloc(&mut b, parent, Some(queue)).unwrap();
    assert_eq!(errno(b.host.free_fault_queue(queue)), Errno::Busy);
    b.host.free_hwpt(hwpt).unwrap();
    b.host.free_fault_queue(queue).unwrap();
    assert_eq!(errno(b.host.free_fault_queue(queue)), Errno::NoEntry);
}

#[test]
fn what_the_hardware_cannot_walk_is_found_when_it_is_attached() {
    let attach = |mock: MockDevice, stage: FirstStage| {
        let mut b = with(mock);
        let hwpt = b
            .host
            .alloc_nested(b.device, b.parent, &stage, NESTED)
            .unwrap();
        b.host.attach(b.device, None, hwpt).map_err(|e| e.errno)
    };
    assert_eq!(attach(device(), STAGE), Ok(()));
    for address_width in [0, 39, 52, 64] {
        let stage = FirstStage {
            address_width,
            ..STAGE
        };
        assert_eq!(attach(device(), stage), Err(Errno::Invalid));
    }
    let five = FirstStage {
        address_width: 57,
        ..STAGE
    };
    assert_eq!(attach(device(), five), Ok(()));
    let mut four = device();
    four.info.vtd.as_mut().unwrap().cap.0 &= !(1 << 60);
    assert_eq!(attach(four, five), Err(Errno::Invalid));
    let sre = FirstStage {
        supervisor_requests: true,
        ..STAGE
    };
    assert_eq!(attach(device(), sre), Ok(()));
    assert_eq!(attach(without(1 << 31), sre), Err(Errno::Invalid));
    let eafe = FirstStage {
        extended_accessed: true,
        ..STAGE
    };
    assert_eq!(attach(device(), eafe), Ok(()));
    assert_eq!(attach(without(1 << 34), eafe), Err(Errno::Invalid));
    // WPE needs nothing.
    let wpe = FirstStage {
        write_protect: true,
        ..STAGE
    };
    assert_eq!(attach(without(1 << 31), wpe), Ok(()));
}

#[test]
fn page_requests_need_pri() {
    let attach = |mock: MockDevice| {
        let mut b = with(mock);
        let fault_queue = Some(b.host.alloc_fault_queue(FD).unwrap());
        let flags = NestedFlags {
            pasid: true,
            fault_queue,
        };
        let hwpt = b
            .host
            .alloc_nested(b.device, b.parent, &STAGE, flags)
            .unwrap();
        b.host.attach(b.device, None, hwpt).map_err(|e| e.errno)
    };
    assert_eq!(attach(device()), Ok(()));
    assert_eq!(
        attach(MockDevice {
            pri: false,
            ..device()
        }),
        Err(Errno::NoDevice)
    );
    let function = MockDevice {
        virtual_function: true,
        ..device()
    };
    assert_eq!(attach(function), Err(Errno::Invalid));
}

#[test]
fn pasids_need_support_a_number_and_the_flag_everywhere() {
    let mut b = bench();
    let five = Some(pasid(5));
    let zero = b.host.attach(b.device, Some(pasid(0)), b.nested);
    assert_eq!(errno(zero), Errno::Invalid);
    b.host.attach(b.device, None, b.parent).unwrap();
    let zero = b.host.attach(b.device, Some(pasid(0)), b.nested);
    assert_eq!(errno(zero), Errno::Busy);
    b.host.attach(b.device, five, b.nested).unwrap();
    let plain = NestedFlags::default();
    let without_flag = b
        .host
        .alloc_nested(b.device, b.parent, &STAGE, plain)
        .unwrap();
    let refused = b.host.attach(b.device, Some(pasid(6)), without_flag);
    assert_eq!(errno(refused), Errno::Invalid);
    // Nor below requests with PASID.
    let refused = b.host.replace(b.device, None, without_flag);
    assert_eq!(errno(refused), Errno::Invalid);
    b.host.detach(b.device, five).unwrap();
    b.host.replace(b.device, None, without_flag).unwrap();
    assert_eq!(
        errno(b.host.attach(b.device, five, b.nested)),
        Errno::Invalid
    );
    let mut b = with(without(1 << 40));
    assert_eq!(
        errno(b.host.attach(b.device, five, b.nested)),
        Errno::NotSupported
    );
}

#[test]
fn attaching_and_replacing_are_two_things() {
    let mut b = bench();
    let refused = b.host.replace(b.device, None, b.parent);
    assert_eq!(errno(refused), Errno::Invalid);
    b.host.attach(b.device, None, b.parent).unwrap();
    assert_eq!(
        errno(b.host.attach(b.device, None, b.nested)),
        Errno::Invalid
    );
    b.host.replace(b.device, None, b.nested).unwrap();
    // What is attached, and what others are nested in, is not freed.
    assert_eq!(errno(b.host.free_hwpt(b.nested)), Errno::Busy);
    assert_eq!(errno(b.host.free_hwpt(b.parent)), Errno::Busy);
    assert_eq!(errno(b.host.free_ioas(b.ioas)), Errno::Busy);
    b.host.detach(b.device, None).unwrap();
    b.host.detach(b.device, None).unwrap();
    b.host.free_hwpt(b.nested).unwrap();
    b.host.free_hwpt(b.parent).unwrap();
    b.host.free_ioas(b.ioas).unwrap();
    assert_eq!(errno(b.host.free_hwpt(b.parent)), Errno::NoEntry);
    assert_eq!(errno(b.host.free_ioas(b.ioas)), Errno::NoEntry);
    let other = b.host.bind(FD + 1, device());
    assert_eq!(errno(b.host.attach(other, None, b.parent)), Errno::NoEntry);
}

#[test]
fn invalidations_stop_at_the_first_entry_that_is_wrong() {
    let mut b = bench();
    let pages = |address, pages| Invalidation::Pages {
        address,
        pages,
        leaf_only: false,
    };
    let mut on = |hwpt, entries: &[Invalidation]| {
        let partial = b.host.invalidate(hwpt, entries).unwrap_err();
        assert_eq!(partial.error.errno, Errno::Invalid);
        partial.done
    };
    assert_eq!(on(b.parent, &[Invalidation::All]), 0);
    let wrong = [pages(0x800, 1), pages(0x1000, 0), pages(0x1000, u64::MAX)];
    for wrong in wrong {
        assert_eq!(
            on(b.nested, &[Invalidation::All, pages(0x1000, 1), wrong]),
            2
        );
    }
    let most = vec![Invalidation::All; (1 << 19) + 1];
    assert_eq!(on(b.nested, &most), 0);
    assert!(b.host.invalidate(b.nested, &[]).is_ok());
    assert!(
        b.host
            .invalidate(b.nested, &[Invalidation::All, pages(0x1000, 7)])
            .is_ok()
    );
}

#[test]
fn groups_are_read_as_a_whole_and_answered_once() {
    let mut b = bench();
    let queue = b.host.alloc_fault_queue(FD).unwrap();
    let flags = NestedFlags {
        pasid: true,
        fault_queue: Some(queue),
    };
    let hwpt = b
        .host
        .alloc_nested(b.device, b.parent, &STAGE, flags)
        .unwrap();
    b.host.attach(b.device, None, hwpt).unwrap();
    let group = [(0x1000, false), (0x2000, true)];
    let cookie = b.host.page_request(b.device, None, 9, &group).unwrap();
    let faults = b.host.read_faults(queue).unwrap();
    assert_eq!(
        faults.iter().map(|f| f.last).collect::<Vec<_>>(),
        [false, true]
    );
    assert!(faults.iter().all(|f| f.cookie == cookie && f.group == 9));
    assert_eq!(b.host.read_faults(queue), Ok(vec![]), "it never waits");
    let response = FaultResponse {
        cookie,
        code: FaultCode::Success,
    };
    let unknown = FaultResponse {
        cookie: 99,
        ..response
    };
    let partial = b.host.respond(queue, &[response, unknown]).unwrap_err();
    assert_eq!((partial.done, partial.error.errno), (1, Errno::Invalid));
    assert_eq!(b.host.respond(queue, &[response]).unwrap_err().done, 0);
    // What is outstanding or not read yet when the page table goes is answered.
    let read = b.host.page_request(b.device, None, 1, &group).unwrap();
    b.host.read_faults(queue).unwrap();
    let unread = b.host.page_request(b.device, None, 2, &group).unwrap();
    b.host.detach(b.device, None).unwrap();
    assert_eq!(b.host.answered, [read, unread]);
    assert_eq!(b.host.read_faults(queue), Ok(vec![]));
    assert_eq!(b.host.page_request(b.device, None, 3, &group), None);
}

#[test]
fn dirty_pages_are_tracked_by_parents_that_were_made_for_it() {
    let mut b = bench();
    b.host.set_dirty_tracking(b.parent, true).unwrap();
    for address in [0x1000, 0x1234, 0x4_1000, 0x10_0000] {
        b.host.write(b.parent, address);
    }
    let read = |b: &mut Bench| b.host.read_dirty(b.parent, 0, 0x8_0000, 0x1000).unwrap();
    assert_eq!(read(&mut b), [1 << 1, 1 << 1]);
    assert_eq!(read(&mut b), [0, 0], "each page is told once");
    let refused = b.host.read_dirty(b.parent, 0, 0x1800, 0x1000);
    assert_eq!(errno(refused), Errno::Invalid);
    b.host.set_dirty_tracking(b.parent, false).unwrap();
    let refused = b.host.read_dirty(b.parent, 0, 0x1000, 0x1000);
    assert_eq!(errno(refused), Errno::Invalid);
    assert_eq!(
        errno(b.host.set_dirty_tracking(b.nested, true)),
        Errno::Invalid
    );
    let flags = ParentFlags::default();
    let plain = b.host.alloc_parent(b.device, b.ioas, flags).unwrap();
    assert_eq!(
        errno(b.host.set_dirty_tracking(plain, true)),
        Errno::NotSupported
    );
}

#[test]
fn a_call_that_is_made_to_fail_changes_nothing() {
    let mut b = bench();
    b.host.fail(Operation::Attach, 1, Errno::NoMemory);
    b.host.attach(b.device, None, b.parent).unwrap();
    b.host.detach(b.device, None).unwrap();
    let refused = b.host.attach(b.device, None, b.parent).unwrap_err();
    assert_eq!(refused.errno, Errno::NoMemory);
    assert_eq!(b.host.attached(b.device, None), None);
    let text = refused.to_string();
    assert_eq!(
        text,
        "attaching a page table to a device failed: error 12 (NoMemory)"
    );
    b.host.fail(Operation::Attach, 0, Errno::NoMemory);
    b.host.heal();
    b.host.attach(b.device, None, b.parent).unwrap();
}

#[test]
fn a_host_says_what_its_hardware_can_do() {
    let mut b = bench();
    let info = b.host.hardware_info(b.device).unwrap();
    let caps = Capabilities::new(Config::default()).unwrap();
    assert_eq!(
        info.vtd.map(|vtd| (vtd.cap, vtd.ecap)),
        Some((caps.cap(), caps.ecap()))
    );
    let nothing = DeviceId {
        iommufd: FD,
        id: 99,
    };
    assert_eq!(errno(b.host.hardware_info(nothing)), Errno::NoEntry);
    let second = |c: &mut Config| c.scalable.as_mut().unwrap().stages = Stages::Second;
    let mut config = Config::default();
    second(&mut config);
    let mock = MockDevice::below(config).unwrap();
    assert!(!mock.info.vtd.unwrap().ecap.nest());
}

#[test]
fn errors_have_their_numbers() {
    for number in 0..200 {
        assert_eq!(Errno::from_number(number).number(), number);
    }
    assert_eq!(Errno::NotSupported.number(), 95);
}
