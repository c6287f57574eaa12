// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine in this process as the board of the operating system.

use super::board::Board;
use crate::machine::{FunctionId, Machine};
use std::sync::atomic::Ordering;
use std::time::Duration;
use vtd::memory::{Memory, MemoryError};
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;

impl Board for Machine {
    fn memory_bytes(&self) -> u64 {
        self.ram().bytes()
    }

    fn memory_read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        self.ram().read(address, data)
    }

    fn memory_write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.ram().write(address, data)
    }

    fn load(&self, address: u64) -> Result<u64, MemoryError> {
        self.ram().load(address)
    }

    fn store(&self, address: u64, value: u64) -> Result<(), MemoryError> {
        self.ram().store(address, value)
    }

    fn swap(&self, address: u64, value: u64) -> Result<u64, MemoryError> {
        self.ram().swap(address, value)
    }

    fn units(&self) -> usize {
        self.units()
    }

    fn unit_read(&self, unit: usize, offset: u16, size: u8) -> u64 {
        self.unit_read(unit, offset, size)
    }

    fn unit_write(&self, unit: usize, offset: u16, value: u64, size: u8) {
        self.unit_write(unit, offset, value, size);
    }

    fn functions(&self) -> usize {
        self.functions()
    }

    fn requester(&self, function: FunctionId) -> SourceId {
        self.requester(function)
    }

    fn unit_of(&self, function: FunctionId) -> usize {
        self.unit_of(function)
    }

    fn config_read(&self, function: FunctionId, offset: u16) -> u32 {
        self.config_read(function, offset)
    }

    fn config_write(&self, function: FunctionId, offset: u16, value: u32, mask: u32) {
        self.config_write(function, offset, value, mask);
    }

    fn bar_read(&self, function: FunctionId, bar: u8, offset: u64, size: u8) -> u64 {
        self.bar_read(function, bar, offset, size)
    }

    fn bar_write(&self, function: FunctionId, bar: u8, offset: u64, value: u64, size: u8) {
        self.bar_write(function, bar, offset, value, size);
    }

    fn set_msix(&self, function: FunctionId, vector: u16, message: Option<Message>) {
        self.set_msix(function, vector, message);
    }

    fn step(&self) -> bool {
        self.step()
    }

    fn is_driven(&self) -> bool {
        self.0.engines.load(Ordering::SeqCst) != 0
    }

    fn news(&self) -> u64 {
        self.0.news.count()
    }

    fn wait_for_news(&self, seen: u64, timeout: Duration) {
        self.0.news.wait(seen, timeout);
    }
}
