// SPDX-License-Identifier: MIT OR Apache-2.0
//! Defects of other models of this unit (B1 to B13): a test for each shows that this unit is
//! correct. The list with the tests' names is in `docs/vtd.md`.

use crate::bench::*;
use crate::gaps::{page_request, scalable};
use pcie_ats::{InvalidateCompletion, Translation, TranslationRequest};
use vtd::Access;
use vtd::spec::register::{fsts, offset};

#[test]
pub(crate) fn b01_present_comes_before_the_translation_type() {
    let mut b = Bench::new();
    b.pasid(SID, 5, [0; 8]);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x59));
    b.codes();
    let t = b.ats(Some(5), 0x1000).unwrap();
    assert!(!t.read && !t.write);
    assert_eq!(b.codes(), []);
}

#[test]
pub(crate) fn b02_a_pasid_does_not_need_pasid_0() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER);
    b.pasid(SID, 5, first_stage(table, 1));
    assert_eq!(b.goes(0x1000, Access::Read), Err(0x59));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x800_0000));
}

#[test]
pub(crate) fn b03_a_cached_page_is_no_leave_to_write() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, P | US);
    b.pasid(SID, 5, first_stage(table, 1));
    assert!(b.goes_pasid(5, 0x1000, Access::Read).is_ok());
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Write), Err(0x85));
    assert_eq!(b.codes(), [0x85]);
}

#[test]
pub(crate) fn b04_the_first_stage_goes_by_fspm_and_not_by_aw() {
    for aw in [0, 1, 3, 7] {
        let mut b = Bench::new();
        let table = b.page();
        let address = 0x7fff_ffff_f000;
        b.map_first(table, address, 0x800_0000, USER);
        let mut e = first_stage(table, 1);
        e[0] |= aw << 2;
        b.pasid(SID, 5, e);
        assert_eq!(b.goes_pasid(5, address, Access::Read), Ok(0x800_0000));
        assert_eq!(b.goes_pasid(5, 1 << 47, Access::Read), Err(0x80));
    }
}

#[test]
pub(crate) fn b05_a_new_entry_replaces_the_old_one_with_its_domain() {
    let mut b = Bench::new();
    let table = b.page();
    let entry = b.map_first(table, 0x1000, 0x800_0000, USER);
    b.pasid(SID, 5, first_stage(table, 1));
    assert!(b.goes_pasid(5, 0x1000, Access::Read).is_ok());
    b.pasid(SID, 5, first_stage(table, 2));
    b.submit(&[pasid_entry(1, 5), pasid_all(1, 5)]);
    assert!(b.goes_pasid(5, 0x1000, Access::Read).is_ok());
    b.ram.set(entry, 0x900_0000 | USER);
    // The old domain does not select it any more, the new one does.
    b.submit(&[pasid_all(1, 5)]);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x800_0000));
    b.submit(&[pasid_all(2, 5)]);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x900_0000));
    // An entry that became invalid is not used.
    b.pasid(SID, 5, [1 | 7 << 6, 2, 0, 0, 0, 0, 0, 0]);
    b.submit(&[pasid_entry(2, 5)]);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x5b));
}

#[test]
pub(crate) fn b06_page_request_descriptors_end_in_zeros() {
    let mut b = Bench::new();
    b.pasid(SID, 0, pass_through(1));
    b.store(PAGE_REQUESTS, &[!0, !0, !0, !0]);
    b.page_request(&page_request(None, 1));
    let [_, _, w2, w3] = b.load::<4>(PAGE_REQUESTS);
    assert_eq!((w2, w3), (0, 0));
}

#[test]
pub(crate) fn b07_page_requests_of_all_kinds_of_entries_one_behind_the_other() {
    let mut b = Bench::new();
    let (first, second) = (b.page(), b.page());
    b.pasid(SID, 5, first_stage(first, 1));
    b.pasid(SID, 6, second_stage(second, 2));
    b.pasid(SID, 7, pass_through(3));
    for pasid in [5, 6, 7] {
        b.page_request(&page_request(Some(pasid), 1));
    }
    assert_eq!(b.read(offset::PQT), 96);
    assert_eq!(b.codes(), []);
}

#[test]
pub(crate) fn b08_the_active_mode_chooses_the_fault_reason() {
    let mut b = Bench::legacy(|_| {});
    assert!(b.unit.capabilities().ecap().smts());
    assert_eq!(b.goes(0xfee0_0000, Access::Read), Err(0x0e));
}

#[test]
pub(crate) fn b09_translations_do_not_wrap_round() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0, 0x800_0000, USER);
    b.map_first(table, u64::MAX << 12, 0x900_0000, USER);
    b.pasid(SID, 5, first_stage(table, 1));
    let request = TranslationRequest {
        address: u64::MAX << 12,
        pages: 4,
        pasid: Some(pasid_of(5)),
        privileged: false,
        execute: false,
        no_write: false,
    };
    let mut found = [Translation::from_word(0); 4];
    let got = b
        .unit
        .translation_request(&b.ram, SID, &request, &mut found, &mut b.fx);
    assert_eq!(got, Ok(1));
}

#[test]
pub(crate) fn b10_privileged_translation_requests() {
    // Without SRS, R = W = 0 with Priv, and nothing recorded; with SRS and SRE, permission.
    for (srs, sre, granted) in [(false, 0, false), (true, 0, false), (true, 1, true)] {
        let mut b = Bench::scalable(scalable(|s| s.supervisor_requests = srs));
        let table = b.page();
        b.map_first(table, 0x1000, 0x800_0000, P | RW);
        let mut e = first_stage(table, 1);
        e[2] |= sre;
        b.pasid(SID, 5, e);
        let t = b.ats_as(Some(5), 0x1000, true, false).unwrap();
        assert_eq!((t.read, t.write, t.privileged), (granted, granted, true));
        assert_eq!(b.codes(), []);
    }
}

#[test]
pub(crate) fn b11_the_second_fault_is_recorded() {
    let mut b = Bench::new();
    b.access(0x1000, Access::Read).unwrap_err();
    b.access(0x2000, Access::Read).unwrap_err();
    assert_eq!(b.read32(offset::FSTS), fsts::PPF);
    assert_eq!(b.faults().len(), 2);
}

#[test]
pub(crate) fn b12_responses_are_checked_and_unknown_ones_counted() {
    let mut b = Bench::new();
    b.submit(&[response(None, 7, 0)]);
    assert_eq!(b.unit.counters().unexpected_responses, 1);
    let at = QUEUE + b.read(offset::IQT);
    let [low, high] = response(None, 7, 0);
    b.store(at, &[low, high, 1, 0]);
    b.write(offset::IQT, b.read(offset::IQT) + 32);
    b.run();
    assert_eq!(b.read(offset::IQERCD) & 15, 4);
}

#[test]
pub(crate) fn b13_all_errors_are_write_1_to_clear() {
    let mut b = Bench::new();
    for bit in [fsts::PFO, fsts::IQE, fsts::ICE, fsts::ITE] {
        match bit {
            fsts::PFO => {
                for page in 0..9 {
                    b.access(page << 12, Access::Read).unwrap_err();
                }
                b.faults();
            }
            fsts::IQE => b.submit(&[[0x0f, 0]]),
            fsts::ICE => {
                let completion = InvalidateCompletion {
                    itag_vector: 1,
                    completion_count: 1,
                };
                b.unit
                    .invalidate_completion(&b.ram, SID, &completion, &mut b.fx);
            }
            _ => {
                b.store(QUEUE, &[u64::from(SID.0) << 32 | 3, 0]);
                b.run();
                let deadline = b.unit.next_timeout().expect("a request is pending");
                b.unit.advance(deadline, &mut b.fx);
            }
        }
        assert_eq!(b.read32(offset::FSTS) & 0xff, bit);
        if bit == fsts::IQE {
            // Corrected first: the descriptor is now a Device-TLB invalidation.
            b.store(QUEUE, &[u64::from(SID.0) << 32 | 3, 0]);
        }
        b.write32(offset::FSTS, bit);
        assert_eq!(b.read32(offset::FSTS) & 0xff, 0);
    }
}
