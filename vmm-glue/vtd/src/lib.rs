// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intel VT-d remapping hardware as a library: what the *Intel Virtualization Technology for
//! Directed I/O Architecture Specification* says of a remapping unit, without a machine round it.
//!
//! [`Unit`] is the remapping unit. A host gives it
//!
//! * register accesses ([`Unit::read`], [`Unit::write`]),
//! * requests of functions: untranslated ([`Unit::translate`]), translated
//!   ([`Unit::translated_request`]), translation requests ([`Unit::translation_request`]), page
//!   requests ([`Unit::page_request`]), invalidation completions
//!   ([`Unit::invalidate_completion`]) and interrupts ([`Unit::remap_interrupt`]),
//! * the time ([`Unit::advance`]) and the end of accesses ([`Unit::end_access`]),
//!
//! together with guest memory ([`memory::Memory`]), and carries out the [`effect::Effect`]s that
//! come back. The unit does no I/O, has no thread, no clock and no lock.
//!
//! Section numbers are those of revision 5.10 of the specification.
#![forbid(unsafe_code)]

mod cache;
pub mod config;
mod context;
mod device_tlb;
pub mod effect;
pub mod event;
pub mod fault;
mod in_flight;
pub mod memory;
pub mod registers;
pub mod request;
pub mod spec;
mod unit;
mod walk;

pub use config::{Capabilities, Config, ConfigError};
pub use effect::{Effect, Effects, Invalidated};
pub use in_flight::Ticket;
pub use request::{Access, Blocked, Request, Translated};
pub use unit::{Counters, Remapped, Unit};
