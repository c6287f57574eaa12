// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests of contexts and their responses (PCIe 10.4).

use super::Device;
use crate::access::{Failure, Piece};
use crate::context::{Context, Stall, State, earlier};
use crate::counters::index;
use crate::laboratory::Outcome;
use crate::mutant::Mutant;
use crate::page_groups::{Group, Owner, PagesAhead};
use crate::set::Set;
use crate::turn::{Action, Turn};
use pcie_ats::{PAGE_SHIFT, PageRequest, Pasid, PrgResponse, Prgi, ResponseCode};
use svm_abi::completion::Error;

/// The largest number of pages of a group.
pub(crate) const MAX_GROUP: u64 = 16;
/// The largest number of groups for one access before its descriptor fails. It ends the attempts if
/// the system removes a page each time that it brings it. A queue overflow costs attempts, too,
/// because its response is success (rule 61).
pub(crate) const MAX_ATTEMPTS: u32 = 1000;

impl Device {
    /// Whether the function may send page requests at all.
    pub(crate) fn pri_accepts(&self) -> bool {
        let pri = &self.space.pri;
        let failed = pri.response_failure && !self.breaks(Mutant::Rule55);
        pri.enable && !failed && pri.allocation > 0
    }

    /// The translation agent does not permit an access. `lacking` is the number of pages without
    /// the permission, up to a limit.
    pub(super) fn page_lacks(
        &mut self,
        member: usize,
        piece: &Piece,
        lacking: impl Fn(u64) -> u64,
    ) {
        let context = &self.contexts[member];
        let endless = self.breaks(Mutant::Rule53);
        if !context.blocks() || !self.pri_accepts() {
            return self.fail(member, &Failure::at(Error::NotPresent, piece));
        }
        if context.attempts >= MAX_ATTEMPTS && !endless {
            return self.fail(member, &Failure::at(Error::RetriesExhausted, piece));
        }
        if context.attempts > 0 && self.breaks(Mutant::Rule61) {
            return self.fail(member, &Failure::at(Error::PageFault, piece));
        }
        let alone = context.one_page || self.breaks(Mutant::Rule16);
        let limit = if alone { 1 } else { MAX_GROUP };
        let (piece, pages) = (*piece, lacking(limit) as u32);
        self.contexts[member].stall = match self.rest(context.attempts) {
            0 => Stall::Wants { piece, pages },
            time => {
                self.timed.insert(member);
                Stall::Rests {
                    piece,
                    pages,
                    time,
                    since: None,
                }
            }
        };
    }

    /// How long an access waits before it requests pages again, after a number of attempts, in
    /// microseconds. A full queue answers at once (rule 61; VT-d 7.4.1): a device that repeated
    /// requests as fast would use up its attempts before software has read the queue.
    fn rest(&self, attempts: u32) -> u64 {
        let longest = self.config.page_request_backoff;
        match attempts {
            0 | 1 => 0,
            repeated => longest.min(1 << (repeated - 1).min(63)),
        }
    }

    /// The number of pages that a context may request now (rule 58). Half of the allocation is
    /// reserved, one page for each context, so that contexts with unanswered requests cannot block
    /// the others.
    pub(crate) fn credits(&self, member: usize) -> u32 {
        let allocation = self.space.pri.allocation;
        let free = allocation.saturating_sub(self.groups.outstanding());
        let has_none = |context: &Context| context.groups == 0;
        let contexts = self.contexts.iter().enumerate();
        let others = contexts.filter(|(n, context)| *n != member && has_none(context));
        let kept = (others.count() as u32).min(allocation / 2);
        match free.saturating_sub(kept) {
            0 if has_none(&self.contexts[member]) => free.min(1),
            pages => pages,
        }
    }

    /// Opens the group that a context wants, within the available credits (rule 58). An error means
    /// that the activity has ended.
    pub(super) fn request_pages(&mut self, member: usize) -> Result<Option<Action>, ()> {
        let context = &self.contexts[member];
        let Stall::Wants { piece, pages } = context.stall else {
            return Err(());
        };
        // Without a PASID no process can provide a page.
        let Some(pasid) = context.pasid().filter(|_| self.pri_accepts()) else {
            self.fail(member, &Failure::at(Error::NotPresent, &piece));
            return Err(());
        };
        let outstanding = self.groups.outstanding();
        let credits = match self.mutant {
            Some(Mutant::Rule58) => pages,
            Some(Mutant::Rule63) if outstanding > 0 => 0,
            _ => self.credits(member),
        };
        let pages = pages.min(credits);
        let address = piece.focus() >> PAGE_SHIFT << PAGE_SHIFT;
        let sent = self.open_group(member, pasid, &piece, address, pages);
        let Some((prgi, action)) = sent else {
            if self.groups.all_given_up() {
                // All outstanding groups timed out: no response will come.
                self.fail(member, &Failure::at(Error::ResponseTimeout, &piece));
                return Err(());
            }
            self.starved.insert(member);
            return Ok(None);
        };
        let context = &mut self.contexts[member];
        context.attempts += 1;
        // The response may arrive from inside the request: from here on the context waits.
        context.stall = Stall::Waits {
            prgi: Some(prgi),
            pages,
            piece,
        };
        self.begin_ahead(member, &piece, pages);
        Ok(Some(action))
    }

    /// Opens a group of a context for a piece, with a number of pages from an address on. Returns
    /// its index and the action that sends it; none if there are no pages or no free index.
    pub(crate) fn open_group(
        &mut self,
        member: usize,
        pasid: Pasid,
        piece: &Piece,
        address: u64,
        pages: u32,
    ) -> Option<(Prgi, Action)> {
        if pages == 0 {
            return None;
        }
        let context = &self.contexts[member];
        let group = Group {
            owner: Owner::Context {
                index: member,
                generation: context.life.number(),
            },
            pasid: Some(pasid),
            pages,
            since: None,
        };
        let privileged = context.privileged() || self.breaks(Mutant::Rule73);
        let silent = self.breaks(Mutant::Rule50);
        let prgi = match self.breaks(Mutant::Rule49) {
            true => self.groups.open_again(group),
            false => self.groups.open(group),
        }?;
        self.contexts[member].groups += 1;
        self.count(member, index::PAGE_REQUESTS, u64::from(pages));
        let action = Action::PageRequests {
            first: PageRequest {
                address,
                pasid: Some(pasid),
                read: piece.access.reads() && !silent,
                write: piece.access.writes() && !silent,
                execute: false,
                privileged,
                prgi,
                last: false,
            },
            pages,
            all_last: self.breaks(Mutant::Rule51),
            sent: 0,
        };
        Some((prgi, action))
    }

    /// The page requests of a group were sent, or only some of them, because the state of the
    /// function forbade the rest. Such a group has no last request and gets no response.
    pub(super) fn requested(&mut self, turn: &Turn) {
        let Action::PageRequests {
            first, pages, sent, ..
        } = &turn.buffers.action
        else {
            return;
        };
        let owner = Owner::Context {
            index: turn.index,
            generation: turn.generation,
        };
        if sent == pages || !self.groups.waits(first.prgi, owner) {
            return;
        }
        let prgi = first.prgi;
        self.groups.close_any(prgi);
        let context = &mut self.contexts[turn.index];
        context.groups = context.groups.saturating_sub(1);
        if context.life.number() == turn.generation && !context.stall.awaits(prgi) {
            self.ahead_ended(turn.index);
        }
        self.pri_settles();
    }

    /// The stop marker of a stopping context.
    pub(super) fn stop_marker(&mut self, member: usize) -> Option<Action> {
        let context = &mut self.contexts[member];
        context.marker = false;
        let marker = PageRequest {
            address: 0,
            pasid: Some(context.pasid()?),
            read: false,
            write: false,
            execute: false,
            privileged: false,
            // A stop marker has a PASID and no index: the field is 0 (PCIe 10.4.1.2.1).
            prgi: Prgi::new(0).ok()?,
            last: true,
        };
        self.counters.add(index::PAGE_REQUESTS, 1);
        Some(Action::StopMarker(marker))
    }

    /// Does what is due at a time. Returns when something will be due.
    pub fn tick(&mut self, now: u64) -> Option<u64> {
        let mut next = self.give_up(now);
        for n in self.timed.iter() {
            let context = &mut self.contexts[n];
            let (due, later) = context.tick(now);
            next = earlier(next, later);
            if due || context.interrupt {
                self.ready.insert(n);
            }
            if !context.waits_for_time() {
                self.timed.remove(n);
            }
        }
        next
    }

    /// Gives up the page requests that have waited too long. Returns when the next one will have.
    fn give_up(&mut self, now: u64) -> Option<u64> {
        let timeout = self.config.page_response_timeout;
        if timeout == 0 {
            return None;
        }
        while let Some((prgi, owner)) = self.groups.expire(now, timeout) {
            match owner {
                Owner::Nobody => {}
                Owner::Laboratory => {
                    if let Some(lab) = &mut self.laboratory {
                        lab.abandon(Error::ResponseTimeout);
                    }
                }
                Owner::Context { index, generation } => {
                    let context = &mut self.contexts[index];
                    context.groups = context.groups.saturating_sub(1);
                    match context.stall {
                        Stall::Waits { piece, .. } if context.stall.awaits(prgi) => {
                            self.fail(index, &Failure::at(Error::ResponseTimeout, &piece));
                        }
                        _ if context.life.number() == generation => self.ahead_ended(index),
                        _ => {}
                    }
                    self.finish_stop(index);
                }
            }
            self.ready.extend(&self.starved);
            self.starved = Set::default();
        }
        self.groups.deadline(timeout)
    }

    /// Receives a response.
    pub fn prg_response(&mut self, response: &PrgResponse) {
        let (code, breaks) = (response.code, |mutant| self.mutant == Some(mutant));
        let code = match code {
            ResponseCode::ResponseFailure if breaks(Mutant::Rule52) => ResponseCode::Success,
            ResponseCode::InvalidRequest if breaks(Mutant::Rule54) => ResponseCode::ResponseFailure,
            ResponseCode::InvalidRequest if breaks(Mutant::Rule64) => ResponseCode::Success,
            code => code,
        };
        let group = match breaks(Mutant::Rule57) {
            true => self.groups.close_any(response.prgi),
            false => self.groups.close(response.prgi, response.pasid),
        };
        let quiet = self.breaks(Mutant::Rule56);
        let pri = &mut self.space.pri;
        let Some(group) = group else {
            // Rule 56: a response without a matching request (PCIe 10.5.2.3). A response that is
            // still in flight after a reset of the function or of the interface is one, too: the
            // state of pending requests is gone (10.5.2.2), and a function does not remember its
            // requests over a reset. The function drops it silently while it cannot send requests,
            // and reports it afterwards. Indices are reused as late as possible, so that it does
            // not match a new request.
            pri.unexpected_prgi |= (pri.enable || !pri.stopped) && !quiet;
            return;
        };
        // Rule 55: after a failure, responses return their credits and have no other effect.
        let ignores_responses = pri.response_failure;
        pri.response_failure |= code == ResponseCode::ResponseFailure;
        match group.owner {
            Owner::Nobody => self.counters.add(index::PRG_RESPONSES, 1),
            Owner::Laboratory => {
                self.counters.add(index::PRG_RESPONSES, 1);
                if let (false, Some(lab)) = (ignores_responses, &mut self.laboratory) {
                    lab.finish(&match code {
                        ResponseCode::Success => Outcome::Done(None),
                        ResponseCode::InvalidRequest => Outcome::Failed(Error::PageFault),
                        ResponseCode::ResponseFailure => Outcome::Failed(Error::ResponseFailure),
                    });
                }
            }
            Owner::Context { index, generation } => {
                let groups = &mut self.contexts[index].groups;
                *groups = groups.saturating_sub(1);
                if self.contexts[index].life.number() == generation {
                    self.count(index, index::PRG_RESPONSES, 1);
                    self.answered(index, response.prgi, code);
                } else {
                    self.counters.add(index::PRG_RESPONSES, 1);
                }
                self.finish_stop(index);
            }
        }
        if !ignores_responses && code == ResponseCode::ResponseFailure {
            if !self.breaks(Mutant::Rule55) {
                self.permit.withdraw_pages();
            }
            self.pri_failed();
        }
        self.pri_settles();
        self.ready.extend(&self.starved);
        self.starved = Set::default();
    }

    /// Handles the response to a group of a context.
    fn answered(&mut self, member: usize, prgi: Prgi, code: ResponseCode) {
        let context = &mut self.contexts[member];
        let Stall::Waits { pages, piece, .. } = context.stall else {
            return self.ahead_ended(member);
        };
        if !context.stall.awaits(prgi) {
            // The code does not matter: the access requests a page again if it is still absent.
            return self.ahead_ended(member);
        }
        match code {
            ResponseCode::Success if context.ahead.groups() > 0 => {
                context.stall = Stall::Waits {
                    prgi: None,
                    pages,
                    piece,
                };
            }
            // Rule 53: request the translation again, because the page may be gone again.
            ResponseCode::Success => context.stall = Stall::None,
            ResponseCode::InvalidRequest if pages > 1 => {
                // One of them does not exist. Requesting them one by one finds it.
                context.stall = Stall::None;
                context.one_page = true;
            }
            // Rule 54.
            ResponseCode::InvalidRequest => {
                self.fail(member, &Failure::at(Error::PageFault, &piece));
            }
            ResponseCode::ResponseFailure => {
                self.fail(member, &Failure::at(Error::ResponseFailure, &piece));
            }
        }
        self.ready.insert(member);
    }

    /// Rule 55: the function ignores all responses, so no context may wait for one.
    fn pri_failed(&mut self) {
        for member in 0..self.contexts.len() {
            if let Stall::Waits { piece, .. } = self.contexts[member].stall {
                self.fail(member, &Failure::at(Error::ResponseFailure, &piece));
            }
        }
        if let Some(lab) = &mut self.laboratory {
            lab.abandon(Error::ResponseFailure);
        }
    }

    /// Rule 59: page requests are stopped when they are disabled and none is outstanding.
    pub(super) fn pri_settles(&mut self) {
        let settled = self.groups.outstanding() == 0 || self.breaks(Mutant::Rule59);
        if !self.space.pri.enable && settled {
            self.space.pri.stopped = true;
        }
    }

    /// Handles a reset of page requests: drops the outstanding ones, which get no response.
    pub(super) fn forget_groups(&mut self) {
        self.groups.clear();
        for member in 0..self.contexts.len() {
            let context = &mut self.contexts[member];
            context.groups = 0;
            context.ahead = PagesAhead::default();
            if let Stall::Waits { .. } = context.stall {
                context.stall = Stall::None;
            }
            if context.state == State::Enabled {
                self.ready.insert(member);
            }
            self.finish_stop(member);
        }
        self.starved = Set::default();
        if let Some(lab) = &mut self.laboratory {
            lab.abandon(Error::NotPresent);
        }
    }
}
