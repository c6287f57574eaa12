// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows a chain of nodes by the process's own pointers.

use super::fields::{aligned, zero};
use super::machine::{Demand, Machine};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::completion::Error;
use svm_abi::descriptor::Descriptor;

/// Upper bound of the offsets inside a node.
const NODE_SIZE: u64 = 4096;

/// A walk in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chase {
    node: u64,
    next_offset: u64,
    value_offset: u64,
    most: u64,
    visited: u64,
    sum: u64,
}

impl Machine for Chase {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination)?;
        for offset in [d.operand0, d.operand1] {
            zero(offset / NODE_SIZE)?;
            aligned(offset)?;
        }
        aligned(d.source)?;
        Ok(Chase {
            node: d.source,
            next_offset: d.operand0,
            value_offset: d.operand1,
            most: d.length,
            visited: 0,
            sum: 0,
        })
    }

    fn demand(&self) -> Demand {
        if self.node == 0 {
            return Demand::Done(self.sum);
        }
        let fail = |error| {
            Demand::Failed(Failure {
                error,
                address: self.node,
                write: false,
            })
        };
        if self.visited == self.most {
            return Demand::Failed(Failure::of(Error::ChainTooLong));
        }
        if self.node % 8 != 0 {
            return fail(Error::Misaligned);
        }
        if self.node.checked_add(NODE_SIZE).is_none() {
            return fail(Error::BadLength);
        }
        let word = |offset: u64| Piece::forward(self.node + offset, 8, Access::Read);
        Demand::Access(word(self.value_offset), Some(word(self.next_offset)))
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        _: &mut Scratch,
    ) -> Result<(), Failure> {
        let [value, next] = segments else {
            return Ok(());
        };
        // Aligned words of 8 bytes never cross the end of a translation.
        let mut word = [0; 8];
        dma.read(value, &mut word)?;
        let value = u64::from_le_bytes(word);
        dma.read(next, &mut word)?;
        self.node = u64::from_le_bytes(word);
        self.sum = self.sum.wrapping_add(value);
        self.visited += 1;
        Ok(())
    }

    fn ends(&self) -> bool {
        false
    }

    fn bytes_done(&self) -> u64 {
        self.visited
    }
}
