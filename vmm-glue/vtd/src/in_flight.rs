// SPDX-License-Identifier: MIT OR Apache-2.0
//! Untranslated requests that were translated and are still on their way to memory. Draining
//! (section 6.5.4) waits for those that were there when it began, not for later ones.

use std::collections::VecDeque;

/// An access in flight. It is given back by [`crate::Unit::end_access`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an access that never ends blocks every invalidation that drains"]
pub struct Ticket(u64);

/// How many accesses are in flight, by generation: each drain begins a new one.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Number of the first generation in the list.
    first: u64,
    counts: VecDeque<u64>,
}

impl InFlight {
    pub fn begin(&mut self) -> Ticket {
        match self.counts.back_mut() {
            Some(count) => *count += 1,
            None => self.counts.push_back(1),
        }
        Ticket(self.first + self.counts.len() as u64 - 1)
    }

    pub fn end(&mut self, ticket: Ticket) {
        let at = ticket.0.checked_sub(self.first);
        if let Some(count) = at.and_then(|at| self.counts.get_mut(at as usize)) {
            *count = count.saturating_sub(1);
        }
        while self.counts.len() > 1 && self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// Begins a new generation, and returns its number: earlier accesses are to be drained.
    pub fn drain(&mut self) -> u64 {
        match self.counts.back() {
            Some(0) | None => {}
            Some(_) => self.counts.push_back(0),
        }
        if self.counts.is_empty() {
            self.counts.push_back(0);
        }
        self.first + self.counts.len() as u64 - 1
    }

    /// Whether no access from before a generation is in flight.
    pub fn drained(&self, generation: u64) -> bool {
        let earlier = generation.saturating_sub(self.first) as usize;
        self.counts.iter().take(earlier).all(|count| *count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        f.end(a);
        assert!(!f.drained(first));
        f.end(b);
        assert!(f.drained(first) && !f.drained(second));
        f.end(c);
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
        f.end(a);
    }
}
