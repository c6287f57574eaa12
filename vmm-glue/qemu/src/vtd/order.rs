// SPDX-License-Identifier: GPL-2.0-or-later
//! Checks the order of the operations of a PCI bus.
//!
//! Another order is not visible in the table itself, but shows in its use: this module calls each
//! of QEMU's functions that call an operation, with a table whose entries report their own index.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::abi::layout::*;
use crate::abi::{functions, qemu, room};
use crate::bql::Bql;
use crate::pci::PciDevice;

/// Bytes of memory that has room for a `HostIOMMUDevice`, as often as an offset can be wrong.
const ROOM: usize = 4096;

/// The largest number of entries of such a table.
const ENTRIES: usize = 64;

/// No entry was called.
const NONE: usize = usize::MAX;

/// The entry that was called last.
static CALLED: AtomicUsize = AtomicUsize::new(NONE);

/// An entry: records its index, whatever its parameters, and returns 0.
unsafe extern "C" fn entry<const INDEX: usize>() -> usize {
    CALLED.store(INDEX, Ordering::Relaxed);
    0
}

macro_rules! entries {
    ($($row:literal)+) => {
        [$(
            entry::<{ $row * 8 }>, entry::<{ $row * 8 + 1 }>, entry::<{ $row * 8 + 2 }>,
            entry::<{ $row * 8 + 3 }>, entry::<{ $row * 8 + 4 }>, entry::<{ $row * 8 + 5 }>,
            entry::<{ $row * 8 + 6 }>, entry::<{ $row * 8 + 7 }>,
        )+]
    };
}

/// All entries.
static TABLE: [unsafe extern "C" fn() -> usize; ENTRIES] = entries!(0 1 2 3 4 5 6 7);

/// Bus Master Enable in the command register, and its offset.
const COMMAND: u16 = 4;
const BUS_MASTER: u32 = 4;
/// Enable in the PRI Control Register (PCIe 10.5.2.2).
const PRI_ENABLE: u32 = 1;

/// Compares the order on a bus with the operations and the opaque pointer of its IOMMU, which it
/// restores afterwards.
///
/// # Errors
///
/// The first operation at another offset.
pub fn check(
    _bql: &Bql,
    bus: NonNull<BusState>,
    ops: NonNull<PCIIOMMUOps>,
    opaque: *mut c_void,
) -> Result<(), String> {
    // SAFETY: the bus exists; its devices stay while the BQL is held. The tables are never freed,
    // and the callers of their entries accept the answer 0.
    unsafe {
        let device = (qemu().pci_find_device)(bus.as_ptr(), 0, 0);
        if device.is_null() {
            return Err("the machine has no device 00.0 to try PCIIOMMUOps with".to_owned());
        }
        let command = (qemu().pci_default_read_config)(device, COMMAND.into(), 2);
        // QEMU calls some of them only for a device that may send requests.
        let allowed = command | BUS_MASTER;
        (qemu().pci_default_write_config)(device, COMMAND.into(), allowed, 2);
        (qemu().pci_setup_iommu)(
            bus.as_ptr(),
            (&raw const TABLE).cast(),
            std::ptr::null_mut(),
        );
        let result = compare(device);
        (qemu().pci_setup_iommu)(bus.as_ptr(), ops.as_ptr(), opaque);
        (qemu().pci_default_write_config)(device, COMMAND.into(), command, 2);
        result
    }
}

/// Calls the functions that call an operation, and compares the index of each.
///
/// # Safety
///
/// The device exists, and the bus has [`TABLE`].
unsafe fn compare(device: *mut PCIDevice) -> Result<(), String> {
    let at = &layout().pci_iommu_ops;
    let notifier = IOMMUNotifier::allocate();
    let mut responses = IOMMUPRINotifier { notify: ignored };
    let (mut width, mut page) = (0, 0);
    let raw = notifier.as_ptr();
    // SAFETY: the device exists; the called operations do not use their arguments.
    let calls: [(&str, usize, &mut dyn FnMut()); 7] = unsafe {
        [
            ("get_address_space", at.get_address_space, &mut || {
                (qemu().pci_device_iommu_address_space)(device);
            }),
            ("get_iotlb_info", at.get_iotlb_info, &mut || {
                (qemu().pci_iommu_get_iotlb_info)(device, &mut width, &mut page);
            }),
            ("init_iotlb_notifier", at.init_iotlb_notifier, &mut || {
                let (notify, user) = (unheard, std::ptr::null_mut());
                (qemu().pci_iommu_init_iotlb_notifier)(device, raw, notify, user);
            }),
            (
                "register_iotlb_notifier",
                at.register_iotlb_notifier,
                &mut || {
                    (qemu().pci_iommu_register_iotlb_notifier)(device, NO_PASID, raw);
                },
            ),
            (
                "unregister_iotlb_notifier",
                at.unregister_iotlb_notifier,
                &mut || {
                    (qemu().pci_iommu_unregister_iotlb_notifier)(device, NO_PASID, raw);
                },
            ),
            (
                "pri_register_notifier",
                at.pri_register_notifier,
                &mut || {
                    (qemu().pci_pri_register_notifier)(device, NO_PASID, &mut responses);
                },
            ),
            (
                "pri_unregister_notifier",
                at.pri_unregister_notifier,
                &mut || {
                    (qemu().pci_pri_unregister_notifier)(device, NO_PASID);
                },
            ),
        ]
    };
    let mut result = Ok(());
    for (name, offset, call) in calls {
        CALLED.store(NONE, Ordering::Relaxed);
        call();
        let called = CALLED.load(Ordering::Relaxed);
        if called.wrapping_mul(size_of::<usize>()) != offset {
            result = Err(format!(
                "PCIIOMMUOps is not laid out as expected: {name} is not at {offset}"
            ));
            break;
        }
    }
    // SAFETY: no operation has kept it.
    unsafe { IOMMUNotifier::free(notifier) };
    // SAFETY: the caller's promise.
    result.and_then(|()| unsafe { compare_assigned(device) })
}

/// The same for the operations of devices of the host, and for the place that QEMU gives such a
/// device. A QEMU that does not export these functions is not checked.
///
/// # Safety
///
/// As for [`compare`].
unsafe fn compare_assigned(device: *mut PCIDevice) -> Result<(), String> {
    type Set = unsafe extern "C" fn(*mut PCIDevice, *mut HostIOMMUDevice, ErrorOut) -> bool;
    type Unset = unsafe extern "C" fn(*mut PCIDevice);
    type Flags = unsafe extern "C" fn(*mut PCIDevice) -> u64;
    type Quirks = unsafe extern "C" fn(*mut PCIDevice, u32, *mut c_void, u32) -> u64;
    let symbols = [
        c"pci_device_set_iommu_device",
        c"pci_device_unset_iommu_device",
        c"pci_device_get_viommu_flags",
        c"pci_device_get_host_iommu_quirks",
    ]
    .map(functions::symbol);
    let (Some(at), [Some(set), Some(unset), Some(flags), Some(quirks)]) = (assigned(), symbols)
    else {
        return Ok(());
    };
    let (ops, place) = (&at.pci_iommu_ops, &at.host_iommu_device);
    // Larger than any, so that QEMU's place is in it whatever the layout says.
    let room: NonNull<HostIOMMUDevice> = room::allocate(ROOM);
    let called = |offset: usize| {
        CALLED
            .load(Ordering::Relaxed)
            .wrapping_mul(size_of::<usize>())
            == offset
    };
    let none = std::ptr::null_mut();
    // SAFETY: the functions have these types in the series of the layout, and the operations use
    // none of the arguments; QEMU writes the place into the room.
    let (good, found): ([bool; 4], (*mut BusState, c_int)) = unsafe {
        // The device at 00.0 has zeroes where QEMU writes.
        room.cast::<u8>().write_bytes(u8::MAX, ROOM);
        std::mem::transmute::<*mut c_void, Set>(set)(device, room.as_ptr(), std::ptr::null_mut());
        let set = called(ops.set_iommu_device);
        std::mem::transmute::<*mut c_void, Unset>(unset)(device);
        let unset = called(ops.unset_iommu_device);
        std::mem::transmute::<*mut c_void, Flags>(flags)(device);
        let flags = called(ops.get_viommu_flags);
        std::mem::transmute::<*mut c_void, Quirks>(quirks)(device, 0, none, 0);
        let quirks = called(ops.get_host_iommu_quirks);
        let found = (
            room::read(room, place.aliased_bus),
            room::read(room, place.aliased_devfn),
        );
        room::free(room, ROOM);
        ([set, unset, flags, quirks], found)
    };
    // SAFETY: the device exists.
    let expected = unsafe {
        let bus = (qemu().qdev_get_parent_bus)(device.cast());
        (bus, c_int::from((qemu().pci_requester_id)(device) as u8))
    };
    match good == [true; 4] && found == expected {
        true => Ok(()),
        false => Err("devices of the host are not laid out as expected".to_owned()),
    }
}

/// Compares the offset of `pri_request_page`, which QEMU calls only for a device that may request
/// pages: `control` is the offset of its PRI Control Register. Afterwards it restores the
/// operations and the opaque pointer of the bus, and the registers of the device.
///
/// # Errors
///
/// It is at another offset.
pub fn check_page_requests(
    bql: &Bql,
    bus: NonNull<BusState>,
    (ops, opaque): (*const PCIIOMMUOps, *mut c_void),
    device: PciDevice,
    control: u16,
) -> Result<(), String> {
    let command = device.read_config(bql, COMMAND.into(), 2);
    let before = device.read_config_raw(bql, control);
    device.write_config(bql, COMMAND.into(), command | BUS_MASTER, 2);
    device.write_config_raw(bql, control, before | PRI_ENABLE);
    CALLED.store(NONE, Ordering::Relaxed);
    // SAFETY: the bus and the device exist; as for `check`.
    unsafe {
        (qemu().pci_setup_iommu)(
            bus.as_ptr(),
            (&raw const TABLE).cast(),
            std::ptr::null_mut(),
        );
        let request = qemu().pci_pri_request_page;
        request(
            device.object().cast(),
            NO_PASID,
            false,
            false,
            0,
            true,
            0,
            true,
            false,
        );
        (qemu().pci_setup_iommu)(bus.as_ptr(), ops, opaque);
    }
    device.write_config_raw(bql, control, before);
    device.write_config(bql, COMMAND.into(), command, 2);
    let (offset, called) = (
        layout().pci_iommu_ops.pri_request_page,
        CALLED.load(Ordering::Relaxed),
    );
    // A device elsewhere in the machine does not have this IOMMU.
    if called == NONE || called.wrapping_mul(size_of::<usize>()) == offset {
        return Ok(());
    }
    Err(format!(
        "PCIIOMMUOps is not laid out as expected: pri_request_page is not at {offset}"
    ))
}

/// A notifier without any effect.
unsafe extern "C" fn unheard(_notifier: *mut IOMMUNotifier, _entry: *mut IOMMUTLBEntry) {}

/// Like [`unheard`], for page responses.
unsafe extern "C" fn ignored(_notifier: *mut IOMMUPRINotifier, _response: *mut IOMMUPRIResponse) {}
