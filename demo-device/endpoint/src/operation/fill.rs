// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filling with a pattern of 8 bytes.

use super::fields::zero;
use super::machine::{Demand, Machine};
use super::stretch::Stretch;
use crate::access::{Access, Failure};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A fill in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pattern: u64,
    destination: Stretch,
}

impl Machine for Fill {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.operand1)?;
        Ok(Fill {
            pattern: d.operand0,
            destination: Stretch::new(d.destination, d.length)?,
        })
    }

    fn demand(&self) -> Demand {
        match self.destination.rest(Access::Write) {
            Some(rest) => Demand::Access(rest, None),
            None => Demand::Done(0),
        }
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [to] = segments else { return Ok(()) };
        let data = &mut scratch.first[..to.len()];
        // The pattern continues where the last action ended.
        let phase = (self.bytes_done() % 8) as u32;
        let pattern = self.pattern.rotate_right(8 * phase).to_le_bytes();
        for word in data.chunks_mut(8) {
            word.copy_from_slice(&pattern[..word.len()]);
        }
        dma.write(to, data)?;
        self.destination.advance(to.len());
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.destination.done()
    }
}
