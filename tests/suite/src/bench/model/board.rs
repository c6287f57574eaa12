// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine of a model as the suite drives it.

use super::super::host::{Hook, Host};
use super::machine::{DEVICE, ModelMachine, lock};
use super::port::Port;
use machine::FunctionId;
use machine::os::Board;
use pcie_ats::{Function, Reset};
use std::sync::atomic::Ordering;
use std::time::Duration;
use svm_abi::ids;
use svm_endpoint::{Power, Step};
use vtd::memory::{Memory, MemoryError};
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;

impl Board for ModelMachine {
    fn memory_bytes(&self) -> u64 {
        self.ram.bytes()
    }

    fn memory_read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        self.ram.read(address, data)
    }

    fn memory_write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.ram.write(address, data)
    }

    fn load(&self, address: u64) -> Result<u64, MemoryError> {
        self.ram.load(address)
    }

    fn store(&self, address: u64, value: u64) -> Result<(), MemoryError> {
        self.ram.store(address, value)
    }

    fn swap(&self, address: u64, value: u64) -> Result<u64, MemoryError> {
        self.ram.swap(address, value)
    }

    fn units(&self) -> usize {
        1
    }

    fn unit_read(&self, _: usize, offset: u16, size: u8) -> u64 {
        self.call(|model, _| model.read(offset, size))
    }

    fn unit_write(&self, _: usize, offset: u16, value: u64, size: u8) {
        self.call(|model, platform| model.write(platform, offset, value, size));
    }

    fn functions(&self) -> usize {
        1
    }

    fn requester(&self, _: FunctionId) -> SourceId {
        DEVICE
    }

    fn unit_of(&self, _: FunctionId) -> usize {
        0
    }

    fn config_read(&self, _: FunctionId, offset: u16) -> u32 {
        self.endpoint.config_read(offset)
    }

    fn config_write(&self, _: FunctionId, offset: u16, value: u32, mask: u32) {
        self.endpoint.config_write(offset, value, mask);
    }

    fn bar_read(&self, _: FunctionId, bar: u8, offset: u64, size: u8) -> u64 {
        match bar {
            // Software sets vectors by `set_msix`.
            ids::MSIX_BAR => 0,
            _ => self.endpoint.bar_read(bar, offset, size),
        }
    }

    fn bar_write(&self, _: FunctionId, bar: u8, offset: u64, value: u64, size: u8) {
        if bar != ids::MSIX_BAR {
            self.endpoint.bar_write(bar, offset, value, size);
        }
    }

    /// Interrupts are counted, and go past the model, which need not remap them.
    fn set_msix(&self, _: FunctionId, vector: u16, message: Option<Message>) {
        if let Some(place) = lock(&self.vectors).get_mut(usize::from(vector)) {
            *place = message.is_some();
        }
    }

    fn step(&self) -> bool {
        let worked = self.endpoint.step(&Port(self)) == Step::Worked;
        if !worked {
            // What it waits for begins now, and not only when time has passed.
            self.tell_time();
        }
        worked
    }
}

impl Host for ModelMachine {
    fn reset_function(&self) {
        self.endpoint.reset(Reset::FunctionLevel);
        lock(&self.vectors).fill(false);
    }

    fn set_power(&self, on: bool) {
        let power = if on { Power::D0 } else { Power::D3Hot };
        self.endpoint.set_power(power);
    }

    fn advance(&self, by: Duration) {
        let nanoseconds = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.clock.fetch_add(nanoseconds, Ordering::Relaxed);
        self.call(|model, platform| model.advance(platform, by));
        self.tell_time();
    }

    fn take_interrupts(&self) -> usize {
        self.interrupts.swap(0, Ordering::Relaxed)
    }

    fn mailbox(&self) -> Option<u64> {
        None
    }

    fn set_hook(&self, hook: Option<Hook>) -> bool {
        self.has_hook.store(hook.is_some(), Ordering::Relaxed);
        *lock(&self.hook) = hook;
        true
    }

    fn reset_system(&self) {
        self.call(|model, _| model.reset());
        self.endpoint.reset(Reset::Conventional);
        lock(&self.vectors).fill(false);
    }

    fn lose_invalidations(&self, lose: bool) -> bool {
        self.loses_invalidations.store(lose, Ordering::Relaxed);
        true
    }
}
