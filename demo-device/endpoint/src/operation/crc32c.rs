// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checksums.

use super::{Demand, Machine, transfer, zero};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A checksum in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc32c {
    source: u64,
    length: u64,
    done: u64,
    checksum: u32,
}

impl Machine for Crc32c {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination | d.operand0 >> 32 | d.operand1)?;
        transfer(d.source, d.length)?;
        Ok(Crc32c {
            source: d.source,
            length: d.length,
            done: 0,
            checksum: d.operand0 as u32,
        })
    }

    fn demand(&self) -> Demand {
        if self.done == self.length {
            return Demand::Done(u64::from(self.checksum));
        }
        let address = self.source + self.done;
        Demand::Access(
            Piece::forward(address, self.length - self.done, Access::Read),
            None,
        )
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        spans: &[Span],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [from] = spans else { return Ok(()) };
        let data = dma.read(from, &mut scratch.first)?;
        self.checksum = ::crc32c::crc32c_append(self.checksum, data);
        self.done += from.len() as u64;
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.done
    }
}
