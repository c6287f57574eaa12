// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying, also between ranges that overlap.

use super::fields::{transfer, zero};
use super::machine::{Demand, Machine};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A copy in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    source: u64,
    destination: u64,
    length: u64,
    done: u64,
    /// Copies from the last byte down, because the destination begins inside the source. The bytes
    /// done are then the last ones.
    backward: bool,
}

impl Copy {
    /// What is left of one of the ranges.
    fn rest(&self, start: u64, access: Access) -> Piece {
        let from = if self.backward {
            start
        } else {
            start + self.done
        };
        Piece {
            backward: self.backward,
            ..Piece::forward(from, self.length - self.done, access)
        }
    }
}

impl Copy {
    /// Works on contiguous segments upwards: like [`Machine::perform`] with each pair, without
    /// checking the demand in between, which is always the next pair.
    pub fn perform_all<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        pairs: impl Iterator<Item = [Segment; 2]> + Clone,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        debug_assert!(!self.backward);
        let before = dma.written;
        let result = dma.copy_all(pairs, scratch);
        self.done += dma.written - before;
        result
    }
}

impl Machine for Copy {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.operand0 | d.operand1)?;
        transfer(d.source, d.length)?;
        transfer(d.destination, d.length)?;
        Ok(Copy {
            source: d.source,
            destination: d.destination,
            length: d.length,
            done: 0,
            backward: d.source < d.destination && d.destination < d.source + d.length,
        })
    }

    fn demand(&self) -> Demand {
        if self.done == self.length {
            return Demand::Done(0);
        }
        Demand::Access(
            self.rest(self.source, Access::Read),
            Some(self.rest(self.destination, Access::Write)),
        )
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [from, to] = segments else { return Ok(()) };
        if from.len() == to.len() {
            // Mostly: no parts of segments are made.
            dma.copy(from, to, &mut scratch.first)?;
            self.done += from.len() as u64;
            return Ok(());
        }
        let length = from.len().min(to.len());
        let part = if self.backward {
            Segment::tail
        } else {
            Segment::head
        };
        dma.copy(&part(from, length), &part(to, length), &mut scratch.first)?;
        self.done += length as u64;
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.done
    }
}
