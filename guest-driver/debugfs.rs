// SPDX-License-Identifier: GPL-2.0-only

//! `/sys/kernel/debug/svm_demo/svmN`: the contexts of a device, its counters, and its latest
//! faults.

use kernel::{
    debugfs::{
        Dir,
        Scope, //
    },
    fmt,
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

use crate::{
    abi::counters,
    device::Device, //
};

global_lock! {
    // SAFETY: `Root::new()` initializes it, before a device is probed.
    unsafe(uninit) static ROOT: Mutex<Option<Dir>> = None;
}

/// The directory of the driver, which contains those of its devices. Dropping the value removes it,
/// as soon as these are gone.
///
/// The module owns the value, which `probe()` does not get. So its contents are in [`ROOT`].
pub(crate) struct Root(());

impl Root {
    /// Creates the directory `name`. Without debugfs there is none, which is not an error.
    ///
    /// # Safety
    ///
    /// Call it once, before any use of [`Directory`].
    pub(crate) unsafe fn new(name: &CStr) -> Self {
        // SAFETY: By the requirements of this function, this is the first use of the lock.
        unsafe { ROOT.init() };
        *ROOT.lock() = Some(Dir::new(name));
        Self(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let root = ROOT.lock().take();

        drop(root);
    }
}

/// The directory of one device. Dropping it removes it.
#[pin_data]
pub(crate) struct Directory {
    #[pin]
    scope: Scope<Arc<Device>>,
}

impl Directory {
    /// Creates the directory `name`, while the driver's exists. Without debugfs there is none,
    /// which is not an error.
    pub(crate) fn new(name: &CStr, device: Arc<Device>) -> Result<Pin<KBox<Self>>> {
        let root = ROOT.lock().as_ref().ok_or(ENODEV)?.clone();
        let scope = root.scope(device, name, |device, directory| {
            directory.read_callback_file(c"contexts", device, &contexts);
            directory.read_callback_file(c"counters", device, &device_counters);
            directory.read_callback_file(c"faults", device, &faults);
        });

        KBox::pin_init(try_pin_init!(Self { scope <- scope }), GFP_KERNEL)
    }
}

/// A line for each context that is not free.
fn contexts(device: &Arc<Device>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "context holder process pasid state halt ring entries head tail vector eventfd \
         translation_requests page_requests invalidations"
    )?;
    for context in device.contexts() {
        let index = context.index();
        let Ok(view) = context.view(device.registers()) else {
            continue;
        };
        let Some(owner) = view.owner.filter(|_| view.holder != "free") else {
            continue;
        };
        let registers = device.registers().context(index);
        let count = |counter| registers.counter(counter).unwrap_or(0);

        writeln!(
            f,
            "{} {} {} {} {} {} {:#x} {} {} {} {} {} {} {} {}",
            index,
            view.holder,
            owner.process,
            owner.pasid,
            view.state,
            view.reason,
            view.ring,
            view.ring_entries,
            view.head,
            view.tail,
            device.vector(index),
            u8::from(view.eventfd),
            count(counters::index::TRANSLATION_REQUESTS),
            count(counters::index::PAGE_REQUESTS),
            count(counters::index::INVALIDATIONS)
        )?;
    }
    Ok(())
}

/// The counters of the whole device: its ATC, its page requests, and the rest.
fn device_counters(device: &Arc<Device>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for counter in counters::COUNTERS {
        match device.registers().counter(counter.index) {
            Ok(value) => writeln!(f, "{} {}", counter.key, value)?,
            Err(_) => return writeln!(f, "the device does not answer"),
        }
    }
    Ok(())
}

/// The latest faults.
fn faults(device: &Arc<Device>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    device.faults().show(f)
}
