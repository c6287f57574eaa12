// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bench of QEMU over qtest: the device as the plug-in has it, behind one of two units.

use super::host::{Bench, Hook, Host, Shared, Wish};
use super::qemu::Qemu;
use crate::deviations::{self, Deviation};
use crate::need::Need;
use machine::FunctionId;
use machine::os::Board;
use std::ffi::OsString;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use svm_abi::ids;
use svm_abi::registers::{LABORATORY, laboratory};
use svm_endpoint::config_space;
use vtd::memory::MemoryError;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;
use vtd::spec::register::{fsts, offset};

/// A unit that QEMU can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// QEMU's own.
    IntelIommu,
    /// This project's.
    SvmVtd,
}

/// The bench.
#[derive(Debug)]
pub struct Qtest {
    /// What becomes QEMU with the plug-in.
    program: OsString,
    unit: Unit,
    version: String,
}

/// Registers of the unit.
const UNIT: u64 = 0xfed9_0000;
/// Where configuration space is made to begin.
const ECAM: u64 = 0xb000_0000;
/// Where BARs are put, 1 MiB from each other.
const BARS: u64 = 0xe000_0000;
/// The device, at 00:04.0.
const DEVICE: SourceId = SourceId(4 << 3);
/// Bytes of memory.
const MEMORY: u64 = 512 << 20;
/// Where interrupts go: below all that software gives out.
const MAILBOX: u64 = 0x7000;
/// What an interrupt writes there.
const RUNG: u32 = 0x4321;

/// Bytes of memory behind the last ones that software wrote to which the device may have written to:
/// a large page.
const RENEWED: u64 = 2 << 20;

/// Command register: memory space and bus master.
const COMMAND: u16 = 4;
/// Capability pointer.
const CAPABILITIES: u16 = 0x34;
/// Capability IDs (PCI Code and ID Assignment Specification).
const POWER_MANAGEMENT: u8 = 0x01;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;

/// How often a wait looks at most, at some tens of microseconds each.
const MOST_STEPS: usize = 100_000;
/// How often the unit's queue may be seen in motion while the device rests.
const MOST_ROUNDS: u32 = 500;

impl Qtest {
    /// A bench with a program that becomes QEMU with the plug-in, and one of its units.
    ///
    /// # Errors
    ///
    /// The program does not start.
    pub fn new(program: OsString, unit: Unit) -> std::io::Result<Qtest> {
        let output = std::process::Command::new(&program)
            .arg("--version")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().unwrap_or_default();
        let version = version.trim_start_matches("QEMU emulator version ");
        Ok(Qtest {
            program,
            unit,
            version: version.to_owned(),
        })
    }

    /// The unit's argument.
    fn unit_argument(&self, wish: &Wish) -> String {
        let switch = |on: bool| if on { "on" } else { "off" };
        let first_stage = switch(wish.first_stage);
        let mut common = format!("fsts={first_stage},fs1gp={}", switch(wish.one_gib_pages));
        if let Some(unit) = &wish.unit {
            // Both are told what they have by default, since their defaults differ.
            common += &format!(
                ",scalable-mode={},aw-bits={},snoop-control={},caching-mode={}",
                switch(unit.scalable),
                unit.address_bits,
                switch(unit.snoop_control),
                switch(unit.caching_mode),
            );
            if !unit.scalable {
                return match self.unit {
                    Unit::IntelIommu => {
                        format!("intel-iommu,device-iotlb=on,intremap=off,{common}")
                    }
                    Unit::SvmVtd => format!(
                        "svm-vtd,device-iotlb=on,intremap=off,svm=off,nest=off,pasid-bits=0,{common}"
                    ),
                };
            }
        }
        match self.unit {
            Unit::IntelIommu => format!(
                "intel-iommu,scalable-mode=on,svm={first_stage},device-iotlb=on,pasid-bits=20,\
                 intremap=off,{common}"
            ),
            Unit::SvmVtd if wish.first_stage => format!("svm-vtd,intremap=off,{common}"),
            Unit::SvmVtd => format!("svm-vtd,intremap=off,svm=off,nest=off,{common}"),
        }
    }
}

/// The device's argument. The plug-in's remedies are off: the unit itself is tested.
fn device_argument(wish: &Wish) -> String {
    let device = &wish.device;
    let switch = |on: bool| if on { "on" } else { "off" };
    format!(
        "svm-demo,addr=4.0,lab=on,smpwcs=off,pasid-check=off,wide-invalidations=off,contexts={},\
         atc-entries={},atc-ways={},pri-capacity={},pasid-bits={},execute={},privileged={},\
         stop-markers={}",
        device.contexts,
        device.atc_entries,
        device.atc_ways,
        device.pri_capacity,
        device.pasid_width.bits(),
        switch(device.execute),
        switch(device.privileged),
        switch(device.stop_markers),
    )
}

impl Bench for Qtest {
    fn name(&self) -> &'static str {
        match self.unit {
            Unit::IntelIommu => "qtest-intel-iommu",
            Unit::SvmVtd => "qtest-svm-vtd",
        }
    }

    fn machine(&self, wish: &Wish) -> Shared {
        let arguments = [
            "-device".to_owned(),
            self.unit_argument(wish),
            "-device".to_owned(),
            device_argument(wish),
        ];
        let qemu = Qemu::start(&self.program, &arguments);
        Arc::new(Machine::new(qemu))
    }

    fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::AccessWithPasid => {
                Some("QEMU's attributes of memory accesses have no place for a PASID")
            }
            Need::Moments => Some("software cannot act in the middle of a step of the device"),
            Need::LostMessages => {
                Some("QEMU's interface completes an invalidation by returning from a call")
            }
            Need::Supervisor if self.unit == Unit::IntelIommu => Some("ECAP.SRS is 0"),
            Need::Supervisor => None,
            Need::WithoutRidPasid => Some("no property of QEMU's takes RID_PASID away"),
            Need::WithoutFirstStage | Need::WithoutOneGibPages => None,
        }
    }

    fn deviations(&self) -> &'static [Deviation] {
        match self.unit {
            Unit::IntelIommu => deviations::INTEL_IOMMU,
            Unit::SvmVtd => &[],
        }
    }

    fn subject(&self) -> String {
        format!("QEMU {}, {}", self.version, &self.name()["qtest-".len()..])
    }
}

/// A machine of QEMU.
struct Machine {
    qemu: Mutex<Qemu>,
    /// Offsets of capabilities.
    power: u16,
    express: u16,
    msix: u16,
    /// How often the queue was seen in motion since the device had work.
    rounds: AtomicU32,
    /// The end of the memory that software has written to.
    used: AtomicU64,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// The address of a configuration register of the device.
fn config(at: u16) -> u64 {
    ECAM + (u64::from(DEVICE.0) << 12) + u64::from(at)
}

/// The address of a register of a BAR of the device.
fn bar_address(bar: u8, at: u64) -> u64 {
    BARS + u64::from(bar) * 0x10_0000 + at
}

impl Machine {
    fn new(mut qemu: Qemu) -> Machine {
        // PCIEXBAR of the host bridge: enabled, 256 MiB.
        qemu.command("outl 0xcf8 0x80000060");
        qemu.command(&format!("outl 0xcfc {:#x}", ECAM | 1));
        let mut machine = Machine {
            qemu: Mutex::new(qemu),
            power: 0,
            express: 0,
            msix: 0,
            rounds: AtomicU32::new(0),
            used: AtomicU64::new(0),
        };
        let mut at = u16::from(machine.config_read(0, CAPABILITIES) as u8);
        while at != 0 {
            let header = machine.config_read(0, at);
            match header as u8 {
                POWER_MANAGEMENT => machine.power = at,
                EXPRESS => machine.express = at,
                MSIX => machine.msix = at,
                _ => {}
            }
            at = u16::from((header >> 8) as u8);
        }
        machine.place_bars();
        machine
    }

    /// Gives the device its BARs, and memory space.
    fn place_bars(&self) {
        for bar in [ids::REGISTERS_BAR, ids::DOORBELLS_BAR, ids::MSIX_BAR] {
            let address = bar_address(bar, 0) as u32;
            self.config_write(0, 0x10 + 4 * u16::from(bar), address, !0);
        }
        self.config_write(0, COMMAND, 2, 0xffff);
    }

    fn qemu(&self) -> MutexGuard<'_, Qemu> {
        self.qemu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_number(&self, address: u64, size: u8) -> u64 {
        let letter = letter(size);
        self.qemu().number(&format!("read{letter} {address:#x}"))
    }

    fn write_number(&self, address: u64, value: u64, size: u8) {
        let letter = letter(size);
        let command = format!("write{letter} {address:#x} {value:#x}");
        self.qemu().command(&command);
    }

    /// Whether the invalidation queue is in motion.
    fn queue_moves(&self) -> bool {
        let head = self.unit_read(0, offset::IQH, 8);
        let tail = self.unit_read(0, offset::IQT, 8);
        let stopped = fsts::IQE | fsts::ITE;
        head != tail && self.unit_read(0, offset::FSTS, 4) as u32 & stopped == 0
    }
}

/// The letter of qtest's accesses.
fn letter(size: u8) -> char {
    match size {
        1 => 'b',
        2 => 'w',
        4 => 'l',
        _ => 'q',
    }
}

/// Fails behind the end of memory.
fn check(address: u64, length: u64) -> Result<(), MemoryError> {
    match address.checked_add(length) {
        Some(end) if end <= MEMORY => Ok(()),
        _ => Err(MemoryError { address }),
    }
}

impl Board for Machine {
    fn memory_bytes(&self) -> u64 {
        MEMORY
    }

    fn memory_read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        check(address, data.len() as u64)?;
        let answer = self
            .qemu()
            .command(&format!("read {address:#x} {:#x}", data.len()));
        let digits = answer.trim_start_matches("0x");
        for (n, byte) in data.iter_mut().enumerate() {
            let pair = digits.get(2 * n..2 * n + 2);
            *byte = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or(MemoryError { address })?;
        }
        Ok(())
    }

    fn memory_write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        check(address, data.len() as u64)?;
        self.used
            .fetch_max(address + data.len() as u64, Ordering::Relaxed);
        let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        let command = format!("write {address:#x} {:#x} 0x{digits}", data.len());
        self.qemu().command(&command);
        Ok(())
    }

    fn load(&self, address: u64) -> Result<u64, MemoryError> {
        check(address, 8)?;
        Ok(self.read_number(address, 8))
    }

    fn store(&self, address: u64, value: u64) -> Result<(), MemoryError> {
        check(address, 8)?;
        self.used.fetch_max(address + 8, Ordering::Relaxed);
        self.write_number(address, value, 8);
        Ok(())
    }

    /// Nobody else writes to tables while software does: the device moves by steps of QEMU's main
    /// loop, and flags are set there.
    fn swap(&self, address: u64, value: u64) -> Result<u64, MemoryError> {
        let old = self.load(address)?;
        self.store(address, value)?;
        Ok(old)
    }

    fn units(&self) -> usize {
        1
    }

    fn unit_read(&self, _: usize, offset: u16, size: u8) -> u64 {
        self.read_number(UNIT + u64::from(offset), size)
    }

    fn unit_write(&self, _: usize, offset: u16, value: u64, size: u8) {
        self.write_number(UNIT + u64::from(offset), value, size);
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

    fn config_read(&self, _: FunctionId, at: u16) -> u32 {
        self.read_number(config(at), 4) as u32
    }

    fn config_write(&self, _: FunctionId, at: u16, value: u32, mask: u32) {
        if mask == !0 {
            return self.write_number(config(at), value.into(), 4);
        }
        for (half, shift) in [(at, 0), (at + 2, 16)] {
            let mask = mask >> shift & 0xffff;
            if mask == 0 {
                continue;
            }
            // Bits of the status of page requests are cleared by writing ones.
            let others = match half == config_space::PRI + 6 {
                true => 0,
                false => self.read_number(config(half), 2) as u32 & !mask,
            };
            let value = others | value >> shift & mask;
            self.write_number(config(half), value.into(), 2);
        }
    }

    fn bar_read(&self, _: FunctionId, bar: u8, offset: u64, size: u8) -> u64 {
        self.read_number(bar_address(bar, offset), size)
    }

    fn bar_write(&self, _: FunctionId, bar: u8, offset: u64, value: u64, size: u8) {
        self.write_number(bar_address(bar, offset), value, size);
    }

    /// The message goes to memory, where it can be seen: see [`Host::mailbox`].
    fn set_msix(&self, _: FunctionId, vector: u16, message: Option<Message>) {
        let entry = bar_address(ids::MSIX_BAR, u64::from(vector) * 16);
        if message.is_some() {
            self.write_number(entry, MAILBOX, 8);
            self.write_number(entry + 8, RUNG.into(), 4);
            // MSI-X Enable, and no Function Mask.
            self.config_write(0, self.msix, 1 << 31, 3 << 30);
        }
        self.write_number(entry + 12, message.is_none().into(), 4);
    }

    /// The device goes on by itself; whether it has something to do its laboratory says.
    fn step(&self) -> bool {
        let work = bar_address(ids::REGISTERS_BAR, LABORATORY + laboratory::WORK);
        if self.read_number(work, 8) == 1 {
            self.rounds.store(0, Ordering::Relaxed);
            return true;
        }
        // The unit may go on by itself, too, but not for ever.
        self.queue_moves() && self.rounds.fetch_add(1, Ordering::Relaxed) < MOST_ROUNDS
    }

    fn most_steps(&self) -> usize {
        MOST_STEPS
    }
}

impl Host for Machine {
    fn reset_function(&self) {
        // Device Control: Initiate Function Level Reset.
        self.config_write(0, self.express + 8, 1 << 15, 1 << 15);
        self.place_bars();
    }

    fn set_power(&self, on: bool) {
        let state = if on { 0 } else { 3 };
        self.config_write(0, self.power + 4, state, 3);
    }

    fn advance(&self, by: Duration) {
        let command = format!("clock_step {}", by.as_nanos());
        self.qemu().command(&command);
    }

    fn take_interrupts(&self) -> usize {
        let rung = self.read_number(MAILBOX, 4) as u32 == RUNG;
        self.write_number(MAILBOX, 0, 4);
        rung.into()
    }

    fn mailbox(&self) -> Option<u64> {
        Some(MAILBOX)
    }

    fn set_hook(&self, _: Option<Hook>) -> bool {
        false
    }

    fn lose_invalidations(&self, _: bool) -> bool {
        false
    }

    fn renew(&self) -> bool {
        self.reset_system();
        // The device and the unit write where software has frames: in the last one, too.
        let end = self.used.swap(0, Ordering::Relaxed).next_multiple_of(4096);
        let end = (end + RENEWED).min(MEMORY);
        self.qemu().command(&format!("memset 0x0 {end:#x} 0x0"));
        true
    }

    fn reset_system(&self) {
        // The reset control register of the chipset: a full reset.
        self.qemu().command("outb 0xcf9 0x6");
        // It takes effect in QEMU's main loop; PCIEXBAR says when it has.
        loop {
            let mut qemu = self.qemu();
            qemu.command("outl 0xcf8 0x80000060");
            if qemu.number("inl 0xcfc") & 1 == 0 {
                qemu.command(&format!("outl 0xcfc {:#x}", ECAM | 1));
                break;
            }
        }
        self.place_bars();
    }
}
