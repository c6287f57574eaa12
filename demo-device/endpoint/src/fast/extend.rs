// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extends an access beyond its first translation.

use crate::access::{Piece, canonical};
use crate::atc::Hit;
use crate::device::Device;
use crate::device::resolve::View;
use crate::fast::runs::Run;
use crate::flight::Pin;
use crate::mutant::Mutant;
use pcie_ats::PAGE_SIZE;

impl Device {
    /// Extends the run over the first `most` bytes of a piece, as far as translations are known,
    /// and returns the number of look-ups that hit.
    pub(crate) fn extend(
        &mut self,
        view: &mut View,
        nth: usize,
        piece: &Piece,
        most: u64,
        run: &mut Run,
        pin: &mut Pin,
    ) -> u32 {
        let (mut address, end) = (piece.address + run.len(), piece.address + most);
        let owned = canonical(end - 1, self.config.address_bits);
        if piece.backward || !owned {
            return 0;
        }
        let mut hits = 0;
        while address < end {
            let Some(hit) = self.hit(view, nth, address, piece.access) else {
                break;
            };
            let next = behind(address, &hit, end);
            run.extend(&hit, &view.untranslated, address, (next - address) as usize);
            if !self.breaks(Mutant::Extend38) {
                pin.extend(&hit);
            }
            address = next;
            hits += 1;
        }
        hits
    }
}

/// The end of the entry at an address, at most `end`.
///
/// Most entries are pages, whose end follows from the address alone. A processor that predicts this
/// branch continues with the next look-up while this one still waits for memory. If the end were
/// read from the entry, each look-up would wait for the one before.
#[inline(always)]
fn behind(address: u64, hit: &Hit, end: u64) -> u64 {
    let page = address | (PAGE_SIZE - 1);
    if hit.last == page && page < end {
        return page + 1;
    }
    behind_other(hit, end)
}

/// Like [`behind`], for an entry that is not a page, or that extends beyond the end.
#[cold]
#[inline(never)]
fn behind_other(hit: &Hit, end: u64) -> u64 {
    hit.last.saturating_add(1).min(end)
}
