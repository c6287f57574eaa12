// SPDX-License-Identifier: GPL-2.0-or-later
//! Two devices for the unmodified QEMU:
//!
//! * `-device svm-demo`: the endpoint of `svm-endpoint` below one of QEMU's root ports or its root
//!   complex;
//! * `-device svm-vtd`: the remapping unit of `vtd` instead of QEMU's own vIOMMU, for all devices
//!   of the machine (module `vtd`).
//!
//! There are two ways to load the library into QEMU's process:
//!
//! * `LD_PRELOAD` (or the loader's `--preload`): registers the types with QEMU's own, so that
//!   `-device help` lists them;
//! * `-plugin`: registers them a little later; `-device svm-demo` works, but `-device help` does
//!   not list it.
//!
//! Only `abi` knows QEMU's layout. The modules above it are thin wrappers that express QEMU's
//! requirements on callers as types (`bql::Bql` proves that the thread holds the big QEMU lock);
//! all other code uses these wrappers.

mod abi;
mod ats;
mod bell;
mod bql;
mod device;
mod engine;
mod fault_queue;
mod instance;
mod ioctl;
mod machine_done;
mod main_loop;
mod memory;
mod message;
mod notifiers;
mod page_request_capability;
mod pci;
mod port;
mod property;
mod qom;
mod refused;
mod remedy;
mod runstate;
mod settings;
mod thread;
mod timer;
mod trace;
mod vtd;
mod withheld;
mod worker;

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use abi::functions;
use abi::verify::{self, Refusal};
use qemu_layout::REFUSED;

/// Version of QEMU's plug-in interface that the `-plugin` entry is written for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: c_int = 7;

/// Runs when the library is loaded; before `main` if it is preloaded.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

/// Asks QEMU to call [`register_types`] with its own functions that register types.
extern "C" fn loaded() {
    match verify::exports() {
        Ok(known) => {
            functions::set(known.functions);
            abi::layout::set(known.layouts);
            FROM_FILE.store(known.from_file, Ordering::Relaxed);
            MODULE_INIT.store(known.module_init, Ordering::Relaxed);
            // SAFETY: QEMU's list of such functions may grow at any time before it is run, and this
            // is before `main`. If the library is loaded by `-plugin`, the list has been run
            // already, and the entry is never called.
            unsafe {
                (functions::qemu().register_module_init)(register_types_last, known.module_init);
            }
        }
        // Preloaded into another program, which does not use the device.
        Err(Refusal::NotQemu) => {}
        Err(refusal) => refuse(&refusal),
    }
}

/// Puts [`register_types`] at the end of the list that is being run, so that QEMU's own types exist
/// when it checks them.
unsafe extern "C" fn register_types_last() {
    let module_init = MODULE_INIT.load(Ordering::Relaxed);
    // SAFETY: the list may grow while it is run; QEMU checks for its end after each entry.
    unsafe { (functions::qemu().register_module_init)(register_types, module_init) }
}

/// The phase in which types are registered: [`verify::Known::module_init`].
static MODULE_INIT: AtomicI32 = AtomicI32::new(0);

/// Whether a layout file describes this program.
static FROM_FILE: AtomicBool = AtomicBool::new(false);

/// Registers the device, if this QEMU is supported.
unsafe extern "C" fn register_types() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::SeqCst) {
        return;
    }
    let from_file = FROM_FILE.load(Ordering::Relaxed);
    // SAFETY: QEMU's types are registered, and it still has one thread.
    match unsafe { verify::version_and_layout(functions::qemu(), from_file) } {
        Ok(()) => {
            instance::register();
            // SAFETY: as above.
            match unsafe { abi::emulated::check(functions::qemu()) } {
                Ok(()) => remedy::nested_events::register(),
                Err(refusal) => {
                    eprintln!("svm-demo: {REFUSED} -accel tcg,svm-nested-events: {refusal}.");
                }
            }
            // SAFETY: as above.
            match unsafe { abi::iommu::check(functions::qemu()) } {
                Ok(()) => {
                    vtd::register();
                    remedy::page_requests::register();
                    withheld::register();
                }
                Err(refusal) => {
                    eprintln!("svm-demo: {REFUSED} svm-vtd: {refusal}.");
                }
            }
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// Entry of `-plugin`: registers the type if the library was not preloaded as well.
///
/// # Safety
///
/// QEMU calls it once, before it creates the machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    _id: u64,
    _info: *const c_void,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    match functions::is_known() {
        true => {
            // SAFETY: QEMU registers its types before it loads plug-ins.
            unsafe { register_types() };
            0
        }
        // `loaded` has reported the reason.
        false => -1,
    }
}

/// Reports why `-device svm-demo` will not be available.
fn refuse(refusal: &Refusal) {
    let (major, minor) = verify::SERIES;
    eprintln!(
        "svm-demo: {REFUSED} svm-demo: {refusal}. \
         Supported is QEMU {major}.{minor} for x86_64, and others with a layout file, which \
         `svm-vm qemu-layout` makes from debug information."
    );
}
