// SPDX-License-Identifier: MIT OR Apache-2.0
//! The protocol between a function and a translation agent, as types: Address Translation Services,
//! the Page Request Interface and PASID (PCI Express Base Specification, chapter 10 and section
//! 6.20), and the two traits through which an endpoint and the root complex above it talk:
//!
//! * [`RootPort`]: what the endpoint sends upstream;
//! * [`Function`]: what it receives from upstream.
//!
//! Section numbers are those of revision 6 of the specification. Raw words are converted to these
//! types once, at the edge; a value of such a type is always legal.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod capability;
mod invalidation;
mod limits;
mod memory;
mod page_request;
mod pasid;
mod port;
pub mod range;
mod translation;

pub use invalidation::{InvalidateCompletion, InvalidateRequest, Invalidation, Itag};
pub use limits::{MAX_TRANSLATIONS, OutOfRange, PAGE_SHIFT, PAGE_SIZE};
pub use memory::{CopyError, MemoryAddressType, MemoryCopy, MemoryError, MemoryRequest};
pub use page_request::{PageRequest, PrgResponse, Prgi, ResponseCode};
pub use pasid::{Pasid, PasidWidth};
pub use port::{Function, Reset, RootPort};
pub use range::AlignedRange;
pub use translation::{Translation, TranslationError, TranslationRequest};

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
