// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completion records: their place, and how the device writes one, so that a program that sees its
//! status sees the whole record.

use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Segment};
use crate::operation::Demand;
use pcie_ats::RootPort;
use svm_abi::completion::{BYTES_DONE, Completion, SIZE, access, status};
use svm_abi::descriptor::{Descriptor, flags};

/// The record of an operation that succeeded.
pub(crate) fn success(bytes_done: u64, result: u64) -> Completion {
    Completion {
        status: status::SUCCESS,
        bytes_done,
        result,
        ..Completion::default()
    }
}

/// The record of an operation that failed.
pub(crate) fn failure(bytes_done: u64, failure: &Failure) -> Completion {
    Completion {
        status: status::FAILURE,
        error: failure.error as u8,
        access: if failure.write { access::WRITE } else { 0 },
        bytes_done,
        fault_address: failure.address,
        result: 0,
    }
}

/// A record on its way to memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    address: u64,
    bytes: [u8; SIZE],
    written: bool,
}

impl Record {
    /// A record for an address, which is aligned to the record's size, so that the record never
    /// crosses the end of a translation.
    pub fn new(address: u64, record: &Completion) -> Self {
        Record {
            address,
            bytes: record.to_bytes(),
            written: false,
        }
    }

    /// The memory of a record at an address.
    pub const fn piece(address: u64) -> Piece {
        Piece::forward(address, SIZE as u64, Access::Write)
    }

    /// What it needs next.
    pub fn demand(&self) -> Demand {
        if self.written {
            return Demand::Done(0);
        }
        Demand::Access(Record::piece(self.address), None)
    }

    /// Writes the record: last the status, in one access with the bytes next to it.
    pub fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
    ) -> Result<(), Failure> {
        let [segment] = segments else { return Ok(()) };
        dma.publish(segment, &self.bytes, BYTES_DONE)?;
        self.written = true;
        Ok(())
    }
}

/// What follows the operation of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Address of the record; 0 for none.
    pub completion: u64,
    /// An interrupt.
    pub interrupt: bool,
}

impl Tail {
    /// Of a descriptor.
    pub fn of(descriptor: &Descriptor) -> Self {
        Tail {
            completion: descriptor.completion,
            interrupt: descriptor.flags & flags::INTERRUPT != 0,
        }
    }
}

/// The place of a descriptor's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordPlace {
    /// Nowhere.
    None,
    /// An address that is not valid for a record.
    Bad,
    /// At an aligned address.
    Good,
}

impl RecordPlace {
    /// The place that the address in a descriptor, or 0, stands for.
    pub fn of(completion: u64) -> Self {
        match completion {
            0 => RecordPlace::None,
            address if address % SIZE as u64 != 0 => RecordPlace::Bad,
            _ => RecordPlace::Good,
        }
    }
}
