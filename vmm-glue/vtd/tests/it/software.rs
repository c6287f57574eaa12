// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of a shared address space, in the order of Linux's driver: boot, attachment, binding, a
//! page request, an unmapping, unbinding with its drain, and shutdown.

use crate::bench::*;
use pcie_ats::{
    InvalidateCompletion, PageRequest, Prgi, ResponseCode, Translation, TranslationRequest,
};
use vtd::spec::invalidation::IotlbInvalidate;
use vtd::spec::page_request::PageRequestDescriptor;
use vtd::spec::register::{global, offset, prs};
use vtd::{Access, Effect};

/// Addresses of this driver's invalidation queue and page request queue.
const OWN_QUEUE: u64 = 0x4_0000;
const OWN_PAGE_REQUESTS: u64 = 0x5_0000;
const PASID: u32 = 42;
/// The domain that Linux gives all first-stage address spaces of processes.
const SVA_DOMAIN: u16 = 1;

/// The driver.
struct Driver {
    b: Bench,
    tail: u64,
    status: u32,
}

impl Driver {
    /// Submits descriptors followed by a wait, lets the function complete its requests, and waits.
    fn submit(&mut self, descriptors: &[[u64; 2]], wait_flags: u64) {
        self.status += 1;
        let last = [u64::from(self.status) << 32 | 0x25 | wait_flags, STATUS];
        for words in descriptors.iter().chain([&last]) {
            self.b.store(OWN_QUEUE + self.tail, words);
            self.b.store(OWN_QUEUE + self.tail + 16, &[0, 0]);
            self.tail = (self.tail + 32) % 8192;
        }
        self.b.write32(offset::IQT, self.tail as u32);
        self.b.run();
        for effect in std::mem::take(&mut self.b.fx) {
            let Effect::InvalidateRequest { requester, request } = effect else {
                self.b.fx.push(effect);
                continue;
            };
            let completion = InvalidateCompletion {
                itag_vector: 1 << request.itag.get(),
                completion_count: 1,
            };
            let (ram, fx) = (&self.b.ram, &mut self.b.fx);
            let unit = &mut self.b.unit;
            unit.invalidate_completion(ram, requester, &completion, fx);
            self.b.run();
        }
        assert_eq!(
            self.b.ram.get(STATUS) as u32,
            self.status,
            "the wait never completed"
        );
        assert_eq!(self.b.read32(offset::FSTS), 0);
    }

    /// The function requests a translation.
    fn ats(&mut self, address: u64) -> Translation {
        let request = TranslationRequest {
            address,
            pages: 1,
            pasid: Some(pasid_of(PASID)),
            privileged: false,
            execute: false,
            no_write: false,
        };
        let mut found = [Translation::from_word(0)];
        let (ram, fx) = (&self.b.ram, &mut self.b.fx);
        let got = self
            .b
            .unit
            .translation_request(ram, SID, &request, &mut found, fx);
        assert_eq!(got, Ok(1));
        found[0]
    }

    /// The interrupts that the unit sent.
    fn interrupts(&mut self) -> Vec<u32> {
        let fx = self.b.effects();
        let messages = fx.into_iter().filter_map(|e| match e {
            Effect::Interrupt(m) => Some(m.data),
            _ => None,
        });
        messages.collect()
    }
}

#[test]
fn the_life_of_a_shared_address_space() {
    // Boot: faults are cleared and their interrupt is set up.
    let mut b = Bench::bare(|_| {});
    for n in 0..8 {
        b.write32(offset::FRCD + n * 16 + 12, 1 << 31);
    }
    for (at, data) in [(offset::FECTL, 0x21), (offset::PECTL, 0x22)] {
        b.write32(at + 4, data);
        b.write32(at + 8, 0xfee0_1000);
        b.write32(at + 12, 0);
        b.write32(at, 0);
    }
    // The queue of 256-bit descriptors is enabled while still in legacy mode.
    b.write32(offset::IQT, 0);
    b.write(offset::IQA, OWN_QUEUE | 1 << 11 | 1);
    b.command(global::QIE);
    assert_ne!(b.read32(offset::GSTS) & global::QIE, 0);
    let mut d = Driver {
        b,
        tail: 0,
        status: 0,
    };
    // The root table in scalable mode, with the global invalidations that older units need.
    d.b.write(offset::RTADDR, ROOT | 1 << 10);
    d.b.command(global::SRTP);
    assert_ne!(d.b.read32(offset::GSTS) & global::SRTP, 0);
    d.submit(&[CONTEXT_GLOBAL], 0);
    d.submit(&[PASID_GLOBAL], 0);
    d.submit(
        &[IotlbInvalidate::new()
            .with_g(1)
            .with_dw(true)
            .with_dr(true)
            .0],
        0,
    );
    // Page requests.
    d.b.write(offset::PQH, 0);
    d.b.write(offset::PQT, 0);
    d.b.write(offset::PQA, OWN_PAGE_REQUESTS | 4);
    d.b.command(global::TE);
    assert_ne!(d.b.read32(offset::GSTS) & global::TE, 0);

    // The function is attached to its default domain, and to a process.
    d.b.pasid(SID, 0, pass_through(2));
    let pgd = d.b.page();
    d.b.pasid(SID, PASID, first_stage(pgd, SVA_DOMAIN));
    assert_eq!(d.b.goes(0x1234_5000, Access::Write), Ok(0x1234_5000));

    // An untouched page: request, service, response, retry.
    let address = 0x7f12_3456_7000;
    assert!(!d.ats(address).read);
    let request = PageRequest {
        address,
        pasid: Some(pasid_of(PASID)),
        read: true,
        write: true,
        execute: false,
        privileged: false,
        prgi: Prgi::new(3).unwrap(),
        last: true,
    };
    d.b.unit.page_request(&d.b.ram, SID, &request, &mut d.b.fx);
    assert_eq!(d.interrupts(), [0x22]);
    d.b.write32(offset::PRS, prs::PPR);
    assert_eq!((d.b.read(offset::PQH), d.b.read(offset::PQT)), (0, 32));
    let found = PageRequestDescriptor::from_words(d.b.load(OWN_PAGE_REQUESTS)).unwrap();
    assert_eq!((found.rid, found.request), (SID, request));
    let entry = d.b.map_first(pgd, address, 0x800_0000, USER);
    d.b.write(offset::PQH, 32);
    d.submit(&[response(Some(PASID), 3, 0)], 0);
    let sent = d.b.effects();
    assert!(matches!(
        sent[..],
        [Effect::PrgResponse { requester: SID, response }]
            if response.code == ResponseCode::Success && response.prgi == request.prgi
    ));
    let t = d.ats(address);
    assert!(t.read && t.write && t.range.base() == 0x800_0000);
    assert_eq!(d.b.ram.get(entry) & (A | D), A | D);

    // The page is unmapped: translation first, then the function.
    let device_tlb = |address: u64, s: u64| {
        let pfsid = u64::from(SID.0 & 15) << 12 | u64::from(SID.0 >> 4) << 52;
        [
            u64::from(PASID) << 32 | u64::from(SID.0) << 16 | pfsid | 8,
            address | s << 11,
        ]
    };
    d.b.ram.set(entry, 0);
    d.submit(
        &[
            pasid_pages(SVA_DOMAIN, PASID, address, 0),
            device_tlb(address, 0),
        ],
        0,
    );
    assert!(!d.ats(address).read);

    // Unbinding: the entry is removed, then its cached copies; then come the drain with a fence,
    // the invalidations, and a wait for the page requests.
    let at = d.b.pasid_at(SID, PASID);
    d.b.ram.set(at, d.b.ram.get(at) & !1);
    let everything = device_tlb(0x7fff_ffff_ffff_f000, 1);
    d.submit(&[pasid_entry(SVA_DOMAIN, PASID)], 0);
    d.submit(&[pasid_all(SVA_DOMAIN, PASID)], 0);
    d.submit(&[everything], 0);
    d.b.store(at, &[0; 8]);
    d.submit(
        &[[0x45, 0], pasid_all(SVA_DOMAIN, PASID), everything],
        1 << 7,
    );
    assert!(!d.ats(address).read);
    assert_eq!(d.b.codes(), []);

    // The unit itself refuses a request that arrives too late.
    d.b.effects();
    d.b.unit.page_request(&d.b.ram, SID, &request, &mut d.b.fx);
    assert_eq!(d.b.codes(), [0x59]);
    let sent = d.b.effects();
    let refused = |e: &Effect| {
        matches!(e, Effect::PrgResponse { response, .. }
            if response.code == ResponseCode::InvalidRequest)
    };
    assert!(sent.iter().any(refused));

    // Shut-down.
    d.b.uncommand(global::TE);
    d.b.uncommand(global::QIE);
    assert_eq!(d.b.read32(offset::GSTS), global::SRTP);
}

#[test]
fn a_first_stage_alone_takes_what_linux_writes() {
    use vtd::config::Stages;
    let mut b = Bench::scalable(|c| {
        let s = c.scalable.as_mut().unwrap();
        let Stages::Both { first, .. } = s.stages else {
            panic!("the default has both stages");
        };
        s.stages = Stages::First(first);
        s.second_stage_dirty = false;
    });
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER);
    // AW is set in entries of all types.
    let mut e = first_stage(table, 1);
    e[0] |= 2 << 2;
    b.pasid(SID, PASID, e);
    assert_eq!(b.goes_pasid(PASID, 0x1000, Access::Write), Ok(0x800_0000));
    let mut e = pass_through(2);
    e[0] |= 2 << 2;
    b.pasid(SID, 0, e);
    assert_eq!(b.goes(0x1000, Access::Write), Ok(0x1000));
    // The unit does not support second-stage entries.
    b.pasid(SID, 9, [1 | 2 << 2 | 2 << 6, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(b.goes_pasid(9, 0x1000, Access::Write), Err(0x5b));
}
