// SPDX-License-Identifier: MIT OR Apache-2.0
//! How an access goes on behind what its first translation covers.

use crate::access::{Piece, canonical};
use crate::device::Device;
use crate::device::resolve::View;
use crate::fast::runs::Run;
use crate::flight::Pin;
use crate::mutant::Mutant;

impl Device {
    /// Goes on with the first `most` bytes of a piece, as far as translations are at hand, and
    /// returns how many there were.
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
            let length = (hit.last - address).saturating_add(1).min(end - address);
            run.extend(&hit, &view.untranslated, address, length as usize);
            if !self.breaks(Mutant::Extend38) {
                pin.extend(&hit);
            }
            address += length;
            hits += 1;
        }
        hits
    }
}
