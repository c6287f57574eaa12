// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the memory that a context wants to access to the job of an action: finds the translations.

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

/// The attributes of a context's accesses.
pub(crate) struct View {
    pub pasid: Option<Pasid>,
    pub space: Space,
    /// The template of untranslated requests.
    pub untranslated: MemoryRequest,
    /// The largest number of bytes of an access.
    pub most: u64,
    /// The last hit for each of the two pieces of an operation, and for records. The next address
    /// is often in the same entry, and nothing leaves the cache while this exists.
    pub recent: [Recent; 3],
}

/// The part of [`View::recent`] for records.
pub(crate) const RECORDS: usize = 2;

/// What prevents an access.
pub(crate) enum Obstacle {
    /// There is no translation for the focus of the piece.
    Missing(Piece),
    /// No process can own the address of the focus.
    NotOwned(Piece),
}

impl Device {
    /// Finds the translations of an access, or requests the missing one. Also finds those of the
    /// following work, as far as the cache has all of them and the budget of bytes lasts. An error
    /// means that the activity has ended.
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
        let privileged = context.privileged();
        let mut view = View {
            recent: [NONE, NONE, NONE],
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
        job.restart();
        let found = self.look_up(&mut view, &first, second.as_ref(), job, pins);
        // Not before: it may just have been written, see [`Operation::start`].
        job.activity = self.contexts[member].activity;
        match found {
            Ok(hits) => {
                let longest = job.longest();
                jobs.add();
                // A look-up that repeats after its translation request does not count as a hit.
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
        // Find the next translation of each piece before looking up more of either: in a small
        // cache, more of one could evict that of the other.
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
        // The second piece is useful only up to the length of the first.
        if let Some(second) = second {
            most = second.length.min(one.len());
            if other.len() < most {
                hits += self.extend(view, 1, second, most, other, &mut pins[pinned + 1]);
            }
        }
        Ok(hits)
    }

    /// Looks an address up, first in the entry of the last hit.
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

    /// The same for a device that breaks a rule.
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

    /// The segment of a piece for the result of a look-up, up to a limit.
    #[inline]
    pub(crate) fn segment(&self, view: &View, piece: &Piece, hit: &Hit, limit: u64) -> Segment {
        let segment = Segment::new(piece, hit, &view.untranslated, limit);
        match (self.mutant, view.pasid) {
            (Some(Mutant::Rule30), Some(pasid)) => segment.with_pasid(pasid),
            _ => segment,
        }
    }

    /// Finds the translation of the focus of a piece, and begins a run with the bytes that it
    /// covers.
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
