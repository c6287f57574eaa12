// SPDX-License-Identifier: MIT OR Apache-2.0
//! The context cache (section 6.2.2): context entries by requester.

use super::NumberMap;
use crate::context::CheckedContext;
use crate::mutant::{Mutant, breaks};
use crate::spec::SourceId;
use crate::spec::descriptor::ContextScope;

/// A cached context entry.
#[derive(Clone, Copy, Debug)]
struct Slot {
    requester: SourceId,
    context: CheckedContext,
    /// A number that no other version of an entry has.
    stamp: u64,
    /// Used since the clock hand passed.
    used: bool,
    /// Position in the list of its domain.
    place: u32,
}

/// The context cache.
#[derive(Clone, Debug)]
pub(crate) struct ContextCache {
    /// For each requester its slot plus one, or 0.
    index: Vec<u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    capacity: usize,
    stamps: u64,
    /// Requesters by domain, or without one: those of scalable mode.
    by_domain: NumberMap<Vec<SourceId>>,
    /// Number of entries that invalidations have examined.
    #[cfg(test)]
    looked_at: usize,
}

/// The number of the list of a domain, or of the list without one.
fn list_of(context: &CheckedContext) -> u64 {
    context.domain().map_or(1 << 16, |did| did.0.into())
}

impl ContextCache {
    /// An empty cache of at most `capacity` entries.
    pub fn new(capacity: u32) -> Self {
        ContextCache {
            index: vec![0; 1 << 16],
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            capacity: capacity.max(1) as usize,
            stamps: 0,
            by_domain: NumberMap::default(),
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// The entry of a requester, with its stamp.
    pub fn get(&mut self, requester: SourceId) -> Option<(CheckedContext, u64)> {
        let slot = self.index[usize::from(requester.0)].checked_sub(1)?;
        let slot = self.slots[slot as usize].as_mut()?;
        slot.used = true;
        Some((slot.context, slot.stamp))
    }

    /// The stamp of the entry of a requester.
    #[inline]
    pub fn stamp(&mut self, requester: SourceId) -> Option<u64> {
        let slot = self.index[usize::from(requester.0)].checked_sub(1)?;
        let slot = self.slots[slot as usize].as_mut()?;
        slot.used = true;
        Some(slot.stamp)
    }

    /// Caches the entry of a requester, and returns its stamp.
    pub fn insert(&mut self, requester: SourceId, context: CheckedContext) -> u64 {
        self.remove(requester);
        let at = if let Some(at) = self.free.pop() {
            at as usize
        } else if self.slots.len() < self.capacity {
            self.slots.push(None);
            self.slots.len() - 1
        } else {
            self.evict();
            self.free.pop().unwrap_or_default() as usize
        };
        self.stamps += 1;
        let list = self.by_domain.entry(list_of(&context)).or_default();
        list.push(requester);
        self.slots[at] = Some(Slot {
            requester,
            context,
            stamp: self.stamps,
            used: false,
            place: list.len() as u32 - 1,
        });
        self.index[usize::from(requester.0)] = at as u32 + 1;
        self.stamps
    }

    /// Makes room in a full cache: evicts the first entry that was not used since the hand passed
    /// it.
    fn evict(&mut self) {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            match &mut self.slots[at] {
                Some(slot) if slot.used => slot.used = false,
                Some(slot) => {
                    let requester = slot.requester;
                    return self.remove(requester);
                }
                None => {}
            }
        }
    }

    fn remove(&mut self, requester: SourceId) {
        let entry = &mut self.index[usize::from(requester.0)];
        let Some(at) = entry.checked_sub(1) else {
            return;
        };
        *entry = 0;
        self.free.push(at);
        let Some(slot) = self.slots[at as usize].take() else {
            return;
        };
        let number = list_of(&slot.context);
        let Some(list) = self.by_domain.get_mut(&number) else {
            return;
        };
        list.swap_remove(slot.place as usize);
        let moved = list.get(slot.place as usize).copied();
        if list.is_empty() {
            self.by_domain.remove(&number);
        }
        // The last entry of the list has moved to its position.
        let moved = moved.map(|requester| self.index[usize::from(requester.0)] as usize);
        if let Some(moved) = moved.and_then(|at| self.slots[at - 1].as_mut()) {
            moved.place = slot.place;
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        for slot in self.slots.drain(..).flatten() {
            self.index[usize::from(slot.requester.0)] = 0;
        }
        self.free.clear();
        self.by_domain.clear();
        self.hand = 0;
    }

    /// Invalidates entries (section 6.5.2.1). Entries of scalable mode have no domain: a
    /// domain-selective invalidation removes all of them.
    pub fn invalidate(&mut self, scope: ContextScope) {
        let of = |context: &CheckedContext, did| context.domain().is_none_or(|d| d == did);
        match scope {
            ContextScope::Global => self.clear(),
            ContextScope::Domain(_) if breaks(Mutant::G25) => self.clear(),
            ContextScope::Domain(did) => {
                for list in [did.0.into(), 1 << 16] {
                    let selected = self.by_domain.get(&list).cloned();
                    for requester in selected.unwrap_or_default() {
                        #[cfg(test)]
                        {
                            self.looked_at += 1;
                        }
                        self.remove(requester);
                    }
                }
            }
            ContextScope::Device { did, sid, mask } => {
                // The mask only excludes function bits.
                for function in 0..8 {
                    let requester = SourceId(sid.0 & !7 | function);
                    if requester.0 & mask != sid.0 & mask {
                        continue;
                    }
                    let entry = self.index[usize::from(requester.0)].checked_sub(1);
                    let slot = entry.and_then(|at| self.slots[at as usize].as_ref());
                    if slot.is_some_and(|slot| of(&slot.context, did)) {
                        self.remove(requester);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Regime, ScalableContext, TranslationType};
    use crate::spec::DomainId;

    fn legacy(domain: u16) -> CheckedContext {
        CheckedContext::Legacy {
            regime: Regime {
                domain: DomainId(domain),
                translation: TranslationType::PassThrough,
                fpd: false,
                scalable: false,
                page_snoop: false,
                supervisor: false,
                execute: false,
            },
            device_tlb: false,
        }
    }

    fn cached(cache: &mut ContextCache) -> Vec<u16> {
        (0..=u16::MAX)
            .filter(|n| cache.get(SourceId(*n)).is_some())
            .collect()
    }

    #[test]
    fn invalidations_take_what_they_select() {
        let fill = || {
            let mut cache = ContextCache::new(64);
            for n in 0..8 {
                cache.insert(SourceId(0x100 + n), legacy(n % 2));
            }
            cache
        };
        let device = |sid, mask| ContextScope::Device {
            did: DomainId(1),
            sid: SourceId(sid),
            mask,
        };
        let cases: [(ContextScope, &[u16]); 6] = [
            (ContextScope::Global, &[]),
            (ContextScope::Domain(DomainId(1)), &[0, 2, 4, 6]),
            (device(0x101, !0), &[0, 2, 3, 4, 5, 6, 7]),
            (device(0x102, !0), &[0, 1, 2, 3, 4, 5, 6, 7]),
            (device(0x105, !4), &[0, 2, 3, 4, 6, 7]),
            (device(0x107, !7), &[0, 2, 4, 6]),
        ];
        for (scope, left) in cases {
            let mut cache = fill();
            cache.invalidate(scope);
            let left: Vec<u16> = left.iter().map(|n| 0x100 + n).collect();
            assert_eq!(cached(&mut cache), left, "{scope:?}");
        }
    }

    #[test]
    fn an_invalidation_of_a_domain_looks_at_what_it_selects() {
        let mut cache = ContextCache::new(4096);
        for n in 0..4096 {
            cache.insert(SourceId(n), legacy(if n % 1024 == 7 { 1 } else { 2 }));
        }
        cache.invalidate(ContextScope::Domain(DomainId(1)));
        assert_eq!(cache.looked_at, 4);
        assert_eq!(cached(&mut cache).len(), 4092);
        cache.invalidate(ContextScope::Domain(DomainId(1)));
        assert_eq!(cache.looked_at, 4);
    }

    /// Compared with the list of entries that should be cached.
    #[test]
    fn entries_live_until_an_invalidation_selects_them() {
        let mut cache = ContextCache::new(64);
        let mut model: Vec<(u16, u16)> = Vec::new();
        let mut number = 1u32;
        for _ in 0..20_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (sid, did) = ((number >> 8) as u16 % 48, (number >> 16) as u16 % 5);
            match number >> 28 {
                0..=11 => {
                    cache.insert(SourceId(sid), legacy(did));
                    model.retain(|(known, _)| *known != sid);
                    model.push((sid, did));
                }
                12 | 13 => {
                    cache.invalidate(ContextScope::Domain(DomainId(did)));
                    model.retain(|(_, known)| *known != did);
                }
                _ => {
                    cache.invalidate(ContextScope::Device {
                        did: DomainId(did),
                        sid: SourceId(sid),
                        mask: !0,
                    });
                    model.retain(|known| *known != (sid, did));
                }
            }
            let mut expected: Vec<u16> = model.iter().map(|(sid, _)| *sid).collect();
            expected.sort_unstable();
            let found: Vec<u16> = (0..48)
                .filter(|n| cache.get(SourceId(*n)).is_some())
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn scalable_entries_belong_to_every_domain() {
        let mut cache = ContextCache::new(4);
        cache.insert(
            SourceId(1),
            CheckedContext::Scalable(ScalableContext {
                fpd: false,
                dte: false,
                paside: false,
                pre: false,
                directory: 0,
                pasid_limit: 64,
                rid_pasid: 0,
                rid_priv: false,
            }),
        );
        cache.invalidate(ContextScope::Domain(DomainId(77)));
        assert!(cache.get(SourceId(1)).is_none());
    }

    #[test]
    fn a_full_cache_evicts_what_was_not_used() {
        let mut cache = ContextCache::new(4);
        for n in 0..4 {
            cache.insert(SourceId(n), legacy(0));
        }
        cache.insert(SourceId(4), legacy(0));
        for n in 100..200 {
            assert!(cache.get(SourceId(4)).is_some());
            cache.insert(SourceId(n), legacy(0));
        }
        assert!(cache.get(SourceId(4)).is_some());
        assert_eq!(cached(&mut cache).len(), 4);
    }
}
