// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which faults are reported, with which data, and which are not reported.

use crate::bench::*;
use pcie_ats::{Translation, TranslationError, TranslationRequest};
use vtd::spec::fault::{AddressType, RequestKind};
use vtd::spec::pasid::PasidEntry;
use vtd::spec::register::{fsts, global, offset};
use vtd::{Access, Effect, Request};

#[test]
fn fpd_of_every_entry_on_the_way_suppresses_what_comes_behind() {
    // The entry that has FPD, and the fault in the PASID entry or in a later structure.
    let build = |context: bool, directory: bool, entry: bool| {
        let mut b = Bench::new();
        let table = b.page();
        let mut words = first_stage(table, 1);
        words[0] |= u64::from(entry) << 1;
        b.pasid(SID, 5, words);
        let at = b.context_at(SID);
        let dir = b.context(SID);
        b.ram.set(at, b.ram.get(at) | u64::from(context) << 1);
        b.ram.set(dir, b.ram.get(dir) | u64::from(directory) << 1);
        b
    };
    for (context, directory, entry) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ] {
        let quiet = context || directory || entry;
        let mut b = build(context, directory, entry);
        assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x71));
        assert_eq!(b.codes().is_empty(), quiet);
        // FPD also takes effect in an entry that is not present.
        let at = b.pasid_at(SID, 5);
        b.ram.set(at, b.ram.get(at) & !1);
        b.submit(&[PASID_GLOBAL, IOTLB_GLOBAL]);
        assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x59));
        assert_eq!(b.codes().is_empty(), quiet);
    }
    let mut b = build(true, false, false);
    let at = b.context_at(SID);
    b.ram.set(at, b.ram.get(at) & !1);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x41));
    assert_eq!(b.codes(), []);
    // An unreadable table is reported whatever FPD says.
    let mut b = build(true, false, false);
    let table = b.pasid_at(SID, 5) & !0xfff;
    b.ram.holes.borrow_mut().push(table);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x58));
    assert_eq!(b.codes(), [0x58]);
}

#[test]
fn fpd_of_a_legacy_context_suppresses_its_faults() {
    for fpd in [false, true] {
        let mut b = Bench::legacy(|_| {});
        let table = b.page();
        b.legacy_context(SID, legacy_entry(0, table).with_fpd(fpd).0);
        assert_eq!(b.goes(0x1000, Access::Write), Err(5));
        assert_eq!(b.goes(0x1000, Access::Read), Err(6));
        let expected: &[u8] = if fpd { &[] } else { &[5, 6] };
        assert_eq!(b.codes(), expected);
    }
}

#[test]
fn a_record_says_what_was_asked() {
    let mut b = Bench::scalable(|c| {
        let s = c.scalable.as_mut().unwrap();
        s.pasids.as_mut().unwrap().execute_requests = true;
    });
    let table = b.page();
    let mut e = first_stage(table, 1);
    e[2] |= 3;
    b.pasid(SID, 0x3fff, e);
    b.ask(&Request {
        execute: true,
        privileged: true,
        ..request(Some(0x3fff), 0x7fff_1234_5678, Access::Read)
    })
    .unwrap_err();
    b.access(0x9000, Access::Atomic).unwrap_err();
    b.access(0xa000, Access::Write).unwrap_err();
    let faults = b.faults();
    let [one, two, three] = faults[..] else {
        panic!("{faults:x?}");
    };
    assert_eq!((one.fi, one.sid), (0x7fff_1234_5000, SID));
    assert_eq!((one.fr.code(), one.pasid), (0x71, Some(0x3fff)));
    assert_eq!((one.exe, one.privileged), (true, true));
    assert_eq!(
        (one.kind, one.at),
        (RequestKind::Read, AddressType::Untranslated)
    );
    assert_eq!((two.kind, two.pasid), (RequestKind::Atomic, None));
    assert_eq!((three.kind, three.fi), (RequestKind::Write, 0xa000));
}

#[test]
fn recoverable_faults_of_translation_requests_are_not_recorded_and_others_are() {
    let mut b = Bench::new();
    let table = b.page();
    b.pasid(SID, 5, first_stage(table, 1));
    let ask = |b: &mut Bench, pasid| {
        let request = TranslationRequest {
            address: 0x1000,
            pages: 1,
            pasid: Some(pasid_of(pasid)),
            privileged: false,
            execute: false,
            no_write: false,
        };
        let mut found = [Translation::from_word(!0)];
        let (ram, fx) = (&b.ram, &mut b.fx);
        let got = b
            .unit
            .translation_request(ram, SID, &request, &mut found, fx);
        got.map(|_| (found[0].read, found[0].write))
    };
    assert_eq!(ask(&mut b, 5), Ok((false, false)));
    // No PASID entry, and no PASID directory entry.
    assert_eq!(ask(&mut b, 6), Ok((false, false)));
    assert_eq!(ask(&mut b, 70), Ok((false, false)));
    assert_eq!(b.codes(), []);
    assert_eq!(
        ask(&mut b, 0x4000),
        Err(TranslationError::UnsupportedRequest)
    );
    b.pasid(SID, 6, [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ask(&mut b, 6), Err(TranslationError::CompleterAbort));
    let faults = b.faults();
    let codes: Vec<u8> = faults.iter().map(|f| f.fr.code()).collect();
    assert_eq!(codes, [0x46, 0x5b]);
    assert!(
        faults
            .iter()
            .all(|f| f.at == AddressType::TranslationRequest)
    );
}

#[test]
fn many_faults_fill_the_records_overflow_and_go_on_after_it() {
    let mut b = Bench::scalable(|c| c.fault_records = 4);
    b.write32(offset::FECTL, 0);
    for page in 0..6 {
        b.access(page << 12, Access::Read).unwrap_err();
    }
    assert_eq!(b.read32(offset::FSTS), fsts::PFO | fsts::PPF);
    assert!(matches!(b.effects()[..], [Effect::Interrupt(_)]));
    let pages: Vec<u64> = b.faults().iter().map(|f| f.fi >> 12).collect();
    assert_eq!(pages, [0, 1, 2, 3]);
    b.access(0x9000, Access::Read).unwrap_err();
    assert_eq!(b.codes(), []);
    b.write32(offset::FSTS, fsts::PFO);
    b.access(0x9000, Access::Read).unwrap_err();
    assert_eq!(b.codes(), [0x39]);
    assert_eq!(b.effects().len(), 1);
}

#[test]
fn the_mode_that_is_active_chooses_the_reason_for_the_interrupt_range() {
    // A unit that has scalable mode, in legacy mode.
    let mut b = Bench::legacy(|_| {});
    let table = b.page();
    b.map_second(table, 0x1000, 0xfee0_0000, R | W);
    b.legacy_context(SID, legacy_entry(0, table).0);
    assert_eq!(b.goes(0x1000, Access::Write), Err(0x0e));
    let mut b = Bench::new();
    let table = b.page();
    b.map_second(table, 0x1000, 0xfee0_0000, R | W);
    b.pasid(SID, 0, second_stage(table, 1));
    assert_eq!(b.goes(0x1000, Access::Write), Err(0x87));
}

#[test]
pub(crate) fn fpd_suppresses_the_fault_of_the_interrupt_range_too() {
    for fpd in [false, true] {
        let flag = u64::from(fpd) << 1;
        let told = |code| if fpd { vec![] } else { vec![code] };
        let mut b = Bench::legacy(|_| {});
        b.legacy_context(SID, legacy_entry(2, 0).with_fpd(fpd).0);
        assert_eq!(b.goes(0xfee0_0000, Access::Read), Err(0x0e));
        assert_eq!(b.codes(), told(0x0e));
        // In scalable mode, the entry of RID_PASID has a word, too.
        let mut b = Bench::new();
        let mut entry = pass_through(1);
        entry[0] |= flag;
        b.pasid(SID, 0, entry);
        assert_eq!(b.goes(0xfee0_0000, Access::Read), Err(0x87));
        assert_eq!(b.codes(), told(0x87));
        let mut b = Bench::new();
        let at = b.context_at(SID);
        b.context(SID);
        b.ram.set(at, b.ram.get(at) | flag);
        assert_eq!(b.goes(0xfee0_0000, Access::Read), Err(0x87));
        assert_eq!(b.codes(), told(0x87));
    }
}

#[test]
fn the_interrupt_range_means_nothing_to_requests_with_pasid() {
    let mut b = Bench::new();
    let table = b.page();
    for address in [0xfee0_0000, 0xfeef_f000] {
        b.map_first(table, address, 0x800_0000, USER);
    }
    b.pasid(SID, 5, first_stage(table, 1));
    b.pasid(SID, 6, pass_through(1));
    for address in [0xfee0_0000, 0xfeef_f000] {
        assert_eq!(b.goes_pasid(5, address, Access::Write), Ok(0x800_0000));
        // With pass-through the output is in this range, and blocked like any output there.
        assert_eq!(b.goes_pasid(6, address, Access::Write), Err(0x87));
    }
    assert_eq!(b.goes_pasid(5, 0xfee0_1000, Access::Write), Err(0x71));
    // The output address decides.
    b.map_first(table, 0x1000, 0xfee0_0000, USER);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Write), Err(0x87));
}

#[test]
fn the_fault_index_rewinds_when_both_translations_are_off() {
    let mut b = Bench::new();
    b.access(0x1000, Access::Read).unwrap_err();
    assert_eq!(b.codes(), [0x39]);
    b.uncommand(global::TE);
    b.command(global::TE);
    b.access(0x1000, Access::Read).unwrap_err();
    assert_eq!(b.read32(offset::FSTS) >> 8, 0);
}

#[test]
fn what_was_wrong_with_an_entry_is_told() {
    let told = |b: &mut Bench, code| {
        assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(code));
        let effects = std::mem::take(&mut b.fx);
        let refused = effects.iter().filter_map(|effect| match effect {
            Effect::Refused(what) => Some(what.to_string()),
            _ => None,
        });
        refused.collect::<Vec<_>>()
    };
    let said = |condition, what| {
        [format!(
            "a request of function {SID} was blocked ({condition}): {what}"
        )]
    };
    let unit = || Bench::scalable(|c| c.scalable.as_mut().unwrap().supervisor_requests = false);
    let entry = PasidEntry(first_stage(0x9000, 1));
    // A bit of a feature that the unit lacks, and a bit that is always reserved.
    let mut b = unit();
    b.pasid(SID, 5, entry.with_sre(true).0);
    let what = "reserved bits are set: PasidEntry { sre: true }";
    assert_eq!(told(&mut b, 0x5a), said("SPT.3", what));
    let mut b = unit();
    let mut words = entry.0;
    words[4] = 4;
    b.pasid(SID, 5, words);
    let what = "reserved bits are set: PasidEntry { reserved bits of word 4: 0x4 }";
    assert_eq!(told(&mut b, 0x5a), said("SPT.3", what));
    let mut b = unit();
    b.pasid(SID, 5, entry.with_pgtt_bits(7).0);
    let what = "not valid: PGTT, or AW, FSPM or FSPTPTR of its stages";
    assert_eq!(told(&mut b, 0x5b), said("SPT.4", what));
    let mut b = unit();
    let table = b.page();
    b.pasid(SID, 5, first_stage(table, 1));
    b.map(table, 4, 3, 0x1000, 1 << 13 | PS | USER, USER);
    let what = "reserved bits are set: 0x2000 of word 0";
    assert_eq!(told(&mut b, 0x72), said("SFS.3", what));
    // For an unreported fault no reason is reported either.
    let mut b = unit();
    b.pasid(SID, 5, entry.with_sre(true).with_fpd(true).0);
    assert_eq!(told(&mut b, 0x5a), [""; 0]);
}
