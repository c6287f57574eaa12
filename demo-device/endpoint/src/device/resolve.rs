// SPDX-License-Identifier: MIT OR Apache-2.0
//! From what a context wants to reach to the job of an action: which translations it uses.

use super::Device;
use crate::access::{Access, Failure, Piece, canonical};
use crate::atc::{Hit, Space};
use crate::counters::index;
use crate::dma::{MAX_CHUNK, Segment};
use crate::fast::recent::{NONE, Recent};
use crate::fast::runs::Run;
use crate::flight::Pin;
use crate::job::Job;
use crate::mutant::Mutant;
use crate::turn::{Action, Buffers, SHARED_BUDGET};
use pcie_ats::{MemoryRequest, Pasid};
use svm_abi::completion::Error;

/// How the accesses of a context are made.
pub(crate) struct View {
    pub pasid: Option<Pasid>,
    pub space: Space,
    /// The permit for untranslated requests.
    pub untranslated: MemoryRequest,
    /// The most bytes of an access.
    pub most: u64,
    /// The last hit for each of the two pieces of an operation, and for records. What follows is
    /// often in the same entry, and nothing leaves the cache while this lives.
    pub recent: [Recent; 3],
}

/// The part of [`View::recent`] for records.
pub(crate) const RECORDS: usize = 2;

/// What stands in the way of an access.
pub(crate) enum Obstacle {
    /// There is no translation for the focus of the piece.
    Missing(Piece),
    /// No process can own the focus of the piece.
    NotOwned(Piece),
}

impl Device {
    /// Finds the translations of an access, or asks for the one that is missing; and of what comes
    /// behind it, as far as the cache has all of it and the budget of bytes lasts. An error says
    /// that the activity has ended.
    pub(super) fn resolve(
        &mut self,
        member: usize,
        first: Piece,
        second: Option<Piece>,
        buffers: &mut Buffers,
        budget: u64,
    ) -> Result<(), ()> {
        let context = &self.contexts[member];
        let Some(pasid) = context.space() else {
            return Err(());
        };
        let activity = context.activity;
        let privileged = context.privileged();
        let mut view = View {
            recent: [NONE; 3],
            most: match budget > SHARED_BUDGET {
                true => MAX_CHUNK as u64,
                false => SHARED_BUDGET,
            },
            pasid,
            space: self.space_of(pasid, privileged),
            untranslated: MemoryRequest {
                privileged,
                ..MemoryRequest::untranslated(0, pasid)
            },
        };
        let time = self.atc.tick();
        let jobs = &mut buffers.jobs;
        jobs.clear();
        let Some((job, pins)) = jobs.next() else {
            return Err(());
        };
        job.begin(activity);
        let found = self.look_up(&mut view, &first, second.as_ref(), job, pins);
        match found {
            Ok(hits) => {
                let longest = job.longest();
                jobs.add();
                // A look-up that is repeated after its translation request is not a hit.
                let hits = hits.saturating_sub(self.contexts[member].misses);
                let more = self.plan(member, &mut view, jobs, budget.saturating_sub(longest));
                self.count(member, index::ATC_HITS, u64::from(hits + more));
                self.flights.access(member, pasid, &jobs.pins);
                buffers.action = Action::Access {
                    read: 0,
                    written: 0,
                };
            }
            Err(Obstacle::NotOwned(piece)) => {
                self.fail(member, &Failure::at(Error::BadAddress, &piece));
                return Err(());
            }
            Err(Obstacle::Missing(piece)) => {
                self.contexts[member].misses += 1;
                self.count(member, index::ATC_MISSES, 1);
                buffers.action = self.request(member, pasid, piece, false, Some(time))?;
                if let Action::Translate { request, .. } = &buffers.action {
                    let other = if piece == first { second } else { None };
                    let pieces = [Some(piece), other];
                    self.predict(
                        member,
                        &view,
                        request,
                        pieces,
                        &mut buffers.read_ahead,
                        budget,
                    );
                }
            }
        }
        Ok(())
    }

    /// Finds the translations of pieces. Returns the number of look-ups that hit.
    #[inline]
    pub(crate) fn look_up(
        &mut self,
        view: &mut View,
        first: &Piece,
        second: Option<&Piece>,
        job: &mut Job,
        pins: &mut Vec<Pin>,
    ) -> Result<u32, Obstacle> {
        let pinned = pins.len();
        let runs = &mut job.runs;
        let [one, other] = &mut runs.of;
        // What comes next must be there of each piece before more of any is looked at: in a small
        // cache it would drive out the other's.
        pins.push(self.find(view, 0, first, one)?);
        runs.pieces = 1;
        if let Some(second) = second {
            pins.push(self.find(view, 1, second, other)?);
            runs.pieces = 2;
        }
        let mut hits = runs.pieces as u32;
        let mut most = first.length.min(view.most);
        if one.len() < most {
            hits += self.extend(view, 0, first, most, one, &mut pins[pinned]);
        }
        // The second piece is of use as far as the first one goes.
        if let Some(second) = second {
            most = second.length.min(one.len());
            if other.len() < most {
                hits += self.extend(view, 1, second, most, other, &mut pins[pinned + 1]);
            }
        }
        Ok(hits)
    }

    /// Looks an address up, first where the last one was found.
    #[inline]
    pub(crate) fn hit(
        &mut self,
        view: &mut View,
        nth: usize,
        address: u64,
        access: Access,
    ) -> Option<Hit> {
        if self.mutant.is_some() {
            return self.hit_wrongly(view, address, access);
        }
        if let Some(hit) = view.recent[nth].at(address, access) {
            return Some(hit);
        }
        let hit = self.atc.lookup(view.space, address, access)?;
        view.recent[nth] = Recent::new(address, access, &hit);
        Some(hit)
    }

    /// The same, in a device that breaks a rule.
    #[cold]
    fn hit_wrongly(&mut self, view: &View, address: u64, access: Access) -> Option<Hit> {
        let access = match self.mutant {
            Some(Mutant::Rule35) if access == Access::ReadWrite => Access::Read,
            _ => access,
        };
        let mut hit = self.atc.lookup(view.space, address, access)?;
        match self.mutant {
            Some(Mutant::Rule11) => hit.untranslated_only = true,
            Some(Mutant::Rule22) => hit.untranslated_only = false,
            Some(Mutant::Rule29) => hit.last = u64::MAX,
            Some(Mutant::Rule34) => hit.output &= !7,
            _ => {}
        }
        Some(hit)
    }

    /// Where the bytes of a piece are by what a look-up found, up to a limit.
    #[inline]
    pub(crate) fn segment(&self, view: &View, piece: &Piece, hit: &Hit, limit: u64) -> Segment {
        let segment = Segment::new(piece, hit, &view.untranslated, limit);
        match (self.mutant, view.pasid) {
            (Some(Mutant::Rule30), Some(pasid)) => segment.with_pasid(pasid),
            _ => segment,
        }
    }

    /// Finds the translation of the focus of a piece, and begins a run with what it covers.
    #[inline]
    fn find(
        &mut self,
        view: &mut View,
        nth: usize,
        piece: &Piece,
        run: &mut Run,
    ) -> Result<Pin, Obstacle> {
        let focus = piece.focus();
        if !canonical(focus, self.config.address_bits) && !self.breaks(Mutant::Rule62) {
            return Err(Obstacle::NotOwned(*piece));
        }
        let Some(hit) = self.hit(view, nth, focus, piece.access) else {
            return Err(Obstacle::Missing(*piece));
        };
        run.begin(self.segment(view, piece, &hit, view.most));
        Ok(Pin::new(&hit))
    }
}
