// SPDX-License-Identifier: GPL-2.0-only

//! Notifies the waiters of a context: sleepers, pollers, and the program's eventfd.
//!
//! All notifications may be sent in interrupt context. This module does not keep the events: a
//! notified waiter checks the context.

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

/// The waiters of one context.
#[pin_data]
pub(crate) struct Signals {
    /// Counts the events that sleepers must check: interrupts, and the revocation of the context.
    events: Atomic<u64>,
    #[pin]
    queue: WaitQueue,
    eventfd: Slot,
    /// The context's count of interrupts when `eventfd` was last signalled; see
    /// [`Self::interrupt`].
    signalled: Atomic<u64>,
}

impl Signals {
    /// Creates it without waiters.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            events: Atomic::new(0),
            queue <- WaitQueue::new(c"svm_demo::Signals::queue", static_lock_class!()),
            eventfd: Slot::new(),
            signalled: Atomic::new(0),
        })
    }

    /// The queue of sleepers and pollers.
    pub(crate) fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Attaches the program's eventfd, which replaces an earlier one. Sleeps.
    pub(crate) fn attach(&self, eventfd: Option<EventFd>) {
        self.eventfd.replace(eventfd);
    }

    /// Whether the program has an eventfd.
    pub(crate) fn has_eventfd(&self) -> bool {
        !self.eventfd.is_empty()
    }

    /// Notes a start of the context: its count of interrupts restarts.
    pub(crate) fn started(&self) {
        self.signalled.store(0, Relaxed);
    }

    /// Handles an interrupt. If contexts share vectors, `shared` has the registers of this one,
    /// whose count tells whether the interrupt was its own. (Sleepers check that themselves.)
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

    /// Notifies of another event than an interrupt.
    pub(crate) fn tell(&self) {
        self.notify();
        self.eventfd.signal();
    }

    /// Makes sleepers and pollers check again.
    fn notify(&self) {
        // Release: a thread that sees this event also sees its cause. The queue's lock orders the
        // addition before a sleeper's check.
        self.events.fetch_add(1, Release);
        self.queue.wake_all();
    }

    /// Number of events so far.
    pub(crate) fn events(&self) -> u64 {
        // Acquire: read this before the check; then an event in between is not lost.
        self.events.load(Acquire)
    }

    /// Like [`Self::wait`], but not for longer than `milliseconds`.
    pub(crate) fn wait_for(&self, events: u64, milliseconds: u32) -> Result {
        let time = msecs_to_jiffies(milliseconds);

        self.queue
            .wait_interruptible_for(time, || self.events() != events)
    }

    /// Sleeps until the number of events differs from `events`.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: a signal is pending.
    pub(crate) fn wait(&self, events: u64) -> Result {
        self.queue.wait_interruptible(|| self.events() != events)
    }
}
