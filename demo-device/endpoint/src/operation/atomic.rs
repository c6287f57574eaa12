// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing a number in memory with one atomic access.

use super::fields::{aligned, transfer, zero};
use super::machine::{Demand, Machine};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::{Descriptor, Operation as Code};

/// The change of the number.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Adds the addend.
    Add(u64),
    /// Replaces the number, if it has the expected value.
    Swap { expected: u64, new: u64 },
}

/// An atomic access, before or after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Atomic {
    destination: u64,
    change: Change,
    /// The old value.
    old: Option<u64>,
}

/// Adding to a number.
pub(crate) type FetchAdd = Atomic;
/// Replacing a number, if it has the expected value.
pub(crate) type CompareSwap = Atomic;

impl Machine for Atomic {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.length)?;
        let change = if d.operation == Code::CompareSwap as u8 {
            Change::Swap {
                expected: d.operand0,
                new: d.operand1,
            }
        } else {
            zero(d.operand1)?;
            Change::Add(d.operand0)
        };
        aligned(d.destination)?;
        transfer(d.destination, 8)?;
        Ok(Atomic {
            destination: d.destination,
            change,
            old: None,
        })
    }

    fn demand(&self) -> Demand {
        match self.old {
            Some(old) => Demand::Done(old),
            // Rule 35: an AtomicOp needs the permission to write, even if it writes nothing.
            None => Demand::Access(Piece::forward(self.destination, 8, Access::ReadWrite), None),
        }
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        _: &mut Scratch,
    ) -> Result<(), Failure> {
        let [segment] = segments else { return Ok(()) };
        self.old = Some(match self.change {
            Change::Add(addend) => dma.fetch_add(segment, addend)?,
            Change::Swap { expected, new } => dma.compare_and_swap(segment, expected, new)?,
        });
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        if self.old.is_some() { 8 } else { 0 }
    }
}
