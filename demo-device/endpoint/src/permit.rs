// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether what was decided under the device's lock may still be sent. An action can consist of
//! several requests, and the state of the function can change between two of them, also from
//! inside the first: each request therefore asks again here, without the lock. And it can consist
//! of several jobs of a context, which asks here whether the next one may begin.

use crate::sync::{Arc, AtomicU64, Ordering};

/// What has been withdrawn so far. Each number changes when requests of its kind must cease.
#[derive(Debug)]
pub(crate) struct Permit {
    requests: AtomicU64,
    pages: AtomicU64,
    /// For each context, how often its work in progress became void.
    lives: Box<[AtomicU64]>,
}

/// The life of a context: it ends whenever the work in progress becomes void, and a new one begins.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    permit: Arc<Permit>,
    context: usize,
}

impl Life {
    /// That of a context.
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

/// A permission as it was when an action was decided upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    requests: u64,
    pages: u64,
}

impl Permit {
    /// Nothing is withdrawn. There are so many contexts.
    pub fn new(contexts: usize) -> Self {
        Permit {
            requests: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            lives: (0..contexts).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether a context still lives the life of a number.
    pub fn lives(&self, context: usize, number: u64) -> bool {
        let life = self.lives.get(context);
        life.is_some_and(|life| life.load(Ordering::Acquire) == number)
    }

    /// The permission of now.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            requests: self.requests.load(Ordering::Acquire),
            pages: self.pages.load(Ordering::Acquire),
        }
    }

    /// From now on no action may send anything that was decided upon before.
    pub fn withdraw(&self) {
        self.requests.fetch_add(1, Ordering::Release);
    }

    /// From now on no page request may be sent that was decided upon before.
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
