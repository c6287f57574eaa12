// SPDX-License-Identifier: GPL-2.0-or-later
//! Translations that must be gone: of a PASID that was taken away, and of an invalidation of many
//! pages. QEMU's own unit keeps them unless it is helped; each test shows that it does, and that
//! neither the helped unit nor an `svm-vtd` does.

use crate::client::skip;
use crate::laboratory::{ADDRESS, Laboratory, PASID};
use crate::machine::{DEVICE, is_svm_vtd};

/// Why a test of what QEMU's unit does wrong is skipped.
const ANOTHER: &str = "the unit is not intel-iommu";

/// What a device is told of a page of a PASID that is being taken away, and after that of the same
/// page of the next process with this PASID. The frames of both are given too.
fn retired(properties: &str) -> Option<([u64; 2], [Option<u64>; 2])> {
    let mut laboratory = Laboratory::with(properties)?;
    let old = laboratory.machine.page();
    laboratory.machine.map(PASID, ADDRESS, old, true);
    assert_eq!(laboratory.translate(ADDRESS), Some(old));
    laboratory.machine.retire_pasid(DEVICE, PASID);
    let retired = laboratory.translate(ADDRESS);
    laboratory.machine.reuse_pasid(PASID);
    let new = laboratory.machine.page();
    laboratory.machine.map(PASID, ADDRESS, new, true);
    let reused = laboratory.translate(ADDRESS);
    laboratory.machine.qemu.quit();
    Some(([old, new], [retired, reused]))
}

#[test]
fn a_pasid_that_is_not_present_has_no_pages_and_leaves_none_to_the_next() {
    let Some(([_, new], told)) = retired("") else {
        return;
    };
    assert_eq!(told, [None, Some(new)]);
}

/// If this fails, QEMU's unit has been mended: `pasid-check` and this test can go.
#[test]
fn deviation_of_intel_iommu_the_present_bit_of_a_pasid_is_not_looked_at() {
    if is_svm_vtd() {
        return skip(ANOTHER);
    }
    let Some(([old, _], told)) = retired(",pasid-check=off") else {
        return;
    };
    assert_eq!(told, [Some(old), Some(old)]);
}

/// Whether the queue goes on after an invalidation of 2^`order` pages, and whether the page that it
/// covers is translated anew.
fn invalidated(properties: &str, order: u64) -> Option<(bool, bool)> {
    let mut laboratory = Laboratory::with(properties)?;
    let [old, new] = [(); 2].map(|()| laboratory.machine.page());
    laboratory.machine.map(PASID, ADDRESS, old, true);
    assert_eq!(laboratory.translate(ADDRESS), Some(old));
    laboratory.machine.map(PASID, ADDRESS, new, true);
    let begin = ADDRESS & (!0 << (12 + order));
    let goes_on = laboratory
        .machine
        .invalidate_iotlb_pages(PASID, begin, order);
    let now = laboratory.translate(ADDRESS);
    laboratory.machine.qemu.quit();
    Some((goes_on, now == Some(new)))
}

/// Up to 2^35 pages: all that a process can have.
#[test]
fn an_invalidation_of_any_size_takes_effect() {
    for order in [0, 18, 19, 20, 31, 32, 35] {
        let Some(result) = invalidated("", order) else {
            return;
        };
        assert_eq!(result, (true, true), "2^{order} pages");
    }
}

/// If this fails, QEMU's unit has been mended: `wide-invalidations` and this test can go.
#[test]
fn deviation_of_intel_iommu_an_invalidation_of_more_than_1_gib_is_refused() {
    if is_svm_vtd() {
        return skip(ANOTHER);
    }
    for (order, expected) in [(18, true), (19, false), (35, false)] {
        let Some(result) = invalidated(",wide-invalidations=off", order) else {
            return;
        };
        assert_eq!(result, (expected, expected), "2^{order} pages");
    }
}
