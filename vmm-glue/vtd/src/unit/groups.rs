// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which page request groups are outstanding (section 7.5).

use crate::cache::NumberMap;
use crate::spec::SourceId;
use pcie_ats::{PageRequest, Pasid, PrgResponse, Prgi};

/// The page request groups that software has not answered: the PASID of each, by requester and
/// index. The index is unique among the groups that a function has outstanding (PCIe 10.4.1), so
/// that a function has 512 of them at most, and one that it gave up, by a reset for instance, is
/// replaced when it uses the index again.
#[derive(Debug, Default)]
pub(super) struct Groups(NumberMap<Option<Pasid>>);

impl Groups {
    const fn key(requester: SourceId, prgi: Prgi) -> u64 {
        (requester.0 as u64) << 9 | prgi.get() as u64
    }

    /// The last request of a group was put into the queue.
    pub fn asked(&mut self, requester: SourceId, request: &PageRequest) {
        let key = Self::key(requester, request.prgi);
        self.0.insert(key, request.pasid);
    }

    /// Groups of a requester are given up. Returns the index of each with its PASID, by number.
    pub fn abandoned(
        &mut self,
        requester: SourceId,
        pasid: Option<Option<Pasid>>,
    ) -> Vec<(Prgi, Option<Pasid>)> {
        let all = self.0.iter().filter(|(key, of)| {
            *key >> 9 == u64::from(requester.0) && pasid.is_none_or(|pasid| **of == pasid)
        });
        let mut keys: Vec<(u64, Option<Pasid>)> = all.map(|(key, of)| (*key, *of)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        let group = |(key, of): (u64, Option<Pasid>)| {
            self.0.remove(&key);
            Some((Prgi::new((key & 0x1ff) as u16).ok()?, of))
        };
        keys.into_iter().filter_map(group).collect()
    }

    /// A group is answered. Returns whether it was outstanding.
    pub fn answered(&mut self, requester: SourceId, response: &PrgResponse) -> bool {
        let key = Self::key(requester, response.prgi);
        let outstanding = self.0.get(&key) == Some(&response.pasid);
        if outstanding {
            self.0.remove(&key);
        }
        outstanding
    }
}
