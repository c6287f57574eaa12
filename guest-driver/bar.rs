// SPDX-License-Identifier: GPL-2.0-only

//! BAR 0: the driver's accesses to the registers, as small queries and commands.
//!
//! This module knows nothing of files and processes.

use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    io::{
        register::{
            FixedRegister,
            Register,
            RegisterArray, //
        },
        Io, //
    },
    pci,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    abi::{
        counters,
        ids,
        registers, //
    },
    compat::DevresBar,
    regs::{
        Phase,
        CAPABILITIES,
        CONTEXT_COUNTER,
        CONTROL,
        COUNTER_STRIDE,
        DEVICE_COUNTER,
        FUNCTION,
        HEAD,
        IDENT,
        MODERATION,
        OPERATIONS,
        PASID,
        RESOURCES,
        RING,
        RING_LOG2,
        STATUS,
        TAIL,
        VECTOR, //
    }, //
};

/// Microseconds between the first two reads of a stopping context's state: about the time that the
/// device needs if no page request is outstanding. The interval doubles with each read, because a
/// long wait is likely to become longer.
const FIRST_INTERVAL: i64 = 50;

/// The longest interval between two reads, in microseconds.
const LAST_INTERVAL: i64 = 20_000;

/// How long the driver waits for a context to stop. The device only waits for the responses to its
/// page requests, and these only wait for page faults: at worst, for a file on a slow medium.
const STOP_TIMEOUT: Delta = Delta::from_secs(10);

/// How long it waits if a full wait is not necessary, because a wait for the same process has
/// already timed out, or because the context will be stopped in any case.
const OVERDUE_TIMEOUT: Delta = Delta::from_millis(100);

/// The value of a read that no device answers (PCIe 2.3.2).
const NO_DEVICE: u64 = !0;

const SIZE: usize = registers::REGISTERS_SIZE as usize;

/// The register BAR of one device.
pub(crate) struct Registers {
    bar: DevresBar<SIZE>,
    /// The process whose context timed out last and has not stopped since; 0 if there is none.
    overdue: Atomic<i32>,
    /// The function is being reset: see [`Self::begin_reset`].
    resetting: Atomic<bool>,
}

/// How long to wait for a context to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopTimeout {
    /// [`STOP_TIMEOUT`].
    Full,
    /// [`OVERDUE_TIMEOUT`].
    Short,
}

impl StopTimeout {
    fn duration(self) -> Delta {
        match self {
            Self::Full => STOP_TIMEOUT,
            Self::Short => OVERDUE_TIMEOUT,
        }
    }
}

/// The device's properties, from its read-only registers.
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

impl Capabilities {
    /// Whether contexts have the register `MODERATION`.
    pub(crate) fn moderation(&self) -> bool {
        self.abi_version >= 0x0102
    }
}

impl Registers {
    /// Maps the registers of `pdev`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the BAR is already in use, `EINVAL` if it is too small, `ENOMEM` if it is missing
    /// or cannot be mapped.
    pub(crate) fn map(pdev: &pci::Device<Bound>) -> Result<Self> {
        let bar = pdev.iomap_region_sized::<SIZE>(ids::REGISTERS_BAR.into(), c"svm_demo")?;

        Ok(Self {
            bar: bar.into_devres()?,
            overdue: Atomic::new(0),
            resetting: Atomic::new(false),
        })
    }

    /// Begins a reset of the function, which then decodes no memory for a while. From the return of
    /// this function on nothing accesses the registers: all accesses fail with `ENODEV`, as if no
    /// device answered. Sleeps.
    ///
    /// On a bus, nobody answers such an access. But if this is a guest whose host has given it the
    /// function, the access may reach the host while the host still maps the registers, and end the
    /// guest.
    pub(crate) fn begin_reset(&self) {
        self.resetting.store(true, Relaxed);
        // SAFETY: This is a context that may sleep. Accesses are made in RCU critical sections that
        // read `resetting` first (`permit()`): those that have not seen it end before this returns.
        unsafe { bindings::synchronize_rcu() };
    }

    /// Ends the reset: the function decodes accesses again.
    pub(crate) fn end_reset(&self) {
        self.resetting.store(false, Relaxed);
    }

    /// Permits accesses while the guard exists. `ENODEV` if the function is being reset.
    fn permit(&self) -> Result<rcu::Guard> {
        let guard = rcu::read_lock();

        if self.resetting.load(Relaxed) {
            return Err(ENODEV);
        }
        Ok(guard)
    }

    /// The device, for messages.
    pub(crate) fn device(&self) -> &Device {
        self.bar.device()
    }

    /// Reads the register of type `T` at `offset`. `ENODEV` if the device is unbound, being reset,
    /// or does not answer.
    fn read_at<T: Register<Storage = u64> + From<u64>>(&self, offset: usize) -> Result<T> {
        let _permit = self.permit()?;
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        match bar.try_read64(offset)? {
            NO_DEVICE => Err(ENODEV),
            value => Ok(value.into()),
        }
    }

    /// Writes the register of type `T` at `offset`. `ENODEV` if the device is unbound or being
    /// reset.
    fn write_at<T: Register<Storage = u64> + Into<u64>>(&self, offset: usize, value: T) -> Result {
        let _permit = self.permit()?;
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        bar.try_write64(value.into(), offset)
    }

    /// Reads a register of the device as a whole.
    fn read<T: FixedRegister<Storage = u64> + From<u64>>(&self) -> Result<T> {
        self.read_at(T::OFFSET)
    }

    /// Checks that the driver can work with this device, and reads its properties.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is a different one or has another version; the kernel log says more.
    pub(crate) fn identify(&self, pdev: &pci::Device<Bound>) -> Result<Capabilities> {
        let ident = self.read::<IDENT>().inspect_err(|_| {
            dev_err!(pdev, "the registers do not answer\n");
        })?;
        let magic: u32 = ident.magic().into();
        let abi_version: u16 = ident.version().into();

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

        let value = self.read::<CAPABILITIES>()?;
        let resources = self.read::<RESOURCES>()?;
        let capabilities = Capabilities {
            abi_version,
            contexts: value.contexts().into(),
            vectors: value.vectors().into(),
            ring_log2: value.ring_log2().into(),
            transfer_log2: value.transfer_log2().into(),
            batch_log2: value.batch_log2().into(),
            operations: self.read::<OPERATIONS>()?.into_raw(),
            atc_entries: resources.atc_entries().into(),
            page_requests: resources.page_requests().into(),
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

    /// What the configuration of the function currently permits.
    pub(crate) fn function(&self) -> Result<FUNCTION> {
        self.read()
    }

    /// How long to wait for a context of `process`: a process with many contexts should not take
    /// one full timeout after another, and other processes should not be affected.
    pub(crate) fn stop_timeout(&self, process: i32) -> StopTimeout {
        if self.overdue.load(Relaxed) == process {
            StopTimeout::Short
        } else {
            StopTimeout::Full
        }
    }

    /// Notes that the wait for a context of `process` has timed out.
    pub(crate) fn set_overdue(&self, process: i32) {
        self.overdue.store(process, Relaxed);
    }

    /// Notes that no context is overdue any more.
    pub(crate) fn forgive(&self) {
        self.overdue.store(0, Relaxed);
    }

    /// Counter `index` of the device as a whole.
    pub(crate) fn counter(&self, index: usize) -> Result<u64> {
        self.read_at(place::<DEVICE_COUNTER>(index)?)
            .map(DEVICE_COUNTER::into_raw)
    }

    /// The registers of context `index`.
    pub(crate) fn context(&self, index: u16) -> ContextRegisters<'_> {
        ContextRegisters {
            registers: self,
            index: index.into(),
        }
    }
}

/// Offset of register `index` of the array `T`; `EINVAL` if there is none.
fn place<T: RegisterArray>(index: usize) -> Result<usize> {
    if index < T::SIZE {
        Ok(T::OFFSET + index * T::STRIDE)
    } else {
        Err(EINVAL)
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
    index: usize,
}

impl ContextRegisters<'_> {
    fn read<T: RegisterArray<Storage = u64> + From<u64>>(&self) -> Result<T> {
        self.registers.read_at(place::<T>(self.index)?)
    }

    fn write<T: RegisterArray<Storage = u64> + Into<u64>>(&self, value: T) -> Result {
        self.registers.write_at(place::<T>(self.index)?, value)
    }

    /// Reads the state of the context. Does not sleep.
    pub(crate) fn status(&self) -> Result<STATUS> {
        self.read()
    }

    /// Descriptors consumed since the start. Does not sleep.
    pub(crate) fn head(&self) -> Result<u64> {
        self.read::<HEAD>().map(HEAD::into_raw)
    }

    /// Descriptors submitted since the start. Does not sleep.
    pub(crate) fn tail(&self) -> Result<u64> {
        self.read::<TAIL>().map(TAIL::into_raw)
    }

    /// Counter `index` of the context, since its start. Does not sleep.
    pub(crate) fn counter(&self, index: usize) -> Result<u64> {
        let place = place::<CONTEXT_COUNTER>(self.index * COUNTER_STRIDE + index)?;

        self.registers.read_at(place).map(CONTEXT_COUNTER::into_raw)
    }

    /// Number of completion records that could not be written since the context was started. Does
    /// not sleep.
    pub(crate) fn lost(&self) -> Result<u64> {
        self.counter(counters::index::LOST_COMPLETIONS)
    }

    /// Number of interrupts that the context has sent since it was started. Does not sleep.
    pub(crate) fn interrupts(&self) -> Result<u64> {
        self.counter(counters::index::INTERRUPTS)
    }

    /// Starts the context, which must be disabled, and returns its state afterwards.
    pub(crate) fn start(&self, start: Start, moderation: MODERATION) -> Result<STATUS> {
        self.write(
            PASID::zeroed()
                .try_with_pasid(start.pasid)?
                .with_valid(true),
        )?;
        self.write(RING::from(start.ring))?;
        self.write(RING_LOG2::zeroed().with_log2(start.ring_log2))?;
        self.write(VECTOR::zeroed().with_vector(start.vector).with_enable(true))?;
        // After the PASID, whose write has reset it.
        self.moderate(moderation)?;
        self.command(registers::control::START)?;

        self.status()
    }

    /// Sets the moderation of the context's interrupts.
    pub(crate) fn moderate(&self, moderation: MODERATION) -> Result {
        self.write(moderation)
    }

    fn command(&self, command: u64) -> Result {
        self.write(CONTROL::from(command))
    }

    /// Asks the context to stop, if it is started, and returns its previous state.
    pub(crate) fn begin_stop(&self) -> Result<STATUS> {
        let status = self.status()?;

        if !status.is(Phase::Disabled) {
            self.command(registers::control::STOP)?;
        }
        Ok(status)
    }

    /// Waits until the context is disabled, after [`Self::begin_stop`]: then it sends nothing with
    /// its PASID, and has the responses to all its page requests. Sleeps.
    ///
    /// Calls `give_up` before each sleep, and ends the wait with its error, or with success if it
    /// returns `true`.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if the context was not disabled in time: it continues to stop.
    /// - `ENODEV` if the device is gone.
    /// - Those of `give_up`: the context continues to stop.
    pub(crate) fn wait_disabled(
        &self,
        timeout: StopTimeout,
        give_up: impl Fn() -> Result<bool>,
    ) -> Result {
        let begin = Instant::<Monotonic>::now();
        let mut interval = FIRST_INTERVAL;

        loop {
            // Check the time before the read, so that a late read still counts.
            let over = begin.elapsed() > timeout.duration();

            if self.status()?.is(Phase::Disabled) || give_up()? {
                return Ok(());
            }
            if over {
                return Err(ETIMEDOUT);
            }
            fsleep(Delta::from_micros(interval));
            interval = (2 * interval).min(LAST_INTERVAL);
        }
    }

    /// Stops the context, and waits for it regardless of signals; see [`Self::wait_disabled`].
    /// Passes its previous state to `look`.
    pub(crate) fn stop(&self, timeout: StopTimeout, look: impl FnOnce(STATUS)) -> Result {
        look(self.begin_stop()?);
        self.wait_disabled(timeout, || Ok(false))
    }

    /// Clears the traces of the context's last user. The context must be disabled.
    pub(crate) fn clear(&self) -> Result {
        self.write(VECTOR::zeroed())?;
        self.write(RING::zeroed())?;
        // This also clears the counters, the head and the tail, which the doorbell page shows, and
        // the moderation.
        self.write(PASID::zeroed())
    }
}
