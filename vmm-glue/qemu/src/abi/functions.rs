// SPDX-License-Identifier: GPL-2.0-or-later
//! The functions and variables of QEMU that the library uses, found by name in the running
//! process. The library itself has no unresolved symbol of QEMU, so any process can load it,
//! without effect.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use nix::libc;

use qemu_layout::{Kind, Table};

use super::layout::*;
use super::program::Program;

/// The address of an exported symbol of this process.
pub fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `name` is a C string, and RTLD_DEFAULT searches the process's own symbols.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// Declares the table once: its fields and their search.
macro_rules! table {
    (
        functions { $($function:ident: $type:ty;)+ }
        variables { $($variable:ident: $pointee:ty;)+ }
    ) => {
        /// QEMU's exports.
        pub struct Qemu {
            $(pub $function: $type,)+
            $(pub $variable: *mut $pointee,)+
        }

        impl Qemu {
            /// Finds all of them: exported by the process, or at the addresses of the program's
            /// layout file; the error has the names of missing ones.
            pub fn resolve(
                program: &Program,
                file: Option<&Table>,
            ) -> Result<Qemu, Vec<&'static str>> {
                let mut missing = Vec::new();
                let mut find = |name| find(name, program, file, &mut missing);
                $(let $function = find(concat!(stringify!($function), "\0"));)+
                $(let $variable = find(concat!(stringify!($variable), "\0"));)+
                if !missing.is_empty() {
                    return Err(missing);
                }
                Ok(Qemu {
                    $(
                        // SAFETY: the address is not null, because none is missing. This file
                        // defines the function's type for the series that `verify` accepts; nothing
                        // is called before its verdict, except the functions that it needs itself.
                        $function: unsafe { std::mem::transmute::<*mut c_void, $type>($function) },
                    )+
                    $($variable: $variable.cast(),)+
                })
            }

            /// All names, and the types of the functions in the format of a layout file.
            #[cfg(test)]
            fn signatures() -> Vec<(&'static str, Option<String>)> {
                use super::signature::Signature;
                vec![
                    $((stringify!($function), Some(<$type as Signature>::signature())),)+
                    $((stringify!($variable), None),)+
                ]
            }
        }
    };
}

/// Looks up one name, with its terminating null, and records it if it is missing.
fn find(
    name: &'static str,
    program: &Program,
    file: Option<&Table>,
    missing: &mut Vec<&'static str>,
) -> *mut c_void {
    let exported = CStr::from_bytes_with_nul(name.as_bytes())
        .ok()
        .and_then(symbol);
    let name = name.trim_end_matches('\0');
    let by_file = || {
        let (address, _) = file?.get(Kind::Address, name)?;
        Some(program.bias.wrapping_add(address as usize) as *mut c_void)
    };
    exported.or_else(by_file).unwrap_or_else(|| {
        missing.push(name);
        std::ptr::null_mut()
    })
}

table! {
    functions {
        // Types and objects
        register_module_init: unsafe extern "C" fn(unsafe extern "C" fn(), c_int);
        type_register_static: unsafe extern "C" fn(*const TypeInfo) -> *mut c_void;
        object_class_by_name: unsafe extern "C" fn(*const c_char) -> *mut ObjectClass;
        object_class_property_add: unsafe extern "C" fn(*mut ObjectClass, *const c_char, *const c_char,
            Option<PropertyAccess>, Option<PropertyAccess>, *const c_void, *mut c_void) -> *mut ObjectProperty;
        object_class_property_set_description: unsafe extern "C" fn(*mut ObjectClass, *const c_char, *const c_char);
        object_resolve_path_type: unsafe extern "C" fn(*const c_char, *const c_char, *mut bool) -> *mut Object;
        object_dynamic_cast: unsafe extern "C" fn(*mut Object, *const c_char) -> *mut Object;
        object_property_get_bool: unsafe extern "C" fn(*mut Object, *const c_char, ErrorOut) -> bool;
        object_property_get_uint: unsafe extern "C" fn(*mut Object, *const c_char, ErrorOut) -> u64;
        object_property_get_str: unsafe extern "C" fn(*mut Object, *const c_char, ErrorOut) -> *mut c_char;
        object_property_set_bool: unsafe extern "C" fn(*mut Object, *const c_char, bool, ErrorOut) -> bool;
        object_property_set_uint: unsafe extern "C" fn(*mut Object, *const c_char, u64, ErrorOut) -> bool;
        object_resolve_path: unsafe extern "C" fn(*const c_char, *mut bool) -> *mut Object;
        object_resolve_path_component: unsafe extern "C" fn(*mut Object, *const c_char) -> *mut Object;
        object_class_dynamic_cast: unsafe extern "C" fn(*mut ObjectClass, *const c_char) -> *mut ObjectClass;
        device_class_set_parent_realize: unsafe extern "C" fn(*mut ObjectClass,
            unsafe extern "C" fn(*mut Object, ErrorOut), *mut Option<Realize>);
        resettable_class_set_parent_phases: unsafe extern "C" fn(*mut ObjectClass, Option<ResettableExit>,
            Option<ResettableExit>, Option<ResettableExit>, *mut ResettablePhases);
        qdev_get_machine: unsafe extern "C" fn() -> *mut Object;
        qdev_get_human_name: unsafe extern "C" fn(*mut Object) -> *mut c_char;
        qdev_get_parent_bus: unsafe extern "C" fn(*const Object) -> *mut BusState;
        device_class_set_legacy_reset: unsafe extern "C" fn(*mut ObjectClass, unsafe extern "C" fn(*mut Object));
        visit_type_uint64: unsafe extern "C" fn(*mut Visitor, *const c_char, *mut u64, ErrorOut) -> bool;
        visit_type_bool: unsafe extern "C" fn(*mut Visitor, *const c_char, *mut bool, ErrorOut) -> bool;
        visit_type_str: unsafe extern "C" fn(*mut Visitor, *const c_char, *mut *mut c_char, ErrorOut) -> bool;
        g_free: unsafe extern "C" fn(*mut c_void);
        // Messages
        error_setg_internal: unsafe extern "C" fn(ErrorOut, *const c_char, c_int, *const c_char, *const c_char, ...);
        error_propagate: unsafe extern "C" fn(ErrorOut, *mut Error);
        error_free: unsafe extern "C" fn(*mut Error);
        error_report: unsafe extern "C" fn(*const c_char, ...);
        warn_report: unsafe extern "C" fn(*const c_char, ...);
        qmp_query_version: unsafe extern "C" fn(ErrorOut) -> *mut VersionInfo;
        // PCI Express
        pci_bus_is_express: unsafe extern "C" fn(*const BusState) -> bool;
        pci_register_bar: unsafe extern "C" fn(*mut PCIDevice, c_int, u8, *mut MemoryRegion);
        pci_default_read_config: unsafe extern "C" fn(*mut PCIDevice, u32, c_int) -> u32;
        pci_default_write_config: unsafe extern "C" fn(*mut PCIDevice, u32, u32, c_int);
        pci_pm_init: unsafe extern "C" fn(*mut PCIDevice, u8, ErrorOut) -> c_int;
        pcie_endpoint_cap_init: unsafe extern "C" fn(*mut PCIDevice, u8) -> c_int;
        pcie_cap_exit: unsafe extern "C" fn(*mut PCIDevice);
        pcie_cap_flr_init: unsafe extern "C" fn(*mut PCIDevice);
        pcie_cap_flr_write_config: unsafe extern "C" fn(*mut PCIDevice, u32, u32, c_int);
        pcie_ats_init: unsafe extern "C" fn(*mut PCIDevice, u16, bool);
        pcie_pri_init: unsafe extern "C" fn(*mut PCIDevice, u16, u32, bool);
        pcie_pasid_init: unsafe extern "C" fn(*mut PCIDevice, u16, u8, bool, bool);
        msix_init_exclusive_bar: unsafe extern "C" fn(*mut PCIDevice, u32, u8, ErrorOut) -> c_int;
        msix_uninit_exclusive_bar: unsafe extern "C" fn(*mut PCIDevice);
        msix_vector_use: unsafe extern "C" fn(*mut PCIDevice, u32);
        msix_notify: unsafe extern "C" fn(*mut PCIDevice, u32);
        // Address translation
        pci_device_iommu_address_space: unsafe extern "C" fn(*mut PCIDevice) -> *mut AddressSpace;
        pci_ats_request_translation: unsafe extern "C" fn(*mut PCIDevice, u32, bool, bool, u64, usize, bool,
            *mut IOMMUTLBEntry, usize, *mut u32) -> isize;
        pci_pri_request_page: unsafe extern "C" fn(*mut PCIDevice, u32, bool, bool, u64, bool, u16, bool, bool) -> c_int;
        pci_pri_register_notifier: unsafe extern "C" fn(*mut PCIDevice, u32, *mut IOMMUPRINotifier) -> c_int;
        pci_pri_unregister_notifier: unsafe extern "C" fn(*mut PCIDevice, u32);
        pci_iommu_init_iotlb_notifier: unsafe extern "C" fn(*mut PCIDevice, *mut IOMMUNotifier, IommuNotify, *mut c_void) -> c_int;
        pci_iommu_register_iotlb_notifier: unsafe extern "C" fn(*mut PCIDevice, u32, *mut IOMMUNotifier) -> c_int;
        pci_iommu_unregister_iotlb_notifier: unsafe extern "C" fn(*mut PCIDevice, u32, *mut IOMMUNotifier) -> c_int;
        pci_iommu_get_iotlb_info: unsafe extern "C" fn(*mut PCIDevice, *mut u8, *mut u32) -> c_int;
        pci_setup_iommu: unsafe extern "C" fn(*mut BusState, *const PCIIOMMUOps, *mut c_void);
        pci_requester_id: unsafe extern "C" fn(*mut PCIDevice) -> u16;
        pci_bus_num: unsafe extern "C" fn(*mut BusState) -> c_int;
        pci_find_bus_nr: unsafe extern "C" fn(*mut BusState, c_int) -> *mut BusState;
        pci_find_device: unsafe extern "C" fn(*mut BusState, c_int, u8) -> *mut PCIDevice;
        x86_iommu_iec_notify_all: unsafe extern "C" fn(*mut Object, bool, u32, u32);
        // Memory
        memory_region_init: unsafe extern "C" fn(*mut MemoryRegion, *mut Object, *const c_char, u64);
        memory_region_init_alias: unsafe extern "C" fn(*mut MemoryRegion, *mut Object, *const c_char,
            *mut MemoryRegion, u64, u64);
        memory_region_init_iommu: unsafe extern "C" fn(*mut c_void, usize, *const c_char, *mut Object,
            *const c_char, u64);
        memory_region_register_iommu_notifier: unsafe extern "C" fn(*mut MemoryRegion, *mut IOMMUNotifier,
            ErrorOut) -> c_int;
        memory_region_unregister_iommu_notifier: unsafe extern "C" fn(*mut MemoryRegion, *mut IOMMUNotifier);
        memory_region_set_enabled: unsafe extern "C" fn(*mut MemoryRegion, bool);
        memory_region_transaction_begin: unsafe extern "C" fn();
        memory_region_transaction_commit: unsafe extern "C" fn();
        address_space_init: unsafe extern "C" fn(*mut AddressSpace, *mut MemoryRegion, *const c_char);
        address_space_stl_le: unsafe extern "C" fn(*mut AddressSpace, u64, u32, MemTxAttrs, *mut u32);
        memory_region_init_io: unsafe extern "C" fn(*mut MemoryRegion, *mut Object, *const MemoryRegionOps,
            *mut c_void, *const c_char, u64);
        memory_region_add_subregion_overlap: unsafe extern "C" fn(*mut MemoryRegion, u64, *mut MemoryRegion, c_int);
        memory_region_from_host: unsafe extern "C" fn(*mut c_void, *mut u64) -> *mut MemoryRegion;
        get_system_memory: unsafe extern "C" fn() -> *mut MemoryRegion;
        address_space_rw: unsafe extern "C" fn(*mut AddressSpace, u64, MemTxAttrs, *mut c_void, u64, bool) -> u32;
        address_space_map: unsafe extern "C" fn(*mut AddressSpace, u64, *mut u64, bool, MemTxAttrs) -> *mut c_void;
        address_space_unmap: unsafe extern "C" fn(*mut AddressSpace, *mut c_void, u64, bool, u64);
        // Threads, time and the life of the process
        bql_lock_impl: unsafe extern "C" fn(*const c_char, c_int);
        bql_unlock: unsafe extern "C" fn();
        bql_locked: unsafe extern "C" fn() -> bool;
        rcu_register_thread: unsafe extern "C" fn();
        rcu_unregister_thread: unsafe extern "C" fn();
        qemu_get_aio_context: unsafe extern "C" fn() -> *mut c_void;
        aio_bh_schedule_oneshot_full: unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void),
            *mut c_void, *const c_char);
        qemu_clock_get_ns: unsafe extern "C" fn(c_int) -> i64;
        timer_init_full: unsafe extern "C" fn(*mut QEMUTimer, *mut QEMUTimerListGroup, c_int, c_int, c_int,
            unsafe extern "C" fn(*mut c_void), *mut c_void);
        timer_mod: unsafe extern "C" fn(*mut QEMUTimer, i64);
        timer_del: unsafe extern "C" fn(*mut QEMUTimer);
        qemu_add_vm_change_state_handler: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void, bool, c_int), *mut c_void) -> *mut VMChangeStateEntry;
        qemu_del_vm_change_state_handler: unsafe extern "C" fn(*mut VMChangeStateEntry);
        qemu_add_machine_init_done_notifier: unsafe extern "C" fn(*mut Notifier);
        qemu_add_exit_notifier: unsafe extern "C" fn(*mut Notifier);
        qemu_set_fd_handler: unsafe extern "C" fn(c_int, Option<IoHandler>, Option<IoHandler>, *mut c_void);
        qemu_log: unsafe extern "C" fn(*const c_char, ...);
    }
    variables {
        address_space_memory: AddressSpace;
        qemu_loglevel: c_int;
        unassigned_mem_ops: MemoryRegionOps;
        vmstate_pci_device: VMStateDescription;
    }
}

/// Reads or writes a property: object, visitor, name, the property's opaque pointer, error.
pub type PropertyAccess =
    unsafe extern "C" fn(*mut Object, *mut Visitor, *const c_char, *mut c_void, ErrorOut);

/// `DeviceRealize`.
pub type Realize = unsafe extern "C" fn(*mut Object, ErrorOut);

// SAFETY: function pointers and the addresses of QEMU's variables, which are the same in every
// thread.
unsafe impl Send for Qemu {}
// SAFETY: as above; the table is never written.
unsafe impl Sync for Qemu {}

static QEMU: OnceLock<Qemu> = OnceLock::new();

/// Sets the table for the whole library.
pub fn set(table: Qemu) {
    // A second table belongs to the same process.
    let _ = QEMU.set(table);
}

/// Whether there is a table: only in a QEMU process.
pub fn is_known() -> bool {
    QEMU.get().is_some()
}

/// The table. Only code that QEMU calls reaches this, and QEMU calls none before the table is set.
pub fn qemu() -> &'static Qemu {
    match QEMU.get() {
        Some(table) => table,
        None => std::process::abort(),
    }
}

#[cfg(test)]
mod tests {
    use qemu_layout::interface::{FUNCTIONS, VARIABLES};

    use super::*;

    #[test]
    fn functions_have_the_signatures_of_the_table() {
        let table = Table::builtin();
        for (name, signature) in Qemu::signatures() {
            // QEMU's debug information does not describe GLib's function.
            if let Some(signature) = signature.filter(|_| name != "g_free") {
                assert_eq!(table.signature(name), Some(signature.as_str()), "{name}");
                assert!(FUNCTIONS.contains(&name), "{name}");
            }
        }
        let known = Qemu::signatures().len();
        assert_eq!(known, FUNCTIONS.len() + VARIABLES.len() + 1);
    }
}
