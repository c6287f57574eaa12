// SPDX-License-Identifier: MIT OR Apache-2.0
//! A context's turn: the work of one thread for it outside the lock, action by action. The device
//! decides on the actions; this module carries them out.

use crate::access::Piece;
use crate::dma::{Dma, MAX_CHUNK, Scratch};
use crate::fast::jobs::Jobs;
use crate::fast::read_ahead::ReadAhead;
use crate::job::ACCESS;
use crate::laboratory::{Outcome, Request};
use crate::permit::{Permit, Ticket};
use pcie_ats::{PAGE_SIZE, PageRequest, RootPort, TranslationError, TranslationRequest};

/// The largest number of bytes that a turn moves before other contexts have their turns.
pub(crate) const BUDGET: u64 = MAX_CHUNK as u64;
/// The same while other contexts wait: a context with little work waits for one turn of each of the
/// others.
pub(crate) const SHARED_BUDGET: u64 = 64 << 10;
/// The largest number of actions of a turn.
const MAX_ACTIONS: u32 = 32;

/// One round to the root port.
#[derive(Debug)]
pub(crate) enum Action {
    /// An interrupt message with this vector.
    Interrupt(u16),
    /// A translation request.
    Translate {
        /// The request.
        request: TranslationRequest,
        /// What it is for.
        piece: Piece,
        /// Smallest translation unit at the time.
        stu: u8,
        /// The time of the cache when the current access looked up its pieces; none if the request
        /// is for the answer itself and not for the cache.
        time: Option<u64>,
        /// Afterwards: the number of translations in the buffer.
        answer: Result<usize, TranslationError>,
    },
    /// The page requests of a group.
    PageRequests {
        /// The first one, without its `last`.
        first: PageRequest,
        /// Number of pages.
        pages: u32,
        /// Every request claims to be the last of its group: this breaks rule 51.
        all_last: bool,
        /// Afterwards: the number of pages that were requested.
        sent: u32,
    },
    /// A stop marker.
    StopMarker(PageRequest),
    /// The jobs in the buffers.
    Access {
        /// Afterwards: bytes read.
        read: u64,
        /// Afterwards: bytes written.
        written: u64,
    },
    /// A request of the laboratory.
    Laboratory {
        /// The request.
        request: Request,
        /// Afterwards: the outcome.
        outcome: Outcome,
    },
}

/// The working memory of a thread. The device keeps it from step to step, and it is written in
/// place: passing it by value would take longer than a small access.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// What to do now.
    pub action: Action,
    /// Memory accesses, if that is the action.
    pub jobs: Jobs,
    /// The translations to request after a translation request for the cache.
    pub read_ahead: ReadAhead,
    /// Data.
    pub scratch: Scratch,
}

impl Buffers {
    /// New buffers.
    pub fn new() -> Self {
        Buffers {
            action: Action::Interrupt(0),
            jobs: Jobs::new(),
            read_ahead: ReadAhead::new(),
            scratch: Scratch::new(),
        }
    }

    /// Stores the next action; false if there is none.
    pub fn take(&mut self, action: Option<Action>) -> bool {
        let some = action.is_some();
        if let Some(action) = action {
            self.action = action;
        }
        some
    }
}

/// A turn.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The context or laboratory whose turn it is.
    pub index: usize,
    /// The life of the context that the action belongs to.
    pub generation: u64,
    /// The permission at the time of the decision.
    pub ticket: Ticket,
    /// The action, and buffers.
    pub buffers: Box<Buffers>,
    /// Bytes that may still be moved.
    budget: u64,
    /// Actions that may still be done.
    actions: u32,
}

impl Turn {
    /// A turn that begins with the action in the buffers, and may move `budget` bytes.
    pub fn new(
        index: usize,
        generation: u64,
        ticket: Ticket,
        buffers: Box<Buffers>,
        budget: u64,
    ) -> Self {
        Turn {
            index,
            generation,
            ticket,
            buffers,
            budget,
            actions: MAX_ACTIONS,
        }
    }

    /// Bytes that the turn may still move.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Whether the turn may continue at all.
    pub fn has_actions(&self) -> bool {
        self.actions > 0
    }

    /// Carries out the action. The device must not be locked.
    pub fn perform<P: RootPort + ?Sized>(&mut self, port: &P, permit: &Permit) {
        self.actions -= 1;
        let ticket = self.ticket;
        let Buffers {
            action,
            jobs,
            read_ahead,
            scratch,
        } = &mut *self.buffers;
        match action {
            Action::Interrupt(vector) => {
                if permit.holds(ticket) {
                    port.interrupt(*vector);
                }
            }
            Action::Translate {
                request,
                time,
                answer,
                ..
            } => {
                if !permit.holds(ticket) {
                    *answer = Err(TranslationError::CompleterAbort);
                    return;
                }
                let count = usize::from(request.pages);
                let translations = &mut scratch.translations[..count];
                // If a port reports more translations than fit, only those that fit count.
                *answer = port.translate(request, translations).map(|n| n.min(count));
                if let (Some(_), Ok(count)) = (time, answer) {
                    read_ahead.send(port, permit, ticket, request, &translations[..*count]);
                }
            }
            Action::PageRequests {
                first,
                pages,
                all_last,
                sent,
            } => {
                while *sent < *pages && permit.holds_pages(ticket) {
                    let page = u64::from(*sent);
                    *sent += 1;
                    port.page_request(&PageRequest {
                        address: first.address + page * PAGE_SIZE,
                        last: *sent == *pages || *all_last,
                        ..*first
                    });
                }
            }
            Action::StopMarker(marker) => {
                if permit.holds_pages(ticket) {
                    port.page_request(marker);
                }
            }
            Action::Access { read, written } => {
                let mut dma = Dma::new(port, permit, ticket);
                let (context, life) = (self.index, self.generation);
                let lives = || permit.lives(context, life);
                let begun = jobs.perform(&mut dma, scratch, lives);
                (*read, *written) = (dma.read, dma.written);
                self.budget = self
                    .budget
                    .saturating_sub(begun * ACCESS + dma.read.max(dma.written));
            }
            Action::Laboratory { request, outcome } => {
                if permit.holds(ticket) {
                    *outcome = request.perform(port, scratch);
                }
            }
        }
    }
}
