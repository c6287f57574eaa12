// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing two ranges.

use super::{Demand, Machine, transfer, zero};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A comparison in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compare {
    source: u64,
    destination: u64,
    length: u64,
    /// Bytes that are equal so far.
    done: u64,
    differs: bool,
}

impl Machine for Compare {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.operand0 | d.operand1)?;
        transfer(d.source, d.length)?;
        transfer(d.destination, d.length)?;
        Ok(Compare {
            source: d.source,
            destination: d.destination,
            length: d.length,
            done: 0,
            differs: false,
        })
    }

    fn demand(&self) -> Demand {
        if self.differs || self.done == self.length {
            return Demand::Done(self.done);
        }
        let rest =
            |start: u64| Piece::forward(start + self.done, self.length - self.done, Access::Read);
        Demand::Access(rest(self.source), Some(rest(self.destination)))
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        spans: &[Span],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [one, other] = spans else { return Ok(()) };
        let length = one.len().min(other.len());
        let a = dma.read(&one.head(length), &mut scratch.first)?;
        let b = dma.read(&other.head(length), &mut scratch.second)?;
        let equal = if a == b {
            length
        } else {
            self.differs = true;
            a.iter().zip(b).take_while(|(x, y)| x == y).count()
        };
        self.done += equal as u64;
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.done
    }
}
