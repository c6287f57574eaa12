// SPDX-License-Identifier: GPL-2.0-or-later
//! `-device svm-vtd`: the remapping unit of the crate `vtd` as the vIOMMU of the unmodified QEMU.
//!
//! Its type is derived from `intel-iommu`, so that QEMU's machines accept it and describe it in
//! their ACPI tables. The parent is realized first; then this module replaces it: over its
//! registers, at the PCI buses, and for the I/O APIC. The parent's own state is not used any more.

mod assigned;
mod clients;
mod copies;
mod function;
mod guest_memory;
mod host;
mod host_device;
mod instances;
mod interrupts;
mod lists;
mod ops;
mod order;
mod queue;
mod record;
mod routes;
mod settings;
mod space;
mod spaces;
mod translation;
mod unit;
mod watched;
mod watchers;

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::Duration;

use ::vtd::Capabilities;
use svm_endpoint::config_space;

use crate::abi::functions::Realize;
use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;
use crate::machine_done::when_complete;
use crate::memory::IoRegion;
use crate::message::{self, ErrorSlot};
use crate::pci::PciDevice;
use crate::qom::{Class, Neighbour};
use function::{Bus, Function};
pub use guest_memory::GuestMemory;
use host::{Host, RegisterFile};
use instances::{Instance, host_of, settings, table};
use settings::Inherited;

/// Name of the type.
pub const TYPE: &CStr = c"svm-vtd";

/// Address of the registers: that of the only unit in QEMU's machines, which they overlay.
const REGISTERS: u64 = 0xfed9_0000;
const REGISTERS_SIZE: u64 = 0x1000;
const PRIORITY: c_int = 10;

/// The root bus of the only machine that accepts an `intel-iommu` by `-device`.
const ROOT_BUS: &CStr = c"/machine/q35/pcie.0";

/// `DeviceClass.realize` of the parent.
static PARENT_REALIZE: OnceLock<Realize> = OnceLock::new();
/// `ResettableClass.phases` of the parent.
static PARENT_PHASES: OnceLock<Constant<ResettablePhases>> = OnceLock::new();

/// Registers the types.
pub fn register() {
    translation::register();
    let info = TypeInfo {
        name: TYPE.as_ptr(),
        parent: c"intel-iommu".as_ptr(),
        // The same as the parent's: the state is stored elsewhere.
        instance_size: 0,
        instance_align: 0,
        instance_init: Some(instance_init),
        instance_post_init: None,
        instance_finalize: Some(instance_finalize),
        is_abstract: false,
        class_size: 0,
        class_init: Some(class_init),
        class_base_init: None,
        class_data: std::ptr::null(),
        interfaces: std::ptr::null(),
    };
    // SAFETY: QEMU copies the structure; everything that it points to is static.
    unsafe { (qemu().type_register_static)(&info) };
}

/// `TypeInfo.class_init`.
unsafe extern "C" fn class_init(class: *mut ObjectClass, _data: *const c_void) {
    let Some(class) = NonNull::new(class) else {
        return;
    };
    // SAFETY: the class inherits from `intel-iommu`, whose size `abi::iommu` has compared; each
    // field has the written type. The places for the previous values outlive the calls; every
    // device is resettable.
    unsafe {
        let mut class = Class::new(class);
        class.write(
            layout().pci_device_class.desc,
            c"Intel VT-d remapping unit with nesting, page requests and asynchronous invalidation; \
              scalable-mode, fsts, svm, device-iotlb, snoop-control and 20 pasid-bits are its default"
                .as_ptr(),
        );
        class.write(layout().pci_device_class.vmsd, unmigratable(TYPE));
        class.write(
            layout().x86_iommu_class.int_remap,
            routes::int_remap as *const c_void,
        );
        let mut parent: Option<Realize> = None;
        (qemu().device_class_set_parent_realize)(class.as_ptr(), realize, &mut parent);
        if let Some(parent) = parent {
            // A class is initialized once.
            let _ = PARENT_REALIZE.set(parent);
        }
        let resettable = (qemu().object_class_dynamic_cast)(class.as_ptr(), c"resettable".as_ptr());
        let mut phases = ResettablePhases {
            enter: None,
            hold: None,
            exit: None,
        };
        (qemu().resettable_class_set_parent_phases)(
            resettable,
            None,
            None,
            Some(reset),
            &mut phases,
        );
        let _ = PARENT_PHASES.set(Constant(phases));
        settings::add_all(&mut class);
    }
}

/// `TypeInfo.instance_init`.
unsafe extern "C" fn instance_init(object: *mut Object) {
    table().insert(object.addr(), Instance::default());
    let Some(pointer) = NonNull::new(object) else {
        return;
    };
    // SAFETY: QEMU creates objects with the BQL held, and this one exists.
    let (bql, device) = unsafe { (Bql::held(), Neighbour::new(pointer)) };
    if !settings::set_defaults(&bql, device) {
        message::error("intel-iommu has not the properties that svm-vtd sets");
    }
}

/// `TypeInfo.instance_finalize`.
unsafe extern "C" fn instance_finalize(object: *mut Object) {
    table().remove(&object.addr());
}

/// `DeviceClass.realize`.
unsafe extern "C" fn realize(object: *mut Object, error: ErrorOut) {
    let Some(pointer) = NonNull::new(object) else {
        return;
    };
    // SAFETY: QEMU realizes devices with the BQL held; this one lives as long as the machine,
    // because it cannot be unplugged. The error slot outlives the call.
    let (bql, device, slot) =
        unsafe { (Bql::held(), Neighbour::new(pointer), ErrorSlot::new(error)) };
    if let Err(Some(reason)) = make(&bql, device, error) {
        slot.set(&reason);
    }
}

/// Creates the unit. The error is empty if QEMU has reported the reason itself.
fn make(bql: &Bql, device: Neighbour, error: ErrorOut) -> Result<(), Option<String>> {
    let settings = settings(device.as_ptr());
    settings::normalize(bql, device, &settings)?;
    realize_parent(device, error)?;
    let inherited = Inherited::read(bql, device)?;
    let config = settings.config(&inherited)?;
    let capabilities = Capabilities::new(config).map_err(|error| error.to_string())?;
    let place = ParentSite::find(bql, device)?;
    let sink = record::sink(&settings.record)?;
    let host = Host::new(bql, capabilities, sink, &settings, device, place.root)
        .ok_or_else(|| "QEMUTimer is not laid out as expected".to_owned())?;
    if let Some(bell) = host.bell() {
        let delay = Duration::from_micros(settings.delay);
        queue::start(bell.clone(), delay, |bql| host.process_queue(bql))
            .map_err(|error| format!("cannot start the thread of the queue: {error}"))?;
        at_exit();
    }
    place.take(bql, host)?;
    when_complete(bql, refuse_outside);
    if let Some(instance) = table().get_mut(&device.as_ptr().addr()) {
        instance.host = Some(host);
    }
    Ok(())
}

/// Types of devices that reach memory by a copy of the guest's mappings, and that QEMU does not set
/// as devices of the host. VFIO's own are checked when they are set.
const BY_COPY: [&CStr; 1] = [c"vfio-user-pci"];
/// The same in a QEMU where the unit is not told of devices of the host.
const BY_COPY_UNTOLD: [&CStr; 3] = [c"vfio-pci", c"vfio-pci-nohotplug", c"vfio-user-pci"];

/// Ends QEMU if there is an external device that the unit cannot serve: otherwise QEMU would end,
/// with a worse message, when the guest switches translation on.
fn refuse_outside(bql: &Bql) {
    let types: &[&CStr] = match assigned() {
        Some(_) => &BY_COPY,
        None => &BY_COPY_UNTOLD,
    };
    let Some(name) = types.iter().find(|name| Neighbour::any(bql, name)) else {
        return;
    };
    let hosts: Vec<&Host> = table().values().filter_map(|i| i.host).collect();
    for host in hosts {
        let (caching_mode, snoop_control, _) = host.unit.abilities();
        let missing = match (caching_mode, snoop_control) {
            (true, false) => {
                if host.offers_first_stage() {
                    message::warning(&format!(
                        "svm-vtd: Linux does not announce what it adds to a first stage, so that \
                         {} would not reach it: add fsts=off, unless the guest does",
                        name.to_string_lossy()
                    ));
                }
                continue;
            }
            (false, true) => "caching-mode=on,snoop-control=off",
            (false, false) => "caching-mode=on",
            (true, true) => "snoop-control=off",
        };
        message::error(&format!(
            "svm-vtd: {} reaches memory by a copy of the guest's mappings, which the unit has to \
             announce: add {missing} to svm-vtd",
            name.to_string_lossy()
        ));
        std::process::exit(1);
    }
}

/// Realizes the parent.
fn realize_parent(device: Neighbour, error: ErrorOut) -> Result<(), Option<String>> {
    let Some(parent) = PARENT_REALIZE.get() else {
        return Err(Some("intel-iommu cannot be realized".to_owned()));
    };
    // SAFETY: it is the parent's function for an object of its type. QEMU does not permit reading
    // an error from the caller's slot, so it first goes to our own.
    unsafe {
        let mut reason: *mut Error = std::ptr::null_mut();
        parent(device.as_ptr(), &mut reason);
        if reason.is_null() {
            Ok(())
        } else {
            (qemu().error_propagate)(error, reason);
            Err(None)
        }
    }
}

/// The parent's place in the machine.
struct ParentSite {
    root_bus: NonNull<Object>,
    root: Bus,
    /// The machine's pointer to the address space of the I/O APIC.
    ioapic: NonNull<*mut AddressSpace>,
}

impl ParentSite {
    /// Finds it, and checks the machine's layout: the parent has left its own pointers there.
    fn find(bql: &Bql, device: Neighbour) -> Result<ParentSite, String> {
        let bus = Neighbour::at(bql, ROOT_BUS)
            .and_then(|bus| NonNull::new(bus.as_ptr()))
            .ok_or("the machine has no root bus for it: use -M q35")?;
        // SAFETY: the bus is a `PCIBus` with the size of its layout, and the machine is an
        // `X86MachineState`, because QEMU permits the parent only there. Values are compared before
        // their use.
        unsafe {
            let at = layout();
            let opaque: *mut Object = room::read(bus, at.pci_bus.iommu_opaque);
            let ops: *mut PCIIOMMUOps = room::read(bus, at.pci_bus.iommu_ops);
            let ops = NonNull::new(ops).filter(|_| opaque == device.as_ptr());
            let ops = ops.ok_or("PCIBus is not laid out as expected")?;
            order::check(bql, bus.cast(), ops, opaque.cast())?;
            let parent: GetAddressSpace = room::read(ops, at.pci_iommu_ops.get_address_space);
            let parent = parent(bus.as_ptr().cast(), opaque.cast(), 0);
            let machine = (qemu().qdev_get_machine)();
            let ioapic = machine.cast::<u8>().add(at.x86_machine.ioapic_as);
            let ioapic = NonNull::new(ioapic.cast::<*mut AddressSpace>());
            match ioapic {
                Some(ioapic) if ioapic.read() == parent => Ok(ParentSite {
                    root_bus: bus,
                    root: Bus::new(bus.cast()),
                    ioapic,
                }),
                _ => Err("X86MachineState is not laid out as expected".to_owned()),
            }
        }
    }

    /// Puts the unit there.
    fn take(&self, bql: &Bql, host: &'static Host) -> Result<(), String> {
        let ioapic = host.address_space(bql, Function::IoApic);
        if !host.spaces.are_intact() {
            return Err("AddressSpace or MemoryRegion is larger than expected".to_owned());
        }
        if let Some(region) = host.spaces.first_region() {
            lists::check(bql, region)?;
        }
        // SAFETY: the region belongs to no object and is never dropped, like everything that is
        // passed here: QEMU uses it as long as the machine exists. `find` has compared the fields.
        unsafe {
            let region = IoRegion::new(
                bql,
                std::ptr::null_mut(),
                c"svm-vtd",
                REGISTERS_SIZE,
                Box::new(RegisterFile(host)),
            );
            (qemu().memory_region_add_subregion_overlap)(
                (qemu().get_system_memory)(),
                REGISTERS,
                region.as_ptr(),
                PRIORITY,
            );
            std::mem::forget(region);
            let opaque = std::ptr::from_ref(host).cast_mut().cast();
            (qemu().pci_setup_iommu)(self.root_bus.as_ptr().cast(), ops::table(), opaque);
            self.ioapic.write(ioapic);
        }
        Ok(())
    }
}

/// Checks, with a device that can request pages, the operations of the unit that need such a
/// device. Without the unit there is nothing to check.
///
/// # Errors
///
/// The first difference from the expected layout.
pub fn check_page_requests(bql: &Bql, device: PciDevice) -> Result<(), String> {
    let bus = Neighbour::at(bql, ROOT_BUS).and_then(|bus| NonNull::new(bus.as_ptr()));
    let Some(bus) = bus else {
        return Ok(());
    };
    // SAFETY: the bus is a `PCIBus`, whose fields `ParentSite::find` has compared if the unit
    // exists.
    let (ops, opaque): (*const PCIIOMMUOps, *mut c_void) = unsafe {
        (
            room::read(bus, layout().pci_bus.iommu_ops),
            room::read(bus, layout().pci_bus.iommu_opaque),
        )
    };
    let is_ours = |host: &Host| std::ptr::from_ref(host).addr() == opaque.addr();
    if !table().values().filter_map(|i| i.host).any(is_ours) {
        return Ok(());
    }
    let control = config_space::PRI + 4;
    order::check_page_requests(bql, bus.cast(), (ops, opaque), device, control)
}

/// `ResettablePhases.exit`: the last phase, in which no device sends requests any more.
unsafe extern "C" fn reset(object: *mut Object, kind: c_int) {
    if let Some(exit) = PARENT_PHASES.get().and_then(|phases| phases.0.exit) {
        // SAFETY: it is the parent's function for an object of its type, called like this one.
        unsafe { exit(object, kind) };
    }
    // SAFETY: QEMU resets devices with the BQL held.
    let bql = unsafe { Bql::held() };
    if let Some(host) = host_of(object) {
        host.reset(&bql);
    }
}

/// Stops the thread when QEMU ends.
fn at_exit() {
    let notifier = Box::leak(Box::new(Notifier {
        notify: ending,
        node: [std::ptr::null_mut(); 2],
    }));
    // SAFETY: the notifier is never freed.
    unsafe { (qemu().qemu_add_exit_notifier)(notifier) }
}

/// Runs at the end of the process.
unsafe extern "C" fn ending(_notifier: *mut Notifier, _data: *mut c_void) {
    let hosts: Vec<&Host> = table().values().filter_map(|i| i.host).collect();
    for host in hosts {
        if let Some(bell) = host.bell() {
            bell.stop();
        }
    }
}
