// SPDX-License-Identifier: GPL-2.0-only

//! The registers in BAR 0: what the driver asks of them, as small questions and commands.
//!
//! Offsets and bits are those of [`crate::abi::registers`], which the device is made of, too; they
//! are therefore not declared a second time with `register!`. This module knows nothing of files
//! and processes.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    devres::Devres,
    io::{
        poll::read_poll_timeout,
        Io, //
    },
    pci,
    prelude::*,
    time::Delta, //
};

use crate::abi::{
    counters,
    ids,
    registers::{
        self,
        capabilities,
        context,
        control,
        device,
        function,
        pasid,
        status,
        vector, //
    }, //
};

/// Time between two looks at a context that stops.
const STOP_INTERVAL: Delta = Delta::from_micros(100);

/// How long the driver waits for a context to stop. The device waits for nothing but the responses
/// to its page requests, and those for nothing but page faults: a file on a slow medium, at worst.
const STOP_TIMEOUT: Delta = Delta::from_secs(10);

/// What a read gives when no device answers (PCIe 2.3.2).
const NO_DEVICE: u64 = !0;

const SIZE: usize = registers::REGISTERS_SIZE as usize;

/// The register BAR of one device.
pub(crate) struct Registers {
    bar: Devres<pci::Bar<'static, SIZE>>,
}

/// What the device is, as its read-only registers say.
#[derive(Clone, Copy)]
pub(crate) struct Capabilities {
    pub(crate) abi_version: u16,
    pub(crate) contexts: u16,
    pub(crate) vectors: u16,
    pub(crate) ring_log2: u8,
    pub(crate) transfer_log2: u8,
    pub(crate) batch_log2: u8,
    pub(crate) operations: u64,
    pub(crate) atc_entries: u32,
    pub(crate) page_requests: u32,
}

/// What the configuration of the function permits; a value of the register `FUNCTION`.
#[derive(Clone, Copy)]
pub(crate) struct Function(u64);

impl Function {
    pub(crate) fn ats(self) -> bool {
        self.0 & function::ATS != 0
    }

    pub(crate) fn pri(self) -> bool {
        self.0 & function::PRI != 0
    }

    pub(crate) fn pasid(self) -> bool {
        self.0 & function::PASID != 0
    }
}

impl Registers {
    /// Maps the registers of `pdev`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if someone else has the BAR, `EINVAL` if it is too small, `ENOMEM` if it is missing
    /// or cannot be mapped.
    pub(crate) fn map(pdev: &pci::Device<Bound>) -> Result<Self> {
        let bar = pdev.iomap_region_sized::<SIZE>(ids::REGISTERS_BAR.into(), c"svm_demo")?;

        Ok(Self {
            bar: bar.into_devres()?,
        })
    }

    /// The device, for messages.
    pub(crate) fn device(&self) -> &Device {
        self.bar.device()
    }

    /// Reads a register. `ENODEV` if the device is unbound or does not answer.
    fn read(&self, offset: u64) -> Result<u64> {
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        match bar.try_read64(offset as usize)? {
            NO_DEVICE => Err(ENODEV),
            value => Ok(value),
        }
    }

    /// Writes a register. `ENODEV` if the device is unbound.
    fn write(&self, value: u64, offset: u64) -> Result {
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        bar.try_write64(value, offset as usize)
    }

    /// Makes sure that this is a device that the driver can work with, and asks what it has.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is another one or of another version; the kernel log says more.
    pub(crate) fn identify(&self, pdev: &pci::Device<Bound>) -> Result<Capabilities> {
        let ident = self.read(device::IDENT).inspect_err(|_| {
            dev_err!(pdev, "the registers do not answer\n");
        })?;
        let magic = (ident >> 32) as u32;
        let abi_version = ident as u16;

        if magic != ids::IDENT_MAGIC {
            dev_err!(
                pdev,
                "not an svm-demo device: magic number {:#x}, expected {:#x}\n",
                magic,
                ids::IDENT_MAGIC
            );
            return Err(ENODEV);
        }
        if abi_version >> 8 != ids::ABI_VERSION >> 8 {
            dev_err!(
                pdev,
                "the device has interface {}.{}, this driver needs {}.x: \
                 use the driver that came with the device\n",
                abi_version >> 8,
                abi_version & 0xff,
                ids::ABI_VERSION >> 8
            );
            return Err(ENODEV);
        }

        let value = self.read(device::CAPABILITIES)?;
        let resources = self.read(device::RESOURCES)?;
        let capabilities = Capabilities {
            abi_version,
            contexts: capabilities::contexts(value),
            vectors: capabilities::vectors(value),
            ring_log2: capabilities::ring_log2(value),
            transfer_log2: capabilities::transfer_log2(value),
            batch_log2: capabilities::batch_log2(value),
            operations: self.read(device::OPERATIONS)?,
            atc_entries: resources as u32,
            page_requests: (resources >> 32) as u32,
        };

        if !(1..=ids::MAX_CONTEXTS).contains(&capabilities.contexts)
            || capabilities.vectors == 0
            || capabilities.ring_log2 > ids::MAX_RING_LOG2
        {
            dev_err!(
                pdev,
                "the device says impossible things of itself: \
                 {} contexts, {} vectors, a ring of 2^{} descriptors\n",
                capabilities.contexts,
                capabilities.vectors,
                capabilities.ring_log2
            );
            return Err(ENODEV);
        }

        Ok(capabilities)
    }

    /// What the configuration of the function permits now.
    pub(crate) fn function(&self) -> Result<Function> {
        self.read(device::FUNCTION).map(Function)
    }

    /// The registers of context `index`.
    pub(crate) fn context(&self, index: u16) -> ContextRegisters<'_> {
        ContextRegisters {
            registers: self,
            block: registers::context_block(index),
        }
    }
}

/// State of a context; a value of its register `STATUS`.
#[derive(Clone, Copy)]
pub(crate) struct Status(u64);

impl Status {
    pub(crate) fn is_disabled(self) -> bool {
        status::state(self.0) == status::DISABLED
    }

    /// Whether the context waits for the responses to its page requests.
    pub(crate) fn is_stopping(self) -> bool {
        status::state(self.0) == status::STOPPING
    }

    pub(crate) fn is_halted(self) -> bool {
        status::state(self.0) == status::HALTED
    }

    /// Why the context halted: see [`registers::halt`].
    pub(crate) fn error(self) -> u8 {
        status::error(self.0)
    }
}

/// What a context needs to start.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) pasid: u32,
    pub(crate) ring: u64,
    pub(crate) ring_log2: u8,
    pub(crate) vector: u16,
}

/// The register block of one context.
pub(crate) struct ContextRegisters<'a> {
    registers: &'a Registers,
    block: u64,
}

impl ContextRegisters<'_> {
    fn read(&self, offset: u64) -> Result<u64> {
        self.registers.read(self.block + offset)
    }

    fn write(&self, value: u64, offset: u64) -> Result {
        self.registers.write(value, self.block + offset)
    }

    /// Asks for the state of the context. Does not sleep.
    pub(crate) fn status(&self) -> Result<Status> {
        self.read(context::STATUS).map(Status)
    }

    /// Number of interrupts that the context has sent since it was started. Does not sleep.
    pub(crate) fn interrupts(&self) -> Result<u64> {
        let counter = 8 * counters::index::INTERRUPTS as u64;

        self.read(registers::CONTEXT_COUNTERS + counter)
    }

    /// Starts the context, which must be disabled, and gives the state that it is in afterwards.
    pub(crate) fn start(&self, start: Start) -> Result<Status> {
        self.write(u64::from(start.pasid) | pasid::VALID, context::PASID)?;
        self.write(start.ring, context::RING)?;
        self.write(start.ring_log2.into(), context::RING_LOG2)?;
        self.write(u64::from(start.vector) | vector::ENABLE, context::VECTOR)?;
        self.write(control::START, context::CONTROL)?;

        self.status()
    }

    /// Asks the context to stop, if it is started, and gives the state that it was in.
    pub(crate) fn begin_stop(&self) -> Result<Status> {
        let status = self.status()?;

        if !status.is_disabled() {
            self.write(control::STOP, context::CONTROL)?;
        }
        Ok(status)
    }

    /// Waits until the context does not stop any more, after [`Self::begin_stop`]: it is disabled,
    /// sends nothing under its PASID, and has the responses to all its page requests. (Or somebody
    /// has started it again since, if nothing prevents that.) Sleeps.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if the context was not disabled in time: it goes on stopping.
    /// - `ERESTARTSYS` if `interrupted` says so: it goes on stopping.
    /// - `ENODEV` if there is no device any more.
    pub(crate) fn wait_stopped(&self, interrupted: impl Fn() -> bool) -> Result {
        read_poll_timeout(
            || match self.status()? {
                status if status.is_stopping() && interrupted() => Err(ERESTARTSYS),
                status => Ok(status),
            },
            |status| !status.is_stopping(),
            STOP_INTERVAL,
            STOP_TIMEOUT,
        )?;
        Ok(())
    }

    /// Stops the context, and waits for it whatever signal comes; see [`Self::wait_stopped`].
    pub(crate) fn stop(&self) -> Result {
        self.begin_stop()?;
        self.wait_stopped(|| false)
    }

    /// Makes the device forget what the last user of the context did. The context is disabled.
    pub(crate) fn clear(&self) -> Result {
        self.write(0, context::VECTOR)?;
        self.write(0, context::RING)?;
        // Also clears the counters, the head and the tail, which the doorbell page shows.
        self.write(0, context::PASID)
    }
}
