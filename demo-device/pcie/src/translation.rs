// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests and their completions (PCIe 10.2.2 and 10.2.3).

use crate::{AlignedRange, Pasid};

/// A translation request (PCIe 10.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationRequest {
    /// First untranslated address. Aligned to 4 KiB, as the Page Aligned Request bit requires.
    pub address: u64,
    /// The largest number of translations in the completion, in units of the smallest translation
    /// unit; at least 1.
    pub pages: u16,
    /// Address space; none for requests without a PASID.
    pub pasid: Option<Pasid>,
    /// Privileged Mode Requested (PCIe 6.20.2.3).
    pub privileged: bool,
    /// Execute Requested (PCIe 6.20.2.2).
    pub execute: bool,
    /// No Write: the function asks for read permission only (PCIe 10.2.2.5).
    pub no_write: bool,
}

/// One translation of a completion (PCIe 10.2.3.2).
///
/// With neither `read` nor `write` it reports that nothing is mapped in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Translated range. The untranslated range has the same size.
    pub range: AlignedRange,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted.
    pub write: bool,
    /// Execution is permitted.
    pub execute: bool,
    /// The permissions are those of privileged mode.
    pub privileged: bool,
    /// The translation is the same in every address space of the function.
    pub global: bool,
    /// Untranslated Access Only: only untranslated requests may access the range.
    pub untranslated_only: bool,
    /// Non-snooped accesses are required.
    pub non_snooped: bool,
}

impl Translation {
    /// The 64-bit word of a completion.
    pub const fn to_word(self) -> u64 {
        let (address, s) = self.range.encode();
        address
            | (s as u64) << 11
            | (self.non_snooped as u64) << 10
            | (self.global as u64) << 5
            | (self.privileged as u64) << 4
            | (self.execute as u64) << 3
            | (self.untranslated_only as u64) << 2
            | (self.write as u64) << 1
            | self.read as u64
    }

    /// The translation that a word of a completion carries; reserved bits are ignored.
    pub const fn from_word(word: u64) -> Self {
        Translation {
            range: AlignedRange::decode(word & !0xfff, bit(word, 11)),
            read: bit(word, 0),
            write: bit(word, 1),
            untranslated_only: bit(word, 2),
            execute: bit(word, 3),
            privileged: bit(word, 4),
            global: bit(word, 5),
            non_snooped: bit(word, 10),
        }
    }
}

/// Bit `n` of a word.
const fn bit(word: u64, n: u32) -> bool {
    word >> n & 1 != 0
}

/// Why a translation request has no translations (PCIe 10.2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslationError {
    /// Unsupported Request: the function may not use ATS.
    #[error("translation request completed with Unsupported Request")]
    UnsupportedRequest,
    /// Completer Abort: the translation agent had an error.
    #[error("translation request completed with Completer Abort")]
    CompleterAbort,
    /// No completion came within the requester's completion timeout (PCIe 2.8).
    #[error("translation request was not completed in time")]
    CompletionTimeout,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn from_word_undoes_to_word(address: u64, shift in 12u8..=63, bits: [bool; 7]) {
            let t = Translation {
                range: AlignedRange::containing(address, shift).unwrap(),
                read: bits[0], write: bits[1], execute: bits[2], privileged: bits[3],
                global: bits[4], untranslated_only: bits[5], non_snooped: bits[6],
            };
            prop_assert_eq!(Translation::from_word(t.to_word()), t);
        }
    }
}
