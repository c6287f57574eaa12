// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done about page requests: pages are made present, and groups are answered.

use super::board::Board;
use super::descriptors::{Words, page_group_response};
use super::kernel::{AddressSpace, FaultOutcome, Os, UnitState};
use super::page_request_queue::{Behaviour, Group, Handler};
use pcie_ats::{Pasid, PrgResponse, ResponseCode};
use std::sync::Arc;

impl<B: Board + Clone> Os<B> {
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
        let delayed = |u: &UnitState<B>| u.handler.lock().delayed.len();
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

    fn space(&self, pasid: Pasid) -> Option<Arc<dyn AddressSpace>> {
        self.0.processes.lock().get(&pasid)?.upgrade()
    }

    /// Makes the pages of a group present, and returns how to answer; none if a page is on the
    /// move, and the group must be looked at again.
    fn serve(&self, group: &Group) -> Option<ResponseCode> {
        for page in &group.pages {
            let space = page.pasid.and_then(|pasid| self.space(pasid));
            let fault = space.map(|space| space.fault(page.address, page.write));
            match fault {
                Some(FaultOutcome::Served) => {}
                Some(FaultOutcome::Busy) => return None,
                Some(FaultOutcome::Bad) | None => return Some(ResponseCode::InvalidRequest),
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
