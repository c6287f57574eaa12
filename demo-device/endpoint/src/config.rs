// SPDX-License-Identifier: MIT OR Apache-2.0
//! The properties of a device, set at its creation, and their checks.

use pcie_ats::PasidWidth;
use svm_abi::ids::MAX_CONTEXTS;

/// The largest number of entries of the address translation cache.
pub const MAX_ATC_ENTRIES: u32 = 1 << 16;
/// The smallest number of entries of the address translation cache.
pub const MIN_ATC_ENTRIES: u32 = 4;
/// The smallest number of entries of a set of the address translation cache: a copy needs two
/// translations at once, which can belong to the same set.
pub const MIN_ATC_WAYS: u32 = 2;
/// The largest number of entries of a set of the address translation cache.
pub const MAX_ATC_WAYS: u32 = crate::atc::MAX_WAYS;

/// Properties of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Contexts, 1 to 256.
    pub contexts: u16,
    /// Entries of the address translation cache: a power of two from 4 to 65536.
    pub atc_entries: u32,
    /// Ways of the address translation cache (entries per set): a power of two from 2 to 16, and at
    /// most the number of entries.
    pub atc_ways: u32,
    /// Max PASID Width (PCIe 7.8.9.2).
    pub pasid_width: PasidWidth,
    /// Outstanding Page Request Capacity, in pages, at least 1 (PCIe 10.5.2.4).
    pub pri_capacity: u32,
    /// Whether the registers for raw requests exist.
    pub laboratory: bool,
    /// Number of significant bits of a virtual address; the bits above equal the highest of them:
    /// 48 for page tables with four levels, 57 for five. Wider addresses fail without a request.
    pub address_bits: u8,
    /// How long a page request may wait for its response before its descriptor fails, in
    /// microseconds; 0 for ever.
    pub page_response_timeout: u64,
    /// The longest wait of an access, in microseconds, before it repeats a request for pages that
    /// are absent after a response of success, because a page request queue was full or the pages
    /// are gone again; 0 for no wait. The first repetition is immediate; the wait before the second
    /// is 2 microseconds, and doubles each time. A host that sets this must call
    /// [`crate::Endpoint::tick`], which ends the waits.
    pub page_request_backoff: u64,
    /// Execute Permission Supported: whether the function offers to send requests for execution
    /// (PCIe 7.8.9.2).
    pub execute: bool,
    /// Privileged Mode Supported: whether the function offers to send requests in privileged mode
    /// (PCIe 7.8.9.2).
    pub privileged: bool,
    /// Whether the last context of a PASID, when it stops, sends a stop marker instead of waiting
    /// for the responses to its page requests (PCIe 10.4.1.2).
    pub stop_markers: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            contexts: 64,
            atc_entries: 1024,
            atc_ways: 4,
            pasid_width: PasidWidth::MAX,
            // One for each context, and the rest for groups.
            pri_capacity: 512,
            laboratory: false,
            address_bits: 57,
            page_response_timeout: 0,
            page_request_backoff: 0,
            execute: false,
            privileged: false,
            stop_markers: false,
        }
    }
}

/// A property that no device can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The number of contexts is out of range.
    #[error("a device has 1 to {MAX_CONTEXTS} contexts, not {0}: choose a number in that range")]
    Contexts(u16),
    /// The number of entries of the address translation cache is out of range.
    #[error(
        "the address translation cache has a power of two of entries, from {MIN_ATC_ENTRIES} to \
         {MAX_ATC_ENTRIES}, not {0}: choose such a number, for example 1024"
    )]
    AtcEntries(u32),
    /// The number of ways of the address translation cache is out of range.
    #[error(
        "the address translation cache has a power of two of ways, from {MIN_ATC_WAYS} to {most}, \
         not {ways}: choose such a number, for example 4"
    )]
    AtcWays {
        /// The number.
        ways: u32,
        /// The largest possible number for this number of entries.
        most: u32,
    },
    /// The page request capacity is 0.
    #[error("the page request capacity is at least 1 page, not 0: choose a number such as 128")]
    PriCapacity,
    /// The width of virtual addresses is none of the widths of page tables.
    #[error("virtual addresses have 48 or 57 bits, not {0}: choose what the IOMMU translates")]
    AddressBits(u8),
}

impl Config {
    /// Number of MSI-X vectors: one for each context, and one more.
    pub(crate) fn vectors(&self) -> u16 {
        self.contexts + 1
    }

    /// Checks the properties.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.contexts == 0 || self.contexts > MAX_CONTEXTS {
            return Err(ConfigError::Contexts(self.contexts));
        }
        if !self.atc_entries.is_power_of_two()
            || !(MIN_ATC_ENTRIES..=MAX_ATC_ENTRIES).contains(&self.atc_entries)
        {
            return Err(ConfigError::AtcEntries(self.atc_entries));
        }
        let most = MAX_ATC_WAYS.min(self.atc_entries);
        if !self.atc_ways.is_power_of_two() || !(MIN_ATC_WAYS..=most).contains(&self.atc_ways) {
            let ways = self.atc_ways;
            return Err(ConfigError::AtcWays { ways, most });
        }
        if self.pri_capacity == 0 {
            return Err(ConfigError::PriCapacity);
        }
        if self.address_bits != 48 && self.address_bits != 57 {
            return Err(ConfigError::AddressBits(self.address_bits));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_device() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range() {
        let bad = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert_eq!(bad(|c| c.contexts = 0), ConfigError::Contexts(0));
        assert_eq!(bad(|c| c.contexts = 257), ConfigError::Contexts(257));
        assert_eq!(bad(|c| c.atc_entries = 0), ConfigError::AtcEntries(0));
        assert_eq!(bad(|c| c.atc_entries = 1000), ConfigError::AtcEntries(1000));
        assert_eq!(bad(|c| c.atc_entries = 2), ConfigError::AtcEntries(2));
        let ways = |ways, most| ConfigError::AtcWays { ways, most };
        assert_eq!(bad(|c| c.atc_ways = 1), ways(1, 16));
        assert_eq!(bad(|c| c.atc_ways = 3), ways(3, 16));
        assert_eq!(bad(|c| c.atc_ways = 32), ways(32, 16));
        let small = |c: &mut Config| (c.atc_entries, c.atc_ways) = (4, 8);
        assert_eq!(bad(small), ways(8, 4));
        assert_eq!(bad(|c| c.pri_capacity = 0), ConfigError::PriCapacity);
        assert_eq!(bad(|c| c.address_bits = 52), ConfigError::AddressBits(52));
        assert!(bad(|c| c.contexts = 300).to_string().contains("1 to 256"));
    }
}
