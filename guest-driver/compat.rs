// SPDX-License-Identifier: GPL-2.0-only

//! Names that differ between releases of the kernel crate. `Kbuild` selects the release; a driver
//! in the kernel's own tree would not need this module.
//!
//! The macros here refer to items that the macro `module!` defines in the module's first file.

#[cfg(not(since_7_3))]
mod names {
    use kernel::{
        bindings,
        devres::Devres,
        irq::IrqReturn,
        pci, //
    };

    /// A BAR that is released when the device is unbound.
    pub(crate) type DevresBar<const SIZE: usize> = Devres<pci::Bar<'static, SIZE>>;

    /// The id information that `probe()` gets.
    pub(crate) type IdInfo<'a, T> = &'a T;

    /// Declares the table of ids, for the driver and for `modprobe`.
    macro_rules! pci_device_table {
        ($name:ident, $info:ty, $entries:tt) => {
            ::kernel::pci_device_table!($name, MODULE_PCI_TABLE, $info, $entries);
        };
    }
    pub(crate) use pci_device_table;

    /// The module, as the owner of its files.
    macro_rules! module_owner {
        () => {
            THIS_MODULE.as_ptr()
        };
    }
    pub(crate) use module_owner;

    /// What a handler returns for an interrupt that it handled.
    pub(crate) const IRQ_HANDLED: bindings::irqreturn_t =
        IrqReturn::Handled as bindings::irqreturn_t;

    /// The value of the module's parameter.
    macro_rules! contexts_per_user {
        () => {
            *module_parameters::contexts_per_user.value()
        };
    }
    pub(crate) use contexts_per_user;
}

#[cfg(since_7_3)]
mod names {
    use kernel::bindings;
    pub(crate) use kernel::{
        pci::DevresBar,
        pci_device_table, //
    };

    /// The id information that `probe()` gets: none for ids from `new_id` in sysfs.
    pub(crate) type IdInfo<'a, T> = Option<&'a T>;

    /// The module, as the owner of its files.
    macro_rules! module_owner {
        () => {
            ::kernel::module::this_module::<LocalModule>().as_ptr()
        };
    }
    pub(crate) use module_owner;

    /// What a handler returns for an interrupt that it handled.
    pub(crate) const IRQ_HANDLED: bindings::irqreturn_t = bindings::irqreturn::IRQ_HANDLED;

    /// The value of the module's parameter.
    macro_rules! contexts_per_user {
        () => {
            module_parameters::contexts_per_user.value()
        };
    }
    pub(crate) use contexts_per_user;
}

pub(crate) use names::*;
