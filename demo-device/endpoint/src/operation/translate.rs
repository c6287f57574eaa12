// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking the translation agent about a page.

use super::fields::{transfer, wants_write, zero};
use super::machine::{Demand, Machine};
use crate::access::{Access, Failure, Piece};
use svm_abi::descriptor::{Descriptor, operand};

/// A question, before or after the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translate {
    piece: Piece,
    execute: bool,
    answer: Option<u64>,
}

impl Machine for Translate {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination | d.length | d.operand1)?;
        let write = wants_write(d.operand0 & !operand::EXECUTE)?;
        transfer(d.source, 1)?;
        let access = if write { Access::Write } else { Access::Read };
        Ok(Translate {
            piece: Piece::forward(d.source, 1, access),
            execute: d.operand0 & operand::EXECUTE != 0,
            answer: None,
        })
    }

    fn demand(&self) -> Demand {
        match self.answer {
            Some(answer) => Demand::Done(answer),
            None => Demand::Translate(self.piece, self.execute),
        }
    }

    fn answer(&mut self, answer: u64) {
        self.answer = Some(answer);
    }
}
