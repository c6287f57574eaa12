// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests for what an access will reach behind the group that it waits for. A round of
//! request and response takes a system as long as some hundred page faults of its own; so a round
//! brings as many pages as are likely to be absent.
//!
//! A context waits for the responses to these groups as well, or it would come to their pages
//! before they are there. What the responses say is of no account: a page that is still absent when
//! it is reached is requested again, and then waited for.

use crate::access::{Piece, canonical};
use crate::context::Stall;
use crate::device::Device;
use crate::device::page_requests::MAX_GROUP;
use crate::mutant::Mutant;
use crate::turn::Action;
use pcie_ats::PAGE_SHIFT;

/// Pages ahead fill at most one part of so many of the allocation: the rest is for what is needed
/// now.
const SHARE: u32 = 4;
/// And they leave as many credits as this to others.
const KEPT: u32 = 4 * MAX_GROUP as u32;

impl Device {
    /// A context has sent a group of a number of pages for a piece: decides what goes with it. Only
    /// where all pages of a full group are absent, those behind are likely to be, too.
    pub(crate) fn begin_ahead(&mut self, member: usize, piece: &Piece, pages: u32) {
        let full = u64::from(pages) == MAX_GROUP;
        let owned = canonical(piece.last(), self.config.address_bits);
        let ahead = &mut self.contexts[member].ahead;
        if full && owned && !piece.backward {
            ahead.begin(
                piece.focus() >> PAGE_SHIFT,
                pages,
                piece.last() >> PAGE_SHIFT,
            );
        } else {
            ahead.stop();
        }
    }

    /// The next group ahead of a context that waits for one, if one follows.
    pub(crate) fn request_pages_ahead(&mut self, member: usize) -> Option<Action> {
        let context = &self.contexts[member];
        let Stall::Waits { piece, .. } = context.stall else {
            return None;
        };
        let left = context.ahead.left();
        if left == 0 {
            return None;
        }
        let pasid = context.pasid().filter(|_| self.pri_accepts())?;
        let share = self.space.pri.allocation / SHARE;
        let room = match self.mutant {
            Some(Mutant::Ahead58) => u32::MAX,
            _ => share
                .saturating_sub(self.groups.outstanding())
                .min(self.credits(member).saturating_sub(KEPT)),
        };
        let pages = left.min(room).min(MAX_GROUP as u32);
        let address = context.ahead.next() << PAGE_SHIFT;
        let (_, action) = self.open_group(member, pasid, &piece, address, pages)?;
        self.contexts[member].ahead.sent(pages);
        Some(action)
    }

    /// A group ahead of a context's access was answered, or will not be.
    pub(crate) fn ahead_ended(&mut self, member: usize) {
        let context = &mut self.contexts[member];
        context.ahead.ended();
        if let (0, Stall::Waits { prgi: None, .. }) = (context.ahead.groups(), context.stall) {
            context.stall = Stall::None;
            self.ready.insert(member);
        }
    }
}
