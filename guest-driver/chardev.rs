// SPDX-License-Identifier: GPL-2.0-only

//! The character device `/dev/svmN` of one device.
//!
//! A misc device of its own making: `kernel::miscdevice` sets no owner, so that the module could be
//! unloaded under an open file, and offers neither `poll` nor `read` nor a parent.

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

use crate::{
    device::Device,
    file, //
};

/// Numbers in use: bit N for `/dev/svmN`.
static NUMBERS: Atomic<u64> = Atomic::new(0);

/// The number N of `/dev/svmN`, given back when dropped.
pub(crate) struct Number(u32);

impl Number {
    /// Takes the lowest free number; `ENOSPC` if all 64 are taken.
    pub(crate) fn take() -> Result<Self> {
        let mut numbers = NUMBERS.load(Relaxed);

        loop {
            let number = numbers.trailing_ones();
            if number == u64::BITS {
                return Err(ENOSPC);
            }
            match NUMBERS.cmpxchg(numbers, numbers | 1 << number, Full) {
                Ok(_) => return Ok(Self(number)),
                Err(changed) => numbers = changed,
            }
        }
    }

    /// The number.
    pub(crate) fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut numbers = NUMBERS.load(Relaxed);

        while let Err(changed) = NUMBERS.cmpxchg(numbers, numbers & !(1 << self.0), Full) {
            numbers = changed;
        }
    }
}

/// A registered character device. Dropping it removes it, and takes their contexts away from files
/// that are open.
///
/// # Invariants
///
/// `misc` is registered with the misc core, with the operations of [`file`].
#[pin_data(PinnedDrop)]
pub(crate) struct CharDevice {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    name: CString,
    device: Arc<Device>,
    _number: Number,
}

// SAFETY: A misc device may be removed by any task, and the other fields are `Send`.
unsafe impl Send for CharDevice {}

// SAFETY: Nothing is done with `misc` through a shared reference.
unsafe impl Sync for CharDevice {}

impl CharDevice {
    /// Registers a character device, with the PCI function as its parent.
    pub(crate) fn register(device: Arc<Device>, number: Number) -> Result<Pin<KBox<Self>>> {
        let name = CString::try_from_fmt(fmt!("svm{}", number.0))?;
        let misc = bindings::miscdevice {
            minor: bindings::MISC_DYNAMIC_MINOR as c_int,
            // The characters do not move with the `CString`.
            name: name.as_char_ptr(),
            fops: file::OPERATIONS,
            // SAFETY: The pointer is that of a valid `pci_dev`.
            parent: unsafe { &raw mut (*crate::raw(device.pdev())).dev },
            mode: 0o600,
            ..pin_init::zeroed()
        };

        KBox::pin_init(
            // INVARIANT: `misc` is registered below, or the initializer fails.
            try_pin_init!(Self {
                device,
                name,
                _number: number,
                // Last: from here on it can be opened.
                misc <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(misc) };
                    // SAFETY: `slot` was initialized above. It does not move and stays valid until
                    // it is deregistered, and so do the name and the operations it points to.
                    to_result(unsafe { bindings::misc_register(slot) })
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// The device behind the file.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The character device that `file` is being opened of.
    ///
    /// # Safety
    ///
    /// The call comes from the `open` operation of `file`, the misc core has called it for a device
    /// of this module, and it does not return during `'a`.
    pub(crate) unsafe fn from_open<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: The misc core has stored the pointer to the `miscdevice`.
        let misc = unsafe { (*file).private_data }.cast::<Opaque<bindings::miscdevice>>();

        // SAFETY: Each `miscdevice` with our operations is the field `misc` of a `CharDevice`. It
        // is not removed while `open` runs: the misc core holds a lock that `misc_deregister()`
        // takes.
        unsafe { &*kernel::container_of!(misc, Self, misc) }
    }
}

#[pinned_drop]
impl PinnedDrop for CharDevice {
    fn drop(self: Pin<&mut Self>) {
        // First, so that nobody comes after.
        // SAFETY: By the type invariants, it is registered. Afterwards no `open` runs or will.
        unsafe { bindings::misc_deregister(self.misc.get()) };

        // Here, and not in `unbind()`, because a `probe()` that fails late may have served files.
        self.device.revoke();
    }
}
