// SPDX-License-Identifier: MIT OR Apache-2.0
//! The caches of section 6.2: contexts, address spaces (PASID table entries, and the one address
//! space of a legacy context), and translations.
//!
//! A lookup goes through all three, as hardware does: what was derived from an entry that is no
//! longer cached is not found any more. An address space has a *tag*, a number that is never used
//! twice; its translations are filed under the tag. To invalidate everything of an address space
//! it gets a new tag, and to invalidate everything of a domain or of the unit a floor is raised
//! below which tags do not count. So an invalidation costs what it selects, not what is cached.

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
