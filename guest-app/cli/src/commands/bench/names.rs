// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of the curves.

pub const COPY: &str = "device copy";
pub const MEMCPY: &str = "memcpy";
pub const CRC: &str = "device CRC-32C";
pub const CPU_CRC: &str = "CPU CRC-32C";
pub const DEVICE_TOUCH: &str = "device";
pub const CPU_TOUCH: &str = "CPU";
pub const SMALL_COLD: &str = "4 KiB pages, ATC empty";
pub const SMALL_WARM: &str = "4 KiB pages, ATC filled";
pub const LARGE_COLD: &str = "2 MiB pages, ATC empty";
pub const LARGE_WARM: &str = "2 MiB pages, ATC filled";
pub const TAKEN_CACHED: &str = "translations cached";
pub const TAKEN_UNCACHED: &str = "no translation cached";
pub const RING: &str = "in the ring";
pub const BATCH: &str = "in a batch";
