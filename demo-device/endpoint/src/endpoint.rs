// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device as its host sees it: the lock, the steps, and what comes down from upstream.

use crate::config::{Config, ConfigError};
use crate::config_space::Power;
use crate::device::Device;
use crate::permit::Permit;
use crate::registers;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use pcie_ats::{
    Function, InvalidateCompletion, InvalidateRequest, Invalidation, Pasid, PrgResponse, Reset,
    RootPort,
};

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
///
/// Its lock is never held while the [`RootPort`] is called.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    device: Mutex<Device>,
    pasid_generation: Arc<AtomicU64>,
    permit: Arc<Permit>,
}

impl Endpoint {
    /// Makes a device, as after power-up.
    pub fn new(config: Config) -> Result<Endpoint, ConfigError> {
        config.check()?;
        let pasid_generation = Arc::new(AtomicU64::new(0));
        let permit = Arc::new(Permit::new(config.contexts.into()));
        let device = Device::new(&config, pasid_generation.clone(), permit.clone());
        Ok(Endpoint {
            config,
            device: Mutex::new(device),
            pasid_generation,
            permit,
        })
    }

    /// The properties that the device was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of MSI-X vectors: one for each context, and one more.
    pub fn vectors(&self) -> u16 {
        self.config.vectors()
    }

    /// Gives one context its turn: a bounded number of look-ups and requests and at most 256 KiB of
    /// data, usually all of several small descriptors. Never waits. Several threads may call it at once;
    /// they work for different contexts.
    pub fn step<P: RootPort + ?Sized>(&self, port: &P) -> Step {
        let Some(mut turn) = self.device.lock().begin_turn() else {
            return Step::Idle;
        };
        loop {
            turn.perform(port, &self.permit);
            let mut device = self.device.lock();
            let itag_vector = device.end_action(&mut turn);
            let member = turn.index;
            let overtaken = device.is_unsettled(member);
            let more = device.next_in_turn(&mut turn);
            let turn_goes_on = match more {
                true => Some(turn),
                false => {
                    device.end_turn(turn);
                    None
                }
            };
            drop(device);
            complete(port, itag_vector);
            if overtaken {
                self.device.lock().settled(member);
            }
            match turn_goes_on {
                Some(next) => turn = next,
                None => return Step::Worked,
            }
        }
    }

    /// Whether the function is quiet after a reset, or after bus mastering, ATS or PASID was taken
    /// away. Both take effect at once: nothing new is sent. But where several threads call
    /// [`Endpoint::step`], each may be in the middle of one request then, which reaches memory
    /// afterwards. A host that completes the reset (PCIe 6.6.2), or hands the memory to somebody
    /// else, waits until this is true: it becomes so when those steps return or go on, and for good.
    /// Where one thread does all, it is true whenever no step is under way.
    pub fn quiesced(&self) -> bool {
        self.device.lock().quiesced()
    }

    /// Whether a step may have something to do. If not, it would be idle.
    pub fn has_work(&self) -> bool {
        self.device.lock().has_work()
    }

    /// Says what time it is, by a clock of the host that never runs backwards, in microseconds.
    /// Returns when the next call is due; none if nothing waits for the time. Steps can begin new
    /// waits, so a call is due after them in any case, but no sooner than the host is idle or some
    /// time has passed.
    ///
    /// Three things wait. Descriptors whose page requests are not answered in time fail: see
    /// [`Config::page_response_timeout`]. Pages that a response did not bring are requested once
    /// more: see [`Config::page_request_backoff`]. And interrupts that moderation holds back are
    /// sent in the end. A wait is timed from the first call after it began, so it lasts at most one
    /// interval of calls longer than it may, and is never cut short.
    pub fn tick(&self, now: u64) -> Option<u64> {
        self.device.lock().tick(now)
    }

    /// Changes the power state, as the power management capability of the host has it. Contexts
    /// that are at work halt when it leaves D0. While it is in D3hot the BARs read as all ones and
    /// ignore writes, and nothing is sent.
    pub fn set_power(&self, power: Power) {
        self.device.lock().set_power(power);
    }

    /// How many translations of 2^`shift` bytes the address translation cache has now: those that
    /// were answered in this size, and neighbours that have grown together to it. For tests.
    pub fn cached(&self, shift: u8) -> u32 {
        self.device.lock().cached(shift)
    }

    /// The PASIDs that contexts use now, each once.
    pub fn pasids(&self) -> Vec<Pasid> {
        self.device.lock().pasids()
    }

    /// A number that changes whenever [`Endpoint::pasids`] may have changed.
    pub fn pasid_generation(&self) -> u64 {
        self.pasid_generation.load(Ordering::Acquire)
    }
}

/// Completes the invalidations that waited.
fn complete<P: RootPort + ?Sized>(port: &P, itag_vector: u32) {
    if itag_vector != 0 {
        port.invalidate_completion(&InvalidateCompletion {
            itag_vector,
            completion_count: 1,
        });
    }
}

impl Function for Endpoint {
    fn config_read(&self, offset: u16) -> u32 {
        self.device.lock().config_read(offset)
    }

    fn config_write(&self, offset: u16, value: u32, mask: u32) {
        self.device.lock().config_write(offset, value, mask);
    }

    fn bar_read(&self, bar: u8, offset: u64, size: u8) -> u64 {
        let contexts = usize::from(self.config.contexts);
        match registers::decode(bar, offset, size, contexts) {
            Some((register, part)) => {
                let value = self.device.lock().read_register(register);
                part.extract(value)
            }
            None => 0,
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, value: u64, size: u8) {
        let contexts = usize::from(self.config.contexts);
        if let Some((register, part)) = registers::decode(bar, offset, size, contexts) {
            self.device.lock().write_register(register, part, value);
        }
    }

    fn invalidate(&self, request: &InvalidateRequest) -> Invalidation {
        self.device.lock().invalidate(request)
    }

    fn prg_response(&self, response: &PrgResponse) {
        self.device.lock().prg_response(response);
    }

    fn reset(&self, kind: Reset) {
        // Both kinds make everything as new; the laboratory's mutant outlives that of the function.
        self.device.lock().reset(kind);
    }
}
