// SPDX-License-Identifier: GPL-2.0-only

//! The pointers that C functions take.

use core::ptr;
use kernel::{
    bindings,
    device::DeviceContext,
    pci, //
};

/// `struct pci_dev` of a device in any context.
pub(crate) fn pci_dev<Ctx: DeviceContext>(pdev: &pci::Device<Ctx>) -> *mut bindings::pci_dev {
    // `pci::Device` is a transparent wrapper of `struct pci_dev`.
    ptr::from_ref(pdev).cast_mut().cast()
}
