// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory, VT-d remapping units and endpoints in one process: the bench of the host tests,
//! the benchmarks and the fuzzer.
//!
//! * [`Machine`] joins them: requests of an endpoint go through the unit that it is behind to
//!   memory, what a unit asks for goes to the endpoints, interrupts are kept until they are
//!   taken, and time passes by [`Machine::advance`]. Its owner steps it ([`Machine::step`]), or
//!   threads do ([`Engines`]).
//! * [`os`] is a miniature operating system for it: page tables, invalidation queue, page faults
//!   and a driver of the endpoint.
//! * [`Remapping`] puts a unit into a virtual machine monitor that is built on `vm-memory`.
//!
//! ```
//! use machine::os::{App, copy};
//!
//! let app = App::quick();
//! let (from, to) = (app.process().map(0x10_0000, 0x4000), app.process().map(0x20_0000, 0x4000));
//! app.process().write(from, b"shared");
//! assert_eq!(app.perform(copy(from, to, 0x4000)).error, 0);
//! assert_eq!(app.process().read(to, 6), b"shared");
//! ```
#![deny(unsafe_code)]

mod config;
mod delivery;
mod engines;
#[cfg(test)]
#[path = "../../../demo-device/endpoint/src/testing/failure.rs"]
mod failure;
mod interrupts;
mod link;
mod machine;
mod memory;
#[cfg(test)]
mod models;
mod moment;
pub mod msix;
pub mod os;
mod port;
mod prefetch;
mod remapping;
mod shadow;
mod sync;

pub use config::{FunctionConfig, HOST_ADDRESS_WIDTH, MEMORY, MachineConfig, MachineError, unit};
pub use engines::Engines;
pub use interrupts::{Delivered, Interrupts, Sender};
pub use link::Link;
pub use machine::{FunctionId, Hook, Machine, Restless};
pub use memory::{MAX_BYTES, Ram, RamError};
pub use moment::Moment;
pub use port::Port;
pub use remapping::Remapping;
