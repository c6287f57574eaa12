// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocation of ids: the default allocator, custom ones, sharing, queueing.

use host_iommu::ids::{
    Allocator, AllocatorId, FindError, IdSpaces, Provider, RegisterError, SetId, Warning,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const SET: SetId = SetId(1);

/// What a custom allocator gave and got back.
#[derive(Clone, Default)]
struct Given(Rc<RefCell<Numbers>>);

#[derive(Default)]
struct Numbers {
    /// What it gives next, once; else the lowest number that is free.
    next: Vec<u32>,
    given: BTreeSet<u32>,
    freed: Vec<u32>,
}

impl Given {
    fn will_give(&self, id: u32) {
        self.0.borrow_mut().next.push(id);
    }

    fn boxed(&self) -> Box<dyn Allocator> {
        Box::new(self.clone())
    }

    fn freed(&self) -> Vec<u32> {
        self.0.borrow().freed.clone()
    }
}

impl Allocator for Given {
    fn allocate(&mut self, min: u32, max: u32) -> Option<u32> {
        let mut numbers = self.0.borrow_mut();
        let free = |n: &u32| !numbers.given.contains(n);
        let id = match numbers.next.first().copied() {
            Some(next) => {
                numbers.next.remove(0);
                next
            }
            None => (min..=max).find(free)?,
        };
        numbers.given.insert(id);
        Some(id)
    }

    fn free(&mut self, id: u32) {
        let mut numbers = self.0.borrow_mut();
        numbers.given.remove(&id);
        numbers.freed.push(id);
    }
}

#[test]
pub(crate) fn n1_1_the_lowest_free_id_of_the_range_is_given() {
    let mut ids = IdSpaces::new();
    let all: Vec<_> = (0..4).map(|n| ids.allocate(SET, 5, 7, n)).collect();
    assert_eq!(all, [Some(5), Some(6), Some(7), None]);
    assert_eq!(ids.allocate(SET, 7, 5, 0), None, "an empty range");
    let last = host_iommu::ids::MAX_ID;
    assert_eq!(ids.allocate(SET, last, u32::MAX, 0), Some(last));
    assert_eq!(ids.allocate(SET, last, u32::MAX, 0), None);
}

#[test]
pub(crate) fn n1_2_a_freed_id_can_be_allocated_again() {
    let mut ids = IdSpaces::new();
    assert_eq!(ids.free(3), Err(Warning::FreedUnknown(3)));
    assert_eq!(ids.allocate(SET, 3, 3, ()), Some(3));
    assert_eq!(ids.free(3), Ok(()));
    assert_eq!(ids.free(3), Err(Warning::FreedUnknown(3)));
    assert_eq!(ids.allocate(SET, 3, 3, ()), Some(3));
}

#[test]
pub(crate) fn n1_3_an_id_is_found_by_its_set_and_its_getter() {
    let mut ids = IdSpaces::new();
    ids.allocate(SET, 9, 9, "data");
    assert_eq!(ids.find(None, 8, |_| true), Err(FindError::NotAllocated(8)));
    assert_eq!(
        ids.find(Some(SetId(2)), 9, |_| true),
        Err(FindError::OtherSet(9))
    );
    assert_eq!(ids.find(Some(SET), 9, |_| false), Ok(None));
    assert_eq!(ids.find(Some(SET), 9, |d| *d == "data"), Ok(Some(&"data")));
    assert_eq!(ids.find(None, 9, |_| true), Ok(Some(&"data")));
}

#[test]
pub(crate) fn n1_4_data_are_replaced_and_the_old_ones_are_given_back() {
    let mut ids = IdSpaces::new();
    ids.allocate(SET, 9, 9, "old");
    assert_eq!(ids.set_data(8, "new"), Err(FindError::NotAllocated(8)));
    assert_eq!(ids.set_data(9, "new"), Ok("old"));
    assert_eq!(ids.find(None, 9, |_| true), Ok(Some(&"new")));
}

#[test]
pub(crate) fn n1_5_the_default_allocator_serves_when_no_other_is_active() {
    let (mut ids, custom) = (IdSpaces::new(), Given::default());
    assert_eq!(ids.allocate(SET, 1, 9, ()), Some(1));
    ids.free(1).unwrap();
    custom.will_give(7);
    let id = AllocatorId(1);
    ids.register(id, Provider(1), custom.boxed()).unwrap();
    assert_eq!(ids.allocate(SET, 1, 9, ()), Some(7), "the custom one");
    ids.free(7).unwrap();
    assert_eq!(custom.freed(), [7]);
    ids.unregister(id).unwrap();
    assert_eq!(
        ids.allocate(SET, 1, 9, ()),
        Some(1),
        "the default one again"
    );
    assert_eq!(custom.freed(), [7]);
}

#[test]
pub(crate) fn n1_6_the_first_custom_allocator_needs_an_empty_default() {
    let (mut ids, custom) = (IdSpaces::new(), Given::default());
    ids.allocate(SET, 1, 9, ());
    let register =
        |ids: &mut IdSpaces<()>| ids.register(AllocatorId(1), Provider(1), custom.boxed());
    assert_eq!(register(&mut ids), Err(RegisterError::DefaultInUse(1)));
    ids.free(1).unwrap();
    assert_eq!(register(&mut ids), Ok(()));
}

#[test]
pub(crate) fn n1_7_an_allocator_is_registered_once() {
    let (mut ids, custom) = (IdSpaces::<()>::new(), Given::default());
    let mut register =
        |id, provider| ids.register(AllocatorId(id), Provider(provider), custom.boxed());
    assert_eq!(register(1, 1), Ok(()));
    assert_eq!(register(1, 1), Err(RegisterError::Registered));
    assert_eq!(register(2, 1), Ok(()), "another of the same provider");
    assert_eq!(register(2, 2), Err(RegisterError::Registered));
}

#[test]
pub(crate) fn n1_8_allocators_of_one_provider_share_their_ids() {
    let (mut ids, first, second) = (IdSpaces::new(), Given::default(), Given::default());
    ids.register(AllocatorId(1), Provider(1), first.boxed())
        .unwrap();
    assert_eq!(ids.allocate(SET, 1, 9, "a"), Some(1));
    ids.register(AllocatorId(2), Provider(1), second.boxed())
        .unwrap();
    ids.unregister(AllocatorId(1)).unwrap();
    assert_eq!(ids.find(None, 1, |_| true), Ok(Some(&"a")), "it is theirs");
    ids.free(1).unwrap();
    assert_eq!((first.freed(), second.freed()), (vec![], vec![1]));
}

#[test]
pub(crate) fn n1_9_another_provider_waits_for_its_turn() {
    let (mut ids, first, second) = (IdSpaces::new(), Given::default(), Given::default());
    first.will_give(10);
    second.will_give(20);
    ids.register(AllocatorId(1), Provider(1), first.boxed())
        .unwrap();
    ids.register(AllocatorId(2), Provider(2), second.boxed())
        .unwrap();
    assert_eq!(ids.allocate(SET, 1, 99, ()), Some(10));
    ids.free(10).unwrap();
    ids.unregister(AllocatorId(1)).unwrap();
    assert_eq!(ids.allocate(SET, 1, 99, ()), Some(20));
}

#[test]
pub(crate) fn n1_10_ids_stay_until_the_last_of_their_allocators_leaves() {
    let (mut ids, custom) = (IdSpaces::new(), Given::default());
    for id in [1, 2] {
        let id = AllocatorId(id);
        ids.register(id, Provider(1), custom.boxed()).unwrap();
    }
    assert_eq!(ids.allocate(SET, 4, 9, ()), Some(4));
    assert_eq!(ids.unregister(AllocatorId(1)), Ok(()));
    assert_eq!(ids.in_use(), 1);
    let left = ids.unregister(AllocatorId(2));
    assert_eq!(left, Err(Warning::LeftWithIds(1)));
    assert_eq!(ids.in_use(), 0);
    // It is the default one's turn.
    assert_eq!(ids.allocate(SET, 2, 9, ()), Some(2));
    let unknown = ids.unregister(AllocatorId(2));
    assert_eq!(unknown, Err(Warning::UnknownAllocator));
}

#[test]
pub(crate) fn n1_11_an_id_that_is_in_use_is_given_back() {
    let (mut ids, custom) = (IdSpaces::new(), Given::default());
    ids.register(AllocatorId(1), Provider(1), custom.boxed())
        .unwrap();
    custom.will_give(77);
    custom.will_give(77);
    assert_eq!(
        ids.allocate(SET, 1, 9, "first"),
        Some(77),
        "exactly its number"
    );
    assert_eq!(ids.allocate(SET, 1, 9, "second"), None);
    assert_eq!(custom.freed(), [77]);
    assert_eq!(ids.find(None, 77, |_| true), Ok(Some(&"first")));
}

#[test]
pub(crate) fn n1_12_allocators_come_and_go_at_any_time() {
    let (mut ids, custom) = (IdSpaces::new(), Given::default());
    let providers = [1, 2, 3, 2];
    for (id, provider) in (1..).zip(providers) {
        let (id, provider) = (AllocatorId(id), Provider(provider));
        ids.register(id, provider, custom.boxed()).unwrap();
    }
    // Of those that wait, one of two of a provider, the only one of another.
    ids.unregister(AllocatorId(2)).unwrap();
    ids.unregister(AllocatorId(3)).unwrap();
    ids.register(AllocatorId(2), Provider(2), custom.boxed())
        .unwrap();
    ids.register(AllocatorId(5), Provider(4), custom.boxed())
        .unwrap();
    for id in [1, 4, 2, 5] {
        assert!(ids.allocate(SET, 1, 9, ()).is_some());
        let id = AllocatorId(id);
        // Ids are left when the last of a provider goes, and not before.
        let last = id != AllocatorId(4);
        assert_eq!(ids.unregister(id).is_err(), last, "{id:?}");
        if !last {
            ids.free(2).unwrap();
        }
    }
    custom.will_give(50);
    assert_eq!(
        ids.allocate(SET, 1, 9, ()),
        Some(1),
        "no custom one is left"
    );
}

/// What happens to ids.
#[derive(Clone, Copy, Debug)]
enum Event {
    Register(u32, u32),
    Unregister(u32),
    Allocate(u32, u32),
    Free(u32),
    Find(u32, u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0u32..4, 0u32..3).prop_map(|(id, provider)| Event::Register(id, provider)),
        2 => (0u32..4).prop_map(Event::Unregister),
        6 => (0u32..12, 0u32..12).prop_map(|(a, b)| Event::Allocate(a, b)),
        4 => (0u32..12).prop_map(Event::Free),
        3 => (0u32..12, 0u32..3).prop_map(|(id, set)| Event::Find(id, set)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A model that is a list of registrations in order, and a map of ids by provider. Custom
    /// allocators of one provider give from the same numbers, and a little beside the range.
    #[test]
    fn ids_are_as_in_a_naive_model(events in proptest::collection::vec(event(), 1..80)) {
        let mut ids = IdSpaces::new();
        let numbers: Vec<Given> = (0..3).map(|_| Given::default()).collect();
        let mut registered: Vec<(u32, u32)> = Vec::new();
        // Provider, or none for the default allocator.
        let mut model: BTreeMap<Option<u32>, BTreeMap<u32, u32>> = BTreeMap::new();
        for (n, event) in (0u32..).zip(events) {
            // The provider that has waited longest is active: that of the first registration
            // among those whose provider came first.
            let mut order: Vec<u32> = Vec::new();
            for (_, provider) in &registered {
                if !order.contains(provider) {
                    order.push(*provider);
                }
            }
            let active = order.first().copied();
            match event {
                Event::Register(id, provider) => {
                    let got = ids.register(
                        AllocatorId(id),
                        Provider(provider),
                        numbers[provider as usize].boxed(),
                    );
                    let default = model.entry(None).or_default().len();
                    if registered.iter().any(|(known, _)| *known == id) {
                        prop_assert_eq!(got, Err(RegisterError::Registered));
                    } else if registered.is_empty() && default > 0 {
                        prop_assert_eq!(got, Err(RegisterError::DefaultInUse(default)));
                    } else {
                        prop_assert_eq!(got, Ok(()));
                        // Beside those of its provider, which keeps the place of the provider.
                        let at = registered.iter().rposition(|(_, of)| *of == provider);
                        let at = at.map_or(registered.len(), |at| at + 1);
                        registered.insert(at, (id, provider));
                    }
                }
                Event::Unregister(id) => {
                    let got = ids.unregister(AllocatorId(id));
                    match registered.iter().position(|(known, _)| *known == id) {
                        None => prop_assert_eq!(got, Err(Warning::UnknownAllocator)),
                        Some(at) => {
                            let (_, provider) = registered.remove(at);
                            let last = !registered.iter().any(|(_, of)| *of == provider);
                            let left = match last {
                                true => model.remove(&Some(provider)).map_or(0, |ids| ids.len()),
                                false => 0,
                            };
                            let expected = match left {
                                0 => Ok(()),
                                left => Err(Warning::LeftWithIds(left)),
                            };
                            prop_assert_eq!(got, expected);
                        }
                    }
                }
                Event::Allocate(min, max) => {
                    let got = ids.allocate(SetId(n % 3), min, max, n);
                    let space = model.entry(active).or_default();
                    match got {
                        Some(id) => {
                            prop_assert!((min..=max).contains(&id));
                            prop_assert!(space.insert(id, n).is_none());
                            if active.is_none() {
                                prop_assert!((min..id).all(|lower| space.contains_key(&lower)));
                            }
                        }
                        None if active.is_none() => {
                            prop_assert!((min..=max).all(|id| space.contains_key(&id)));
                        }
                        None => {}
                    }
                }
                Event::Free(id) => {
                    let got = ids.free(id);
                    let known = model.entry(active).or_default().remove(&id);
                    prop_assert_eq!(got.is_ok(), known.is_some());
                }
                Event::Find(id, set) => {
                    let got = ids.find(Some(SetId(set)), id, |_| true);
                    match model.entry(active).or_default().get(&id) {
                        None => prop_assert_eq!(got, Err(FindError::NotAllocated(id))),
                        Some(n) if n % 3 != set => {
                            prop_assert_eq!(got, Err(FindError::OtherSet(id)));
                        }
                        Some(n) => prop_assert_eq!(got, Ok(Some(n))),
                    }
                }
            }
            // What a custom allocator has given is what its provider's space has.
            for (provider, given) in (0u32..).zip(&numbers) {
                if registered.iter().any(|(_, of)| *of == provider) {
                    let space = model.entry(Some(provider)).or_default();
                    let has: BTreeSet<u32> = space.keys().copied().collect();
                    prop_assert!(has.is_subset(&given.0.borrow().given));
                }
            }
        }
    }
}
