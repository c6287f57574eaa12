// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filling with a pattern of 8 bytes.

use super::{Demand, Machine, transfer, zero};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A fill in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pattern: u64,
    destination: u64,
    length: u64,
    done: u64,
}

impl Machine for Fill {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.operand1)?;
        transfer(d.destination, d.length)?;
        Ok(Fill {
            pattern: d.operand0,
            destination: d.destination,
            length: d.length,
            done: 0,
        })
    }

    fn demand(&self) -> Demand {
        if self.done == self.length {
            return Demand::Done(0);
        }
        let address = self.destination + self.done;
        Demand::Access(
            Piece::forward(address, self.length - self.done, Access::Write),
            None,
        )
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        spans: &[Span],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [to] = spans else { return Ok(()) };
        let data = &mut scratch.first[..to.len()];
        // The pattern goes on where the last action left it.
        let phase = (self.done % 8) as u32;
        let pattern = self.pattern.rotate_right(8 * phase).to_le_bytes();
        for word in data.chunks_mut(8) {
            word.copy_from_slice(&pattern[..word.len()]);
        }
        dma.write(to, data)?;
        self.done += to.len() as u64;
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.done
    }
}
