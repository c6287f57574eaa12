// SPDX-License-Identifier: MIT OR Apache-2.0
//! An operation, as the engine sees it: a machine that returns what it needs next.

use crate::access::{Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// What a machine needs to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing: it is done, with this result.
    Done(u64),
    /// Nothing: it has failed.
    Failed(Failure),
    /// One or two pieces of memory; it works on the part that is accessible.
    Access(Piece, Option<Piece>),
    /// The translation agent's answer for a piece, and for its execution if that is requested, in
    /// the format of [`svm_abi::descriptor::translation`]: see [`Machine::answer`].
    Translate(Piece, bool),
    /// Removal of the addresses from the first to the last from the cache; the answer is the number
    /// of entries: see [`Machine::answer`].
    Forget(u64, u64),
}

/// A resumable operation.
pub(crate) trait Machine: Sized {
    /// Checks the fields of a descriptor, and begins.
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

    /// Receives the answer to a demand other than memory.
    fn answer(&mut self, _answer: u64) {}

    /// Whether it will have ended after it has worked on all that it demands now.
    fn ends(&self) -> bool {
        true
    }

    /// The bytes done, for the completion record.
    fn bytes_done(&self) -> u64 {
        0
    }
}
