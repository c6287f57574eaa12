// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations that do nothing themselves. A drain completes after all earlier descriptors
//! because a context works on one after another.

use super::fields::zero;
use super::machine::{Demand, Machine};
use crate::access::Failure;
use svm_abi::descriptor::Descriptor;

/// Nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nop;

/// Nothing, after all earlier descriptors have completed.
pub(crate) type Drain = Nop;

impl Machine for Nop {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.source | d.destination | d.length | d.operand0 | d.operand1)?;
        Ok(Nop)
    }

    fn demand(&self) -> Demand {
        Demand::Done(0)
    }
}
