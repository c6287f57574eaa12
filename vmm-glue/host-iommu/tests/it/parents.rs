// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parents: which page table has the guest's memory, and what of that is mapped.

use crate::bench::{FD, device};
use host_iommu::host::{DeviceId, Errno, Mapping, Operation, ParentFlags};
use host_iommu::mock::{Call, MockHost};
use host_iommu::parents::{Parents, Section, SectionKind};
use proptest::prelude::*;

const FLAGS: ParentFlags = ParentFlags {
    dirty_tracking: false,
    pasid: true,
};

fn ram(address: u64, length: u64) -> Section {
    Section {
        address,
        length,
        host: 0x7f00_0000_0000u64.wrapping_add(address),
        kind: SectionKind::Ram,
        read_only: false,
    }
}

fn rom(address: u64, length: u64) -> Section {
    Section {
        read_only: true,
        ..ram(address, length)
    }
}

/// A host with devices, and parents of a guest with 1 MiB of memory.
fn bench<const N: usize>(fds: [u32; N]) -> (MockHost, Parents, [DeviceId; N]) {
    let mut host = MockHost::new();
    let devices = fds.map(|fd| host.bind(fd, device()));
    let mut parents = Parents::new();
    parents.add_section(&mut host, ram(0, 1 << 20)).unwrap();
    (host, parents, devices)
}

#[test]
pub(crate) fn n4_19_a_parent_that_there_is_comes_first() {
    let (mut host, mut parents, [a, b, c]) = bench([FD; 3]);
    let first = parents.attach(&mut host, a, FLAGS, true).unwrap();
    let second = parents.attach(&mut host, b, FLAGS, true).unwrap();
    assert_eq!(first.hwpt, second.hwpt);
    // One that cannot be attached, of a device that is not coherent for instance: another parent
    // of the same I/O address space.
    host.fail(Operation::Attach, 0, Errno::Invalid);
    let third = parents.attach(&mut host, c, FLAGS, true).unwrap();
    assert_ne!(third.hwpt, first.hwpt);
    assert_eq!(third.tried[0].errno, Errno::Invalid);
    assert_eq!(parents.address_spaces().count(), 1);
    // If that cannot be made either: another I/O address space.
    let d = host.bind(FD, device());
    host.fail(Operation::Attach, 0, Errno::Invalid);
    host.fail(Operation::Attach, 0, Errno::Invalid);
    host.fail(Operation::AllocParent, 0, Errno::NoMemory);
    let fourth = parents.attach(&mut host, d, FLAGS, true).unwrap();
    let errors: Vec<_> = fourth.tried.iter().map(|e| e.operation).collect();
    let expected = [Operation::Attach, Operation::Attach, Operation::AllocParent];
    assert_eq!(errors, expected);
    assert_eq!(parents.address_spaces().count(), 2);
    // Another iommufd has its own.
    let e = host.bind(9, device());
    let fifth = parents.attach(&mut host, e, FLAGS, true).unwrap();
    assert_eq!((fifth.hwpt.iommufd, fifth.tried.len()), (9, 0));
    assert_eq!(parents.address_spaces().count(), 3);
}

#[test]
fn nothing_is_left_of_what_could_not_be_attached() {
    for operation in [Operation::Map, Operation::AllocParent, Operation::Attach] {
        let (mut host, mut parents, [a]) = bench([FD]);
        host.fail(operation, 0, Errno::NoMemory);
        let error = parents.attach(&mut host, a, FLAGS, true).unwrap_err();
        assert_eq!((error.operation, error.errno), (operation, Errno::NoMemory));
        assert_eq!(
            (parents.address_spaces().count(), host.page_tables()),
            (0, 0)
        );
        assert!(parents.attach(&mut host, a, FLAGS, true).is_ok());
    }
}

#[test]
fn a_device_never_has_a_parent_without_the_memory() {
    let (mut host, mut parents, [a]) = bench([FD]);
    parents.attach(&mut host, a, FLAGS, true).unwrap();
    let is_map = |call: &Call| matches!(call, Call::Map(..));
    let is_attach = |call: &Call| matches!(call, Call::Attach(..));
    let mapped = host.calls.iter().position(is_map).unwrap();
    assert!(mapped < host.calls.iter().position(is_attach).unwrap());
}

#[test]
pub(crate) fn n4_20_whole_pages_of_memory_are_mapped() {
    let mapping = |section: Section| section.mapping(false).map(|m| (m.iova, m.length));
    assert_eq!(mapping(ram(0x1000, 0x3000)), Some((0x1000, 0x3000)));
    assert_eq!(mapping(ram(0x1001, 0x3000)), Some((0x2000, 0x2000)));
    assert_eq!(mapping(ram(0x1001, 0x2ffe)), Some((0x2000, 0x1000)));
    assert_eq!(mapping(ram(0x1001, 0x1ffe)), None, "no whole page");
    assert_eq!(mapping(ram(0x1000, 0)), None);
    let m = ram(0x1001, 0x3000).mapping(false).unwrap();
    assert_eq!(m.host, 0x7f00_0000_2000, "the same byte");
    assert!(m.writable && !rom(0x1000, 0x1000).mapping(false).unwrap().writable);
    // Memory comes and goes while there are devices, in each I/O address space.
    let (mut host, mut parents, [a, b]) = bench([FD, 9]);
    parents.attach(&mut host, a, FLAGS, true).unwrap();
    parents.attach(&mut host, b, FLAGS, true).unwrap();
    let more = ram(1 << 32, 1 << 20);
    parents.add_section(&mut host, more).unwrap();
    let spaces: Vec<_> = parents.address_spaces().collect();
    assert!(spaces.iter().all(|ioas| host.mappings(*ioas).len() == 2));
    parents.remove_section(&mut host, &more).unwrap();
    assert!(spaces.iter().all(|ioas| host.mappings(*ioas).len() == 1));
    // Memory of a device that cannot be mapped is left out, other memory is needed.
    let (mut host, mut parents, [a]) = bench([FD]);
    let bar = Section {
        kind: SectionKind::RamDevice,
        ..ram(0xfe00_0000, 0x1000)
    };
    parents.add_section(&mut host, bar).unwrap();
    host.fail(Operation::Map, 1, Errno::Fault);
    parents.attach(&mut host, a, FLAGS, true).unwrap();
    let ioas = parents.address_spaces().next().unwrap();
    assert_eq!(host.mappings(ioas).len(), 1);
}

#[test]
pub(crate) fn n3_29_what_is_no_memory_is_not_mapped() {
    for kind in [SectionKind::Other, SectionKind::Protected] {
        let section = Section {
            kind,
            ..ram(0x1000, 0x1000)
        };
        assert_eq!(section.mapping(false), None, "{kind:?}");
    }
    assert_eq!(ram(1 << 63, 0x1000).mapping(false), None);
    assert_eq!(ram(u64::MAX - 0xfff, 0x1000).mapping(false), None);
    assert!(ram((1 << 63) - 0x1000, 0x1000).mapping(false).is_some());
}

#[test]
pub(crate) fn n4_24_read_only_memory_is_left_out_below_the_erratum() {
    let (mut host, mut parents, [a, b]) = bench([FD; 2]);
    parents
        .add_section(&mut host, rom(0xf_f000_0000, 0x2000))
        .unwrap();
    parents.attach(&mut host, a, FLAGS, true).unwrap();
    let ioas = parents.address_spaces().next().unwrap();
    assert!(host.mappings(ioas).iter().all(|m: &Mapping| m.writable));
    // One without the quirk does not share with it: the host refuses read-only memory there.
    let error = parents.attach(&mut host, b, FLAGS, false).unwrap_err();
    assert_eq!(
        (error.operation, error.errno),
        (Operation::AllocParent, Errno::Invalid)
    );
    assert_eq!(parents.address_spaces().count(), 1);
}

#[test]
pub(crate) fn the_last_device_frees_its_parent_and_the_memory() {
    let (mut host, mut parents, [a, b]) = bench([FD; 2]);
    parents.attach(&mut host, a, FLAGS, true).unwrap();
    parents.attach(&mut host, b, FLAGS, true).unwrap();
    parents.detach(&mut host, a).unwrap();
    assert_eq!(
        (host.page_tables(), parents.address_spaces().count()),
        (1, 1)
    );
    parents.detach(&mut host, b).unwrap();
    assert_eq!(
        (host.page_tables(), parents.address_spaces().count()),
        (0, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What an I/O address space has is, byte for byte, the whole pages of the memory that may be
    /// mapped: nothing beside it, and nothing of it missing.
    #[test]
    fn a_mapping_is_the_whole_pages_of_a_section(
        address in 0u64..0x8000,
        length in 0u64..0x5000,
        read_only in any::<bool>(),
        bypass in any::<bool>(),
    ) {
        let mut section = ram(address, length);
        section.read_only = read_only;
        let mapping = section.mapping(bypass);
        for page in 0..16u64 {
            let (first, last) = (page << 12, (page << 12) + 0xfff);
            let whole = address <= first && last < address + length;
            let wanted = whole && !(read_only && bypass);
            let mapped = mapping.is_some_and(|m| m.iova <= first && last < m.iova + m.length);
            prop_assert_eq!(mapped, wanted, "page {}", page);
        }
        if let Some(m) = mapping {
            prop_assert_eq!((m.iova | m.length) & 0xfff, 0);
            prop_assert_eq!(m.host - m.iova, 0x7f00_0000_0000);
        }
    }
}
