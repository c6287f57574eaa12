// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translating pages, and requesting them if they are absent, before their use.

use super::fields::{wants_write, zero};
use super::machine::{Demand, Machine};
use super::stretch::Stretch;
use crate::access::{Access, Failure};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A prefetch in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefetch {
    source: Stretch,
    access: Access,
}

impl Machine for Prefetch {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination | d.operand1)?;
        let write = wants_write(d.operand0)?;
        Ok(Prefetch {
            source: Stretch::new(d.source, d.length)?,
            access: if write { Access::Write } else { Access::Read },
        })
    }

    fn demand(&self) -> Demand {
        match self.source.rest(self.access) {
            Some(rest) => Demand::Access(rest, None),
            None => Demand::Done(0),
        }
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        _: &mut Dma<'_, P>,
        segments: &[Segment],
        _: &mut Scratch,
    ) -> Result<(), Failure> {
        let [segment] = segments else { return Ok(()) };
        // The translation is in the cache: nothing more to do.
        self.source.advance(segment.len());
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.source.done()
    }
}
