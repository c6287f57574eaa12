// SPDX-License-Identifier: MIT OR Apache-2.0
//! The caches of section 6.2: contexts, address spaces (PASID table entries, and the one address
//! space of a legacy context), and translations.
//!
//! A look-up uses all three, as in hardware: it does not find anything that was derived from an
//! entry that is no longer cached. An address space has a *tag*, a number that is never reused; its
//! translations are stored under the tag. A new tag invalidates everything of an address space;
//! raising a floor, below which tags are invalid, invalidates everything of a domain or of the
//! unit. So the cost of an invalidation is proportional to what it selects, not to what is cached.

mod context;
mod hash;
mod interrupt;
pub(crate) mod iotlb;
mod space;

pub(crate) use context::ContextCache;
pub(crate) use hash::NumberMap;
pub(crate) use interrupt::InterruptEntryCache;
pub(crate) use iotlb::Iotlb;
pub(crate) use space::{SpaceCache, SpaceId, SpaceKey};
