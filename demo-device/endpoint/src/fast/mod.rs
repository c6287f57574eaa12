// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fast paths: code that exists for speed only. The device keeps every rule without this
//! folder, so a reader may skip it, and assume instead:
//!
//! * An action has one job: the current work of its context. Here it may have up to eight
//!   ([`jobs`]): the first is followed by its record and by the next descriptors with their
//!   records, if no translation is missing ([`plan`]).
//! * A job accesses the part of each of its pieces that one translation covers. Here it continues
//!   over the following translations, up to 256 KiB ([`extend`], [`runs`]).
//! * Each look-up searches the cache. Here it first checks the entry of the last hit ([`recent`]).
//! * The device sends a translation request alone, for a missing translation. Here it also sends
//!   requests for the translations that it will need next ([`predict`], [`read_ahead`]).
//! * A context has one outstanding group of page requests. Here it also sends groups for the
//!   following pages that the access will need ([`pages_ahead`]).
//! * The cache stores translations as they arrived. Here neighbours become one larger entry
//!   ([`join`]).
//!
//! The fast paths must keep these rules, which the mutants numbered above 100 break: an access pins
//! everything that it uses (rule 38), an answer that an invalidation overtook is dropped (rule 39),
//! and an invalidation of a part removes the larger entry (rule 37).

mod extend;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod pages_ahead;
mod plan;
mod predict;
pub(crate) mod read_ahead;
pub(crate) mod recent;
pub(crate) mod runs;
