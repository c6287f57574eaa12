// SPDX-License-Identifier: GPL-2.0-or-later
//! One device: the endpoint, and its connections to QEMU. Knows nothing of QEMU's object model;
//! [`crate::instance`] creates and destroys it.
//!
//! The device holds none of its locks while it calls into QEMU or into the endpoint. All entry
//! points hold the BQL.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use pcie_ats::capability::{ATS_SIZE, PASID_SIZE, PRI_SIZE};
use pcie_ats::{
    AlignedRange, Function, InvalidateRequest, Itag, Pasid, PrgResponse, Prgi, Reset, ResponseCode,
};
use svm_abi::ids;
use svm_endpoint::{Endpoint, Power, config_space};

use crate::bell::Bell;
use crate::bql::Bql;
use crate::memory::Mmio;
use crate::notifiers::{Notifiers, Receiver};
use crate::pci::{PM_CONTROL, POWER_STATE, PciDevice};
use crate::remedy;
use crate::timer::{self, Timer};
use crate::trace::Trace;

/// Offset of the command register.
const COMMAND: u16 = 0x04;
/// Offset of the device control register in the PCI Express capability.
const DEVICE_CONTROL: u16 = 8;
/// Initiate Function Level Reset, in the device control register.
const INITIATE_FLR: u32 = 1 << 15;
/// Stopped, in the status half of the page request capability's second double word.
const PRI_STOPPED: u32 = 1 << 24;

/// The structures that the endpoint implements, without their headers: first and last offset.
const STRUCTURES: [(u16, u16); 3] = [
    (config_space::ATS + 4, config_space::ATS + ATS_SIZE - 4),
    (config_space::PRI + 4, config_space::PRI + PRI_SIZE - 4),
    (
        config_space::PASID + 4,
        config_space::PASID + PASID_SIZE - 4,
    ),
];

/// A device.
pub struct Device {
    /// QEMU's side of the function.
    pub pci: PciDevice,
    /// The behaviour of the function.
    pub endpoint: Endpoint,
    /// Receives invalidations and responses from the vIOMMU.
    pub notifiers: Notifiers,
    /// The trace, if requested.
    pub trace: Option<Arc<Trace>>,
    /// Tells the engine's thread that there is work.
    pub bell: Arc<Bell>,
    /// Rings the bell at the next deadline of the endpoint, in the machine's time.
    pub alarm: OnceLock<Timer>,
    /// The machine is stopped: memory must stay as it is.
    pub stopped: AtomicBool,
    /// A step is being taken: what it accesses may be a doorbell. Changes under the BQL.
    pub in_step: AtomicBool,
    /// The property: do not ask the vIOMMU about PASIDs whose entry is not present, if it needs
    /// this remedy.
    pasid_check: bool,
    /// Whether it needs the remedy: known when the machine is complete, and determined when the
    /// device first works.
    checks_pasids: OnceLock<bool>,
    /// Offset of the PCI Express capability.
    express: OnceLock<u8>,
    /// Offset of the control and status register of power management.
    power: OnceLock<u16>,
}

impl Device {
    /// Connects an endpoint to its function.
    pub fn new(
        pci: PciDevice,
        endpoint: Endpoint,
        trace: Option<Arc<Trace>>,
        pasid_check: bool,
    ) -> Arc<Device> {
        Arc::new_cyclic(|me: &Weak<Device>| Device {
            pci,
            endpoint,
            notifiers: Notifiers::new(pci, me.clone()),
            trace,
            bell: Arc::default(),
            alarm: OnceLock::new(),
            stopped: AtomicBool::new(false),
            in_step: AtomicBool::new(false),
            pasid_check,
            checks_pasids: OnceLock::new(),
            express: OnceLock::new(),
            power: OnceLock::new(),
        })
    }

    /// Creates the timer. False if QEMU's timers do not have the expected layout.
    pub fn prepare(self: &Arc<Self>, bql: &Bql) -> bool {
        let me = Arc::downgrade(self);
        let ring = move |_: &Bql| {
            if let Some(device) = me.upgrade() {
                device.bell.ring();
            }
        };
        let Some(alarm) = Timer::virtual_time(bql, Box::new(ring)) else {
            return false;
        };
        self.alarm.set(alarm).is_ok()
    }

    /// Lays out configuration space, given the offsets of QEMU's own capabilities.
    pub fn add_capabilities(&self, bql: &Bql, express: u8, power: u8) {
        let config = self.endpoint.config();
        // A second call would be a second device.
        let _ = self.express.set(express);
        let _ = self.power.set(u16::from(power) + PM_CONTROL);
        self.pci.add_ats(bql, config_space::ATS);
        self.pci
            .add_pri(bql, config_space::PRI, config.pri_capacity);
        self.pci.add_pasid(
            bql,
            config_space::PASID,
            config.pasid_width.bits(),
            config.execute,
            config.privileged,
        );
        self.mirror(bql);
    }

    /// Copies the endpoint's capability registers into QEMU's configuration space, for QEMU's own
    /// checks of enable bits and for reads by software.
    fn mirror(&self, bql: &Bql) {
        for (first, last) in STRUCTURES {
            for offset in (first..=last).step_by(4) {
                let value = self.endpoint.config_read(offset);
                self.pci.write_config_raw(bql, offset, value);
            }
        }
    }

    /// Handles a read of configuration space.
    pub fn config_read(&self, bql: &Bql, address: u32, length: c_int) -> u32 {
        // Status bits change without a write.
        self.mirror(bql);
        self.pci.read_config(bql, address, length)
    }

    /// Handles a write of configuration space.
    pub fn config_write(&self, bql: &Bql, address: u32, value: u32, length: c_int) {
        let power = self.power(bql);
        self.pci.write_config(bql, address, value, length);
        if self.power(bql) != power {
            self.endpoint.set_power(self.power(bql));
        }
        for (offset, value, mask) in double_words(address, value, length) {
            if is_owned(offset) {
                self.endpoint.config_write(offset, value, mask);
            }
        }
        self.mirror(bql);
        if self.endpoint.config_read(config_space::PRI + 4) & PRI_STOPPED != 0 {
            // Nothing is outstanding any more.
            self.notifiers.page_requests_stopped();
            if let Some(trace) = &self.trace {
                trace.page_requests_stopped();
            }
        }
        self.notifiers.sync(bql, &self.endpoint, true);
        self.bell.ring();
    }

    /// Handles a reset of the function.
    pub fn reset(&self, bql: &Bql) {
        let kind = match self.express.get() {
            // QEMU keeps the bit set during a function level reset.
            Some(express) if self.device_control(bql, *express) & INITIATE_FLR != 0 => {
                Reset::FunctionLevel
            }
            _ => Reset::Conventional,
        };
        if let Some(trace) = &self.trace {
            trace.function(match kind {
                Reset::Conventional => "conventional reset",
                Reset::FunctionLevel => "function level reset",
            });
        }
        self.notifiers.clear(bql);
        if let Some(at) = self.power.get() {
            let control = self.pci.read_config_raw(bql, *at);
            self.pci.write_config_raw(bql, *at, control & !POWER_STATE);
        }
        self.endpoint.reset(kind);
        self.mirror(bql);
        self.bell.ring();
    }

    /// Whether to check a PASID's entry before asking the vIOMMU about it.
    pub fn checks_pasids(&self, bql: &Bql) -> bool {
        let needed = || self.pasid_check && remedy::intel_iommu(bql).is_some();
        *self.checks_pasids.get_or_init(needed)
    }

    /// The power state that software has chosen.
    fn power(&self, bql: &Bql) -> Power {
        match self.power.get() {
            Some(at) if self.pci.read_config_raw(bql, *at) & POWER_STATE != 0 => Power::D3Hot,
            _ => Power::D0,
        }
    }

    /// The device control register.
    fn device_control(&self, bql: &Bql, express: u8) -> u32 {
        self.pci
            .read_config_raw(bql, u16::from(express) + DEVICE_CONTROL)
            & 0xffff
    }

    /// Handles a start or stop of the machine.
    pub fn machine_runs(&self, _bql: &Bql, running: bool) {
        self.stopped.store(!running, Ordering::Release);
        if running {
            self.bell.ring();
        }
    }

    /// Unregisters everything that QEMU could still call. The engine's thread has ended.
    pub fn shut_down(&self, bql: &Bql) {
        self.notifiers.clear(bql);
        self.close_trace();
    }

    /// Completes the trace, if there is one.
    pub fn close_trace(&self) {
        if let Some(trace) = &self.trace {
            trace.close();
        }
    }

    /// Makes the endpoint drop translations.
    fn invalidate(&self, pasid: Option<Pasid>, range: AlignedRange) {
        let Ok(itag) = Itag::new(0) else { return };
        // It is pending only if the device's own access has caused it: see
        // `Port::invalidate_completion`.
        let _ = self.endpoint.invalidate(&InvalidateRequest {
            itag,
            pasid,
            range,
            global: false,
        });
    }

    /// Answers a page request on behalf of the root complex.
    pub fn answer(&self, response: &PrgResponse) {
        self.notifiers.page_answered(response.pasid, response.prgi);
        if let Some(trace) = &self.trace {
            trace.prg_response(response, true);
        }
        self.endpoint.prg_response(response);
        self.ring_if_needed();
    }

    /// The time for the endpoint, in microseconds: the machine's time.
    pub fn now(&self) -> u64 {
        u64::try_from(timer::virtual_now().as_micros()).unwrap_or(u64::MAX)
    }

    /// Wakes the engine's thread if it has something to do.
    fn ring_if_needed(&self) {
        if self.endpoint.has_work() {
            self.bell.ring();
        }
    }
}

impl Receiver for Device {
    fn invalidated(&self, _bql: &Bql, pasid: Option<Pasid>, range: AlignedRange) {
        let begin = self.trace.as_ref().map(|trace| trace.now());
        self.invalidate(pasid, range);
        if let (Some(trace), Some(begin)) = (&self.trace, begin) {
            trace.invalidation(begin, pasid, range);
        }
        self.ring_if_needed();
    }

    fn forget(&self, pasid: Option<Pasid>) {
        self.invalidate(pasid, AlignedRange::ALL);
    }

    fn responded(&self, _bql: &Bql, pasid: Option<Pasid>, prgi: Prgi, code: ResponseCode) {
        let response = PrgResponse { prgi, pasid, code };
        self.notifiers.page_answered(pasid, prgi);
        if let Some(trace) = &self.trace {
            trace.prg_response(&response, false);
        }
        self.endpoint.prg_response(&response);
        self.ring_if_needed();
    }
}

/// A BAR of a device.
pub struct Bar {
    /// The device.
    pub device: Weak<Device>,
    /// Number of the BAR.
    pub number: u8,
}

impl Mmio for Bar {
    fn read(&self, _bql: &Bql, offset: u64, size: u8) -> u64 {
        match self.device.upgrade() {
            Some(device) => device.endpoint.bar_read(self.number, offset, size),
            None => u64::MAX,
        }
    }

    fn write(&self, bql: &Bql, offset: u64, value: u64, size: u8) {
        if let Some(device) = self.device.upgrade() {
            device.endpoint.bar_write(self.number, offset, value, size);
            device.notifiers.sync(bql, &device.endpoint, false);
            match self.number {
                ids::DOORBELLS_BAR => device.step_at_doorbell(bql),
                _ => device.bell.ring(),
            }
        }
    }
}

/// Whether the endpoint handles writes to the double word at an offset.
fn is_owned(offset: u16) -> bool {
    offset == COMMAND
        || STRUCTURES
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&offset))
}

/// The double words of an access to configuration space: offset, value and mask of each.
fn double_words(address: u32, value: u32, length: c_int) -> impl Iterator<Item = (u16, u32, u32)> {
    let bits = 8 * length.clamp(1, 4) as u32;
    let mask = u64::from(u32::MAX >> (32 - bits)) << (8 * (address & 3));
    let value = u64::from(value) << (8 * (address & 3));
    let first = (address & 0xffc) as u16;
    [
        (first, value as u32, mask as u32),
        (first + 4, (value >> 32) as u32, (mask >> 32) as u32),
    ]
    .into_iter()
    .filter(|(_, _, mask)| *mask != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_cut_into_double_words() {
        let words =
            |address, value, length| -> Vec<_> { double_words(address, value, length).collect() };
        assert_eq!(words(0x104, 0x8000_0000, 4), [(0x104, 0x8000_0000, !0)]);
        assert_eq!(words(0x106, 0x8000, 2), [(0x104, 0x8000_0000, 0xffff_0000)]);
        assert_eq!(words(0x107, 0x80, 1), [(0x104, 0x8000_0000, 0xff00_0000)]);
        assert_eq!(
            words(0x103, 0x1122_3344, 4),
            [
                (0x100, 0x4400_0000, 0xff00_0000),
                (0x104, 0x11_2233, 0x00ff_ffff)
            ]
        );
    }

    #[test]
    fn headers_belong_to_qemu() {
        for owned in [0x04, 0x104, 0x114, 0x118, 0x11c, 0x124] {
            assert!(is_owned(owned), "{owned:#x}");
        }
        for other in [0x00, 0x08, 0x100, 0x108, 0x110, 0x120, 0x128] {
            assert!(!is_owned(other), "{other:#x}");
        }
    }
}
