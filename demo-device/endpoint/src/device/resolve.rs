// SPDX-License-Identifier: MIT OR Apache-2.0
//! From what a context wants to reach to the jobs of an action: which translations they use, and
//! what is done behind the first one without another look at the device's state.

use super::Device;
use crate::access::{Access, Failure, Piece, canonical};
use crate::atc::{Hit, Space};
use crate::completion::Record;
use crate::context::{Activity, RecordPlace, Tail};
use crate::counters::index;
use crate::dma::{MAX_CHUNK, Span};
use crate::fast::runs::Run;
use crate::flight::Pin;
use crate::job::{Ending, Job, Jobs};
use crate::mutant::Mutant;
use crate::operation::{Demand, Operation};
use crate::turn::{Action, Buffers};
use pcie_ats::{MemoryRequest, Pasid};
use svm_abi::completion::Error;

/// How the accesses of a context are made.
pub(crate) struct View {
    pub pasid: Option<Pasid>,
    pub space: Space,
    /// The permit for untranslated requests.
    pub untranslated: MemoryRequest,
    /// The last hit for each of the two pieces of an operation, and for records. What follows is
    /// often in the same entry, and nothing leaves the cache while this lives.
    recent: [Recent; 3],
}

/// The part of [`View::recent`] for records.
const RECORDS: usize = 2;

/// A hit for an access.
#[derive(Clone, Copy)]
struct Recent {
    access: Access,
    hit: Hit,
}

/// None yet: its range is empty.
const NONE: Recent = Recent {
    access: Access::ReadWrite,
    hit: Hit {
        first: 1,
        last: 0,
        output: 0,
        untranslated_only: false,
    },
};

impl Recent {
    /// The hit for an address, if it is this one.
    #[inline]
    fn at(&self, address: u64, access: Access) -> Option<Hit> {
        let hit = &self.hit;
        let within = hit.first <= address && address <= hit.last && self.access == access;
        within.then(|| Hit {
            output: hit.output + (address - hit.first),
            ..*hit
        })
    }

    /// What to remember of the hit at an address.
    #[inline]
    fn new(address: u64, access: Access, found: &Hit) -> Self {
        let hit = Hit {
            output: found.output - (address - found.first),
            ..*found
        };
        Recent { access, hit }
    }
}

/// What stands in the way of an access.
enum Obstacle {
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
                    self.look_ahead(member, &view, request, pieces, &mut buffers.ahead, budget);
                }
            }
        }
        Ok(())
    }

    /// Adds to the first job what comes behind it: its record if it ends its descriptor, and the
    /// descriptors that follow with theirs. Stops where anything is missing, and looks at nothing
    /// twice. Returns the number of look-ups that hit.
    fn plan(&mut self, member: usize, view: &mut View, jobs: &mut Jobs, budget: u64) -> u32 {
        let (mut hits, mut budget) = (0, budget);
        let context = &self.contexts[member];
        let [job] = jobs.list() else { return 0 };
        match &job.activity {
            // A fence could come behind a failure.
            Activity::Complete(_) if !context.has_failed() => {}
            Activity::Operate(operation)
                if operation.ends() && job.reach.covers(&operation.demand()) =>
            {
                let Some(more) = self.end(view, context.tail(), jobs) else {
                    return 0;
                };
                hits += more;
            }
            _ => return 0,
        }
        let mut interrupt = self.contexts[member].tail().interrupt;
        let mut skip = 0;
        while !interrupt && budget > 0 {
            let Some(descriptor) = self.contexts[member].following(skip) else {
                break;
            };
            let Some((job, pins)) = jobs.next() else {
                break;
            };
            let Ok(operation) = Operation::start(descriptor) else {
                break;
            };
            let tail = Tail::of(descriptor);
            let (demand, ends) = (operation.demand(), operation.ends());
            job.begin(Activity::Operate(operation));
            let pinned = pins.len();
            let found = match &demand {
                Demand::Done(_) => Ok(0),
                Demand::Access(first, second) if ends => {
                    self.look_up(view, first, second.as_ref(), job, pins)
                }
                _ => break,
            };
            let covered = job.reach.covers(&demand);
            let cost = job.longest();
            let (Ok(found), true) = (found, covered) else {
                pins.truncate(pinned);
                break;
            };
            jobs.add();
            let Some(ended) = self.end(view, tail, jobs) else {
                jobs.drop_last(pinned);
                break;
            };
            hits += found + ended;
            budget = budget.saturating_sub(cost);
            interrupt = tail.interrupt;
            skip += 1;
        }
        hits
    }

    /// Lets the last job end with its descriptor's record. Returns the number of look-ups that
    /// hit; none if that cannot be.
    fn end(&mut self, view: &mut View, tail: Tail, jobs: &mut Jobs) -> Option<u32> {
        let piece = match RecordPlace::of(tail.completion) {
            RecordPlace::Bad => return None,
            RecordPlace::None => {
                jobs.end(Ending::Silent);
                return Some(0);
            }
            RecordPlace::Good => Record::piece(tail.completion),
        };
        if !canonical(piece.address, self.config.address_bits) {
            return None;
        }
        let hit = self.hit(view, RECORDS, piece.address, piece.access)?;
        let span = self.span(view, &piece, &hit, piece.length);
        jobs.pins.push(Pin::new(&hit));
        jobs.end(Ending::Record(span));
        Some(1)
    }

    /// Finds the translations of pieces. Returns the number of look-ups that hit.
    #[inline]
    fn look_up(
        &mut self,
        view: &mut View,
        first: &Piece,
        second: Option<&Piece>,
        job: &mut Job,
        pins: &mut Vec<Pin>,
    ) -> Result<u32, Obstacle> {
        let pinned = pins.len();
        let reach = &mut job.reach;
        let [one, other] = &mut reach.runs;
        // What comes next must be there of each piece before more of any is looked at: in a small
        // cache it would drive out the other's.
        pins.push(self.find(view, 0, first, one)?);
        reach.pieces = 1;
        if let Some(second) = second {
            pins.push(self.find(view, 1, second, other)?);
            reach.pieces = 2;
        }
        let mut hits = reach.pieces as u32;
        let mut most = first.length.min(MAX_CHUNK as u64);
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
    fn hit(&mut self, view: &mut View, nth: usize, address: u64, access: Access) -> Option<Hit> {
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
    fn span(&self, view: &View, piece: &Piece, hit: &Hit, limit: u64) -> Span {
        let span = Span::new(piece, hit, &view.untranslated, limit);
        match (self.mutant, view.pasid) {
            (Some(Mutant::Rule30), Some(pasid)) => span.with_pasid(pasid),
            _ => span,
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
        run.begin(self.span(view, piece, &hit, piece.length));
        Ok(Pin::new(&hit))
    }

    /// Goes on with the first `most` bytes of a piece, as far as translations are at hand, and
    /// returns how many there were.
    fn extend(
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
