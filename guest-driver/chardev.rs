// SPDX-License-Identifier: GPL-2.0-only

//! The character device `/dev/svmN` of one device, and its attributes in sysfs.
//!
//! It is a separate cdev, created by `node.c`. A misc device is not suitable: the misc core opens
//! all misc devices of the machine under one lock, and opening this device binds an address space,
//! which can take as long as a page fault of another process.

use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

use crate::{
    device::Device,
    raw, //
};

/// `struct svm_demo_node` of `node.c`.
#[repr(C)]
struct RawNode {
    _opaque: [u8; 0],
}

// C only gets pointers to the kernel's structures; some of these have fields without a size.
#[allow(improper_ctypes)]
unsafe extern "C" {
    safe fn svm_demo_number_get() -> c_int;
    safe fn svm_demo_number_put(number: u32);
    fn svm_demo_node_new(
        parent: *mut bindings::device,
        number: u32,
        operations: *const bindings::file_operations,
        owner: *mut c_void,
    ) -> *mut RawNode;
    fn svm_demo_node_close(node: *mut RawNode);
    fn svm_demo_node_remove(node: *mut RawNode);
    fn svm_demo_node_get(node: *mut RawNode);
    fn svm_demo_node_put(node: *mut RawNode);
    fn svm_demo_node_event(node: *mut RawNode, variable: *mut c_char);
    fn svm_demo_node_of(inode: *mut bindings::inode) -> *mut RawNode;
    fn svm_demo_node_enter(node: *mut RawNode) -> *mut c_void;
    fn svm_demo_node_leave(node: *mut RawNode);
}

/// The number N of `/dev/svmN`, released when dropped.
pub(crate) struct Number(u32);

impl Number {
    /// Takes the lowest free number; `ENOSPC` if all are taken.
    pub(crate) fn take() -> Result<Self> {
        let number = svm_demo_number_get();

        u32::try_from(number)
            .map(Self)
            .map_err(|_| Error::from_errno(number))
    }

    /// The number.
    pub(crate) fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        svm_demo_number_put(self.0);
    }
}

/// A reference to the character device, which may have been removed.
///
/// # Invariants
///
/// `node` is valid, and `self` owns a reference to it.
pub(crate) struct Node {
    node: NonNull<RawNode>,
}

// SAFETY: A reference to a device is not tied to a task.
unsafe impl Send for Node {}

// SAFETY: Any task may call the functions that take a shared reference.
unsafe impl Sync for Node {}

impl Node {
    /// Reports a change of the device to user space with a variable, `KEY=value`, for `udev` rules
    /// and `udevadm monitor`.
    pub(crate) fn announce(&self, variable: &CStr) {
        // SAFETY: By the type invariants, the node is valid. The string is only read.
        unsafe { svm_demo_node_event(self.node.as_ptr(), variable.as_char_ptr().cast_mut()) };
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, `self` owns the reference that it releases.
        unsafe { svm_demo_node_put(self.node.as_ptr()) };
    }
}

/// A registered character device. Dropping it removes it, and revokes the contexts of open files.
///
/// # Invariants
///
/// The owner of `node` is the `Device` that `device` refers to.
pub(crate) struct CharDevice {
    node: NonNull<RawNode>,
    device: Arc<Device>,
    _number: Number,
}

// SAFETY: A character device may be removed by any task, and the other fields are `Send`.
unsafe impl Send for CharDevice {}

// SAFETY: Nothing is done with a shared reference.
unsafe impl Sync for CharDevice {}

impl CharDevice {
    /// Registers a character device, with the PCI function as its parent and `operations` for its
    /// files.
    pub(crate) fn register(
        device: Arc<Device>,
        number: Number,
        operations: &'static bindings::file_operations,
    ) -> Result<Self> {
        // SAFETY: The parent is a valid device. The operations live as long as the module. The
        // owner lives until `drop()`, which closes the node first.
        let node = from_err_ptr(unsafe {
            svm_demo_node_new(
                &raw mut (*raw::pci_dev(device.pdev())).dev,
                number.0,
                operations,
                Arc::as_ptr(&device).cast_mut().cast(),
            )
        })?;

        // INVARIANT: The node was created above.
        Ok(Self {
            node: NonNull::new(node).ok_or(ENOMEM)?,
            device,
            _number: number,
        })
    }
}

impl Drop for CharDevice {
    fn drop(&mut self) {
        let node = self.node.as_ptr();

        // First, so that no later open succeeds. SAFETY: By the type invariants, the node is valid.
        // Afterwards no `open` has its owner or will get it.
        unsafe { svm_demo_node_close(node) };

        // Here, and not in `unbind()`, because files may be open even if `probe()` fails late.
        let stopped = self.device.revoke();
        if !stopped {
            // SAFETY: As above; it is still visible.
            unsafe { svm_demo_node_event(node, c"SVM_EVENT=CUT_OFF".as_char_ptr().cast_mut()) };
        }
        // SAFETY: As above; this releases the node's initial reference.
        unsafe { svm_demo_node_remove(node) };

        // Last, because it may take as long as a page fault of some process.
        self.device.release();
    }
}

/// The device of a file that is being opened. While the value lives, the device is bound to its
/// driver.
///
/// # Invariants
///
/// `node` was entered for this value, and `device` is its owner.
pub(crate) struct Opening {
    node: NonNull<RawNode>,
    device: NonNull<Device>,
}

impl Opening {
    /// Finds the device that `inode` opens.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is being removed, `EINTR` if a signal arrived meanwhile.
    ///
    /// # Safety
    ///
    /// It is called from the `open` operation of a file of this module, and the result is dropped
    /// before that returns.
    pub(crate) unsafe fn enter(inode: *mut bindings::inode) -> Result<Self> {
        // SAFETY: By the requirement of this function, the inode belongs to a node, which the
        // caller of `open` holds.
        let node = unsafe { svm_demo_node_of(inode) };
        // SAFETY: As above, the node is valid.
        let device = from_err_ptr(unsafe { svm_demo_node_enter(node) })?;

        // INVARIANT: It was entered above.
        Ok(Self {
            node: NonNull::new(node).ok_or(ENODEV)?,
            device: NonNull::new(device.cast()).ok_or(ENODEV)?,
        })
    }

    /// The device. It is bound to its driver during the lifetime of `self`.
    pub(crate) fn device(&self) -> ArcBorrow<'_, Device> {
        // SAFETY: By the type invariants, the pointer is that of the `Arc` in the `CharDevice`,
        // which is not dropped before the node is left and closed.
        unsafe { ArcBorrow::from_raw(self.device.as_ptr()) }
    }

    /// The character device.
    pub(crate) fn node(&self) -> Node {
        // SAFETY: By the type invariants, the node is valid.
        unsafe { svm_demo_node_get(self.node.as_ptr()) };

        // INVARIANT: The reference was taken above.
        Node { node: self.node }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the node was entered, which this ends.
        unsafe { svm_demo_node_leave(self.node.as_ptr()) };
    }
}

/// The attributes of `node.h`.
mod attribute {
    pub(super) const DEVICE_VERSION: u32 = 0;
    pub(super) const CONTEXTS: u32 = 1;
    pub(super) const CONTEXTS_AVAILABLE: u32 = 2;
    pub(super) const CONTEXTS_PER_USER: u32 = 3;
    pub(super) const OPERATIONS: u32 = 4;
}

/// # Safety
///
/// Only for `node.c`, with the owner of a node that was entered.
#[no_mangle]
unsafe extern "C" fn svm_demo_attribute_read(owner: *const c_void, attribute: u32) -> u64 {
    // SAFETY: By the requirement of this function.
    let device = unsafe { &*owner.cast::<Device>() };
    let capabilities = device.capabilities();

    match attribute {
        attribute::DEVICE_VERSION => capabilities.abi_version.into(),
        attribute::CONTEXTS => capabilities.contexts.into(),
        attribute::CONTEXTS_AVAILABLE => device.available(),
        attribute::CONTEXTS_PER_USER => device.contexts_per_user().into(),
        attribute::OPERATIONS => capabilities.operations,
        _ => 0,
    }
}

/// # Safety
///
/// Only for `node.c`, with the owner of a node that was entered.
#[no_mangle]
unsafe extern "C" fn svm_demo_set_contexts_per_user(owner: *const c_void, contexts: u32) {
    // SAFETY: By the requirement of this function.
    let device = unsafe { &*owner.cast::<Device>() };

    device.set_contexts_per_user(contexts);
}
