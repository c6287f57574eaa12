// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in flight outside the lock: accesses that hold translations, and translation requests.
//! This module implements the invalidation contract (PCIe 10.3, rules 38 and 39):
//!
//! * an invalidation is complete when no access pins a translation of its range any more;
//! * the device must not use a translation that an invalidation overtook while the request was in
//!   flight.
//!
//! It does not know the purpose of the accesses.

use crate::atc::{Hit, Scope};
use crate::set::Set;
use pcie_ats::{AlignedRange, Invalidation, Itag, Pasid};

/// Contiguous translations in use: they may leave the cache, but an invalidation that removes one
/// of them waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    first: u64,
    last: u64,
}

impl Pin {
    /// Pins the result of a look-up.
    pub fn new(hit: &Hit) -> Self {
        Pin {
            first: hit.first,
            last: hit.last,
        }
    }

    /// Also pins the result of a look-up of the following address.
    pub fn extend(&mut self, hit: &Hit) {
        self.last = self.last.max(hit.last);
    }

    fn overlaps(&self, range: AlignedRange) -> bool {
        self.first <= range.last() && range.base() <= self.last
    }
}

/// What one member of the set of contexts has in flight.
#[derive(Clone, Copy, Debug)]
enum Flight {
    None,
    /// Memory requests with the member's pins.
    Access {
        pasid: Option<Pasid>,
    },
    /// A translation request, and the smallest range that contains everything invalidated since.
    Request {
        pasid: Option<Pasid>,
        overtaken: Option<(u64, u64)>,
    },
}

/// An invalidation that waits for accesses in flight.
#[derive(Clone, Copy, Debug)]
struct Pending {
    itag: Itag,
    flights: Set,
}

/// Everything in flight.
#[derive(Debug)]
pub(crate) struct Flights {
    flights: Vec<Flight>,
    /// The translations that each member's memory requests use.
    pins: Vec<Vec<Pin>>,
    /// Those that are not [`Flight::None`].
    in_flight: Set,
    pending: Vec<Pending>,
}

impl Flights {
    /// Nothing in flight, for a number of members.
    pub fn new(members: usize) -> Self {
        Flights {
            flights: vec![Flight::None; members],
            pins: vec![Vec::new(); members],
            in_flight: Set::default(),
            pending: Vec::new(),
        }
    }

    /// Begins accesses that use these translations.
    pub fn access(&mut self, member: usize, pasid: Option<Pasid>, pins: &[Pin]) {
        self.flights[member] = Flight::Access { pasid };
        self.pins[member].clear();
        self.pins[member].extend_from_slice(pins);
        self.in_flight.insert(member);
    }

    /// Begins a translation request.
    pub fn request(&mut self, member: usize, pasid: Option<Pasid>) {
        self.flights[member] = Flight::Request {
            pasid,
            overtaken: None,
        };
        self.in_flight.insert(member);
    }

    /// Whether a range of the translation request's answer was invalidated since it was sent.
    pub fn overtaken(&self, member: usize, range: AlignedRange) -> bool {
        match self.flights[member] {
            Flight::Request {
                overtaken: Some((first, last)),
                ..
            } => range.base() <= last && first <= range.last(),
            _ => false,
        }
    }

    /// Forgets that an invalidation overtook a translation request, for a device that breaks rule
    /// 39.
    pub fn forget_overtaken(&mut self, member: usize) {
        if let Flight::Request { overtaken, .. } = &mut self.flights[member] {
            *overtaken = None;
        }
    }

    /// Ends what the member had in flight. Returns the ITag vector of the invalidations that waited
    /// only for that.
    #[must_use = "these invalidations have to be completed"]
    pub fn complete(&mut self, member: usize) -> u32 {
        self.flights[member] = Flight::None;
        self.in_flight.remove(member);
        let mut itags = 0;
        self.pending.retain_mut(|pending| {
            pending.flights.remove(member);
            let complete = pending.flights.is_empty();
            itags |= u32::from(complete) << pending.itag.get();
            !complete
        });
        itags
    }

    /// Handles an invalidation that has removed its range from the cache.
    pub fn invalidate(&mut self, scope: Scope, range: AlignedRange, itag: Itag) -> Invalidation {
        let mut flights = Set::default();
        for member in self.in_flight.iter() {
            match &mut self.flights[member] {
                Flight::Access { pasid }
                    if covers(scope, *pasid)
                        && self.pins[member].iter().any(|pin| pin.overlaps(range)) =>
                {
                    flights.insert(member);
                }
                Flight::Request { pasid, overtaken } if covers(scope, *pasid) => {
                    let (first, last) = overtaken.unwrap_or((range.base(), range.last()));
                    *overtaken = Some((first.min(range.base()), last.max(range.last())));
                }
                _ => {}
            }
        }
        // If a tag is used again, the translation agent has given up the old request after a
        // time-out. Drop that request, because its completion would be taken for the new one's.
        self.pending.retain(|pending| pending.itag != itag);
        if flights.is_empty() {
            return Invalidation::Completed;
        }
        self.pending.push(Pending { itag, flights });
        Invalidation::Pending
    }

    /// Everything was dropped without an invalidation request (PCIe 10.3.7): no answer in flight
    /// may be used.
    pub fn overtake_all(&mut self) {
        for member in self.in_flight.iter() {
            if let Flight::Request { overtaken, .. } = &mut self.flights[member] {
                *overtaken = Some((0, u64::MAX));
            }
        }
    }
}

/// Whether the scope of an invalidation contains a PASID, or requests without one.
fn covers(scope: Scope, pasid: Option<Pasid>) -> bool {
    match scope {
        Scope::One(one) => one == pasid,
        Scope::Every => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(first: u64, last: u64) -> Pin {
        Pin { first, last }
    }

    fn pasid(n: u32) -> Option<Pasid> {
        Pasid::new(n).ok()
    }

    fn itag(n: u8) -> Itag {
        Itag::new(n).unwrap()
    }

    #[test]
    fn rule_38_an_invalidation_waits_for_the_accesses_that_pin_its_range() {
        let mut flights = Flights::new(4);
        let range = AlignedRange::page(0x1000);
        flights.access(0, pasid(1), &[pin(0, 0x1f_ffff)]);
        flights.access(1, pasid(1), &[pin(0x8000, 0x8fff), pin(0x1000, 0x1fff)]);
        flights.access(2, pasid(1), &[pin(0x2000, 0x2fff)]);
        flights.access(3, pasid(2), &[pin(0x1000, 0x1fff)]);
        let scope = Scope::One(pasid(1));
        assert_eq!(
            flights.invalidate(scope, range, itag(5)),
            Invalidation::Pending
        );
        assert_eq!(flights.complete(2), 0);
        assert_eq!(flights.complete(1), 0);
        // A new access with a new translation does not delay it.
        flights.access(1, pasid(1), &[pin(0x1000, 0x1fff)]);
        assert_eq!(flights.complete(3), 0);
        assert_eq!(flights.complete(0), 1 << 5);
        assert_eq!(flights.complete(1), 0);
    }

    #[test]
    fn rule_41_a_tag_that_comes_again_is_completed_for_the_new_request_only() {
        let mut flights = Flights::new(2);
        flights.access(0, pasid(1), &[pin(0x1000, 0x1fff)]);
        flights.access(1, pasid(1), &[pin(0x2000, 0x2fff)]);
        let scope = Scope::One(pasid(1));
        let pending = flights.invalidate(scope, AlignedRange::page(0x1000), itag(7));
        assert_eq!(pending, Invalidation::Pending);
        // The agent has given it up and reused its tag.
        let pending = flights.invalidate(scope, AlignedRange::page(0x2000), itag(7));
        assert_eq!(pending, Invalidation::Pending);
        assert_eq!(flights.complete(0), 0);
        assert_eq!(flights.complete(1), 1 << 7);
        // The same if the new request is complete at once.
        flights.access(0, pasid(1), &[pin(0x1000, 0x1fff)]);
        let _ = flights.invalidate(scope, AlignedRange::page(0x1000), itag(7));
        let done = flights.invalidate(scope, AlignedRange::page(0x9000), itag(7));
        assert_eq!(done, Invalidation::Completed);
        assert_eq!(flights.complete(0), 0);
    }

    #[test]
    fn rule_40_invalidations_that_end_together_are_completed_together() {
        let mut flights = Flights::new(1);
        flights.access(0, pasid(1), &[pin(0, 0xfff)]);
        for tag in [0, 31] {
            let pending = flights.invalidate(Scope::Every, AlignedRange::ALL, itag(tag));
            assert_eq!(pending, Invalidation::Pending);
        }
        assert_eq!(flights.complete(0), 1 << 31 | 1);
    }

    #[test]
    fn rule_39_an_invalidation_overtakes_the_answers_of_its_range_only() {
        let mut flights = Flights::new(1);
        let scope = Scope::One(pasid(1));
        flights.request(0, pasid(1));
        assert_eq!(
            flights.invalidate(scope, AlignedRange::page(0x5000), itag(0)),
            Invalidation::Completed
        );
        assert!(flights.overtaken(0, AlignedRange::page(0x5000)));
        assert!(flights.overtaken(0, AlignedRange::containing(0, 21).unwrap()));
        assert!(!flights.overtaken(0, AlignedRange::page(0x6000)));
        assert_eq!(flights.complete(0), 0);
        assert!(!flights.overtaken(0, AlignedRange::page(0x5000)));
    }
}
