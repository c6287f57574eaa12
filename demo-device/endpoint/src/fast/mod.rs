// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fast paths: what exists for speed only. The device keeps every rule without this folder, so
//! a reader may skip it, and assume instead:
//!
//! * An action has one job: what its context has in hand. Here it may have up to eight ([`jobs`]):
//!   behind the first come its record and the descriptors that follow, with theirs, if no
//!   translation is missing ([`plan`]).
//! * A job accesses what one translation covers of each of its pieces. Here it goes on over the
//!   translations behind, up to 256 KiB ([`extend`], [`runs`]).
//! * Each look-up asks the cache. Here it looks first at the entry that was found last
//!   ([`recent`]).
//! * A translation request is sent alone, for what is missing. Here requests for what will be
//!   needed next go with it ([`predict`], [`read_ahead`]).
//! * One group of page requests of a context is outstanding. Here groups for the pages behind go
//!   with it, which the access will need, too ([`pages_ahead`]).
//! * The cache keeps translations as they came. Here neighbours become one larger entry ([`join`]).
//!
//! What the fast paths must keep, and the mutants numbered above 100 break: whatever an access uses
//! is pinned (rule 38), an answer that an invalidation overtook is dropped (rule 39), and an
//! invalidation of a part removes the larger entry (rule 37).

mod extend;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod pages_ahead;
mod plan;
mod predict;
pub(crate) mod read_ahead;
pub(crate) mod recent;
pub(crate) mod runs;
