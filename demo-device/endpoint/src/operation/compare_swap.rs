// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replacing a number in memory, if it is the expected one, with one atomic access.

use super::{Demand, Machine, aligned, transfer, zero};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A replacement, before or after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompareSwap {
    destination: u64,
    expected: u64,
    new: u64,
    /// What the number was.
    old: Option<u64>,
}

impl Machine for CompareSwap {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.length)?;
        aligned(d.destination)?;
        transfer(d.destination, 8)?;
        Ok(CompareSwap {
            destination: d.destination,
            expected: d.operand0,
            new: d.operand1,
            old: None,
        })
    }

    fn demand(&self) -> Demand {
        match self.old {
            Some(old) => Demand::Done(old),
            // Rule 35: an AtomicOp needs the permission to write, also where it writes nothing.
            None => Demand::Access(Piece::forward(self.destination, 8, Access::ReadWrite), None),
        }
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        spans: &[Span],
        _: &mut Scratch,
    ) -> Result<(), Failure> {
        let [span] = spans else { return Ok(()) };
        self.old = Some(dma.compare_and_swap(span, self.expected, self.new)?);
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        if self.old.is_some() { 8 } else { 0 }
    }
}
