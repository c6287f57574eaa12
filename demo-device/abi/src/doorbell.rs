// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbell page of a context: the only part of the device that a process accesses.
//!
//! Page n of the doorbell BAR belongs to context n. Accesses follow the rules of the registers:
//! aligned, 8 bytes, or 4 bytes for either half. The device ignores writes to a context that is not
//! ENABLED.

use super::counters;

/// Size of a doorbell page, and distance between two, in bytes.
pub const PAGE_SIZE: u64 = 0x1000;

/// Write: the number of descriptors submitted since the start of the context, with one access of 8
/// bytes. It counts up and does not wrap at the size of the ring. Read: the last accepted value.
pub const TAIL: u64 = 0x00;
/// Read-only: descriptors consumed since the start. The process may overwrite descriptor `n` once
/// `HEAD > n`, and not before: its completion record may be visible while `HEAD` is still `n`. The
/// device sends the interrupt of descriptor `n` when `HEAD > n`.
pub const HEAD: u64 = 0x08;
/// Read-only: as the context's `STATUS` register.
pub const STATUS: u64 = 0x10;
/// Read-only: as the context's `LOST` register.
pub const LOST: u64 = 0x18;
/// Read-only: the context's counter block.
pub const COUNTERS: u64 = 0x80;
/// First offset after the registers of the page.
pub const END: u64 = COUNTERS + counters::BLOCK_SIZE;
