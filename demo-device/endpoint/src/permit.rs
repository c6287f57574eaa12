// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a request that was decided on under the device's lock may still be sent. An action can
//! consist of several requests, and the state of the function can change between two of them, even
//! from inside the first. So each request checks again here, without the lock. An action can also
//! consist of several jobs of a context; each checks here whether it may begin.

use crate::sync::{Arc, AtomicU64, Ordering};

/// Counts withdrawals. Each number changes when requests of its kind must stop.
#[derive(Debug)]
pub(crate) struct Permit {
    requests: AtomicU64,
    pages: AtomicU64,
    /// For each context, how often its work in progress was cancelled.
    lives: Box<[AtomicU64]>,
}

/// The life of a context: cancelling the work in progress ends it, and a new one begins.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    permit: Arc<Permit>,
    context: usize,
}

impl Life {
    /// The life of a context.
    pub fn new(permit: Arc<Permit>, context: usize) -> Self {
        Life { permit, context }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.permit.lives[self.context].load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn end(&self) {
        self.permit.lives[self.context].fetch_add(1, Ordering::Release);
    }
}

/// A permission at the time of the decision on an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    requests: u64,
    pages: u64,
}

impl Permit {
    /// A permit without withdrawals, for a number of contexts.
    pub fn new(contexts: usize) -> Self {
        Permit {
            requests: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            lives: (0..contexts).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether a context is still in the life with this number.
    pub fn lives(&self, context: usize, number: u64) -> bool {
        let life = self.lives.get(context);
        life.is_some_and(|life| life.load(Ordering::Acquire) == number)
    }

    /// The current permission.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            requests: self.requests.load(Ordering::Acquire),
            pages: self.pages.load(Ordering::Acquire),
        }
    }

    /// Actions that were decided on before must not send anything more.
    pub fn withdraw(&self) {
        self.requests.fetch_add(1, Ordering::Release);
    }

    /// Page requests that were decided on before must not be sent any more.
    pub fn withdraw_pages(&self) {
        self.pages.fetch_add(1, Ordering::Release);
    }

    /// Whether requests may still be sent.
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.requests.load(Ordering::Acquire) == ticket.requests
    }

    /// Whether page requests may still be sent.
    pub fn holds_pages(&self, ticket: Ticket) -> bool {
        self.holds(ticket) && self.pages.load(Ordering::Acquire) == ticket.pages
    }
}
