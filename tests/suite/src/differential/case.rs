// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case: a unit, the tables of a function, and what software and the function do, as data. The
//! same case can be applied to any bench, and made smaller.

use crate::bench::{UnitWish, Wish};
use machine::os::Mode;
use pcie_ats::ResponseCode;
use std::fmt::{self, Display};

/// A case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The unit and the device.
    pub wish: Wish,
    /// The mode of the tables.
    pub mode: Mode,
    /// Invalidations go through the queue, and not through registers.
    pub queued: bool,
    /// PDTS of the context entry.
    pub pdts: u8,
    /// What is wrong with root and context entry.
    pub context: Vec<ContextFault>,
    /// The address spaces of the function: the first is that of its requests without PASID.
    pub spaces: Vec<Space>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// An address space.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Its PASID; none for that of requests without PASID.
    pub pasid: Option<u32>,
    /// Addresses pass through.
    pub pass_through: bool,
    /// What is wrong with its entries in PASID directory and PASID table.
    pub faults: Vec<SpaceFault>,
    /// Its pages.
    pub pages: Vec<Page>,
}

/// A page of an address space.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Where it lies.
    pub place: Place,
    /// What is special about the entries on the way to it.
    pub faults: Vec<PageFault>,
}

/// Where a page lies, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// 4 KiB in the lower half of the addresses.
    Low(u8),
    /// 4 KiB in the upper half of the addresses.
    High(u8),
    /// 2 MiB.
    TwoMib(u8),
    /// 1 GiB.
    OneGib(u8),
    /// 4 KiB at the beginning of the interrupt address range.
    Interrupts,
    /// The last 4 KiB of the addresses.
    Top,
}

impl Place {
    /// Level of the entry that maps it.
    pub const fn level(self) -> u8 {
        match self {
            Place::TwoMib(_) => 2,
            Place::OneGib(_) => 3,
            _ => 1,
        }
    }
}

/// What is special about an entry on the way to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// Level of the entry: 1 for 4 KiB.
    pub level: u8,
    /// What it is.
    pub what: EntryFault,
}

/// What is special about a paging entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFault {
    /// P is clear, or R and W.
    NotPresent,
    /// W is clear.
    NoWrite,
    /// R is clear; of a second stage alone.
    NoRead,
    /// U/S is clear; of a first stage alone.
    Supervisor,
    /// A reserved bit is set.
    Reserved(u8),
    /// A bit is set that is ignored.
    Ignored(u8),
    /// The address is that of no memory.
    Nowhere,
    /// A is set.
    Accessed,
    /// D is set.
    Dirty,
}

/// What is wrong with the entry of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceFault {
    /// P is clear.
    NotPresent,
    /// FPD is set.
    FaultsDisabled,
    /// PGTT has another value.
    Pgtt(u8),
    /// AW has another value.
    Width(u8),
    /// FSPM has another value.
    PagingMode(u8),
    /// A reserved bit is set: word and bit.
    Reserved(u8, u8),
    /// The table of the highest level is no memory.
    TableNowhere,
    /// P of the directory entry is clear.
    DirectoryNotPresent,
    /// FPD of the directory entry is set.
    DirectoryFaultsDisabled,
    /// A reserved bit of the directory entry is set.
    DirectoryReserved(u8),
    /// The PASID table is no memory.
    DirectoryNowhere,
}

impl SpaceFault {
    /// Whether it is of the directory entry, which other spaces share.
    pub const fn is_of_directory(self) -> bool {
        matches!(
            self,
            SpaceFault::DirectoryNotPresent
                | SpaceFault::DirectoryFaultsDisabled
                | SpaceFault::DirectoryReserved(_)
                | SpaceFault::DirectoryNowhere
        )
    }
}

/// What is wrong with root and context entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextFault {
    /// P is clear.
    NotPresent,
    /// FPD is set.
    FaultsDisabled,
    /// A reserved bit is set: word and bit.
    Reserved(u8, u8),
    /// DTE and PRE are clear.
    NoDeviceTlb,
    /// PASIDE is clear.
    NoPasid,
    /// PRE is clear.
    NoPageRequests,
    /// The PASID directory, or the table of the highest level, is no memory.
    TableNowhere,
    /// TT of legacy mode has another value.
    TranslationType(u8),
    /// AW of legacy mode has another value.
    Width(u8),
    /// P of the root entry is clear.
    RootNotPresent,
    /// A reserved bit of the root entry is set.
    RootReserved(u8),
    /// The context table is no memory.
    RootNowhere,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The function sends a request.
    Request(Request),
    /// The function sends a page request, and software answers its group.
    PageRequest(PageRequest),
    /// Software invalidates something that did not change.
    Invalidate(Invalidation),
    /// Software changes an entry, and invalidates what depends on it.
    Change(Change, Cover),
}

/// A request other than a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its kind.
    pub kind: Kind,
    /// Number of its address space.
    pub space: usize,
    /// Its address.
    pub at: At,
    /// No Write.
    pub no_write: bool,
    /// Execute Requested.
    pub execute: bool,
    /// Privileged Mode Requested.
    pub privileged: bool,
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A translation request.
    Translate,
    /// An untranslated read.
    Read,
    /// An untranslated write.
    Write,
    /// A translated read.
    TranslatedRead,
    /// A translated write.
    TranslatedWrite,
}

impl Kind {
    /// Whether its address is translated already.
    pub const fn is_translated(self) -> bool {
        matches!(self, Kind::TranslatedRead | Kind::TranslatedWrite)
    }
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In a page of the address space; of a translated request, in its frame.
    Page(usize, u16),
    /// Where no page is.
    Hole,
    /// Beyond the addresses that the tables have room for.
    Beyond,
    /// Beyond all widths.
    Wide,
    /// Where no memory is.
    Nowhere,
    /// In the interrupt address range.
    Interrupts,
}

impl At {
    /// The page that it lies in.
    pub const fn page(self) -> Option<usize> {
        match self {
            At::Page(page, _) => Some(page),
            _ => None,
        }
    }
}

/// A page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Number of its address space.
    pub space: usize,
    /// Its address.
    pub at: At,
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// Execute Requested.
    pub execute: bool,
    /// Privileged Mode Requested.
    pub privileged: bool,
    /// Last Request In Group.
    pub last: bool,
    /// Page Request Group Index.
    pub group: u16,
    /// What software answers.
    pub code: ResponseCode,
}

/// An invalidation of something that did not change: its descriptor in the queue, or its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// What is invalidated.
    pub what: Invalidated,
    /// Granularity.
    pub granularity: u8,
    /// Number of the address space whose domain and PASID it names.
    pub space: usize,
    /// Its address.
    pub at: At,
    /// AM.
    pub mask: u8,
    /// A reserved bit that is set: word and bit.
    pub reserved: Option<(u8, u8)>,
}

/// What an invalidation is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// The context cache.
    Contexts,
    /// The PASID cache.
    Pasids,
    /// The IOTLB, by domain.
    Iotlb,
    /// The IOTLB, by PASID.
    PasidIotlb,
    /// The Device-TLB.
    DeviceTlb,
    /// The Device-TLB, by PASID.
    PasidDeviceTlb,
    /// Nothing: a wait descriptor.
    Wait,
    /// Nothing: a response to a group that is not outstanding, with PASID.
    Response,
    /// The same without PASID.
    ResponseWithoutPasid,
    /// Nothing: a descriptor of a type that there is not.
    UnknownType,
}

/// A change of tables. It takes back what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Of an entry on the way to a page.
    Page(usize, usize, PageFault),
    /// Of the entry of an address space.
    Space(usize, SpaceFault),
    /// Of root or context entry.
    Context(ContextFault),
}

/// How much is invalidated after a change: always enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Everything.
    Global,
    /// The domain.
    Domain,
    /// As little as is enough.
    Selective,
}

/// Adds to a list, or takes away what is there already.
fn toggle<T: PartialEq>(list: &mut Vec<T>, item: T) {
    match list.iter().position(|other| *other == item) {
        Some(at) => {
            list.remove(at);
        }
        None => list.push(item),
    }
}

impl Case {
    /// Carries a change out in the description of the tables. One of what is not there is none.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Context(fault) => toggle(&mut self.context, fault),
            Change::Space(space, fault) => {
                if let Some(space) = self.spaces.get_mut(space) {
                    toggle(&mut space.faults, fault);
                }
            }
            Change::Page(space, page, fault) => {
                if let Some(page) = self.page_mut(space, page) {
                    toggle(&mut page.faults, fault);
                }
            }
        }
    }

    fn page_mut(&mut self, space: usize, page: usize) -> Option<&mut Page> {
        self.spaces.get_mut(space)?.pages.get_mut(page)
    }

    /// The case as its tables are before a step.
    #[must_use]
    pub fn before(&self, step: usize) -> Case {
        let mut case = self.clone();
        for step in &self.steps[..step] {
            if let Step::Change(change, _) = step {
                case.change(*change);
            }
        }
        case
    }

    /// What the bench is to make.
    pub fn unit(&self) -> UnitWish {
        match self.wish.unit {
            Some(unit) => unit,
            None => unreachable!("a case says what the unit is like"),
        }
    }

    /// Whether the address spaces are of a first stage.
    pub fn is_first_stage(&self) -> bool {
        self.mode == Mode::Scalable && self.wish.first_stage
    }

    /// Levels of the page tables.
    pub fn levels(&self) -> u8 {
        if self.is_first_stage() || self.unit().address_bits == 48 {
            4
        } else {
            3
        }
    }

    /// Address of a place.
    pub fn address(&self, place: Place) -> u64 {
        let bits = if self.is_first_stage() {
            48
        } else {
            self.unit().address_bits
        };
        let extended = if self.is_first_stage() { !0 << 48 } else { 0 };
        match place {
            Place::Low(n) => 0x10_0000 + u64::from(n) * 0x1000,
            Place::High(n) => extended | 1 << (bits - 1) | (0x10_0000 + u64::from(n) * 0x1000),
            Place::TwoMib(n) => 0x8000_0000 + (u64::from(n) << 21),
            Place::OneGib(n) => 0x10_0000_0000 + (u64::from(n) << 30),
            Place::Interrupts => 0xfee0_0000,
            Place::Top => extended | ((1 << bits) - 0x1000),
        }
    }

    /// One more than the largest PASID that the directory reaches.
    pub fn pasid_limit(&self) -> u32 {
        1 << (self.pdts + 13)
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit();
        let stage = match (self.mode, self.is_first_stage()) {
            (Mode::Legacy, _) => "legacy mode",
            (_, true) => "scalable mode, first stage",
            (_, false) => "scalable mode, second stage",
        };
        write!(f, "unit: {stage}, {} bits", unit.address_bits)?;
        for (is, name) in [
            (!unit.scalable, "without scalable mode"),
            (!self.wish.one_gib_pages, "without pages of 1 GiB"),
            (unit.snoop_control, "snoop control"),
            (unit.caching_mode, "caching mode"),
            (!self.queued, "invalidation by registers"),
        ] {
            if is {
                write!(f, ", {name}")?;
            }
        }
        let device = self.wish.device;
        for (is, name) in [
            (device.execute, "requests for execution"),
            (device.privileged, "requests in privileged mode"),
        ] {
            if is {
                write!(f, ", {name}")?;
            }
        }
        write!(f, "\nfunction:")?;
        if self.mode == Mode::Scalable {
            write!(f, " PASIDs below {:#x}", self.pasid_limit())?;
        }
        list(f, &self.context)?;
        for (n, space) in self.spaces.iter().enumerate() {
            write!(f, "\naddress space {n}:")?;
            match space.pasid {
                Some(pasid) => write!(f, " PASID {pasid:#x}")?,
                None => write!(f, " without PASID")?,
            }
            if space.pass_through {
                write!(f, ", pass-through")?;
            }
            list(f, &space.faults)?;
            for (n, page) in space.pages.iter().enumerate() {
                let address = self.address(page.place);
                write!(f, "\n  page {n}: {:?} at {address:#x}", page.place)?;
                for fault in &page.faults {
                    write!(f, ", {:?} at level {}", fault.what, fault.level)?;
                }
            }
        }
        for (n, step) in self.steps.iter().enumerate() {
            write!(f, "\nstep {n}: {step}")?;
        }
        Ok(())
    }
}

/// What is special about something.
fn list<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, faults: &[T]) -> fmt::Result {
    for fault in faults {
        write!(f, ", {fault:?}")?;
    }
    Ok(())
}

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Page(page, 0) => write!(f, "page {page}"),
            At::Page(page, offset) => write!(f, "page {page} + {offset:#x}"),
            At::Hole => f.write_str("an address without a page"),
            At::Beyond => f.write_str("an address beyond the tables"),
            At::Wide => f.write_str("an address beyond all widths"),
            At::Nowhere => f.write_str("an address without memory"),
            At::Interrupts => f.write_str("the interrupt address range"),
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = |f: &mut fmt::Formatter<'_>, flags: &[(bool, &str)]| {
            let mut set = flags.iter().filter(|(is, _)| *is);
            set.try_for_each(|(_, name)| write!(f, ", {name}"))
        };
        match self {
            Step::Request(r) => {
                write!(f, "{:?} of {} in space {}", r.kind, r.at, r.space)?;
                flags(
                    f,
                    &[
                        (r.no_write, "no write"),
                        (r.execute, "execute"),
                        (r.privileged, "privileged"),
                    ],
                )
            }
            Step::PageRequest(r) => {
                write!(f, "page request of {} in space {}", r.at, r.space)?;
                write!(f, ", group {}", r.group)?;
                flags(
                    f,
                    &[
                        (r.read, "read"),
                        (r.write, "write"),
                        (r.execute, "execute"),
                        (r.privileged, "privileged"),
                        (r.last, "last"),
                    ],
                )?;
                write!(f, "; answered {:?}", r.code)
            }
            Step::Invalidate(i) => {
                write!(f, "invalidation of {:?}, G {}", i.what, i.granularity)?;
                write!(f, ", space {}, {}, AM {}", i.space, i.at, i.mask)?;
                match i.reserved {
                    Some((word, bit)) => write!(f, ", reserved bit {bit} of word {word}"),
                    None => Ok(()),
                }
            }
            Step::Change(change, cover) => {
                match change {
                    Change::Page(space, page, fault) => write!(
                        f,
                        "page {page} of space {space}: {:?} at level {} changes",
                        fault.what, fault.level
                    )?,
                    Change::Space(space, fault) => write!(f, "space {space}: {fault:?} changes")?,
                    Change::Context(fault) => write!(f, "function: {fault:?} changes")?,
                }
                write!(f, ", invalidation {cover:?}")
            }
        }
    }
}
