// SPDX-License-Identifier: GPL-2.0-or-later
//! The operations of an IOMMU that QEMU's PCI buses call: each becomes a call of the unit.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use host_iommu::host::VtdInfo;
use nix::libc::{EINVAL, EIO, EPERM};
use pcie_ats::{
    AlignedRange, MAX_TRANSLATIONS, PAGE_SHIFT, PAGE_SIZE, PageRequest, Pasid, Prgi, Translation,
    TranslationError, TranslationRequest,
};

use super::function::Function;
use super::guest_memory::GuestMemory;
use super::host::{Host, VFIO_PCI};
use super::host_device::HostDevice;

use crate::abi::layout::*;
use crate::abi::room;
use crate::bql::Bql;
use crate::memory::Space;
use crate::message::ErrorSlot;

/// The table, which is never freed. Those for devices that are assigned from the host are missing in
/// a QEMU that has not what they need.
pub fn table() -> *const PCIIOMMUOps {
    let at = &layout().pci_iommu_ops;
    let table: NonNull<PCIIOMMUOps> = room::constant(at.size);
    // SAFETY: the room is as large as the structure, whose other fields may be null, and is not
    // shared yet. The functions have the signatures that `verify` has compared.
    unsafe {
        room::write(
            table,
            at.get_address_space,
            get_address_space as *const c_void,
        );
        room::write(table, at.get_iotlb_info, get_iotlb_info as *const c_void);
        room::write(
            table,
            at.init_iotlb_notifier,
            init_iotlb_notifier as *const c_void,
        );
        let (register, unregister) = (register_iotlb_notifier, unregister_iotlb_notifier);
        room::write(table, at.register_iotlb_notifier, register as *const c_void);
        room::write(
            table,
            at.unregister_iotlb_notifier,
            unregister as *const c_void,
        );
        let translate: AtsRequestTranslation = ats_request_translation;
        room::write(table, at.ats_request_translation, translate);
        room::write(
            table,
            at.pri_register_notifier,
            pri_register_notifier as *const c_void,
        );
        room::write(
            table,
            at.pri_unregister_notifier,
            pri_unregister_notifier as *const c_void,
        );
        let request: PriRequestPage = pri_request_page;
        room::write(table, at.pri_request_page, request);
    }
    if let Some(at) = assigned().map(|at| &at.pci_iommu_ops) {
        let (set, unset) = (set_iommu_device, unset_iommu_device);
        let (flags, quirks) = (get_viommu_flags, get_host_iommu_quirks);
        // SAFETY: as above.
        unsafe {
            room::write(table, at.set_iommu_device, set as *const c_void);
            room::write(table, at.unset_iommu_device, unset as *const c_void);
            room::write(table, at.get_viommu_flags, flags as *const c_void);
            room::write(table, at.get_host_iommu_quirks, quirks as *const c_void);
        }
    }
    table.as_ptr()
}

/// The host behind the opaque pointer of the operations.
///
/// # Safety
///
/// The pointer was given to `pci_setup_iommu` with [`table`].
unsafe fn host(opaque: *mut c_void) -> &'static Host {
    // SAFETY: the caller's promise; a host is never freed.
    unsafe { &*opaque.cast::<Host>() }
}

/// An address space from QEMU's number.
fn pasid(number: u32) -> Result<Option<Pasid>, c_int> {
    match number {
        NO_PASID => Ok(None),
        number => Pasid::new(number).map(Some).map_err(|_| -EINVAL),
    }
}

/// `get_address_space`.
unsafe extern "C" fn get_address_space(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
) -> *mut AddressSpace {
    // SAFETY: QEMU calls its operations with the BQL held, with buses that exist.
    let (host, bql, function) = unsafe { (host(opaque), Bql::held(), Function::new(bus, devfn)) };
    match function {
        Some(function) => host.address_space(&bql, function),
        None => Space::system().as_ptr(),
    }
}

/// The arguments of most operations: a function below the unit, and a PASID.
struct Requester {
    host: &'static Host,
    function: Function,
    pasid: Option<Pasid>,
}

impl Requester {
    /// The requester for QEMU's arguments. None if there is none.
    ///
    /// # Safety
    ///
    /// The arguments are those of an operation, which QEMU calls with the BQL held and with buses
    /// that exist.
    unsafe fn new(
        bus: *mut BusState,
        opaque: *mut c_void,
        devfn: c_int,
        number: u32,
    ) -> Option<Requester> {
        // SAFETY: the caller's promise.
        let (host, function) = unsafe { (host(opaque), Function::new(bus, devfn)?) };
        Some(Requester {
            host,
            function,
            pasid: pasid(number).ok()?,
        })
    }
}

/// `get_iotlb_info`: the width of addresses and the smallest page.
unsafe extern "C" fn get_iotlb_info(opaque: *mut c_void, width: *mut u8, page: *mut u32) {
    // SAFETY: as for `get_address_space`; QEMU provides room for both.
    unsafe {
        *width = host(opaque).unit.address_width();
        *page = PAGE_SIZE as u32;
    }
}

/// `init_iotlb_notifier`.
unsafe extern "C" fn init_iotlb_notifier(
    _bus: *mut BusState,
    _opaque: *mut c_void,
    _devfn: c_int,
    notifier: *mut IOMMUNotifier,
    notify: Option<IommuNotify>,
    user: *mut c_void,
) {
    if let Some(notifier) = NonNull::new(notifier) {
        // SAFETY: the notifier belongs to the caller, and is not registered yet.
        unsafe { IOMMUNotifier::fill(notifier, notify, user) };
    }
}

/// `register_iotlb_notifier`.
unsafe extern "C" fn register_iotlb_notifier(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    number: u32,
    notifier: *mut IOMMUNotifier,
) {
    // SAFETY: QEMU's rule is that a notifier exists until it is unregistered.
    let requester = unsafe { Requester::new(bus, opaque, devfn, number) };
    if let (Some(requester), Some(notifier)) = (requester, NonNull::new(notifier)) {
        let clients = &requester.host.clients;
        // SAFETY: the rule of above.
        unsafe { clients.add_invalidations(requester.function, requester.pasid, notifier) };
    }
}

/// `unregister_iotlb_notifier`.
unsafe extern "C" fn unregister_iotlb_notifier(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    number: u32,
    notifier: *mut IOMMUNotifier,
) {
    // SAFETY: QEMU's rule is that a notifier exists until it is unregistered.
    let requester = unsafe { Requester::new(bus, opaque, devfn, number) };
    if let (Some(requester), Some(notifier)) = (requester, NonNull::new(notifier)) {
        let clients = &requester.host.clients;
        clients.remove_invalidations(requester.function, requester.pasid, notifier);
    }
}

/// `ats_request_translation`: the number of results, or a negative error number. The completion of
/// a translation request may cover less than requested; it always covers the first page.
unsafe extern "C" fn ats_request_translation(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    number: u32,
    privileged: bool,
    execute: bool,
    address: u64,
    length: usize,
    no_write: bool,
    results: *mut IOMMUTLBEntry,
    room: usize,
    failed: *mut u32,
) -> isize {
    // SAFETY: these are the arguments of an operation; QEMU provides room for the results and the
    // count.
    let (requester, results, failed) = unsafe {
        let results = std::slice::from_raw_parts_mut(results, room);
        (
            Requester::new(bus, opaque, devfn, number),
            results,
            &mut *failed,
        )
    };
    *failed = 0;
    let Some(requester) = requester else {
        return -(EINVAL as isize);
    };
    let offset = address & (PAGE_SIZE - 1);
    let pages = (length as u64).saturating_add(offset).div_ceil(PAGE_SIZE);
    let most = results.len().min(MAX_TRANSLATIONS) as u64;
    if pages == 0 || most == 0 {
        return -(EINVAL as isize);
    }
    let request = TranslationRequest {
        address: address - offset,
        pages: pages.min(most) as u16,
        pasid: requester.pasid,
        privileged,
        execute,
        no_write,
    };
    let mut translations = [NOTHING; MAX_TRANSLATIONS];
    let result = requester.host.unit.with(|unit, effects| {
        let requester = requester.function.source_id();
        unit.translation_request(
            &GuestMemory,
            requester,
            &request,
            &mut translations,
            effects,
        )
    });
    let count = match result {
        Ok(count) => count,
        Err(TranslationError::UnsupportedRequest) => return -(EPERM as isize),
        Err(TranslationError::CompleterAbort | TranslationError::CompletionTimeout) => {
            return -(EIO as isize);
        }
    };
    let mut next = request.address;
    for (translation, result) in translations[..count].iter().zip(results) {
        let mask = translation.range.last() - translation.range.base();
        *result = entry(translation, next & !mask, number);
        let lacks = !translation.read || !(no_write || translation.write);
        *failed += u32::from(lacks);
        next = (next | mask).wrapping_add(1);
    }
    count as isize
}

/// A translation as QEMU's type.
fn entry(translation: &Translation, address: u64, pasid: u32) -> IOMMUTLBEntry {
    let flags = [
        (translation.read, perm::READ),
        (translation.write, perm::WRITE),
        (translation.execute, perm::EXECUTE),
        (translation.privileged, perm::PRIVILEGED),
        (translation.global, perm::GLOBAL),
        (translation.untranslated_only, perm::UNTRANSLATED_ONLY),
    ];
    IOMMUTLBEntry {
        target_as: Space::system().as_ptr(),
        iova: address,
        translated_addr: translation.range.base(),
        addr_mask: translation.range.last() - translation.range.base(),
        perm: flags.iter().filter(|f| f.0).map(|f| f.1).sum(),
        pasid,
    }
}

/// An empty translation.
const NOTHING: Translation = Translation {
    range: AlignedRange::page(0),
    read: false,
    write: false,
    execute: false,
    privileged: false,
    global: false,
    untranslated_only: false,
    non_snooped: false,
};
const _: () = assert!(PAGE_SIZE == 1 << PAGE_SHIFT);

/// `pri_register_notifier`.
unsafe extern "C" fn pri_register_notifier(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    number: u32,
    notifier: *mut IOMMUPRINotifier,
) {
    // SAFETY: QEMU's rule is that a notifier exists until it is unregistered.
    let requester = unsafe { Requester::new(bus, opaque, devfn, number) };
    if let (Some(requester), Some(notifier)) = (requester, NonNull::new(notifier)) {
        let clients = &requester.host.clients;
        // SAFETY: the rule of above.
        unsafe { clients.add_responses(requester.function, requester.pasid, notifier) };
    }
}

/// `pri_unregister_notifier`.
unsafe extern "C" fn pri_unregister_notifier(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    number: u32,
) {
    // SAFETY: these are the arguments of an operation.
    if let Some(requester) = unsafe { Requester::new(bus, opaque, devfn, number) } {
        let clients = &requester.host.clients;
        clients.remove_responses(requester.function, requester.pasid, None);
    }
}

/// `pri_request_page`: always returns 0. A page request is a posted message: the function gets its
/// result in the response, which the unit sends itself if it cannot queue the request.
unsafe extern "C" fn pri_request_page(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    number: u32,
    privileged: bool,
    execute: bool,
    address: u64,
    last: bool,
    prgi: u16,
    read: bool,
    write: bool,
) -> c_int {
    // SAFETY: these are the arguments of an operation.
    let requester = unsafe { Requester::new(bus, opaque, devfn, number) };
    let (Some(requester), Ok(prgi)) = (requester, Prgi::new(prgi)) else {
        return -EINVAL;
    };
    requester.host.page_request(
        requester.function.source_id(),
        &PageRequest {
            address,
            pasid: requester.pasid,
            read,
            write,
            execute,
            privileged,
            prgi,
            last,
        },
    );
    0
}

/// `set_iommu_device`: whether a device of the host can be below the unit.
unsafe extern "C" fn set_iommu_device(
    bus: *mut BusState,
    opaque: *mut c_void,
    devfn: c_int,
    device: *mut HostIOMMUDevice,
    error: ErrorOut,
) -> bool {
    // SAFETY: these are the arguments of an operation, which QEMU calls with the BQL held, and the
    // device exists until it is unset.
    let (host, bql, function, slot) = unsafe {
        (
            host(opaque),
            Bql::held(),
            Function::new(bus, devfn),
            ErrorSlot::new(error),
        )
    };
    let (Some(function), Some(device), Some(at)) = (function, NonNull::new(device), assigned())
    else {
        slot.set("svm-vtd: a device of the host needs a bus");
        return false;
    };
    let vfio = function
        .device(&bql)
        .filter(|_| function.is(&bql, VFIO_PCI));
    // SAFETY: the device was given for this function.
    let device = unsafe { HostDevice::read(&bql, at, device, (bus, devfn), vfio) };
    let result = match device {
        Ok(device) => host.assign(&bql, function, device),
        Err(error) => Err(format!("its files cannot be used: {error}")),
    };
    match result {
        Ok(()) => true,
        Err(reason) => {
            slot.set(&reason);
            false
        }
    }
}

/// `unset_iommu_device`.
unsafe extern "C" fn unset_iommu_device(bus: *mut BusState, opaque: *mut c_void, devfn: c_int) {
    // SAFETY: as for `set_iommu_device`.
    let (host, bql, function) = unsafe { (host(opaque), Bql::held(), Function::new(bus, devfn)) };
    if let Some(function) = function {
        host.unassign(&bql, function);
    }
}

/// `get_viommu_flags`: what the unit asks of VFIO.
unsafe extern "C" fn get_viommu_flags(opaque: *mut c_void) -> u64 {
    // SAFETY: as for `get_address_space`.
    unsafe { host(opaque) }.flags()
}

/// `IOMMU_HW_INFO_TYPE_INTEL_VTD`.
const HARDWARE_IS_VTD: u32 = 1;
/// `HOST_IOMMU_QUIRK_NESTING_PARENT_BYPASS_RO`.
const BYPASS_READ_ONLY: u64 = 1 << 0;

/// `get_host_iommu_quirks`: what VFIO leaves out of a parent, by the data that the kernel gives of
/// the hardware.
unsafe extern "C" fn get_host_iommu_quirks(kind: u32, data: *mut c_void, size: u32) -> u64 {
    if kind != HARDWARE_IS_VTD || (size as usize) < size_of::<u32>() || data.is_null() {
        return 0;
    }
    // SAFETY: the data has the given size, and begins with the flags.
    let flags = unsafe { data.cast::<u32>().read_unaligned() };
    match flags & VtdInfo::ERRATUM_772415_SPR17 {
        0 => 0,
        _ => BYPASS_READ_ONLY,
    }
}

#[cfg(test)]
mod tests {
    use qemu_layout::Table;

    use super::*;
    use crate::abi::signature::of;

    #[test]
    fn operations_have_the_signatures_of_the_table() {
        let get_info = get_iotlb_info as unsafe extern "C" fn(_, _, _);
        let init = init_iotlb_notifier as unsafe extern "C" fn(_, _, _, _, _, _);
        let register = register_iotlb_notifier as unsafe extern "C" fn(_, _, _, _, _);
        let unregister = unregister_iotlb_notifier as unsafe extern "C" fn(_, _, _, _, _);
        let pri_register = pri_register_notifier as unsafe extern "C" fn(_, _, _, _, _);
        let pri_unregister = pri_unregister_notifier as unsafe extern "C" fn(_, _, _, _);
        let translate: AtsRequestTranslation = ats_request_translation;
        let request: PriRequestPage = pri_request_page;
        let get_space: GetAddressSpace = get_address_space;
        let set = set_iommu_device as unsafe extern "C" fn(_, _, _, _, _) -> _;
        let unset = unset_iommu_device as unsafe extern "C" fn(_, _, _);
        let flags = get_viommu_flags as unsafe extern "C" fn(_) -> _;
        let quirks = get_host_iommu_quirks as unsafe extern "C" fn(_, _, _) -> _;
        let table = Table::builtin();
        for (member, signature) in [
            ("get_address_space", of(get_space)),
            ("get_iotlb_info", of(get_info)),
            ("init_iotlb_notifier", of(init)),
            ("register_iotlb_notifier", of(register)),
            ("unregister_iotlb_notifier", of(unregister)),
            ("ats_request_translation", of(translate)),
            ("pri_register_notifier", of(pri_register)),
            ("pri_unregister_notifier", of(pri_unregister)),
            ("pri_request_page", of(request)),
            ("set_iommu_device", of(set)),
            ("unset_iommu_device", of(unset)),
            ("get_viommu_flags", of(flags)),
            ("get_host_iommu_quirks", of(quirks)),
        ] {
            let name = format!("PCIIOMMUOps.{member}");
            assert_eq!(table.signature(&name), Some(signature.as_str()), "{name}");
        }
    }
}
