// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests for the pages that an access will reach after the group that it waits for. A round
//! of request and response takes as long as about a hundred page faults of the system itself. So a
//! round requests all pages that are likely to be absent.
//!
//! A context also waits for the responses to these groups; otherwise it would reach their pages
//! before they are present. The codes of these responses do not matter: if a page is still absent
//! when the access reaches it, the context requests it again, and then waits for it.

use crate::access::{Piece, canonical};
use crate::context::Stall;
use crate::device::Device;
use crate::device::page_requests::MAX_GROUP;
use crate::mutant::Mutant;
use crate::turn::Action;
use pcie_ats::PAGE_SHIFT;

/// Pages ahead use at most this fraction of the allocation (1/4): the rest is for pages that are
/// needed now.
const SHARE: u32 = 4;
/// They also leave at least this many credits to others.
const KEPT: u32 = 4 * MAX_GROUP as u32;

impl Device {
    /// Decides which pages to request ahead after a context has sent a group for a piece. Only if
    /// all pages of a full group are absent, the following ones are likely to be absent, too.
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

    /// The next group ahead of a waiting context, if there is one.
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

    /// A group ahead of a context's access has its response, or will never have one.
    pub(crate) fn ahead_ended(&mut self, member: usize) {
        let context = &mut self.contexts[member];
        context.ahead.ended();
        if let (0, Stall::Waits { prgi: None, .. }) = (context.ahead.groups(), context.stall) {
            context.stall = Stall::None;
            self.ready.insert(member);
        }
    }
}
