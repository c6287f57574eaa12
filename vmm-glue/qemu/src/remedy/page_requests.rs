// SPDX-License-Identifier: GPL-2.0-or-later
//! Page requests of devices of the host, which QEMU's vIOMMU does not pass on to its guest. Without
//! them the kernel of the host answers each with "invalid".
//!
//! For each function of `vfio-pci` that has the PRI capability, below an `intel-iommu` that has page
//! requests: the PRI registers become the guest's ([`crate::page_request_capability`]); page tables
//! that QEMU makes for first stages get a fault queue; what waits there goes to the guest's page
//! request queue by QEMU's own function for devices; and the guest's responses go back. The bit of
//! [`super::smpwcs`] is added, too, and [`super::wide_invalidations`] act: what the unit refuses does not
//! reach the host either.
//!
//! It steps aside where QEMU serves the capability itself, or gives its page tables a fault queue.
//! The queue is added by [`crate::ioctl`].

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use host_iommu::host::{FaultQueueId, HostIommu};
use host_iommu::page_requests::{PageRequests, answer};
use host_iommufd::host::Host as Kernel;
use iommufd_bindings as uapi;
use nix::libc;
use pcie_ats::{PageRequest, Pasid, PrgResponse, Prgi, ResponseCode};
use vtd::spec::SourceId;
use vtd::spec::register::offset;

use crate::abi::functions::Realize;
use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;
use crate::fault_queue::{self, Listener, Polled};
use crate::qom::Class;
use crate::trace::marks;
use crate::{message, page_request_capability, property};

/// Page Request Support, in ECAP_REG (VT-d 11.4.3).
const PRS: u64 = 1 << 29;

/// The property of `vfio-pci`.
#[derive(Clone, Debug)]
pub struct Settings {
    page_requests: bool,
}

static PROPERTIES: [property::Property<Settings>; 1] = [property::Property::switch(
    c"svm-page-requests",
    |s| &mut s.page_requests,
    c"pass page requests of the function on to the guest, if QEMU's intel-iommu does not \
      (default: on)",
)];

impl property::Settings for Settings {
    fn of(object: *mut Object) -> Settings {
        let page_requests = !state().off.contains(&object.addr());
        Settings { page_requests }
    }

    fn store(self, object: *mut Object, _later: bool) -> bool {
        let state = &mut *state();
        let mut all = state.functions.iter();
        if all.any(|f| f.object.as_ptr().addr() == object.addr()) {
            return false;
        }
        state.off.retain(|other| *other != object.addr());
        if !self.page_requests {
            state.off.push(object.addr());
        }
        true
    }
}

/// The notifier of the responses for an address space; QEMU passes only its address back.
#[repr(C)]
struct Notifier {
    base: IOMMUPRINotifier,
    /// The object of the function.
    function: usize,
    pasid: Option<Pasid>,
}

/// A function that is served.
struct Function {
    object: NonNull<PCIDevice>,
    /// The number of its iommufd in `State::kernel`.
    iommufd: u32,
    /// Its id there.
    id: u32,
    /// Registered notifiers.
    notifiers: BTreeMap<Option<Pasid>, NonNull<Notifier>>,
}

// SAFETY: the pointers are used only under the BQL.
unsafe impl Send for Function {}

impl Function {
    /// # Safety
    ///
    /// The BQL is held.
    unsafe fn requester(&self) -> SourceId {
        // SAFETY: the object exists until `exit` forgets it.
        SourceId(unsafe { (qemu().pci_requester_id)(self.object.as_ptr()) })
    }
}

/// An iommufd of QEMU's, with its fault queue.
struct Iommufd {
    /// QEMU's descriptor.
    fd: c_int,
    number: u32,
    queue: Polled,
}

#[derive(Default)]
struct State {
    kernel: Kernel,
    requests: PageRequests,
    iommufds: Vec<Iommufd>,
    functions: Vec<Function>,
    /// Objects whose property is off.
    off: Vec<usize>,
    /// QEMU makes fault queues itself.
    aside: bool,
}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();

/// The state. It is not locked while QEMU's functions run.
fn state() -> MutexGuard<'static, State> {
    let state = STATE.get_or_init(Mutex::default);
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `PCIDeviceClass.realize` and `exit` of `vfio-pci`.
static VFIO: OnceLock<(Realize, unsafe extern "C" fn(*mut Object))> = OnceLock::new();

/// Takes the place of two functions of `vfio-pci`, and adds the property. In a QEMU without VFIO it
/// does nothing.
pub fn register() {
    if assigned().is_none() {
        return;
    }
    // SAFETY: types are registered, and QEMU still has one thread. The class inherits from
    // `pci-device`, whose layout is known; its functions have these types.
    unsafe {
        let class = (qemu().object_class_by_name)(c"vfio-pci".as_ptr());
        let Some(class) = NonNull::new(class) else {
            return;
        };
        let at = &layout().pci_device_class;
        let known = (room::read(class, at.realize), room::read(class, at.exit));
        if VFIO.set(known).is_err() {
            return;
        }
        let mut class = Class::new(class);
        class.write(at.realize, realize as Realize);
        class.write(at.exit, exit as unsafe extern "C" fn(*mut Object));
        property::add_all(&mut class, &PROPERTIES);
    }
}

/// `PCIDeviceClass.realize`.
unsafe extern "C" fn realize(object: *mut Object, error: ErrorOut) {
    let Some((known, _)) = VFIO.get() else {
        return;
    };
    // SAFETY: it is the function for this object. QEMU does not permit reading an error from the
    // caller's slot, so it first goes to our own. QEMU realizes devices with the BQL held.
    let bql = unsafe {
        let mut reason: *mut Error = std::ptr::null_mut();
        known(object, &mut reason);
        if !reason.is_null() {
            return (qemu().error_propagate)(error, reason);
        }
        Bql::held()
    };
    if let Some(device) = NonNull::new(object.cast()) {
        serve(&bql, device);
    }
}

/// Whether the vIOMMU is QEMU's own, with page requests.
fn unit_has_page_requests(bql: &Bql) -> bool {
    super::intel_iommu(bql).is_some()
        && super::register(bql, offset::ECAP).is_some_and(|ecap| ecap & PRS != 0)
}

/// Serves a function that was realized, if it needs that.
fn serve(bql: &Bql, device: NonNull<PCIDevice>) {
    let (Some(at), false) = (assigned(), state().aside) else {
        return;
    };
    if state().off.contains(&device.addr().get()) || !unit_has_page_requests(bql) {
        return;
    }
    // SAFETY: the object is a `VFIOPCIDevice`, whose realization has ended.
    let (backend, id, own): (*mut IOMMUFDBackend, u32, u16) = unsafe {
        (
            room::read(device, at.vfio_pci_device.iommufd),
            room::read(device, at.vfio_pci_device.devid),
            room::read(device, at.pci_device.pri_cap),
        )
    };
    // Without an iommufd there is no first stage; with an own capability QEMU serves it.
    let (Some(backend), 0) = (NonNull::new(backend), own) else {
        return;
    };
    // SAFETY: the device has the backend open.
    let fd: c_int = unsafe { room::read(backend, at.iommufd_backend.fd) };
    let number = match open(bql, fd) {
        Ok(number) => number,
        Err(error) => {
            return message::warning(&format!(
                "page requests of a device of the host do not reach the guest: {error}"
            ));
        }
    };
    // SAFETY: the device exists and is realized.
    let Some(capability) = (unsafe { page_request_capability::take(bql, device) }) else {
        return close_unused(bql, number);
    };
    // SAFETY: the field is of this type; QEMU looks there for the guest's Enable.
    unsafe { room::write(device, at.pci_device.pri_cap, capability) };
    state().functions.push(Function {
        object: device,
        iommufd: number,
        id,
        notifiers: BTreeMap::new(),
    });
    super::smpwcs::request(bql);
    super::wide_invalidations::request(bql);
}

/// The number of an iommufd, with a fault queue; a new one if it is not known.
fn open(bql: &Bql, fd: c_int) -> Result<u32, String> {
    let state = &mut *state();
    if let Some(known) = state.iommufds.iter().find(|known| known.fd == fd) {
        return Ok(known.number);
    }
    // SAFETY: QEMU has it open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let file = borrowed.try_clone_to_owned().map(File::from);
    let number = state.kernel.insert(file.map_err(|e| e.to_string())?);
    let queue = state.kernel.alloc_fault_queue(number);
    let queue = queue.map_err(|error| {
        state.kernel.close(number);
        error.to_string()
    })?;
    let queue = Polled::new(bql, &state.kernel, queue, &REMEDY);
    state.iommufds.push(Iommufd { fd, number, queue });
    Ok(number)
}

/// Closes an iommufd that no function uses any more, when its fault queue is freed.
fn close_unused(bql: &Bql, number: u32) {
    let state = &mut *state();
    if state.functions.iter().any(|f| f.iommufd == number) {
        return;
    }
    let Some(index) = state.iommufds.iter().position(|i| i.number == number) else {
        return;
    };
    let unused = state.iommufds.remove(index).queue;
    let queue = unused.queue();
    unused.close(bql, &mut state.kernel);
    fault_queue::free_soon(
        "",
        move || self::state().kernel.free_fault_queue(queue),
        move || self::state().kernel.close(queue.iommufd),
    );
}

/// `PCIDeviceClass.exit`.
unsafe extern "C" fn exit(object: *mut Object) {
    let Some((_, known)) = VFIO.get() else {
        return;
    };
    // SAFETY: QEMU unrealizes devices with the BQL held.
    let bql = unsafe { Bql::held() };
    let served = {
        let state = &mut *state();
        state.off.retain(|other| *other != object.addr());
        let mut all = state.functions.iter();
        let index = all.position(|f| f.object.as_ptr().addr() == object.addr());
        index.map(|index| state.functions.remove(index))
    };
    if let Some(served) = &served {
        // SAFETY: the BQL is held; the device exists, and QEMU does not use a notifier that is not
        // registered any more.
        unsafe {
            let requester = served.requester();
            for (pasid, notifier) in &served.notifiers {
                let number = pasid.map_or(NO_PASID, Pasid::get);
                (qemu().pci_pri_unregister_notifier)(served.object.as_ptr(), number);
                drop(Box::from_raw(notifier.as_ptr()));
                state().requests.unbound(&[(requester, *pasid)]);
            }
            page_request_capability::give_back(&bql, served.object);
        }
    }
    // SAFETY: it is the function for this object.
    unsafe { known(object) };
    // QEMU has freed its page tables, so that nothing has the fault queue.
    if let Some(served) = served {
        close_unused(&bql, served.iommufd);
    }
}

/// What is told of page requests.
struct Remedy;

static REMEDY: Remedy = Remedy;

impl Listener for Remedy {
    fn requests_wait(&'static self, bql: &Bql, queue: FaultQueueId) {
        take_requests(bql, queue);
    }
}

/// Passes the page requests that wait in a fault queue on to the guest.
fn take_requests(bql: &Bql, queue: FaultQueueId) {
    let requests = {
        let state = &mut *state();
        let faults = match state.kernel.read_faults(queue) {
            Ok(faults) => faults,
            Err(error) => return message::warning(&error.to_string()),
        };
        let of = |id| {
            let mut all = state.functions.iter();
            let found = all.find(|f| f.iommufd == queue.iommufd && f.id == id)?;
            // SAFETY: the BQL is held.
            Some(unsafe { found.requester() })
        };
        let delivery = state.requests.deliver(of, queue, &faults);
        answer(&mut state.kernel, &delivery.responses);
        for (requester, request) in &delivery.requests {
            let index = state.requests.index_of_device(*requester, request.prgi);
            marks::page_request(request, index);
        }
        delivery.requests
    };
    for (requester, request) in requests {
        if let Err(code) = pass_on(bql, requester, &request) {
            respond(requester, request.prgi, request.pasid, code);
        }
    }
}

/// Passes a page request on to the guest. The error is the response to its group.
fn pass_on(_bql: &Bql, requester: SourceId, request: &PageRequest) -> Result<(), ResponseCode> {
    let number = request.pasid.map_or(NO_PASID, Pasid::get);
    let (object, new) = {
        let state = &mut *state();
        let mut all = state.functions.iter_mut();
        // SAFETY: the BQL is held.
        let function = all.find(|f| unsafe { f.requester() } == requester);
        let function = function.ok_or(ResponseCode::InvalidRequest)?;
        let object = function.object;
        let new = !function.notifiers.contains_key(&request.pasid);
        let notifier = function.notifiers.entry(request.pasid).or_insert_with(|| {
            NonNull::from(Box::leak(Box::new(Notifier {
                base: IOMMUPRINotifier { notify: responded },
                function: object.addr().get(),
                pasid: request.pasid,
            })))
        });
        (object.as_ptr(), new.then_some(*notifier))
    };
    // SAFETY: the device exists; the notifier exists until it is unregistered.
    let result = unsafe {
        if let Some(notifier) = new {
            (qemu().pci_pri_register_notifier)(object, number, notifier.as_ptr().cast());
        }
        (qemu().pci_pri_request_page)(
            object,
            number,
            request.privileged,
            request.execute,
            request.address,
            request.last,
            request.prgi.get(),
            request.read,
            request.write,
        )
    };
    match result {
        0.. => Ok(()),
        // The guest's queue is full: the device asks again (VT-d 7.5.1).
        error if error == -libc::ENOSPC => Err(ResponseCode::Success),
        _ => Err(ResponseCode::InvalidRequest),
    }
}

/// `IOMMUPRINotifier.notify`.
unsafe extern "C" fn responded(notifier: *mut IOMMUPRINotifier, response: *mut IOMMUPRIResponse) {
    // SAFETY: the notifier is the first field of a `Notifier` that is registered, and the response
    // exists during the call, with the BQL held.
    let (requester, pasid, code, prgi) = unsafe {
        let notifier = &*notifier.cast::<Notifier>();
        let state = state();
        let mut all = state.functions.iter();
        let Some(found) = all.find(|f| f.object.addr().get() == notifier.function) else {
            return;
        };
        let code = match (*response).response_code {
            pri_response::SUCCESS => ResponseCode::Success,
            pri_response::INVALID_REQUEST => ResponseCode::InvalidRequest,
            _ => ResponseCode::ResponseFailure,
        };
        (found.requester(), notifier.pasid, code, (*response).prgi)
    };
    if let Ok(prgi) = Prgi::new(prgi) {
        respond(requester, prgi, pasid, code);
    }
}

/// Gives a response to the kernel.
fn respond(requester: SourceId, prgi: Prgi, pasid: Option<Pasid>, code: ResponseCode) {
    let state = &mut *state();
    let response = PrgResponse { prgi, pasid, code };
    marks::prg_response(&response);
    let back = state.requests.respond(requester, &response);
    answer(&mut state.kernel, back.as_slice());
}

/// The fault queue for a page table that QEMU makes, if it needs one of us.
fn fault_queue_for(fd: c_int, argument: &uapi::iommu_hwpt_alloc) -> Option<u32> {
    let state = &mut *state();
    let iommufd = state.iommufds.iter().find(|known| known.fd == fd)?;
    let of = |f: &&Function| f.iommufd == iommufd.number && f.id == argument.dev_id;
    state.functions.iter().find(of)?;
    let is_first_stage = argument.data_type == uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1
        && argument.size as usize >= size_of::<uapi::iommu_hwpt_alloc>();
    if !is_first_stage || state.aside {
        return None;
    }
    if argument.flags & FAULT_ID_VALID != 0 {
        state.aside = true;
        return None;
    }
    Some(iommufd.queue.queue().id)
}

const FAULT_ID_VALID: u32 = uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_FAULT_ID_VALID;

/// Makes a page table as QEMU asks for it, with a fault queue if it needs one of us. None if it needs
/// none, or could not be made with one: the request is then as before.
pub fn alloc(
    fd: c_int,
    table: &mut uapi::iommu_hwpt_alloc,
    kernel: impl FnOnce(&mut uapi::iommu_hwpt_alloc) -> c_int,
) -> Option<c_int> {
    let queue = fault_queue_for(fd, table)?;
    table.flags |= FAULT_ID_VALID;
    table.fault_id = queue;
    let result = kernel(table);
    if result == 0 {
        return Some(result);
    }
    message::warning(&format!(
        "page requests of a device of the host do not reach the guest: the kernel makes no page table \
         with a fault queue ({})",
        nix::errno::Errno::last()
    ));
    table.flags &= !FAULT_ID_VALID;
    table.fault_id = 0;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_stages_of_served_functions_get_the_queue_of_their_iommufd() {
        let (queue, fd) = (FaultQueueId { iommufd: 3, id: 9 }, 70);
        {
            let state = &mut *state();
            // SAFETY: no QEMU runs here.
            let bql = unsafe { Bql::held() };
            state.iommufds.push(Iommufd {
                fd,
                number: queue.iommufd,
                queue: Polled::new(&bql, &state.kernel, queue, &REMEDY),
            });
            state.functions.push(Function {
                object: NonNull::dangling(),
                iommufd: queue.iommufd,
                id: 5,
                notifiers: BTreeMap::new(),
            });
        }
        let table = |dev_id, data_type, flags| uapi::iommu_hwpt_alloc {
            size: size_of::<uapi::iommu_hwpt_alloc>() as u32,
            dev_id,
            data_type,
            flags,
            ..Default::default()
        };
        let (none, first) = (
            uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
            uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1,
        );
        assert_eq!(fault_queue_for(fd, &table(5, first, 0)), Some(9));
        // A parent, another device, another iommufd.
        assert_eq!(fault_queue_for(fd, &table(5, none, 0)), None);
        assert_eq!(fault_queue_for(fd, &table(6, first, 0)), None);
        assert_eq!(fault_queue_for(fd + 1, &table(5, first, 0)), None);
        // QEMU has begun to make fault queues itself.
        assert_eq!(fault_queue_for(fd, &table(5, first, FAULT_ID_VALID)), None);
        assert_eq!(fault_queue_for(fd, &table(5, first, 0)), None);
    }
}
