// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations of descriptors, as machines: each returns what it must access next, gets as much
//! of it as one translation covers, works on it, and can be suspended at any such point.
//!
//! Nothing here knows of translations, page requests, contexts or locks.

mod atomic;
mod batch;
mod cache_control;
mod chase;
mod compare;
mod copy;
mod crc32c;
mod fields;
mod fill;
mod gather;
mod machine;
mod nop;
mod prefetch;
mod stretch;
#[cfg(test)]
pub(crate) mod tests;
mod translate;

pub(crate) use batch::Batch;
pub(crate) use machine::{Demand, Machine};

use crate::access::Failure;
use crate::dma::{Dma, Scratch, Segment};
use pcie_ats::RootPort;
use svm_abi::completion::Error;
use svm_abi::descriptor::{Descriptor, Operation as Code};

use fields::judge;

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
            /// Checks a descriptor, and begins its operation. A [`Batch`] is not an operation: a
            /// context that can perform one begins it itself.
            ///
            /// It is begun in its place, which is unchanged if it cannot be. Copying it there would
            /// take longer: a processor that has just written the fields waits until they are in
            /// its cache before it reads several at once.
            pub fn start<T: From<Operation>>(
                descriptor: &Descriptor,
                place: &mut T,
            ) -> Result<(), Failure> {
                match judge(descriptor)? {
                    $(Code::$name => {
                        let machine = Machine::start(descriptor)?;
                        *place = Operation::$name(machine).into();
                        Ok(())
                    })+
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
                segments: &[Segment],
                scratch: &mut Scratch,
            ) -> Result<(), Failure> {
                match self {
                    $(Operation::$name(machine) => machine.perform(dma, segments, scratch),)+
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
