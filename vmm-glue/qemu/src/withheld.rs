// SPDX-License-Identifier: GPL-2.0-or-later
//! A fault for tests: invalidations of first stages that this QEMU passes on to devices of the host do
//! not reach the host's kernel, whichever unit passes them on. The unit believes that they did. A load
//! in the guest must notice it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::layout::{Object, assigned};
use crate::abi::qemu;
use crate::property;
use crate::qom::Class;

/// The property of `vfio-pci`. QEMU's requests name no function, so all functions have one value.
#[derive(Clone, Debug)]
pub struct Settings {
    withhold: bool,
}

static PROPERTIES: [property::Property<Settings>; 1] = [property::Property::switch(
    c"svm-withhold-invalidations",
    |s| &mut s.withhold,
    c"a fault for tests: invalidations of first stages do not reach the host (default: off)",
)];

static ON: AtomicBool = AtomicBool::new(false);

impl property::Settings for Settings {
    fn of(_: *mut Object) -> Settings {
        Settings { withhold: is_on() }
    }

    fn store(self, _: *mut Object, _later: bool) -> bool {
        ON.store(self.withhold, Ordering::Relaxed);
        true
    }
}

/// Adds the property to `vfio-pci`. In a QEMU without VFIO it does nothing.
pub fn register() {
    if assigned().is_none() {
        return;
    }
    // SAFETY: types are registered, and QEMU still has one thread.
    let class = unsafe { (qemu().object_class_by_name)(c"vfio-pci".as_ptr()) };
    if let Some(class) = std::ptr::NonNull::new(class) {
        // SAFETY: as above; the class exists.
        let mut class = unsafe { Class::new(class) };
        property::add_all(&mut class, &PROPERTIES);
    }
}

/// Whether invalidations are withheld.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::ioctl::{HWPT_INVALIDATE, ioctl};
    use crate::property::Settings as _;

    #[test]
    fn invalidations_are_withheld_while_any_function_says_so() {
        let (read, _write) = std::io::pipe().unwrap();
        let [first, second]: [*mut Object; 2] = [0x10, 0x20].map(std::ptr::without_provenance_mut);
        let store = |object, withhold| assert!(Settings { withhold }.store(object, false));
        // SAFETY: the kernel refuses the request for a pipe, and reads no argument.
        let answer = || unsafe {
            ioctl(
                read.as_raw_fd(),
                HWPT_INVALIDATE.into(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!((answer(), is_on()), (-1, false));
        store(first, true);
        assert!(is_on() && Settings::of(first).withhold && Settings::of(second).withhold);
        assert_eq!(answer(), 0);
        store(first, false);
        assert_eq!((answer(), is_on()), (-1, false));
    }
}
