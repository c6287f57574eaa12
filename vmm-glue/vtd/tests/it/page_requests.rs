// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page request queue: queued, refused and answered requests.

use crate::bench::*;
use pcie_ats::{PageRequest, PrgResponse, Prgi, ResponseCode};
use vtd::spec::invalidation::InvalidationWait;
use vtd::spec::page_request::PageRequestDescriptor;
use vtd::spec::register::{global, offset, prs};
use vtd::{Access, Effect};

fn page(pasid: Option<u32>, address: u64, prgi: u16, last: bool) -> PageRequest {
    PageRequest {
        address,
        pasid: pasid.map(pasid_of),
        read: true,
        write: true,
        execute: false,
        privileged: false,
        prgi: Prgi::new(prgi).expect("a group index"),
        last,
    }
}

impl Bench {
    fn ask_for(&mut self, request: &PageRequest) {
        self.unit
            .page_request(&self.ram, SID, request, &mut self.fx);
        self.run();
    }

    /// The responses that were sent.
    fn responses(&mut self) -> Vec<PrgResponse> {
        let fx = self.effects();
        let sent = fx.into_iter().filter_map(|e| match e {
            Effect::PrgResponse {
                requester: SID,
                response,
            } => Some(response),
            _ => None,
        });
        sent.collect()
    }

    /// The contents of the queue.
    fn requested(&self) -> Vec<PageRequest> {
        let (head, tail) = (self.read(offset::PQH), self.read(offset::PQT));
        let size = 4096 << (self.read(offset::PQA) & 7);
        let base = self.read(offset::PQA) & !0xfff;
        let mut at = head;
        let mut found = Vec::new();
        while at != tail {
            let words = self.load(base + at);
            assert_eq!(words[2..], [0, 0]);
            let descriptor = PageRequestDescriptor::from_words(words).unwrap();
            assert_eq!(descriptor.rid, SID);
            found.push(descriptor.request);
            at = (at + 32) % size;
        }
        found
    }
}

/// A unit with an address space of each kind: PASID 5 first stage, 6 second, 7 pass-through, 8
/// nested, and one for requests without PASID.
fn unit() -> Bench {
    let mut b = Bench::new();
    let (first, second) = (b.page(), b.page());
    b.pasid(SID, 0, second_stage(second, 9));
    b.pasid(SID, 5, first_stage(first, 1));
    b.pasid(SID, 6, second_stage(second, 2));
    b.pasid(SID, 7, pass_through(3));
    b.pasid(SID, 8, nested(first, second, 4));
    b.write32(offset::PECTL, 0);
    b
}

#[test]
fn a_request_is_put_into_the_queue_as_it_came() {
    let mut b = unit();
    let mut requests = Vec::new();
    for pasid in [None, Some(5), Some(6), Some(7), Some(8)] {
        let mut request = page(pasid, 0x1234_5000, 0x155, true);
        request.privileged = true;
        request.execute = pasid.is_some();
        requests.push(request);
        b.ask_for(&request);
    }
    assert_eq!(b.requested(), requests);
    assert_eq!(b.read32(offset::PRS), prs::PPR);
    // One event for all of them.
    assert_eq!(b.effects().len(), 1);
    assert_eq!(b.codes(), []);
}

#[test]
pub(crate) fn the_queue_wraps_at_every_size() {
    for size in 0..8u64 {
        let mut b = unit();
        b.write(offset::PQA, 0x2000_0000 | size);
        let entries = 128u64 << size;
        for n in 0..entries + 3 {
            let request = page(Some(5), n << 12, 0, false);
            b.ask_for(&request);
            assert_eq!(b.read(offset::PQT), (n + 1) % entries * 32, "size {size}");
            assert_eq!(b.requested(), [request], "size {size}");
            b.write(offset::PQH, b.read(offset::PQT));
        }
        assert_eq!(b.read(offset::PQT), 3 * 32);
    }
}

#[test]
fn a_full_queue_overflows_and_groups_are_answered_with_success() {
    let mut b = unit();
    for n in 0..127 {
        b.ask_for(&page(Some(5), n << 12, 1, false));
    }
    assert_eq!(b.read32(offset::PRS), prs::PPR);
    b.effects();
    b.ask_for(&page(Some(5), 0x1000, 2, false));
    assert_eq!(b.read32(offset::PRS), prs::PPR | prs::PRO);
    // A request that does not close its group is dropped without a response.
    assert_eq!(b.effects(), []);
    b.ask_for(&page(Some(5), 0x1000, 2, true));
    b.ask_for(&page(None, 0x1000, 3, true));
    let success = |prgi, pasid: Option<u32>| PrgResponse {
        prgi: Prgi::new(prgi).unwrap(),
        pasid: pasid.map(pasid_of),
        code: ResponseCode::Success,
    };
    assert_eq!(b.responses(), [success(2, Some(5)), success(3, None)]);
    // Room alone does not help: PRO stays until software clears it.
    b.write(offset::PQH, b.read(offset::PQT));
    b.write32(offset::PRS, prs::PPR);
    b.ask_for(&page(Some(5), 0x1000, 4, true));
    assert_eq!(
        (b.requested(), b.responses()),
        (vec![], vec![success(4, Some(5))])
    );
    b.write32(offset::PRS, prs::PRO);
    b.ask_for(&page(Some(5), 0x1000, 5, true));
    assert_eq!((b.requested().len(), b.effects().len()), (1, 1));
    assert_eq!(b.unit.counters().page_requests_refused, 4);
    assert_eq!(b.codes(), []);
}

#[test]
fn stop_markers_are_queued_and_never_answered() {
    let mut b = unit();
    let marker = PageRequest {
        read: false,
        write: false,
        ..page(Some(5), 0, 0, true)
    };
    b.ask_for(&marker);
    assert_eq!(b.requested(), [marker]);
    b.effects();
    for n in 0..127 {
        b.ask_for(&page(Some(5), n << 12, 1, false));
    }
    b.ask_for(&marker);
    b.pasid(SID, 5, [0; 8]);
    b.submit(&[PASID_GLOBAL]);
    b.ask_for(&marker);
    assert_eq!(b.responses(), []);
}

/// A change by software.
type Change<'a> = &'a dyn Fn(&mut Bench);

#[test]
fn what_the_tables_refuse_is_answered_as_invalid_and_recorded() {
    let clear = |b: &mut Bench, bit: u64| {
        let at = b.context_at(SID);
        b.ram.set(at, b.ram.get(at) & !bit);
    };
    let cases: &[(u8, Change)] = &[
        (0x47, &|b| clear(b, 1 << 4)),
        (0x43, &|b| clear(b, 1 << 2)),
        (0x41, &|b| clear(b, 1)),
        (0x39, &|b| b.ram.set(ROOT + 16, 0)),
        (0x45, &|b| clear(b, 1 << 3)),
        (0x46, &|b| clear(b, 1 << 9)),
        (0x51, &|b| {
            let directory = b.context(SID);
            b.ram.set(directory + 128 * 8, 0);
        }),
        (0x59, &|b| b.pasid(SID, 8192, [0; 8])),
        (0x5a, &|b| {
            b.pasid(SID, 8192, [1 | 1 << 6, 0, 0, 1, 0, 0, 0, 0])
        }),
        (0x5b, &|b| b.pasid(SID, 8192, [1, 0, 0, 0, 0, 0, 0, 0])),
        (0x48, &|b| {
            let at = b.context_at(SID);
            b.ram.set(at + 8, 8192);
        }),
        (0x32, &|b| {
            b.write(offset::RTADDR, ROOT);
            b.command(global::SRTP);
        }),
        (0x33, &|b| {
            b.write(offset::RTADDR, ROOT | 3 << 10);
            b.command(global::SRTP);
        }),
        (0x30, &|b| {
            b.write(offset::RTADDR, ROOT | 2 << 10);
            b.command(global::SRTP);
        }),
    ];
    for (code, change) in cases {
        let mut b = unit();
        let table = b.page();
        b.pasid(SID, 8192, first_stage(table, 1));
        change(&mut b);
        b.ask_for(&page(Some(8192), 0x5000, 1, false));
        assert_eq!(b.responses(), [], "{code:#x}");
        b.ask_for(&page(Some(8192), 0x6000, 1, true));
        let responses = b.responses();
        assert_eq!(responses.len(), 1, "{code:#x}");
        assert_eq!(responses[0].code, ResponseCode::InvalidRequest);
        let faults = b.faults();
        assert_eq!(faults.len(), 2, "{code:#x}");
        for fault in faults {
            assert_eq!((fault.fr.code(), fault.sid), (*code, SID));
            assert_eq!(fault.kind, vtd::spec::fault::RequestKind::Page);
            assert_eq!(fault.pasid, Some(8192));
        }
        assert_eq!(b.requested(), [], "{code:#x}");
    }
}

#[test]
fn requests_without_a_queue_or_a_unit_that_works_are_invalid() {
    let invalid = |b: &mut Bench| {
        b.ask_for(&page(Some(5), 0x5000, 1, true));
        let responses = b.responses();
        assert_eq!(responses.len(), 1);
        assert_eq!(responses[0].code, ResponseCode::InvalidRequest);
        assert_eq!(b.codes(), []);
    };
    let mut b = unit();
    b.uncommand(global::TE);
    b.effects();
    invalid(&mut b);
    let mut b = Bench::scalable(|c| c.device_tlbs.as_mut().unwrap().page_requests = false);
    invalid(&mut b);
    // Software never gave the unit a queue.
    let mut b = Bench::bare(|_| {});
    b.write(offset::RTADDR, ROOT | 1 << 10);
    b.command(global::SRTP);
    b.command(global::TE);
    let table = b.page();
    b.pasid(SID, 5, first_stage(table, 1));
    b.effects();
    invalid(&mut b);
    assert_eq!(b.ram.get(0), 0);
}

#[test]
fn requests_whose_descriptor_cannot_be_written_are_failures() {
    let mut b = unit();
    b.ram.holes.borrow_mut().push(PAGE_REQUESTS);
    b.ask_for(&page(Some(5), 0x5000, 1, false));
    assert_eq!(b.responses(), []);
    b.ask_for(&page(Some(5), 0x6000, 1, true));
    let responses = b.responses();
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].code, ResponseCode::ResponseFailure);
    // It is not an address fault, and the queue is unchanged.
    assert_eq!(b.codes(), []);
    assert_eq!((b.read(offset::PQT), b.read32(offset::PRS)), (0, 0));
    b.ram.holes.borrow_mut().clear();
    let again = page(Some(5), 0x6000, 1, true);
    b.ask_for(&again);
    assert_eq!(b.requested(), [again]);
}

#[test]
fn responses_go_to_the_function_and_unknown_groups_are_counted() {
    let mut b = unit();
    b.ask_for(&page(Some(5), 0x5000, 1, true));
    b.ask_for(&page(None, 0x5000, 2, true));
    b.effects();
    let sent = |b: &mut Bench, descriptor| {
        b.submit(&[descriptor]);
        let responses = b.responses();
        assert_eq!(responses.len(), 1);
        let r = responses[0];
        (r.pasid.map(pcie_ats::Pasid::get), r.prgi.get(), r.code)
    };
    // Out of order.
    let got = sent(&mut b, response(None, 2, 1));
    assert_eq!(got, (None, 2, ResponseCode::InvalidRequest));
    let got = sent(&mut b, response(Some(5), 1, 0));
    assert_eq!(got, (Some(5), 1, ResponseCode::Success));
    assert_eq!(b.unit.counters().unexpected_responses, 0);
    let got = sent(&mut b, response(Some(5), 1, 0xf));
    assert_eq!(got, (Some(5), 1, ResponseCode::ResponseFailure));
    let got = sent(&mut b, response(Some(6), 9, 7));
    assert_eq!(got.2, ResponseCode::ResponseFailure);
    assert_eq!(b.unit.counters().unexpected_responses, 2);
}

/// A function that is reset gives up its groups without notice. However often that happens, its
/// later requests are known.
#[test]
fn groups_that_were_given_up_do_not_make_later_ones_unknown() {
    let mut b = unit();
    for pasid in 100..230 {
        b.pasid(SID, pasid, pass_through(1));
        for prgi in 0..512 {
            let head = b.read(offset::PQT);
            b.write(offset::PQH, head);
            b.ask_for(&page(Some(pasid), 0x5000, prgi, true));
        }
    }
    b.ask_for(&page(Some(5), 0x5000, 9, true));
    b.effects();
    b.submit(&[response(Some(5), 9, 0)]);
    assert_eq!(b.unit.counters().unexpected_responses, 0);
    // The index now belongs to another PASID's group.
    b.ask_for(&page(Some(6), 0x5000, 9, true));
    b.submit(&[response(Some(5), 9, 0)]);
    assert_eq!(b.unit.counters().unexpected_responses, 1);
}

/// With RID_PASID, a request without PASID is still reported without one.
#[test]
fn a_request_without_pasid_is_told_without_one_whatever_rid_pasid_is() {
    let mut b = unit();
    let at = b.context_at(SID);
    b.context(SID);
    // RID_PASID = 5, RID_PRIV.
    b.ram.set(at + 8, 5 | 1 << 20);
    b.submit(&[CONTEXT_GLOBAL, PASID_GLOBAL]);
    b.effects();
    b.pasid(SID, 5, pass_through(1));
    b.ask_for(&page(None, 0x5000, 3, true));
    let [w0, _] = b.load(PAGE_REQUESTS);
    assert_eq!(w0 >> 8 & 1, 0, "PP");
    assert_eq!(w0 >> 32 & 0xf_ffff, 0, "PASID");
    assert_eq!(w0 >> 53 & 1, 0, "PMR");
}

/// A stop marker needs no response.
#[test]
fn a_stop_marker_that_meets_a_full_queue_is_not_answered() {
    let mut b = unit();
    for n in 0..127 {
        b.ask_for(&page(Some(5), 0x5000, n, true));
    }
    b.effects();
    let marker = PageRequest {
        read: false,
        write: false,
        ..page(Some(5), 0, 200, true)
    };
    b.ask_for(&marker);
    assert_eq!(b.read32(offset::PRS) & prs::PRO, prs::PRO);
    assert_eq!(b.responses(), []);
    // A request that is not a marker is answered.
    b.ask_for(&page(Some(5), 0x5000, 201, true));
    assert_eq!(b.responses().len(), 1);
}

/// The queue shrank under its head.
#[test]
fn a_head_beyond_the_queue_counts_modulo_its_size() {
    let mut b = unit();
    b.write(offset::PQH, 4096 + 64);
    b.ask_for(&page(Some(5), 0x5000, 1, true));
    assert_eq!(b.read(offset::PQT), 32);
    b.ask_for(&page(Some(5), 0x5000, 2, true));
    // The queue is full except for one entry.
    assert_eq!(b.read(offset::PQT), 32);
    assert_eq!(b.read32(offset::PRS) & prs::PRO, prs::PRO);
}

#[test]
fn a_page_request_invalidates_the_page_that_it_is_for() {
    let mut b = unit();
    let (first, second) = (b.page(), b.page());
    // Read-only pages, all of them cached.
    for n in [1u64, 2] {
        b.map_first(first, n << 12, 0x800_0000 + (n << 12), P | US | A);
        b.map_second(second, n << 12, 0x800_0000 + (n << 12), R);
    }
    b.pasid(SID, 5, first_stage(first, 1));
    b.pasid(SID, 6, second_stage(second, 2));
    b.pasid(SID, 0, second_stage(second, 9));
    b.submit(&[PASID_GLOBAL, IOTLB_GLOBAL]);
    for pasid in [Some(5), Some(6), None] {
        for n in [1u64, 2] {
            assert!(b.ask(&request(pasid, n << 12, Access::Read)).is_ok());
        }
        b.ask_for(&page(pasid, 0x1000, 1, true));
        let walks = b.unit.counters().page_walks;
        assert!(b.ask(&request(pasid, 0x2000, Access::Read)).is_ok());
        assert_eq!(b.unit.counters().page_walks, walks, "{pasid:?}");
        assert!(b.ask(&request(pasid, 0x1000, Access::Read)).is_ok());
        assert_eq!(b.unit.counters().page_walks, walks + 1, "{pasid:?}");
    }
}

#[test]
fn a_drain_is_ordered_behind_the_requests_received() {
    let mut b = unit();
    b.ask_for(&page(Some(5), 0x5000, 1, true));
    let drain = InvalidationWait::new().with_sw(true).with_pd(true);
    b.submit(&[drain.with_status_data(1).with_status_addr(STATUS).0]);
    // Software that sees the status also sees the request.
    assert_eq!(b.ram.get(STATUS), 1);
    assert_eq!(b.requested().len(), 1);
}
