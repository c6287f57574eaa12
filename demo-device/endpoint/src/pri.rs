// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page request groups that wait for their responses (PCIe 10.4). It hands out group indices and
//! counts pages against the allocation, and knows nothing of what the pages are for.

use pcie_ats::{Pasid, Prgi};

/// Who is to learn of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A context, in a certain life of it.
    Context {
        /// Its number.
        index: usize,
        /// Its [`crate::context::Context::generation`] at the time.
        generation: u64,
    },
    /// The laboratory.
    Laboratory,
    /// Nobody any more: whoever sent it has given up. Its index and its credits stay in use until
    /// its response comes.
    Nobody,
}

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Who is to learn of the response.
    pub owner: Owner,
    /// Address space of its pages.
    pub pasid: Option<Pasid>,
    /// Number of its pages.
    pub pages: u32,
    /// When it was first seen waiting, by the clock of the host.
    pub since: Option<u64>,
}

/// The groups that wait.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: Box<[Option<Group>]>,
    /// Pages of all of them.
    pages: u32,
    /// Where the search for a free index begins: an index comes back as late as possible, so that
    /// a response that is too late meets nobody.
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

    /// Pages that wait.
    pub fn outstanding(&self) -> u32 {
        self.pages
    }

    /// Sends a group off under a free index, if there is one (rule 49).
    pub fn open(&mut self, group: Group) -> Option<Prgi> {
        let count = self.groups.len();
        let index = (0..count)
            .map(|n| (self.next + n) % count)
            .find(|index| self.groups[*index].is_none())?;
        self.next = (index + 1) % count;
        self.insert(Prgi::new(index as u16).ok()?, group)
    }

    /// Sends a group off under a certain index, if it is free.
    pub fn insert(&mut self, prgi: Prgi, group: Group) -> Option<Prgi> {
        let place = &mut self.groups[usize::from(prgi.get())];
        if place.is_some() {
            return None;
        }
        *place = Some(group);
        self.pages += group.pages;
        Some(prgi)
    }

    /// Takes the group of a response, if there is such a group in such an address space (rules 56
    /// and 57).
    pub fn close(&mut self, prgi: Prgi, pasid: Option<Pasid>) -> Option<Group> {
        let place = &mut self.groups[usize::from(prgi.get())];
        let group = place.take_if(|group| group.pasid == pasid)?;
        self.pages = self.pages.saturating_sub(group.pages);
        Some(group)
    }

    /// Takes the group of an index, whoever answers it.
    pub fn close_any(&mut self, prgi: Prgi) -> Option<Group> {
        let pasid = self.groups[usize::from(prgi.get())]?.pasid;
        self.close(prgi, pasid)
    }

    /// Whether a group waits for its response under an index, for a certain owner.
    pub fn waits(&self, prgi: Prgi, owner: Owner) -> bool {
        self.groups[usize::from(prgi.get())].is_some_and(|group| group.owner == owner)
    }

    /// Whether groups wait, and nobody for any of them.
    pub fn all_given_up(&self) -> bool {
        let mut waiting = self.groups.iter().flatten().peekable();
        waiting.peek().is_some() && waiting.all(|group| group.owner == Owner::Nobody)
    }

    /// Gives up the groups of an owner, and returns how many there were.
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

    /// Gives up one group that has waited for `timeout` or longer at a time, and returns its index
    /// and owner. The wait begins when a group is first seen here, and so is never cut short.
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

    /// Sends a group off under an index that another has, as a device that breaks rule 49 does.
    pub fn open_again(&mut self, group: Group) -> Option<Prgi> {
        let first = Prgi::new(0).ok()?;
        self.groups[0] = None;
        self.insert(first, group)
    }

    /// Forgets all groups.
    pub fn clear(&mut self) {
        self.groups.fill(None);
        self.pages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
