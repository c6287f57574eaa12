// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything at once: whatever software writes and functions send, the unit stays a unit.

use crate::bench::{Bench, HAW, pasid_of};
use pcie_ats::{InvalidateCompletion, PageRequest, Prgi, Translation, TranslationRequest};
use proptest::prelude::*;
use std::time::Duration;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;
use vtd::spec::register::{fsts, global, offset};
use vtd::{Access, Effect, Effects, Request, Ticket};

/// One thing that happens. Numbers are cut to size where they are used.
#[derive(Clone, Copy, Debug)]
enum Event {
    Write(u16, u64, bool),
    Command(u32),
    Store(u64, u64),
    Descriptor([u64; 2]),
    Translate(u64, u32, u8),
    Ats(u64, u32, u8),
    Translated(u64),
    PageRequest(u64, u32, u8),
    Complete(u32, u8),
    Interrupt(u64, u32),
    Begin,
    End,
    Advance(u16),
    Process,
    Reset,
}

/// Register offsets, mostly of registers that there are.
fn register() -> impl Strategy<Value = u16> {
    prop_oneof![
        3 => (0u16..0x44).prop_map(|n| n * 4),
        1 => (0u16..0x400).prop_map(|n| n * 4),
    ]
}

/// Values: pointers into the memory that is used, with some low bits, or anything.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u64..8, 0u64..4096).prop_map(|(page, low)| page << 12 | low),
        2 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => (0u64..64).prop_map(|n| 1 << n),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (register(), word(), any::<bool>()).prop_map(|(a, v, w)| Event::Write(a, v, w)),
        2 => any::<u32>().prop_map(|n| Event::Command(n | global::TE | global::QIE)),
        4 => (0u64..4096, word()).prop_map(|(a, v)| Event::Store(a * 8, v)),
        3 => (0u64..10, any::<u64>(), word(), any::<bool>()).prop_map(|(kind, high, w1, clean)| {
            let w0 = if clean { high & 0x0003_ffff_ffff_0030 } else { high & !0xe0f };
            Event::Descriptor([w0 | kind, w1])
        }),
        4 => (word(), any::<u32>(), any::<u8>()).prop_map(|(a, p, f)| Event::Translate(a, p, f)),
        2 => (word(), any::<u32>(), any::<u8>()).prop_map(|(a, p, f)| Event::Ats(a, p, f)),
        1 => word().prop_map(Event::Translated),
        2 => (word(), any::<u32>(), any::<u8>()).prop_map(|(a, p, f)| Event::PageRequest(a, p, f)),
        2 => (any::<u32>(), 1u8..9).prop_map(|(v, c)| Event::Complete(v, c)),
        1 => (0u64..0x10_0000, any::<u32>()).prop_map(|(a, d)| Event::Interrupt(a, d)),
        1 => Just(Event::Begin),
        1 => Just(Event::End),
        1 => any::<u16>().prop_map(Event::Advance),
        3 => Just(Event::Process),
        1 => Just(Event::Reset),
    ]
}

/// The unit in its storm.
struct Storm {
    b: Bench,
    tickets: Vec<Ticket>,
}

impl Storm {
    fn requester(n: u32) -> SourceId {
        SourceId((n % 3) as u16 * 0x80)
    }

    fn happen(&mut self, event: Event) {
        let Storm { b, tickets } = self;
        let (unit, ram, fx) = (&mut b.unit, &b.ram, &mut b.fx);
        match event {
            Event::Write(at, value, wide) => unit.write(at, value, if wide { 8 } else { 4 }, fx),
            Event::Command(value) => unit.write(offset::GCMD, value.into(), 4, fx),
            Event::Store(at, value) => ram.set(at, value),
            Event::Descriptor(words) => {
                let (tail, base) = (unit.read(offset::IQT, 8), unit.read(offset::IQA, 8));
                let width = if base >> 11 & 1 != 0 { 32 } else { 16 };
                let at = ((base & !0xfff) + tail) & 0x7ff0;
                for (n, word) in words.iter().chain([&0, &0]).take(width / 8).enumerate() {
                    ram.set(at + n as u64 * 8, *word);
                }
                let size = 4096 << (base & 7);
                unit.write(offset::IQT, (tail + width as u64) % size, 8, fx);
            }
            Event::Translate(address, pasid, flags) => {
                let request = Request {
                    requester: Self::requester(pasid),
                    pasid: (flags & 1 != 0).then(|| pasid_of(pasid & 0xf_ffff)),
                    address,
                    access: [
                        Access::Read,
                        Access::ZeroLengthRead,
                        Access::Write,
                        Access::Atomic,
                    ][usize::from(flags >> 1 & 3)],
                    execute: flags & 8 != 0,
                    privileged: flags & 16 != 0,
                };
                if let Ok(t) = unit.translate(ram, &request, fx) {
                    assert!(t.page.contains(address));
                    assert_eq!((t.address ^ address) & 0xfff, 0);
                    assert!(!request.access.writes() || t.write);
                    assert!(!unit.translation_enabled() || t.address >> HAW == 0);
                }
            }
            Event::Ats(address, pasid, flags) => {
                let request = TranslationRequest {
                    address,
                    pages: u16::from(flags >> 5),
                    pasid: (flags & 1 != 0).then(|| pasid_of(pasid & 0xf_ffff)),
                    privileged: flags & 2 != 0,
                    execute: flags & 4 != 0,
                    no_write: flags & 8 != 0,
                };
                let mut found = [Translation::from_word(0); 4];
                let sid = Self::requester(pasid);
                let got = unit.translation_request(ram, sid, &request, &mut found, fx);
                if let Ok(count) = got {
                    assert!((1..=4).contains(&count));
                    let shift = found[0].range.shift();
                    assert!(found[..count].iter().all(|t| t.range.shift() == shift));
                    assert!(!request.no_write || found[..count].iter().all(|t| !t.write));
                }
            }
            Event::Translated(address) => {
                let sid = Self::requester(address as u32);
                let _ = unit.translated_request(ram, sid, None, address, Access::Write, fx);
            }
            Event::PageRequest(address, pasid, flags) => {
                let request = PageRequest {
                    address,
                    pasid: (flags & 1 != 0).then(|| pasid_of(pasid & 0xf_ffff)),
                    read: flags & 2 != 0,
                    write: flags & 4 != 0,
                    execute: flags & 8 != 0,
                    privileged: flags & 16 != 0,
                    prgi: Prgi::new(u16::from(flags)).expect("below 512"),
                    last: flags & 32 != 0,
                };
                unit.page_request(ram, Self::requester(pasid), &request, fx);
            }
            Event::Complete(itag_vector, completion_count) => {
                let completion = InvalidateCompletion {
                    itag_vector,
                    completion_count,
                };
                unit.invalidate_completion(ram, Self::requester(itag_vector), &completion, fx);
            }
            Event::Interrupt(low, data) => {
                let address = 0xfee0_0000 | low;
                let request = Message { address, data };
                let _ = unit.remap_interrupt(ram, Some(Self::requester(data)), request, fx);
            }
            Event::Begin => tickets.push(unit.begin_access()),
            Event::End => {
                if let Some(ticket) = tickets.pop() {
                    unit.end_access(ram, ticket, fx);
                }
            }
            Event::Advance(ms) => {
                b.now += Duration::from_millis(ms.into());
                unit.advance(b.now, fx);
            }
            Event::Process => {
                let mut fx = Effects::new();
                unit.process_queue(ram, b.now, &mut fx);
            }
            Event::Reset => unit.reset(fx),
        }
    }

    /// What is true of a unit at any time.
    fn check(&self) {
        let b = &self.b;
        let size = 4096u64 << (b.read(offset::IQA) & 7);
        let status = b.read32(offset::FSTS);
        if b.read32(offset::GSTS) & global::QIE == 0 {
            assert_eq!(b.read(offset::IQH), 0);
        }
        assert!(b.read(offset::IQH) < size.max(1 << 19));
        assert_eq!(status & !(0xff00 | 0x73), 0);
        // A pending fault is one that a register holds.
        let held = (0..8).any(|n| b.read32(offset::FRCD + n * 16 + 12) >> 31 != 0);
        assert_eq!(status & fsts::PPF != 0, held);
        // An event is pending only while it is masked.
        for at in [offset::FECTL, offset::IECTL, offset::PECTL] {
            assert_ne!(b.read32(at) >> 30, 1, "{at:#x}");
        }
        let deadline = b.unit.next_timeout();
        assert_eq!(deadline.is_some(), b.unit.pending_invalidations() > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_that_happens_breaks_the_unit(
        mode in 0u64..4,
        memory in proptest::collection::vec((0u64..4096, word()), 0..200),
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut b = Bench::scalable(|c| {
            c.protected_memory = true;
            c.fault_records = 8;
            c.interrupt_remapping.as_mut().unwrap().posted = true;
        });
        for (at, value) in memory {
            b.ram.set(at * 8, value);
        }
        b.write(offset::RTADDR, 0x1000 | mode << 10);
        b.command(global::SRTP);
        let mut storm = Storm { b, tickets: Vec::new() };
        for event in events {
            storm.happen(event);
            storm.check();
            storm.b.fx.clear();
        }
        // The queue does not run for ever: the ring is finite.
        let mut fx = Effects::new();
        for _ in 0..40_000 {
            fx.clear();
            storm.b.unit.process_queue(&storm.b.ram, storm.b.now, &mut fx);
            if !fx.contains(&Effect::QueueReady) {
                break;
            }
        }
        prop_assert!(!fx.contains(&Effect::QueueReady));
        for ticket in storm.tickets {
            storm.b.unit.end_access(&storm.b.ram, ticket, &mut fx);
        }
    }
}
