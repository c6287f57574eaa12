// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts the tables of a case into the memory of a machine: valid ones, and what is special about
//! them.

use super::case::{Case, ContextFault, EntryFault, Page, PageFault, Space, SpaceFault};
use crate::bench::Shared;
use machine::os::{Frames, Mode, Os, Stage, shift};
use vtd::spec::DomainId;
use vtd::spec::context::{ContextEntry, ScalableContextEntry};
use vtd::spec::paging::{FirstStageEntry, SecondStageEntry};
use vtd::spec::pasid::{PasidDirectoryEntry, PasidEntry, Pgtt};
use vtd::spec::register::{RootTableAddress, offset};
use vtd::spec::root::ScalableRootHalf;

/// An address that is that of no memory on any bench, and within all widths.
pub const NOWHERE: u64 = 0x40_0000_0000;
/// What a data page has at its beginning: this, and its number.
pub const MARK: u64 = 0x5eed_0000_0000_0000;

/// The tables of a case in memory.
#[derive(Debug)]
pub struct Tables {
    /// Address of the root entry.
    root: u64,
    /// The context entry that a valid case has.
    context: u64,
    /// The context table that a valid case has.
    context_table: u64,
    /// The PASID directory.
    directory: u64,
    spaces: Vec<SpaceTables>,
}

#[derive(Debug)]
struct SpaceTables {
    stage: Stage,
    /// The PASID table.
    table: u64,
    pages: Vec<PageTables>,
}

#[derive(Debug)]
struct PageTables {
    /// Where the data are that the page begins with, or those that are accessed.
    frame: u64,
    /// The entries on the way: level, place and value, from the leaf on.
    path: Vec<(u8, u64, u64)>,
}

/// DID of the n-th address space.
pub const fn domain(space: usize) -> u16 {
    space as u16 + 1
}

impl Tables {
    /// Makes them.
    pub fn new(os: &Os<Shared>, case: &Case) -> Tables {
        let frames = os.frames();
        let greatest = case.spaces.iter().filter_map(|space| space.pasid).max();
        let context = os.context_place(0);
        let root = RootTableAddress(os.machine().unit_read(0, offset::RTADDR, 8)).rta();
        // What is beyond the directory that the context entry tells of is there all the same.
        let size = (greatest.unwrap_or(0) / 64 + 1) * 8;
        let directory_shift = (u32::BITS - (size - 1).leading_zeros()).max(12) as u8;
        let mut tables = Tables {
            root,
            context,
            context_table: context & !0xfff,
            directory: frames.allocate_range(directory_shift),
            spaces: Vec::new(),
        };
        for (n, space) in case.spaces.iter().enumerate() {
            let made = tables.space(frames, case, n, space);
            tables.spaces.push(made);
        }
        tables.write(os.machine(), case);
        tables
    }

    fn space(
        &self,
        frames: &Frames<Shared>,
        case: &Case,
        number: usize,
        space: &Space,
    ) -> SpaceTables {
        let first = case.is_first_stage();
        let table_flags = match first {
            true => user_table().0,
            false => SecondStageEntry::ZERO.with_r(true).with_w(true).0,
        };
        let stage = Stage::new(frames, case.levels(), table_flags, 0);
        let same = |other: &Space| index(other) == index(space);
        let shared = case.spaces[..number].iter().position(same);
        let table = match shared {
            Some(other) => self.spaces[other].table,
            None => frames.allocate(),
        };
        let mut pages = Vec::new();
        for page in &space.pages {
            pages.push(self.page(frames, case, &stage, page, number * 16 + pages.len()));
        }
        SpaceTables {
            stage,
            table,
            pages,
        }
    }

    fn page(
        &self,
        frames: &Frames<Shared>,
        case: &Case,
        stage: &Stage,
        page: &Page,
        number: usize,
    ) -> PageTables {
        let (level, address) = (page.place.level(), case.address(page.place));
        // A page of 1 GiB is the first one of memory; what is accessed is a frame in it.
        let frame = match level {
            3 => frames.allocate(),
            _ => frames.allocate_range(shift(level)),
        };
        let output = if level == 3 { 0 } else { frame };
        let leaf = match case.is_first_stage() {
            true => user_table().with_ps(level > 1).with_addr(output).0,
            false => {
                SecondStageEntry::ZERO
                    .with_r(true)
                    .with_w(true)
                    .with_ps(level > 1)
                    .with_addr(output)
                    .0
            }
        };
        stage.set(frames, address, level, leaf);
        store(frames.board(), frame, MARK | number as u64);
        let entry = |level| {
            let place = stage.place(frames, address, level);
            (level, place, load(frames.board(), place))
        };
        PageTables {
            frame,
            path: (level..=stage.levels).map(entry).collect(),
        }
    }

    /// Writes all entries as a case has them.
    pub fn write(&self, machine: &Shared, case: &Case) {
        for space in 0..case.spaces.len() {
            for page in 0..case.spaces[space].pages.len() {
                self.write_page(machine, case, space, page);
            }
            self.write_space(machine, case, space);
        }
        self.write_context(machine, case);
    }

    /// Writes the entries on the way to a page.
    pub fn write_page(&self, machine: &Shared, case: &Case, space: usize, page: usize) {
        let first = case.is_first_stage();
        for (level, place, valid) in &self.spaces[space].pages[page].path {
            let mut entry = *valid;
            for fault in self.faults_of(case, space, *place) {
                if fault.level == *level {
                    entry = changed(entry, fault.what, first);
                }
            }
            store(machine, *place, entry);
        }
    }

    /// What is special about an entry, whichever page says so.
    fn faults_of(&self, case: &Case, space: usize, place: u64) -> Vec<PageFault> {
        let pages = self.spaces[space]
            .pages
            .iter()
            .zip(&case.spaces[space].pages);
        pages
            .filter(|(tables, _)| tables.path.iter().any(|(_, at, _)| *at == place))
            .flat_map(|(_, page)| page.faults.iter().copied())
            .collect()
    }

    /// Writes the entries of an address space in PASID directory and PASID table.
    pub fn write_space(&self, machine: &Shared, case: &Case, number: usize) {
        let space = &case.spaces[number];
        let SpaceTables { stage, table, .. } = &self.spaces[number];
        if case.mode == Mode::Legacy {
            return self.write_context(machine, case);
        }
        let first = case.is_first_stage();
        let mut directory = PasidDirectoryEntry::ZERO
            .with_p(true)
            .with_smptblptr(*table);
        let pgtt = match (space.pass_through, first) {
            (true, _) => Pgtt::PassThrough,
            (false, true) => Pgtt::FirstStage,
            (false, false) => Pgtt::SecondStage,
        };
        let mut entry = PasidEntry::ZERO
            .with_p(true)
            .with_did(DomainId(domain(number)))
            .with_pgtt(pgtt)
            .with_aw(case.levels() - 2)
            // Linux writes it where ECAP.SMPWCS says that it has a meaning.
            .with_pwsnp(true);
        entry = match first {
            true => entry.with_fsptptr(stage.pointer()),
            false => entry.with_ssptptr(stage.pointer()),
        };
        for fault in &space.faults {
            match *fault {
                SpaceFault::NotPresent => entry = entry.with_p(false),
                SpaceFault::FaultsDisabled => entry = entry.with_fpd(true),
                SpaceFault::Pgtt(bits) => entry = entry.with_pgtt_bits(bits),
                SpaceFault::Width(aw) => entry = entry.with_aw(aw),
                SpaceFault::PagingMode(mode) => entry = entry.with_fspm(mode),
                SpaceFault::Reserved(word, bit) => entry.0[usize::from(word)] |= 1 << bit,
                SpaceFault::TableNowhere if first => entry = entry.with_fsptptr(NOWHERE),
                SpaceFault::TableNowhere => entry = entry.with_ssptptr(NOWHERE),
                _ => {}
            }
        }
        // Those whose PASIDs are near each other have one directory entry.
        let sharing = case.spaces.iter().filter(|s| index(s) == index(space));
        for fault in sharing.flat_map(|space| &space.faults) {
            match *fault {
                SpaceFault::DirectoryNotPresent => directory = directory.with_p(false),
                SpaceFault::DirectoryFaultsDisabled => directory = directory.with_fpd(true),
                SpaceFault::DirectoryReserved(bit) => directory.0 |= 1 << bit,
                SpaceFault::DirectoryNowhere => directory = directory.with_smptblptr(NOWHERE),
                _ => {}
            }
        }
        let pasid = u64::from(space.pasid.unwrap_or(0));
        for (n, word) in entry.0.iter().enumerate().rev() {
            store(machine, table + (pasid & 63) * 64 + n as u64 * 8, *word);
        }
        store(machine, self.directory + (pasid >> 6) * 8, directory.0);
    }

    /// Writes root and context entry.
    pub fn write_context(&self, machine: &Shared, case: &Case) {
        let has = |fault| case.context.contains(&fault);
        let nowhere = has(ContextFault::TableNowhere);
        let mut words: Vec<u64> = match case.mode {
            Mode::Legacy => {
                let pointer = self.spaces[0].stage.pointer();
                let mut entry = ContextEntry::ZERO
                    .with_p(!has(ContextFault::NotPresent))
                    .with_fpd(has(ContextFault::FaultsDisabled))
                    // Translation requests are permitted.
                    .with_tt(1)
                    .with_aw(case.levels() - 2)
                    .with_did(DomainId(domain(0)))
                    .with_ssptptr(if nowhere { NOWHERE } else { pointer });
                if case.spaces[0].pass_through {
                    entry = entry.with_tt(2);
                }
                for fault in &case.context {
                    match *fault {
                        ContextFault::TranslationType(tt) => entry = entry.with_tt(tt),
                        ContextFault::Width(aw) => entry = entry.with_aw(aw),
                        _ => {}
                    }
                }
                entry.0.into()
            }
            Mode::Scalable => {
                let pointer = if nowhere { NOWHERE } else { self.directory };
                let device_tlb = !has(ContextFault::NoDeviceTlb);
                let requests = case.wish.first_stage && !has(ContextFault::NoPageRequests);
                let entry = ScalableContextEntry::ZERO
                    .with_p(!has(ContextFault::NotPresent))
                    .with_fpd(has(ContextFault::FaultsDisabled))
                    .with_dte(device_tlb)
                    .with_paside(!has(ContextFault::NoPasid))
                    .with_pre(device_tlb && requests)
                    .with_pdts(case.pdts)
                    .with_pasiddirptr(pointer);
                entry.0.into()
            }
        };
        let mut root = ScalableRootHalf::ZERO
            .with_p(!has(ContextFault::RootNotPresent))
            .with_ctp(self.context_table);
        for fault in &case.context {
            match *fault {
                ContextFault::Reserved(word, bit) => words[usize::from(word)] |= 1 << bit,
                ContextFault::RootReserved(bit) => root.0 |= 1 << bit,
                ContextFault::RootNowhere => root = root.with_ctp(NOWHERE),
                _ => {}
            }
        }
        for (n, word) in words.iter().enumerate().rev() {
            store(machine, self.context + n as u64 * 8, *word);
        }
        // The function's bus is 0, and its number below 16.
        store(machine, self.root, root.0);
    }

    /// Where the data of a page are in memory.
    pub fn frame(&self, space: usize, page: usize) -> u64 {
        self.spaces[space].pages[page].frame
    }

    /// How far the data of a page are from its beginning.
    pub fn distance(&self, case: &Case, space: usize, page: usize) -> u64 {
        match case.spaces[space].pages[page].place.level() {
            3 => self.frame(space, page),
            _ => 0,
        }
    }

    /// The entry that maps a page, as it is now.
    pub fn leaf(&self, machine: &Shared, space: usize, page: usize) -> u64 {
        let (_, place, _) = self.spaces[space].pages[page].path[0];
        load(machine, place)
    }
}

/// A first-stage entry with all permissions.
fn user_table() -> FirstStageEntry {
    FirstStageEntry::ZERO
        .with_p(true)
        .with_rw(true)
        .with_us(true)
}

/// Index of a space's entry in the PASID directory.
fn index(space: &Space) -> u32 {
    space.pasid.unwrap_or(0) >> 6
}

/// An entry with something special.
fn changed(entry: u64, what: EntryFault, first: bool) -> u64 {
    if first {
        let entry = FirstStageEntry(entry);
        match what {
            EntryFault::NotPresent => entry.with_p(false).0,
            EntryFault::NoWrite => entry.with_rw(false).0,
            EntryFault::Supervisor => entry.with_us(false).0,
            EntryFault::Reserved(bit) | EntryFault::Ignored(bit) => entry.0 | 1 << bit,
            EntryFault::Nowhere => entry.with_addr(NOWHERE).0,
            EntryFault::Accessed => entry.with_a(true).0,
            EntryFault::Dirty => entry.with_a(true).with_d(true).0,
            EntryFault::NoRead => entry.0,
        }
    } else {
        let entry = SecondStageEntry(entry);
        match what {
            EntryFault::NotPresent => entry.with_r(false).with_w(false).0,
            EntryFault::NoWrite => entry.with_w(false).0,
            EntryFault::NoRead => entry.with_r(false).0,
            EntryFault::Reserved(bit) | EntryFault::Ignored(bit) => entry.0 | 1 << bit,
            EntryFault::Nowhere => entry.with_addr(NOWHERE).0,
            EntryFault::Accessed | EntryFault::Dirty | EntryFault::Supervisor => entry.0,
        }
    }
}

/// Reads memory.
pub fn load(machine: &Shared, at: u64) -> u64 {
    match machine.load(at) {
        Ok(word) => word,
        Err(error) => panic!("{error}"),
    }
}

/// Writes memory.
pub fn store(machine: &Shared, at: u64, word: u64) {
    if let Err(error) = machine.store(at, word) {
        panic!("{error}");
    }
}
