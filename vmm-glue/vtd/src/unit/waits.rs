// SPDX-License-Identifier: MIT OR Apache-2.0
//! The wait descriptors that are not complete (section 6.5.2.8).

use crate::spec::descriptor::Wait;
use std::collections::VecDeque;

/// A wait descriptor that is not complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingWait {
    pub wait: Wait,
    /// Device-TLB invalidations with a number below this are ahead of it.
    pub after: u64,
    /// Drains the requests in flight from before this generation.
    pub generation: u64,
}

/// What was fetched and is not complete.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub waits: VecDeque<PendingWait>,
    /// The generation of requests in flight that the next wait drains.
    pub generation: u64,
    /// The descriptor that ended the round: where it stands, and its words.
    pub last: Option<(u64, [u64; 4])>,
}

/// The most wait descriptors that are pending: with more, nothing is fetched until one completes.
const MOST_WAITS: usize = 1024;

impl Waits {
    /// Whether a fence holds back what follows, or there is no room for another wait.
    pub fn held(&self) -> bool {
        // Nothing is fetched behind a fence, so that it is always the last.
        self.waits.len() >= MOST_WAITS || self.waits.back().is_some_and(|w| w.wait.fence)
    }
}
