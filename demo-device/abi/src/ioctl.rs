// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a process can ask of an open `/dev/svmN`.
//!
//! Opening the file binds a context of the device to the address space of the process. `mmap` of
//! [`DOORBELL_SIZE`] bytes at offset 0, shared, gives the context's doorbell page. `read` of 8
//! bytes returns the number of completion interrupts since the last read (and waits for one, or
//! gives `EAGAIN` with `O_NONBLOCK`); `poll` says whether `read` would wait. Closing the last
//! reference stops the context and ends the bond.

/// Type of the ioctl numbers.
pub const TYPE: u8 = b'S';
/// Number of the ioctl that fills in an [`Info`] (`_IOR`).
pub const INFO: u8 = 0x80;
/// Number of the ioctl that takes a [`Queue`] and starts the context (`_IOW`).
pub const QUEUE_SETUP: u8 = 0x81;
/// Number of the ioctl that stops the context; `QUEUE_SETUP` may follow (`_IO`).
pub const QUEUE_STOP: u8 = 0x82;

/// Size of the mapping of the doorbell page in bytes.
pub const DOORBELL_SIZE: usize = super::doorbell::PAGE_SIZE as usize;

/// What a program needs to know of its context and device. All fields are host-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// [`super::ids::ABI_VERSION`] of the device.
    pub abi_version: u32,
    /// Number of the context.
    pub context: u32,
    /// PASID of the process on this device.
    pub pasid: u32,
    /// Contexts of the device.
    pub contexts: u32,
    /// Log2 of the largest ring.
    pub ring_log2_max: u32,
    /// Log2 of the longest transfer.
    pub transfer_log2_max: u32,
    /// Bit n: the device performs operation n.
    pub operations: u64,
    /// Entries of the address translation cache.
    pub atc_entries: u32,
    /// Page requests that the device may have outstanding.
    pub page_requests: u32,
}

/// The submission ring of a context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Virtual address of the ring, aligned to 64 bytes. `EINVAL` if it is not, or if the ring is
    /// not wholly in the process's part of the address space.
    pub ring: u64,
    /// Log2 of the number of descriptors, at most `ring_log2_max`.
    pub ring_log2: u32,
    /// 0; other values give `EINVAL`.
    pub flags: u32,
}
