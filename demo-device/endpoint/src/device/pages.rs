// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests and their responses (PCIe 10.4), as contexts live them.

use super::Device;
use crate::access::{Failure, Piece};
use crate::context::{Stall, State};
use crate::counters::index;
use crate::laboratory::Outcome;
use crate::pri::{Group, Owner};
use crate::set::Set;
use crate::turn::Action;
use pcie_ats::{PAGE_SHIFT, PageRequest, PrgResponse, Prgi, ResponseCode};
use svm_abi::completion::Error;

/// The most pages of a group.
pub(crate) const MAX_GROUP: u64 = 16;
/// The most groups that are sent for one access before its descriptor fails. A page that is taken
/// away as often as it is brought is a system's decision, which the device ends at some time. It
/// is also what a queue overflow costs, which is answered by success (rule 61).
pub(crate) const MAX_ATTEMPTS: u32 = 1000;

impl Device {
    /// Whether page requests may be sent at all.
    pub(super) fn pri_accepts(&self) -> bool {
        let pri = &self.space.pri;
        pri.enable && !pri.response_failure && pri.allocation > 0
    }

    /// The translation agent does not permit an access. `lacking` says how many pages are without
    /// the permission, up to a limit.
    pub(super) fn page_lacks(
        &mut self,
        member: usize,
        piece: &Piece,
        lacking: impl Fn(u64) -> u64,
    ) {
        let context = &self.contexts[member];
        if !context.blocks() || !self.pri_accepts() {
            return self.fail(member, &Failure::at(Error::NotPresent, piece));
        }
        if context.attempts == MAX_ATTEMPTS {
            return self.fail(member, &Failure::at(Error::RetriesExhausted, piece));
        }
        let limit = if context.one_page { 1 } else { MAX_GROUP };
        self.contexts[member].stall = Stall::Wants {
            piece: *piece,
            pages: lacking(limit) as u32,
        };
    }

    /// Opens the group that a context wants, within the credits that there are (rule 58). An error
    /// says that the activity has ended.
    pub(super) fn request_pages(&mut self, member: usize) -> Result<Option<Action>, ()> {
        let context = &self.contexts[member];
        let (Stall::Wants { piece, pages }, Some(pasid)) = (context.stall, context.pasid()) else {
            return Err(());
        };
        if !self.pri_accepts() {
            self.fail(member, &Failure::at(Error::NotPresent, &piece));
            return Err(());
        }
        let credits = self
            .space
            .pri
            .allocation
            .saturating_sub(self.groups.outstanding());
        let pages = pages.min(credits);
        let group = Group {
            owner: Owner::Context {
                index: member,
                generation: context.generation,
            },
            pasid: Some(pasid),
            pages,
        };
        let prgi = if pages == 0 {
            None
        } else {
            self.groups.open(group)
        };
        let Some(prgi) = prgi else {
            self.starved.insert(member);
            return Ok(None);
        };
        let context = &mut self.contexts[member];
        context.groups += 1;
        context.attempts += 1;
        // The response may come from inside the request: from here on the context waits.
        context.stall = Stall::Waits { prgi, pages, piece };
        self.count(member, index::PAGE_REQUESTS, u64::from(pages));
        Ok(Some(Action::PageRequests {
            first: PageRequest {
                address: piece.focus() >> PAGE_SHIFT << PAGE_SHIFT,
                pasid: Some(pasid),
                read: piece.access.reads(),
                write: piece.access.writes(),
                execute: false,
                privileged: false,
                prgi,
                last: false,
            },
            pages,
        }))
    }

    /// Receives a response.
    pub fn prg_response(&mut self, response: &PrgResponse) {
        let pri = &mut self.space.pri;
        let Some(group) = self.groups.close(response.prgi, response.pasid) else {
            // Rule 56. After a reset, responses to what was forgotten are no surprise.
            pri.unexpected_prgi |= pri.enable || !pri.stopped;
            return;
        };
        // Rule 55: after a failure, responses return their credits and are not listened to.
        let deaf = pri.response_failure;
        pri.response_failure |= response.code == ResponseCode::ResponseFailure;
        match group.owner {
            Owner::Laboratory => {
                self.counters.add(index::PRG_RESPONSES, 1);
                if let (false, Some(lab)) = (deaf, &mut self.laboratory) {
                    lab.finish(&match response.code {
                        ResponseCode::Success => Outcome::Done(None),
                        ResponseCode::InvalidRequest => Outcome::Failed(Error::PageFault),
                        ResponseCode::ResponseFailure => Outcome::Failed(Error::ResponseFailure),
                    });
                }
            }
            Owner::Context { index, generation } => {
                self.contexts[index].groups -= 1;
                if self.contexts[index].generation == generation {
                    self.count(index, index::PRG_RESPONSES, 1);
                    self.answered(index, response.prgi, response.code);
                } else {
                    self.counters.add(index::PRG_RESPONSES, 1);
                }
                self.settle(index);
            }
        }
        if !deaf && response.code == ResponseCode::ResponseFailure {
            self.pri_failed();
        }
        self.pri_settles();
        self.ready.extend(&self.starved);
        self.starved = Set::default();
    }

    /// The group that a context waits for was answered.
    fn answered(&mut self, member: usize, prgi: Prgi, code: ResponseCode) {
        let context = &mut self.contexts[member];
        let Stall::Waits {
            prgi: awaited,
            pages,
            piece,
        } = context.stall
        else {
            return;
        };
        if prgi != awaited {
            return;
        }
        match code {
            // Rule 53: the translation is asked for again, because the page may be gone again.
            ResponseCode::Success => context.stall = Stall::None,
            ResponseCode::InvalidRequest if pages > 1 => {
                // One of them does not exist. Which one, they tell when they are asked for alone.
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

    /// Rule 55: no response will be listened to, so nobody may wait for one.
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
        if !self.space.pri.enable && self.groups.outstanding() == 0 {
            self.space.pri.stopped = true;
        }
    }

    /// Page requests were reset: what is outstanding is forgotten, and no response will come.
    pub(super) fn forget_groups(&mut self) {
        self.groups.clear();
        for member in 0..self.contexts.len() {
            let context = &mut self.contexts[member];
            context.groups = 0;
            if let Stall::Waits { .. } = context.stall {
                context.stall = Stall::None;
            }
            if context.state == State::Enabled {
                self.ready.insert(member);
            }
            self.settle(member);
        }
        self.starved = Set::default();
        if let Some(lab) = &mut self.laboratory {
            lab.abandon(Error::NotPresent);
        }
    }
}
