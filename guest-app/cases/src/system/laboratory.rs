// SPDX-License-Identifier: MIT OR Apache-2.0
//! The laboratory of a device that was created with one: the device can be told to break a rule, or
//! to read as all ones for a while.

use std::fs::{self, File, OpenOptions};

use anyhow::{Context, ensure};
use memmap2::{MmapOptions, MmapRaw};
use svmctl::abi::registers::{LABORATORY, REGISTERS_SIZE, capabilities, device, laboratory};

use super::sysfs::Function;

/// Why a case that needs one is skipped.
pub const NONE: &str = "the device has no laboratory (-device svm-demo,lab=on)";

/// The registers of a function without a driver.
#[derive(Debug)]
pub struct Laboratory<'a> {
    function: &'a Function,
    registers: MmapRaw,
}

impl<'a> Laboratory<'a> {
    /// Opens the laboratory of a function without a driver; `None` if it has none.
    ///
    /// # Errors
    ///
    /// Those of sysfs; the function has a driver.
    pub fn of(function: &'a Function) -> anyhow::Result<Option<Laboratory<'a>>> {
        ensure!(
            !function.file("driver").exists(),
            "a driver has the function, whose registers are not to be touched then"
        );
        fs::write(function.file("enable"), "1").context("the function cannot be enabled")?;
        let path = function.file("resource0");
        let open =
            || -> std::io::Result<File> { OpenOptions::new().read(true).write(true).open(&path) };
        let file = open().with_context(|| path.display().to_string())?;
        let registers = MmapOptions::new()
            .len(REGISTERS_SIZE as usize)
            .map_raw(&file)
            .with_context(|| format!("{} cannot be mapped", path.display()))?;
        let laboratory = Laboratory {
            function,
            registers,
        };
        let present = laboratory.read(device::CAPABILITIES) & capabilities::LABORATORY != 0;
        Ok(present.then_some(laboratory))
    }

    /// Calls `change` with the laboratory of a function, which has no driver meanwhile; `None` if
    /// it has no laboratory.
    ///
    /// # Errors
    ///
    /// Those of sysfs, and those of `change`.
    pub fn change<T>(
        function: &Function,
        change: impl FnOnce(&Laboratory<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        function.unbind()?;
        let result = Laboratory::of(function)
            .and_then(|laboratory| laboratory.as_ref().map(change).transpose());
        function.bind()?;
        result
    }

    /// Makes the device break the rule with this number from now on; 0 is none.
    ///
    /// # Errors
    ///
    /// The device has no such mutant.
    pub fn set_mutant(&self, rule: u64) -> anyhow::Result<()> {
        let offset = LABORATORY + laboratory::MUTANT;
        self.write(offset, rule);
        let mutant = self.read(offset);
        ensure!(
            mutant == rule,
            "the device has no mutant of rule {rule}: the register has {mutant}"
        );
        Ok(())
    }

    /// Makes the next context that is told to stop read as all ones `reads` times.
    pub fn set_silence(&self, reads: u64) {
        self.write(LABORATORY + laboratory::SILENCE, reads);
    }

    /// How many of these reads are left.
    pub fn silence(&self) -> u64 {
        self.read(LABORATORY + laboratory::SILENCE)
    }

    fn write(&self, offset: u64, value: u64) {
        // SAFETY: as in `read`. The caller wants the device to misbehave; no context is at work
        // that could affect this process.
        unsafe { self.register(offset).write_volatile(value) };
    }

    fn read(&self, offset: u64) -> u64 {
        // SAFETY: the register is within the mapped registers, and aligned. The access is volatile,
        // since it is to a device.
        unsafe { self.register(offset).read_volatile() }
    }

    fn register(&self, offset: u64) -> *mut u64 {
        assert!(offset % 8 == 0 && offset < REGISTERS_SIZE);
        self.registers
            .as_mut_ptr()
            .wrapping_add(offset as usize)
            .cast()
    }
}

impl Drop for Laboratory<'_> {
    fn drop(&mut self) {
        // Undoes what `of` did: the driver enables the function for itself.
        let _ = fs::write(self.function.file("enable"), "0");
    }
}
