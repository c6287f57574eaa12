// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last look-up that hit: the next address is often in the same entry.

use crate::access::Access;
use crate::atc::Hit;

/// A hit for an access.
#[derive(Clone, Copy)]
pub(crate) struct Recent {
    access: Access,
    hit: Hit,
}

/// None yet: its range is empty.
pub(crate) const NONE: Recent = Recent {
    access: Access::ReadWrite,
    hit: Hit {
        first: 1,
        last: 0,
        output: 0,
        untranslated_only: false,
    },
};

impl Recent {
    /// The hit for an address, if this entry covers it.
    #[inline]
    pub fn at(&self, address: u64, access: Access) -> Option<Hit> {
        let hit = &self.hit;
        let within = hit.first <= address && address <= hit.last && self.access == access;
        within.then(|| Hit {
            output: hit.output + (address - hit.first),
            ..*hit
        })
    }

    /// The part to remember of the hit at an address.
    #[inline]
    pub fn new(address: u64, access: Access, found: &Hit) -> Self {
        let hit = Hit {
            output: found.output - (address - found.first),
            ..*found
        };
        Recent { access, hit }
    }
}
