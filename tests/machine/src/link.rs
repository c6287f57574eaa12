// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link between a function and its root port: the messages on it, and what it does to them.

use crate::sync::Mutex;
use pcie_ats::{InvalidateCompletion, InvalidateRequest, PageRequest, PrgResponse};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a link does to the messages on it, for experiments.
#[derive(Debug, Default)]
pub struct Link {
    /// Invalidation requests do not arrive.
    pub loses_invalidations: AtomicBool,
    /// Invalidation completions do not arrive.
    pub loses_completions: AtomicBool,
    /// Page requests do not arrive.
    pub loses_page_requests: AtomicBool,
    /// Messages are on their way until [`crate::Machine::deliver`].
    pub holds: AtomicBool,
    /// Those on their way to the function, and those on their way to the root port. Messages of one
    /// direction do not overtake each other.
    pub(crate) down: Mutex<VecDeque<Down>>,
    pub(crate) up: Mutex<VecDeque<Up>>,
}

/// A message to the function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Down {
    Invalidate(InvalidateRequest),
    Respond(PrgResponse),
}

/// A message to the root port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Up {
    Complete(InvalidateCompletion),
    PageRequest(PageRequest),
}

impl Link {
    pub(crate) fn loses_down(&self, message: &Down) -> bool {
        match message {
            Down::Invalidate(_) => self.loses_invalidations.load(Ordering::Relaxed),
            Down::Respond(_) => false,
        }
    }

    pub(crate) fn loses_up(&self, message: &Up) -> bool {
        match message {
            Up::Complete(_) => self.loses_completions.load(Ordering::Relaxed),
            Up::PageRequest(_) => self.loses_page_requests.load(Ordering::Relaxed),
        }
    }
}
