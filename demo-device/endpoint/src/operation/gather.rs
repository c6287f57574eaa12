// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying the ranges of a list, one after another.

use super::fields::{transfer, zero};
use super::machine::{Demand, Machine};
use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::completion::Error;
use svm_abi::descriptor::{Descriptor, gather};

/// A gather in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gather {
    /// Address of the next entry.
    entry: u64,
    /// Entries that were not read.
    entries: u64,
    /// The rest of the current range.
    source: u64,
    length: u64,
    destination: u64,
    /// Bytes that may be written.
    room: u64,
    done: u64,
}

impl Machine for Gather {
    fn start(d: &Descriptor) -> Result<Self, Failure> {
        zero(d.operand1)?;
        if d.source % gather::ENTRY_SIZE != 0 {
            return Err(Failure::of(Error::Misaligned));
        }
        if d.length > gather::MAX_ENTRIES {
            return Err(Failure::of(Error::BadLength));
        }
        transfer(d.source, d.length * gather::ENTRY_SIZE)?;
        transfer(d.destination, d.operand0)?;
        Ok(Gather {
            entry: d.source,
            entries: d.length,
            source: 0,
            length: 0,
            destination: d.destination,
            room: d.operand0,
            done: 0,
        })
    }

    fn demand(&self) -> Demand {
        if self.length > self.room - self.done || self.source.checked_add(self.length).is_none() {
            return Demand::Failed(Failure {
                error: Error::BadLength,
                address: self.source,
                write: false,
            });
        }
        if self.length > 0 {
            let from = Piece::forward(self.source, self.length, Access::Read);
            let to = Piece::forward(self.destination + self.done, self.length, Access::Write);
            return Demand::Access(from, Some(to));
        }
        if self.entries == 0 {
            return Demand::Done(self.done);
        }
        Demand::Access(
            Piece::forward(self.entry, gather::ENTRY_SIZE, Access::Read),
            None,
        )
    }

    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        match segments {
            [from, to] => {
                let length = from.len().min(to.len());
                let data = dma.read(&from.head(length), &mut scratch.first)?;
                dma.write(&to.head(length), data)?;
                self.source += length as u64;
                self.length -= length as u64;
                self.done += length as u64;
            }
            // An aligned entry never crosses the end of a translation.
            [entry] => {
                let data = dma.read(entry, &mut scratch.first)?;
                let word = |at: usize| {
                    let mut word = [0; 8];
                    word.copy_from_slice(&data[at..at + 8]);
                    u64::from_le_bytes(word)
                };
                self.source = word(gather::ADDRESS);
                self.length = word(gather::LENGTH);
                self.entry += gather::ENTRY_SIZE;
                self.entries -= 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn ends(&self) -> bool {
        false
    }

    fn bytes_done(&self) -> u64 {
        self.done
    }
}
