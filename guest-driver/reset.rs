// SPDX-License-Identifier: GPL-2.0-only

//! Notifications of a PCI driver before and after a reset of one of its functions, and before the
//! machine is shut down or another kernel starts.
//!
//! The PCI core sends them through `struct pci_error_handlers` and `shutdown`, which `kernel::pci`
//! does not support yet. [`Adapter`] replaces `kernel::pci::Adapter`: it adds them and leaves
//! everything else to it.
//!
//! This module knows nothing of the driver that it is part of.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use kernel::{
    bindings,
    device::CoreInternal,
    driver::{
        DriverLayout,
        RegistrationOps, //
    },
    pci,
    prelude::*,
    types::Opaque, //
};

/// A driver with notifications of resets: through sysfs, by another driver, of the function alone
/// or of its whole bus.
///
/// All methods are called with the lock of the device held, so it is bound to the driver, and
/// [`pci::Driver::probe`] and [`pci::Driver::unbind`] do not run meanwhile. All may sleep.
pub(crate) trait Handler: pci::Driver {
    /// The function is going to be reset: it must not send anything any more. Until [`Self::done`],
    /// its registers may not answer, and lose their values.
    fn prepare(this: Pin<&Self::Data<'_>>);

    /// The reset has ended, or has failed. Configuration space is restored.
    fn done(this: Pin<&Self::Data<'_>>);

    /// The machine is going to be shut down, or another kernel to start: the function must not send
    /// anything any more.
    fn shutdown(this: Pin<&Self::Data<'_>>);
}

/// An adapter for the registration of PCI drivers with notifications of resets.
pub(crate) struct Adapter<T: Handler>(T);

// SAFETY: It guarantees the same as `pci::Adapter`.
unsafe impl<T: Handler> DriverLayout for Adapter<T> {
    type DriverType = <pci::Adapter<T> as DriverLayout>::DriverType;
    type DriverData<'bound> = <pci::Adapter<T> as DriverLayout>::DriverData<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = <pci::Adapter<T> as DriverLayout>::DEVICE_DRIVER_OFFSET;
}

// SAFETY: `register()` and `unregister()` are those of `pci::Adapter`.
unsafe impl<T: Handler> RegistrationOps for Adapter<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The driver is being initialized, and not shared yet.
        unsafe {
            (*driver.get()).err_handler = Self::HANDLERS;
            (*driver.get()).shutdown = Some(Self::shutdown);
        }

        // SAFETY: By the requirements of this function, which are the same.
        unsafe { pci::Adapter::<T>::register(driver, name, module) }
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: By the requirements of this function, which are the same.
        unsafe { pci::Adapter::<T>::unregister(driver) }
    }
}

impl<T: Handler> Adapter<T> {
    const HANDLERS: &'static bindings::pci_error_handlers = &bindings::pci_error_handlers {
        reset_prepare: Some(Self::prepare),
        reset_done: Some(Self::done),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only as the `reset_prepare` of a driver that this adapter has registered.
    unsafe extern "C" fn prepare(pdev: *mut bindings::pci_dev) {
        // SAFETY: By the requirement of this function. The reference ends with the call.
        T::prepare(unsafe { Self::data(&pdev) });
    }

    /// # Safety
    ///
    /// Only as the `reset_done` of a driver that this adapter has registered.
    unsafe extern "C" fn done(pdev: *mut bindings::pci_dev) {
        // SAFETY: By the requirement of this function. The reference ends with the call.
        T::done(unsafe { Self::data(&pdev) });
    }

    /// # Safety
    ///
    /// Only as the `shutdown` of a driver that this adapter has registered.
    unsafe extern "C" fn shutdown(pdev: *mut bindings::pci_dev) {
        // SAFETY: By the requirement of this function. The reference ends with the call.
        T::shutdown(unsafe { Self::data(&pdev) });
    }

    /// The driver's data of a function.
    ///
    /// # Safety
    ///
    /// `pdev` is the argument of a callback of the PCI core, which does not return during `'a`.
    unsafe fn data<'a>(pdev: &'a *mut bindings::pci_dev) -> Pin<&'a T::Data<'a>> {
        // SAFETY: The PCI core passes a valid device, which stays valid during the call.
        let pdev = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };

        // SAFETY: The PCI core holds the lock of the device and has found it bound to this driver.
        // Probing holds that lock, too, so `probe()` has returned, and successfully, because a
        // device whose probe has failed has no driver: its data exist. `pci::Adapter` has stored
        // them, with the type from `T`.
        unsafe { pdev.as_ref().drvdata_borrow::<T::Data<'a>>() }
    }
}
