// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page request queue and what is done about page requests (section 7.4 of the VT-d
//! specification).

use super::Os;
use super::descriptors::{Words, page_group_response};
use super::frames::Frames;
use super::process::{Fault, Space};
use crate::machine::Machine;
use pcie_ats::{PageRequest, Pasid, PrgResponse, ResponseCode};
use std::sync::Arc;
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
    /// Groups are kept until [`Os::release_page_requests`].
    Delay,
    /// Groups are taken out of the queue and never answered.
    Ignore,
}

/// A page request group that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    rid: SourceId,
    pages: Vec<PageRequest>,
}

/// The page request queue of a unit.
#[derive(Debug)]
pub(crate) struct Handler {
    machine: Machine,
    unit: usize,
    base: u64,
    size: u64,
    /// Requests whose group is not complete.
    partial: Vec<(SourceId, PageRequest)>,
    /// Groups that are delayed.
    delayed: Vec<Group>,
    /// Groups with pages that are on the move, to be looked at again.
    postponed: Vec<Group>,
}

impl Handler {
    /// Gives the unit a queue of one page.
    pub fn new(machine: &Machine, unit: usize, frames: &Frames) -> Self {
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
    fn collect(&mut self) -> Vec<Group> {
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
            let words = [0, 8, 16, 24].map(|word| {
                machine
                    .ram()
                    .load(self.base + head + word)
                    .unwrap_or_default()
            });
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

impl Os {
    /// Chooses what is done about page requests from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.0.behaviour.lock() = behaviour;
    }

    /// Handles what is in the page request queues, unless somebody else is about it. Returns how
    /// many groups that were.
    pub fn handle_page_requests(&self) -> usize {
        let behaviour = *self.0.behaviour.lock();
        let mut count = 0;
        for (number, unit) in self.0.units.iter().enumerate() {
            let Some(mut handler) = unit.handler.try_lock() else {
                continue;
            };
            let mut groups = std::mem::take(&mut handler.postponed);
            groups.extend(handler.collect());
            count += groups.len();
            match behaviour {
                Behaviour::Serve => {}
                Behaviour::Reorder => groups.reverse(),
                Behaviour::Refuse(code) => {
                    drop(handler);
                    self.answer(number, &groups, &vec![code; groups.len()]);
                    continue;
                }
                Behaviour::Delay => {
                    handler.delayed.append(&mut groups);
                    continue;
                }
                Behaviour::Ignore => continue,
            }
            drop(handler);
            count -= self.serve_all(number, groups);
        }
        count
    }

    /// Serves and answers groups. Returns how many had to be postponed.
    fn serve_all(&self, unit: usize, groups: Vec<Group>) -> usize {
        let mut postponed = Vec::new();
        let mut codes = Vec::new();
        let served: Vec<Group> = groups
            .into_iter()
            .filter_map(|group| match self.serve(&group) {
                Some(code) => {
                    codes.push(code);
                    Some(group)
                }
                None => {
                    postponed.push(group);
                    None
                }
            })
            .collect();
        let count = postponed.len();
        if count != 0 {
            self.0.units[unit]
                .handler
                .lock()
                .postponed
                .append(&mut postponed);
        }
        self.answer(unit, &served, &codes);
        count
    }

    /// Serves the groups that were delayed. Returns how many they were.
    pub fn release_page_requests(&self) -> usize {
        let mut count = 0;
        for (number, unit) in self.0.units.iter().enumerate() {
            let groups = std::mem::take(&mut unit.handler.lock().delayed);
            count += groups.len();
            self.serve_all(number, groups);
        }
        count
    }

    /// How many groups are delayed.
    pub fn delayed_page_requests(&self) -> usize {
        let delayed = |u: &super::UnitState| u.handler.lock().delayed.len();
        self.0.units.iter().map(delayed).sum()
    }

    /// Answers what is delayed, and what comes, for a PASID with "invalid request": its process
    /// goes away.
    pub(super) fn refuse_delayed(&self, pasid: Pasid) {
        for (number, unit) in self.0.units.iter().enumerate() {
            let mut handler = unit.handler.lock();
            let mine = |group: &Group| group.pages[0].pasid == Some(pasid);
            let mut refused = Vec::new();
            let Handler {
                delayed, postponed, ..
            } = &mut *handler;
            for list in [delayed, postponed] {
                let (more, kept) = std::mem::take(list)
                    .into_iter()
                    .partition::<Vec<_>, _>(mine);
                refused.extend(more);
                *list = kept;
            }
            handler
                .partial
                .retain(|(_, page)| page.pasid != Some(pasid));
            drop(handler);
            let codes = vec![ResponseCode::InvalidRequest; refused.len()];
            self.answer(number, &refused, &codes);
        }
    }

    fn space(&self, pasid: Pasid) -> Option<Arc<Space>> {
        self.0.processes.lock().get(&pasid)?.upgrade()
    }

    /// Makes the pages of a group present, and returns how to answer; none if a page is on the
    /// move, and the group must be looked at again.
    fn serve(&self, group: &Group) -> Option<ResponseCode> {
        for page in &group.pages {
            let space = page.pasid.and_then(|pasid| self.space(pasid));
            let fault = space.map(|space| space.fault(page.address, page.write));
            match fault {
                Some(Fault::Served) => {}
                Some(Fault::Busy) => return None,
                Some(Fault::Bad) | None => return Some(ResponseCode::InvalidRequest),
            }
        }
        Some(ResponseCode::Success)
    }

    fn answer(&self, unit: usize, groups: &[Group], codes: &[ResponseCode]) {
        let responses: Vec<Words> = groups
            .iter()
            .zip(codes)
            .map(|(group, code)| {
                let first = &group.pages[0];
                page_group_response(
                    group.rid,
                    &PrgResponse {
                        prgi: first.prgi,
                        pasid: first.pasid,
                        code: *code,
                    },
                )
            })
            .collect();
        for part in responses.chunks(64) {
            // The queue is in motion as long as no error stops it, and then nothing helps.
            while !self.queue(unit).try_submit_only(part) {
                if self.queue(unit).fault().is_some() {
                    return;
                }
                if !self.machine().step() {
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_starts_with_an_empty_queue() {
        let machine = Machine::new(&crate::MachineConfig::default()).unwrap();
        let frames = Frames::new(machine.ram());
        let mut handler = Handler::new(&machine, 0, &frames);
        assert!(handler.collect().is_empty());
    }
}
