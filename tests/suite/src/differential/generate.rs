// SPDX-License-Identifier: MIT OR Apache-2.0
//! Draws cases: mostly valid tables, with little wrong in them, so that requests get far.
//!
//! A case asks nothing whose answer is open: what changes in tables is invalidated, and what the
//! capabilities of the two units exclude on one side is left out. So are zero-length reads: QEMU's
//! buses carry none.

use super::case::{
    At, Case, Change, ContextFault, Cover, EntryFault, Invalidated, Invalidation, Kind, Page,
    PageFault, PageRequest, Place, Request, Space, SpaceFault, Step,
};
use crate::bench::{Like, UnitWish, Wish};
use fastrand::Rng;
use machine::os::Mode;
use pcie_ats::ResponseCode;

/// Cases that have one unit, so that a machine serves several of them.
pub const ALIKE: u64 = 32;

/// The n-th case of a seed, for units with these capabilities. It follows from the two numbers alone.
pub fn case(like: Like, seed: u64, number: u64) -> Case {
    let mut of_unit = Rng::with_seed(mixed(seed, number / ALIKE * 2 + 1));
    let wish = unit(&mut of_unit, like);
    Draw {
        rng: Rng::with_seed(mixed(seed, number * 2)),
    }
    .case(wish)
}

/// A seed of two numbers: neighbours are far from each other.
fn mixed(seed: u64, number: u64) -> u64 {
    let first = Rng::with_seed(seed).u64(..);
    Rng::with_seed(first ^ number).u64(..)
}

fn unit(rng: &mut Rng, like: Like) -> Wish {
    let scalable = rng.u8(..6) != 0;
    let first_stage = scalable && rng.u8(..4) != 0;
    let narrow = !first_stage && rng.u8(..3) == 0;
    let mut wish = Wish {
        first_stage,
        one_gib_pages: rng.u8(..4) != 0,
        unit: Some(UnitWish {
            like,
            scalable,
            address_bits: if narrow { 39 } else { 48 },
            // QEMU's unit offers no translation requests beside it.
            snoop_control: rng.bool() && like == Like::SvmVtd,
            caching_mode: rng.u8(..4) == 0,
        }),
        ..Wish::default()
    };
    wish.device.execute = rng.bool();
    wish.device.privileged = rng.bool();
    wish
}

struct Draw {
    rng: Rng,
}

impl Draw {
    fn one_in(&mut self, times: u32) -> bool {
        self.rng.u32(..times) == 0
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())]
    }

    fn case(&mut self, wish: Wish) -> Case {
        let scalable = wish.unit.is_some_and(|unit| unit.scalable);
        let mode = match scalable && !self.one_in(8) {
            true => Mode::Scalable,
            false => Mode::Legacy,
        };
        let mut case = Case {
            wish,
            mode,
            queued: mode == Mode::Scalable || !self.one_in(3),
            pdts: self.one(&[0, 1, 1, 4, 7]),
            context: Vec::new(),
            spaces: Vec::new(),
            steps: Vec::new(),
        };
        let mut pasids = vec![1, 5, 63, 64, 300, 0x2001, 0x1_0005];
        self.rng.shuffle(&mut pasids);
        let spaces = match mode {
            Mode::Legacy => 1,
            Mode::Scalable => 2 + self.rng.usize(..2),
        };
        for n in 0..spaces {
            let pasid = n.checked_sub(1).map(|n| pasids[n]);
            let pass_through = self.one_in(12);
            let pages = self.pages(&case);
            case.spaces.push(Space {
                pasid,
                pass_through,
                faults: Vec::new(),
                pages,
            });
        }
        // About a case in three has something wrong above its page tables.
        if self.one_in(6) {
            let fault = self.context_fault(&case);
            case.context.push(fault);
        }
        if mode == Mode::Scalable && self.one_in(4) {
            let space = self.rng.usize(..spaces);
            let fault = self.space_fault(&case);
            case.spaces[space].faults.push(fault);
        }
        let steps = 6 + self.rng.usize(..14);
        for _ in 0..steps {
            let step = self.step(&case);
            case.steps.push(step);
        }
        case
    }

    fn pages(&mut self, case: &Case) -> Vec<Page> {
        let mut pages: Vec<Page> = Vec::new();
        for _ in 0..1 + self.rng.usize(..4) {
            let place = match self.rng.u8(..16) {
                0..=6 => Place::Low(self.rng.u8(..8)),
                7..=9 => Place::High(self.rng.u8(..4)),
                10 | 11 => Place::TwoMib(self.rng.u8(..4)),
                12 | 13 => Place::OneGib(self.rng.u8(..3)),
                14 => Place::Interrupts,
                _ => Place::Top,
            };
            if pages.iter().any(|page| page.place == place) {
                continue;
            }
            let faults = match self.one_in(2) {
                true => vec![self.page_fault(case, place)],
                false => Vec::new(),
            };
            pages.push(Page { place, faults });
        }
        pages
    }

    fn page_fault(&mut self, case: &Case, place: Place) -> PageFault {
        let first = case.is_first_stage();
        let lowest = place.level();
        // Mostly the leaf.
        let level = match self.one_in(3) {
            true => lowest + self.rng.u8(..=case.levels() - lowest),
            false => lowest,
        };
        // Address bits beyond all widths are reserved at every level of either stage.
        let mut reserved = vec![51];
        if level == lowest && lowest > 1 {
            // Below the address of a large page.
            reserved.push(13);
        }
        if level == 4 {
            // PS.
            reserved.push(7);
        }
        let what = match self.rng.u8(..12) {
            0..=2 => EntryFault::NotPresent,
            3..=5 => EntryFault::NoWrite,
            6 if first => EntryFault::Supervisor,
            6 => EntryFault::NoRead,
            7 => EntryFault::Reserved(self.one(&reserved)),
            8 => EntryFault::Ignored(self.one(if first { &[9, 52, 58] } else { &[52, 60] })),
            9 => EntryFault::Nowhere,
            10 if first => EntryFault::Accessed,
            11 if first && level == lowest => EntryFault::Dirty,
            _ => EntryFault::NotPresent,
        };
        PageFault { level, what }
    }

    fn space_fault(&mut self, case: &Case) -> SpaceFault {
        let first = case.is_first_stage();
        match self.rng.u8(..12) {
            0..=2 => SpaceFault::NotPresent,
            3 => SpaceFault::FaultsDisabled,
            // Those that both units refuse.
            4 => SpaceFault::Pgtt(self.one(&[0, 5, 7])),
            5 if first => SpaceFault::PagingMode(self.one(&[2, 3])),
            5 => SpaceFault::Width(self.one(&[0, 3, 5])),
            6 => SpaceFault::Reserved(self.one(&[3, 7]), self.rng.u8(..64)),
            7 => SpaceFault::TableNowhere,
            8 => SpaceFault::DirectoryNotPresent,
            9 => SpaceFault::DirectoryFaultsDisabled,
            10 => SpaceFault::DirectoryReserved(self.one(&[3, 55])),
            _ => SpaceFault::DirectoryNowhere,
        }
    }

    fn context_fault(&mut self, case: &Case) -> ContextFault {
        let scalable = case.mode == Mode::Scalable;
        match self.rng.u8(..11) {
            0 | 1 => ContextFault::NotPresent,
            2 => ContextFault::FaultsDisabled,
            3 if scalable => ContextFault::Reserved(self.one(&[2, 3]), self.rng.u8(..64)),
            3 => ContextFault::Reserved(1, 40),
            4 if scalable => ContextFault::NoDeviceTlb,
            5 if scalable => ContextFault::NoPasid,
            6 if scalable => ContextFault::NoPageRequests,
            4 => ContextFault::TranslationType(self.one(&[0, 3])),
            5 | 6 => ContextFault::Width(self.one(&[0, 3, 5])),
            7 => ContextFault::TableNowhere,
            8 => ContextFault::RootNotPresent,
            9 => ContextFault::RootReserved(self.one(&[3, 60])),
            _ => ContextFault::RootNowhere,
        }
    }

    fn step(&mut self, case: &Case) -> Step {
        match self.rng.u8(..20) {
            0..=11 => Step::Request(self.request(case)),
            12..=14 if case.is_first_stage() => Step::PageRequest(self.page_request(case)),
            12..=14 => Step::Request(self.request(case)),
            15 | 16 => Step::Invalidate(self.invalidation(case)),
            _ => {
                let cover = self.one(&[Cover::Global, Cover::Domain, Cover::Selective]);
                Step::Change(self.change(case), cover)
            }
        }
    }

    fn change(&mut self, case: &Case) -> Change {
        let space = self.rng.usize(..case.spaces.len());
        match self.rng.u8(..10) {
            0 => Change::Context(self.context_fault(case)),
            1..=3 if case.mode == Mode::Scalable => Change::Space(space, self.space_fault(case)),
            _ => {
                let page = self.rng.usize(..case.spaces[space].pages.len());
                // Often what is there is taken away.
                let faults = &case.spaces[space].pages[page].faults;
                let fault = match faults.first() {
                    Some(fault) if self.rng.bool() => *fault,
                    _ => self.page_fault(case, case.spaces[space].pages[page].place),
                };
                Change::Page(space, page, fault)
            }
        }
    }

    fn at(&mut self, case: &Case, space: usize) -> At {
        let page = self.rng.usize(..case.spaces[space].pages.len());
        match self.rng.u8(..24) {
            0 => At::Hole,
            1 => At::Beyond,
            2 => At::Wide,
            3 => At::Interrupts,
            4 => At::Nowhere,
            // The last 8 bytes of a page of 4 KiB.
            5 | 6 => At::Page(page, 0xff8),
            _ => At::Page(page, 0),
        }
    }

    fn request(&mut self, case: &Case) -> Request {
        let kind = self.one(&[
            Kind::Translate,
            Kind::Translate,
            Kind::Translate,
            Kind::Read,
            Kind::Read,
            Kind::Write,
            Kind::Write,
            Kind::TranslatedRead,
            Kind::TranslatedWrite,
        ]);
        // Accesses have no PASID on QEMU's buses.
        let space = match kind {
            Kind::Translate => self.rng.usize(..case.spaces.len()),
            _ => 0,
        };
        let mut at = self.at(case, space);
        if matches!(kind, Kind::Write | Kind::TranslatedWrite) {
            // A write there is an interrupt.
            if is_interrupts(case, space, at) {
                at = At::Hole;
            }
        }
        let with_pasid = case.spaces[space].pasid.is_some();
        if case.spaces[space].pass_through && kind == Kind::Write {
            // Where addresses pass through, software's own tables lie there.
            at = At::Nowhere;
        }
        if kind == Kind::Translate {
            // Its address is that of a page.
            if let At::Page(page, _) = at {
                at = At::Page(page, 0);
            }
            // Texts disagree on what is answered there.
            if !with_pasid && is_interrupts(case, space, at) {
                at = At::Hole;
            }
        }
        let device = case.wish.device;
        Request {
            kind,
            space,
            at,
            // QEMU's unit honours it also where ECAP.NWFS is 0.
            no_write: kind == Kind::Translate
                && (case.wish.first_stage || case.unit().like == Like::SvmVtd)
                && self.rng.bool(),
            execute: with_pasid && device.execute && self.one_in(6),
            privileged: with_pasid && device.privileged && self.one_in(8),
        }
    }

    fn page_request(&mut self, case: &Case) -> PageRequest {
        let space = match self.one_in(8) {
            true => 0,
            false => 1 + self.rng.usize(..case.spaces.len() - 1),
        };
        let with_pasid = space != 0;
        let device = case.wish.device;
        let read = !self.one_in(4);
        PageRequest {
            space,
            at: self.at(case, space),
            read,
            write: self.rng.bool(),
            execute: with_pasid && read && device.execute && self.one_in(4),
            privileged: with_pasid && device.privileged && self.one_in(6),
            last: !self.one_in(4),
            group: self.rng.u16(..256),
            code: match self.rng.u8(..8) {
                // It ends page requests, which QEMU's unit often refuses before.
                0 if case.unit().like == Like::SvmVtd => ResponseCode::ResponseFailure,
                1 | 2 => ResponseCode::InvalidRequest,
                _ => ResponseCode::Success,
            },
        }
    }

    fn invalidation(&mut self, case: &Case) -> Invalidation {
        let scalable = case.mode == Mode::Scalable;
        let mut kinds = vec![Invalidated::Contexts, Invalidated::Iotlb];
        if case.queued {
            kinds.extend([
                Invalidated::DeviceTlb,
                Invalidated::Wait,
                Invalidated::UnknownType,
            ]);
        }
        if scalable {
            kinds.extend([
                Invalidated::Pasids,
                Invalidated::PasidIotlb,
                Invalidated::PasidIotlb,
                Invalidated::PasidDeviceTlb,
            ]);
        }
        if scalable && case.is_first_stage() {
            kinds.extend([Invalidated::Response, Invalidated::ResponseWithoutPasid]);
        }
        let what = self.one(&kinds);
        let space = self.rng.usize(..case.spaces.len());
        // Registers have no errors: a granularity that there is not does nothing.
        let least = u8::from(!case.queued);
        let reserved = match what {
            _ if !case.queued || !self.one_in(4) => None,
            Invalidated::Contexts => Some((0, 60)),
            Invalidated::Pasids | Invalidated::PasidIotlb => Some((0, 60)),
            Invalidated::Iotlb => Some((0, 40)),
            Invalidated::DeviceTlb => Some((1, 5)),
            Invalidated::PasidDeviceTlb => Some((1, 5)),
            Invalidated::Wait => Some((0, 8)),
            _ => None,
        };
        Invalidation {
            what,
            granularity: least + self.rng.u8(..4 - least),
            space,
            at: self.at(case, space),
            mask: self.one(&[0, 0, 1, 9, 18, 19, 40]),
            reserved,
        }
    }
}

/// Whether an address lies in the interrupt address range.
fn is_interrupts(case: &Case, space: usize, at: At) -> bool {
    match at {
        At::Interrupts => true,
        At::Page(page, _) => case.spaces[space].pages[page].place == Place::Interrupts,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_follows_from_its_numbers_alone() {
        assert_eq!(case(Like::SvmVtd, 1, 77), case(Like::SvmVtd, 1, 77));
        assert_ne!(case(Like::SvmVtd, 1, 77), case(Like::SvmVtd, 1, 78));
        assert_ne!(case(Like::SvmVtd, 1, 77), case(Like::SvmVtd, 2, 77));
        for n in 1..ALIKE {
            assert_eq!(case(Like::SvmVtd, 3, 0).wish, case(Like::SvmVtd, 3, n).wish);
        }
    }
}
