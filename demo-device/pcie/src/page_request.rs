// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests and page request group responses (PCIe 10.4).

use crate::{OutOfRange, Pasid};

/// Page Request Group Index: 9 bits (PCIe 10.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prgi(u16);

impl Prgi {
    /// Number of indices.
    pub const COUNT: u16 = 512;

    /// The index of a number.
    pub const fn new(value: u16) -> Result<Self, OutOfRange> {
        if value >= Self::COUNT {
            return Err(OutOfRange {
                field: "PRGI",
                value: value as u64,
                max: 511,
            });
        }
        Ok(Prgi(value))
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A page request message (PCIe 10.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Untranslated address of the page, aligned to 4 KiB.
    pub address: u64,
    /// Address space.
    pub pasid: Option<Pasid>,
    /// The page will be read.
    pub read: bool,
    /// The page will be written.
    pub write: bool,
    /// The page will be executed (needs `read`).
    pub execute: bool,
    /// Privileged Mode Requested.
    pub privileged: bool,
    /// Group.
    pub prgi: Prgi,
    /// Last Request In Group.
    pub last: bool,
}

/// Response Code of a page request group response (PCIe 10.4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// All pages were made accessible (they may already be gone again).
    Success,
    /// A page does not exist, or not with the permission asked for.
    InvalidRequest,
    /// The interface has failed: the function sends no page request until software enables it
    /// again.
    ResponseFailure,
}

impl ResponseCode {
    /// The response code of the 4-bit field; reserved values count as a failure.
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => ResponseCode::Success,
            1 => ResponseCode::InvalidRequest,
            _ => ResponseCode::ResponseFailure,
        }
    }

    /// The 4-bit field.
    pub const fn bits(self) -> u8 {
        match self {
            ResponseCode::Success => 0,
            ResponseCode::InvalidRequest => 1,
            ResponseCode::ResponseFailure => 0xf,
        }
    }
}

/// A page request group response message (PCIe 10.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrgResponse {
    /// The group that this response answers.
    pub prgi: Prgi,
    /// Address space; present if PRG Response PASID Required is set.
    pub pasid: Option<Pasid>,
    /// The result of the group.
    pub code: ResponseCode,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_response_codes_are_failures() {
        for bits in 2..16 {
            assert_eq!(ResponseCode::from_bits(bits), ResponseCode::ResponseFailure);
        }
        assert_eq!(
            ResponseCode::from_bits(ResponseCode::InvalidRequest.bits()),
            ResponseCode::InvalidRequest
        );
    }

    #[test]
    fn a_prgi_has_nine_bits() {
        assert!(Prgi::new(511).is_ok());
        assert!(Prgi::new(512).is_err());
    }
}
