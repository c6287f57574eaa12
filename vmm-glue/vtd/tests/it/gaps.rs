// SPDX-License-Identifier: MIT OR Apache-2.0
//! Features that other models of this unit lack (G1 to G31), with a test for each. Their defects
//! are in `defects.rs`. The list with the tests' names is in `docs/vtd.md`.

use crate::bench::*;
use pcie_ats::{
    AlignedRange, InvalidateCompletion, PageRequest, PasidWidth, Prgi, ResponseCode, Translation,
    TranslationError, TranslationRequest,
};
use vtd::config::{AddressWidth, Pasids, Scalable};
use vtd::spec::fault::{AddressType, FaultReason, FaultRecord, RequestKind};
use vtd::spec::register::{fsts, global, offset, prs};
use vtd::spec::{DomainId, SourceId};
use vtd::{Access, Config, Effect, Remapped, Request};

/// Changes the scalable part of a configuration.
pub(crate) fn scalable(change: impl FnOnce(&mut Scalable)) -> impl FnOnce(&mut Config) {
    |c| change(c.scalable.as_mut().expect("the default has scalable mode"))
}

/// With execute requests.
pub(crate) fn executes(s: &mut Scalable) {
    s.pasids = Some(Pasids {
        width: PasidWidth::MAX,
        execute_requests: true,
    });
}

pub(crate) fn page_request(pasid: Option<u32>, prgi: u16) -> PageRequest {
    PageRequest {
        address: 0x5000,
        pasid: pasid.map(pasid_of),
        read: true,
        write: false,
        execute: false,
        privileged: false,
        prgi: Prgi::new(prgi).unwrap(),
        last: true,
    }
}

impl Bench {
    pub(crate) fn page_request(&mut self, request: &PageRequest) {
        self.unit
            .page_request(&self.ram, SID, request, &mut self.fx);
    }

    pub(crate) fn ats(
        &mut self,
        pasid: Option<u32>,
        address: u64,
    ) -> Result<Translation, TranslationError> {
        self.ats_as(pasid, address, false, false)
    }

    pub(crate) fn ats_as(
        &mut self,
        pasid: Option<u32>,
        address: u64,
        privileged: bool,
        execute: bool,
    ) -> Result<Translation, TranslationError> {
        let request = TranslationRequest {
            address,
            pages: 1,
            pasid: pasid.map(pasid_of),
            privileged,
            execute,
            no_write: false,
        };
        let mut found = [Translation::from_word(0)];
        let (ram, fx) = (&self.ram, &mut self.fx);
        let got = self
            .unit
            .translation_request(ram, SID, &request, &mut found, fx);
        got.map(|_| found[0])
    }

    /// Maps the first pages of a bench onto themselves in a second stage.
    pub(crate) fn identity(&mut self, table: u64) {
        for page in (0x10_0000..0x14_0000u64).step_by(0x1000) {
            self.map_second(table, page, page, R | W | X);
        }
    }
}

#[test]
pub(crate) fn g01_nested_translation() {
    let mut b = Bench::new();
    assert!(b.unit.capabilities().ecap().nest());
    let (first, second) = (b.page(), b.page());
    b.identity(second);
    b.map_first(first, 0x1000, 0x800_0000, USER);
    b.map_second(second, 0x800_0000, 0x900_0000, R | W);
    b.pasid(SID, 5, nested(first, second, 1));
    assert_eq!(b.goes_pasid(5, 0x1234, Access::Write), Ok(0x900_0234));
}

#[test]
pub(crate) fn g02_both_stages_in_one_unit() {
    let mut b = Bench::new();
    let (first, second) = (b.page(), b.page());
    b.map_first(first, 0x1000, 0x800_0000, USER);
    b.map_second(second, 0x1000, 0x900_0000, R | W);
    b.pasid(SID, 5, first_stage(first, 1));
    b.pasid(SID, 6, second_stage(second, 2));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Write), Ok(0x800_0000));
    assert_eq!(b.goes_pasid(6, 0x1000, Access::Write), Ok(0x900_0000));
}

#[test]
pub(crate) fn g03_coherent_walks() {
    // A walk sets flags only if it is snooped (PWSNP).
    for (pwsnp, expected, flags) in [(1 << 23, Ok(0x800_0000), A), (0, Err(0x90), 0)] {
        let mut b = Bench::new();
        assert!(b.unit.capabilities().ecap().smpwcs());
        let table = b.page();
        let entry = b.map_first(table, 0x1000, 0x800_0000, USER);
        let mut e = first_stage(table, 1);
        e[1] = e[1] & !(1 << 23) | pwsnp;
        b.pasid(SID, 5, e);
        assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), expected);
        assert_eq!(b.ram.get(entry) & A, flags);
    }
}

#[test]
pub(crate) fn g04_five_levels() {
    let mut b = Bench::scalable(|c| c.second_stage_width = AddressWidth::Bits57);
    let cap = b.unit.capabilities().cap();
    assert!(cap.fs5lp() && cap.sagaw() & 8 != 0);
    let (first, second) = (b.page(), b.page());
    let address = 0x80_1234_5678_9000;
    b.map(first, 5, 1, address, 0x800_0000 | USER, USER);
    b.map(second, 5, 1, address, 0x900_0000 | R | W, R | W);
    let mut e = first_stage(first, 1);
    e[2] |= 1 << 2;
    b.pasid(SID, 5, e);
    let mut e = second_stage(second, 2);
    e[0] |= 1 << 2;
    b.pasid(SID, 6, e);
    assert_eq!(b.goes_pasid(5, address, Access::Write), Ok(0x800_0000));
    assert_eq!(b.goes_pasid(6, address, Access::Write), Ok(0x900_0000));
}

#[test]
pub(crate) fn g05_supervisor_requests() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, P | RW);
    let privileged = Request {
        privileged: true,
        ..request(Some(5), 0x1000, Access::Write)
    };
    b.pasid(SID, 5, first_stage(table, 1));
    assert_eq!(outcome(b.ask(&privileged)), Err(0x5d));
    let mut e = first_stage(table, 1);
    e[2] |= 1;
    b.pasid(SID, 5, e);
    b.submit(&[PASID_GLOBAL]);
    assert_eq!(outcome(b.ask(&privileged)), Ok(0x800_0000));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x81));
    // RID_PRIV makes requests without PASID privileged.
    let mut e = first_stage(table, 2);
    e[2] |= 1;
    b.pasid(SID, 0, e);
    let at = b.context_at(SID);
    b.ram.set(at + 8, 1 << 20);
    b.submit(&[CONTEXT_GLOBAL]);
    assert_eq!(b.goes(0x1000, Access::Write), Ok(0x800_0000));
}

#[test]
pub(crate) fn g06_execute_permission() {
    let mut b = Bench::scalable(scalable(executes));
    let (first, second) = (b.page(), b.page());
    b.map_first(first, 0x1000, 0x800_0000, USER);
    b.map_first(first, 0x2000, 0x800_1000, USER | XD);
    b.map_second(second, 0x1000, 0x900_0000, R | W | X);
    b.map_second(second, 0x2000, 0x900_1000, R | W);
    let mut e = first_stage(first, 1);
    // SRE, ERE, NXE, SMEP.
    e[2] |= 1 | 1 << 1 | 1 << 5 | 1 << 6;
    b.pasid(SID, 5, e);
    let mut e = second_stage(second, 2);
    e[0] |= 1 << 5;
    e[2] |= 1 << 1;
    b.pasid(SID, 6, e);
    let execute = |pasid, address, privileged| Request {
        execute: true,
        privileged,
        ..request(Some(pasid), address, Access::Read)
    };
    assert_eq!(outcome(b.ask(&execute(5, 0x1000, false))), Ok(0x800_0000));
    assert_eq!(outcome(b.ask(&execute(5, 0x2000, false))), Err(0x82));
    assert_eq!(outcome(b.ask(&execute(5, 0x1000, true))), Err(0x82));
    assert_eq!(outcome(b.ask(&execute(6, 0x1000, false))), Ok(0x900_0000));
    assert_eq!(outcome(b.ask(&execute(6, 0x2000, false))), Err(0x82));
    assert!(b.ats_as(Some(5), 0x1000, false, true).unwrap().execute);
    assert!(!b.ats_as(Some(5), 0x2000, false, true).unwrap().execute);
    assert!(!b.ats(Some(5), 0x1000).unwrap().execute);
    // EXR comes through a page request.
    b.page_request(&PageRequest {
        execute: true,
        ..page_request(Some(5), 1)
    });
    assert_eq!(b.ram.get(PAGE_REQUESTS) >> 52 & 1, 1);
    // A unit without them refuses.
    let mut b = Bench::new();
    b.pasid(SID, 5, first_stage(first, 1));
    assert_eq!(outcome(b.ask(&execute(5, 0x1000, false))), Err(0x5c));
}

#[test]
pub(crate) fn g07_write_protect_and_extended_accessed() {
    for (wpe, expected) in [(0, Ok(0x800_0000)), (1 << 4, Err(0x85))] {
        let mut b = Bench::new();
        let table = b.page();
        let entry = b.map_first(table, 0x1000, 0x800_0000, P | US);
        let mut e = first_stage(table, 1);
        e[2] |= 1 | wpe | 1 << 7;
        b.pasid(SID, 5, e);
        let write = Request {
            privileged: true,
            ..request(Some(5), 0x1000, Access::Write)
        };
        assert_eq!(outcome(b.ask(&write)), expected);
        assert!(b.goes_pasid(5, 0x1000, Access::Read).is_ok());
        assert_eq!(b.ram.get(entry) >> 10 & 1, 1);
    }
}

#[test]
pub(crate) fn g08_second_stage_accessed_and_dirty() {
    let mut b = Bench::new();
    assert!(b.unit.capabilities().ecap().ssads());
    let table = b.page();
    let entry = b.map_second(table, 0x1000, 0x800_0000, R | W);
    let mut e = second_stage(table, 1);
    e[0] |= 1 << 9;
    b.pasid(SID, 0, e);
    assert!(b.goes(0x1000, Access::Write).is_ok());
    assert_eq!(b.ram.get(entry) & (SS_A | SS_D), SS_A | SS_D);
    assert_eq!(b.ram.get(table) & (SS_A | SS_D), SS_A);
}

#[test]
pub(crate) fn g09_flags_by_compare_and_swap_also_for_cached_pages() {
    let mut b = Bench::new();
    let table = b.page();
    let entry = b.map_first(table, 0x1000, 0x800_0000, USER);
    b.pasid(SID, 5, first_stage(table, 1));
    assert!(b.goes_pasid(5, 0x1000, Access::Read).is_ok());
    // A processor takes the page away just before D is set.
    *b.ram.before_swap.borrow_mut() = Some(Box::new(move |ram, at| {
        if at == entry {
            ram.set(entry, 0);
        }
    }));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Write), Err(0x71));
    assert_eq!(b.ram.get(entry), 0);
}

#[test]
pub(crate) fn g10_page_requests_and_responses_without_pasid() {
    let mut b = Bench::new();
    b.pasid(SID, 0, pass_through(1));
    b.page_request(&page_request(None, 7));
    assert_eq!(b.ram.get(PAGE_REQUESTS), u64::from(SID.0) << 16 | 1);
    b.fx.clear();
    b.submit(&[response(None, 7, 0)]);
    assert_eq!(b.read32(offset::FSTS), 0);
    assert!(matches!(
        b.effects()[..],
        [Effect::PrgResponse { requester: SID, response }]
            if response.pasid.is_none() && response.prgi.get() == 7
    ));
}

#[test]
pub(crate) fn g11_stop_markers() {
    let mut b = Bench::new();
    assert!(b.unit.capabilities().ecap().sms());
    let table = b.page();
    b.pasid(SID, 5, first_stage(table, 1));
    b.page_request(&PageRequest {
        read: false,
        ..page_request(Some(5), 0)
    });
    assert_eq!(b.ram.get(PAGE_REQUESTS + 8) & 7, 4);
}

#[test]
pub(crate) fn g12_draining() {
    let mut b = Bench::new();
    let ticket = b.unit.begin_access();
    assert!(!b.submit_and_wait(&[IOTLB_GLOBAL]));
    b.unit.end_access(&b.ram, ticket, &mut b.fx);
    assert_eq!(b.ram.get(STATUS), 1);
}

#[test]
pub(crate) fn g13_snooping() {
    let mut b = Bench::new();
    let (first, second) = (b.page(), b.page());
    b.map_first(first, 0x1000, 0x800_0000, USER);
    b.map_second(second, 0x1000, 0x900_0000, R | W | SNP);
    let mut e = first_stage(first, 1);
    e[1] |= 1 << 24;
    b.pasid(SID, 5, e);
    b.pasid(SID, 6, second_stage(second, 2));
    for pasid in [5, 6] {
        assert!(b.access_pasid(pasid, 0x1000, Access::Read).unwrap().snoop);
        assert!(b.ats(Some(pasid), 0x1000).unwrap().non_snooped);
    }
    // Walks that are not snooped cannot set flags.
    let mut e = first_stage(first, 3);
    e[1] &= !(1 << 23);
    b.pasid(SID, 7, e);
    b.map_first(first, 0x2000, 0x800_0000, USER);
    assert_eq!(b.goes_pasid(7, 0x2000, Access::Read), Err(0x90));
    // Memory types are not supported, and their fields reserved: CD, EMTE, PAT.
    for bit in [25, 26, 32] {
        let mut e = first_stage(first, 1);
        e[1] |= 1 << bit;
        b.pasid(SID, 8, e);
        assert_eq!(b.goes_pasid(8, 0x1000, Access::Read), Err(0x5a));
    }
}

#[test]
pub(crate) fn g14_rid_pasid() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER);
    b.pasid(SID, 9, first_stage(table, 1));
    let at = b.context_at(SID);
    b.ram.set(at + 8, 9);
    assert_eq!(b.goes(0x1000, Access::Read), Ok(0x800_0000));
}

#[test]
pub(crate) fn g15_abort_dma_mode() {
    let mut b = Bench::new();
    b.pasid(SID, 0, pass_through(1));
    b.write(offset::RTADDR, ROOT | 3 << 10);
    b.command(global::SRTP);
    assert_eq!(b.goes(0x1000, Access::Read), Err(0x33));
    assert_eq!(
        b.ats(None, 0x1000),
        Err(TranslationError::UnsupportedRequest)
    );
}

#[test]
pub(crate) fn g16_context_entry_enables() {
    for (bit, ats, access, page) in [
        (
            2,
            Err(TranslationError::UnsupportedRequest),
            Ok(0x800_0000),
            0x43,
        ),
        (
            3,
            Err(TranslationError::UnsupportedRequest),
            Err(0x45),
            0x45,
        ),
        (4, Ok(true), Ok(0x800_0000), 0x47),
    ] {
        let mut b = Bench::new();
        let table = b.page();
        b.map_first(table, 0x1000, 0x800_0000, USER);
        b.pasid(SID, 5, first_stage(table, 1));
        let at = b.context_at(SID);
        // DTE can be clear only together with PRE.
        let clear = if bit == 2 { 1 << 2 | 1 << 4 } else { 1 << bit };
        b.ram.set(at, b.ram.get(at) & !clear);
        assert_eq!(b.ats(Some(5), 0x1000).map(|t| t.read), ats, "bit {bit}");
        assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), access, "bit {bit}");
        b.codes();
        b.page_request(&page_request(Some(5), 1));
        let page = if bit == 2 { 0x47 } else { page };
        assert_eq!(b.codes(), [page], "bit {bit}");
    }
}

#[test]
pub(crate) fn g17_translated_requests_are_checked() {
    let mut b = Bench::legacy(|_| {});
    let mut blocked = Vec::new();
    for tt in [0, 1, 2] {
        b.legacy_context(SID, legacy_entry(tt, 0x9000).0);
        b.submit(&[CONTEXT_GLOBAL]);
        let (ram, fx) = (&b.ram, &mut b.fx);
        let got = b
            .unit
            .translated_request(ram, SID, None, 0x5000, Access::Read, fx);
        blocked.push(got.is_err());
    }
    assert_eq!(blocked, [true, false, true]);
}

#[test]
pub(crate) fn g18_fields_of_translations() {
    let mut b = Bench::new();
    let table = b.page();
    // G of a first-stage entry is not passed on.
    b.map_first(table, 0x1000, 0x800_0000, USER | 1 << 8);
    b.pasid(SID, 5, first_stage(table, 1));
    b.pasid(SID, 0, pass_through(2));
    let t = b.ats(Some(5), 0x1000).unwrap();
    assert!(t.read && t.write && !t.global && !t.untranslated_only && !t.non_snooped);
    assert_eq!(t.range, AlignedRange::page(0x800_0000));
    let t = b.ats(None, 0xfee0_0000).unwrap();
    assert!(t.untranslated_only && t.write && !t.read);
}

#[test]
pub(crate) fn g19_device_tlb_invalidation_is_asynchronous_and_times_out() {
    let mut b = Bench::new();
    let invalidate = [
        u64::from(SID.0) << 32 | u64::from(SID.0 & 15) << 12 | u64::from(SID.0 >> 4) << 52 | 3,
        0,
    ];
    assert!(!b.submit_and_wait(&[invalidate]));
    let completion = InvalidateCompletion {
        itag_vector: 1,
        completion_count: 1,
    };
    b.unit
        .invalidate_completion(&b.ram, SID, &completion, &mut b.fx);
    assert_eq!(b.ram.get(STATUS), 1);
    // Late is too late: first ITE, then ICE.
    assert!(!b.submit_and_wait(&[invalidate]));
    let deadline = b.unit.next_timeout().expect("a request is pending");
    b.unit.advance(deadline, &mut b.fx);
    assert_eq!(b.read32(offset::FSTS), fsts::ITE);
    let late = InvalidateCompletion {
        itag_vector: 2,
        ..completion
    };
    b.unit.invalidate_completion(&b.ram, SID, &late, &mut b.fx);
    assert_eq!(b.read32(offset::FSTS), fsts::ITE | fsts::ICE);
    let sid = u64::from(SID.0);
    assert_eq!(b.read(offset::IQERCD) >> 32, sid << 16 | sid);
}

#[test]
pub(crate) fn g20_throttling_by_physical_function() {
    let mut b = Bench::new();
    assert!(b.unit.capabilities().ecap().dit());
    // Two virtual functions of the physical function 0x0100, which takes one at a time.
    let invalidate = |sid: u64| [0x010 << 52 | sid << 32 | 1 << 16 | 3, 0];
    b.submit(&[invalidate(0x0108), invalidate(0x0110)]);
    assert_eq!(b.unit.pending_invalidations(), 1);
    let completion = InvalidateCompletion {
        itag_vector: 1,
        completion_count: 1,
    };
    b.fx.clear();
    b.unit
        .invalidate_completion(&b.ram, SID, &completion, &mut b.fx);
    b.run();
    let sent = b.effects();
    assert!(matches!(
        sent[..],
        [Effect::InvalidateRequest {
            requester: SourceId(0x0110),
            ..
        }]
    ));
}

#[test]
pub(crate) fn g21_fault_records() {
    let mut b = Bench::new();
    assert_eq!(b.unit.capabilities().cap().fault_recording_registers(), 8);
    for pasid in [0x3ffe, 0x3fff] {
        b.context(SID);
        b.ask(&Request {
            privileged: true,
            ..request(Some(pasid), 0x1000, Access::Write)
        })
        .unwrap_err();
    }
    let faults = b.faults();
    assert_eq!(faults.len(), 2);
    assert_eq!(faults[1].pasid, Some(0x3fff));
    assert!(faults[1].privileged);
}

#[test]
pub(crate) fn g22_overflow_of_the_page_request_queue() {
    let mut b = Bench::new();
    b.pasid(SID, 0, pass_through(1));
    for n in 0..128 {
        b.page_request(&PageRequest {
            last: n == 127,
            ..page_request(None, 3)
        });
    }
    assert_eq!(b.read32(offset::PRS), prs::PPR | prs::PRO);
    assert!(matches!(
        b.effects()[..],
        [Effect::PrgResponse { requester: SID, response }]
            if response.code == ResponseCode::Success
    ));
}

#[test]
pub(crate) fn g23_optional_registers_are_reported_absent_and_protected_memory_works() {
    let mut b = Bench::scalable(|c| c.protected_memory = true);
    let caps = *b.unit.capabilities();
    // ECMDS; PMS, VCS, MTS.
    assert_eq!(caps.cap().0 >> 61 & 1, 0);
    assert_eq!(caps.ecap().0 & (1 << 51 | 1 << 44 | 1 << 25), 0);
    for at in [0x100, 0x180, 0x300, 0x400, 0xe00, 0xe30] {
        b.write(at, u64::MAX);
        assert_eq!(b.read(at), 0, "{at:#x}");
    }
    assert!(caps.cap().plmr() && caps.cap().phmr());
    b.pasid(SID, 0, pass_through(1));
    assert_eq!(b.goes(0x20_0000, Access::Read), Ok(0x20_0000));
    b.write32(offset::PLMBASE, 0x20_0000);
    b.write32(offset::PLMLIMIT, 0x20_0000);
    b.write32(offset::PMEN, 1 << 31);
    let blocked = b.access(0x20_0000, Access::Read);
    assert_eq!(blocked, Err(vtd::Blocked::ProtectedMemory));
    assert_eq!(b.goes(0x40_0000, Access::Read), Ok(0x40_0000));
}

#[test]
pub(crate) fn g24_posted_interrupts() {
    let mut b = Bench::scalable(|c| c.interrupt_remapping.as_mut().unwrap().posted = true);
    b.write(offset::IRTA, INTERRUPTS | 1 << 11 | 7);
    b.command(global::SIRTP);
    b.command(global::IRE);
    b.store(INTERRUPTS, &[0x20_0000 << 32 | 0x47 << 16 | 1 << 15 | 1, 0]);
    let request = vtd::spec::interrupt::Message {
        address: 0xfee0_0010,
        data: 0,
    };
    let got = b.unit.remap_interrupt(&b.ram, None, request, &mut b.fx);
    assert!(matches!(got, Ok(Remapped::Posted(Some(_)))));
    assert_eq!(b.ram.get(0x20_0008), 1 << 7);
}

#[test]
pub(crate) fn g25_context_invalidation_by_domain() {
    let mut b = Bench::legacy(|_| {});
    let other = SourceId(0x0110);
    b.legacy_context(SID, legacy_entry(2, 0).with_did(DomainId(7)).0);
    b.legacy_context(other, legacy_entry(2, 0).with_did(DomainId(8)).0);
    let from_other = Request {
        requester: other,
        ..request(None, 0x1000, Access::Read)
    };
    assert!(b.goes(0x1000, Access::Read).is_ok() && b.ask(&from_other).is_ok());
    b.legacy_context(SID, [0, 0]);
    b.legacy_context(other, [0, 0]);
    b.submit(&[context_domain(7)]);
    assert_eq!(b.goes(0x1000, Access::Read), Err(2));
    assert!(b.ask(&from_other).is_ok());
}

#[test]
pub(crate) fn g26_pasids_beyond_the_directory() {
    let mut b = Bench::new();
    b.context(SID);
    // PDTS = 1: 256 directory entries of 64 PASIDs.
    assert_eq!(b.goes_pasid(0x4000, 0x1000, Access::Read), Err(0x46));
    assert_eq!(b.goes_pasid(0x3fff, 0x1000, Access::Read), Err(0x51));
    let mut b = Bench::scalable(scalable(|s| {
        s.pasids.as_mut().unwrap().width = PasidWidth::new(8).unwrap();
    }));
    b.context(SID);
    assert_eq!(b.goes_pasid(0x100, 0x1000, Access::Read), Err(0x89));
}

#[test]
pub(crate) fn g27_reserved_bits_of_pasid_entries() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER);
    // Bit, and whether it is reserved in an entry for the first stage. NXE and SMEP are ignored.
    for (bit, reserved) in [
        (5, true),
        (10, true),
        (11, true),
        (63, true),
        (64 + 16, true),
        (64 + 25, true),
        (64 + 63, true),
        (128 + 1, true),
        (128 + 5, false),
        (128 + 6, false),
        (128 + 8, true),
        (128 + 46, true),
        (192, true),
        (511, true),
    ] {
        let mut e = first_stage(table, 1);
        e[bit / 64] |= 1 << (bit % 64);
        b.pasid(SID, 5, e);
        b.submit(&[PASID_GLOBAL, IOTLB_GLOBAL]);
        let expected = if reserved { Err(0x5a) } else { Ok(0x800_0000) };
        assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), expected, "bit {bit}");
    }
}

#[test]
pub(crate) fn g28_faults_of_functions_that_are_passed_through() {
    let mut b = Bench::new();
    b.write32(offset::FECTL, 0);
    let record = FaultRecord {
        fi: 0x7000,
        sid: SID,
        fr: FaultReason::FirstStageEntryNotPresent,
        pasid: Some(5),
        exe: false,
        privileged: false,
        kind: RequestKind::Write,
        at: AddressType::Untranslated,
    };
    b.unit.report_fault(&record, &mut b.fx);
    assert!(matches!(b.effects()[..], [Effect::Interrupt(_)]));
    assert_eq!(b.faults(), [record]);
}

#[test]
pub(crate) fn g29_every_pasid_gets_its_responses() {
    let mut b = Bench::new();
    for pasid in [5, 6] {
        b.submit(&[response(Some(pasid), 7, 0)]);
        assert!(matches!(
            b.effects()[..],
            [Effect::PrgResponse { response, .. }] if response.pasid == Some(pasid_of(pasid))
        ));
    }
}

#[test]
pub(crate) fn g30_untranslated_requests_with_20_bits_of_pasid() {
    let mut b = Bench::new();
    let at = b.context_at(SID);
    b.context(SID);
    // PDTS = 7.
    b.ram.set(at, b.ram.get(at) | 7 << 9);
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER);
    b.pasid(SID, 0xf_ffff, first_stage(table, 1));
    assert_eq!(b.goes_pasid(0xf_ffff, 0x1000, Access::Read), Ok(0x800_0000));
}

/// Every row of the table names an existing test, or says why there is none.
#[test]
fn the_table_of_the_documentation_names_these_tests() {
    let document = include_str!("../../../../docs/vtd.md");
    let here = concat!(include_str!("gaps.rs"), include_str!("defects.rs"));
    let gaps = (1..=31).map(|n| format!("G{n}"));
    let defects = (1..=13).map(|n| format!("B{n}"));
    for name in gaps.chain(defects) {
        let start = format!("| {name} | ");
        let row = document.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("docs/vtd.md has no row {name}"));
        let named = row
            .split('`')
            .find(|word| here.contains(&format!("fn {word}()")));
        let number = format!("{:02}", name[1..].parse::<u8>().unwrap());
        let prefix = format!("{}{number}_", name[..1].to_lowercase());
        match named {
            Some(test) => assert!(test.starts_with(&prefix), "{row}"),
            None => assert!(row.contains("out of scope"), "{row}"),
        }
    }
    let tests = here
        .lines()
        .filter_map(|line| line.strip_prefix("pub(crate) fn "));
    for test in tests.filter_map(|line| line.split_once("() {")) {
        let known = document.contains(&format!("`{}`", test.0));
        let numbered = test.0.as_bytes()[1].is_ascii_digit();
        assert!(known || !numbered, "docs/vtd.md lacks {}", test.0);
    }
}
