// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operation that does nothing.

use super::{Demand, Machine, zero};
use crate::access::Failure;
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::descriptor::Descriptor;

/// Nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nop;

impl Machine for Nop {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.destination | d.length | d.operand0 | d.operand1)?;
        Ok(Nop)
    }

    fn demand(&self) -> Demand {
        Demand::Done(0)
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        _: &mut Dma<'_, P>,
        _: &[Span],
        _: &mut Scratch,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn bytes_done(&self) -> u64 {
        0
    }
}
