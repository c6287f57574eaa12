// SPDX-License-Identifier: GPL-2.0-or-later
//! Why a process is refused.

use std::fmt::Debug;
use std::path::PathBuf;

/// Why the device is not offered in this process.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not a QEMU that emulates machines with PCI.
    #[error("this process is not a QEMU system emulator")]
    NotQemu,
    /// No function is exported.
    #[error(
        "it exports none of its functions, as QEMU does that is configured without \
         --enable-modules; its debug information tells where they are (svm-vm qemu-layout)"
    )]
    NoExports,
    /// A layout file cannot be used.
    #[error("its layout file {} cannot be used: {reason}", path.display())]
    LayoutFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A function is missing.
    #[error("it does not export {}", .0.join(", "))]
    MissingExports(Vec<&'static str>),
    /// A type from which this library derives its own is missing.
    #[error("it has no type {0}")]
    MissingType(String),
    /// It is of another series.
    #[error("its version is {0}")]
    Version(String),
    /// A structure is not as expected.
    #[error("{what} is {found}, expected {expected}")]
    Layout {
        /// What was compared.
        what: String,
        /// The value in this library's layout.
        expected: String,
        /// The value in the process.
        found: String,
    },
}

/// Compares.
pub(super) fn equal<T: PartialEq + Debug>(
    what: String,
    expected: T,
    found: T,
) -> Result<(), Refusal> {
    if expected == found {
        Ok(())
    } else {
        Err(mismatch(
            &what,
            &format!("{expected:?}"),
            &format!("{found:?}"),
        ))
    }
}

/// A structure that is not as expected.
pub(super) fn mismatch(what: &str, expected: &str, found: &str) -> Refusal {
    Refusal::Layout {
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}
