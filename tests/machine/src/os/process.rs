// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes: address spaces whose pages are present, absent or read-only, and their bond with
//! functions.

pub(super) mod migration;

use super::board::Board;
use super::descriptors::{self, Words};
use super::domain::AW_48;
use super::frames::FRAME;
use super::kernel::{AddressSpace, FaultOutcome, Mode, Os};
use super::queue::QueueFault;
use super::stage::{P, PS, R, RW, Stage, US, W, shift};

use crate::machine::{FunctionId, Machine};
use crate::sync::Mutex;
use pcie_ats::{AlignedRange, Pasid};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use vtd::spec::DomainId;
use vtd::spec::pasid::{PasidEntry, Pgtt};

/// What an address space looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The first stage has 5 levels, not 4.
    pub five_levels: bool,
    /// The first stage is nested in a second one.
    pub nested: Option<Nesting>,
}

/// What the second stage of a nested address space looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// Pages of 4 KiB.
    Small,
    /// Pages of 2 MiB.
    Large,
}

/// Guest-physical addresses are this much above those of the memory that they mean.
const BIAS: u64 = 1 << 38;

/// A page of a process.
#[derive(Clone, Copy, Debug)]
struct Page {
    /// Log2 of its size.
    shift: u8,
    frame: u64,
    write: bool,
    present: bool,
    /// On the move: neither to be accessed nor made present.
    busy: bool,
}

/// An address space.
pub(crate) struct Space<B: Board + Clone = Machine> {
    os: Os<B>,
    pasid: Pasid,
    domain: u16,
    layout: Layout,
    first: Stage,
    second: Option<Stage>,
    pages: Mutex<BTreeMap<u64, Page>>,
    bound: Mutex<Vec<FunctionId>>,
}

/// A process; clones are the same one.
///
/// When the last is dropped, its PASID is given to others, if no function is bound to it any more.
pub struct Process<B: Board + Clone = Machine>(Arc<Space<B>>);

impl<B: Board + Clone> Clone for Process<B> {
    fn clone(&self) -> Self {
        Process(self.0.clone())
    }
}

impl<B: Board + Clone> std::fmt::Debug for Process<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("pasid", &self.0.pasid)
            .field("domain", &self.0.domain)
            .field("layout", &self.0.layout)
            .finish_non_exhaustive()
    }
}

impl<B: Board + Clone> Space<B> {
    fn page(&self, address: u64) -> Option<(u64, Page)> {
        let pages = self.pages.lock();
        let (base, page) = pages.range(..=address).next_back()?;
        (address >> page.shift == base >> page.shift).then_some((*base, *page))
    }

    /// The entry of a page, as it must be.
    fn entry(&self, page: &Page) -> u64 {
        if !page.present {
            return 0;
        }
        let write = if page.write { RW } else { 0 };
        let large = if page.shift > 12 { PS } else { 0 };
        (page.frame + self.first.bias) | P | US | write | large
    }

    /// Writes the entry of a page, and returns what it was.
    fn put(&self, base: u64, page: &Page) -> u64 {
        let level = (page.shift - 12) / 9 + 1;
        self.first
            .set(&self.os.0.frames, base, level, self.entry(page))
    }

    /// Invalidates a range everywhere.
    fn invalidate(&self, range: AlignedRange) -> Result<(), QueueFault> {
        let bound = self.bound.lock().clone();
        for (unit, words) in self.invalidations(&bound, range) {
            self.os.invalidate(unit, &words)?;
        }
        Ok(())
    }

    /// The descriptors that invalidate a range for functions, by unit: first the IOTLB, then the
    /// Device-TLBs, so that these are not filled from that again.
    fn invalidations(&self, bound: &[FunctionId], range: AlignedRange) -> Vec<(usize, Vec<Words>)> {
        let machine = self.os.machine();
        let mut units: Vec<(usize, Vec<Words>)> = Vec::new();
        for &function in bound {
            let unit = machine.unit_of(function);
            let first = if range == AlignedRange::ALL {
                descriptors::iotlb_pasid(self.domain, self.pasid)
            } else {
                descriptors::iotlb_pasid_pages(self.domain, self.pasid, range)
            };
            if !units.iter().any(|(other, _)| *other == unit) {
                units.push((unit, vec![first]));
            }
            let sid = machine.requester(function);
            let second = descriptors::device_tlb_pasid(sid, self.pasid, range);
            if let Some((_, words)) = units.iter_mut().find(|(other, _)| *other == unit) {
                words.push(second);
            }
        }
        units
    }
}

impl<B: Board + Clone> AddressSpace for Space<B> {
    fn fault(&self, address: u64, write: bool) -> FaultOutcome {
        let mut pages = self.pages.lock();
        let Some((base, page)) = pages.range_mut(..=address).next_back() else {
            return FaultOutcome::Bad;
        };
        if address >> page.shift != base >> page.shift || write && !page.write {
            return FaultOutcome::Bad;
        }
        if page.busy {
            return FaultOutcome::Busy;
        }
        if !page.present {
            page.present = true;
            let page = *page;
            self.put(*base, &page);
        }
        FaultOutcome::Served
    }
}

impl<B: Board + Clone> Os<B> {
    /// A process with an empty address space of 4 levels.
    pub fn process(&self) -> Process<B> {
        self.process_with(Layout::default())
    }

    /// A process with an address space of a certain layout.
    pub fn process_with(&self, layout: Layout) -> Process<B> {
        Process::new(self, layout)
    }
}

impl<B: Board + Clone> Process<B> {
    fn new(os: &Os<B>, layout: Layout) -> Process<B> {
        assert_eq!(os.0.mode, Mode::Scalable, "processes need scalable mode");
        let frames = &os.0.frames;
        let second = layout.nested.map(|nesting| {
            let stage = Stage::new(frames, 4, R | W, 0);
            let (level, large) = match nesting {
                Nesting::Small => (1, 0),
                Nesting::Large => (2, PS),
            };
            let bytes = frames.board().memory_bytes();
            for at in (0..bytes).step_by(1 << shift(level)) {
                stage.set(frames, at + BIAS, level, at | R | W | large);
            }
            stage
        });
        let bias = if second.is_some() { BIAS } else { 0 };
        let levels = if layout.five_levels { 5 } else { 4 };
        let pasid = os.allocate_pasid();
        let space = Arc::new(Space {
            os: os.clone(),
            pasid,
            domain: os.allocate_domain(),
            layout,
            first: Stage::new(frames, levels, P | RW | US, bias),
            second,
            pages: Mutex::default(),
            bound: Mutex::default(),
        });
        let known: Weak<dyn AddressSpace> = Arc::<Space<B>>::downgrade(&space);
        os.0.processes.lock().insert(pasid, known);
        Process(space)
    }

    /// Its PASID.
    pub fn pasid(&self) -> Pasid {
        self.0.pasid
    }

    /// The domain id of its PASID table entries.
    pub fn domain(&self) -> u16 {
        self.0.domain
    }

    /// Its first stage.
    pub fn first_stage(&self) -> &Stage {
        &self.0.first
    }

    /// Its second stage, if it is nested.
    pub fn second_stage(&self) -> Option<&Stage> {
        self.0.second.as_ref()
    }

    /// The operating system that it runs on.
    pub fn os(&self) -> &Os<B> {
        &self.0.os
    }

    // Bonds.

    /// Binds a function to the address space, unless it is: sets the PASID table entry.
    pub fn bind(&self, function: FunctionId) {
        let space = &self.0;
        let mut bound = space.bound.lock();
        if bound.contains(&function) {
            return;
        }
        bound.push(function);
        drop(bound);
        let place = space.os.0.pasid_place(function, space.pasid.get());
        let entry = PasidEntry::ZERO
            .with_p(true)
            .with_did(DomainId(space.domain))
            .with_pwsnp(true)
            // Of the second stage, which there may be none of: Linux writes it all the same.
            .with_aw(AW_48 + u8::from(space.layout.five_levels))
            .with_fspm(space.layout.five_levels.into())
            .with_fsptptr(space.first.pointer());
        let entry = match &space.second {
            None => entry.with_pgtt(Pgtt::FirstStage),
            Some(second) => {
                let nested = entry.with_pgtt(Pgtt::Nested);
                nested.with_aw(AW_48).with_ssptptr(second.pointer())
            }
        };
        space.os.0.store_all(place, &entry.0);
    }

    /// Ends the bond with a function: clears the PASID table entry, invalidates, and waits until
    /// no page request is left. The function must have stopped using the PASID.
    pub fn unbind(&self, function: FunctionId) -> Result<(), QueueFault> {
        let space = &self.0;
        space.bound.lock().retain(|other| *other != function);
        let place = space.os.0.pasid_place(function, space.pasid.get());
        space.os.0.store(place, 0);
        let mut words = vec![descriptors::pasid_entry(space.domain, space.pasid)];
        for (_, more) in space.invalidations(&[function], AlignedRange::ALL) {
            words.extend(more);
        }
        space
            .os
            .invalidate(space.os.machine().unit_of(function), &words)?;
        // What was in the queue before the wait completed is handled like all else; the process
        // is still there to be asked.
        space.os.handle_page_requests();
        space.os.refuse_delayed(space.pasid);
        Ok(())
    }

    // Pages.

    fn insert(&self, base: u64, page: Page) {
        let mut pages = self.0.pages.lock();
        pages.insert(base, page);
        self.0.put(base, &page);
    }

    /// Maps present pages of 4 KiB that may be written, and returns the address. What was not
    /// mapped is not cached, so nothing is invalidated.
    pub fn map(&self, address: u64, length: u64) -> u64 {
        self.map_pages(address, length, true, true)
    }

    /// Maps present pages of 4 KiB that may only be read, and returns the address.
    pub fn map_read_only(&self, address: u64, length: u64) -> u64 {
        self.map_pages(address, length, false, true)
    }

    /// Maps pages of 4 KiB that the first access makes present, and returns the address.
    pub fn map_absent(&self, address: u64, length: u64) -> u64 {
        self.map_pages(address, length, true, false)
    }

    fn map_pages(&self, address: u64, length: u64, write: bool, present: bool) -> u64 {
        for base in (address & !(FRAME - 1)..address + length).step_by(FRAME as usize) {
            let frame = self.0.os.0.frames.allocate();
            self.insert(
                base,
                Page {
                    shift: 12,
                    frame,
                    write,
                    present,
                    busy: false,
                },
            );
        }
        address
    }

    /// Maps a present large page, of 2 MiB (`shift` 21) or 1 GiB (30), and returns the address.
    pub fn map_large(&self, address: u64, shift: u8) -> u64 {
        let frame = self.0.os.0.frames.allocate_range(shift);
        self.map_frame(address, shift, frame);
        address
    }

    /// Maps a present page of 2^`shift` bytes to memory of the caller's choice.
    pub fn map_frame(&self, address: u64, shift: u8, frame: u64) {
        self.insert(
            address,
            Page {
                shift,
                frame,
                write: true,
                present: true,
                busy: false,
            },
        );
    }

    fn page(&self, address: u64) -> (u64, Page) {
        match self.0.page(address) {
            Some(found) => found,
            None => panic!("{address:#x} is not mapped"),
        }
    }

    /// Changes a page and its entry, and returns what it was.
    fn change(&self, address: u64, change: impl FnOnce(&mut Page)) -> (AlignedRange, Page) {
        let (base, _) = self.page(address);
        let mut pages = self.0.pages.lock();
        let Some(page) = pages.get_mut(&base) else {
            panic!("{address:#x} is being unmapped");
        };
        let before = *page;
        change(page);
        let page = *page;
        self.0.put(base, &page);
        match AlignedRange::containing(base, before.shift) {
            Ok(range) => (range, before),
            Err(error) => panic!("{error}"),
        }
    }

    /// Removes pages, invalidates, and returns their frames, which nobody uses any more.
    pub fn unmap(&self, address: u64, length: u64) -> Result<Vec<u64>, QueueFault> {
        let mut frames = Vec::new();
        {
            let mut pages = self.0.pages.lock();
            let bases: Vec<u64> = pages
                .range(address..address + length)
                .map(|(base, _)| *base)
                .collect();
            for base in bases {
                if let Some(mut page) = pages.remove(&base) {
                    page.present = false;
                    self.0.put(base, &page);
                    frames.push(page.frame);
                }
            }
        }
        self.0.invalidate(covering(address, length))?;
        Ok(frames)
    }

    /// Makes a page absent, its contents kept, and invalidates.
    pub fn evict(&self, address: u64) -> Result<(), QueueFault> {
        let (range, _) = self.change(address, |page| page.present = false);
        self.0.invalidate(range)
    }

    /// Makes a page absent without any invalidation: for tests that do that themselves.
    pub fn evict_only(&self, address: u64) {
        self.change(address, |page| page.present = false);
    }

    /// Permits or forbids writes to a page, and invalidates.
    pub fn protect(&self, address: u64, write: bool) -> Result<(), QueueFault> {
        let (range, _) = self.change(address, |page| page.write = write);
        self.0.invalidate(range)
    }

    /// Puts another frame behind a present page at once, and invalidates. Returns the frame that
    /// was there; what it holds is lost to the process.
    pub fn replace(&self, address: u64, frame: u64) -> Result<u64, QueueFault> {
        let (range, old) = self.change(address, |page| page.frame = frame);
        self.0.invalidate(range)?;
        Ok(old.frame)
    }

    /// As [`Process::replace`], without any invalidation: for tests that do that themselves.
    pub fn replace_only(&self, address: u64, frame: u64) -> u64 {
        self.change(address, |page| page.frame = frame).1.frame
    }

    /// Invalidates a range everywhere.
    pub fn invalidate(&self, address: u64, length: u64) -> Result<(), QueueFault> {
        self.0.invalidate(covering(address, length))
    }

    /// The frame behind an address.
    pub fn frame(&self, address: u64) -> u64 {
        self.page(address).1.frame
    }

    /// Whether the page of an address is present.
    pub fn is_present(&self, address: u64) -> bool {
        self.page(address).1.present
    }

    // The process's own accesses.

    /// Where an address lies in memory, and how many bytes follow it there. An absent page is
    /// made present.
    fn locate(&self, address: u64) -> (u64, u64) {
        let (base, page) = self.page(address);
        if !page.present {
            self.0.fault(address, false);
        }
        let size = 1u64 << page.shift;
        (page.frame + (address - base), size - (address - base))
    }

    /// Writes.
    pub fn write(&self, address: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (at, room) = self.locate(address + done as u64);
            let piece = (data.len() - done).min(room as usize);
            let written = self
                .0
                .os
                .0
                .frames
                .board()
                .memory_write(at, &data[done..done + piece]);
            assert_eq!(written, Ok(()), "frames are memory");
            done += piece;
        }
    }

    /// Reads.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        let mut done = 0;
        while done < length {
            let (at, room) = self.locate(address + done as u64);
            let piece = (length - done).min(room as usize);
            let read = self
                .0
                .os
                .0
                .frames
                .board()
                .memory_read(at, &mut data[done..done + piece]);
            assert_eq!(read, Ok(()), "frames are memory");
            done += piece;
        }
        data
    }

    /// Writes a number of 8 bytes at an aligned address.
    pub fn store(&self, address: u64, value: u64) {
        self.0.os.0.store(self.locate(address).0, value);
    }

    /// Reads a number of 8 bytes at an aligned address.
    pub fn load(&self, address: u64) -> u64 {
        self.0.os.0.load(self.locate(address).0)
    }
}

impl<B: Board + Clone> Drop for Space<B> {
    fn drop(&mut self) {
        let os = &self.os.0;
        os.processes.lock().remove(&self.pasid);
        if self.bound.lock().is_empty() {
            os.free_pasids.lock().push(self.pasid);
        }
    }
}

/// The least aligned range that holds a range.
fn covering(address: u64, length: u64) -> AlignedRange {
    let last = address + length.max(1) - 1;
    (12..64)
        .filter_map(|shift| AlignedRange::containing(address, shift).ok())
        .find(|range| range.contains(last))
        .unwrap_or(AlignedRange::ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_covering_range_is_aligned_and_least() {
        let c = |address, length| {
            let range = covering(address, length);
            (range.base(), range.shift())
        };
        assert_eq!(c(0x1000, 0x1000), (0x1000, 12));
        assert_eq!(c(0x1000, 0x1001), (0, 14));
        assert_eq!(c(0x20_0000, 0x20_0000), (0x20_0000, 21));
        assert_eq!(c(0x7fff_f000, 0x2000), (0, 32));
    }
}
