// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deliberate violations of rules, of the device and of the unit.

use std::fmt;
use svm_endpoint::Mutant as DeviceMutant;
use vtd::mutant::Mutant as UnitMutant;

/// A deliberate violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Of the device.
    Device(DeviceMutant),
    /// Of the device in what its host may do in its place: headers of capabilities, the PASIDs of
    /// invalidations, and their completions. QEMU does.
    Hosted(DeviceMutant),
    /// Of this project's unit, in this process.
    Unit(UnitMutant),
}

impl Mutant {
    /// What is done wrong.
    pub fn doc(self) -> &'static str {
        match self {
            Mutant::Device(mutant) | Mutant::Hosted(mutant) => mutant.doc().trim(),
            Mutant::Unit(mutant) => mutant.doc().trim(),
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mutant::Device(mutant) | Mutant::Hosted(mutant) => write!(f, "device {mutant:?}"),
            Mutant::Unit(mutant) => write!(f, "unit {mutant:?}"),
        }
    }
}
