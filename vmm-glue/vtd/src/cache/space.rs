// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PASID cache (section 6.2.3): address spaces by requester and PASID. In legacy mode it holds
//! the one address space of each requester.

use super::hash::NumberMap;
use super::iotlb::{Owner, TAG_BITS};
use crate::context::Regime;
use crate::mutant::{Mutant, breaks};
use crate::spec::descriptor::PasidScope;
use crate::spec::{DomainId, SourceId};
use std::num::NonZeroU64;

/// The key of an address space: requester and PASID. Requests without PASID have RID_PASID in
/// scalable mode and no PASID in legacy mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceKey(u64);

/// Stands for the PASID of requests in legacy mode: larger than any PASID of 20 bits.
const NO_PASID: u64 = 1 << 20;

impl SpaceKey {
    pub const fn new(requester: SourceId, pasid: Option<u32>) -> Self {
        let pasid = match pasid {
            Some(pasid) => pasid as u64,
            None => NO_PASID,
        };
        SpaceKey((requester.0 as u64) << 21 | pasid)
    }

    /// As a number that is not 0.
    const fn number(self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0 + 1)
    }

    /// Selects the place of its translations.
    pub const fn place(self) -> u64 {
        (self.0 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// A small number of which only the low bits count: those of PASIDs that follow each other
    /// differ.
    const fn guess(self) -> usize {
        (self.0 ^ (self.0 >> 21).wrapping_mul(0x9e37_79b9)) as usize
    }

    /// The PASID with the domain, as a number.
    const fn tagged(self, domain: DomainId) -> u64 {
        (domain.0 as u64) << 21 | self.0 & (NO_PASID | (NO_PASID - 1))
    }
}

impl From<NonZeroU64> for SpaceKey {
    fn from(number: NonZeroU64) -> Self {
        SpaceKey(number.get() - 1)
    }
}

/// Number of a cached address space.
pub(crate) type SpaceId = u32;

/// What a translation needs of a cached address space. Two of them share a line of the processor's
/// caches.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Space {
    /// None for a slot that is free.
    key: Option<NonZeroU64>,
    /// Stamp of the context entry that it was derived from.
    stamp: u64,
    /// Its translations are stored under this tag.
    tag: u64,
    domain: DomainId,
    /// Sizes of its translations, a bit for each, by privilege level.
    pub sizes: [u8; 2],
    used: bool,
    /// The context entry lets requests with this PASID through.
    pub admitted: bool,
    /// SRE and ERE.
    pub supervisor: bool,
    pub execute: bool,
}

impl Space {
    /// What its translations are stored under.
    pub fn owner(&self) -> Owner {
        let place = self.key.map_or(0, |key| SpaceKey::from(key).place());
        Owner {
            tag: self.tag,
            place,
        }
    }
}

/// A slot that is free.
const FREE: Space = Space {
    key: None,
    stamp: 0,
    tag: 0,
    domain: DomainId(0),
    sizes: [0; 2],
    used: false,
    admitted: false,
    supervisor: false,
    execute: false,
};

/// The rest of it.
#[derive(Clone, Copy, Debug)]
struct Details {
    regime: Regime,
    /// Positions in the lists of its domain and of its PASID in its domain.
    places: [u32; 2],
}

/// The PASID cache.
#[derive(Clone, Debug)]
pub(crate) struct SpaceCache {
    index: NumberMap<SpaceId>,
    /// Where an address space was found last, by the low bits of its key: a guess, which the key of
    /// the space confirms. Neighbours are neighbours here, and not in the index.
    guesses: Vec<SpaceId>,
    slots: Vec<Space>,
    details: Vec<Details>,
    free: Vec<SpaceId>,
    hand: usize,
    capacity: usize,
    by_domain: NumberMap<Vec<SpaceId>>,
    by_pasid: NumberMap<Vec<SpaceId>>,
    tags: u64,
    /// Tags up to this are invalid.
    floor: u64,
    /// Tags up to this are invalid, by domain.
    floors: Vec<u64>,
}

impl SpaceCache {
    /// An empty cache of at most `capacity` address spaces.
    pub fn new(capacity: u32) -> Self {
        SpaceCache {
            index: NumberMap::default(),
            guesses: vec![0; capacity.max(1).next_power_of_two() as usize],
            slots: Vec::new(),
            details: Vec::new(),
            free: Vec::new(),
            hand: 0,
            capacity: capacity.max(1) as usize,
            by_domain: NumberMap::default(),
            by_pasid: NumberMap::default(),
            tags: 0,
            floor: 0,
            floors: vec![0; 1 << 16],
        }
    }

    /// The address space of a key, if it was derived from the context entry of this stamp.
    #[inline]
    pub fn get(&mut self, key: SpaceKey, stamp: u64) -> Option<SpaceId> {
        let guess = key.guess() & (self.guesses.len() - 1);
        let mut id = self.guesses[guess];
        let guessed = self.slots.get(id as usize);
        if guessed.is_none_or(|space| space.key != key.number()) {
            id = *self.index.get(&key.0)?;
            self.guesses[guess] = id;
        }
        let space = &mut self.slots[id as usize];
        if space.stamp != stamp {
            return None;
        }
        space.used = true;
        let floor = self.floor.max(self.floors[usize::from(space.domain.0)]);
        if space.tag <= floor {
            space.tag = new_tag(&mut self.tags, &mut self.floor);
            space.sizes = [0; 2];
        }
        Some(id)
    }

    /// A cached address space; the number must come from this cache, without a removal since.
    #[inline]
    pub fn space(&mut self, id: SpaceId) -> Option<&mut Space> {
        self.slots.get_mut(id as usize)
    }

    /// How its addresses are translated.
    pub fn regime(&self, id: SpaceId) -> Option<&Regime> {
        Some(&self.details.get(id as usize)?.regime)
    }

    /// Caches an address space.
    pub fn insert(&mut self, key: SpaceKey, stamp: u64, regime: Regime) -> SpaceId {
        if let Some(id) = self.index.get(&key.0) {
            self.remove(*id);
        }
        let id = if let Some(id) = self.free.pop() {
            id
        } else if self.slots.len() < self.capacity {
            self.slots.push(FREE);
            self.details.push(Details {
                regime,
                places: [0; 2],
            });
            self.slots.len() as SpaceId - 1
        } else {
            self.evict();
            self.free.pop().unwrap_or_default()
        };
        let tag = new_tag(&mut self.tags, &mut self.floor);
        let places = [
            list(&mut self.by_domain, regime.domain.0.into(), id),
            list(&mut self.by_pasid, key.tagged(regime.domain), id),
        ];
        self.slots[id as usize] = Space {
            key: key.number(),
            stamp,
            tag,
            domain: regime.domain,
            supervisor: regime.supervisor,
            execute: regime.execute,
            ..FREE
        };
        self.details[id as usize] = Details { regime, places };
        self.index.insert(key.0, id);
        id
    }

    /// Evicts the first address space that was not used since the hand passed it.
    fn evict(&mut self) {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            match &mut self.slots[at] {
                Space { key: None, .. } => {}
                Space { used, .. } if *used => *used = false,
                _ => return self.remove(at as SpaceId),
            }
        }
    }

    fn remove(&mut self, id: SpaceId) {
        let space = std::mem::replace(&mut self.slots[id as usize], FREE);
        let Some(key) = space.key.map(SpaceKey::from) else {
            return;
        };
        let places = self.details[id as usize].places;
        self.free.push(id);
        self.index.remove(&key.0);
        let moved = unlist(&mut self.by_domain, space.domain.0.into(), places[0]);
        self.moved(moved, 0, places[0]);
        let moved = unlist(&mut self.by_pasid, key.tagged(space.domain), places[1]);
        self.moved(moved, 1, places[1]);
    }

    /// Records the new position of an address space in one of its lists.
    fn moved(&mut self, id: Option<SpaceId>, which: usize, place: u32) {
        if let Some(id) = id {
            self.details[id as usize].places[which] = place;
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.details.clear();
        self.free.clear();
        self.by_domain.clear();
        self.by_pasid.clear();
        self.hand = 0;
    }

    /// Invalidates address spaces (section 6.5.2.2).
    pub fn invalidate(&mut self, scope: PasidScope) {
        let ids = match scope {
            PasidScope::Global if breaks(Mutant::Rule78) => return,
            PasidScope::Pasid(..) if breaks(Mutant::B05) => return,
            PasidScope::Global => return self.clear(),
            PasidScope::Domain(did) => self.by_domain.get(&did.0.into()),
            PasidScope::Pasid(did, pasid) => self.by_pasid.get(&pasid_key(did, pasid.get())),
        };
        for id in ids.cloned().unwrap_or_default() {
            self.remove(id);
        }
    }

    /// Drops all translations.
    pub const fn forget_all(&mut self) {
        self.floor = self.tags;
    }

    /// Drops the translations of a domain.
    pub fn forget_domain(&mut self, domain: DomainId) {
        self.floors[usize::from(domain.0)] = self.tags;
    }

    /// Calls `forget` for the address spaces of a domain, or of one PASID in it. If `forget`
    /// returns false, drops all translations of the address space.
    pub fn forget_some(
        &mut self,
        domain: DomainId,
        pasid: Option<u32>,
        mut forget: impl FnMut(&Space, &Regime) -> bool,
    ) {
        let ids = match pasid {
            None => self.by_domain.get(&domain.0.into()),
            Some(pasid) => self.by_pasid.get(&pasid_key(domain, pasid)),
        };
        for id in ids.into_iter().flatten() {
            let space = &mut self.slots[*id as usize];
            if !forget(space, &self.details[*id as usize].regime) {
                space.tag = new_tag(&mut self.tags, &mut self.floor);
                space.sizes = [0; 2];
            }
        }
    }
}

/// A tag that was not used before. The IOTLB stores the low bits only: where these begin anew, all
/// tags from before become invalid, and the one whose low bits are all 0 is left out.
const fn new_tag(tags: &mut u64, floor: &mut u64) -> u64 {
    *tags += 1;
    if *tags % (1 << TAG_BITS) == 0 {
        *floor = *tags;
        *tags += 1;
    }
    *tags
}

/// The key of a PASID's list in a domain.
const fn pasid_key(domain: DomainId, pasid: u32) -> u64 {
    SpaceKey::new(SourceId(0), Some(pasid)).tagged(domain)
}

/// Appends to a list, and returns the position.
fn list(lists: &mut NumberMap<Vec<SpaceId>>, key: u64, id: SpaceId) -> u32 {
    let list = lists.entry(key).or_default();
    list.push(id);
    list.len() as u32 - 1
}

/// Removes the element at a position of a list, and returns the element that replaces it.
fn unlist(lists: &mut NumberMap<Vec<SpaceId>>, key: u64, place: u32) -> Option<SpaceId> {
    let list = lists.get_mut(&key)?;
    list.swap_remove(place as usize);
    let now = list.get(place as usize).copied();
    if list.is_empty() {
        lists.remove(&key);
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::TranslationType;
    use pcie_ats::Pasid;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn regime(domain: u16) -> Regime {
        Regime {
            domain: DomainId(domain),
            translation: TranslationType::PassThrough,
            fpd: false,
            scalable: true,
            page_snoop: false,
            supervisor: false,
            execute: false,
        }
    }

    proptest! {
        /// Compared with a map that every invalidation searches.
        #[test]
        fn address_spaces_live_until_an_invalidation_selects_them(
            steps in proptest::collection::vec((0u8..5, 0u16..4, 0u32..4, 0u16..3), 1..200)
        ) {
            let mut cache = SpaceCache::new(100);
            let mut model: HashMap<(u16, u32), u16> = HashMap::new();
            for (what, sid, pasid, did) in steps {
                let key = SpaceKey::new(SourceId(sid), Some(pasid));
                match what {
                    0 | 1 => {
                        cache.insert(key, 1, regime(did));
                        model.insert((sid, pasid), did);
                    }
                    2 => {
                        let pasid_ = Pasid::new(pasid).unwrap();
                        cache.invalidate(PasidScope::Pasid(DomainId(did), pasid_));
                        model.retain(|k, v| !(k.1 == pasid && *v == did));
                    }
                    3 => {
                        cache.invalidate(PasidScope::Domain(DomainId(did)));
                        model.retain(|_, v| *v != did);
                    }
                    _ => {
                        let id = cache.get(key, 1);
                        let found = id.and_then(|id| cache.regime(id)).map(|r| r.domain.0);
                        prop_assert_eq!(found, model.get(&(sid, pasid)).copied());
                    }
                }
            }
        }
    }

    #[test]
    fn a_tag_is_never_used_again() {
        let mut cache = SpaceCache::new(2);
        let mut seen = std::collections::HashSet::new();
        for n in 0..10 {
            let key = SpaceKey::new(SourceId(n % 3), None);
            let id = cache.insert(key, 1, regime(5));
            assert!(seen.insert(cache.space(id).unwrap().tag));
            cache.forget_domain(DomainId(5));
            let id = cache.get(key, 1).unwrap();
            assert!(seen.insert(cache.space(id).unwrap().tag));
            cache.forget_all();
            let id = cache.get(key, 1).unwrap();
            assert!(seen.insert(cache.space(id).unwrap().tag));
        }
    }

    #[test]
    fn tags_from_before_their_low_bits_begin_anew_are_invalid() {
        let low = |tag: u64| tag % (1 << TAG_BITS);
        let mut cache = SpaceCache::new(4);
        cache.tags = (1 << TAG_BITS) - 3;
        let key = |n| SpaceKey::new(SourceId(n), None);
        for n in 0..4 {
            cache.insert(key(n), 1, regime(5));
        }
        let mut seen = std::collections::HashSet::new();
        for n in 0..4 {
            let id = cache.get(key(n), 1).unwrap();
            let tag = cache.space(id).unwrap().tag;
            assert_eq!(tag >> TAG_BITS, 1, "{n}");
            assert!(low(tag) != 0 && seen.insert(low(tag)), "{n}");
        }
    }

    #[test]
    fn another_context_stamp_is_another_address_space() {
        let mut cache = SpaceCache::new(2);
        let key = SpaceKey::new(SourceId(1), None);
        cache.insert(key, 1, regime(5));
        assert_eq!(cache.get(key, 2), None);
    }
}
