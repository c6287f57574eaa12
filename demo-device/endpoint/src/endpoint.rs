// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device as its host sees it: the lock, the steps, and the requests from upstream.

use crate::config::{Config, ConfigError};
use crate::config_space::Power;
use crate::device::Device;
use crate::permit::Permit;
use crate::registers;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::turn::{BUDGET, SHARED_BUDGET, Turn};
use crate::witness::{SharedLog, Witness};
use pcie_ats::{
    Function, InvalidateCompletion, InvalidateRequest, Invalidation, Pasid, PrgResponse, Reset,
    RootPort,
};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The step worked; there may be more to do.
    Worked,
    /// Nothing to do until something reaches the function (a doorbell, a response, a write to
    /// configuration space, ...) or a step in another thread ends.
    Idle,
}

/// The device.
///
/// It never holds its lock while it calls the [`RootPort`].
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    device: Mutex<Device>,
    pasid_generation: Arc<AtomicU64>,
    permit: Arc<Permit>,
    /// What was sent, if there is a laboratory to show it.
    log: SharedLog,
}

impl Endpoint {
    /// Creates a device in the state after power-up.
    pub fn new(config: Config) -> Result<Endpoint, ConfigError> {
        config.check()?;
        let pasid_generation = Arc::new(AtomicU64::new(0));
        let permit = Arc::new(Permit::new(config.contexts.into()));
        let log = SharedLog::default();
        let device = Device::new(
            &config,
            pasid_generation.clone(),
            permit.clone(),
            log.clone(),
        );
        Ok(Endpoint {
            config,
            device: Mutex::new(device),
            pasid_generation,
            permit,
            log,
        })
    }

    /// The properties of the device.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of MSI-X vectors: one for each context, and one more.
    pub fn vectors(&self) -> u16 {
        self.config.vectors()
    }

    /// Gives one context its turn: a bounded number of look-ups and requests and at most 256 KiB of
    /// data, usually several small descriptors. It never waits. Several threads may call it at
    /// once; they work for different contexts.
    pub fn step<P: RootPort + ?Sized>(&self, port: &P) -> Step {
        self.step_within(port, BUDGET)
    }

    /// Like [`Endpoint::step`], but moves at most 64 KiB. For a host that steps in the thread that
    /// has written to a doorbell: a small operation is done when the write is, and needs no second
    /// thread. What is left, other steps do.
    pub fn step_briefly<P: RootPort + ?Sized>(&self, port: &P) -> Step {
        self.step_within(port, SHARED_BUDGET)
    }

    fn step_within<P: RootPort + ?Sized>(&self, port: &P, most: u64) -> Step {
        let Some(mut turn) = self.device.lock().begin_turn(most) else {
            return Step::Idle;
        };
        loop {
            self.perform(&mut turn, port);
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

    /// Carries out an action of a turn, which is noted if there is a laboratory.
    fn perform<P: RootPort + ?Sized>(&self, turn: &mut Turn, port: &P) {
        if self.config.laboratory {
            turn.perform(&Witness::new(port, &self.log), &self.permit);
        } else {
            turn.perform(port, &self.permit);
        }
    }

    /// Whether the function is quiet after a reset, or after bus mastering, ATS or PASID was
    /// disabled. Both take effect at once: the function sends nothing new. But if several threads
    /// call [`Endpoint::step`], each may be in the middle of a request, which reaches memory
    /// afterwards. Before a host completes the reset (PCIe 6.6.2), or gives the memory to another
    /// user, it waits until this is true: it becomes true when those steps return or continue, and
    /// stays true. With a single thread it is true whenever no step is running.
    pub fn quiesced(&self) -> bool {
        self.device.lock().quiesced()
    }

    /// Whether a step may have something to do. If not, a step returns [`Step::Idle`].
    pub fn has_work(&self) -> bool {
        self.device.lock().has_work()
    }

    /// Tells the device the time, in microseconds, from a clock of the host that never runs
    /// backwards. Returns when the next call is due, or none if nothing waits for a time. Steps can
    /// begin new waits, so the host also calls this after steps, but only once it is idle or some
    /// time has passed.
    ///
    /// Three things depend on the time. A descriptor fails if its page requests get no response in
    /// time: see [`Config::page_response_timeout`]. The device repeats the request for a page that
    /// is still absent after a response: see [`Config::page_request_backoff`]. And it sends the
    /// interrupts that moderation holds back. A wait is timed from the first call after it began,
    /// so it lasts at most one interval between calls too long, and is never too short.
    pub fn tick(&self, now: u64) -> Option<u64> {
        self.device.lock().tick(now)
    }

    /// Changes the power state; the host's power management capability decides on it. Active
    /// contexts halt when the function leaves D0. In D3hot the BARs read as all ones and ignore
    /// writes, and the function sends nothing.
    pub fn set_power(&self, power: Power) {
        self.device.lock().set_power(power);
    }

    /// The number of translations of 2^`shift` bytes in the address translation cache: answers of
    /// this size, and neighbours that were joined to this size. For tests.
    pub fn cached(&self, shift: u8) -> u32 {
        self.device.lock().cached(shift)
    }

    /// The PASIDs that contexts use now, without duplicates.
    pub fn pasids(&self) -> Vec<Pasid> {
        self.device.lock().pasids()
    }

    /// A number that changes whenever [`Endpoint::pasids`] may have changed.
    pub fn pasid_generation(&self) -> u64 {
        self.pasid_generation.load(Ordering::Acquire)
    }
}

/// Completes invalidations that were pending.
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
        // Both kinds reset everything; the laboratory's mutant survives a function level reset.
        self.device.lock().reset(kind);
    }
}
