// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes that one action may access: those of one or two pieces for which translations are
//! known, as segments that are each contiguous in memory. It does not know where translations come
//! from, and knows only that an activity demands pieces and works on segments.

use crate::access::{Failure, Piece};
use crate::activity::Activity;
use crate::atc::Hit;
use crate::dma::{Dma, MAX_CHUNK, Scratch, Segment};
use crate::operation::{Demand, Operation};
use pcie_ats::{MemoryRequest, PAGE_SIZE, RootPort};

/// The largest number of segments of a piece: pages, the first and the last possibly partial.
const MAX_SEGMENTS: usize = MAX_CHUNK / PAGE_SIZE as usize + 1;

/// Bytes of a piece from its focus on.
#[derive(Debug)]
pub(crate) struct Run {
    /// The segments, in order.
    segments: Vec<Segment>,
    /// Their total length in bytes.
    length: u64,
}

impl Run {
    fn new() -> Self {
        Run {
            segments: Vec::with_capacity(MAX_SEGMENTS),
            length: 0,
        }
    }

    /// Restarts with the first segment.
    pub fn begin(&mut self, segment: Segment) {
        self.segments.clear();
        self.length = segment.len() as u64;
        self.segments.push(segment);
    }

    /// Adds the bytes from an address on that an entry of the cache covers. For `untranslated` see
    /// [`Segment::new`].
    #[inline]
    pub fn extend(&mut self, hit: &Hit, untranslated: &MemoryRequest, address: u64, length: usize) {
        self.length += length as u64;
        match self.segments.last_mut() {
            Some(last) if last.precedes(hit) => last.grow(length),
            _ => self
                .segments
                .push(Segment::at(address, hit, untranslated, length)),
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.length
    }
}

/// A position in a run.
#[derive(Clone)]
struct Cursor<'r> {
    segments: &'r [Segment],
    /// Bytes of the first segment before the position.
    done: usize,
}

impl<'r> Cursor<'r> {
    fn new(run: &'r Run) -> Self {
        Cursor {
            segments: &run.segments,
            done: 0,
        }
    }

    /// Bytes to the end of the segment.
    #[inline]
    fn room(&self) -> Option<usize> {
        Some(self.segments.first()?.len() - self.done)
    }

    /// The next `length` bytes, which the segment must contain.
    #[inline]
    fn take(&mut self, length: usize) -> Option<Segment> {
        let segment = self.segments.first()?;
        let part = segment.part(self.done, length);
        self.done += length;
        if self.done == segment.len() {
            self.segments = &self.segments[1..];
            self.done = 0;
        }
        Some(part)
    }
}

/// What an action may access.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Bytes of each piece. Only the first `pieces` count.
    pub of: [Run; 2],
    /// Number of pieces.
    pub pieces: usize,
}

impl Runs {
    /// Nothing yet.
    pub fn new() -> Self {
        Runs {
            of: [Run::new(), Run::new()],
            pieces: 0,
        }
    }

    /// Whether it covers the whole demand.
    pub fn covers(&self, demand: &Demand) -> bool {
        let [one, other] = &self.of;
        match demand {
            Demand::Done(_) => true,
            Demand::Access(first, None) => one.length == first.length,
            Demand::Access(first, Some(second)) => {
                one.length == first.length && other.length == second.length
            }
            _ => false,
        }
    }

    /// Lets an activity work on all of it, until the activity ends or needs something else.
    pub fn perform<P: RootPort + ?Sized>(
        &self,
        activity: &mut Activity,
        dma: &mut Dma<'_, P>,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        if self.pieces == 0 {
            return Ok(());
        }
        let [first, second] = &self.of;
        if self.pieces == 1 {
            let mut one = Cursor::new(first);
            while let Some(segment) = one.room().and_then(|room| one.take(room)) {
                if !demands(activity, &segment, None) {
                    break;
                }
                activity.perform(dma, &[segment], scratch)?;
            }
            return Ok(());
        }
        if let ([from], [to]) = (&*first.segments, &*second.segments) {
            // Backward pieces have one segment, which the activity processes alone.
            return activity.perform(dma, &[*from, *to], scratch);
        }
        let pairs = Pairs {
            one: Cursor::new(first),
            other: Cursor::new(second),
        };
        let begins = |[from, to]: [Segment; 2]| demands(activity, &from, Some(&to));
        if pairs.clone().next().is_some_and(begins)
            && let Activity::Operate(Operation::Copy(copy)) = activity
        {
            return copy.perform_all(dma, pairs, scratch);
        }
        for [from, to] in pairs {
            if !demands(activity, &from, Some(&to)) {
                break;
            }
            activity.perform(dma, &[from, to], scratch)?;
        }
        Ok(())
    }
}

/// Two runs side by side: segments of the same length.
#[derive(Clone)]
struct Pairs<'r> {
    one: Cursor<'r>,
    other: Cursor<'r>,
}

impl Iterator for Pairs<'_> {
    type Item = [Segment; 2];

    #[inline]
    fn next(&mut self) -> Option<[Segment; 2]> {
        let length = self.one.room()?.min(self.other.room()?);
        Some([self.one.take(length)?, self.other.take(length)?])
    }
}

/// Whether the segments are what an activity needs next. It may have ended early, or need something
/// else now.
fn demands(activity: &Activity, one: &Segment, other: Option<&Segment>) -> bool {
    let begins = |piece: &Piece, segment: &Segment| {
        piece.length >= segment.len() as u64
            && (piece.address == segment.address() || piece.backward)
    };
    match (activity.demand(), other) {
        (Demand::Access(first, None), None) => begins(&first, one),
        (Demand::Access(first, Some(second)), Some(other)) => {
            begins(&first, one) && begins(&second, other)
        }
        _ => false,
    }
}
