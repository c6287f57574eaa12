// SPDX-License-Identifier: MIT OR Apache-2.0
//! A range that an operation works through from its first byte to its last.

use super::fields::transfer;
use crate::access::{Access, Failure, Piece};

/// The range, and how far the work has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    start: u64,
    length: u64,
    done: u64,
}

impl Stretch {
    /// A range of which nothing is done, if it can be one.
    pub fn new(start: u64, length: u64) -> Result<Self, Failure> {
        transfer(start, length)?;
        Ok(Stretch {
            start,
            length,
            done: 0,
        })
    }

    /// What is left; none at the end.
    pub fn rest(&self, access: Access) -> Option<Piece> {
        let left = self.length - self.done;
        (left > 0).then(|| Piece::forward(self.start + self.done, left, access))
    }

    /// So many bytes more are done.
    pub fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
    }

    /// Bytes that are done.
    pub fn done(&self) -> u64 {
        self.done
    }
}
