// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translations and flags that random tables do not cover: races with processors, failing memory,
//! dirty flags of cached pages, several translations at once.

use crate::bench::*;
use pcie_ats::{Translation, TranslationError, TranslationRequest};
use std::cell::Cell;
use std::rc::Rc;
use vtd::spec::register::{global, offset};
use vtd::{Access, Blocked, Effect, Request};

fn ats(pasid: Option<u32>, address: u64, pages: u16, no_write: bool) -> TranslationRequest {
    TranslationRequest {
        address,
        pages,
        pasid: pasid.map(pasid_of),
        privileged: false,
        execute: false,
        no_write,
    }
}

impl Bench {
    /// The translations of a request.
    pub fn translations(
        &mut self,
        request: &TranslationRequest,
    ) -> Result<Vec<Translation>, TranslationError> {
        let mut found = [Translation::from_word(0); 8];
        let got =
            self.unit
                .translation_request(&self.ram, SID, request, &mut found, &mut self.fx)?;
        Ok(found[..got].to_vec())
    }
}

/// A process at PASID 5 with one user page, which is not accessed yet. Returns the entry.
fn process(b: &mut Bench, flags: u64) -> u64 {
    let table = b.page();
    let entry = b.map_first(table, 0x40_0000, 0x800_0000, flags);
    b.pasid(SID, 5, first_stage(table, 1));
    entry
}

#[test]
fn with_remapping_off_addresses_go_through() {
    let mut b = Bench::bare(|_| {});
    assert_eq!(b.goes(0x1234_5678, Access::Write), Ok(0x1234_5678));
    assert_eq!(
        b.translations(&ats(None, 0x1000, 1, false)),
        Err(TranslationError::UnsupportedRequest)
    );
    let refused = b
        .unit
        .translated_request(&b.ram, SID, None, 0x1000, Access::Read, &mut b.fx);
    assert!(matches!(refused, Err(Blocked::Unsupported(_))));
    assert_eq!(b.codes(), []);
}

#[test]
fn the_root_table_takes_effect_with_srtp() {
    let mut b = Bench::new();
    b.context(SID);
    b.pasid(SID, 0, pass_through(1));
    assert_eq!(b.goes(0x5000, Access::Read), Ok(0x5000));
    b.write(offset::RTADDR, 0x9000 | 1 << 10);
    assert_eq!(b.goes(0x6000, Access::Read), Ok(0x6000));
    b.command(global::SRTP);
    assert_eq!(b.goes(0x6000, Access::Read), Err(0x39));
    assert_eq!(
        b.read32(offset::GSTS),
        global::TE | global::SRTP | global::QIE
    );
}

#[test]
fn te_is_told_to_the_host_and_switching_it_off_empties_the_caches() {
    let mut b = Bench::new();
    process(&mut b, USER);
    assert!(b.goes_pasid(5, 0x40_0000, Access::Read).is_ok());
    let entry = b.pasid_at(SID, 5);
    b.ram.set(entry, 0);
    assert!(b.goes_pasid(5, 0x40_0000, Access::Read).is_ok());
    b.uncommand(global::TE);
    assert_eq!(b.effects(), [Effect::TranslationEnabled(false)]);
    b.command(global::TE);
    assert_eq!(b.effects(), [Effect::TranslationEnabled(true)]);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Read), Err(0x59));
}

#[test]
fn a_write_to_a_page_that_a_read_has_cached_sets_its_dirty_flag() {
    for (name, nest) in [("first stage", false), ("nested", true)] {
        let mut b = Bench::new();
        let (first, second) = (b.page(), b.page());
        let entry = b.map_first(first, 0x40_0000, 0x800_0000, USER);
        let mut leaf = 0;
        if nest {
            // The tables are mapped onto themselves.
            for page in first_pages() {
                b.map_second(second, page, page, R | W);
            }
            leaf = b.map_second(second, 0x800_0000, 0x900_0000, R | W);
            let mut e = nested(first, second, 1);
            e[0] |= 1 << 9;
            b.pasid(SID, 5, e);
        } else {
            b.pasid(SID, 5, first_stage(first, 1));
        }
        assert!(b.goes_pasid(5, 0x40_0000, Access::Read).is_ok(), "{name}");
        assert_eq!(b.ram.get(entry) & (A | D), A, "{name}");
        let read = b.access_pasid(5, 0x40_0000, Access::Read).unwrap();
        assert!(!read.write, "{name}: a read does not permit writing");
        assert!(b.goes_pasid(5, 0x40_0000, Access::Write).is_ok(), "{name}");
        assert_eq!(b.ram.get(entry) & (A | D), A | D, "{name}");
        if nest {
            assert_eq!(b.ram.get(leaf) & (SS_A | SS_D), SS_A | SS_D);
        }
        let hits = b.unit.counters().iotlb_hits;
        assert!(b.access_pasid(5, 0x40_0000, Access::Write).unwrap().write);
        assert_eq!(b.unit.counters().iotlb_hits, hits + 1, "{name}");
    }
}

/// Addresses of the first pages that a bench allocates.
fn first_pages() -> impl Iterator<Item = u64> {
    (0x10_0000..0x11_0000).step_by(0x1000)
}

#[test]
fn a_cached_second_stage_page_gets_its_dirty_flag() {
    let mut b = Bench::new();
    let table = b.page();
    let entry = b.map_second(table, 0x40_0000, 0x800_0000, R | W);
    let mut e = second_stage(table, 1);
    e[0] |= 1 << 9;
    b.context(SID);
    b.pasid(SID, 0, e);
    assert!(b.goes(0x40_0000, Access::Read).is_ok());
    assert_eq!(b.ram.get(entry) & (SS_A | SS_D), SS_A);
    assert!(b.goes(0x40_0000, Access::Write).is_ok());
    assert_eq!(b.ram.get(entry) & (SS_A | SS_D), SS_A | SS_D);
}

#[test]
fn without_ssade_second_stage_flags_are_left_alone() {
    let mut b = Bench::new();
    let table = b.page();
    let entry = b.map_second(table, 0x40_0000, 0x800_0000, R | W);
    b.pasid(SID, 0, second_stage(table, 1));
    assert!(b.goes(0x40_0000, Access::Write).is_ok());
    assert_eq!(b.ram.get(entry), 0x800_0000 | R | W);
}

#[test]
fn a_refused_or_read_only_access_sets_no_dirty_flag() {
    let mut b = Bench::new();
    let entry = process(&mut b, P | US);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Write), Err(0x85));
    assert_eq!(b.ram.get(entry) & (A | D), 0);
    // A translation request that would accept write permission gets only read permission.
    let found = b.translations(&ats(Some(5), 0x40_0000, 1, false)).unwrap();
    assert_eq!((found[0].read, found[0].write), (true, false));
    assert_eq!(b.ram.get(entry) & (A | D), A);
}

#[test]
fn the_pages_of_one_request_are_answered_like_those_of_many() {
    // The second half is in another leaf table.
    const FIRST: u64 = 0x3f_0000;
    const PAGES: u64 = 32;
    let kinds = [
        0,
        USER,
        USER | A,
        USER | A | D,
        P | US,
        P | RW,
        USER | 1 << 51,
        USER | 1 << 63,
    ];
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % below
    };
    let mut several = 0;
    for _ in 0..400 {
        let (no_write, privileged) = (draw(2) == 0, draw(4) == 0);
        let faults = draw(3) == 0;
        let flags: Vec<u64> = (0..PAGES)
            .map(|_| kinds[if faults { draw(8) } else { 1 + draw(3) }])
            .collect();
        let above = [USER, USER, P | US, P | RW][draw(4)];
        let world = || {
            let mut b = Bench::new();
            let table = b.page();
            for (n, flags) in flags.iter().enumerate() {
                let (address, page) = (FIRST + (n as u64) * 0x1000, 0x800_0000 + n as u64 * 0x3000);
                b.map(table, 4, 1, address, page | flags, above);
            }
            b.pasid(SID, 5, first_stage(table, 1));
            b.ram.mark();
            b
        };
        let (mut one, mut many) = (world(), world());
        // Bits that no table uses are checked.
        let beyond = ats(Some(5), 1 << 48 | FIRST, 8, no_write);
        let single = TranslationRequest { pages: 1, ..beyond };
        let first = |found: Vec<Translation>| found[0];
        let found = one.translations(&beyond).map(first);
        assert_eq!(found, many.translations(&single).map(first));
        assert!(found.is_ok_and(|found| !found.read), "{found:?}");
        let mut page = 0;
        while page < PAGES {
            let count = 1 + draw(8) as u16;
            let request = |page: u64, count| TranslationRequest {
                privileged,
                ..ats(Some(5), FIRST + page * 0x1000, count, no_write)
            };
            let found = one.translations(&request(page, count));
            let got = found.as_ref().map_or(1, Vec::len) as u64;
            let each: Result<Vec<_>, _> = (page..page + got)
                .map(|page| Ok(many.translations(&request(page, 1))?[0]))
                .collect();
            assert_eq!(found, each, "{flags:x?} from {page}");
            several += u32::from(got > 4);
            page += got;
        }
        assert_eq!(one.ram.changes(), many.ram.changes(), "{flags:x?}");
        assert_eq!(one.codes(), many.codes(), "{flags:x?}");
    }
    assert!(several > 200, "{several}");
}

#[test]
fn a_translation_request_sets_d_only_if_it_is_given_w() {
    for (no_write, flags) in [(true, A), (false, A | D)] {
        let mut b = Bench::new();
        let entry = process(&mut b, USER);
        let found = b
            .translations(&ats(Some(5), 0x40_0000, 1, no_write))
            .unwrap();
        assert_eq!(found[0].write, !no_write);
        assert_eq!(b.ram.get(entry) & (A | D), flags);
    }
}

/// A second stage with W and without R. Translation requests are answered with the permitted
/// accesses: for them, none of this is a fault (SSS.2, SGN.6 and SGN.7 of VT-d table 30).
#[test]
fn a_page_that_may_only_be_written_is_written_and_not_read() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_second(table, 0x40_0000, 0x800_0000, W);
    b.map_second(table, 0x40_1000, 0x900_0000, R | W);
    b.pasid(SID, 5, second_stage(table, 1));
    let rights = |b: &mut Bench, no_write| {
        let found = b.translations(&ats(Some(5), 0x40_0000, 2, no_write));
        let found = found.unwrap().into_iter();
        found.map(|t| (t.read, t.write)).collect::<Vec<_>>()
    };
    // The cache answers the second and third request in the same way as the tables answered the
    // first.
    for _ in 0..2 {
        assert_eq!(rights(&mut b, false), [(false, true), (true, true)]);
        assert_eq!(rights(&mut b, true)[0], (false, false));
    }
    assert_eq!(b.codes(), []);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Write), Ok(0x800_0000));
    assert_eq!(b.codes(), []);
    // SGN.7: no permission to read in the second stage.
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Read), Err(0x86));
    assert_eq!(b.codes(), [0x86]);
    assert_eq!(b.goes_pasid(5, 0x40_1000, Access::Read), Ok(0x900_0000));
}

/// Changes an entry just before the unit swaps it, once.
fn interfere(b: &Bench, entry: u64, value: u64) -> Rc<Cell<u32>> {
    let count = Rc::new(Cell::new(0));
    let seen = count.clone();
    *b.ram.before_swap.borrow_mut() = Some(Box::new(move |ram, at| {
        if at == entry {
            seen.set(seen.get() + 1);
            if seen.get() == 1 {
                ram.set(entry, value);
            }
        }
    }));
    count
}

#[test]
fn an_entry_that_software_clears_during_the_walk_stays_clear() {
    let mut b = Bench::new();
    let entry = process(&mut b, USER);
    let swaps = interfere(&b, entry, 0);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Write), Err(0x71));
    assert_eq!((b.ram.get(entry), swaps.get()), (0, 1));
}

#[test]
fn an_entry_that_software_changes_during_the_walk_is_walked_again() {
    let mut b = Bench::new();
    let entry = process(&mut b, USER);
    interfere(&b, entry, 0x900_0000 | USER);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Write), Ok(0x900_0000));
    assert_eq!(b.ram.get(entry), 0x900_0000 | USER | A | D);
}

#[test]
fn a_processor_that_sets_a_flag_meanwhile_does_not_disturb() {
    let mut b = Bench::new();
    let entry = process(&mut b, USER);
    let swaps = interfere(&b, entry, 0x800_0000 | USER | A);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Write), Ok(0x800_0000));
    assert_eq!(b.ram.get(entry), 0x800_0000 | USER | A | D);
    assert_eq!(swaps.get(), 2);
}

#[test]
fn a_walk_that_is_disturbed_for_ever_ends() {
    let mut b = Bench::new();
    let entry = process(&mut b, USER);
    let mut page = 0;
    *b.ram.before_swap.borrow_mut() = Some(Box::new(move |ram, at| {
        if at == entry {
            page += 0x1000;
            ram.set(entry, (0x800_0000 + page) | USER);
        }
    }));
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Write), Err(0x91));
}

#[test]
fn flags_that_cannot_be_written_are_a_fault() {
    let mut b = Bench::new();
    let entry = process(&mut b, USER);
    b.ram.read_only.borrow_mut().push(entry & !0xfff);
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Read), Err(0x91));
    assert_eq!(b.codes(), [0x91]);
    // A translation request succeeds without permission, but this fault is still recorded.
    let found = b.translations(&ats(Some(5), 0x40_0000, 1, false)).unwrap();
    assert_eq!((found[0].read, found[0].write), (false, false));
    assert_eq!(b.codes(), [0x91]);

    let mut b = Bench::new();
    let table = b.page();
    let entry = b.map_second(table, 0x40_0000, 0x800_0000, R | W);
    let mut e = second_stage(table, 1);
    e[0] |= 1 << 9;
    b.pasid(SID, 0, e);
    b.ram.read_only.borrow_mut().push(entry & !0xfff);
    assert_eq!(b.goes(0x40_0000, Access::Read), Err(0x7d));
}

#[test]
fn the_first_stage_table_itself_may_be_no_memory() {
    let mut b = Bench::new();
    let table = b.page();
    b.ram.holes.borrow_mut().push(table);
    b.pasid(SID, 5, first_stage(table, 1));
    assert_eq!(b.goes_pasid(5, 0x40_0000, Access::Read), Err(0x73));
}

#[test]
fn several_translations_are_of_one_size_and_follow_each_other() {
    let mut b = Bench::new();
    let table = b.page();
    for page in 0..6 {
        b.map_first(table, page << 12, 0x800_0000 + (page << 13), USER);
    }
    b.map(table, 4, 2, 0x20_0000, 0x4000_0000 | USER | PS, USER);
    b.pasid(SID, 5, first_stage(table, 1));
    let found = b.translations(&ats(Some(5), 0x1000, 4, false)).unwrap();
    let bases: Vec<u64> = found.iter().map(|t| t.range.base()).collect();
    assert_eq!(bases, [0x800_2000, 0x800_4000, 0x800_6000, 0x800_8000]);
    // Unmapped pages are reported one by one.
    let found = b.translations(&ats(Some(5), 0x5000, 4, false)).unwrap();
    let read: Vec<bool> = found.iter().map(|t| t.read).collect();
    assert_eq!(read, [true, false, false, false]);
    // A large page ends a run of small ones, and is one translation.
    let found = b.translations(&ats(Some(5), 0x1f_f000, 4, false)).unwrap();
    assert_eq!(found.len(), 1);
    let found = b.translations(&ats(Some(5), 0x21_0000, 2, false)).unwrap();
    assert_eq!(found.len(), 1);
    let range = found[0].range;
    assert_eq!((range.base(), range.shift()), (0x4000_0000, 21));
    assert_eq!(b.codes(), []);
}

#[test]
fn translations_at_the_top_of_the_address_space_end_there() {
    let mut b = Bench::new();
    let table = b.page();
    let top = 0xffff_ffff_ffff_f000;
    b.map_first(table, top, 0x800_0000, USER);
    b.pasid(SID, 5, first_stage(table, 1));
    let found = b.translations(&ats(Some(5), top, 8, false)).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].read);
}

#[test]
fn an_error_behind_the_first_translation_ends_the_completion_and_is_not_recorded() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_second(table, 0x1000, 0x800_0000, R | W);
    b.map_second(table, 0x2000, 0x800_0000, R | W | 1 << 62);
    b.pasid(SID, 0, second_stage(table, 1));
    let found = b.translations(&ats(None, 0x1000, 4, false)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(b.codes(), []);
    let error = b.translations(&ats(None, 0x2000, 4, false));
    assert_eq!(error, Err(TranslationError::CompleterAbort));
    assert_eq!(b.codes(), [0x7a]);
}

#[test]
fn interrupts_are_sent_untranslated() {
    let mut b = Bench::new();
    b.pasid(SID, 0, pass_through(1));
    let found = b.translations(&ats(None, 0xfee0_1000, 1, false)).unwrap();
    let t = found[0];
    assert_eq!((t.read, t.write, t.untranslated_only), (false, true, true));
    let found = b.translations(&ats(None, 0xfee0_1000, 1, true)).unwrap();
    let t = found[0];
    assert_eq!(
        (t.read, t.write, t.untranslated_only),
        (false, false, false)
    );
    // Other pages of a pass-through are as large as they can be without the interrupt range.
    for (address, shift) in [(0x1_0000_0000, 30), (0xc000_0000, 21), (0xfef0_0000, 12)] {
        let found = b.translations(&ats(None, address, 1, false)).unwrap();
        assert_eq!(found[0].range.shift(), shift, "{address:#x}");
    }
    assert_eq!(b.codes(), []);
}

#[test]
pub(crate) fn translated_requests_are_checked() {
    let mut b = Bench::new();
    let go = |b: &mut Bench, address| {
        let access = Access::Write;
        match b
            .unit
            .translated_request(&b.ram, SID, None, address, access, &mut b.fx)
        {
            Ok(()) => 0,
            Err(Blocked::Fault(reason)) => reason.code(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(go(&mut b, 0x5000), 0x39);
    b.context(SID);
    assert_eq!(go(&mut b, 0x5000), 0);
    assert_eq!(go(&mut b, 0xfee0_0000), 0x87);
    assert_eq!(go(&mut b, 1 << HAW), 0x83);
    let at = b.context_at(SID);
    b.ram.set(at, b.ram.get(at) & !0x14);
    assert!(b.submit_and_wait(&[CONTEXT_GLOBAL]));
    assert_eq!(go(&mut b, 0x5000), 0x44);
    assert_eq!(b.codes(), [0x39, 0x87, 0x83, 0x44]);
    let refused = b.unit.translated_request(
        &b.ram,
        SID,
        Some(pasid_of(5)),
        0x5000,
        Access::Read,
        &mut b.fx,
    );
    assert!(matches!(refused, Err(Blocked::Unsupported(_))));
}

#[test]
fn a_grant_of_translated_requests_ends_with_what_it_rests_on() {
    let mut b = Bench::scalable(|c| c.protected_memory = true);
    let granted = |b: &mut Bench| b.unit.grants_translated_requests(&b.ram, SID);
    assert!(!granted(&mut b), "no context entry");
    b.context(SID);
    assert!(granted(&mut b));
    assert!(b.fx.is_empty(), "a question is no fault");

    // The entry is cached: its change takes effect at the invalidation, and the number shows that.
    let at = b.context_at(SID);
    let (good, changes) = (b.ram.get(at), b.unit.changes());
    b.ram.set(at, good & !0x14);
    assert!(granted(&mut b));
    assert_eq!(b.unit.changes(), changes);
    assert!(b.submit_and_wait(&[CONTEXT_GLOBAL]));
    assert!(b.unit.changes() > changes);
    assert!(!granted(&mut b));

    b.ram.set(at, good);
    assert!(b.submit_and_wait(&[CONTEXT_GLOBAL]));
    assert!(granted(&mut b));
    let changes = b.unit.changes();
    b.write32(offset::PMEN, 1 << 31);
    assert!(b.unit.changes() > changes && !granted(&mut b));
    b.write32(offset::PMEN, 0);
    assert!(granted(&mut b));
    let changes = b.unit.changes();
    b.uncommand(global::TE);
    assert!(b.unit.changes() > changes && !granted(&mut b));
    let changes = b.unit.changes();
    b.unit.reset(&mut b.fx);
    assert!(b.unit.changes() > changes && !granted(&mut b));
    assert_eq!(b.codes(), []);
}

#[test]
fn translated_requests_of_legacy_mode_need_the_translation_type() {
    for (tt, code) in [(0, 0xd), (1, 0), (2, 0xd)] {
        let mut b = Bench::legacy(|_| {});
        b.legacy_context(SID, legacy_entry(tt, 0x9000).0);
        let access = Access::Write;
        let got = b
            .unit
            .translated_request(&b.ram, SID, None, 0x5000, access, &mut b.fx);
        let got = got.err().map_or(0, |blocked| match blocked {
            Blocked::Fault(reason) => reason.code(),
            other => panic!("{other}"),
        });
        assert_eq!(got, code, "TT {tt}");
    }
}

#[test]
fn protected_memory_is_refused_and_not_recorded() {
    let mut b = Bench::scalable(|c| c.protected_memory = true);
    b.pasid(SID, 0, pass_through(1));
    b.write32(offset::PLMBASE, 0x20_0000);
    b.write32(offset::PLMLIMIT, 0x20_0000);
    b.write(offset::PHMBASE, 1 << 32);
    b.write32(offset::PMEN, 1 << 31);
    assert_eq!(
        b.access(0x20_0000, Access::Read),
        Err(Blocked::ProtectedMemory)
    );
    assert_eq!(b.goes(0x1f_f000, Access::Read), Ok(0x1f_f000));
    let access = Access::Read;
    let translated = b
        .unit
        .translated_request(&b.ram, SID, None, 0x20_0000, access, &mut b.fx);
    assert_eq!(translated, Err(Blocked::ProtectedMemory));
    b.uncommand(global::TE);
    assert_eq!(
        b.access(0x20_0000, Access::Read),
        Err(Blocked::ProtectedMemory)
    );
    assert_eq!(b.codes(), []);
}

#[test]
fn a_zero_length_read_of_the_interrupt_range_bypasses_the_unit() {
    let mut b = Bench::new();
    let got = b.access(0xfee0_0000, Access::ZeroLengthRead);
    assert_eq!(got.map(|t| t.address), Ok(0xfee0_0000));
    assert_eq!(b.goes(0xfee0_0000, Access::Read), Err(0x87));
    assert_eq!(b.goes(0xfee0_0000, Access::Write), Err(0x87));
    let mut b = Bench::legacy(|_| {});
    assert_eq!(b.goes(0xfee0_0000, Access::Read), Err(0x0e));
}

#[test]
fn two_functions_with_one_pasid_have_two_address_spaces() {
    let mut b = Bench::new();
    let other = vtd::spec::SourceId(0x0110);
    let (one, two) = (b.page(), b.page());
    b.map_first(one, 0x1000, 0x800_0000, USER);
    b.map_first(two, 0x1000, 0x900_0000, USER);
    b.pasid(SID, 5, first_stage(one, 1));
    b.pasid(other, 5, first_stage(two, 1));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x800_0000));
    let request = Request {
        requester: other,
        ..request(Some(5), 0x1000, Access::Read)
    };
    assert_eq!(outcome(b.ask(&request)), Ok(0x900_0000));
}
