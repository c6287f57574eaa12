// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device as its host sees it: the lock, the steps, and what comes down from upstream.

use crate::config::{Config, ConfigError};
use crate::config_space::ConfigSpace;
use crate::sync::{AtomicU64, Mutex, Ordering};
use pcie_ats::{Function, InvalidateRequest, Invalidation, Pasid, PrgResponse, Reset, RootPort};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something: there may be more to do.
    Worked,
    /// Nothing, until something comes down to the function (a doorbell, a response, a write to
    /// configuration space, ...) or a step in another thread ends.
    Idle,
}

/// The device.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    space: Mutex<ConfigSpace>,
    pasid_generation: AtomicU64,
}

impl Endpoint {
    /// Makes a device, as after power-up.
    pub fn new(config: Config) -> Result<Endpoint, ConfigError> {
        config.check()?;
        Ok(Endpoint {
            config,
            space: Mutex::new(ConfigSpace::new(&config)),
            pasid_generation: AtomicU64::new(0),
        })
    }

    /// The properties that the device was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of MSI-X vectors: one for each context, and vector 0.
    pub fn vectors(&self) -> u16 {
        self.config.contexts + 1
    }

    /// Does at most one round of look-up, translation and bounded DMA for one context, and never
    /// waits. Several threads may call it at once.
    pub fn step<P: RootPort + ?Sized>(&self, _port: &P) -> Step {
        Step::Idle
    }

    /// Whether a step would do something now.
    pub fn has_work(&self) -> bool {
        false
    }

    /// The PASIDs that contexts use now.
    pub fn pasids(&self) -> Vec<Pasid> {
        Vec::new()
    }

    /// A number that changes whenever [`Endpoint::pasids`] may have changed.
    pub fn pasid_generation(&self) -> u64 {
        self.pasid_generation.load(Ordering::Acquire)
    }
}

impl Function for Endpoint {
    fn config_read(&self, offset: u16) -> u32 {
        self.space.lock().read(offset)
    }

    fn config_write(&self, offset: u16, value: u32, mask: u32) {
        let _ = self.space.lock().write(offset, value, mask);
    }

    fn bar_read(&self, _bar: u8, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _value: u64, _size: u8) {}

    fn invalidate(&self, _request: &InvalidateRequest) -> Invalidation {
        Invalidation::Completed
    }

    fn prg_response(&self, _response: &PrgResponse) {}

    fn reset(&self, _kind: Reset) {
        *self.space.lock() = ConfigSpace::new(&self.config);
    }
}
