// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a process can ask of an open `/dev/svmN`.
//!
//! Opening the file binds a context of the device to the address space of the process. `mmap` of
//! [`DOORBELL_SIZE`] bytes at offset 0, shared, gives the context's doorbell page. `read` of 8
//! bytes returns the number of completion interrupts since the last read (and waits for one, or
//! gives `EAGAIN` with `O_NONBLOCK`); `poll` says whether `read` would wait. Closing the last
//! reference stops the context and ends the bond. `open` fails with `EBUSY` if the device has no
//! free context, and with `EDQUOT` if the user has as many as the driver lets one user have.
//!
//! # Whose file it is
//!
//! The file belongs to the address space that opened it: all threads of the process may use it, and
//! so may a child of `vfork()` until it calls `exec()`. For every other process that holds it (a
//! child after `fork()`, the program after `exec()` without close-on-exec, a process that got it
//! through a socket), `ioctl`, `mmap` and `read` fail with `EPERM`, whatever their arguments, and
//! `poll` gives `POLLERR`. They can close it, though. A child of `fork()` does not inherit the
//! mapping of the doorbell page: `SIGSEGV`.
//!
//! # Arguments of ioctls
//!
//! All ioctls have numbers without direction and size (`_IO`); the argument is the address of a
//! structure that begins with its `size` and with `flags`. A structure only ever grows at its end,
//! by fields whose value 0 means what was before there were such fields. So program and driver may
//! be of different age: a program that knows more sets what it does not need to 0, and a driver
//! that knows more takes 0 for what the program does not give. `EINVAL` if the size is smaller than
//! the structure was first, `E2BIG` if the program has set something that the driver does not know,
//! or the size is above 4096. Of [`Info`], the driver sets `size` to the number of bytes that it
//! knows, and bytes behind them to 0.
//!
//! # Lost completion records
//!
//! A completion record whose address is not aligned to 32 bytes, or cannot be written, is lost, and
//! the work goes on. `poll` then gives `POLLIN | POLLERR`, and one `read` fails with `EBADMSG`;
//! which record it was says the register `LOST` of the doorbell page. Waiters are woken by the
//! interrupt of the descriptor, if it asks for one.
//!
//! # `/proc/PID/fdinfo`
//!
//! One line for each key of [`fdinfo`], and one for each counter of [`super::counters::COUNTERS`]
//! under its name after the prefix `svm-`: `svm-atc_hits:\t12`. All numbers are decimal, addresses
//! hexadecimal with `0x`. A context whose device is gone has the keys up to `svm-state` only.

/// Type of the ioctl numbers: a block that no other driver of the kernel has.
pub const TYPE: u8 = 0xd5;
/// Number of the ioctl that fills in an [`Info`].
pub const INFO: u8 = 0x00;
/// Number of the ioctl that takes a [`Queue`] and starts the context.
pub const QUEUE_SETUP: u8 = 0x01;
/// Number of the ioctl that stops the context; `QUEUE_SETUP` may follow. Without an argument.
pub const QUEUE_STOP: u8 = 0x02;
/// Number of the ioctl that takes an [`Eventfd`], to be signalled at completion interrupts.
pub const EVENTFD: u8 = 0x03;
/// Number of the ioctl that takes a [`Moderation`]: how many completions make an interrupt.
pub const MODERATION: u8 = 0x04;

/// Size of the mapping of the doorbell page in bytes.
pub const DOORBELL_SIZE: usize = super::doorbell::PAGE_SIZE as usize;

/// Declares the arguments: each begins with its size and flags, so that it can grow.
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

        /// All 0 but the size.
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
    /// What a program needs to know of its context and device. All fields are host-endian. The
    /// program sets size and flags, and the driver the rest.
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
        /// Log2 of the longest batch; of no meaning unless the device performs batches.
        batch_log2_max: u32,
        /// 0.
        reserved: u32,
    }

    /// The submission ring of a context.
    Queue {
        /// Virtual address of the ring, aligned to 64 bytes. `EINVAL` if it is not, or if the ring
        /// is not wholly in the process's part of the address space.
        ring: u64,
        /// Log2 of the number of descriptors, at most `ring_log2_max`.
        ring_log2: u32,
        /// 0; other values give `EINVAL`.
        reserved: u32,
    }

    /// The eventfd of a context.
    ///
    /// The driver adds 1 to it at every interrupt of the context: for completions, and when the
    /// context halts. It also adds 1 when the context is taken away with its device. Interrupts
    /// that come close together may add 1 in all; how many there were is what `read` of the device
    /// file says, which counts them all the same. The eventfd stays attached over `QUEUE_STOP` and
    /// `QUEUE_SETUP`, until it is replaced, detached, or the device file is closed.
    Eventfd {
        /// File descriptor of the eventfd, which replaces an earlier one; -1 detaches. `EBADF` if
        /// it is not open, `EINVAL` if it is no eventfd.
        fd: i32,
        /// 0; other values give `EINVAL`.
        reserved: u32,
    }

    /// How completions that ask for an interrupt are gathered into one.
    ///
    /// The device sends the interrupt as soon as either limit is reached. Both are 0 when the file
    /// is opened: every such completion sends its interrupt at once. The setting stays over
    /// `QUEUE_STOP` and `QUEUE_SETUP`.
    Moderation {
        /// Completions for one interrupt, up to 65535; 0 and 1 mean each. `EINVAL` if larger,
        /// `EOPNOTSUPP` if the device has no moderation (version older than 1.2).
        count: u32,
        /// Microseconds from the first of them after which the interrupt is sent anyway; 0 for no
        /// limit of time: fewer completions than `count` then wait for ever.
        microseconds: u32,
    }
}

/// Keys of the lines of `/proc/PID/fdinfo/FD`.
pub mod fdinfo {
    /// What all keys begin with; also goes before the name of a counter.
    pub const PREFIX: &str = "svm-";
    /// PCI address of the function, `0000:00:04.0`.
    pub const DEVICE: &str = "svm-device";
    /// Number of the context.
    pub const CONTEXT: &str = "svm-context";
    /// PASID of the address space that opened the file.
    pub const PASID: &str = "svm-pasid";
    /// `disabled`, `enabled`, `stopping`, `halted`, or `gone` with the device.
    pub const STATE: &str = "svm-state";
    /// Why it halted, as a number of [`super::super::registers::halt`]; 0 if it has not.
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
    /// The fields of [`super::Moderation`], with a blank between.
    pub const MODERATION: &str = "svm-moderation";
}
