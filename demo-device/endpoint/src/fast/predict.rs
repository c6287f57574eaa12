// SPDX-License-Identifier: MIT OR Apache-2.0
//! Predicts the translations that a context will need after the one that is missing now.

use crate::access::{Piece, canonical};
use crate::activity::Activity;
use crate::ats_messages;
use crate::device::Device;
use crate::device::resolve::View;
use crate::dma::MAX_CHUNK;
use crate::fast::read_ahead::{MAX_AHEAD, ReadAhead};
use crate::job::ACCESS;
use crate::operation::{Demand, Operation};
use pcie_ats::{MAX_TRANSLATIONS, PAGE_SHIFT, TranslationRequest};

/// The part of the cache that requests ahead may fill (1/4).
const SHARE: u32 = 4;

impl Device {
    /// Lists the requests that may follow the `wanted` one for the first of these pieces: for the
    /// rest of that piece, for the second piece, which the activity also demands and which was not
    /// looked up yet, and for the following descriptors, within a budget of bytes.
    pub(crate) fn predict(
        &mut self,
        member: usize,
        view: &View,
        wanted: &TranslationRequest,
        pieces: [Option<Piece>; 2],
        ahead: &mut ReadAhead,
        budget: u64,
    ) {
        ahead.begin(wanted);
        let share = self.config.atc_entries / SHARE / MAX_TRANSLATIONS as u32;
        let most = MAX_AHEAD.min(share as usize);
        if most == 0 {
            return;
        }
        let length = u64::from(wanted.pages) << (PAGE_SHIFT + self.space.ats.stu);
        let behind = wanted.address.checked_add(length);
        let [first, second] = pieces;
        if let (Some(piece), Some(behind)) = (first, behind) {
            self.predict_piece(view, &piece, behind, most, ahead);
        }
        if let Some(piece) = second {
            self.predict_piece(view, &piece, piece.address, most, ahead);
        }
        let longest = pieces.iter().flatten().map(|piece| piece.length).max();
        let mut budget = budget.saturating_sub(ACCESS + longest.unwrap_or(0));
        let mut skip = 0;
        while budget > 0 && ahead.len() < most {
            let descriptor = self.contexts[member].following(skip);
            let mut activity = Activity::Idle;
            let Some(Ok(())) = descriptor.map(|next| Operation::start(next, &mut activity)) else {
                return;
            };
            if let Demand::Access(first, second) = activity.demand() {
                for piece in [Some(first), second].iter().flatten() {
                    self.predict_piece(view, piece, piece.address, most, ahead);
                }
                budget = budget.saturating_sub(ACCESS + first.length);
            } else {
                budget = budget.saturating_sub(ACCESS);
            }
            skip += 1;
        }
    }

    /// Lists requests for the missing translations of a piece from an address on, as far as an
    /// action can reach.
    fn predict_piece(
        &mut self,
        view: &View,
        piece: &Piece,
        from: u64,
        most: usize,
        ahead: &mut ReadAhead,
    ) {
        let last = piece.address + (piece.length.min(MAX_CHUNK as u64) - 1);
        let (bits, stu) = (self.config.address_bits, self.space.ats.stu);
        let mut address = from;
        while !piece.backward && address <= last && ahead.len() < most && canonical(address, bits) {
            if let Some(hit) = self.atc.lookup(view.space, address, piece.access) {
                match hit.last.checked_add(1) {
                    Some(next) => address = next,
                    None => return,
                }
                continue;
            }
            if let Some(next) = ahead.asked(address, piece.access.writes(), stu) {
                address = next;
                continue;
            }
            let rest = Piece::forward(address, last - address + 1, piece.access);
            let request =
                ats_messages::request(&rest, view.pasid, view.untranslated.privileged, stu);
            let length = u64::from(request.pages) << (PAGE_SHIFT + stu);
            ahead.push(self.as_mutant_asks(request));
            match request.address.checked_add(length) {
                Some(next) => address = next,
                None => return,
            }
        }
    }
}
