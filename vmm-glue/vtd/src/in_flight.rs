// SPDX-License-Identifier: MIT OR Apache-2.0
//! Untranslated requests that were translated and have not reached memory yet. Draining (section
//! 6.5.4) waits for those that were in flight when it began, not for later ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An access in flight. It ends when the host passes the ticket to [`crate::Unit::end_access`], or
/// drops it: then a drain that waits for it completes with the next call of
/// [`crate::Unit::process_queue`] or [`crate::Unit::end_access`]. It counts for the unit that
/// issued it, whichever unit it is passed to.
#[derive(Debug)]
#[must_use = "an access that ends before it has begun is not waited for"]
pub struct Ticket(Arc<AtomicU64>);

impl Drop for Ticket {
    fn drop(&mut self) {
        // Orders the access before the release.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Number of accesses in flight, by generation: each drain begins a new generation. The tickets of
/// a generation share its counter, and decrement it.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Number of the first generation in the list.
    first: u64,
    counts: VecDeque<Arc<AtomicU64>>,
}

/// Number of accesses in flight of a generation.
fn of(count: &Arc<AtomicU64>) -> u64 {
    count.load(Ordering::Acquire)
}

impl InFlight {
    /// The generation of new accesses.
    fn newest(&mut self) -> &Arc<AtomicU64> {
        if self.counts.is_empty() {
            self.counts.push_back(Arc::default());
        }
        &self.counts[self.counts.len() - 1]
    }

    pub fn begin(&mut self) -> Ticket {
        let count = self.newest();
        count.fetch_add(1, Ordering::Relaxed);
        Ticket(count.clone())
    }

    /// Removes the generations that have ended.
    pub fn settle(&mut self) {
        while self.counts.len() > 1 && self.counts.front().is_some_and(|count| of(count) == 0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// Begins a new generation, and returns its number: earlier accesses must be drained.
    pub fn drain(&mut self) -> u64 {
        if of(self.newest()) != 0 {
            self.counts.push_back(Arc::default());
        }
        self.first + self.counts.len() as u64 - 1
    }

    /// Whether no access from before a generation is in flight.
    pub fn drained(&self, generation: u64) -> bool {
        let earlier = generation.saturating_sub(self.first) as usize;
        self.counts.iter().take(earlier).all(|count| of(count) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(f: &mut InFlight, ticket: Ticket) {
        drop(ticket);
        f.settle();
    }

    #[test]
    fn a_drain_waits_for_earlier_accesses_only() {
        let mut f = InFlight::default();
        assert!({
            let g = f.drain();
            f.drained(g)
        });
        let (a, b) = (f.begin(), f.begin());
        let first = f.drain();
        let c = f.begin();
        let second = f.drain();
        end(&mut f, a);
        assert!(!f.drained(first));
        end(&mut f, b);
        assert!(f.drained(first) && !f.drained(second));
        end(&mut f, c);
        assert!(f.drained(second));
        assert!(f.counts.len() <= 1);
    }

    #[test]
    fn repeated_drains_without_accesses_cost_nothing() {
        let mut f = InFlight::default();
        let a = f.begin();
        for _ in 0..100 {
            f.drain();
        }
        assert_eq!(f.counts.len(), 2);
        end(&mut f, a);
    }
}
