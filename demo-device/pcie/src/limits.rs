// SPDX-License-Identifier: MIT OR Apache-2.0
//! The smallest page, and the error for a value that does not fit into a field.

/// Log2 of the smallest page and smallest translation unit: 4 KiB (PCIe 10.5.1).
pub const PAGE_SHIFT: u8 = 12;
/// Size of the smallest page in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// The largest number of translations of one request: two completions of 64 bytes hold this many
/// (PCIe 10.2.3.2).
pub const MAX_TRANSLATIONS: usize = 16;

/// A value that does not fit into a field of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is at most {max:#x}, not {value:#x}")]
pub struct OutOfRange {
    /// Name of the field.
    pub field: &'static str,
    /// The value that did not fit.
    pub value: u64,
    /// The largest value that fits.
    pub max: u64,
}
