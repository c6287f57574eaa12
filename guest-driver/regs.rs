// SPDX-License-Identifier: GPL-2.0-only

//! The layout of the registers in BAR 0.
//!
//! It is declared with `register!`, and compared at build time with [`crate::abi::registers`],
//! which the device uses. [`crate::bar`] accesses the registers.

use kernel::{
    io::{
        register,
        register::Register, //
    },
    num::Bounded,
    prelude::*, //
};

use crate::abi::{
    counters,
    ids,
    registers, //
};

/// Register blocks of contexts in the BAR; the device may have fewer contexts.
const CONTEXTS: usize = ids::MAX_CONTEXTS as usize;

/// Distance between the register blocks of two contexts, in bytes.
const STRIDE: usize = registers::CONTEXT_STRIDE as usize;

register! {
    /// Identification of the device.
    pub(crate) IDENT(u64) @ 0x00 {
        /// [`ids::IDENT_MAGIC`].
        63:32 magic;
        /// Version of the interface: major in 15:8, minor in 7:0.
        15:0 version;
    }

    /// Numbers and limits of the device.
    pub(crate) CAPABILITIES(u64) @ 0x08 {
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
    pub(crate) OPERATIONS(u64) @ 0x10 {
        63:0 operations;
    }

    /// The resources that the contexts share.
    pub(crate) RESOURCES(u64) @ 0x18 {
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

    /// The counters of the whole device, by [`counters::index`].
    pub(crate) DEVICE_COUNTER(u64)[counters::COUNT] @ 0x100 {
        63:0 value;
    }

    /// Commands to a context: see [`registers::control`].
    pub(crate) CONTROL(u64)[CONTEXTS, stride = STRIDE] @ 0x1000 {
        7:0 command;
    }

    /// The state of a context.
    pub(crate) STATUS(u64)[CONTEXTS, stride = STRIDE] @ 0x1008 {
        /// Why it halted: see [`registers::halt`].
        15:8 halt;
        /// Its state.
        7:0 state ?=> Phase;
    }

    /// The address space of a context.
    pub(crate) PASID(u64)[CONTEXTS, stride = STRIDE] @ 0x1010 {
        /// The PASID is valid.
        31:31 valid => bool;
        /// The PASID.
        19:0 pasid;
    }

    /// Virtual address of a context's ring.
    pub(crate) RING(u64)[CONTEXTS, stride = STRIDE] @ 0x1018 {
        63:0 address;
    }

    /// Log2 of the number of descriptors of a context's ring.
    pub(crate) RING_LOG2(u64)[CONTEXTS, stride = STRIDE] @ 0x1020 {
        7:0 log2;
    }

    /// The interrupts of a context.
    pub(crate) VECTOR(u64)[CONTEXTS, stride = STRIDE] @ 0x1028 {
        /// They are sent.
        31:31 enable => bool;
        /// MSI-X vector.
        15:0 vector;
    }

    /// Descriptors that a context has consumed since its start.
    pub(crate) HEAD(u64)[CONTEXTS, stride = STRIDE] @ 0x1030 {
        63:0 count;
    }

    /// Descriptors that were submitted to a context since its start.
    pub(crate) TAIL(u64)[CONTEXTS, stride = STRIDE] @ 0x1038 {
        63:0 count;
    }

    /// Moderation of the interrupts of a context.
    pub(crate) MODERATION(u64)[CONTEXTS, stride = STRIDE] @ 0x1040 {
        /// The time since the first of them.
        63:32 microseconds;
        /// Their number.
        15:0 completions;
    }

    /// The counters of a context since its start: those of context n begin at n times
    /// [`COUNTER_STRIDE`].
    pub(crate) CONTEXT_COUNTER(u64)[CONTEXTS * COUNTER_STRIDE] @ 0x1080 {
        63:0 value;
    }
}

/// Distance of the counters of two contexts, in counter registers.
pub(crate) const COUNTER_STRIDE: usize = STRIDE / size_of::<u64>();

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

/// The states of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It does not work; its registers may be written.
    Disabled = registers::status::DISABLED,
    /// It works on its ring.
    Enabled = registers::status::ENABLED,
    /// It waits for the responses to its page requests, and is then disabled.
    Stopping = registers::status::STOPPING,
    /// It has stopped working because of an error.
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
