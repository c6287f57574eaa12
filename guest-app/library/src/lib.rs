// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares a process's address space with the svm-demo device.
//!
//! A program opens a [`Context`], starts its [`Queue`], and passes plain memory to it: heap, stack,
//! mapped files. The device accesses it through the process's own page tables; nothing is pinned,
//! copied or registered, and submitting takes no system call.
//!
//! ```no_run
//! let mut queue = svmctl::Context::open("/dev/svm0")?.start(64)?;
//! let data = vec![1u8; 1 << 20];
//! let mut copy = vec![0u8; 1 << 20];
//! queue.copy(&data, &mut copy)?;
//! assert_eq!(queue.crc32c(&copy, 0)?, queue.crc32c(&data, 0)?);
//! # Ok::<(), svmctl::Error>(())
//! ```
//!
//! The safe operations borrow memory and wait. For several descriptors in flight, or memory by
//! address, use [`Queue::push`] and [`Queue::wait`] with a [`Descriptor`].
//!
//! The parts: [`device`] makes the system calls, [`region`] maps memory, `ring` lays out the
//! queue's memory, [`Queue`] numbers the work and waits for it. [`model`] is a software device, for
//! tests on machines without the device.

mod batch;
mod context;
mod counters;
mod descriptor;
pub mod device;
mod error;
pub mod model;
mod queue;
pub mod region;
mod ring;
pub mod vfio;

pub use batch::Batch;
pub use context::{Context, operations};
pub use counters::Counters;
pub use descriptor::{Descriptor, GatherEntry};
pub use error::{Error, Failure, Halt};
pub use queue::{Queue, State, Ticket};
pub use svm_abi as abi;
