// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extends an access beyond its first translation.

use crate::access::{Access, Piece, canonical};
use crate::atc::Hit;
use crate::device::Device;
use crate::device::resolve::View;
use crate::fast::recent::Recent;
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
            let more = self.extend_by_pages(view, nth, address, end, piece.access, run, pin);
            if more != 0 {
                address = end.min(address + u64::from(more) * PAGE_SIZE);
                hits += more;
                continue;
            }
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

    /// Extends the run by the pages from an address on that have entries of their own, and returns
    /// their number.
    #[expect(clippy::too_many_arguments, reason = "inlined into its only caller")]
    #[inline(always)]
    fn extend_by_pages(
        &mut self,
        view: &mut View,
        nth: usize,
        address: u64,
        end: u64,
        access: Access,
        run: &mut Run,
        pin: &mut Pin,
    ) -> u32 {
        let (mut pages, mut last) = (0, None);
        if self.mutant.is_none() {
            self.atc
                .lookup_pages(view.space, address, end, access, |hit| {
                    let length = (end - hit.first).min(PAGE_SIZE);
                    run.extend(hit, &view.untranslated, hit.first, length as usize);
                    pages += 1;
                    last = Some(*hit);
                });
        }
        if let Some(hit) = last {
            pin.extend(&hit);
            view.recent[nth] = Recent::new(hit.first, access, &hit);
        }
        pages
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
