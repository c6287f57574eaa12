// SPDX-License-Identifier: MIT OR Apache-2.0
//! The structures of the Intel Virtualization Technology for Directed I/O Architecture
//! Specification, a type for each, with its field names. Section numbers are those of revision
//! 5.10; where the project supports a field that this revision has retired, the revision that had
//! it is named.
//!
//! Nothing here reads memory or holds state: these types only give the bits their names, and say
//! which of them are reserved.

pub mod capability;
pub mod context;
pub mod descriptor;
pub mod fault;
pub mod interrupt;
pub mod invalidation;
mod layout;
pub mod page_request;
pub mod paging;
pub mod pasid;
pub mod register;
pub mod root;
pub mod virtual_command;

/// Requester id of a function: bus in bits 15:8, device and function in bits 7:0 (section 3.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

impl SourceId {
    /// Bus number: the index of the root table (section 3.4.1).
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device and function number: the index of the context table (section 3.4.1).
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }
}

impl core::fmt::Display for SourceId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (bus, devfn) = (self.bus(), self.devfn());
        write!(f, "{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7)
    }
}

/// Domain identifier: tags cached entries (section 6.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

/// Bits `high` down to `low` of a word, shifted down.
pub(crate) const fn field(word: u64, high: u32, low: u32) -> u64 {
    word >> low & (u64::MAX >> (63 - (high - low)))
}

/// Bit `n` of a word.
pub(crate) const fn bit(word: u64, n: u32) -> bool {
    word >> n & 1 != 0
}

/// A word with bits `high` down to `low` set; empty if `high` is below `low`.
pub(crate) const fn mask(high: u32, low: u32) -> u64 {
    if high < low {
        return 0;
    }
    (u64::MAX >> (63 - (high - low))) << low
}

/// The bits of a pointer, 63:12, that lie at or above the host address width.
pub(crate) const fn above(host_address_width: u8) -> u64 {
    mask(63, host_address_width as u32)
}

/// The bits of a paging entry's address, 51:12, that lie at or above the host address width.
pub(crate) const fn above_in_entry(host_address_width: u8) -> u64 {
    mask(51, host_address_width as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_masks_agree() {
        assert_eq!(field(0xdead_beef_0000_0000, 63, 48), 0xdead);
        assert_eq!(field(u64::MAX, 63, 0), u64::MAX);
        assert_eq!(mask(63, 0), u64::MAX);
        assert_eq!(mask(11, 1), 0xffe);
        assert_eq!(above(52), 0xfff0_0000_0000_0000);
        assert_eq!(above_in_entry(52), 0);
        assert_eq!(above_in_entry(46), 0x000f_c000_0000_0000);
    }

    #[test]
    fn a_source_id_reads_as_bus_device_function() {
        assert_eq!(SourceId(0x3a11).to_string(), "3a:02.1");
    }
}
