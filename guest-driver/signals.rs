// SPDX-License-Identifier: GPL-2.0-only

//! What those who wait for a context are told: sleepers, pollers, and the program's eventfd.
//!
//! All of it may be told in interrupt context. What happened is not kept here: a waiter that is
//! told looks at the context.

use kernel::{
    prelude::*,
    static_lock_class,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
    time::msecs_to_jiffies, //
};

use crate::{
    bar::ContextRegisters,
    eventfd::{
        EventFd,
        Slot, //
    },
    wait::WaitQueue, //
};

/// Those who wait for one context.
#[pin_data]
pub(crate) struct Signals {
    /// Counts what a sleeper must look at again: interrupts, and that the context was taken away.
    events: Atomic<u64>,
    #[pin]
    queue: WaitQueue,
    eventfd: Slot,
    /// Interrupts of the context when `eventfd` was signalled last; see [`Self::interrupt`].
    signalled: Atomic<u64>,
}

impl Signals {
    /// Nobody waits.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            events: Atomic::new(0),
            queue <- WaitQueue::new(c"svm_demo::Signals::queue", static_lock_class!()),
            eventfd: Slot::new(),
            signalled: Atomic::new(0),
        })
    }

    /// The queue of those who sleep or poll.
    pub(crate) fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Gives the program an eventfd, in the place of an earlier one. Sleeps.
    pub(crate) fn attach(&self, eventfd: Option<EventFd>) {
        self.eventfd.replace(eventfd);
    }

    /// Whether the program has an eventfd.
    pub(crate) fn has_eventfd(&self) -> bool {
        !self.eventfd.is_empty()
    }

    /// The context was started: its count of interrupts begins anew.
    pub(crate) fn started(&self) {
        self.signalled.store(0, Relaxed);
    }

    /// An interrupt came. Where contexts share vectors, `shared` has the registers of this one, whose
    /// count says whether it was its interrupt. (Sleepers look there themselves.)
    pub(crate) fn interrupt(&self, shared: Option<ContextRegisters<'_>>) {
        self.notify();

        if !self.has_eventfd() {
            return;
        }
        match shared.map(|registers| registers.interrupts()) {
            Some(Ok(sent)) if sent == self.signalled.xchg(sent, Relaxed) => {}
            _ => self.eventfd.signal(),
        }
    }

    /// Something happened that is no interrupt.
    pub(crate) fn tell(&self) {
        self.notify();
        self.eventfd.signal();
    }

    /// Says that those who sleep or poll must look again.
    fn notify(&self) {
        // Release: a thread that sees this event also sees its cause. The queue's lock orders the
        // addition before the look that a sleeper takes.
        self.events.fetch_add(1, Release);
        self.queue.wake_all();
    }

    /// How often sleepers were woken.
    pub(crate) fn events(&self) -> u64 {
        // Acquire: to be read before what happened is looked at; an event in between is then seen.
        self.events.load(Acquire)
    }

    /// As [`Self::wait`], but not for longer than `milliseconds`.
    pub(crate) fn wait_for(&self, events: u64, milliseconds: u32) -> Result {
        let time = msecs_to_jiffies(milliseconds);

        self.queue
            .wait_interruptible_for(time, || self.events() != events)
    }

    /// Sleeps until sleepers were woken more often than `events` times.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: a signal is pending.
    pub(crate) fn wait(&self, events: u64) -> Result {
        self.queue.wait_interruptible(|| self.events() != events)
    }
}
