// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine is made of.

use crate::memory::RamError;
use vtd::spec::SourceId;

/// A function and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Requester id.
    pub requester: SourceId,
    /// Number of the remapping unit that it is behind.
    pub unit: usize,
    /// The endpoint's properties.
    pub endpoint: svm_endpoint::Config,
}

/// What a machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Bytes of guest memory, from address 0 on.
    pub memory: u64,
    /// Remapping units.
    pub units: Vec<vtd::Config>,
    /// Functions.
    pub functions: Vec<FunctionConfig>,
}

/// Bytes of guest memory that machines have if nothing else is said.
pub const MEMORY: u64 = 64 << 20;

/// Host address width of the units if nothing else is said: as little as most processors have, so
/// that addresses that are too wide can be told.
pub const HOST_ADDRESS_WIDTH: u8 = 46;

/// A unit with all that Linux uses, for a machine of this crate.
pub fn unit() -> vtd::Config {
    vtd::Config {
        host_address_width: HOST_ADDRESS_WIDTH,
        ..vtd::Config::default()
    }
}

impl MachineConfig {
    /// A machine with one unit and a number of endpoints behind it, at 00:01.0, 00:02.0 and so on.
    pub fn with_functions(count: u8) -> Self {
        let mut config = MachineConfig {
            memory: MEMORY,
            units: vec![unit()],
            functions: Vec::new(),
        };
        for _ in 0..count {
            config = config.function(0, svm_endpoint::Config::default());
        }
        config
    }

    /// The machine with one more endpoint, at the next free device number of bus 0.
    #[must_use]
    pub fn function(mut self, unit: usize, endpoint: svm_endpoint::Config) -> Self {
        let device = self.functions.len() as u16 + 1;
        self.functions.push(FunctionConfig {
            requester: SourceId(device << 3),
            unit,
            endpoint,
        });
        self
    }
}

impl Default for MachineConfig {
    /// One unit, and one endpoint behind it.
    fn default() -> Self {
        MachineConfig::with_functions(1)
    }
}

/// A machine that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Its memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// One of its units.
    #[error("unit {unit}: {source}")]
    Unit {
        /// Number of the unit.
        unit: usize,
        /// What is wrong.
        source: vtd::ConfigError,
    },
    /// One of its endpoints.
    #[error("endpoint at {requester}: {source}")]
    Endpoint {
        /// Where it is.
        requester: SourceId,
        /// What is wrong.
        source: svm_endpoint::ConfigError,
    },
    /// A function is behind a unit that is not there.
    #[error("the function at {requester} is behind unit {unit}, but there are {units}: add it")]
    NoUnit {
        /// Where the function is.
        requester: SourceId,
        /// The unit.
        unit: usize,
        /// How many units there are.
        units: usize,
    },
    /// Two functions have one requester id.
    #[error("two functions are at {0}: give each its own requester id")]
    SameRequester(SourceId),
}
