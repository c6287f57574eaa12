// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory requests of a function (PCIe 2.2.7 and 10.2.1).

use crate::Pasid;

/// Address Type of a memory request that moves data (PCIe 10.2.1). Translation requests, the
/// third type, are [`crate::TranslationRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryAddressType {
    /// AT = 00: the translation agent translates the address.
    Untranslated,
    /// AT = 10: the address came from a translation completion and is used directly.
    Translated,
}

/// The address of a memory request, and the address space that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Address of the first byte.
    pub address: u64,
    /// Whether the address is translated.
    pub address_type: MemoryAddressType,
    /// Address space of an untranslated address.
    pub pasid: Option<Pasid>,
    /// Privileged Mode Requested.
    pub privileged: bool,
}

impl MemoryRequest {
    /// An access with a translated address, which carries no PASID.
    pub const fn translated(address: u64) -> Self {
        MemoryRequest {
            address,
            address_type: MemoryAddressType::Translated,
            pasid: None,
            privileged: false,
        }
    }

    /// An access that the translation agent translates.
    pub const fn untranslated(address: u64, pasid: Option<Pasid>) -> Self {
        MemoryRequest {
            address,
            address_type: MemoryAddressType::Untranslated,
            pasid,
            privileged: false,
        }
    }
}

/// Why a memory request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Nothing answers at the address, or the access was blocked.
    #[error("memory request refused at {address:#x}")]
    Refused {
        /// Address of the request.
        address: u64,
    },
    /// The root complex cannot carry such a request.
    #[error("{what} cannot be sent here")]
    Unsupported {
        /// The kind of request.
        what: &'static str,
    },
}

/// A copy of bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryCopy {
    /// Where they are read.
    pub source: MemoryRequest,
    /// Where they are written.
    pub destination: MemoryRequest,
    /// Number of bytes.
    pub length: usize,
}

/// Why a copy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The read. Nothing was written.
    #[error("cannot read the source of the copy: {0}")]
    Read(MemoryError),
    /// The write.
    #[error("cannot write what was copied: {0}")]
    Write(MemoryError),
    /// Neither: nothing was read or written, because this port cannot send the two at one moment.
    #[error("reads and writes cannot be sent at one moment here: send one after the other")]
    Apart,
}
