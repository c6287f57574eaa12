// SPDX-License-Identifier: MIT OR Apache-2.0
//! A range that an operation processes from its first byte to its last.

use super::fields::transfer;
use crate::access::{Access, Failure, Piece};

/// The range, and the progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    start: u64,
    length: u64,
    done: u64,
}

impl Stretch {
    /// A new range, if it is valid.
    pub fn new(start: u64, length: u64) -> Result<Self, Failure> {
        transfer(start, length)?;
        Ok(Stretch {
            start,
            length,
            done: 0,
        })
    }

    /// The rest; none at the end.
    pub fn rest(&self, access: Access) -> Option<Piece> {
        let left = self.length - self.done;
        (left > 0).then(|| Piece::forward(self.start + self.done, left, access))
    }

    /// Notes that more bytes are done.
    pub fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
    }

    /// Bytes that are done.
    pub fn done(&self) -> u64 {
        self.done
    }
}
