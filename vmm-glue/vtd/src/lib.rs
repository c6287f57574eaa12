// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intel VT-d remapping hardware as a library: a remapping unit of the *Intel Virtualization
//! Technology for Directed I/O Architecture Specification*, independent of any machine.
//!
//! [`Unit`] is the remapping unit. A host passes it
//!
//! * register accesses ([`Unit::read`], [`Unit::write`]),
//! * requests of functions: untranslated ([`Unit::translate`]), translated
//!   ([`Unit::translated_request`]), translation requests ([`Unit::translation_request`]), page
//!   requests ([`Unit::page_request`]), invalidation completions
//!   ([`Unit::invalidate_completion`]) and interrupts ([`Unit::remap_interrupt`]),
//! * the time ([`Unit::advance`]) and the end of accesses ([`Unit::end_access`]),
//!
//! together with guest memory ([`memory::Memory`]), and carries out the [`effect::Effect`]s that it
//! returns. The unit does no I/O and has no thread, no clock and no lock.
//!
//! Section numbers are those of revision 5.10 of the specification.
//!
//! # Example
//!
//! A function in pass-through mode (legacy mode), and a fault:
//!
//! ```
//! use std::sync::Mutex;
//! use vtd::memory::{Memory, MemoryError};
//! use vtd::spec::SourceId;
//! use vtd::spec::register::{global, offset};
//! use vtd::{Access, Blocked, Capabilities, Config, Effects, Request, Unit};
//!
//! /// 64 KiB of memory.
//! struct Ram(Mutex<Vec<u64>>);
//!
//! impl Memory for Ram {
//!     fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
//!         for (n, bytes) in data.chunks_mut(8).enumerate() {
//!             let word = self.read_u64(address + 8 * n as u64)?.to_le_bytes();
//!             bytes.copy_from_slice(&word[..bytes.len()]);
//!         }
//!         Ok(())
//!     }
//!     fn read_u64(&self, address: u64) -> Result<u64, MemoryError> {
//!         let words = self.0.lock().unwrap();
//!         let word = words.get(address as usize / 8);
//!         word.copied().ok_or(MemoryError { address })
//!     }
//!     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryError> {
//!         Err(MemoryError { address })
//!     }
//!     fn compare_exchange(&self, address: u64, _: u64, _: u64) -> Result<u64, MemoryError> {
//!         Err(MemoryError { address })
//!     }
//! }
//!
//! let mut words = vec![0; 8192];
//! words[0x1000 / 8] = 0x2001; // the root entry of bus 0: its context table is at 0x2000
//! words[0x2080 / 8] = 1 | 2 << 2; // the context entry of 00:01.0: pass-through,
//! words[0x2088 / 8] = 2 | 7 << 8; // 48 bits, domain 7
//! let ram = Ram(Mutex::new(words));
//!
//! let mut unit = Unit::new(Capabilities::new(Config::default())?);
//! let mut fx = Effects::new();
//! unit.write(offset::RTADDR, 0x1000, 8, &mut fx);
//! unit.write(offset::GCMD, global::SRTP.into(), 4, &mut fx);
//! unit.write(offset::GCMD, global::TE.into(), 4, &mut fx);
//!
//! let request = |requester| Request {
//!     requester: SourceId(requester),
//!     pasid: None,
//!     address: 0x1234_5678,
//!     access: Access::Write,
//!     execute: false,
//!     privileged: false,
//! };
//! let translated = unit.translate(&ram, &request(0x0008), &mut fx);
//! assert_eq!(translated.map(|t| t.address), Ok(0x1234_5678));
//!
//! // 00:02.0 has no context entry: condition LCT.2, reason 2.
//! let blocked = unit.translate(&ram, &request(0x0010), &mut fx);
//! assert!(matches!(blocked, Err(Blocked::Fault(reason)) if reason.code() == 2));
//! assert_eq!(unit.read(offset::FRCD + 8, 8) as u16, 0x0010);
//! # Ok::<(), vtd::ConfigError>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod capabilities;
pub mod config;
mod context;
mod device_tlb;
pub mod effect;
pub mod event;
pub mod fault;
mod host_limits;
mod in_flight;
pub mod memory;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
pub mod recording;
pub mod registers;
pub mod request;
pub mod spec;
mod turn;
mod unit;
mod walk;

pub use capabilities::Capabilities;
pub use config::{Config, ConfigError};
pub use effect::{Effect, Effects, Invalidated, Refusal};
pub use in_flight::Ticket;
pub use request::{Access, Blocked, Request, Translated};
pub use turn::QueueTurn;
pub use unit::{
    AddressSpace, AddressTranslation, Counters, FirstStageTable, MappedPage, PresentPasids, Reach,
    ReachPart, Remapped, TooManyEntries, Unit, VirtualCommandEnd,
};

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
