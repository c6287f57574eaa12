// SPDX-License-Identifier: MIT OR Apache-2.0
//! Having pages translated, and brought if need be, before they are used.

use super::{Demand, Machine, transfer, wants_write, zero};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// A prefetch in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefetch {
    source: u64,
    length: u64,
    access: Access,
    done: u64,
}

impl Machine for Prefetch {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination | d.operand1)?;
        let write = wants_write(d.operand0)?;
        transfer(d.source, d.length)?;
        Ok(Prefetch {
            source: d.source,
            length: d.length,
            access: if write { Access::Write } else { Access::Read },
            done: 0,
        })
    }

    fn demand(&self) -> Demand {
        if self.done == self.length {
            return Demand::Done(0);
        }
        let address = self.source + self.done;
        Demand::Access(
            Piece::forward(address, self.length - self.done, self.access),
            None,
        )
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        _: &mut Dma<'_, P>,
        spans: &[Span],
        _: &mut Scratch,
    ) -> Result<(), Failure> {
        let [span] = spans else { return Ok(()) };
        // The translation is in the cache: that was all.
        self.done += span.len() as u64;
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        self.done
    }
}
