// SPDX-License-Identifier: GPL-2.0-or-later
//! Checks whether [`super::layout`] and [`super::functions`] describe the running process: its
//! version, its exports, and the visible parts of its structures before their first use.
//!
//! Other modules check at their first use what is visible only then: configuration space in
//! [`crate::pci::PciDevice::check_layout`], notifiers in [`crate::notifiers`], timers in
//! [`crate::timer`].

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use qemu_layout::interface::assigned::{self, AssignedLayout};
use qemu_layout::interface::emulated::{self, EmulatedLayout};
use qemu_layout::interface::is_only_of;
use qemu_layout::{Kind, Layout, Table};

use super::functions::{self, Qemu};
use super::layout::{self, *};
use super::program::Program;
pub use super::refusal::Refusal;
use super::refusal::{equal, mismatch};
use super::room;

/// The series of QEMU whose layout this library knows without a file: major and minor version.
pub const SERIES: (i64, i64) = qemu_layout::BUILTIN_SERIES;

/// An export of every QEMU with plug-in support.
const PLUGIN_INTERFACE: &CStr = c"qemu_plugin_register_vcpu_init_cb";

/// What is known about the process before any of its functions is called.
pub struct Known {
    /// Its functions.
    pub functions: Qemu,
    /// Sizes and offsets.
    pub layouts: Layouts,
    /// Whether they come from a layout file, not from this library's table.
    pub from_file: bool,
    /// The phase in which types are registered: `MODULE_INIT_QOM`.
    pub module_init: c_int,
}

/// Finds the functions, and the layout file if there is one.
pub fn exports() -> Result<Known, Refusal> {
    let program = Program::of_this_process();
    let exporting = functions::symbol(c"type_register_static").is_some()
        && functions::symbol(c"pci_register_bar").is_some();
    let plugins = functions::symbol(PLUGIN_INTERFACE).is_some();
    let file = program.layout_file();
    let described = matches!(file, Ok(Some(_)));
    if !exporting && !plugins && !described && !program.has_name_of_qemu() {
        return Err(Refusal::NotQemu);
    }
    let file = file?;
    if file.is_none() && !exporting {
        return Err(Refusal::NoExports);
    }
    let functions = Qemu::resolve(&program, file.as_ref()).map_err(Refusal::MissingExports)?;
    let from_file = file.is_some();
    let table = file.unwrap_or_else(Table::builtin);
    let (layouts, module_init) = interface(&table)?;
    Ok(Known {
        functions,
        layouts,
        from_file,
        module_init,
    })
}

/// Compares a table with this library's assumptions: signatures, the sizes of members, enumerators,
/// and the structures that are passed directly.
fn interface(table: &Table) -> Result<(Layouts, c_int), Refusal> {
    let builtin = Table::builtin();
    let with_assigned = AssignedLayout::new(table).ok();
    let with_emulated = EmulatedLayout::new(table).ok();
    for (kind, name, expected) in builtin.lines() {
        let absent = with_assigned.is_none() && is_only_of(name, assigned::STRUCTURES)
            || with_emulated.is_none() && is_only_of(name, emulated::STRUCTURES);
        if absent {
            continue;
        }
        match kind {
            Kind::Signature => {
                let found = table.signature(name).unwrap_or("none").to_owned();
                equal(format!("the signature of {name}"), expected, found)?;
            }
            Kind::Offset | Kind::Bits => {
                let size = |table: &Table| table.get(kind, name).map(|(_, size)| size);
                let what = format!("the size of {name}");
                equal(what, size(&builtin), size(table))?;
            }
            Kind::Size | Kind::Value | Kind::Address => {}
        }
    }
    let module_init = layout::values(table)?;
    equal(
        "what collides".to_owned(),
        None,
        qemu_layout::interface::collision(table),
    )?;
    let layout = Layout::new(table).map_err(|error| Refusal::Layout {
        what: "the layout file".to_owned(),
        expected: "complete".to_owned(),
        found: error.to_string(),
    })?;
    layout::fixed(&layout)?;
    let layouts = Layouts {
        all: layout,
        assigned: with_assigned,
        emulated: with_emulated,
    };
    Ok((layouts, module_init))
}

/// Checks the version, unless a layout file describes exactly this program, and checks the layout
/// with QEMU's own classes.
///
/// # Safety
///
/// QEMU's types are registered, and the thread holds the BQL or is the only one.
pub unsafe fn version_and_layout(qemu: &Qemu, from_file: bool) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe {
        if !from_file {
            version(qemu)?;
        }
        instances(qemu)?;
        classes(qemu)?;
        tables(qemu)
    }
}

/// Compares the version with the supported series.
///
/// # Safety
///
/// As for [`version_and_layout`].
unsafe fn version(qemu: &Qemu) -> Result<(), Refusal> {
    // SAFETY: the only argument is the place for an error, which never occurs. The structure is
    // part of the QAPI, whose layout does not change; we do not free it.
    let (triple, package) = unsafe {
        let info = (qemu.qmp_query_version)(std::ptr::null_mut());
        let triple = (*info).qemu;
        let numbers = ((*triple).major, (*triple).minor, (*triple).micro);
        (numbers, text((*info).package))
    };
    supported(triple, &package)
}

/// Compares a version with the supported series.
fn supported((major, minor, micro): (i64, i64, i64), package: &str) -> Result<(), Refusal> {
    if (major, minor) == SERIES {
        return Ok(());
    }
    let version = format!("{major}.{minor}.{micro} {package}");
    Err(Refusal::Version(version.trim_end().to_owned()))
}

/// Compares QEMU's sizes of a few instances and classes.
///
/// # Safety
///
/// As for [`version_and_layout`].
unsafe fn instances(qemu: &Qemu) -> Result<(), Refusal> {
    let sizes = [
        (
            c"pci-device",
            Some(layout().pci_device_class.size),
            layout().pci_device.size,
        ),
        (c"memory-region", None, layout().memory_region.size),
        (c"PCI", None, layout().pci_bus.size),
        (c"x86-machine", None, layout().x86_machine.size),
    ];
    for (name, class_size, instance_size) in sizes {
        // SAFETY: types are registered; a class begins with the pointer to its type, and the
        // name is compared before the sizes are read.
        unsafe {
            let class = (qemu.object_class_by_name)(name.as_ptr());
            let what = name.to_string_lossy();
            if class.is_null() {
                return Err(mismatch(&what, "a type", "missing"));
            }
            let found = type_of(class);
            equal(format!("the name of type {what}"), &*what, &*found.name)?;
            if let Some(size) = class_size {
                equal(format!("the class size of {what}"), size, found.class_size)?;
            }
            equal(
                format!("the size of {what}"),
                instance_size,
                found.instance_size,
            )?;
        }
    }
    Ok(())
}

/// Known contents of a device class.
struct KnownClass {
    name: &'static CStr,
    /// Vendor, device, revision and class code.
    ids: (u16, u16, u8, u16),
    /// A bit number of the categories.
    category: u32,
    /// Name of the migration state.
    state: Option<&'static CStr>,
}

/// Two classes, because distributions omit devices.
const KNOWN: [KnownClass; 2] = [
    KnownClass {
        name: c"edu",
        ids: (0x1234, 0x11e8, 0x10, 0x00ff),
        category: DEVICE_CATEGORY_MISC,
        state: None,
    },
    KnownClass {
        name: c"e1000e",
        ids: (0x8086, 0x10d3, 0, 0x0200),
        category: DEVICE_CATEGORY_NETWORK,
        state: Some(c"e1000e"),
    },
];

/// Reads the known contents of a few PCI device classes.
///
/// # Safety
///
/// As for [`version_and_layout`], after [`instances`] has succeeded.
unsafe fn classes(qemu: &Qemu) -> Result<(), Refusal> {
    let class = &layout().pci_device_class;
    let mut seen = false;
    for known in &KNOWN {
        let name = known.name;
        // SAFETY: types are registered, and a PCI device class has at least the size that
        // `instances` has compared.
        unsafe {
            let address = (qemu.object_class_by_name)(name.as_ptr());
            if address.is_null() {
                continue; // Distributions omit devices.
            }
            seen = true;
            let what = format!("the identification in class {}", name.to_string_lossy());
            let found = (
                field::<u16>(address, class.vendor_id),
                field::<u16>(address, class.device_id),
                field::<u8>(address, class.revision),
                field::<u16>(address, class.class_id),
            );
            equal(what, known.ids, found)?;
            let functions = [class.realize, class.exit]
                .map(|offset| !field::<*const c_void>(address, offset).is_null());
            equal(
                format!("realize and exit in class {}", name.to_string_lossy()),
                [true; 2],
                functions,
            )?;
            equal(
                format!("the categories of class {}", name.to_string_lossy()),
                1u64 << known.category,
                field::<u64>(address, class.categories),
            )?;
            if let Some(state) = known.state {
                let found = name_of_state(field(address, class.vmsd), state.count_bytes());
                equal(
                    format!("the name of vmsd in class {}", name.to_string_lossy()),
                    Some(state.to_bytes()),
                    found.as_deref(),
                )?;
            }
        }
    }
    if !seen {
        return Err(mismatch(
            "the list of devices",
            "edu or e1000e in it",
            "without both",
        ));
    }
    // SAFETY: as above; `desc` is a C string if the offset is right, and the classes above have
    // shown that the offsets after it are.
    unsafe {
        let address = (qemu.object_class_by_name)(c"pci-testdev".as_ptr());
        if !address.is_null() {
            let desc = field::<*const c_char>(address, class.desc);
            equal(
                "desc in class pci-testdev".to_owned(),
                "PCI Test Device",
                &*text(desc),
            )?;
        }
    }
    Ok(())
}

/// The first bytes of the name of a `VMStateDescription`. If its offset is wrong, the address may
/// be invalid.
fn name_of_state(address: usize, length: usize) -> Option<Vec<u8>> {
    let mut name = [0; size_of::<usize>()];
    room::peek(
        address.wrapping_add(layout().vmstate_description.name),
        &mut name,
    )?;
    let mut text = vec![0; length];
    room::peek(usize::from_ne_bytes(name), &mut text)?;
    Some(text)
}

/// Reads two of QEMU's constant tables.
///
/// # Safety
///
/// As for [`version_and_layout`].
unsafe fn tables(qemu: &Qemu) -> Result<(), Refusal> {
    // SAFETY: both are variables of the process, which never change.
    unsafe {
        let accepts = (*qemu.unassigned_mem_ops).valid.accepts;
        equal(
            "valid.accepts of unassigned_mem_ops".to_owned(),
            true,
            !accepts.is_null(),
        )?;
        let at = &layout().vmstate_description;
        let vmstate = NonNull::new(qemu.vmstate_pci_device);
        let vmstate = vmstate.ok_or(Refusal::MissingExports(vec!["vmstate_pci_device"]))?;
        let found = (
            room::read::<_, u8>(vmstate, at.unmigratable) != 0,
            room::read::<_, c_int>(vmstate, at.version_id),
            room::read::<_, c_int>(vmstate, at.minimum_version_id),
        );
        equal("vmstate_pci_device".to_owned(), (false, 2, 1), found)?;
        equal(
            "fields of vmstate_pci_device".to_owned(),
            true,
            !room::read::<_, *const c_void>(vmstate, at.fields).is_null(),
        )
    }
}

/// Reads a field of a class.
///
/// # Safety
///
/// The class is at least `offset + size_of::<T>()` bytes long.
pub(super) unsafe fn field<T: Copy>(class: *const ObjectClass, offset: usize) -> T {
    // SAFETY: the caller's promise; the read asks for no alignment.
    unsafe { class.cast::<u8>().add(offset).cast::<T>().read_unaligned() }
}

/// QEMU's data about a type.
pub(super) struct TypeFacts {
    /// Its name.
    pub name: String,
    /// Size of its class.
    pub class_size: usize,
    /// Size of its instances.
    pub instance_size: usize,
}

/// The type of a class.
///
/// # Safety
///
/// The class exists, and the layout of `ObjectClass` and `TypeImpl` is right, or at least leads to
/// readable memory.
pub(super) unsafe fn type_of(class: *const ObjectClass) -> TypeFacts {
    let at = &layout().type_impl;
    // SAFETY: the caller's promise.
    unsafe {
        let found = field::<*const ObjectClass>(class, layout().object_class.type_impl);
        TypeFacts {
            name: text(field(found, at.name)),
            class_size: field(found, at.class_size),
            instance_size: field(found, at.instance_size),
        }
    }
}

/// Compares the size of a type's class and instances with the layout's.
///
/// # Safety
///
/// Types are registered.
pub(super) unsafe fn sizes(
    qemu: &Qemu,
    name: &CStr,
    expected: (usize, usize),
) -> Result<(), Refusal> {
    // SAFETY: the caller's promise; a class begins with the pointer to its type.
    let found = unsafe {
        let class = (qemu.object_class_by_name)(name.as_ptr());
        if class.is_null() {
            return Err(Refusal::MissingType(name.to_string_lossy().into_owned()));
        }
        let found = type_of(class);
        (found.class_size, found.instance_size)
    };
    let what = format!("the size of {} and its class", name.to_string_lossy());
    equal(what, expected, found)
}

/// One of QEMU's C strings; empty if there is none.
///
/// # Safety
///
/// The pointer is null or points to a C string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_series_is_supported() {
        let (major, minor) = SERIES;
        assert!(supported((major, minor, 0), "").is_ok());
        assert!(supported((major, minor, 99), "of a distribution").is_ok());
        for other in [
            (major, minor + 1, 0),
            (major - 1, minor, 0),
            (major + 1, minor, 0),
        ] {
            let refusal = supported(other, "(distribution)").unwrap_err().to_string();
            let version = format!("{}.{}.{} (distribution)", other.0, other.1, other.2);
            assert_eq!(refusal, format!("its version is {version}"));
        }
    }

    #[test]
    fn a_process_that_is_not_qemu_is_recognized() {
        assert!(matches!(exports(), Err(Refusal::NotQemu)));
    }

    #[test]
    fn a_difference_is_told_with_both_sides() {
        assert!(equal("x".to_owned(), 1, 1).is_ok());
        let refusal = equal("the size of a thing".to_owned(), 16, 32).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the size of a thing is 32, expected 16"
        );
    }
}
