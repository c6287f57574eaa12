// SPDX-License-Identifier: MIT OR Apache-2.0
//! The invalidation queue: its ring, its errors, its waits, and operations that take time.

use crate::bench::*;
use pcie_ats::{AlignedRange, InvalidateCompletion, InvalidateRequest, ResponseCode};
use std::time::Duration;
use vtd::config::Stages;
use vtd::effect::Invalidated;
use vtd::spec::SourceId;
use vtd::spec::descriptor::{QueueError, Wrong};
use vtd::spec::invalidation::{InvalidationWait, IotlbInvalidate};
use vtd::spec::register::{ContextCommand, IotlbCommand, fsts, global, offset};
use vtd::{Access, Effect, Effects, Refusal, Ticket};

/// A Device-TLB invalidation of everything of a PASID, with a depth.
fn device_tlb(sid: SourceId, pasid: u32, depth: u64) -> [u64; 2] {
    // PFSID is the function itself.
    let pfsid = u64::from(sid.0 & 15) << 12 | u64::from(sid.0 >> 4) << 52;
    let low = u64::from(pasid) << 32 | u64::from(sid.0) << 16 | depth << 4 | pfsid | 8;
    [low, 0x7fff_ffff_ffff_f000 | 1 << 11]
}

impl Bench {
    /// The invalidation requests that were sent, with their functions.
    fn requests(&mut self) -> Vec<(SourceId, InvalidateRequest)> {
        let fx = self.effects();
        fx.into_iter()
            .filter_map(|e| match e {
                Effect::InvalidateRequest { requester, request } => Some((requester, request)),
                _ => None,
            })
            .collect()
    }

    /// A function completes the requests of some tags.
    fn complete(&mut self, sid: SourceId, itag_vector: u32, completion_count: u8) {
        let completion = InvalidateCompletion {
            itag_vector,
            completion_count,
        };
        self.unit
            .invalidate_completion(&self.ram, sid, &completion, &mut self.fx);
        self.run();
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.unit.advance(self.now, &mut self.fx);
        self.run();
    }

    fn iqei(&self) -> u64 {
        self.read(offset::IQERCD) & 15
    }

    fn end(&mut self, ticket: Ticket) {
        self.unit.end_access(&self.ram, ticket, &mut self.fx);
        self.run();
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_ring_wraps_at_every_size_and_width() {
    for wide in [false, true] {
        for size in 0..8u64 {
            let mut b = if wide {
                Bench::new()
            } else {
                Bench::legacy(|_| {})
            };
            b.uncommand(global::QIE);
            let width = if wide { 32 } else { 16 };
            let ring = 0x1000_0000;
            b.write(offset::IQA, ring | u64::from(wide) << 11 | size);
            b.write(offset::IQT, 0);
            b.command(global::QIE);
            let entries = (4096u64 << size) / width;
            // A wait in every entry, twice around the ring, a quarter of it at a time.
            for n in 0..8 {
                for m in 0..entries / 4 {
                    let at = (n * entries / 4 + m) % entries * width;
                    b.store(ring + at, &wait(STATUS, (n * entries + m) as u32 + 1));
                    b.store(ring + at + 16, &[0, 0][..if wide { 2 } else { 0 }]);
                }
                let tail = (n + 1) * entries / 4 % entries * width;
                b.write(offset::IQT, tail);
                b.run();
                assert_eq!(b.read(offset::IQH), tail);
                let last = n * entries + entries / 4;
                assert_eq!(b.ram.get(STATUS), last, "size {size}, wide {wide}");
            }
            assert_eq!(b.read32(offset::FSTS), 0);
        }
    }
}

#[test]
pub(crate) fn a_bad_descriptor_stops_the_queue_until_iqe_is_cleared() {
    let mut b = Bench::new();
    b.write32(offset::FECTL, 0);
    b.submit(&[wait(STATUS, 1), [0x0e, 0], wait(STATUS, 2)]);
    // The descriptors ahead of it are complete; the head points to it.
    assert_eq!(b.ram.get(STATUS), 1);
    assert_eq!((b.read(offset::IQH), b.iqei()), (32, 3));
    assert_eq!(b.read32(offset::FSTS), fsts::IQE);
    assert_eq!(b.effects().len(), 1);
    // A new tail starts nothing.
    b.submit(&[wait(STATUS, 3)]);
    assert_eq!((b.ram.get(STATUS), b.read(offset::IQH)), (1, 32));
    // Linux replaces the descriptor by a wait and clears the error.
    b.store(QUEUE + 32, &wait(STATUS + 8, 7));
    b.write32(offset::FSTS, fsts::IQE);
    b.run();
    assert_eq!((b.ram.get(STATUS), b.ram.get(STATUS + 8)), (3, 7));
    assert_eq!(b.read(offset::IQH), b.read(offset::IQT));
    // Cleared without a correction, the error comes again.
    b.submit(&[[0x0e, 0]]);
    b.write32(offset::FSTS, fsts::IQE);
    b.run();
    assert_eq!(b.read32(offset::FSTS), fsts::IQE);
}

#[test]
fn every_queue_error_has_its_info() {
    let error = |b: &mut Bench| {
        b.run();
        assert_eq!(b.read32(offset::FSTS) & fsts::IQE, fsts::IQE);
        b.iqei()
    };
    let mut b = Bench::new();
    b.write(offset::IQT, 4096);
    assert_eq!(error(&mut b), 1);
    let mut b = Bench::new();
    b.ram.holes.borrow_mut().push(QUEUE);
    b.write(offset::IQT, 32);
    assert_eq!(error(&mut b), 2);
    let mut b = Bench::new();
    b.submit(&[[0x0f, 0]]);
    assert_eq!(error(&mut b), 3);
    let mut b = Bench::new();
    b.submit(&[[0x15 | 1 << 8, 0]]);
    assert_eq!(error(&mut b), 4);
    // 128-bit descriptors in scalable mode.
    let mut b = Bench::new();
    b.write(offset::IQA, QUEUE);
    b.write(offset::IQT, 16);
    assert_eq!(error(&mut b), 5);
    // 256-bit descriptors where neither scalable nor abort-DMA mode exists.
    let mut b = Bench::legacy(|c| {
        c.scalable = None;
        c.abort_dma = false;
    });
    b.write(offset::IQA, QUEUE | 1 << 11);
    b.write(offset::IQT, 32);
    assert_eq!(error(&mut b), 5);
    let mut b = Bench::new();
    b.write(offset::IQT, 16);
    assert_eq!(error(&mut b), 6);
    let mut b = Bench::new();
    b.write(offset::RTADDR, ROOT | 2 << 10);
    b.command(global::SRTP);
    b.write(offset::IQT, 32);
    assert_eq!(error(&mut b), 7);
}

#[test]
fn a_lenient_unit_takes_128_bit_descriptors_in_scalable_mode() {
    let run = |strict: bool| {
        let mut b = Bench::scalable(|c| c.strict = strict);
        let table = b.page();
        let entry = b.map_first(table, 0x1000, 0x800_0000, USER);
        b.pasid(SID, 5, first_stage(table, 1));
        assert!(b.goes_pasid(5, 0x1000, Access::Read).is_ok());
        b.ram.set(entry, 0);
        b.uncommand(global::QIE);
        b.write(offset::IQA, QUEUE);
        b.write(offset::IQT, 0);
        b.command(global::QIE);
        // Descriptors of scalable mode, too, at intervals of 16 bytes.
        for (n, words) in [pasid_all(1, 5), wait(STATUS, 9)].iter().enumerate() {
            b.store(QUEUE + n as u64 * 16, words);
        }
        b.write(offset::IQT, 32);
        b.run();
        let status = b.read32(offset::FSTS);
        let gone = b.goes_pasid(5, 0x1000, Access::Read);
        (status & fsts::IQE != 0, b.iqei(), b.ram.get(STATUS), gone)
    };
    assert_eq!(run(true), (true, 5, 0, Ok(0x800_0000)));
    assert_eq!(run(false), (false, 0, 9, Err(0x71)));
    // A descriptor that is invalid in both modes remains so.
    let mut b = Bench::scalable(|c| c.strict = false);
    b.write(offset::IQT, 16);
    b.run();
    assert_eq!(b.iqei(), 6);
}

#[test]
fn nothing_is_refused_silently() {
    let refused = |b: &mut Bench| -> Vec<Refusal> {
        let effects = std::mem::take(&mut b.fx);
        let refused = effects.into_iter().filter_map(|e| match e {
            Effect::Refused(what) => Some(what),
            _ => None,
        });
        refused.collect()
    };
    let mut b = Bench::new();
    b.submit(&[wait(STATUS, 1), [0x115, 0x1234]]);
    assert_eq!(
        refused(&mut b),
        [Refusal::Descriptor {
            head: 32,
            words: [0x115, 0x1234, 0, 0],
            error: QueueError::Reserved,
            wrong: Wrong::Reserved {
                word: 0,
                bits: 0x100
            },
        }]
    );
    // A stopped queue does not report a refusal again for a new tail.
    b.submit(&[wait(STATUS, 2)]);
    assert_eq!(refused(&mut b), []);
    let mut b = Bench::new();
    b.write(offset::IQA, QUEUE);
    b.write(offset::IQT, 16);
    b.run();
    let told = refused(&mut b);
    assert!(told[0].to_string().contains("IQA.DW"), "{}", told[0]);
    assert_eq!(told.len(), 1);
    // Register-based invalidation requires legacy mode with the queue off.
    b.write(offset::CCMD, 1 << 63 | 1 << 61);
    b.write(offset::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(
        refused(&mut b),
        [
            Refusal::ContextCommand(ContextCommand::ZERO.with_icc(true).with_cirg(1)),
            Refusal::IotlbCommand(IotlbCommand::ZERO.with_ivt(true).with_iirg(1))
        ]
    );
    let late = InvalidateCompletion {
        itag_vector: 2,
        completion_count: 1,
    };
    b.unit.invalidate_completion(&b.ram, SID, &late, &mut b.fx);
    let itag_vector = 2;
    assert_eq!(
        refused(&mut b),
        [Refusal::Completion {
            requester: SID,
            itag_vector
        }]
    );
    for (offset, size) in [(offset::GCMD, 2), (offset::IQT + 4, 8)] {
        b.unit.write(offset, 0, size, &mut b.fx);
        assert_eq!(refused(&mut b), [Refusal::RegisterWrite { offset, size }]);
    }
}

#[test]
fn an_index_mask_beyond_mhmv_stops_the_queue() {
    let mut b = Bench::new();
    assert_eq!(b.unit.capabilities().ecap().mhmv(), 15);
    b.submit(&[interrupt_entries(0, 15), interrupt_entries(0, 16)]);
    assert_eq!((b.iqei(), b.read(offset::IQH)), (4, 32));
}

/// Software turns the queue off with a Device-TLB invalidation in flight and a wait behind it. The
/// wait is gone, and a later wait is not completed by the old request.
#[test]
fn a_queue_that_is_switched_off_forgets_its_waits_and_confuses_no_later_one() {
    let mut b = Bench::new();
    b.submit(&[device_tlb(SID, 5, 0), wait(STATUS, 1)]);
    b.uncommand(global::QIE);
    b.write(offset::IQT, 0);
    b.command(global::QIE);
    b.store(QUEUE, &device_tlb(SID, 5, 0));
    b.store(QUEUE + 16, &[0, 0]);
    b.store(QUEUE + 32, &wait(STATUS + 8, 2));
    b.store(QUEUE + 48, &[0, 0]);
    b.write(offset::IQT, 64);
    b.run();
    assert_eq!(b.unit.pending_invalidations(), 2);
    let complete = |b: &mut Bench, itag_vector| {
        let completion = InvalidateCompletion {
            itag_vector,
            completion_count: 1,
        };
        b.unit
            .invalidate_completion(&b.ram, SID, &completion, &mut b.fx);
        b.run();
        (b.ram.get(STATUS), b.ram.get(STATUS + 8))
    };
    assert_eq!(complete(&mut b, 1), (0, 0));
    assert_eq!(complete(&mut b, 2), (0, 2));
    assert_eq!(b.read32(offset::FSTS), 0);
}

/// Descriptors may be written before the queue is turned on.
#[test]
fn a_queue_that_is_switched_on_begins_with_what_is_in_it() {
    let mut b = Bench::new();
    b.uncommand(global::QIE);
    b.store(QUEUE, &wait(STATUS, 3));
    b.store(QUEUE + 16, &[0, 0]);
    b.write(offset::IQT, 32);
    b.run();
    assert_eq!(b.ram.get(STATUS), 0);
    b.command(global::QIE);
    b.run();
    assert_eq!(b.ram.get(STATUS), 3);
    // A tail beyond the end of the smaller ring.
    b.uncommand(global::QIE);
    b.write(offset::IQA, QUEUE | 1 << 11);
    b.write(offset::IQT, 0x7_ffe0);
    b.command(global::QIE);
    b.run();
    assert_eq!((b.iqei(), b.read(offset::IQH)), (1, 0));
}

#[test]
fn descriptor_types_go_with_the_mode() {
    // Legacy mode has no PASID descriptors, whatever the width.
    let mut b = Bench::legacy(|_| {});
    b.submit(&[PASID_GLOBAL]);
    assert_eq!(b.iqei(), 3);
    // Abort-DMA mode accepts the same descriptors as scalable mode.
    let mut b = Bench::new();
    b.write(offset::RTADDR, ROOT | 3 << 10);
    b.command(global::SRTP);
    assert!(b.submit_and_wait(&[PASID_GLOBAL, CONTEXT_GLOBAL, pasid_all(1, 5)]));
    // Without the mode, it is not valid.
    let mut b = Bench::scalable(|c| c.abort_dma = false);
    b.write(offset::RTADDR, ROOT | 3 << 10);
    b.command(global::SRTP);
    b.submit(&[PASID_GLOBAL]);
    assert_eq!(b.iqei(), 7);
}

#[test]
fn a_wait_writes_its_status_and_raises_its_event() {
    let mut b = Bench::new();
    b.write32(offset::IECTL + 4, 0x31);
    b.write32(offset::IECTL + 8, 0xfee0_1000);
    b.write32(offset::IECTL, 0);
    b.ram.set(STATUS, 0x1111_1111_2222_2222);
    let wait = InvalidationWait::new().with_status_data(0xdead_beef);
    let both = wait.with_interrupt(true).with_sw(true);
    b.submit(&[both.with_status_addr(STATUS + 4).0]);
    assert_eq!(b.ram.get(STATUS), 0xdead_beef_2222_2222);
    assert_eq!(b.read32(offset::ICS), 1);
    assert!(matches!(b.effects()[..], [Effect::Interrupt(m)] if m.data == 0x31));
    // Neither one is requested, so neither is done.
    b.submit(&[wait.with_status_addr(STATUS + 8).0]);
    assert_eq!((b.ram.get(STATUS + 8), b.effects().len()), (0, 0));
    // A status address without memory is counted.
    b.submit(&[wait.with_sw(true).with_status_addr(1 << 45).0]);
    assert_eq!(b.unit.counters().lost_status_writes, 1);
}

#[test]
fn a_device_tlb_invalidation_is_complete_when_the_function_says_so() {
    let mut b = Bench::new();
    assert!(!b.submit_and_wait(&[device_tlb(SID, 5, 0)]));
    // The head is past both descriptors; the wait is pending.
    assert_eq!(b.read(offset::IQH), b.read(offset::IQT));
    let requests = b.requests();
    let [(sid, request)] = requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!((sid, request.range), (SID, AlignedRange::ALL));
    assert_eq!((request.pasid, request.global), (Some(pasid_of(5)), false));
    assert_eq!(b.unit.pending_invalidations(), 1);
    b.complete(SID, 1 << request.itag.get(), 1);
    assert_eq!((b.ram.get(STATUS), b.unit.pending_invalidations()), (1, 0));
}

#[test]
fn completions_are_counted_and_may_come_merged_and_out_of_order() {
    let mut b = Bench::new();
    let three = [
        device_tlb(SID, 5, 0),
        device_tlb(SID, 6, 0),
        device_tlb(SID, 7, 0),
    ];
    assert!(!b.submit_and_wait(&three));
    b.complete(SID, 0b101, 2);
    b.complete(SID, 0b010, 1);
    assert_eq!((b.ram.get(STATUS), b.unit.pending_invalidations()), (0, 2));
    b.complete(SID, 0b101, 2);
    assert_eq!((b.ram.get(STATUS), b.read32(offset::FSTS)), (1, 0));
}

#[test]
fn without_a_fence_the_queue_goes_on_and_with_one_it_does_not() {
    for fence in [false, true] {
        let mut b = Bench::new();
        let mut first = wait(STATUS, 1);
        first[0] |= u64::from(fence) << 6;
        b.submit(&[
            device_tlb(SID, 5, 0),
            first,
            PASID_GLOBAL,
            wait(STATUS + 8, 2),
        ]);
        let done =
            b.fx.iter()
                .any(|e| matches!(e, Effect::Invalidated(Invalidated::Pasid(_))));
        assert_eq!(done, !fence);
        // A later wait does not overtake earlier descriptors.
        assert_eq!((b.ram.get(STATUS), b.ram.get(STATUS + 8)), (0, 0));
        b.complete(SID, 1, 1);
        assert_eq!((b.ram.get(STATUS), b.ram.get(STATUS + 8)), (1, 2));
    }
}

#[test]
fn any_number_of_waits_is_taken_in_turn() {
    let mut b = Bench::new();
    b.submit(&[device_tlb(SID, 5, 0)]);
    // The ring has room for 127 at a time.
    for n in 0..20u32 {
        let waits: Vec<_> = (0..100).map(|m| wait(STATUS, n * 100 + m + 1)).collect();
        for one in waits {
            b.submit(&[one]);
            if b.read(offset::IQH) != b.read(offset::IQT) {
                break;
            }
        }
    }
    assert_eq!(b.ram.get(STATUS), 0);
    assert_ne!(b.read(offset::IQH), b.read(offset::IQT), "no bound was met");
    b.complete(SID, 1, 1);
    assert_ne!(b.ram.get(STATUS), 0);
    assert_eq!(b.read(offset::IQH), b.read(offset::IQT));
}

#[test]
fn no_more_than_the_depth_is_pending_and_the_rest_follows() {
    let mut b = Bench::new();
    let many: Vec<_> = (0..5).map(|n| device_tlb(SID, n + 1, 2)).collect();
    assert!(!b.submit_and_wait(&many));
    let mut seen = 0;
    while b.unit.pending_invalidations() > 0 {
        let requests = b.requests();
        assert!(b.unit.pending_invalidations() <= 2);
        seen += requests.len();
        let (_, request) = requests[0];
        b.complete(SID, 1 << request.itag.get(), 1);
        // Requests that were sent together may complete together.
        for (_, request) in &requests[1..] {
            b.complete(SID, 1 << request.itag.get(), 1);
        }
    }
    assert_eq!((seen, b.ram.get(STATUS)), (5, 1));
}

#[test]
fn a_time_out_is_reported_aborts_waits_and_lets_the_queue_recover() {
    let mut b = Bench::new();
    b.write32(offset::FECTL, 0);
    assert!(!b.submit_and_wait(&[device_tlb(SID, 5, 0)]));
    assert_eq!(b.unit.next_timeout(), Some(SECOND));
    b.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(b.read32(offset::FSTS), 0);
    b.effects();
    b.advance(Duration::from_nanos(1));
    assert_eq!(b.read32(offset::FSTS), fsts::ITE);
    assert_eq!(b.read(offset::IQERCD) >> 32 & 0xffff, u64::from(SID.0));
    assert_eq!(b.effects().len(), 1);
    assert_eq!(
        (b.unit.pending_invalidations(), b.unit.next_timeout()),
        (0, None)
    );
    // Nothing is fetched as long as ITE is set.
    b.submit(&[wait(STATUS + 8, 2)]);
    assert_eq!(b.ram.get(STATUS + 8), 0);
    b.write32(offset::FSTS, fsts::ITE);
    b.run();
    // The pending wait is lost; Linux submits both again.
    assert_eq!((b.ram.get(STATUS), b.ram.get(STATUS + 8)), (0, 2));
    assert!(!b.submit_and_wait(&[device_tlb(SID, 5, 0)]));
    let (_, request) = b.requests()[0];
    assert_ne!(request.itag.get(), 0, "a tag is not used again at once");
    b.complete(SID, 1 << request.itag.get(), 1);
    assert_eq!(b.ram.get(STATUS), 1);
    assert_eq!(b.unit.counters().invalidation_timeouts, 1);
}

#[test]
fn a_time_out_of_one_function_leaves_the_requests_of_others_pending() {
    let mut b = Bench::new();
    let other = SourceId(0x0110);
    b.submit(&[device_tlb(SID, 5, 0)]);
    b.advance(SECOND / 2);
    b.submit(&[device_tlb(other, 5, 0)]);
    b.advance(SECOND / 2);
    assert_eq!(b.unit.pending_invalidations(), 1);
    // Completions are processed as normal while ITE is set.
    b.complete(other, 1, 1);
    assert_eq!(b.unit.pending_invalidations(), 0);
    assert_eq!(b.read32(offset::FSTS), fsts::ITE);
}

#[test]
fn a_completion_that_nobody_expects_is_an_error_and_the_queue_goes_on() {
    let mut b = Bench::new();
    b.write32(offset::FECTL, 0);
    b.complete(SID, 1 << 7, 1);
    assert_eq!(b.read32(offset::FSTS), fsts::ICE);
    assert_eq!(b.read(offset::IQERCD) >> 48, u64::from(SID.0));
    assert_eq!(b.effects().len(), 1);
    assert!(b.submit_and_wait(&[IOTLB_GLOBAL]));
    b.write32(offset::FSTS, fsts::ICE);
    assert_eq!(b.read32(offset::FSTS), 0);
    // The valid tags of a vector are still accepted.
    assert!(!b.submit_and_wait(&[device_tlb(SID, 5, 0)]));
    b.complete(SID, 0b11, 1);
    assert_eq!((b.ram.get(STATUS), b.read32(offset::FSTS)), (1, fsts::ICE));
    // Without remapping, the unit does not accept completions.
    b.write32(offset::FSTS, fsts::ICE);
    b.uncommand(global::TE);
    b.complete(SID, 1, 1);
    assert_eq!(b.read32(offset::FSTS), 0);
}

#[test]
fn an_invalidation_waits_for_accesses_in_flight() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_second(table, 0x1000, 0x800_0000, R | W);
    b.pasid(SID, 0, second_stage(table, 1));
    assert!(b.goes(0x1000, Access::Write).is_ok());
    let ticket = b.unit.begin_access();
    // A descriptor that cannot drain does not wait.
    assert!(b.submit_and_wait(&[PASID_GLOBAL]));
    assert!(!b.submit_and_wait(&[domain_pages(1, 0x1000, 0)]));
    let later = b.unit.begin_access();
    b.end(ticket);
    assert_eq!(b.ram.get(STATUS), 1);
    b.end(later);
}

/// A host that loses a ticket, or passes it to another unit, does not block a drain for ever, and
/// does not complete another unit's drain.
#[test]
fn tickets_cannot_be_lost_or_mixed_up() {
    let (mut b, mut other) = (Bench::new(), Bench::new());
    drop(b.unit.begin_access());
    assert!(b.submit_and_wait(&[IOTLB_GLOBAL]));
    let lost = b.unit.begin_access();
    assert!(!b.submit_and_wait(&[IOTLB_GLOBAL]));
    drop(lost);
    drop(b.unit.process_queue(&b.ram, b.now, &mut b.fx));
    assert_eq!(b.ram.get(STATUS), 1);
    // A ticket of another unit.
    let (here, there) = (b.unit.begin_access(), other.unit.begin_access());
    assert!(!b.submit_and_wait(&[IOTLB_GLOBAL]));
    b.end(there);
    assert_eq!(b.ram.get(STATUS), 0);
    assert!(other.submit_and_wait(&[IOTLB_GLOBAL]));
    other.end(here);
    drop(b.unit.process_queue(&b.ram, b.now, &mut b.fx));
    assert_eq!(b.ram.get(STATUS), 1);
}

#[test]
fn a_register_based_invalidation_drains_before_ivt_clears() {
    let mut b = Bench::legacy(|_| {});
    b.uncommand(global::QIE);
    let ticket = b.unit.begin_access();
    b.write(offset::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(b.read(offset::IOTLB) >> 63, 1);
    b.end(ticket);
    assert_eq!(b.read(offset::IOTLB), 1 << 60 | 1 << 57);
    b.write(offset::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(b.read(offset::IOTLB) >> 63, 0);
}

#[test]
fn before_version_2_drains_are_asked_for() {
    let plain = IotlbInvalidate::new().with_g(1);
    for (descriptor, waits) in [
        (plain, false),
        (plain.with_dw(true), true),
        (plain.with_dr(true), true),
    ] {
        let mut b = Bench::scalable(|c| c.version = (1, 0));
        let ticket = b.unit.begin_access();
        assert_eq!(b.submit_and_wait(&[descriptor.0]), !waits);
        b.end(ticket);
        assert_eq!(b.ram.get(STATUS), 1);
    }
    // From version 6 on, registers invalidate nothing.
    let mut b = Bench::legacy(|c| c.version = (6, 0));
    b.uncommand(global::QIE);
    b.write(offset::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(b.read(offset::IOTLB), 1 << 60);
}

#[test]
fn a_wait_is_not_processed_before_the_host_did_what_is_ahead_of_it() {
    let mut b = Bench::new();
    let response = [u64::from(SID.0) << 16 | 5 << 32 | 0x19, 7 << 3];
    b.store(QUEUE, &response);
    b.store(QUEUE + 32, &wait(STATUS, 1));
    b.write(offset::IQT, 64);
    let mut fx = Effects::new();
    drop(b.unit.process_queue(&b.ram, b.now, &mut fx));
    assert!(matches!(
        fx[..],
        [Effect::PrgResponse { requester: SID, response }, Effect::QueueReady]
            if response.prgi.get() == 7 && response.code == ResponseCode::Success
    ));
    assert_eq!(b.ram.get(STATUS), 0);
    fx.clear();
    drop(b.unit.process_queue(&b.ram, b.now, &mut fx));
    assert_eq!((b.ram.get(STATUS), fx), (1, vec![]));
}

/// Two threads are told that the queue can continue: one of them owns it until it has carried out
/// the resulting effects.
#[test]
pub(super) fn a_round_of_the_queue_ends_before_the_next_begins() {
    let mut b = Bench::new();
    let response = [u64::from(SID.0) << 16 | 5 << 32 | 0x19, 7 << 3];
    b.store(QUEUE, &response);
    b.store(QUEUE + 32, &wait(STATUS, 1));
    b.write(offset::IQT, 64);
    let mut effects = Effects::new();
    let turn = b.unit.process_queue(&b.ram, b.now, &mut effects);
    assert_eq!((turn.is_held(), effects.len()), (true, 2));
    // The response is not sent yet.
    let mut others = Effects::new();
    let other = b.unit.process_queue(&b.ram, b.now, &mut others);
    assert_eq!(b.ram.get(STATUS), 0, "the wait is complete too early");
    assert_eq!((other.is_held(), others), (false, vec![]));
    assert!(!b.unit.end_turn(other));
    assert!(b.unit.end_turn(turn), "the other has asked");
    effects.clear();
    let turn = b.unit.process_queue(&b.ram, b.now, &mut effects);
    assert_eq!((turn.is_held(), b.ram.get(STATUS)), (true, 1));
    // A reset does not end a turn, but losing the turn does.
    b.unit.reset(&mut effects);
    let other = b.unit.process_queue(&b.ram, b.now, &mut effects);
    assert!(!other.is_held());
    drop(turn);
    let turn = b.unit.process_queue(&b.ram, b.now, &mut effects);
    assert!(turn.is_held());
}

#[test]
fn a_queue_that_is_disabled_does_nothing_and_forgets_its_waits() {
    let mut b = Bench::new();
    assert!(!b.submit_and_wait(&[device_tlb(SID, 5, 0)]));
    b.uncommand(global::QIE);
    assert_eq!(b.read(offset::IQH), 0);
    b.complete(SID, 1, 1);
    assert_eq!((b.ram.get(STATUS), b.read32(offset::FSTS)), (0, 0));
    b.write(offset::IQT, 32);
    assert!(!b.fx.contains(&Effect::QueueReady));
}

#[test]
pub(crate) fn invalidations_are_told_to_hosts_that_keep_copies() {
    let mut b = Bench::new();
    b.submit(&[
        pasid_entry(1, 5),
        pasid_pages(1, 5, 0x4000, 2),
        interrupt_entries(7, 0),
    ]);
    let told: Vec<_> =
        b.fx.iter()
            .filter_map(|e| match e {
                Effect::Invalidated(what) => Some(*what),
                _ => None,
            })
            .collect();
    use vtd::spec::DomainId;
    use vtd::spec::descriptor::{IotlbScope, PasidScope};
    let range = AlignedRange::containing(0x4000, 14).unwrap();
    assert_eq!(
        told,
        [
            Invalidated::Pasid(PasidScope::Pasid(DomainId(1), pasid_of(5))),
            Invalidated::Iotlb {
                scope: IotlbScope::PasidPages(DomainId(1), pasid_of(5), range),
                leaf_only: false,
            },
            Invalidated::Interrupts(Some((7, 0))),
        ]
    );
}

#[test]
fn units_without_an_ability_refuse_its_descriptors() {
    let type_error = |mut b: Bench, descriptor| {
        b.submit(&[descriptor]);
        b.iqei() == 3
    };
    let no_dt = || Bench::scalable(|c| c.device_tlbs = None);
    assert!(type_error(no_dt(), [3, 0]));
    assert!(type_error(no_dt(), device_tlb(SID, 5, 0)));
    assert!(type_error(no_dt(), response(Some(0), 0, 0)));
    let no_ir = Bench::scalable(|c| c.interrupt_remapping = None);
    assert!(type_error(no_ir, [4, 0]));
    // PD is reserved without page requests.
    let mut b = Bench::scalable(|c| c.device_tlbs.as_mut().unwrap().page_requests = false);
    let drain = InvalidationWait::new().with_sw(true).with_pd(true);
    b.submit(&[drain.with_status_addr(STATUS).0]);
    assert_eq!(b.iqei(), 4);
    // A unit with the second stage alone still has a PASID cache.
    let second = Bench::scalable(|c| c.scalable.as_mut().unwrap().stages = Stages::Second);
    assert!(!type_error(second, PASID_GLOBAL));
}
