// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fast hash for numeric keys. Software chooses the keys, but gains nothing by bad choices: a
//! full bucket only evicts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Spreads the bits of a number.
pub(crate) const fn spread(n: u64) -> u64 {
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    n ^ n >> 32
}

/// Hasher of numbers.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = spread(self.0 ^ n);
    }
}

/// A map from numbers.
pub(crate) type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;
