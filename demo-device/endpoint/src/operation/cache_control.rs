// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dropping a process's own translations from the cache.

use super::fields::{transfer, zero};
use super::machine::{Demand, Machine};
use crate::access::Failure;
use svm_abi::descriptor::{Descriptor, operand};

/// A request to drop translations, before or after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheControl {
    /// First and last address; none to drop nothing.
    range: Option<(u64, u64)>,
    dropped: Option<u64>,
}

impl Machine for CacheControl {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.destination | d.operand0 & !operand::ALL | d.operand1)?;
        if d.operand0 & operand::ALL != 0 {
            zero(d.source | d.length)?;
            return Ok(CacheControl {
                range: Some((0, u64::MAX)),
                dropped: None,
            });
        }
        transfer(d.source, d.length)?;
        Ok(CacheControl {
            range: d.length.checked_sub(1).map(|n| (d.source, d.source + n)),
            dropped: None,
        })
    }

    fn demand(&self) -> Demand {
        match (self.dropped, self.range) {
            (Some(dropped), _) => Demand::Done(dropped),
            (None, None) => Demand::Done(0),
            (None, Some((first, last))) => Demand::Forget(first, last),
        }
    }

    fn answer(&mut self, dropped: u64) {
        self.dropped = Some(dropped);
    }
}
