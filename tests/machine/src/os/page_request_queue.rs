// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page request queue of a unit (section 7.4 of the VT-d specification): its requests become
//! groups.

use super::board::Board;
use super::frames::Frames;
use crate::machine::Machine;
use pcie_ats::{PageRequest, ResponseCode};
use vtd::spec::SourceId;
use vtd::spec::page_request::{PageRequestDescriptor, SIZE};
use vtd::spec::register::{offset, prs};

/// What is done about page requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Pages are made present, and the group is answered.
    #[default]
    Serve,
    /// As `Serve`, but groups that are there together are answered in reverse order.
    Reorder,
    /// Every group is answered with this code, and nothing is made present.
    Refuse(ResponseCode),
    /// Groups are kept until [`super::Os::release_page_requests`].
    Delay,
    /// Groups are taken out of the queue and never answered.
    Ignore,
}

/// A page request group that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub rid: SourceId,
    pub pages: Vec<PageRequest>,
}

/// The page request queue of a unit.
#[derive(Debug)]
pub(crate) struct Handler<B = Machine> {
    machine: B,
    unit: usize,
    base: u64,
    size: u64,
    /// Requests whose group is not complete.
    pub partial: Vec<(SourceId, PageRequest)>,
    /// Groups that are delayed.
    pub delayed: Vec<Group>,
    /// Groups with pages that are on the move, to be looked at again.
    pub postponed: Vec<Group>,
}

impl<B: Board + Clone> Handler<B> {
    /// Gives the unit a queue of one page.
    pub fn new(machine: &B, unit: usize, frames: &Frames<B>) -> Self {
        let base = frames.allocate();
        for (at, value) in [(offset::PQA, base), (offset::PQH, 0), (offset::PQT, 0)] {
            machine.unit_write(unit, at, value, 8);
        }
        Handler {
            machine: machine.clone(),
            unit,
            base,
            size: 4096,
            partial: Vec::new(),
            delayed: Vec::new(),
            postponed: Vec::new(),
        }
    }

    /// Takes what is in the queue, and returns the groups that are complete now.
    pub fn collect(&mut self) -> Vec<Group> {
        let machine = &self.machine;
        let status = machine.unit_read(self.unit, offset::PRS, 4) as u32;
        if status == 0 {
            return Vec::new();
        }
        machine.unit_write(self.unit, offset::PRS, prs::PPR.into(), 4);
        let mut groups = Vec::new();
        let mut head = machine.unit_read(self.unit, offset::PQH, 8);
        let tail = machine.unit_read(self.unit, offset::PQT, 8);
        while head != tail {
            let words = [0, 8, 16, 24]
                .map(|word| machine.load(self.base + head + word).unwrap_or_default());
            head = (head + SIZE) % self.size;
            let Ok(PageRequestDescriptor { rid, request }) =
                PageRequestDescriptor::from_words(words)
            else {
                continue;
            };
            let same = |(other, page): &(SourceId, PageRequest)| {
                *other == rid && page.pasid == request.pasid && page.prgi == request.prgi
            };
            if !request.last {
                self.partial.push((rid, request));
                continue;
            }
            let mut pages: Vec<PageRequest> = self
                .partial
                .iter()
                .filter(|p| same(p))
                .map(|p| p.1)
                .collect();
            self.partial.retain(|p| !same(p));
            // A stop marker asks for nothing, and is not answered.
            if request.read || request.write {
                pages.push(request);
                groups.push(Group { rid, pages });
            }
        }
        machine.unit_write(self.unit, offset::PQH, head, 8);
        if status & prs::PRO != 0 {
            // The rest of these groups was dropped, and the unit has answered for them.
            self.partial.clear();
            machine.unit_write(self.unit, offset::PRS, prs::PRO.into(), 4);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_starts_with_an_empty_queue() {
        let machine = Machine::new(&crate::MachineConfig::default()).unwrap();
        let frames = Frames::new(&machine);
        let mut handler = Handler::new(&machine, 0, &frames);
        assert!(handler.collect().is_empty());
    }
}
