// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cache invalidation in the interface before iommufd: structure, matrix, sizes.

use crate::bench::pasid;
use host_iommu::cache_invalidate::{
    ALL, Change, Flush, Request, Selection, Target, cache, flag, guest_flushes, order, pass_down,
    to_host,
};
use host_iommu::host::{Errno, Invalidation};
use pcie_ats::Pasid;
use proptest::prelude::*;

const TARGET: Target = Target {
    pci: true,
    scalable: true,
    ats: true,
};

/// The structure, as Linux lays it out.
fn bytes(version: u32, caches: u8, granularity: u8, flags: u32, words: [u64; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(56u32.to_le_bytes());
    bytes.extend(version.to_le_bytes());
    bytes.extend([caches, granularity, 0, 0, 0, 0, 0, 0]);
    bytes.extend(flags.to_le_bytes());
    bytes.extend(0x77u32.to_le_bytes());
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn addresses(of: Option<Pasid>, address: u64, granule_size: u64, granules: u64) -> Selection {
    Selection::Address {
        pasid: of,
        leaf_only: false,
        address,
        granule_size,
        granules,
    }
}

fn down(caches: u8, selection: Selection) -> Result<Vec<Flush>, Errno> {
    pass_down(&Request { caches, selection }, &TARGET)
}

#[test]
pub(crate) fn n1_30_the_structure_has_a_version_caches_and_a_granularity() {
    let parse = |version, caches, granularity| {
        Request::from_bytes(&bytes(version, caches, granularity, 0, [0, 0, 4096, 1]))
    };
    for (n, caches) in [cache::IOTLB, cache::DEV_IOTLB, cache::PASID]
        .into_iter()
        .enumerate()
    {
        assert_eq!(caches, 1 << n);
        assert_eq!(parse(1, caches, 0).unwrap().caches, caches);
    }
    assert_eq!(parse(1, 1, 0).unwrap().selection, Selection::Domain);
    assert_eq!(parse(1, 1, 1).unwrap().selection, Selection::Pasid(None));
    let all = addresses(None, 0, 4096, 1);
    assert_eq!(parse(1, 1, 2).unwrap().selection, all);
    for wrong in [
        parse(0, 1, 0),
        parse(2, 1, 0),
        parse(1, 8, 0),
        parse(1, 1, 3),
    ] {
        assert_eq!(wrong, Err(Errno::Invalid));
    }
    // A size that is too small, padding that is not zero.
    let whole = bytes(1, 1, 2, 0, [0, 0, 4096, 1]);
    assert_eq!(Request::from_bytes(&whole[..48]), Err(Errno::Invalid));
    let mut small = whole.clone();
    small[0] = 48;
    assert_eq!(Request::from_bytes(&small), Err(Errno::Invalid));
    let mut padded = whole;
    padded[12] = 1;
    assert_eq!(Request::from_bytes(&padded), Err(Errno::Invalid));
}

#[test]
pub(crate) fn n1_31_flags_say_what_is_given() {
    let parse = |granularity, flags, of| {
        let words = [of, 0x5000, 4096, 3];
        let request = Request::from_bytes(&bytes(1, 1, granularity, flags, words));
        request.map(|request| request.selection)
    };
    assert_eq!(
        parse(1, flag::PASID, 9),
        Ok(Selection::Pasid(Some(pasid(9))))
    );
    assert_eq!(parse(1, flag::ARCHID, 9), Ok(Selection::Pasid(None)));
    assert_eq!(
        parse(1, flag::LEAF, 9),
        Err(Errno::Invalid),
        "of addresses only"
    );
    assert_eq!(parse(1, flag::PASID, 1 << 20), Err(Errno::Invalid));
    let with = |of, leaf_only| {
        Ok(Selection::Address {
            pasid: of,
            leaf_only,
            address: 0x5000,
            granule_size: 4096,
            granules: 3,
        })
    };
    assert_eq!(
        parse(2, flag::PASID | flag::LEAF, 9),
        with(Some(pasid(9)), true)
    );
    assert_eq!(parse(2, flag::ARCHID, 9), with(None, false));
    assert_eq!(parse(2, 8, 9), Err(Errno::Invalid));
}

#[test]
pub(crate) fn n1_32_caches_and_selections_go_together_or_not() {
    let of = Some(pasid(9));
    let page = addresses(of, 0x1000, 4096, 1);
    let valid = |caches, selection| down(caches, selection).is_ok();
    let matrix = [cache::DEV_IOTLB, cache::IOTLB, cache::PASID].map(|caches| {
        [
            valid(caches, Selection::Domain),
            valid(caches, Selection::Pasid(of)),
            valid(caches, page),
        ]
    });
    // The IOTLB goes with a domain by the matrix, and the unit has no such invalidation.
    let expected = [
        [false, true, true],
        [false, true, true],
        [true, true, false],
    ];
    assert_eq!(matrix, expected);
    assert_eq!(down(cache::IOTLB | cache::PASID, page), Err(Errno::Invalid));
    assert_eq!(down(0, Selection::Pasid(of)), Err(Errno::Invalid));
}

#[test]
pub(crate) fn n1_33_caches_and_granularities_are_those_of_the_unit() {
    let of = pasid(9);
    let iotlb = |granularity, address, order| Flush::Iotlb {
        pasid: of,
        granularity,
        address,
        order,
        leaf_only: false,
    };
    let without_ats = Target {
        ats: false,
        ..TARGET
    };
    let down = |caches, selection| pass_down(&Request { caches, selection }, &without_ats);
    assert_eq!(down(cache::IOTLB, Selection::Domain), Err(Errno::Invalid));
    let all = down(cache::IOTLB, Selection::Pasid(Some(of)));
    assert_eq!(all, Ok(vec![iotlb(2, 0, ALL)]));
    let pages = addresses(Some(of), 0x4000, 4096, 4);
    assert_eq!(down(cache::IOTLB, pages), Ok(vec![iotlb(3, 0x4000, 2)]));
    // The PASID cache is not passed on: the host has invalidated it when it bound.
    assert_eq!(down(cache::PASID, Selection::Pasid(Some(of))), Ok(vec![]));
    assert_eq!(down(cache::PASID, Selection::Domain), Ok(vec![]));
}

#[test]
pub(crate) fn n1_34_sizes_are_powers_of_two_and_addresses_aligned_to_them() {
    let kib = 1024;
    let cases = [
        (0, 4 * kib, 1, Ok(0)),
        (0, kib, 1, Ok(0)),
        (0, 4 * kib, 0, Ok(0)),
        (0, 4 * kib, 3, Ok(2)),
        (0, kib, 5, Ok(1)),
        (0x20_0000, 2048 * kib, 1, Ok(9)),
        (0, 1 << 30, 512, Ok(27)),
        (0x1000, 4 * kib, 2, Err(Errno::Range)),
        (0x800, 4 * kib, 1, Err(Errno::Range)),
        (0x4000, 4 * kib, 5, Err(Errno::Range)),
        (0, 1 << 40, 1 << 40, Err(Errno::Range)),
    ];
    for (address, granule, granules, expected) in cases {
        assert_eq!(
            order(address, granule, granules),
            expected,
            "{granule} x {granules}"
        );
    }
}

#[test]
pub(crate) fn n1_35_the_device_tlb_forgets_what_the_iotlb_does() {
    let of = pasid(9);
    let pages = addresses(Some(of), 0x4000, 4096, 4);
    let device = Flush::DeviceTlb {
        pasid: of,
        address: 0x4000,
        order: 2,
    };
    let flushes = down(cache::IOTLB, pages).unwrap();
    assert_eq!((flushes.len(), flushes[1]), (2, device));
    // Once, if both are asked for.
    assert_eq!(
        down(cache::IOTLB | cache::DEV_IOTLB, pages).unwrap(),
        flushes
    );
    assert_eq!(down(cache::DEV_IOTLB, pages), Ok(vec![device]));
    let target = Target {
        ats: false,
        ..TARGET
    };
    let caches = cache::IOTLB | cache::DEV_IOTLB;
    let request = Request {
        caches,
        selection: pages,
    };
    assert_eq!(pass_down(&request, &target).unwrap().len(), 1);
}

#[test]
pub(crate) fn n1_36_all_of_a_pasid_is_all_addresses_in_the_device() {
    let of = pasid(9);
    let all = Flush::DeviceTlb {
        pasid: of,
        address: 0,
        order: ALL,
    };
    assert_eq!(
        down(cache::DEV_IOTLB, Selection::Pasid(Some(of))),
        Ok(vec![all])
    );
}

#[test]
pub(crate) fn n1_37_what_is_missing_is_an_error() {
    let selection = Selection::Pasid(Some(pasid(9)));
    let caches = cache::IOTLB;
    let request = Request { caches, selection };
    let with = |pci, scalable| {
        let ats = true;
        pass_down(&request, &Target { pci, scalable, ats })
    };
    assert_eq!(with(false, true), Err(Errno::NoDevice));
    assert_eq!(with(true, false), Err(Errno::NoDevice));
    assert_eq!(down(caches, Selection::Pasid(None)), Err(Errno::Invalid));
    let pages = addresses(None, 0, 4096, 1);
    assert_eq!(down(caches, pages), Err(Errno::Invalid));
}

#[test]
pub(crate) fn n1_38_a_guest_in_caching_mode_invalidates_what_it_must() {
    let all = cache::PASID | cache::IOTLB | cache::DEV_IOTLB;
    for caching_mode in [false, true] {
        assert_eq!(guest_flushes(caching_mode, Change::ToAbsent), all);
    }
    assert_eq!(guest_flushes(false, Change::ToPresent), 0);
    let some = cache::PASID | cache::IOTLB;
    assert_eq!(guest_flushes(true, Change::ToPresent), some);
}

#[test]
fn the_interface_that_came_after_has_the_same_meaning() {
    let of = Some(pasid(9));
    let to = |caches, selection| to_host(&Request { caches, selection }, &TARGET);
    let all = Ok(Some(Invalidation::All));
    assert_eq!(to(cache::IOTLB, Selection::Pasid(of)), all);
    let pages = Invalidation::Pages {
        address: 0x4000,
        pages: 4,
        leaf_only: false,
    };
    let four = addresses(of, 0x4000, 4096, 4);
    assert_eq!(to(cache::IOTLB, four), Ok(Some(pages)));
    assert_eq!(to(cache::DEV_IOTLB, four), Ok(Some(pages)));
    assert_eq!(to(cache::PASID, Selection::Pasid(of)), Ok(None));
    assert_eq!(to(cache::DEV_IOTLB, Selection::Domain), Err(Errno::Invalid));
}

proptest! {
    /// The pages that are invalidated hold every granule, and are not twice as many as needed.
    #[test]
    fn sizes_are_as_in_a_naive_model(
        page in 0u64..1 << 20,
        granule in 0u32..20,
        granules in 0u64..5000,
    ) {
        let (address, bytes) = (page << 12, granules << granule);
        let needed = bytes.div_ceil(4096).max(1);
        let mut size = 1;
        while size < needed {
            size *= 2;
        }
        let expected = match page % size {
            0 => Ok(size),
            _ => Err(Errno::Range),
        };
        prop_assert_eq!(order(address, 1 << granule, granules).map(|n| 1u64 << n), expected);
    }
}
