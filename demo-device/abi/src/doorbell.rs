// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbell page of a context: the only part of the device that a process touches.
//!
//! Page n of the doorbell BAR belongs to context n. It is accessed like the registers: aligned,
//! 8 bytes, or 4 bytes for either half. Writes to a context that is not ENABLED are ignored.

use super::counters;

/// Size of a doorbell page, and distance between two, in bytes.
pub const PAGE_SIZE: u64 = 0x1000;

/// Written: the number of descriptors submitted since the start of the context (it counts up and
/// never wraps at the size of the ring). Must be written with one access of 8 bytes. Read: the
/// value last accepted.
pub const TAIL: u64 = 0x00;
/// Read-only: descriptors consumed since the start. The descriptor of number `n` may be
/// overwritten once `HEAD > n`, and not before: its completion record may be visible while `HEAD`
/// is still `n`. The interrupt of descriptor `n` is sent when `HEAD > n`.
pub const HEAD: u64 = 0x08;
/// Read-only: as the context's `STATUS` register.
pub const STATUS: u64 = 0x10;
/// Read-only: as the context's `LOST` register.
pub const LOST: u64 = 0x18;
/// Read-only: the context's counter block.
pub const COUNTERS: u64 = 0x80;
/// First offset behind the registers of the page.
pub const END: u64 = COUNTERS + counters::BLOCK_SIZE;
