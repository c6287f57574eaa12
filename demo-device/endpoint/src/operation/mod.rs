// SPDX-License-Identifier: MIT OR Apache-2.0
//! What descriptors ask for, as machines: each says what it must reach next, gets as much of that
//! as one translation covers, works on it, and can be put aside at any such point.
//!
//! Nothing here knows of translations, page requests, contexts or locks.

mod atomic;
mod batch;
mod cache_control;
mod chase;
mod compare;
mod copy;
mod crc32c;
mod fill;
mod gather;
mod nop;
mod prefetch;
mod stretch;
#[cfg(test)]
pub(crate) mod tests;
mod translate;

pub(crate) use batch::Batch;

use crate::access::{Failure, Piece};
use crate::dma::{Dma, Scratch, Span};
use pcie_ats::RootPort;
use svm_abi::completion::Error;
use svm_abi::descriptor::{Descriptor, Operation as Code, flags, operand};
use svm_abi::ids::MAX_TRANSFER_LOG2;

/// What a machine needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing: it is done, with this result.
    Done(u64),
    /// Nothing: it has failed.
    Failed(Failure),
    /// One or two pieces of memory, of which it will work on what can be had.
    Access(Piece, Option<Piece>),
    /// What the translation agent says of a piece, and of its execution if that is asked, in the
    /// words of [`svm_abi::descriptor::translation`]: see [`Machine::answer`].
    Translate(Piece, bool),
    /// That the cache forgets the addresses from the first to the last, and says how many entries
    /// these were: see [`Machine::answer`].
    Forget(u64, u64),
}

/// A resumable operation.
pub(crate) trait Machine: Sized {
    /// Judges the fields of a descriptor, and begins.
    fn start(descriptor: &Descriptor) -> Result<Self, Failure>;

    /// What is needed next.
    fn demand(&self) -> Demand;

    /// Works on the spans of the pieces demanded last, each at least one byte.
    fn perform<P: RootPort + ?Sized>(
        &mut self,
        _dma: &mut Dma<'_, P>,
        _spans: &[Span],
        _scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes the answer to a demand that is not of memory.
    fn answer(&mut self, _answer: u64) {}

    /// Whether it will have ended when it has worked on all that it demands now.
    fn ends(&self) -> bool {
        true
    }

    /// What the completion record says was done.
    fn bytes_done(&self) -> u64 {
        0
    }
}

/// Declares the machines of the operations once.
macro_rules! machines {
    ($($name:ident: $module:ident;)+) => {
        /// The operation of a descriptor.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Operation {
            $(#[allow(missing_docs)] $name($module::$name),)+
        }

        /// Bit n is set if operation n is performed.
        pub(crate) const OPERATIONS: u64 = 1 << Code::Batch as u8 $(| 1 << Code::$name as u8)+;

        impl Operation {
            /// Judges a descriptor, and begins its operation. A [`Batch`] is none: whoever can
            /// perform one begins it there.
            pub fn start(descriptor: &Descriptor) -> Result<Self, Failure> {
                match judge(descriptor)? {
                    $(Code::$name => Ok(Operation::$name(Machine::start(descriptor)?)),)+
                    Code::Batch => Err(Failure::of(Error::NestedBatch)),
                }
            }

            /// See [`Machine::demand`].
            pub fn demand(&self) -> Demand {
                match self {
                    $(Operation::$name(machine) => machine.demand(),)+
                }
            }

            /// See [`Machine::perform`].
            pub fn perform<P: RootPort + ?Sized>(
                &mut self,
                dma: &mut Dma<'_, P>,
                spans: &[Span],
                scratch: &mut Scratch,
            ) -> Result<(), Failure> {
                match self {
                    $(Operation::$name(machine) => machine.perform(dma, spans, scratch),)+
                }
            }

            /// See [`Machine::answer`].
            pub fn answer(&mut self, answer: u64) {
                match self {
                    $(Operation::$name(machine) => machine.answer(answer),)+
                }
            }

            /// See [`Machine::ends`].
            pub fn ends(&self) -> bool {
                match self {
                    $(Operation::$name(machine) => machine.ends(),)+
                }
            }

            /// See [`Machine::bytes_done`].
            pub fn bytes_done(&self) -> u64 {
                match self {
                    $(Operation::$name(machine) => machine.bytes_done(),)+
                }
            }
        }
    };
}

machines! {
    Nop: nop;
    Copy: copy;
    Fill: fill;
    Compare: compare;
    Crc32c: crc32c;
    FetchAdd: atomic;
    Chase: chase;
    Drain: nop;
    CompareSwap: atomic;
    Gather: gather;
    Prefetch: prefetch;
    Translate: translate;
    CacheControl: cache_control;
}

/// Judges what is the same in all descriptors.
fn judge(descriptor: &Descriptor) -> Result<Code, Failure> {
    let Some(code) = Code::from_u8(descriptor.operation) else {
        return Err(Failure::of(Error::BadOperation));
    };
    zero(u64::from(descriptor.flags & !flags::ALL))?;
    zero(descriptor.reserved1)?;
    if descriptor.reserved0 != [0; 6] {
        return Err(Failure::of(Error::Reserved));
    }
    Ok(code)
}

/// Checks a field that is reserved in an operation.
fn zero(field: u64) -> Result<(), Failure> {
    if field == 0 {
        Ok(())
    } else {
        Err(Failure::of(Error::Reserved))
    }
}

/// The bit of an operand that asks for write permission; the others are reserved.
fn wants_write(operand0: u64) -> Result<bool, Failure> {
    zero(operand0 & !operand::WRITE)?;
    Ok(operand0 & operand::WRITE != 0)
}

/// Checks a transfer of `length` bytes from `address` on.
fn transfer(address: u64, length: u64) -> Result<(), Failure> {
    if length > 1 << MAX_TRANSFER_LOG2 || address.checked_add(length).is_none() {
        return Err(Failure::of(Error::BadLength));
    }
    Ok(())
}

/// Checks that a number is a multiple of 8.
fn aligned(value: u64) -> Result<(), Failure> {
    if value % 8 == 0 {
        Ok(())
    } else {
        Err(Failure::of(Error::Misaligned))
    }
}
