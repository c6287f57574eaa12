// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole device in a small world: its behaviour, by subject.

mod batches;
mod engine;
mod fairness;
mod fast;
mod function;
mod interrupts;
mod invalidation;
mod laboratory;
mod models;
mod moments;
mod mutants;
mod pages;
mod prefetch;
mod privilege;
mod properties;
mod rules;
mod shadow;
mod states;
mod storm;
mod threads;
mod translation;

use svm_abi::completion::{Completion, Error, status};
use svm_abi::descriptor::{Descriptor, Operation, flags};

/// Address of the tests' data.
const HERE: u64 = 0x40_0000;
/// Address of the tests' other data.
const THERE: u64 = 0x80_0000;

fn fill(destination: u64, length: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Fill as u8,
        flags: flags::BLOCK_ON_FAULT,
        destination,
        length,
        operand0: u64::from_le_bytes([0x5a; 8]),
        ..Descriptor::default()
    }
}

fn crc(source: u64, length: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Crc32c as u8,
        flags: flags::BLOCK_ON_FAULT,
        source,
        length,
        ..Descriptor::default()
    }
}

fn copy(source: u64, destination: u64, length: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Copy as u8,
        flags: flags::BLOCK_ON_FAULT,
        source,
        destination,
        length,
        ..Descriptor::default()
    }
}

fn nop() -> Descriptor {
    Descriptor::default()
}

#[track_caller]
fn success(record: Completion) {
    assert_eq!(record.status, status::SUCCESS, "{record:x?}");
}

#[track_caller]
fn failure(record: Completion) -> (Error, u64, u8) {
    assert_eq!(record.status, status::FAILURE, "{record:x?}");
    let error = Error::from_u8(record.error).unwrap();
    (error, record.fault_address, record.access)
}
