// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls of an open `/dev/svmN`.
//!
//! Opening the file binds a context of the device to the address space of the process. `mmap` of
//! [`DOORBELL_SIZE`] bytes at offset 0, shared, maps the context's doorbell page. `read` of 8 bytes
//! returns the number of completion interrupts since the last read (and waits for one, or returns
//! `EAGAIN` with `O_NONBLOCK`); `poll` says whether `read` would wait. Closing the last reference
//! stops the context and ends the bond. `open` fails with `EBUSY` if the device has no free
//! context, and with `EDQUOT` if the user already has the driver's limit of contexts for one user.
//!
//! # Owner of the file
//!
//! The file belongs to the address space that opened it: all threads of the process may use it, and
//! so may a child of `vfork()` until it calls `exec()`. In every other process that holds it (a
//! child after `fork()`, the program after `exec()` without close-on-exec, a process that got it
//! through a socket), `ioctl`, `mmap` and `read` fail with `EPERM` for any arguments, and `poll`
//! returns `POLLERR`. These processes can still close it. A child of `fork()` does not inherit the
//! mapping of the doorbell page: `SIGSEGV`.
//!
//! # Arguments of ioctls
//!
//! The ioctl numbers have no direction and size (`_IO`). The argument is the address of a structure
//! that begins with its `size` and with `flags`. Later versions only add fields at the end, and the
//! value 0 of a new field means the behaviour without it. So program and driver may have different
//! versions: a newer program sets the fields that it does not need to 0, and a newer driver takes
//! missing fields as 0. The call fails with `EINVAL` if the size is smaller than the first version
//! of the structure, and with `E2BIG` if the program has set a field that the driver does not know,
//! or if the size is above 4096. In [`Info`], the driver sets `size` to the number of bytes that it
//! knows, and the bytes after them to 0.
//!
//! # Lost completion records
//!
//! A completion record whose address is not aligned to 32 bytes, or cannot be written, is lost, and
//! the work continues. `poll` then returns `POLLIN | POLLERR`, and one `read` fails with `EBADMSG`;
//! the register `LOST` of the doorbell page tells which record it was. The interrupt of the
//! descriptor, if it asks for one, wakes waiters.
//!
//! # `/proc/PID/fdinfo`
//!
//! One line for each key of [`fdinfo`], and one for each counter of [`super::counters::COUNTERS`]
//! under its name after the prefix `svm-`: `svm-atc_hits:\t12`. All numbers are decimal, addresses
//! hexadecimal with `0x`. A context whose device is gone has the keys up to `svm-state` only; one whose
//! function is being reset has no counters.

/// Type of the ioctl numbers: no other driver of the kernel uses this block.
pub const TYPE: u8 = 0xd5;
/// Number of the ioctl that fills in an [`Info`].
pub const INFO: u8 = 0x00;
/// Number of the ioctl that takes a [`Queue`] and starts the context.
pub const QUEUE_SETUP: u8 = 0x01;
/// Number of the ioctl that stops the context; `QUEUE_SETUP` may follow. Without an argument.
pub const QUEUE_STOP: u8 = 0x02;
/// Number of the ioctl that takes an [`Eventfd`], which the driver signals at completion
/// interrupts.
pub const EVENTFD: u8 = 0x03;
/// Number of the ioctl that takes a [`Moderation`]: the number of completions for one interrupt.
pub const MODERATION: u8 = 0x04;

/// Size of the mapping of the doorbell page in bytes.
pub const DOORBELL_SIZE: usize = super::doorbell::PAGE_SIZE as usize;

/// Declares the arguments: each begins with its size and flags, so that later versions can extend
/// it.
macro_rules! arguments {
    ($($(#[doc = $doc:literal])+ $name:ident {
        $($(#[doc = $fdoc:literal])+ $field:ident: $type:ty,)+
    })+) => {
        $($(#[doc = $doc])+
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// Size of the structure in bytes; see the module.
            pub size: u32,
            /// 0; other values give `EINVAL`.
            pub flags: u32,
            $($(#[doc = $fdoc])+ pub $field: $type,)+
        }

        /// All fields 0, except the size.
        impl Default for $name {
            fn default() -> Self {
                Self {
                    size: core::mem::size_of::<Self>() as u32,
                    flags: 0,
                    $($field: 0,)+
                }
            }
        })+
    };
}

arguments! {
    /// What a program needs to know about its context and device. All fields are host-endian. The
    /// program sets size and flags, and the driver sets the rest.
    Info {
        /// Version of the device, as [`super::ids::ABI_VERSION`]: of its descriptors and its
        /// doorbell page, which programs use without the driver. The driver works with one major
        /// version.
        device_version: u32,
        /// Number of the context.
        context: u32,
        /// PASID of the process on this device.
        pasid: u32,
        /// Contexts of the device.
        contexts: u32,
        /// Log2 of the largest ring.
        ring_log2_max: u32,
        /// Log2 of the longest transfer.
        transfer_log2_max: u32,
        /// Bit n: the device performs operation n.
        operations: u64,
        /// Entries of the address translation cache.
        atc_entries: u32,
        /// Page requests that the device may have outstanding.
        page_requests: u32,
        /// Log2 of the longest batch; meaningless unless the device performs batches.
        batch_log2_max: u32,
        /// 0.
        reserved: u32,
    }

    /// The submission ring of a context.
    Queue {
        /// Virtual address of the ring, aligned to 64 bytes. `EINVAL` if it is not, or if the ring
        /// is not completely in the user part of the address space.
        ring: u64,
        /// Log2 of the number of descriptors, at most `ring_log2_max`.
        ring_log2: u32,
        /// 0; other values give `EINVAL`.
        reserved: u32,
    }

    /// The eventfd of a context.
    ///
    /// The driver adds 1 to it at every interrupt of the context: for completions, and when the
    /// context halts. It also adds 1 when the context is revoked with its device. Interrupts in
    /// quick succession may together add only 1; `read` of the device file counts every one of
    /// them. The eventfd stays attached over `QUEUE_STOP` and `QUEUE_SETUP`, until it is replaced
    /// or detached, or the device file is closed.
    Eventfd {
        /// File descriptor of the eventfd, which replaces an earlier one; -1 detaches. `EBADF` if
        /// it is not open, `EINVAL` if it is not an eventfd.
        fd: i32,
        /// 0; other values give `EINVAL`.
        reserved: u32,
    }

    /// How the device combines the interrupts of several completions into one.
    ///
    /// The device sends the interrupt as soon as either limit is reached. Both are 0 when the file
    /// is opened: every such completion sends its interrupt at once. The setting is kept over
    /// `QUEUE_STOP` and `QUEUE_SETUP`.
    Moderation {
        /// Completions for one interrupt, up to 65535; 0 and 1 mean each. `EINVAL` if larger,
        /// `EOPNOTSUPP` if the device has no moderation (version older than 1.2).
        count: u32,
        /// Time in microseconds after the first of them at which the device sends the interrupt in
        /// any case; 0 for no time limit: fewer completions than `count` then wait for ever.
        microseconds: u32,
    }
}

/// Keys of the lines of `/proc/PID/fdinfo/FD`.
pub mod fdinfo {
    /// The prefix of all keys, and of the names of counters.
    pub const PREFIX: &str = "svm-";
    /// PCI address of the function, `0000:00:04.0`.
    pub const DEVICE: &str = "svm-device";
    /// Number of the context.
    pub const CONTEXT: &str = "svm-context";
    /// PASID of the address space that opened the file.
    pub const PASID: &str = "svm-pasid";
    /// `disabled`, `enabled`, `stopping`, `halted`, `resetting` while the function is being reset,
    /// or `gone` if the device is gone.
    pub const STATE: &str = "svm-state";
    /// Reason of the halt, as a number of [`super::super::registers::halt`]; 0 if it has not
    /// halted.
    pub const HALT: &str = "svm-halt";
    /// Virtual address of the ring; 0 if the context was never started.
    pub const RING: &str = "svm-ring";
    /// Number of descriptors of the ring.
    pub const RING_ENTRIES: &str = "svm-ring_entries";
    /// Descriptors consumed since the start.
    pub const HEAD: &str = "svm-head";
    /// Descriptors submitted since the start.
    pub const TAIL: &str = "svm-tail";
    /// MSI-X vector of the context.
    pub const VECTOR: &str = "svm-vector";
    /// 1 if an eventfd is attached, otherwise 0.
    pub const EVENTFD: &str = "svm-eventfd";
    /// The fields of [`super::Moderation`], separated by a blank.
    pub const MODERATION: &str = "svm-moderation";
}
