// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events for a unit, and the properties that hold whatever happens. Random tests and the fuzz
//! target share this module.

use crate::bench::{Bench, HAW, pasid_of};
use pcie_ats::{InvalidateCompletion, PageRequest, Prgi, Translation, TranslationRequest};
use std::time::Duration;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;
use vtd::spec::register::{fsts, global, offset};
use vtd::{Access, Effect, Effects, MappedPage, Reach, Request, Ticket};

/// One event. Numbers are truncated where they are used.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Write(u16, u64, bool),
    Command(u32),
    Store(u64, u64),
    Descriptor([u64; 2]),
    Translate(u64, u32, u8),
    Ats(u64, u32, u8),
    Translated(u64),
    Reach(u64, u16),
    PageRequest(u64, u32, u8),
    Complete(u32, u8),
    Interrupt(u64, u32),
    Begin,
    End,
    Advance(u16),
    Process,
    Reset,
}

/// A unit under random events.
pub struct Storm {
    b: Bench,
    tickets: Vec<Ticket>,
}

impl Storm {
    /// A unit with some words in the first pages of its memory, and a translation table mode.
    pub fn new(mode: u64, memory: &[(u64, u64)]) -> Self {
        let mut b = Bench::scalable(|c| {
            c.protected_memory = true;
            c.fault_records = 8;
            if let Some(interrupts) = &mut c.interrupt_remapping {
                interrupts.posted = true;
            }
        });
        for (at, value) in memory {
            b.ram.set(at * 8, *value);
        }
        b.write(offset::RTADDR, 0x1000 | mode << 10);
        b.command(global::SRTP);
        Storm {
            b,
            tickets: Vec::new(),
        }
    }

    /// Applies all events, and checks the unit after each.
    pub fn run(mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.happen(event);
            self.check();
            self.b.fx.clear();
        }
        // The queue must not run for ever: the ring is finite.
        let mut fx = Effects::new();
        for _ in 0..40_000 {
            fx.clear();
            drop(self.b.unit.process_queue(&self.b.ram, self.b.now, &mut fx));
            if !fx.contains(&Effect::QueueReady) {
                break;
            }
        }
        assert!(!fx.contains(&Effect::QueueReady));
        for ticket in self.tickets {
            self.b.unit.end_access(&self.b.ram, ticket, &mut fx);
        }
    }

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
            Event::Reach(first, pages) => {
                let last = first.saturating_add(u64::from(pages) << 8);
                let sid = Self::requester(pages.into());
                if let Ok(Reach::Pages(pages)) = unit.reach(ram, sid, first, last) {
                    for page in &pages {
                        let (base, end) = (page.input.base(), page.input.last());
                        assert!(base <= last && end >= first && (page.read || page.write));
                        assert!(page.output >> HAW == 0 && page.output & (end - base) == 0);
                    }
                    let overlaps = |p: &MappedPage, q: &MappedPage| p.input.overlaps(q.input);
                    assert!(pages.windows(2).all(|w| !overlaps(&w[0], &w[1])));
                }
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
                drop(unit.process_queue(ram, b.now, &mut fx));
            }
            Event::Reset => unit.reset(fx),
        }
    }

    /// Checks the properties that always hold for a unit.
    fn check(&self) {
        let b = &self.b;
        let size = 4096u64 << (b.read(offset::IQA) & 7);
        let status = b.read32(offset::FSTS);
        if b.read32(offset::GSTS) & global::QIE == 0 {
            assert_eq!(b.read(offset::IQH), 0);
        }
        assert!(b.read(offset::IQH) < size.max(1 << 19));
        assert_eq!(status & !(0xff00 | 0x73), 0);
        // A fault is pending exactly if a register holds one.
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

/// Reads numbers from bytes, for as long as there are any.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        (0..bytes).try_fold(0, |n, _| Some(n << 8 | u64::from(self.byte()?)))
    }

    /// A pointer into the used memory, with some low bits, or one bit, or any value.
    fn word(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            n @ 0..0xc0 => u64::from(n & 7) << 12 | self.number(2)? & 0xfff,
            n @ 0xc0.. if n < 0xe0 => 1 << (n & 31) << (self.byte()? & 32),
            _ => self.number(8)?,
        })
    }

    fn event(&mut self) -> Option<Event> {
        let kind = self.byte()?;
        Some(match kind & 15 {
            0 | 1 => Event::Write(self.number(2)? as u16 & 0xffc, self.word()?, kind & 16 != 0),
            2 => Event::Command(self.number(4)? as u32),
            3 => Event::Store(self.number(2)? % 4096 * 8, self.word()?),
            4 | 5 => Event::Descriptor([self.number(8)?, self.word()?]),
            6 | 7 => Event::Translate(self.word()?, self.number(4)? as u32, self.byte()?),
            8 => Event::Ats(self.word()?, self.number(4)? as u32, self.byte()?),
            9 if kind & 16 == 0 => Event::Translated(self.word()?),
            9 => Event::Reach(self.word()?, self.number(2)? as u16),
            10 => Event::PageRequest(self.word()?, self.number(4)? as u32, self.byte()?),
            11 => Event::Complete(self.number(4)? as u32, self.byte()? % 8 + 1),
            12 => Event::Interrupt(self.number(3)? & 0xf_ffff, self.number(4)? as u32),
            13 if kind & 16 == 0 => Event::Begin,
            13 => Event::End,
            14 if kind & 16 == 0 => Event::Advance(self.number(2)? as u16),
            14 => Event::Reset,
            _ => Event::Process,
        })
    }
}

/// Generates random events from bytes, and applies them.
pub fn run_bytes(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (Some(mode), Some(words)) = (bytes.byte(), bytes.byte()) else {
        return;
    };
    let memory: Vec<(u64, u64)> = (0..words)
        .map_while(|_| Some((bytes.number(2)? % 4096, bytes.word()?)))
        .collect();
    let events = std::iter::from_fn(|| bytes.event());
    Storm::new(u64::from(mode & 3), &memory).run(events);
}
