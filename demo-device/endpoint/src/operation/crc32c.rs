// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checksums.

use super::fields::zero;
use super::machine::{Demand, Machine};
use super::stretch::Stretch;
use crate::access::{Access, Failure};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A checksum in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc32c {
    source: Stretch,
    checksum: u32,
}

impl Machine for Crc32c {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination | d.operand0 >> 32 | d.operand1)?;
        Ok(Crc32c {
            source: Stretch::new(d.source, d.length)?,
            checksum: d.operand0 as u32,
        })
    }

    fn demand(&self) -> Demand {
        match self.source.rest(Access::Read) {
            Some(rest) => Demand::Access(rest, None),
            None => Demand::Done(u64::from(self.checksum)),
        }
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [from] = segments else { return Ok(()) };
        let data = dma.read(from, &mut scratch.first)?;
        self.checksum = ::crc32c::crc32c_append(self.checksum, data);
        self.source.advance(from.len());
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.source.done()
    }
}
