// SPDX-License-Identifier: MIT OR Apache-2.0
//! An operation, as the engine sees it: a machine that says what it needs next.

use crate::access::{Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// What a machine needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing: it is done, with this result.
    Done(u64),
    /// Nothing: it has failed.
    Failed(Failure),
    /// One or two pieces of memory, of which it will work on what can be had.
    Access(Piece, Option<Piece>),
    /// What the translation agent says of a piece, and of its execution if that is asked, in the
    /// words of [`svm_abi::descriptor::translation`]: see [`Machine::answer`].
    Translate(Piece, bool),
    /// That the cache forgets the addresses from the first to the last, and says how many entries
    /// these were: see [`Machine::answer`].
    Forget(u64, u64),
}

/// A resumable operation.
pub(crate) trait Machine: Sized {
    /// Judges the fields of a descriptor, and begins.
    fn start(descriptor: &Descriptor) -> Result<Self, Failure>;

    /// What is needed next.
    fn demand(&self) -> Demand;

    /// Works on the segments of the pieces demanded last, each at least one byte.
    fn perform<P: RootPort + ?Sized>(
        &mut self,
        _dma: &mut Dma<'_, P>,
        _spans: &[Segment],
        _scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes the answer to a demand that is not of memory.
    fn answer(&mut self, _answer: u64) {}

    /// Whether it will have ended when it has worked on all that it demands now.
    fn ends(&self) -> bool {
        true
    }

    /// What the completion record says was done.
    fn bytes_done(&self) -> u64 {
        0
    }
}
