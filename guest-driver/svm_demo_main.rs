// SPDX-License-Identifier: GPL-2.0-only

//! Driver for the svm-demo device: a PCIe function that works in the address spaces of its
//! processes.
//!
//! Each function has a character device `/dev/svmN`. Opening it binds one of the function's
//! contexts to the address space of the process (SVA). The process then submits work to the device
//! through a ring in its own memory and a doorbell page, without the kernel, which only handles
//! page faults and interrupts.
//!
//! Each module uses only those below it: [`file`], [`fdinfo`], [`chardev`] and [`debugfs`], the
//! interfaces for programs and users; [`device`], one function; [`irq`] and [`context`], the life
//! of a context; [`signals`], the notification of waiters; [`doorbell`], [`bar`] and [`regs`], the
//! parts of the function; [`faults`], [`quota`] and [`trace`], statistics and tracing; [`argument`]
//! and [`abi`], the interfaces of driver and device; [`eventfd`], [`pm`], [`reset`], [`sva`],
//! [`wait`] and [`work`], which are independent of this driver; [`raw`] and [`compat`], what the
//! kernel crate lacks or names differently.

use kernel::{
    bindings,
    device::Core,
    devres,
    driver::Registration,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    InPlaceModule,
    ModuleMetadata, //
};

// Shared by all users of the interface, with the lints of a library.
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::wrong_self_convention
)]
mod abi;
mod argument;
mod bar;
mod chardev;
mod compat;
mod context;
mod debugfs;
mod device;
mod doorbell;
mod eventfd;
mod faults;
mod fdinfo;
mod file;
mod irq;
mod pm;
mod quota;
mod raw;
mod regs;
mod reset;
mod signals;
mod sva;
mod trace;
mod wait;
mod work;

use abi::ids;
use chardev::{
    CharDevice,
    Number, //
};
use context::Pause;
use device::Device;

/// The operations of the character devices.
const OPERATIONS: &bindings::file_operations = &file::operations(compat::module_owner!());

/// A function that decodes accesses to its memory. Dropping the value disables it again.
///
/// # Invariants
///
/// The function was enabled once for this value.
struct Enabled(ARef<pci::Device>);

impl Enabled {
    fn new(pdev: &pci::Device<Core<'_>>) -> Result<Self> {
        pdev.enable_device_mem()?;
        // INVARIANT: It was enabled above.
        Ok(Self(pdev.into()))
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // SAFETY: The device is valid. By the type invariants, it was enabled, which this undoes.
        unsafe { bindings::pci_disable_device(raw::pci_dev(&self.0)) };
    }
}

/// The driver's data of one function.
#[pin_data]
struct SvmDemo {
    device: Arc<Device>,
    /// Until the function is unbound.
    #[pin]
    registrations: Mutex<Option<Registrations>>,
}

/// The function's registrations in the system. The fields are dropped in this order, so that
/// debugfs does not show contexts that are being revoked.
struct Registrations {
    _debugfs: Pin<KBox<debugfs::Directory>>,
    _sleep: Pin<KBox<pm::Registration<Arc<Device>>>>,
    _chardev: CharDevice,
}

impl pm::Sleeper for Arc<Device> {
    fn suspend(&self) -> Result {
        if self.pause(Pause::Sleep) {
            return Ok(());
        }
        // Otherwise a page request would be outstanding while nothing can answer it.
        self.end_pause(Pause::Sleep);
        Err(EBUSY)
    }

    fn resume(&self) {
        self.end_pause(Pause::Sleep);
    }
}

/// The id of the function.
///
/// `pci::DeviceId::from_id()` takes a vendor from a list, which lacks the vendor id of QEMU's
/// devices without a vendor.
const fn device_id() -> pci::DeviceId {
    let id = bindings::pci_device_id {
        vendor: ids::VENDOR_ID as u32,
        device: ids::DEVICE_ID as u32,
        subvendor: bindings::PCI_ANY_ID as u32,
        subdevice: bindings::PCI_ANY_ID as u32,
        class: 0,
        class_mask: 0,
        driver_data: 0,
        override_only: 0,
    };

    // SAFETY: `pci::DeviceId` is a transparent wrapper of `pci_device_id`, without invariants of
    // its own.
    unsafe { core::mem::transmute(id) }
}

compat::pci_device_table!(
    PCI_TABLE,
    <SvmDemo as pci::Driver>::IdInfo,
    [(device_id(), ())]
);

impl pci::Driver for SvmDemo {
    type IdInfo = ();
    type Data<'bound> = Self;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: compat::IdInfo<'bound, Self::IdInfo>,
    ) -> impl PinInit<Self, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            // First, so that it is removed last, after registers and interrupts.
            devres::register(pdev.as_ref(), Enabled::new(pdev)?, GFP_KERNEL)?;

            let number = Number::take()?;
            let name = CString::try_from_fmt(fmt!("svm{}", number.get()))?;
            let device = Device::new(pdev, number.get(), compat::contexts_per_user!())?;
            let capabilities = device.capabilities();
            let missing = device::missing(device.registers().function()?);

            pdev.set_master();
            let registrations = Registrations {
                _debugfs: debugfs::Directory::new(&name, device.clone())?,
                _sleep: pm::Registration::new(device.clone())?,
                // Last, because from here on it can be opened.
                _chardev: CharDevice::register(device.clone(), number, OPERATIONS)?,
            };

            dev_info!(
                pdev,
                "{}: interface {}.{}, {} contexts, {} interrupt vectors\n",
                &*name,
                capabilities.abi_version >> 8,
                capabilities.abi_version & 0xff,
                capabilities.contexts,
                device.vectors()
            );
            if let Some(missing) = missing {
                dev_warn!(pdev, "{} cannot be opened: {}\n", &*name, missing);
            }

            Ok(try_pin_init!(Self {
                device,
                registrations <- new_mutex!(Some(registrations)),
            }))
        })
    }

    /// Files may be open: their resources must be gone before the driver releases the function.
    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self>) {
        let registrations = this.registrations.lock().take();

        // Not under the lock, because it waits for the device.
        drop(registrations);
    }
}

impl reset::Handler for SvmDemo {
    fn prepare(this: Pin<&Self::Data<'_>>) {
        this.device.pause(Pause::Reset);
    }

    fn done(this: Pin<&Self::Data<'_>>) {
        this.device.end_pause(Pause::Reset);
    }

    fn shutdown(this: Pin<&Self::Data<'_>>) {
        this.device.shutdown();
    }
}

/// The module. The fields are dropped in this order: the directory after its devices.
#[pin_data]
struct SvmDemoModule {
    #[pin]
    _driver: Registration<reset::Adapter<SvmDemo>>,
    _debugfs: debugfs::Root,
}

impl InPlaceModule for SvmDemoModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        const NAME: &CStr = <LocalModule as ModuleMetadata>::NAME;

        try_pin_init!(Self {
            // SAFETY: A module is initialized once, and its driver is not registered yet.
            _debugfs: unsafe { debugfs::Root::new(NAME) },
            _driver <- Registration::new(NAME, module),
        })
    }
}

module! {
    type: SvmDemoModule,
    name: "svm_demo",
    authors: ["The svm-demo authors"],
    description: "Shared virtual memory demonstration device",
    license: "GPL v2",
    params: {
        contexts_per_user: u32 {
            default: 0,
            description: "Contexts of a device that one user may have open (0: all), unless with CAP_SYS_RESOURCE",
        },
    },
}
