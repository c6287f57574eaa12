// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's laboratory through VFIO's device file: raw requests, one at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use host_iommu::host::DeviceId;
use host_iommufd::host::Host;
use svmctl::abi::registers::{
    DEVICE_COUNTERS, LABORATORY, attributes, capabilities, command, device, laboratory,
};
use svmctl::abi::{completion, ids};

/// No request takes so long.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// VFIO's number of the configuration space.
const CONFIGURATION: u32 = 7;
/// The command register: memory space and bus master.
const COMMAND: u64 = 4;

/// Values of `STATE`.
mod state {
    pub const BUSY: u64 = 1;
    pub const FAILED: u64 = 3;
}

/// Why a request failed.
pub type Reason = completion::Error;

/// The answer to a translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where the page lies.
    pub address: u64,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted.
    pub write: bool,
}

/// The laboratory of a function that VFIO has.
#[derive(Debug)]
pub struct Laboratory {
    file: File,
    registers: u64,
    group: u64,
}

impl Laboratory {
    /// That of a device: it is reset, and may access memory.
    pub fn open(host: &Host, of: DeviceId) -> anyhow::Result<Self> {
        host.reset(of).context("the function cannot be reset")?;
        let file = host
            .device_file(of)
            .context("no such device")?
            .try_clone()?;
        let configuration = host.region(of, CONFIGURATION)?.start;
        let mut word = [0; 2];
        file.read_exact_at(&mut word, configuration + COMMAND)?;
        let enabled = u16::from_le_bytes(word) | 6;
        file.write_all_at(&enabled.to_le_bytes(), configuration + COMMAND)?;
        let registers = host.region(of, ids::REGISTERS_BAR.into())?.start;
        let laboratory = Laboratory {
            file,
            registers,
            group: 0,
        };
        let ident = laboratory.register(device::IDENT)?;
        ensure!(
            ident >> 32 == u64::from(ids::IDENT_MAGIC),
            "it is no svm-demo device: IDENT is {ident:#x}"
        );
        ensure!(
            laboratory.register(device::CAPABILITIES)? & capabilities::LABORATORY != 0,
            "the device has no laboratory: make it with lab=on"
        );
        Ok(laboratory)
    }

    fn register(&self, offset: u64) -> io::Result<u64> {
        let mut word = [0; 8];
        self.file
            .read_exact_at(&mut word, self.registers + offset)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Writes a register by halves: VFIO passes no more on at a time everywhere.
    fn set(&self, offset: u64, value: u64) -> io::Result<()> {
        let at = self.registers + LABORATORY + offset;
        let bytes = value.to_le_bytes();
        self.file.write_all_at(&bytes[4..], at + 4)?;
        self.file.write_all_at(&bytes[..4], at)
    }

    /// Writes the lower half of a register that is a command: the upper one would be another.
    fn give(&self, offset: u64, value: u32) -> io::Result<()> {
        let at = self.registers + LABORATORY + offset;
        self.file.write_all_at(&value.to_le_bytes(), at)
    }

    fn get(&self, offset: u64) -> io::Result<u64> {
        self.register(LABORATORY + offset)
    }

    /// A counter of the device.
    pub fn counter(&self, index: usize) -> io::Result<u64> {
        self.register(DEVICE_COUNTERS + 8 * index as u64)
    }

    /// What the function's configuration permits, as the device says.
    pub fn function(&self) -> io::Result<u64> {
        self.register(device::FUNCTION)
    }

    /// Starts a request.
    fn start(&self, pasid: Option<u32>, bits: u64, address: u64, what: u64) -> io::Result<()> {
        let of = pasid.map_or(0, |pasid| u64::from(pasid) | attributes::PASID_PRESENT);
        self.give(laboratory::STATE, 0)?;
        self.set(laboratory::ADDRESS, address)?;
        self.set(laboratory::ATTRIBUTES, of | bits)?;
        self.give(laboratory::COMMAND, what as u32)
    }

    /// Waits for the end of a request: the reason if it failed. The register is asked again and
    /// again, for the laboratory sends no interrupt.
    pub fn end(&self) -> anyhow::Result<Result<(), Reason>> {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let value = self.get(laboratory::STATE)?;
            match value & 0xff {
                state::BUSY if Instant::now() < deadline => std::thread::yield_now(),
                state::BUSY => anyhow::bail!("the request has not ended after {TIME_LIMIT:?}"),
                state::FAILED => {
                    let number = (value >> 8) as u8;
                    let known = completion::Error::ALL.iter().find(|e| **e as u8 == number);
                    let reason = known.with_context(|| format!("error {number}"))?;
                    return Ok(Err(*reason));
                }
                _ => return Ok(Ok(())),
            }
        }
    }

    /// A translation request.
    pub fn translate(
        &self,
        pasid: Option<u32>,
        address: u64,
        write: bool,
    ) -> anyhow::Result<Result<Translation, Reason>> {
        let no_write = if write { 0 } else { attributes::NO_WRITE };
        self.start(pasid, no_write, address & !0xfff, command::TRANSLATE)?;
        if let Err(reason) = self.end()? {
            return Ok(Err(reason));
        }
        let (translated, completion) = (
            self.get(laboratory::TRANSLATED)?,
            self.get(laboratory::COMPLETION)?,
        );
        let within = (1u64 << (completion & 0x3f)) - 1;
        Ok(Ok(Translation {
            address: translated & !within | address & within,
            read: completion >> 8 & 1 != 0,
            write: completion >> 9 & 1 != 0,
        }))
    }

    /// An untranslated read without PASID.
    pub fn read(&self, address: u64) -> anyhow::Result<Result<u64, Reason>> {
        self.start(None, 0, address, command::UNTRANSLATED_READ)?;
        self.data()
    }

    /// An untranslated write without PASID.
    pub fn write(&self, address: u64, data: u64) -> anyhow::Result<Result<(), Reason>> {
        self.set(laboratory::DATA, data)?;
        self.start(None, 0, address, command::UNTRANSLATED_WRITE)?;
        self.end()
    }

    /// A translation request, and a read by its answer. None if reads are not permitted.
    pub fn read_translated(
        &self,
        pasid: Option<u32>,
        address: u64,
    ) -> anyhow::Result<Result<Option<u64>, Reason>> {
        let translation = match self.translate(pasid, address, false)? {
            Ok(translation) => translation,
            Err(reason) => return Ok(Err(reason)),
        };
        if !translation.read {
            return Ok(Ok(None));
        }
        self.start(None, 0, translation.address, command::TRANSLATED_READ)?;
        Ok(self.data()?.map(Some))
    }

    fn data(&self) -> anyhow::Result<Result<u64, Reason>> {
        Ok(match self.end()? {
            Ok(()) => Ok(self.get(laboratory::DATA)?),
            Err(reason) => Err(reason),
        })
    }

    /// Sends a page request of a new group, or of the same one if `more` is said before. It ends
    /// when the group is answered; one that is not the last of its group ends at once.
    pub fn page_request(
        &mut self,
        pasid: Option<u32>,
        address: u64,
        write: bool,
        last: bool,
    ) -> anyhow::Result<()> {
        let wanted = if write {
            attributes::WRITE
        } else {
            attributes::READ
        };
        let last_bit = if last { attributes::LAST } else { 0 };
        let group = self.group << attributes::GROUP_SHIFT & attributes::GROUP;
        let bits = wanted | last_bit | group;
        self.start(pasid, bits, address & !0xfff, command::PAGE_REQUEST)?;
        if last {
            self.group = (self.group + 1) % 512;
        }
        Ok(())
    }
}
