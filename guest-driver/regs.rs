// SPDX-License-Identifier: GPL-2.0-only

//! The registers in BAR 0: their layout, and what the driver asks of them, as small questions and
//! commands.
//!
//! The layout is declared with `register!`, and compared at build time with
//! [`crate::abi::registers`], which the device is made of. This module knows nothing of files and
//! processes.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    io::{
        poll::read_poll_timeout,
        register,
        register::{
            FixedRegister,
            Register,
            RegisterArray, //
        },
        Io, //
    },
    num::Bounded,
    pci,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};

use crate::{
    abi::{
        counters,
        ids,
        registers, //
    },
    compat::DevresBar, //
};

/// Time between two looks at a context that stops.
const STOP_INTERVAL: Delta = Delta::from_micros(100);

/// How long the driver waits for a context to stop. The device waits for nothing but the responses
/// to its page requests, and those for nothing but page faults: a file on a slow medium, at worst.
const STOP_TIMEOUT: Delta = Delta::from_secs(10);

/// How long it waits if another context of the device has not stopped in that time, and this one
/// may be left alone as well: a process that has many should not end one timeout after the other.
const OVERDUE_TIMEOUT: Delta = Delta::from_millis(100);

/// What a read gives when no device answers (PCIe 2.3.2).
const NO_DEVICE: u64 = !0;

const SIZE: usize = registers::REGISTERS_SIZE as usize;

/// Register blocks of contexts in the BAR; the device need not have so many contexts.
const CONTEXTS: usize = ids::MAX_CONTEXTS as usize;

/// Distance between the register blocks of two contexts, in bytes.
const STRIDE: usize = registers::CONTEXT_STRIDE as usize;

register! {
    /// What the device is.
    IDENT(u64) @ 0x00 {
        /// [`ids::IDENT_MAGIC`].
        63:32 magic;
        /// Version of the interface: major in 15:8, minor in 7:0.
        15:0 version;
    }

    /// How much of everything the device has.
    CAPABILITIES(u64) @ 0x08 {
        /// Log2 of the longest batch.
        54:48 batch_log2;
        /// Log2 of the longest transfer in bytes.
        47:40 transfer_log2;
        /// Log2 of the number of descriptors of the largest ring.
        39:32 ring_log2;
        /// MSI-X vectors.
        31:16 vectors;
        /// Contexts.
        15:0 contexts;
    }

    /// Bit n is 1 if the device performs operation n.
    OPERATIONS(u64) @ 0x10 {
        63:0 operations;
    }

    /// What the contexts share.
    RESOURCES(u64) @ 0x18 {
        /// Page requests that may be outstanding.
        63:32 page_requests;
        /// Entries of the address translation cache.
        31:0 atc_entries;
    }

    /// What the configuration of the function permits.
    pub(crate) FUNCTION(u64) @ 0x20 {
        /// PASID is enabled (PCIe 7.8.9.3).
        3:3 pasid => bool;
        /// PRI is enabled (PCIe 10.5.2.2).
        2:2 pri => bool;
        /// ATS is enabled (PCIe 10.5.1.3).
        1:1 ats => bool;
        /// Bus mastering is enabled (PCIe 7.5.1.1.3).
        0:0 bus_master => bool;
    }

    /// What the device counts as a whole, by [`counters::index`].
    DEVICE_COUNTER(u64)[counters::COUNT] @ 0x100 {
        63:0 value;
    }

    /// Commands to a context: see [`registers::control`].
    CONTROL(u64)[CONTEXTS, stride = STRIDE] @ 0x1000 {
        7:0 command;
    }

    /// How a context is.
    pub(crate) STATUS(u64)[CONTEXTS, stride = STRIDE] @ 0x1008 {
        /// Why it halted: see [`registers::halt`].
        15:8 halt;
        /// What it does.
        7:0 state ?=> Phase;
    }

    /// The address space of a context.
    PASID(u64)[CONTEXTS, stride = STRIDE] @ 0x1010 {
        /// The PASID is valid.
        31:31 valid => bool;
        /// The PASID.
        19:0 pasid;
    }

    /// Virtual address of a context's ring.
    RING(u64)[CONTEXTS, stride = STRIDE] @ 0x1018 {
        63:0 address;
    }

    /// Log2 of the number of descriptors of a context's ring.
    RING_LOG2(u64)[CONTEXTS, stride = STRIDE] @ 0x1020 {
        7:0 log2;
    }

    /// The interrupts of a context.
    VECTOR(u64)[CONTEXTS, stride = STRIDE] @ 0x1028 {
        /// They are sent.
        31:31 enable => bool;
        /// MSI-X vector.
        15:0 vector;
    }

    /// Descriptors that a context has consumed since its start.
    HEAD(u64)[CONTEXTS, stride = STRIDE] @ 0x1030 {
        63:0 count;
    }

    /// Descriptors that were submitted to a context since its start.
    TAIL(u64)[CONTEXTS, stride = STRIDE] @ 0x1038 {
        63:0 count;
    }

    /// When completions become an interrupt.
    pub(crate) MODERATION(u64)[CONTEXTS, stride = STRIDE] @ 0x1040 {
        /// When the first of them is so old.
        63:32 microseconds;
        /// When there are so many.
        15:0 completions;
    }

    /// What a context counts since its start: those of context n begin at n times
    /// [`COUNTER_STRIDE`].
    CONTEXT_COUNTER(u64)[CONTEXTS * COUNTER_STRIDE] @ 0x1080 {
        63:0 value;
    }
}

/// Counter registers from one context to the next, if there were counters only.
const COUNTER_STRIDE: usize = STRIDE / size_of::<u64>();

/// The offsets and bits above are those of the device.
const _: () = {
    use registers::{
        context,
        device,
        function,
        pasid,
        vector, //
    };

    const fn is_at<T: Register>(offset: u64) {
        assert!(T::OFFSET as u64 == offset);
    }
    const fn is_in_context<T: Register>(offset: u64) {
        is_at::<T>(registers::CONTEXTS + offset);
    }

    is_at::<IDENT>(device::IDENT);
    is_at::<CAPABILITIES>(device::CAPABILITIES);
    is_at::<OPERATIONS>(device::OPERATIONS);
    is_at::<RESOURCES>(device::RESOURCES);
    is_at::<FUNCTION>(device::FUNCTION);
    is_at::<DEVICE_COUNTER>(registers::DEVICE_COUNTERS);
    is_in_context::<CONTROL>(context::CONTROL);
    is_in_context::<STATUS>(context::STATUS);
    is_in_context::<PASID>(context::PASID);
    is_in_context::<RING>(context::RING);
    is_in_context::<RING_LOG2>(context::RING_LOG2);
    is_in_context::<VECTOR>(context::VECTOR);
    is_in_context::<HEAD>(context::HEAD);
    is_in_context::<TAIL>(context::TAIL);
    is_in_context::<MODERATION>(context::MODERATION);
    is_in_context::<CONTEXT_COUNTER>(registers::CONTEXT_COUNTERS);

    assert!(
        CAPABILITIES::CONTEXTS_MASK
            | CAPABILITIES::VECTORS_MASK
            | CAPABILITIES::RING_LOG2_MASK
            | CAPABILITIES::TRANSFER_LOG2_MASK
            | CAPABILITIES::BATCH_LOG2_MASK
            == registers::capabilities::encode(!0, !0, !0, !0, !0)
    );
    assert!(FUNCTION::BUS_MASTER_MASK == function::BUS_MASTER);
    assert!(FUNCTION::ATS_MASK == function::ATS);
    assert!(FUNCTION::PRI_MASK == function::PRI);
    assert!(FUNCTION::PASID_MASK == function::PASID);
    assert!(STATUS::STATE_MASK == registers::status::encode(!0, 0));
    assert!(STATUS::HALT_MASK == registers::status::encode(0, !0));
    assert!(PASID::VALID_MASK == pasid::VALID && PASID::PASID_MASK == pasid::MASK);
    assert!(VECTOR::ENABLE_MASK == vector::ENABLE && VECTOR::VECTOR_MASK == vector::MASK);
    assert!(MODERATION::COMPLETIONS_MASK == registers::moderation::encode(!0, 0));
    assert!(MODERATION::MICROSECONDS_MASK == registers::moderation::encode(0, !0));
};

/// What a context does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing; its registers may be written.
    Disabled = registers::status::DISABLED,
    /// It works on its ring.
    Enabled = registers::status::ENABLED,
    /// It waits for the responses to its page requests, and then is disabled.
    Stopping = registers::status::STOPPING,
    /// Nothing, since it met an error.
    Halted = registers::status::HALTED,
}

impl Phase {
    /// Its name in files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Stopping => "stopping",
            Self::Halted => "halted",
        }
    }
}

impl TryFrom<Bounded<u64, 8>> for Phase {
    type Error = Error;

    fn try_from(value: Bounded<u64, 8>) -> Result<Self> {
        match u8::from(value) {
            registers::status::DISABLED => Ok(Self::Disabled),
            registers::status::ENABLED => Ok(Self::Enabled),
            registers::status::STOPPING => Ok(Self::Stopping),
            registers::status::HALTED => Ok(Self::Halted),
            _ => Err(EIO),
        }
    }
}

impl From<Phase> for Bounded<u64, 8> {
    fn from(phase: Phase) -> Self {
        (phase as u8).into()
    }
}

impl STATUS {
    /// Whether the context is in this state.
    pub(crate) fn is(self, phase: Phase) -> bool {
        self.state() == Ok(phase)
    }

    /// The name of its state in files.
    pub(crate) fn name(self) -> &'static str {
        self.state().map_or("unknown", Phase::name)
    }

    /// Why the context halted: see [`registers::halt`].
    pub(crate) fn reason(self) -> u8 {
        self.halt().into()
    }
}

/// The register BAR of one device.
pub(crate) struct Registers {
    bar: DevresBar<SIZE>,
    /// The context that was waited for last has not stopped in time.
    overdue: Atomic<bool>,
}

/// How long to wait for a context to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// [`STOP_TIMEOUT`].
    Full,
    /// As long, or [`OVERDUE_TIMEOUT`] if the device has kept somebody waiting already.
    Short,
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
    /// `EBUSY` if someone else has the BAR, `EINVAL` if it is too small, `ENOMEM` if it is missing
    /// or cannot be mapped.
    pub(crate) fn map(pdev: &pci::Device<Bound>) -> Result<Self> {
        let bar = pdev.iomap_region_sized::<SIZE>(ids::REGISTERS_BAR.into(), c"svm_demo")?;

        Ok(Self {
            bar: bar.into_devres()?,
            overdue: Atomic::new(false),
        })
    }

    /// The device, for messages.
    pub(crate) fn device(&self) -> &Device {
        self.bar.device()
    }

    /// Reads the register of type `T` at `offset`. `ENODEV` if the device is unbound or does not
    /// answer.
    fn read_at<T: Register<Storage = u64> + From<u64>>(&self, offset: usize) -> Result<T> {
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        match bar.try_read64(offset)? {
            NO_DEVICE => Err(ENODEV),
            value => Ok(value.into()),
        }
    }

    /// Writes the register of type `T` at `offset`. `ENODEV` if the device is unbound.
    fn write_at<T: Register<Storage = u64> + Into<u64>>(&self, offset: usize, value: T) -> Result {
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        bar.try_write64(value.into(), offset)
    }

    /// Reads a register of the device as a whole.
    fn read<T: FixedRegister<Storage = u64> + From<u64>>(&self) -> Result<T> {
        self.read_at(T::OFFSET)
    }

    /// Makes sure that this is a device that the driver can work with, and asks what it has.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is another one or of another version; the kernel log says more.
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

    /// What the configuration of the function permits now.
    pub(crate) fn function(&self) -> Result<FUNCTION> {
        self.read()
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

    /// Asks for the state of the context. Does not sleep.
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

    /// Number of interrupts that the context has sent since it was started. Does not sleep.
    pub(crate) fn interrupts(&self) -> Result<u64> {
        self.counter(counters::index::INTERRUPTS)
    }

    /// Starts the context, which must be disabled, and gives the state that it is in afterwards.
    pub(crate) fn start(&self, start: Start, moderation: MODERATION) -> Result<STATUS> {
        self.write(
            PASID::zeroed()
                .try_with_pasid(start.pasid)?
                .with_valid(true),
        )?;
        self.write(RING::from(start.ring))?;
        self.write(RING_LOG2::zeroed().with_log2(start.ring_log2))?;
        self.write(VECTOR::zeroed().with_vector(start.vector).with_enable(true))?;
        // After the PASID, with which it was lost.
        self.moderate(moderation)?;
        self.command(registers::control::START)?;

        self.status()
    }

    /// Says when completions become an interrupt.
    pub(crate) fn moderate(&self, moderation: MODERATION) -> Result {
        self.write(moderation)
    }

    fn command(&self, command: u64) -> Result {
        self.write(CONTROL::from(command))
    }

    /// Asks the context to stop, if it is started, and gives the state that it was in.
    pub(crate) fn begin_stop(&self) -> Result<STATUS> {
        let status = self.status()?;

        if !status.is(Phase::Disabled) {
            self.command(registers::control::STOP)?;
        }
        Ok(status)
    }

    /// Waits until the context is disabled, after [`Self::begin_stop`]: it sends nothing under its
    /// PASID, and has the responses to all its page requests. Sleeps.
    ///
    /// `give_up` is asked before each sleep, and ends the wait with its error, or with success if it
    /// gives `true`.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if the context was not disabled in time: it goes on stopping.
    /// - `ENODEV` if there is no device any more.
    /// - Those of `give_up`: the context goes on stopping.
    pub(crate) fn wait_disabled(
        &self,
        patience: Patience,
        give_up: impl Fn() -> Result<bool>,
    ) -> Result {
        let overdue = &self.registers.overdue;
        let timeout = match patience {
            Patience::Short if overdue.load(Relaxed) => OVERDUE_TIMEOUT,
            Patience::Short | Patience::Full => STOP_TIMEOUT,
        };
        let result = read_poll_timeout(
            || Ok(self.status()?.is(Phase::Disabled) || give_up()?),
            |&done| done,
            STOP_INTERVAL,
            timeout,
        );

        overdue.store(result == Err(ETIMEDOUT), Relaxed);
        result.map(drop)
    }

    /// Stops the context, and waits for it whatever signal comes, but not long if others were waited
    /// for in vain; see [`Self::wait_disabled`]. Tells `look` the state that it was in.
    pub(crate) fn stop(&self, look: impl FnOnce(STATUS)) -> Result {
        look(self.begin_stop()?);
        self.wait_disabled(Patience::Short, || Ok(false))
    }

    /// Makes the device forget what the last user of the context did. The context is disabled.
    pub(crate) fn clear(&self) -> Result {
        self.write(VECTOR::zeroed())?;
        self.write(RING::zeroed())?;
        // Also clears the counters, the head and the tail, which the doorbell page shows, and the
        // moderation.
        self.write(PASID::zeroed())
    }
}
