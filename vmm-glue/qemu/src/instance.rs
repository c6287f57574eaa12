// SPDX-License-Identifier: GPL-2.0-or-later
//! The QOM type `svm-demo` and the life of its objects: created with properties, realized, reset,
//! unplugged, freed.
//!
//! An object of QEMU has the size of its parent type; ours keep their state in a table of this
//! module, keyed by the object's address. The table's lock is not held during calls to other code.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};

use svm_abi::{doorbell, ids, registers};
use svm_endpoint::Endpoint;

use crate::abi::layout::{ErrorOut, Notifier, Object};
use crate::abi::qemu;
use crate::bql::{self, Bql};
use crate::device::{Bar, Device};
use crate::machine_done;
use crate::memory::{IoRegion, Space};
use crate::message::{self, ErrorSlot};
use crate::pci::PciDevice;
use crate::property;
use crate::qom::{self, DeviceType, Neighbour};
use crate::remedy::{smpwcs, wide_invalidations};
use crate::runstate::Watch;
use crate::settings::{self, Settings};
use crate::trace::Trace;
use crate::vtd;
use crate::worker::{Engine, Worker};

static TYPE: DeviceType = DeviceType {
    name: c"svm-demo",
    description: c"Shared virtual memory demonstration: accelerator with ATS, PRI and PASID",
    vendor_id: ids::VENDOR_ID,
    device_id: ids::DEVICE_ID,
    revision: ids::REVISION_ID,
    class: ids::CLASS,
    realize,
    exit,
    reset,
    config_read,
    config_write,
    instance_init,
    instance_finalize,
    properties: settings::add_all,
};

/// The state of an object.
#[derive(Default)]
struct Instance {
    settings: Settings,
    /// QEMU holds them as children of the object and as its BARs, even if its realization fails:
    /// they live until the object is freed.
    regions: Vec<IoRegion>,
    realized: Option<Realized>,
}

/// The state of an object from its realization until it is unrealized.
struct Realized {
    device: Arc<Device>,
    worker: Option<Worker>,
    watch: Option<Watch>,
}

static INSTANCES: Mutex<BTreeMap<usize, Instance>> = Mutex::new(BTreeMap::new());

/// Registers the type.
pub fn register() {
    qom::register(&TYPE);
}

fn table() -> MutexGuard<'static, BTreeMap<usize, Instance>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The settings of an object.
pub fn settings(object: *mut Object) -> Settings {
    let table = table();
    table
        .get(&object.addr())
        .map(|i| i.settings.clone())
        .unwrap_or_default()
}

/// Changes the settings of an object; false if it is too late.
pub fn set_settings(object: *mut Object, settings: Settings) -> bool {
    let mut table = table();
    match table.get_mut(&object.addr()) {
        Some(instance) if instance.realized.is_none() => {
            instance.settings = settings;
            true
        }
        _ => false,
    }
}

impl property::Settings for Settings {
    fn of(object: *mut Object) -> Settings {
        settings(object)
    }

    fn store(self, object: *mut Object, _later: bool) -> bool {
        set_settings(object, self)
    }
}

/// The device of a realized object.
fn device(object: *mut Object) -> Option<Arc<Device>> {
    let table = table();
    let realized = table.get(&object.addr())?.realized.as_ref()?;
    Some(Arc::clone(&realized.device))
}

/// `TypeInfo.instance_init`.
unsafe extern "C" fn instance_init(object: *mut Object) {
    table().insert(object.addr(), Instance::default());
}

/// `TypeInfo.instance_finalize`.
unsafe extern "C" fn instance_finalize(object: *mut Object) {
    // Dropped after the lock is free.
    let instance = table().remove(&object.addr());
    drop(instance);
}

/// `PCIDeviceClass.realize`.
unsafe extern "C" fn realize(object: *mut Object, error: ErrorOut) {
    let Some(pointer) = NonNull::new(object) else {
        return;
    };
    // SAFETY: QEMU realizes devices with the BQL held; the object is a `PCIDevice`, and values made
    // from it are dropped when the object is finalized; the error slot outlives the call.
    let (bql, pci, slot) = unsafe {
        (
            Bql::held(),
            PciDevice::new(pointer.cast()),
            ErrorSlot::new(error),
        )
    };
    match make(&bql, pci, slot) {
        Ok(realized) => keep(object, realized),
        Err(Failure::Reported) => {}
        Err(Failure::Reason(reason)) => slot.set(&reason),
    }
}

/// Why the realization failed.
enum Failure {
    /// QEMU has stored the reason in the slot.
    Reported,
    /// The reason, not yet in the slot.
    Reason(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure::Reason(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Failure::Reason(reason.to_owned())
    }
}

/// A step of the realization that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Layout,
    Trace,
    Timers,
    Msix,
    Express,
    Power,
    Thread,
}

impl Step {
    /// All steps in order, with their names for `x-fail-realize`.
    const ALL: [(&'static str, Step); 7] = [
        ("layout", Step::Layout),
        ("trace", Step::Trace),
        ("timers", Step::Timers),
        ("msix", Step::Msix),
        ("express", Step::Express),
        ("power", Step::Power),
        ("thread", Step::Thread),
    ];

    /// The step with a given name, if any.
    fn named(name: &str) -> Result<Option<Step>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = Step::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, step)| Some(*step)).ok_or_else(|| {
            let names = Step::ALL.map(|(name, _)| name).join(", ");
            format!("x-fail-realize must be one of {names}, not '{name}'")
        })
    }
}

/// What a realization has added to the function. Dropping it undoes the additions.
struct Added<'a> {
    bql: &'a Bql,
    pci: PciDevice,
    undo: Vec<fn(PciDevice, &Bql)>,
}

impl Added<'_> {
    /// Keeps the additions of a successful realization.
    fn keep(mut self) {
        self.undo.clear();
    }
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        for undo in self.undo.drain(..).rev() {
            undo(self.pci, self.bql);
        }
    }
}

/// Creates the device and starts its thread. A failure leaves only regions, which the object keeps.
fn make(bql: &Bql, pci: PciDevice, slot: ErrorSlot) -> Result<Realized, Failure> {
    let settings = settings(pci.object());
    if was_realized(pci.object()) {
        return Err("the device has been made before: create a new one".into());
    }
    let failing = Step::named(&settings.fail_realize)?;
    let reach = |step| match failing {
        Some(failing) if failing == step => Err(format!(
            "x-fail-realize={}: the device is not made",
            settings.fail_realize
        )),
        _ => Ok(()),
    };
    if !pci.is_on_express_bus(bql) {
        return Err("the device needs a bus of PCI Express: use -M q35, or \
                    -device pcie-root-port,id=ID and bus=ID"
            .into());
    }
    reach(Step::Layout)?;
    if !pci.check_layout(bql, ids::VENDOR_ID, ids::DEVICE_ID) {
        return Err("PCIDevice is not laid out as expected".into());
    }
    if !Space::system().understands_memory(bql) {
        return Err("MemTxAttrs is not laid out as expected".into());
    }
    let mut config = settings.config(pasid_bits(bql))?;
    config.address_bits = address_bits(bql).unwrap_or(config.address_bits);
    let endpoint = Endpoint::new(config).map_err(|error| error.to_string())?;
    reach(Step::Trace)?;
    let trace = open_trace(bql, pci, &settings)?;
    let device = Device::new(pci, endpoint, trace, settings.pasid_check);
    reach(Step::Timers)?;
    if !device.prepare(bql) {
        return Err("QEMUTimer is not laid out as expected".into());
    }
    add_bars(bql, pci, &device);
    let mut added = Added {
        bql,
        pci,
        undo: Vec::new(),
    };
    reach(Step::Msix)?;
    if !pci.add_msix(bql, device.endpoint.vectors(), ids::MSIX_BAR, slot) {
        return Err(Failure::Reported);
    }
    added.undo.push(PciDevice::remove_msix);
    reach(Step::Express)?;
    let Some(express) = pci.add_express(bql) else {
        return Err("QEMU has no room for the PCI Express capability".into());
    };
    added.undo.push(PciDevice::remove_express);
    reach(Step::Power)?;
    let Some(power) = pci.add_power_management(bql, slot) else {
        return Err(Failure::Reported);
    };
    device.add_capabilities(bql, express, power);
    let write = config_write as *const () as usize;
    if !pci.check_fields(bql, write, svm_endpoint::config_space::PRI) {
        return Err("PCIDevice is not laid out as expected".into());
    }
    reach(Step::Thread)?;
    at_exit();
    // The thread waits for the BQL before its first step.
    let engine: Arc<dyn Engine> = Arc::clone(&device) as Arc<dyn Engine>;
    let worker = Worker::start(Arc::clone(&device.bell), engine)
        .map_err(|error| format!("cannot start the device's thread: {error}"))?;
    added.keep();
    if settings.smpwcs {
        smpwcs::request(bql);
    }
    if settings.wide_invalidations {
        wide_invalidations::request(bql);
    }
    if Neighbour::find(bql, c"intel-iommu").is_none() {
        // The vIOMMU may come later on the command line.
        static ONCE: OnceLock<()> = OnceLock::new();
        if ONCE.set(()).is_ok() {
            machine_done::when_complete(bql, compare_widths);
        }
    }
    static CHECKED: OnceLock<()> = OnceLock::new();
    if CHECKED.set(()).is_ok() {
        // No device may send requests earlier.
        machine_done::when_complete(bql, check_page_requests);
    }
    let watched = Arc::downgrade(&device);
    let watch = Watch::new(
        bql,
        Box::new(move |bql, running| {
            if let Some(device) = watched.upgrade() {
                device.machine_runs(bql, running);
            }
        }),
    );
    Ok(Realized {
        device,
        worker: Some(worker),
        watch: Some(watch),
    })
}

/// The PASID width of the vIOMMU, if there is one that limits it.
fn pasid_bits(bql: &Bql) -> Option<u64> {
    let iommu = Neighbour::find(bql, c"intel-iommu")?;
    iommu.number(bql, c"pasid-bits").filter(|bits| *bits != 0)
}

/// The width of the addresses that the vIOMMU translates for PASIDs: requests for wider ones always
/// fail. None if there is no vIOMMU, or if it does not have these properties.
fn address_bits(bql: &Bql) -> Option<u8> {
    if let Some(unit) = Neighbour::find(bql, vtd::TYPE) {
        // Its aw-bits is the width of the second stage.
        let five =
            |unit: Neighbour| Some(unit.switch(bql, c"fs5lp")? && unit.switch(bql, c"fsts")?);
        return Some(if five(unit)? { 57 } else { 48 });
    }
    let iommu = Neighbour::find(bql, c"intel-iommu")?;
    // First-stage tables of four levels.
    (iommu.number(bql, c"aw-bits")? == 48).then_some(48)
}

/// Ends QEMU if a device before the vIOMMU on the command line has wider PASIDs: after the vIOMMU,
/// it would have been refused.
fn compare_widths(bql: &Bql) {
    let Some(most) = pasid_bits(bql) else { return };
    let devices: Vec<Arc<Device>> = table()
        .values()
        .filter_map(|instance| Some(Arc::clone(&instance.realized.as_ref()?.device)))
        .collect();
    for device in devices {
        let bits = device.endpoint.config().pasid_width.bits();
        if u64::from(bits) > most {
            message::error(&format!(
                "device {} has PASIDs of {bits} bits, and the vIOMMU behind it pasid-bits={most}: \
                 put the vIOMMU before it, or give the device pasid-bits={most}",
                device.pci.name(bql)
            ));
            std::process::exit(1);
        }
    }
}

/// Ends QEMU if the unit's operation for page requests is not at the expected offset.
fn check_page_requests(bql: &Bql) {
    let device = table()
        .values()
        .find_map(|instance| Some(instance.realized.as_ref()?.device.pci));
    let result = device.map_or(Ok(()), |device| vtd::check_page_requests(bql, device));
    if let Err(reason) = result {
        message::error(&format!("svm-vtd: {reason}"));
        std::process::exit(1);
    }
}

/// Creates the trace file, if requested.
fn open_trace(
    bql: &Bql,
    pci: PciDevice,
    settings: &Settings,
) -> Result<Option<Arc<Trace>>, String> {
    let path = &settings.trace;
    if path.is_empty() {
        return Ok(None);
    }
    let taken = table()
        .values()
        .any(|i| i.realized.is_some() && i.settings.trace == *path);
    if taken {
        return Err(format!(
            "trace file '{path}' is that of another device: choose one for each"
        ));
    }
    match Trace::create(Path::new(path), &pci.name(bql), settings.trace_limit << 20) {
        Ok(trace) => Ok(Some(trace)),
        Err(error) => Err(format!("cannot create trace file '{path}': {error}")),
    }
}

/// Whether an earlier attempt to realize an object has left regions.
fn was_realized(object: *mut Object) -> bool {
    let table = table();
    let instance = table.get(&object.addr());
    instance.is_some_and(|i| i.realized.is_some() || !i.regions.is_empty())
}

/// Adds the BARs with registers and doorbells. The object keeps them.
///
/// The region of the doorbells belongs to no object, and is never freed. A step can begin in the
/// handler of a write to it, and while the handler of a device's region runs, QEMU refuses all
/// accesses to regions of the same device: also those that a step makes.
fn add_bars(bql: &Bql, pci: PciDevice, device: &Arc<Device>) {
    let pages = u64::from(device.endpoint.config().contexts).next_power_of_two();
    let bars = [
        (
            ids::REGISTERS_BAR,
            c"svm-demo-registers",
            registers::REGISTERS_SIZE,
        ),
        (
            ids::DOORBELLS_BAR,
            c"svm-demo-doorbells",
            pages * doorbell::PAGE_SIZE,
        ),
    ];
    for (number, name, size) in bars {
        let bar = Bar {
            device: Arc::downgrade(device),
            number,
        };
        let owned = number != ids::DOORBELLS_BAR;
        let owner = if owned {
            pci.object()
        } else {
            std::ptr::null_mut()
        };
        // SAFETY: the object owns the region as its child, and finalizes it before it calls
        // `instance_finalize`, which drops it. From here on the region is in the table, whether the
        // realization succeeds or not. A region without owner is forgotten below.
        let region = unsafe { IoRegion::new(bql, owner, name, size, Box::new(bar)) };
        pci.add_bar(bql, number, &region);
        if !owned {
            std::mem::forget(region);
            continue;
        }
        if let Some(instance) = table().get_mut(&pci.object().addr()) {
            instance.regions.push(region);
        }
    }
}

/// Puts a device into the table.
fn keep(object: *mut Object, realized: Realized) {
    if let Some(instance) = table().get_mut(&object.addr()) {
        instance.realized = Some(realized);
    }
}

/// Takes the thread of an object out of the table.
fn take_worker(object: *mut Object) -> Option<Worker> {
    let mut table = table();
    table
        .get_mut(&object.addr())?
        .realized
        .as_mut()?
        .worker
        .take()
}

/// Takes the watch of an object out of the table.
fn take_watch(object: *mut Object) -> Option<Watch> {
    let mut table = table();
    table
        .get_mut(&object.addr())?
        .realized
        .as_mut()?
        .watch
        .take()
}

/// `PCIDeviceClass.exit`.
unsafe extern "C" fn exit(object: *mut Object) {
    // SAFETY: QEMU unrealizes devices with the BQL held.
    let bql = unsafe { Bql::held() };
    // The function is still on its bus: the BQL stays held so that no other code reaches it until
    // the end.
    if let Some(worker) = take_worker(object) {
        worker.dismiss(&bql);
    }
    drop(take_watch(object));
    if let Some(device) = device(object) {
        device.shut_down(&bql);
        device.pci.remove_msix(&bql);
        device.pci.remove_express(&bql);
    }
}

/// `DeviceClass.legacy_reset`.
unsafe extern "C" fn reset(object: *mut Object) {
    // SAFETY: QEMU resets devices with the BQL held.
    let bql = unsafe { Bql::held() };
    if let Some(device) = device(object) {
        device.reset(&bql);
    }
}

/// `PCIDeviceClass.config_read`.
unsafe extern "C" fn config_read(object: *mut Object, address: u32, length: c_int) -> u32 {
    // SAFETY: QEMU accesses configuration space with the BQL held.
    let bql = unsafe { Bql::held() };
    match device(object) {
        Some(device) => device.config_read(&bql, address, length),
        None => u32::MAX,
    }
}

/// `PCIDeviceClass.config_write`.
unsafe extern "C" fn config_write(object: *mut Object, address: u32, value: u32, length: c_int) {
    // SAFETY: as for `config_read`.
    let bql = unsafe { Bql::held() };
    if let Some(device) = device(object) {
        device.config_write(&bql, address, value, length);
    }
}

/// Stops the threads and flushes the traces when QEMU ends, because QEMU does not unrealize devices
/// then.
fn at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let notifier = Box::leak(Box::new(Notifier {
            notify: ending,
            node: [std::ptr::null_mut(); 2],
        }));
        // SAFETY: the notifier lives for ever.
        unsafe { (qemu().qemu_add_exit_notifier)(notifier) }
    });
}

/// Runs at the end of the process, in the thread that called `exit`.
unsafe extern "C" fn ending(_notifier: *mut Notifier, _data: *mut c_void) {
    let workers: Vec<Worker> = table()
        .values_mut()
        .filter_map(|instance| instance.realized.as_mut()?.worker.take())
        .collect();
    let stop = || workers.into_iter().for_each(Worker::stop_unlocked);
    if bql::is_held() {
        // SAFETY: the thread holds the BQL, as checked above.
        unsafe { Bql::held() }.unlocked(stop);
    } else {
        stop();
    }
    let devices: Vec<Arc<Device>> = table()
        .values()
        .filter_map(|instance| Some(Arc::clone(&instance.realized.as_ref()?.device)))
        .collect();
    for device in devices {
        device.close_trace();
    }
}
