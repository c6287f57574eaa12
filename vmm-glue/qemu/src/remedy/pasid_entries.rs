// SPDX-License-Identifier: GPL-2.0-or-later
//! The present bit of PASID table entries (VT-d 9.6), which QEMU's intel-iommu ignores when it
//! translates.
//!
//! Software removes a PASID by clearing the present bit, invalidating the caches, and then clearing
//! the rest of the entry. After the invalidation, hardware caches nothing from an entry that is not
//! present (6.2.1), so software need not invalidate anything when it reuses the PASID. QEMU's unit
//! walks the tables of an entry whose present bit is clear as if it were set. If a device sends a
//! request between the invalidation and the clearing, the unit puts the translation into its IOTLB,
//! and the next process with that PASID gets pages of the previous one.
//!
//! So the port checks the entry before it asks QEMU. No invalidation can happen between the check
//! and the answer, because that takes the BQL. Whatever QEMU caches was present at the check, and
//! the invalidation that follows a later removal drops it.

use vtd::memory::Memory;
use vtd::spec::SourceId;
use vtd::spec::context::ScalableContextEntry;
use vtd::spec::pasid::{PasidDirectoryEntry, PasidEntry};
use vtd::spec::register::{RootTableAddress, TranslationTableMode, global, offset};
use vtd::spec::root::ScalableRootHalf;

use crate::bql::Bql;
use crate::vtd::GuestMemory;

/// Whether to ask the unit about a PASID of a requester: not if the PASID's entry exists and is not
/// present. If the path to the entry ends earlier, the unit detects that itself.
pub fn admits(bql: &Bql, requester: u16, pasid: u32) -> bool {
    let Some(status) = super::register(bql, offset::GCMD) else {
        return true;
    };
    // The upper half is the status register.
    if (status >> 32) as u32 & global::TE == 0 {
        return true;
    }
    let root = super::register(bql, offset::RTADDR);
    let entry = root.and_then(|root| entry(&GuestMemory, root, SourceId(requester), pasid));
    entry.is_none_or(|entry| entry.p())
}

/// The entry of a PASID, if the tables lead to one.
fn entry(memory: &impl Memory, rtaddr: u64, requester: SourceId, pasid: u32) -> Option<PasidEntry> {
    let rtaddr = RootTableAddress(rtaddr);
    if rtaddr.mode() != TranslationTableMode::Scalable {
        return None;
    }
    let word = |address: u64| memory.read_u64(address).ok();
    let (bus, devfn) = (u64::from(requester.bus()), u64::from(requester.devfn()));
    let half = ScalableRootHalf(word(rtaddr.rta() + 16 * bus + 8 * (devfn >> 7))?);
    if !half.p() {
        return None;
    }
    let context = ScalableContextEntry([word(half.ctp() + 32 * (devfn & 0x7f))?, 0, 0, 0]);
    if !context.p() {
        return None;
    }
    let directory = PasidDirectoryEntry(word(context.pasiddirptr() + 8 * u64::from(pasid >> 6))?);
    if !directory.p() {
        return None;
    }
    let mut words = [0; 8];
    words[0] = word(directory.smptblptr() + 64 * u64::from(pasid & 63))?;
    Some(PasidEntry(words))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vtd::memory::MemoryError;

    use super::*;

    /// The words of memory, by address.
    struct Words(BTreeMap<u64, u64>);

    impl Memory for Words {
        fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
            let word = self.0.get(&address).ok_or(MemoryError { address })?;
            data.copy_from_slice(&word.to_le_bytes()[..data.len()]);
            Ok(())
        }
        fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryError> {
            Err(MemoryError { address })
        }
        fn compare_exchange(&self, address: u64, _: u64, _: u64) -> Result<u64, MemoryError> {
            Err(MemoryError { address })
        }
    }

    /// Tables for one PASID (0x54321) of 05:13.2, whose entry has this first word.
    fn tables(entry: u64) -> Words {
        Words(BTreeMap::from([
            (0x1000 + 16 * 5 + 8, 0x2001),
            (0x2000 + 32 * (0x9a - 0x80), 0x10_0000 | 0x1d),
            (0x10_0000 + 8 * (0x54321 >> 6), 0x4001),
            (0x4000 + 64 * 0x21, entry),
        ]))
    }

    const REQUESTER: SourceId = SourceId(0x059a);
    const SCALABLE: u64 = 0x1000 | 1 << 10;

    #[test]
    fn the_entry_is_found_where_the_tables_lead() {
        for (word, present) in [(0x49, true), (0x48, false), (0x2, false)] {
            let found = entry(&tables(word), SCALABLE, REQUESTER, 0x54321).unwrap();
            assert_eq!((found.0[0], found.p()), (word, present));
        }
    }

    #[test]
    fn a_way_that_ends_earlier_leads_to_no_entry() {
        let whole = tables(0x49);
        assert_eq!(entry(&whole, 0x1000, REQUESTER, 0x54321), None);
        assert_eq!(entry(&whole, SCALABLE, SourceId(0x0598), 0x54321), None);
        assert_eq!(entry(&whole, SCALABLE, REQUESTER, 0x14321), None);
        for address in whole.0.keys() {
            let mut other = Words(whole.0.clone());
            other.0.remove(address);
            assert_eq!(entry(&other, SCALABLE, REQUESTER, 0x54321), None);
            // The entry itself is found even if it is not present.
            if *address != 0x4000 + 64 * 0x21 {
                other.0.insert(*address, whole.0[address] & !1);
                assert_eq!(entry(&other, SCALABLE, REQUESTER, 0x54321), None);
            }
        }
    }
}
