// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adding to a number in memory with one atomic access.

use super::{Demand, Machine, aligned, transfer, zero};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// An addition, before or after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchAdd {
    destination: u64,
    addend: u64,
    /// What the number was.
    old: Option<u64>,
}

impl Machine for FetchAdd {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.length | d.operand1)?;
        aligned(d.destination)?;
        transfer(d.destination, 8)?;
        Ok(FetchAdd {
            destination: d.destination,
            addend: d.operand0,
            old: None,
        })
    }

    fn demand(&self) -> Demand {
        match self.old {
            Some(old) => Demand::Done(old),
            // Rule 35: an AtomicOp needs the permission to write.
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
        self.old = Some(dma.fetch_add(span, self.addend)?);
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        if self.old.is_some() { 8 } else { 0 }
    }
}
