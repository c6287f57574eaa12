// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bindings: from what a guest invalidates to what is attached in the host.

use crate::bench::*;
use host_iommu::bindings::{AssignError, BindError, first_stage as host_stage};
use host_iommu::host::{Errno, FirstStage, HostIommu, Operation};
use host_iommu::mock::Call;
use host_iommu::tables::Mode;
use pcie_ats::Pasid;
use vtd::spec::descriptor::{ContextScope, PasidScope};
use vtd::spec::{DomainId, SourceId};
use vtd::{AddressTranslation, FirstStageTable};

const GLOBAL: PasidScope = PasidScope::Global;

fn of_pasid(domain: u16, number: u32) -> PasidScope {
    PasidScope::Pasid(DomainId(domain), pasid(number))
}

fn of_domain(domain: u16) -> PasidScope {
    PasidScope::Domain(DomainId(domain))
}

#[test]
pub(crate) fn n4_10_a_requester_is_assigned_once() {
    let mut b = Bench::new();
    let other = b.plug(SID, device());
    let got = b.bindings.assign(&mut b.host, &b.tables, other);
    assert_eq!(got, Err(AssignError::Taken(SID)));
    // What was refused has left nothing behind.
    assert_eq!(b.bindings.devices().count(), 1);
    assert!(b.bindings.unassign(&mut b.host, SID).is_some());
    assert!(b.bindings.unassign(&mut b.host, SID).is_none());
    assert!(b.bindings.assign(&mut b.host, &b.tables, other).is_ok());
}

#[test]
pub(crate) fn n4_11_requests_without_pasid_have_the_entry_of_rid_pasid() {
    let mut b = Bench::new();
    b.tables.rid_pasid.insert(SID, 6);
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 6, space(1, 0xb000));
    b.tables.set(SID, 7, space(1, 0xc000));
    let changes = b.pasid_cache(GLOBAL);
    // PASID 0 of the host is that of requests without one: the guest's cannot be bound.
    assert_eq!(changes.failures, []);
    assert_eq!(b.table(SID, None), 0xb000);
    assert_eq!([b.table(SID, Some(6)), b.table(SID, Some(7))], [0, 0xc000]);
    // An invalidation of that PASID is one of the requests without PASID.
    b.tables.set(SID, 6, space(1, 0xd000));
    b.pasid_cache(of_pasid(1, 0));
    assert_eq!(b.table(SID, None), 0xb000);
    b.pasid_cache(of_pasid(1, 6));
    assert_eq!(b.table(SID, None), 0xd000);
}

/// Two PASIDs in each of two domains, bound.
fn four() -> Bench {
    let mut b = Bench::new();
    for (number, domain) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        b.tables
            .set(SID, number, space(domain, u64::from(number) << 12));
    }
    assert!(b.pasid_cache(GLOBAL).is_complete());
    for number in 1..5 {
        b.tables.clear(SID, number);
    }
    b
}

fn tables_of_four(b: &Bench) -> [u64; 4] {
    [1, 2, 3, 4].map(|number| b.table(SID, Some(number)) >> 12)
}

#[test]
pub(crate) fn n4_12_scopes_are_a_domain_a_pasid_or_everything() {
    let mut b = four();
    b.pasid_cache(of_domain(2));
    assert_eq!(tables_of_four(&b), [1, 2, 0, 0]);
    b.pasid_cache(of_pasid(1, 2));
    assert_eq!(tables_of_four(&b), [1, 0, 0, 0]);
    b.pasid_cache(GLOBAL);
    assert_eq!(tables_of_four(&b), [0, 0, 0, 0]);
}

#[test]
pub(crate) fn n4_13_what_is_bound_is_read_again() {
    let mut b = four();
    // The PASID in another domain, and another PASID of the domain.
    b.pasid_cache(of_pasid(2, 1));
    assert_eq!(tables_of_four(&b), [1, 2, 3, 4]);
    b.pasid_cache(of_pasid(1, 1));
    assert_eq!(tables_of_four(&b), [0, 2, 3, 4]);
    // The same: nothing; different: another page table. What counts is the domain that was bound.
    b.tables.set(SID, 2, space(1, 2 << 12));
    b.tables.set(SID, 3, space(5, 9 << 12));
    let calls = b.host.calls.len();
    let changes = b.pasid_cache(of_pasid(1, 2));
    assert_eq!((changes.unbound, b.host.calls.len()), (vec![], calls));
    b.pasid_cache(of_pasid(5, 3));
    assert_eq!(tables_of_four(&b), [0, 2, 3, 4]);
    let changes = b.pasid_cache(of_pasid(2, 3));
    assert_eq!(changes.unbound, [(SID, Some(pasid(3)))]);
    assert_eq!(tables_of_four(&b), [0, 2, 9, 4]);
    // From now on its domain is the new one.
    b.tables.clear(SID, 3);
    b.pasid_cache(of_pasid(2, 3));
    assert_eq!(tables_of_four(&b), [0, 2, 9, 4]);
    b.pasid_cache(of_pasid(5, 3));
    assert_eq!(tables_of_four(&b), [0, 2, 0, 4]);
    // What comes back as it was is bound again.
    b.tables.set(SID, 3, space(5, 9 << 12));
    b.pasid_cache(of_pasid(5, 3));
    assert_eq!(tables_of_four(&b), [0, 2, 9, 4]);
}

#[test]
pub(crate) fn n4_14_what_is_new_is_bound() {
    let mut b = Bench::new();
    b.tables.set(SID, 0, space(3, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    b.tables.set(SID, 6, space(2, 0xc000));
    b.tables.set(SID, 0xf_ffff, space(1, 0xd000));
    b.remapping_changed();
    b.tables.set(SID, 7, space(1, 0x7000));
    b.tables.set(SID, 8, space(1, 0x8000));
    b.tables.set(SID, 9, space(2, 0x9000));
    b.pasid_cache(of_pasid(1, 7));
    assert_eq!([7, 8, 9].map(|n| b.table(SID, Some(n))), [0x7000, 0, 0]);
    b.pasid_cache(of_pasid(1, 9));
    assert_eq!(b.table(SID, Some(9)), 0, "in that domain there is none");
    b.pasid_cache(of_domain(1));
    assert_eq!(
        [7, 8, 9].map(|n| b.table(SID, Some(n))),
        [0x7000, 0x8000, 0]
    );
    let all = [Some(5), Some(6), Some(0xf_ffff), None].map(|n| b.table(SID, n));
    assert_eq!(all, [0xb000, 0xc000, 0xd000, 0xa000]);
}

#[test]
pub(crate) fn n4_15_tables_count_in_scalable_mode_alone() {
    let mut b = Bench::new();
    b.tables.set(SID, 5, space(1, 0xb000));
    for mode in [Mode::Off, Mode::Legacy, Mode::Blocked] {
        b.tables.mode = mode;
        b.pasid_cache(GLOBAL);
        assert_eq!(b.table(SID, Some(5)), 0, "{mode:?}");
    }
    b.tables.mode = Mode::Scalable;
    b.pasid_cache(GLOBAL);
    assert_eq!(b.table(SID, Some(5)), 0xb000);
}

#[test]
pub(crate) fn n4_16_a_reset_drops_everything_and_reads_nothing() {
    let mut b = Bench::new();
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    let changes = b.bindings.reset(&mut b.host);
    assert_eq!(changes.unbound, [(SID, None), (SID, Some(pasid(5)))]);
    assert_eq!([b.table(SID, None), b.table(SID, Some(5))], [1, 0]);
    assert_eq!(b.host.page_tables(), 1, "the parent");
    // A device that was blocked has its parent, too.
    b.tables.entries.clear();
    b.remapping_changed();
    assert_eq!(b.table(SID, None), 0);
    b.bindings.reset(&mut b.host);
    assert_eq!(b.table(SID, None), 1);
}

#[test]
pub(crate) fn n4_17_first_stages_and_pass_through_are_handed_down() {
    let mut b = Bench::new();
    let stage = first_stage(0xa000);
    b.tables
        .set(SID, 0, with(1, AddressTranslation::PassThrough));
    b.tables.set(SID, 1, space(1, 0xb000));
    b.tables
        .set(SID, 2, with(1, AddressTranslation::SecondStage));
    b.tables
        .set(SID, 3, with(1, AddressTranslation::Nested(stage)));
    b.tables.set(SID, 4, space(1, 0));
    b.tables
        .set(SID, 5, with(1, AddressTranslation::PassThrough));
    let changes = b.pasid_cache(GLOBAL);
    let of = |number| (SID, Some(pasid(number)));
    let failures = [
        BindError::TranslationType { of: of(2) },
        BindError::TranslationType { of: of(3) },
        BindError::NoTable { of: of(4) },
    ];
    assert_eq!(changes.failures, failures);
    let all = [None, Some(1), Some(2), Some(3), Some(4), Some(5)].map(|n| b.table(SID, n));
    assert_eq!(all, [1, 0xb000, 0, 0, 0, 1]);
    // One that is not possible any more is not left bound.
    b.tables.set(SID, 1, space(1, 0));
    let changes = b.pasid_cache(of_pasid(1, 1));
    assert_eq!(changes.failures, [BindError::NoTable { of: of(1) }]);
    assert_eq!(b.table(SID, Some(1)), 0);
}

#[test]
pub(crate) fn n4_18_a_first_stage_is_described_to_the_host() {
    let all = FirstStageTable {
        table: 0x12_3456_7000,
        levels: 5,
        supervisor_requests: true,
        write_protect: false,
        extended_accessed: true,
    };
    let expected = FirstStage {
        table: 0x12_3456_7000,
        address_width: 57,
        supervisor_requests: true,
        extended_accessed: true,
        write_protect: false,
    };
    assert_eq!(host_stage(&all), expected);
    let four = FirstStageTable {
        levels: 4,
        supervisor_requests: false,
        write_protect: true,
        extended_accessed: false,
        ..all
    };
    let stage = host_stage(&four);
    assert_eq!((stage.address_width, stage.write_protect), (48, true));
    assert!(!stage.supervisor_requests && !stage.extended_accessed);
}

#[test]
pub(crate) fn n4_21_what_nobody_has_is_freed() {
    let mut b = Bench::new();
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    assert_eq!(b.host.page_tables(), 3);
    b.tables.set(SID, 5, space(1, 0xc000));
    b.pasid_cache(GLOBAL);
    assert_eq!(b.host.page_tables(), 3, "the old one is freed");
    b.tables.clear(SID, 5);
    b.pasid_cache(GLOBAL);
    assert_eq!(b.host.page_tables(), 2);
    // Translation off: the parent again. On, without an entry: blocked.
    b.tables.mode = Mode::Off;
    b.remapping_changed();
    assert_eq!((b.host.page_tables(), b.table(SID, None)), (1, 1));
    b.tables.mode = Mode::Scalable;
    b.tables.entries.clear();
    b.remapping_changed();
    assert_eq!((b.host.page_tables(), b.table(SID, None)), (1, 0));
}

#[test]
fn what_the_host_does_not_free_is_no_failure_of_the_guest() {
    let mut b = Bench::new();
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    b.tables.clear(SID, 5);
    b.host.fail(Operation::FreeHwpt, 0, Errno::Busy);
    assert!(b.pasid_cache(GLOBAL).is_complete());
    let left = |b: &Bench| (b.host.page_tables(), b.bindings.unused_page_tables());
    assert_eq!(left(&b), (2, 1));
    // It is used again, or freed when another one is.
    b.tables.set(SID, 6, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    assert_eq!((left(&b), b.table(SID, Some(6))), ((2, 0), 0xb000));
    b.host.fail(Operation::FreeHwpt, 0, Errno::Busy);
    b.tables.set(SID, 6, space(1, 0xc000));
    b.pasid_cache(GLOBAL);
    assert_eq!(left(&b), (3, 1));
    b.tables.clear(SID, 6);
    b.pasid_cache(GLOBAL);
    assert_eq!(left(&b), (1, 0));
}

#[test]
pub(crate) fn n4_22_pasids_are_bound_and_not_only_requests_without() {
    let mut b = Bench::new();
    b.tables.set(SID, 1, space(1, 0xb000));
    b.tables.set(SID, 0x1234, space(1, 0xc000));
    assert!(b.pasid_cache(GLOBAL).is_complete());
    let device = b.device();
    let attached = b.host.attached_stage(device, Some(pasid(0x1234)));
    assert_eq!(attached.map(|stage| stage.table), Some(0xc000));
    assert_eq!(b.table(SID, Some(1)), 0xb000);
}

#[test]
pub(crate) fn n4_23_a_failure_is_reported_and_blocks_the_address_space() {
    for operation in [Operation::AllocNested, Operation::Attach] {
        let mut b = Bench::new();
        b.tables.set(SID, 5, space(1, 0xb000));
        b.host.fail(operation, 0, Errno::NoMemory);
        let changes = b.pasid_cache(of_pasid(1, 5));
        assert!(!changes.is_complete());
        let BindError::Host { of, error } = changes.failures[0] else {
            panic!("{changes:?}");
        };
        assert_eq!((of, error.operation), ((SID, Some(pasid(5))), operation));
        assert_eq!((b.table(SID, Some(5)), b.host.page_tables()), (0, 1));
        // It is tried again.
        assert!(b.pasid_cache(of_pasid(1, 5)).is_complete());
        assert_eq!(b.table(SID, Some(5)), 0xb000);
    }
    // A page table that cannot be replaced is taken away: the guest does not want it any more.
    for operation in [Operation::AllocNested, Operation::Replace] {
        let mut b = Bench::new();
        b.tables.set(SID, 5, space(1, 0xb000));
        b.pasid_cache(GLOBAL);
        b.tables.set(SID, 5, space(1, 0xc000));
        b.host.fail(operation, 0, Errno::NoMemory);
        let changes = b.pasid_cache(GLOBAL);
        assert!(!changes.is_complete());
        assert_eq!(changes.unbound, [(SID, Some(pasid(5)))]);
        assert_eq!((b.table(SID, Some(5)), b.host.page_tables()), (0, 1));
    }
    // One that cannot be detached stays known, and is detached next time.
    let mut b = Bench::new();
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    b.tables.clear(SID, 5);
    b.host.fail(Operation::Detach, 0, Errno::Busy);
    assert!(!b.pasid_cache(GLOBAL).is_complete());
    assert!(b.pasid_cache(GLOBAL).is_complete());
    assert_eq!((b.table(SID, Some(5)), b.host.page_tables()), (0, 1));
}

#[test]
pub(crate) fn n4_25_context_entries_select_functions() {
    let others = [SourceId(0x0109), SourceId(0x010c), SourceId(0x0208)];
    let all = [SID, others[0], others[1], others[2]];
    let scope = |mask| ContextScope::Device {
        did: DomainId(0),
        sid: SID,
        mask,
    };
    for (scope, expected) in [
        (scope(!0), [true, false, false, false]),
        // FM: the lower bits of the function do not count.
        (scope(!4), [true, false, true, false]),
        (scope(!7), [true, true, true, false]),
        (ContextScope::Global, [true; 4]),
        (ContextScope::Domain(DomainId(9)), [true; 4]),
    ] {
        let mut b = Bench::new();
        for of in others {
            b.assign(of);
        }
        for (n, of) in (1u64..).zip(all) {
            b.tables.set(of, 5, space(1, n << 12));
        }
        let (host, tables) = (&mut b.host, &b.tables);
        b.bindings.context_cache_invalidated(host, tables, scope);
        let bound = all.map(|of| b.table(of, Some(5)) != 0);
        assert_eq!(bound, expected, "{scope:?}");
    }
}

#[test]
pub(crate) fn n4_27_switching_translation_binds_everything_anew() {
    let mut b = Bench::new();
    b.tables.mode = Mode::Off;
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    assert_eq!([b.table(SID, None), b.table(SID, Some(5))], [0, 0]);
    b.remapping_changed();
    assert_eq!([b.table(SID, None), b.table(SID, Some(5))], [1, 0]);
    for (mode, expected) in [
        (Mode::Scalable, [0xa000, 0xb000]),
        (Mode::Blocked, [0, 0]),
        (Mode::Legacy, [1, 0]),
        (Mode::Scalable, [0xa000, 0xb000]),
        (Mode::Off, [1, 0]),
    ] {
        b.tables.mode = mode;
        assert!(b.remapping_changed().is_complete());
        assert_eq!(
            [b.table(SID, None), b.table(SID, Some(5))],
            expected,
            "{mode:?}"
        );
    }
    // Another root table.
    b.tables.mode = Mode::Scalable;
    b.remapping_changed();
    b.tables.set(SID, 0, space(1, 0xc000));
    b.tables.clear(SID, 5);
    b.remapping_changed();
    assert_eq!([b.table(SID, None), b.table(SID, Some(5))], [0xc000, 0]);
}

#[test]
pub(crate) fn n4_30_equal_first_stages_have_one_page_table() {
    let mut b = Bench::new();
    let other = SourceId(0x0200);
    b.assign(other);
    for (of, number, domain) in [(SID, 1, 1), (SID, 2, 1), (other, 1, 1), (other, 7, 3)] {
        b.tables.set(of, number, space(domain, 0xa000));
    }
    b.pasid_cache(GLOBAL);
    assert_eq!(b.host.page_tables(), 2, "the parent and one nested");
    b.tables.clear(SID, 1);
    b.tables.clear(other, 1);
    b.tables.clear(other, 7);
    b.pasid_cache(GLOBAL);
    assert_eq!((b.host.page_tables(), b.table(SID, Some(2))), (2, 0xa000));
    b.tables.clear(SID, 2);
    b.pasid_cache(GLOBAL);
    assert_eq!(b.host.page_tables(), 1);
    // Not over iommufds: each has its own parent.
    let mut b = Bench::new();
    let device = b.host.bind(9, device());
    let ioas = b.host.alloc_ioas(9).unwrap();
    let flags = host_iommu::host::ParentFlags {
        dirty_tracking: false,
        pasid: true,
    };
    let parent = b.host.alloc_parent(device, ioas, flags).unwrap();
    b.host.attach(device, None, parent).unwrap();
    let assigned = host_iommu::bindings::AssignedDevice {
        requester: other,
        device,
        parent,
        pasid_limit: 1 << 20,
        fault_queue: None,
    };
    b.bindings.assign(&mut b.host, &b.tables, assigned).unwrap();
    b.tables.set(SID, 1, space(1, 0xa000));
    b.tables.set(other, 1, space(1, 0xa000));
    assert!(b.pasid_cache(GLOBAL).is_complete());
    assert_eq!(b.host.page_tables(), 4);
}

#[test]
pub(crate) fn n4_32_devices_are_plugged_in_and_out_while_translation_is_on() {
    let mut b = Bench::without_devices();
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    let device = b.assign(SID);
    assert_eq!(
        [b.table(SID, None), b.table(SID, Some(5))],
        [0xa000, 0xb000]
    );
    let changes = b.bindings.unassign(&mut b.host, SID).unwrap();
    assert_eq!(changes.failures, []);
    assert_eq!(changes.unbound.len(), 2);
    assert_eq!(b.host.attached(device, None), Some(b.parent));
    assert_eq!(b.host.attached(device, Some(pasid(5))), None);
    assert_eq!(b.host.page_tables(), 1);
    // A device without entries is blocked at once.
    b.tables.entries.clear();
    b.assign(SID);
    assert_eq!(b.table(SID, None), 0);
}

#[test]
pub(crate) fn n4_42_each_address_space_of_a_device_has_a_record() {
    let mut b = Bench::new();
    b.tables
        .set(SID, 0, with(1, AddressTranslation::PassThrough));
    b.tables.set(SID, 5, space(2, 0xb000));
    b.pasid_cache(GLOBAL);
    let five = (SID, Some(pasid(5)));
    assert_eq!(b.bindings.bound(five), Some(space(2, 0xb000)));
    let device = b.device();
    let attached = b.host.attached(device, Some(pasid(5)));
    assert_eq!(b.bindings.page_table(five), attached);
    assert_eq!(b.bindings.page_table((SID, None)), Some(b.parent));
    assert_eq!(b.bindings.bound((SID, Some(pasid(6)))), None);
    let nested: Vec<_> = b.bindings.nested_spaces().collect();
    assert_eq!(nested.len(), 1);
    assert_eq!((nested[0].of, nested[0].number), (five, 5));
    assert_eq!(
        (nested[0].domain, nested[0].address_width),
        (DomainId(2), 48)
    );
}

#[test]
pub(crate) fn n4_44_the_new_page_table_comes_before_the_old_one_goes() {
    let mut b = Bench::new();
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    let (device, five) = (b.device(), Some(pasid(5)));
    let old = b.host.attached(device, five).unwrap();
    b.host.calls.clear();
    b.tables.set(SID, 5, space(1, 0xc000));
    b.pasid_cache(GLOBAL);
    let new = b.host.attached(device, five).unwrap();
    let replaced = Call::Replace(device, five, new);
    assert_eq!(b.host.calls, [Call::Alloc(new), replaced, Call::Free(old)]);
    // To pass-through and back: the parent, which is never freed.
    b.host.calls.clear();
    b.tables
        .set(SID, 5, with(1, AddressTranslation::PassThrough));
    b.pasid_cache(GLOBAL);
    let replaced = Call::Replace(device, five, b.parent);
    assert_eq!(b.host.calls, [replaced, Call::Free(new)]);
}

#[test]
pub(crate) fn n4_45_pasids_are_walked_up_to_the_limit() {
    let mut b = Bench::without_devices();
    let mut assigned = b.plug(SID, device());
    assigned.pasid_limit = 64;
    b.bindings.assign(&mut b.host, &b.tables, assigned).unwrap();
    for number in [1, 63, 64, 65] {
        b.tables.set(SID, number, space(1, u64::from(number) << 12));
    }
    assert!(b.pasid_cache(GLOBAL).is_complete());
    assert!(b.pasid_cache(of_pasid(1, 65)).is_complete());
    let all = [1, 63, 64, 65].map(|n| b.table(SID, Some(n)) >> 12);
    assert_eq!(all, [1, 63, 0, 0]);
}

#[test]
pub(crate) fn n4_46_what_is_gone_goes_before_what_is_new_comes() {
    let mut b = Bench::new();
    b.tables.set(SID, 9, space(1, 0xb000));
    b.pasid_cache(GLOBAL);
    b.tables.clear(SID, 9);
    b.tables.set(SID, 2, space(1, 0xc000));
    b.host.calls.clear();
    b.pasid_cache(GLOBAL);
    let order: Vec<Option<Pasid>> = b
        .host
        .calls
        .iter()
        .filter_map(|call| match call {
            Call::Attach(_, pasid, _) | Call::Detach(_, pasid) => Some(*pasid),
            _ => None,
        })
        .collect();
    assert_eq!(order, [Some(pasid(9)), Some(pasid(2))]);
    // After a migration, everything is read.
    let mut b = Bench::new();
    b.tables.set(SID, 2, space(1, 0xc000));
    b.remapping_changed();
    assert_eq!(b.table(SID, Some(2)), 0xc000);
}

#[test]
pub(crate) fn n4_47_page_tables_of_a_device_with_pasids_can_be_attached_to_them() {
    let mut b = Bench::new();
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    let changes = b.pasid_cache(GLOBAL);
    assert_eq!(changes.failures, []);
    assert_eq!(
        [b.table(SID, None), b.table(SID, Some(5))],
        [0xa000, 0xb000]
    );
    // A device without PASIDs gets page tables without the flag, which is all that it needs.
    let mut b = Bench::without_devices();
    let mut assigned = b.plug(SID, device());
    assigned.pasid_limit = 0;
    b.bindings.assign(&mut b.host, &b.tables, assigned).unwrap();
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    assert!(b.pasid_cache(GLOBAL).is_complete());
    assert_eq!([b.table(SID, None), b.table(SID, Some(5))], [0xa000, 0]);
    let hwpt = b.bindings.page_table((SID, None)).unwrap();
    let device = b.device();
    let refused = b.host.attach(device, Some(pasid(1)), hwpt).unwrap_err();
    assert_eq!(refused.errno, Errno::Invalid);
}

#[test]
fn errors_say_of_what_they_are() {
    let of = (SID, Some(pasid(0x12)));
    let text = BindError::TranslationType { of }.to_string();
    assert_eq!(
        text,
        "function 01:01.0, PASID 0x12: the host walks first stages only"
    );
    let text = BindError::NoTable { of: (SID, None) }.to_string();
    assert!(
        text.starts_with("function 01:01.0, requests without PASID: "),
        "{text}"
    );
}
