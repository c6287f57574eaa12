// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether what was decided under the device's lock may still be sent. An action can consist of
//! several requests, and the state of the function can change between two of them, also from
//! inside the first: each request therefore asks again here, without the lock.

use crate::sync::{AtomicU64, Ordering};

/// What has been withdrawn so far. Each number changes when requests of its kind must cease.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    requests: AtomicU64,
    pages: AtomicU64,
}

/// A permission as it was when an action was decided upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    requests: u64,
    pages: u64,
}

impl Permit {
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
