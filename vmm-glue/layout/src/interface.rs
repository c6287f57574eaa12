// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of QEMU's internal interface that the plug-in uses: only names.

use std::fmt;

use crate::table::{Kind, Table};

/// A structure and its members, by their names in QEMU.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// Its name.
    pub name: &'static str,
    /// Members, and nested members after a dot.
    pub members: &'static [&'static str],
    /// Members that are bit fields.
    pub bit_fields: &'static [&'static str],
}

/// A bit field: its first bit, counted from the lowest bit of the structure, and its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitField {
    /// The first bit.
    pub bit: u32,
    /// The number of bits.
    pub width: u32,
}

/// What a table lacks: kinds and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete(pub Vec<String>);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it says nothing of {}", self.0.join(", "))
    }
}

impl std::error::Error for Incomplete {}

/// The name of a member in QEMU.
macro_rules! member {
    ($member:ident) => {
        stringify!($member)
    };
    ($member:ident $path:literal) => {
        $path
    };
}

/// Declares structures once: their names in a list, types with a field for each member's offset, and
/// a type that has all of them. Bit fields are in brackets.
macro_rules! structures {
    (
    $(#[$list_doc:meta])+ $list:ident;
    $(#[$layout_doc:meta])+ $layout:ident;
    $(
        $field:ident: $name:ident {
            $($member:ident $(= $path:literal)?;)*
        }
        $([$($bits:ident)+])?
    )+) => {
        $(#[$list_doc])+
        pub const $list: &[Structure] = &[$(Structure {
            name: stringify!($name),
            members: &[$(member!($member $($path)?),)*],
            bit_fields: &[$($(stringify!($bits),)+)?],
        },)+];

        $(
            #[doc = concat!("Size of `", stringify!($name), "`, and where its members begin, in bytes.")]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name {
                #[doc = concat!("Size of `", stringify!($name), "`.")]
                pub size: usize,
                $(
                    #[doc = concat!("Offset of `", member!($member $($path)?), "`.")]
                    pub $member: usize,
                )*
                $($(
                    #[doc = concat!("Bits of `", stringify!($bits), "`.")]
                    pub $bits: BitField,
                )+)?
            }
        )+

        $(#[$layout_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $layout {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                pub $field: $name,
            )+
        }

        impl $layout {
            /// Reads them from a table.
            ///
            /// # Errors
            ///
            /// The table is incomplete.
            pub fn new(table: &Table) -> Result<$layout, Incomplete> {
                let mut reader = Reader { table, missing: Vec::new() };
                let layout = $layout {
                    $($field: $name {
                        size: reader.number(Kind::Size, stringify!($name).to_owned()),
                        $($member: reader.number(
                            Kind::Offset,
                            format!("{}.{}", stringify!($name), member!($member $($path)?)),
                        ),)*
                        $($($bits: reader.bits(concat!(stringify!($name), ".", stringify!($bits))),)+)?
                    },)+
                };
                match reader.missing.is_empty() {
                    true => Ok(layout),
                    false => Err(Incomplete(reader.missing)),
                }
            }
        }
    };
}

structures! {
    /// The structures that the plug-in always uses.
    STRUCTURES;
    /// The sizes and offsets of a [`Table`].
    Layout;
    // Types and objects
    type_info: TypeInfo {
        name; parent; instance_size; instance_align; instance_init; instance_post_init;
        instance_finalize; is_abstract = "abstract"; class_size; class_init; class_base_init;
        class_data; interfaces;
    }
    interface_info: InterfaceInfo { type_name = "type"; }
    type_impl: TypeImpl { name; class_size; instance_size; }
    object_class: ObjectClass { type_impl = "type"; }
    resettable_phases: ResettablePhases { enter; hold; exit; }
    vmstate_description: VMStateDescription {
        name; unmigratable; version_id; minimum_version_id; fields;
    }
    version_info: VersionInfo { qemu; package; }
    version_triple: VersionTriple { major; minor; micro; }
    notifier: Notifier { notify; node; }
    qemu_timer: QEMUTimer { callback = "cb"; opaque; scale; }
    // PCI Express
    pci_device_class: PCIDeviceClass {
        categories = "parent_class.categories"; desc = "parent_class.desc";
        vmsd = "parent_class.vmsd";
        realize; exit; config_read; config_write; vendor_id; device_id; revision; class_id;
    }
    pci_device: PCIDevice { config; wmask; }
    pci_bus: PCIBus { iommu_ops; iommu_opaque; }
    msi_message: MSIMessage { address; data; }
    // Memory
    memory_region: MemoryRegion {}
    address_space: AddressSpace {}
    memory_region_ops: MemoryRegionOps {
        read; write; read_with_attrs; write_with_attrs; endianness;
        valid_min_access_size = "valid.min_access_size";
        valid_max_access_size = "valid.max_access_size";
        valid_unaligned = "valid.unaligned"; valid_accepts = "valid.accepts";
        impl_min_access_size = "impl.min_access_size";
        impl_max_access_size = "impl.max_access_size";
        impl_unaligned = "impl.unaligned";
    }
    mem_tx_attrs: MemTxAttrs {
        unspecified;
    }
    [requester_id memory address_type]
    // Address translation
    pci_iommu_ops: PCIIOMMUOps {
        get_address_space; get_iotlb_info; init_iotlb_notifier; register_iotlb_notifier;
        unregister_iotlb_notifier; ats_request_translation; pri_register_notifier;
        pri_unregister_notifier; pri_request_page;
    }
    iommu_tlb_entry: IOMMUTLBEntry {
        target_as; iova; translated_addr; addr_mask; perm; pasid;
    }
    iommu_notifier: IOMMUNotifier {
        notify; flags = "notifier_flags"; start; end; iommu_idx; opaque; next = "node.le_next";
    }
    iommu_pri_notifier: IOMMUPRINotifier { notify; }
    iommu_pri_response: IOMMUPRIResponse { response_code; prgi; }
    iommu_memory_region: IOMMUMemoryRegion { notifiers = "iommu_notify"; }
    iommu_memory_region_class: IOMMUMemoryRegionClass {
        translate; notify_flag_changed; replay; get_attr; attrs_to_index; num_indexes;
    }
    x86_iommu_class: X86IOMMUClass { realize; int_remap; }
    intel_iommu: IntelIOMMUState {}
    x86_machine: X86MachineState { ioapic_as; }
}

/// What the plug-in uses of VFIO and iommufd, for devices that are assigned from the host. A QEMU
/// may be built without them, and series before 11 lack some.
pub mod assigned {
    use super::{Incomplete, Kind, Reader, Structure, Table};

    structures! {
        /// The structures.
        STRUCTURES;
        /// The sizes and offsets of a [`Table`].
        AssignedLayout;
        pci_iommu_ops: PCIIOMMUOps {
            set_iommu_device; unset_iommu_device; get_viommu_flags; get_host_iommu_quirks;
        }
        host_iommu_device: HostIOMMUDevice { aliased_bus; aliased_devfn; }
        host_iommu_device_iommufd: HostIOMMUDeviceIOMMUFD { iommufd; devid; hwpt_id; }
        iommufd_backend: IOMMUFDBackend { fd; }
        vfio_pci_device: VFIOPCIDevice {
            emulated_config_bits; fd = "vbasedev.fd"; iommufd = "vbasedev.iommufd";
            devid = "vbasedev.devid";
        }
        pci_device: PCIDevice { config_write; pri_cap = "exp.pri_cap"; }
    }
}

/// What the plug-in uses of emulated processors (TCG). A QEMU may be built without them.
pub mod emulated {
    use super::{Incomplete, Kind, Reader, Structure, Table};

    structures! {
        /// The structures.
        STRUCTURES;
        /// The sizes and offsets of a [`Table`].
        EmulatedLayout;
        x86_cpu_class: X86CPUClass {}
        cpu_class: CPUClass { tcg_ops; }
        tcg_cpu_ops: TCGCPUOps { do_interrupt; }
        cpu: CPUState { exception_index; }
        x86_cpu: ArchCPU {}
        x86_state: CPUArchState { exception_is_int; vm_vmcb; }
    }
}

/// All structures, of all parts of the interface.
pub fn all_structures() -> impl Iterator<Item = &'static Structure> {
    let optional = assigned::STRUCTURES.iter().chain(emulated::STRUCTURES);
    STRUCTURES.iter().chain(optional)
}

/// Whether a line of a table is of these structures, of an optional part, and of no part that is
/// always used.
pub fn is_only_of(name: &str, structures: &[Structure]) -> bool {
    let has = |structures: &[Structure]| {
        structures.iter().any(|s| {
            let member = name.strip_prefix(s.name);
            member == Some("")
                || member.is_some_and(|m| {
                    m.strip_prefix('.')
                        .is_some_and(|m| s.members.contains(&m) || s.bit_fields.contains(&m))
                })
        })
    };
    has(structures) && !has(STRUCTURES)
}

/// Constants that are enumerators.
pub const VALUES: &[&str] = &[
    "DEVICE_CATEGORY_MISC",
    "DEVICE_LITTLE_ENDIAN",
    "IOMMU_EXEC",
    "IOMMU_GLOBAL",
    "IOMMU_NOTIFIER_DEVIOTLB_UNMAP",
    "IOMMU_NOTIFIER_MAP",
    "IOMMU_NOTIFIER_UNMAP",
    "IOMMU_PRI_RESP_FAILURE",
    "IOMMU_PRI_RESP_INVALID_REQUEST",
    "IOMMU_PRI_RESP_SUCCESS",
    "IOMMU_PRIV",
    "IOMMU_RO",
    "IOMMU_UNTRANSLATED_ONLY",
    "IOMMU_WO",
    "MODULE_INIT_QOM",
    "QEMU_CLOCK_REALTIME",
    "QEMU_CLOCK_VIRTUAL",
];

/// Variables.
pub const VARIABLES: &[&str] = &[
    "address_space_memory",
    "qemu_loglevel",
    "unassigned_mem_ops",
    "vmstate_pci_device",
];

/// Functions. `g_free` is not among them: it is GLib's.
pub const FUNCTIONS: &[&str] = &[
    "address_space_init",
    "address_space_map",
    "address_space_rw",
    "address_space_stl_le",
    "address_space_unmap",
    "aio_bh_schedule_oneshot_full",
    "bql_lock_impl",
    "bql_locked",
    "bql_unlock",
    "device_class_set_legacy_reset",
    "device_class_set_parent_realize",
    "error_free",
    "error_propagate",
    "error_report",
    "error_setg_internal",
    "get_system_memory",
    "memory_region_add_subregion_overlap",
    "memory_region_from_host",
    "memory_region_init",
    "memory_region_init_alias",
    "memory_region_init_io",
    "memory_region_init_iommu",
    "memory_region_register_iommu_notifier",
    "memory_region_set_enabled",
    "memory_region_transaction_begin",
    "memory_region_transaction_commit",
    "memory_region_unregister_iommu_notifier",
    "msix_init_exclusive_bar",
    "msix_notify",
    "msix_uninit_exclusive_bar",
    "msix_vector_use",
    "object_class_by_name",
    "object_class_dynamic_cast",
    "object_class_property_add",
    "object_class_property_set_description",
    "object_dynamic_cast",
    "object_property_get_bool",
    "object_property_get_str",
    "object_property_get_uint",
    "object_property_set_bool",
    "object_property_set_uint",
    "object_resolve_path",
    "object_resolve_path_component",
    "object_resolve_path_type",
    "pci_ats_request_translation",
    "pci_bus_is_express",
    "pci_bus_num",
    "pci_default_read_config",
    "pci_default_write_config",
    "pci_device_iommu_address_space",
    "pci_find_bus_nr",
    "pci_find_device",
    "pci_iommu_get_iotlb_info",
    "pci_iommu_init_iotlb_notifier",
    "pci_iommu_register_iotlb_notifier",
    "pci_iommu_unregister_iotlb_notifier",
    "pci_pm_init",
    "pci_pri_register_notifier",
    "pci_pri_request_page",
    "pci_pri_unregister_notifier",
    "pci_register_bar",
    "pci_requester_id",
    "pci_setup_iommu",
    "pcie_ats_init",
    "pcie_cap_exit",
    "pcie_cap_flr_init",
    "pcie_cap_flr_write_config",
    "pcie_endpoint_cap_init",
    "pcie_pasid_init",
    "pcie_pri_init",
    "qdev_get_human_name",
    "qdev_get_machine",
    "qdev_get_parent_bus",
    "qemu_add_exit_notifier",
    "qemu_add_machine_init_done_notifier",
    "qemu_add_vm_change_state_handler",
    "qemu_clock_get_ns",
    "qemu_del_vm_change_state_handler",
    "qemu_get_aio_context",
    "qemu_log",
    "qemu_set_fd_handler",
    "qmp_query_version",
    "rcu_register_thread",
    "rcu_unregister_thread",
    "register_module_init",
    "resettable_class_set_parent_phases",
    "timer_del",
    "timer_init_full",
    "timer_mod",
    "type_register_static",
    "visit_type_bool",
    "visit_type_str",
    "visit_type_uint64",
    "warn_report",
    "x86_iommu_iec_notify_all",
];

/// Reads a layout, and records what is missing.
struct Reader<'a> {
    table: &'a Table,
    missing: Vec<String>,
}

impl Reader<'_> {
    fn pair(&mut self, kind: Kind, name: &str) -> (u64, u64) {
        let known = self.table.get(kind, name);
        known.unwrap_or_else(|| {
            self.missing.push(format!("{} {name}", kind.word()));
            (0, 0)
        })
    }

    fn number(&mut self, kind: Kind, name: String) -> usize {
        self.pair(kind, &name).0 as usize
    }

    fn bits(&mut self, name: &str) -> BitField {
        let (bit, width) = self.pair(Kind::Bits, name);
        BitField {
            bit: bit as u32,
            width: width as u32,
        }
    }
}

/// What a table lacks of the interface: kinds and names. Addresses are optional.
pub fn missing(table: &Table) -> Vec<String> {
    let mut missing = match Layout::new(table) {
        Ok(_) => Vec::new(),
        Err(Incomplete(missing)) => missing,
    };
    let values = VALUES
        .iter()
        .filter(|name| table.get(Kind::Value, name).is_none());
    missing.extend(values.map(|name| format!("value {name}")));
    let functions = FUNCTIONS
        .iter()
        .filter(|name| table.signature(name).is_none());
    missing.extend(functions.map(|name| format!("signature {name}")));
    missing
}

/// The first two members that overlap in a table, or the first that lies outside of its structure,
/// as a sentence.
pub fn collision(table: &Table) -> Option<String> {
    for structure in all_structures() {
        let Some((size, _)) = table.get(Kind::Size, structure.name) else {
            continue;
        };
        let name = |member: &str| format!("{}.{member}", structure.name);
        let bytes = structure.members.iter().filter_map(|member| {
            let (offset, size) = table.get(Kind::Offset, &name(member))?;
            Some((offset * 8, (offset + size) * 8, name(member)))
        });
        let bits = structure.bit_fields.iter().filter_map(|field| {
            let (bit, width) = table.get(Kind::Bits, &name(field))?;
            Some((bit, bit + width, name(field)))
        });
        let mut places: Vec<_> = bytes.chain(bits).collect();
        places.sort();
        if let Some(pair) = places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return Some(format!("{} overlaps {}", pair[0].2, pair[1].2));
        }
        if let Some((_, _, last)) = places.iter().find(|(_, end, _)| *end > size * 8) {
            return Some(format!("{last} is not within {}", structure.name));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_neither_overlap_nor_leave_their_structure() {
        let table = Table::builtin();
        assert_eq!(collision(&table), None);
        let with = |kind, name, first, second| {
            let mut wrong = table.clone();
            wrong.set(kind, name, first, second);
            collision(&wrong)
        };
        assert_eq!(
            with(Kind::Offset, "PCIDevice.config", 180, 8).as_deref(),
            Some("PCIDevice.config overlaps PCIDevice.wmask")
        );
        assert_eq!(
            with(Kind::Bits, "MemTxAttrs.memory", 20, 1).as_deref(),
            Some("MemTxAttrs.requester_id overlaps MemTxAttrs.memory")
        );
        assert_eq!(
            with(Kind::Size, "PCIDevice", 184, 0).as_deref(),
            Some("PCIDevice.wmask is not within PCIDevice")
        );
    }

    #[test]
    fn what_a_table_does_not_say_is_named() {
        let text = Table::builtin()
            .to_string()
            .replace("size PCIDevice ", "size PCIDevil ")
            .replace("signature msix_notify ", "signature msix_notified ")
            .replace("value IOMMU_RO ", "value IOMMU_OR ");
        let table: Table = text.parse().unwrap();
        assert_eq!(
            missing(&table),
            ["size PCIDevice", "value IOMMU_RO", "signature msix_notify"]
        );
        let error = Layout::new(&table).unwrap_err();
        assert_eq!(error.to_string(), "it says nothing of size PCIDevice");
    }
}
