// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page request groups that wait for their responses (PCIe 10.4). It allocates group indices and
//! counts pages against the allocation. It does not know the purpose of the pages.

use pcie_ats::{Pasid, Prgi};

/// The receiver of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A context, in a certain life of it.
    Context {
        /// Its number.
        index: usize,
        /// Its [`crate::permit::Life::number`] at the time.
        generation: u64,
    },
    /// The laboratory.
    Laboratory,
    /// None any more: the sender has given up. The index and the credits stay in use until the
    /// response arrives.
    Nobody,
}

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The receiver of the response.
    pub owner: Owner,
    /// Address space of its pages.
    pub pasid: Option<Pasid>,
    /// Number of its pages.
    pub pages: u32,
    /// The time of the host's clock when the wait was first noticed.
    pub since: Option<u64>,
}

/// The groups that wait for responses.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: Box<[Option<Group>]>,
    /// The pages of all groups.
    pages: u32,
    /// Where the search for a free index begins. An index is reused as late as possible, so that a
    /// late response does not match a new group.
    next: usize,
}

impl Groups {
    /// None.
    pub fn new() -> Self {
        Groups {
            groups: vec![None; usize::from(Prgi::COUNT)].into_boxed_slice(),
            pages: 0,
            next: 0,
        }
    }

    /// Number of pages that wait.
    pub fn outstanding(&self) -> u32 {
        self.pages
    }

    /// Opens a group with a free index, if there is one (rule 49).
    pub fn open(&mut self, group: Group) -> Option<Prgi> {
        let count = self.groups.len();
        let index = (0..count)
            .map(|n| (self.next + n) % count)
            .find(|index| self.groups[*index].is_none())?;
        self.next = (index + 1) % count;
        self.insert(Prgi::new(index as u16).ok()?, group)
    }

    /// Opens a group with a given index, if it is free.
    pub fn insert(&mut self, prgi: Prgi, group: Group) -> Option<Prgi> {
        let place = &mut self.groups[usize::from(prgi.get())];
        if place.is_some() {
            return None;
        }
        *place = Some(group);
        self.pages += group.pages;
        Some(prgi)
    }

    /// Removes and returns the group of a response, if there is one with this index and address
    /// space (rules 56 and 57).
    pub fn close(&mut self, prgi: Prgi, pasid: Option<Pasid>) -> Option<Group> {
        let place = &mut self.groups[usize::from(prgi.get())];
        let group = place.take_if(|group| group.pasid == pasid)?;
        self.pages = self.pages.saturating_sub(group.pages);
        Some(group)
    }

    /// Removes and returns the group of an index, whatever the PASID of the response.
    pub fn close_any(&mut self, prgi: Prgi) -> Option<Group> {
        let pasid = self.groups[usize::from(prgi.get())]?.pasid;
        self.close(prgi, pasid)
    }

    /// Whether a group of an owner waits with this index.
    pub fn waits(&self, prgi: Prgi, owner: Owner) -> bool {
        self.groups[usize::from(prgi.get())].is_some_and(|group| group.owner == owner)
    }

    /// Whether groups wait and all of them were given up.
    pub fn all_given_up(&self) -> bool {
        let mut waiting = self.groups.iter().flatten().peekable();
        waiting.peek().is_some() && waiting.all(|group| group.owner == Owner::Nobody)
    }

    /// Gives up the groups of an owner, and returns their number.
    pub fn give_up(&mut self, gives_up: impl Fn(&Owner) -> bool) -> u32 {
        let mut count = 0;
        for group in self.groups.iter_mut().flatten() {
            if group.owner != Owner::Nobody && gives_up(&group.owner) {
                group.owner = Owner::Nobody;
                count += 1;
            }
        }
        count
    }

    /// When the first of the groups that were not given up will have waited for `timeout`.
    pub fn deadline(&self, timeout: u64) -> Option<u64> {
        let waiting = self.groups.iter().flatten();
        waiting
            .filter(|group| group.owner != Owner::Nobody)
            .filter_map(|group| Some(group.since?.saturating_add(timeout)))
            .min()
    }

    /// Gives up one group that has waited for `timeout` or longer, and returns its index and owner.
    /// The wait begins when this function first sees a group, so it is never too short.
    pub fn expire(&mut self, now: u64, timeout: u64) -> Option<(Prgi, Owner)> {
        for (index, place) in self.groups.iter_mut().enumerate() {
            let Some(group) = place else { continue };
            let since = *group.since.get_or_insert(now);
            if group.owner != Owner::Nobody && now.saturating_sub(since) >= timeout {
                let owner = std::mem::replace(&mut group.owner, Owner::Nobody);
                return Some((Prgi::new(index as u16).ok()?, owner));
            }
        }
        None
    }

    /// Opens a group with an index that is in use, for a device that breaks rule 49.
    pub fn open_again(&mut self, group: Group) -> Option<Prgi> {
        let first = Prgi::new(0).ok()?;
        self.groups[0] = None;
        self.insert(first, group)
    }

    /// Drops all groups. The search for a free index continues at the same place, because responses
    /// to the dropped groups may still arrive.
    pub fn clear(&mut self) {
        self.groups.fill(None);
        self.pages = 0;
    }
}

/// The growth factor of the number of pages ahead, if the next access continues where they end.
const GROWTH: u32 = 4;

/// The page requests ahead of the group that a context waits for. Counts pages by their numbers:
/// addresses without the low [`pcie_ats::PAGE_SHIFT`] bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PagesAhead {
    /// The next page to request, or the page after all that were requested.
    next: u64,
    /// Number of pages that are still to be requested.
    left: u32,
    /// Number of pages to request when it began.
    window: u32,
    /// Groups that wait for a response.
    groups: u32,
}

impl PagesAhead {
    /// Begins after `pages` pages from `first` on, with the same number again or, if `first` is
    /// where the previous pages ahead ended, with [`GROWTH`] times the previous number; no page
    /// after `last`.
    pub fn begin(&mut self, first: u64, pages: u32, last: u64) {
        self.window = match first == self.next {
            true => self.window.saturating_mul(GROWTH),
            false => pages,
        };
        self.next = first + u64::from(pages);
        let needed = (last + 1).saturating_sub(self.next);
        self.left = self.window.min(needed.try_into().unwrap_or(u32::MAX));
    }

    /// Requests no more.
    pub fn stop(&mut self) {
        self.left = 0;
    }

    /// Number of pages that are still to be requested.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The page that is requested next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A group of the next pages is sent.
    pub fn sent(&mut self, pages: u32) {
        self.next += u64::from(pages);
        self.left = self.left.saturating_sub(pages);
        self.groups += 1;
    }

    /// A group has ended.
    pub fn ended(&mut self) {
        self.groups = self.groups.saturating_sub(1);
    }

    /// Groups that wait for a response.
    pub fn groups(&self) -> u32 {
        self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Numbers;

    fn group(pages: u32) -> Group {
        Group {
            owner: Owner::Laboratory,
            pasid: Pasid::new(1).ok(),
            pages,
            since: None,
        }
    }

    #[test]
    fn rule_49_an_index_is_unique_until_its_response() {
        let mut groups = Groups::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..512 {
            assert!(seen.insert(groups.open(group(2)).unwrap()));
        }
        assert_eq!(groups.open(group(2)), None);
        assert_eq!(groups.outstanding(), 1024);
        let seven = Prgi::new(7).unwrap();
        assert!(groups.close(seven, Pasid::new(1).ok()).is_some());
        assert_eq!(groups.open(group(1)), Some(seven));
        assert_eq!(groups.outstanding(), 1023);
    }

    #[test]
    fn an_index_is_used_again_as_late_as_possible() {
        let mut groups = Groups::new();
        let first = groups.open(group(1)).unwrap();
        assert!(groups.close(first, Pasid::new(1).ok()).is_some());
        assert_ne!(groups.open(group(1)), Some(first));
    }

    #[test]
    fn rule_56_and_57_a_response_must_name_a_group_and_its_pasid() {
        let mut groups = Groups::new();
        let prgi = groups.open(group(3)).unwrap();
        assert_eq!(groups.close(prgi, None), None);
        assert_eq!(groups.close(prgi, Pasid::new(2).ok()), None);
        assert_eq!(
            groups.close(Prgi::new(100).unwrap(), Pasid::new(1).ok()),
            None
        );
        assert_eq!(groups.close(prgi, Pasid::new(1).ok()), Some(group(3)));
        assert_eq!(groups.outstanding(), 0);
        assert_eq!(groups.close(prgi, Pasid::new(1).ok()), None);
    }

    /// A group in the naive model.
    struct Waiting {
        prgi: u16,
        group: Group,
        since: Option<u64>,
    }

    #[test]
    fn rule_49_56_58_groups_agree_with_a_list_for_a_million_operations() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut next = |below| numbers.below(below);
        let mut groups = Groups::new();
        let mut model: Vec<Waiting> = Vec::new();
        let mut now = 0;
        for _ in 0..1_000_000 {
            match next(100) {
                0..45 => {
                    let group = Group {
                        owner: Owner::Context {
                            index: next(8) as usize,
                            generation: next(3),
                        },
                        pasid: Pasid::new(next(3) as u32).ok(),
                        pages: 1 + next(16) as u32,
                        since: None,
                    };
                    match groups.open(group) {
                        Some(prgi) => {
                            let prgi = prgi.get();
                            assert!(model.iter().all(|waiting| waiting.prgi != prgi));
                            model.push(Waiting {
                                prgi,
                                group,
                                since: None,
                            });
                        }
                        None => assert_eq!(model.len(), usize::from(Prgi::COUNT)),
                    }
                }
                45..97 => {
                    // Mostly a waiting group, sometimes with another PASID.
                    let chosen = next(model.len() as u64 + 2) as usize;
                    let prgi = model.get(chosen).map_or(next(512) as u16, |w| w.prgi);
                    let pasid = Pasid::new(next(3) as u32).ok();
                    let known = model
                        .iter()
                        .position(|w| w.prgi == prgi && w.group.pasid == pasid);
                    let expected = known.map(|n| model.swap_remove(n));
                    let closed = groups.close(Prgi::new(prgi).unwrap(), pasid);
                    assert_eq!(
                        closed.map(|g| (g.owner, g.pages)),
                        expected.map(|w| (w.group.owner, w.group.pages))
                    );
                }
                97 => {
                    now += next(50);
                    for waiting in &mut model {
                        waiting.since.get_or_insert(now);
                    }
                    let mut expired = 0;
                    while let Some((prgi, owner)) = groups.expire(now, 100) {
                        let waiting = model.iter_mut().find(|w| w.prgi == prgi.get()).unwrap();
                        assert_eq!(owner, waiting.group.owner);
                        assert!(now - waiting.since.unwrap() >= 100);
                        waiting.group.owner = Owner::Nobody;
                        expired += 1;
                    }
                    let late = model.iter().filter(|w| {
                        let waited = now - w.since.unwrap();
                        w.group.owner != Owner::Nobody && waited >= 100
                    });
                    assert_eq!(late.count(), 0, "{expired} expired");
                }
                98 => {
                    let index = next(8) as usize;
                    let of = |owner: &Owner| match owner {
                        Owner::Context { index: n, .. } => *n == index,
                        _ => false,
                    };
                    let mut expected = 0;
                    for waiting in model.iter_mut().filter(|w| of(&w.group.owner)) {
                        waiting.group.owner = Owner::Nobody;
                        expected += 1;
                    }
                    assert_eq!(groups.give_up(of), expected);
                }
                _ if next(50) == 0 => {
                    groups.clear();
                    model.clear();
                }
                _ => {}
            }
            let pages: u32 = model.iter().map(|w| w.group.pages).sum();
            assert_eq!(groups.outstanding(), pages);
            let given_up = model.iter().all(|w| w.group.owner == Owner::Nobody);
            assert_eq!(groups.all_given_up(), given_up && !model.is_empty());
        }
    }
}
