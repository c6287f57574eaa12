// SPDX-License-Identifier: MIT OR Apache-2.0
//! One context: its registers and its states. It makes no decision that involves another part of
//! the device.

mod descriptors;

use crate::access::Piece;
use crate::activity::Activity;
use crate::counters::Counters;
use crate::moderation::Moderation;
use crate::operation::Batch;
use crate::page_groups::PagesAhead;
use crate::permit::Life;
use crate::ring::MAX_FETCH;
use pcie_ats::{Pasid, PasidWidth, Prgi};
use svm_abi::descriptor::{Descriptor, SIZE};
use svm_abi::ids::MAX_RING_LOG2;
use svm_abi::registers::{context, halt, pasid, status, vector};

/// Whether a context works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It accepts no work.
    Disabled,
    /// It works on its ring.
    Enabled,
    /// It waits for the responses to its page requests and for its requests in flight.
    Stopping,
    /// It has met an error that does not belong to one descriptor: see [`halt`].
    Halted(u8),
}

/// Why the activity does not continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// It continues.
    None,
    /// It must request pages.
    Wants {
        /// The piece that needs them; its focus lies in the first page.
        piece: Piece,
        /// Number of pages.
        pages: u32,
    },
    /// Its page request had no effect, and it repeats the request after a while.
    Rests {
        /// What they are for.
        piece: Piece,
        /// Number of pages.
        pages: u32,
        /// For how long, in microseconds.
        time: u64,
        /// The time of the host's clock when the wait was first noticed.
        since: Option<u64>,
    },
    /// A page request group waits for its response.
    Waits {
        /// Its index; none after its response, while the context waits only for groups ahead.
        prgi: Option<Prgi>,
        /// Number of pages requested.
        pages: u32,
        /// What they are for.
        piece: Piece,
    },
}

impl Stall {
    /// Whether the response to a group ends it: the group of the access itself, not a group ahead.
    pub fn awaits(&self, group: Prgi) -> bool {
        matches!(self, Stall::Waits { prgi, .. } if *prgi == Some(group))
    }
}

/// A context.
#[derive(Debug)]
pub(crate) struct Context {
    pasid: u64,
    ring: u64,
    ring_log2: u64,
    vector: u64,
    moderation: Moderation,
    head: u64,
    tail: u64,
    /// The value of the LOST register.
    lost: u64,
    /// Whether it works.
    pub state: State,
    /// Its counters since its start.
    pub counters: Counters,
    /// Ends whenever the work in progress is cancelled.
    pub life: Life,
    /// Descriptors that were read and not begun, in reverse order.
    fetched: Vec<Descriptor>,
    /// The batch in progress. Its entries are then the descriptors.
    batch: Option<Batch>,
    /// Entries of the batch that were read and not begun, in reverse order.
    entries: Vec<Descriptor>,
    /// The descriptor in progress.
    descriptor: Descriptor,
    /// The descriptor in progress failed.
    failed: bool,
    /// What it is doing.
    pub activity: Activity,
    /// Why it does not continue.
    pub stall: Stall,
    /// Page request groups sent for the access in progress.
    pub attempts: u32,
    /// It requests only one page at a time, to find the one that does not exist.
    pub one_page: bool,
    /// Misses in the cache for the access in progress.
    pub misses: u32,
    /// Page request groups, of all lives of the context, that wait for a response.
    pub groups: u32,
    /// Page requests ahead of the access in progress.
    pub ahead: PagesAhead,
    /// It must send an interrupt.
    pub interrupt: bool,
    /// A translation request was completed with Unsupported Request: the context sends no more
    /// (rule 13).
    pub refused: bool,
    /// It must send a stop marker (rules 50 and 66).
    pub marker: bool,
}

impl Context {
    /// A context after a reset.
    pub fn new(life: Life) -> Self {
        Context {
            pasid: 0,
            ring: 0,
            ring_log2: 0,
            vector: 0,
            moderation: Moderation::default(),
            head: 0,
            tail: 0,
            lost: 0,
            state: State::Disabled,
            counters: Counters::default(),
            life,
            fetched: Vec::new(),
            batch: None,
            entries: Vec::new(),
            descriptor: Descriptor::default(),
            failed: false,
            activity: Activity::Idle,
            stall: Stall::None,
            attempts: 0,
            one_page: false,
            misses: 0,
            groups: 0,
            ahead: PagesAhead::default(),
            interrupt: false,
            refused: false,
            marker: false,
        }
    }

    /// Resets everything, except that work in flight stays recognisable as old.
    pub fn reset(&mut self) {
        self.life.end();
        *self = Context {
            fetched: std::mem::take(&mut self.fetched),
            entries: std::mem::take(&mut self.entries),
            ..Context::new(self.life.clone())
        };
        self.fetched.clear();
        self.entries.clear();
    }

    /// The value of the STATUS register.
    pub fn status(&self) -> u64 {
        match self.state {
            State::Disabled => status::encode(status::DISABLED, halt::NONE),
            State::Enabled => status::encode(status::ENABLED, halt::NONE),
            State::Stopping => status::encode(status::STOPPING, halt::NONE),
            State::Halted(why) => status::encode(status::HALTED, why),
        }
    }

    /// Reads a register of [`context`].
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            context::STATUS => self.status(),
            context::PASID => self.pasid,
            context::RING => self.ring,
            context::RING_LOG2 => self.ring_log2,
            context::VECTOR => self.vector,
            context::HEAD => self.head,
            context::TAIL => self.tail,
            context::MODERATION => self.moderation.setting(),
            context::LOST => self.lost,
            _ => 0,
        }
    }

    /// Writes a register of [`context`], except CONTROL.
    pub fn write(&mut self, offset: u64, value: u64) {
        match offset {
            context::VECTOR => self.vector = value & (vector::MASK | vector::ENABLE),
            context::MODERATION => self.interrupt |= self.moderation.set(value),
            _ if self.state != State::Disabled => {}
            context::PASID => {
                self.pasid = value & (pasid::MASK | pasid::NONE | pasid::PRIVILEGED | pasid::VALID);
                // The next process must not see what the context did for this one.
                self.clear();
                self.moderation = Moderation::default();
            }
            context::RING => self.ring = value,
            context::RING_LOG2 => self.ring_log2 = value & 0xff,
            _ => {}
        }
    }

    /// The PASID of its requests, while it is not DISABLED; `None` also if they have none.
    pub fn pasid(&self) -> Option<Pasid> {
        self.space().flatten()
    }

    /// The address space of its requests, while it is not DISABLED: that of a PASID, or
    /// `Some(None)` for requests without one.
    pub fn space(&self) -> Option<Option<Pasid>> {
        if self.state == State::Disabled {
            return None;
        }
        self.bound()
    }

    /// Whether its requests need PASID to be enabled.
    pub fn needs_pasid(&self) -> bool {
        self.pasid & pasid::NONE == 0
    }

    /// Whether its requests use privileged mode.
    pub fn privileged(&self) -> bool {
        self.pasid & pasid::PRIVILEGED != 0
    }

    /// The PASID register as an address space, if it is valid.
    fn bound(&self) -> Option<Option<Pasid>> {
        let number = (self.pasid & pasid::MASK) as u32;
        match self.pasid & (pasid::NONE | pasid::PRIVILEGED | pasid::VALID) {
            pasid::NONE => Some(None),
            bits if bits & (pasid::NONE | pasid::VALID) == pasid::VALID => {
                Pasid::new(number).ok().map(Some)
            }
            _ => None,
        }
    }

    /// The vector of the context's interrupts, if they are enabled.
    pub fn vector(&self) -> Option<u16> {
        (self.vector & vector::ENABLE != 0).then_some((self.vector & vector::MASK) as u16)
    }

    /// START, in state DISABLED: checks and uses the registers. `privileged` says whether the
    /// function may request privileged mode.
    pub fn start(&mut self, width: PasidWidth, privileged: bool, operational: bool) {
        self.clear();
        self.refused = false;
        self.cancel_work();
        let error = match self.bound() {
            Some(None) => self.ring_error(),
            Some(Some(pasid)) if width.holds(pasid) && (privileged || !self.privileged()) => {
                self.ring_error()
            }
            _ => halt::BAD_PASID,
        };
        self.state = match error {
            halt::NONE if operational => State::Enabled,
            halt::NONE => State::Halted(halt::FUNCTION_DISABLED),
            error => State::Halted(error),
        };
        // Allocate before the work begins, so that the work never allocates.
        self.fetched.reserve(MAX_FETCH as usize);
        self.entries.reserve(MAX_FETCH as usize);
    }

    /// Clears everything that the context has counted.
    fn clear(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.lost = 0;
        self.counters = Counters::default();
    }

    /// The error of the ring.
    fn ring_error(&self) -> u8 {
        if self.ring_log2 > u64::from(MAX_RING_LOG2) || self.ring % SIZE as u64 != 0 {
            return halt::BAD_RING;
        }
        match self.ring.checked_add((SIZE as u64) << self.ring_log2) {
            Some(_) => halt::NONE,
            None => halt::BAD_RING,
        }
    }

    /// Cancels the work in progress.
    pub fn cancel_work(&mut self) {
        self.life.end();
        self.activity = Activity::Idle;
        self.fetched.clear();
        self.batch = None;
        self.entries.clear();
        self.interrupt = false;
        self.moderation.forget();
        self.marker = false;
        self.progress();
        self.stall = Stall::None;
        // Responses to earlier requests belong to another life.
        self.ahead = PagesAhead::default();
    }

    /// Halts, and reports it by an interrupt.
    pub fn halt(&mut self, why: u8) {
        self.cancel_work();
        self.state = State::Halted(why);
        self.interrupt = true;
    }

    /// An access was performed: the next one has all its attempts again.
    pub fn progress(&mut self) {
        self.attempts = 0;
        self.one_page = false;
        self.misses = 0;
    }

    /// Rings the doorbell, in state ENABLED.
    pub fn ring_doorbell(&mut self, tail: u64) {
        // The head never passes the tail.
        let room = self.head.checked_add(1 << self.ring_log2);
        if tail < self.tail || room.is_none_or(|room| tail > room) {
            self.halt(halt::BAD_DOORBELL);
        } else {
            self.tail = tail;
        }
    }

    /// Whether something waits for a time: an interrupt that is held back, or a page request.
    pub fn waits_for_time(&self) -> bool {
        self.moderation.holds_back() || matches!(self.stall, Stall::Rests { .. })
    }

    /// Does what is due at a time: sends the interrupt that was held back, and repeats the page
    /// request. Returns whether anything was due, and when something will be due next.
    pub fn tick(&mut self, now: u64) -> (bool, Option<u64>) {
        let mut interrupt = self.moderation.deadline(now);
        let told = interrupt.take_if(|deadline| *deadline <= now).is_some();
        if told {
            self.moderation.forget();
            self.interrupt = true;
        }
        let mut rest = match &mut self.stall {
            Stall::Rests { time, since, .. } => {
                Some(since.get_or_insert(now).saturating_add(*time))
            }
            _ => None,
        };
        let rested = rest.take_if(|deadline| *deadline <= now).is_some();
        if let (true, Stall::Rests { piece, pages, .. }) = (rested, self.stall) {
            self.stall = Stall::Wants { piece, pages };
        }
        (told || rested, earlier(interrupt, rest))
    }
}

/// The earlier of two optional times.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::index;
    use crate::permit::Permit;
    use crate::sync::Arc;

    fn context() -> Context {
        Context::new(Life::new(Arc::new(Permit::new(1)), 0))
    }

    fn ready() -> Context {
        let mut c = context();
        c.write(context::PASID, pasid::VALID | 5);
        c.write(context::RING, 0x1000);
        c.write(context::RING_LOG2, 4);
        c
    }

    fn started(change: impl Fn(&mut Context)) -> State {
        let mut c = ready();
        change(&mut c);
        c.start(PasidWidth::new(8).unwrap(), false, true);
        c.state
    }

    #[test]
    fn a_start_judges_the_registers() {
        assert_eq!(started(|_| {}), State::Enabled);
        let bad_pasid = State::Halted(halt::BAD_PASID);
        assert_eq!(started(|c| c.write(context::PASID, 5)), bad_pasid);
        let wide = pasid::VALID | 256;
        assert_eq!(started(|c| c.write(context::PASID, wide)), bad_pasid);
        let privileged = pasid::VALID | pasid::PRIVILEGED | 5;
        assert_eq!(started(|c| c.write(context::PASID, privileged)), bad_pasid);
        let bad_ring = State::Halted(halt::BAD_RING);
        assert_eq!(started(|c| c.write(context::RING, 0x1020)), bad_ring);
        assert_eq!(started(|c| c.write(context::RING, !0x3f)), bad_ring);
        assert_eq!(started(|c| c.write(context::RING_LOG2, 16)), bad_ring);
        assert_eq!(started(|c| c.write(context::RING_LOG2, 15)), State::Enabled);
    }

    #[test]
    fn a_context_has_a_pasid_or_none_and_not_both() {
        let with = |value: u64| started(|c| c.write(context::PASID, value));
        assert_eq!(with(pasid::NONE), State::Enabled);
        let bad = State::Halted(halt::BAD_PASID);
        assert_eq!(with(pasid::NONE | pasid::VALID | 5), bad);
        assert_eq!(with(pasid::NONE | pasid::PRIVILEGED), bad);
        let mut c = ready();
        c.write(context::PASID, pasid::NONE);
        assert_eq!(c.space(), None);
        c.start(PasidWidth::MAX, false, true);
        assert_eq!((c.space(), c.pasid()), (Some(None), None));
        assert!(!c.needs_pasid());
    }

    #[test]
    fn a_start_while_the_function_is_off_halts() {
        let mut c = ready();
        c.start(PasidWidth::MAX, false, false);
        assert_eq!(c.state, State::Halted(halt::FUNCTION_DISABLED));
    }

    #[test]
    fn registers_are_fixed_while_the_context_is_not_disabled() {
        let mut c = ready();
        c.start(PasidWidth::MAX, false, true);
        for offset in [context::PASID, context::RING, context::RING_LOG2] {
            let before = c.read(offset);
            c.write(offset, 0);
            assert_eq!(c.read(offset), before);
        }
        c.write(context::VECTOR, !0);
        assert_eq!(c.read(context::VECTOR), 1 << 31 | 0xffff);
    }

    #[test]
    fn a_write_of_the_pasid_clears_what_was_done_for_the_last_one() {
        let mut c = ready();
        c.start(PasidWidth::MAX, false, true);
        c.ring_doorbell(1);
        c.retire();
        c.counters.add(index::DESCRIPTORS, 1);
        let done = |c: &Context| {
            let counter = c.counters.read(8 * index::DESCRIPTORS as u64);
            (c.read(context::HEAD), c.read(context::TAIL), counter)
        };
        // Not while it works, because the register is fixed then.
        c.write(context::PASID, 0);
        assert_eq!(done(&c), (1, 1, 1));
        c.state = State::Disabled;
        assert_eq!(done(&c), (1, 1, 1));
        c.write(context::PASID, 0);
        assert_eq!(done(&c), (0, 0, 0));
    }

    #[test]
    fn the_doorbell_runs_forward_and_at_most_one_ring_ahead() {
        let mut c = ready();
        c.start(PasidWidth::MAX, false, true);
        c.ring_doorbell(16);
        assert_eq!((c.state, c.read(context::TAIL)), (State::Enabled, 16));
        c.ring_doorbell(16);
        assert_eq!(c.state, State::Enabled);
        c.ring_doorbell(17);
        assert_eq!(c.state, State::Halted(halt::BAD_DOORBELL));
        assert!(c.interrupt);

        let mut c = ready();
        c.start(PasidWidth::MAX, false, true);
        c.ring_doorbell(3);
        c.ring_doorbell(2);
        assert_eq!(c.state, State::Halted(halt::BAD_DOORBELL));
    }
}
