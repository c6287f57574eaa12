// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing two ranges.

use super::fields::zero;
use super::machine::{Demand, Machine};
use super::stretch::Stretch;
use crate::access::{Access, Failure};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A comparison in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compare {
    /// The bytes done are equal in both.
    source: Stretch,
    destination: Stretch,
    differs: bool,
}

impl Machine for Compare {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.operand0 | d.operand1)?;
        Ok(Compare {
            source: Stretch::new(d.source, d.length)?,
            destination: Stretch::new(d.destination, d.length)?,
            differs: false,
        })
    }

    fn demand(&self) -> Demand {
        match self.source.rest(Access::Read) {
            Some(rest) if !self.differs => {
                Demand::Access(rest, self.destination.rest(Access::Read))
            }
            _ => Demand::Done(self.bytes_done()),
        }
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [one, other] = segments else {
            return Ok(());
        };
        let length = one.len().min(other.len());
        let a = dma.read(&one.head(length), &mut scratch.first)?;
        let b = dma.read(&other.head(length), &mut scratch.second)?;
        let equal = if a == b {
            length
        } else {
            self.differs = true;
            a.iter().zip(b).take_while(|(x, y)| x == y).count()
        };
        self.source.advance(equal);
        self.destination.advance(equal);
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.source.done()
    }
}
