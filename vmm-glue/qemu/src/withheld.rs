// SPDX-License-Identifier: GPL-2.0-or-later
//! A fault for tests: invalidations of first stages that this QEMU passes on to devices of the host do
//! not reach the host's kernel, whichever unit passes them on. The unit believes that they did. A load
//! in the guest must notice it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::layout::{Object, assigned};
use crate::abi::qemu;
use crate::property;
use crate::qom::Class;

/// The property of `vfio-pci`. QEMU's requests name no function, so one that has it is enough.
#[derive(Clone, Debug)]
pub struct Settings {
    withhold: bool,
}

static PROPERTIES: [property::Property<Settings>; 1] = [property::Property::switch(
    c"svm-withhold-invalidations",
    |s| &mut s.withhold,
    c"a fault for tests: invalidations of first stages do not reach the host (default: off)",
)];

/// The addresses of the functions that have the property.
static FUNCTIONS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn functions() -> MutexGuard<'static, Vec<usize>> {
    FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl property::Settings for Settings {
    fn of(object: *mut Object) -> Settings {
        let withhold = functions().contains(&object.addr());
        Settings { withhold }
    }

    fn store(self, object: *mut Object, _later: bool) -> bool {
        forget(object);
        if self.withhold {
            functions().push(object.addr());
        }
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

/// Forgets a function that leaves: another may get its address.
pub fn forget(object: *mut Object) {
    functions().retain(|other| *other != object.addr());
}

/// Whether invalidations are withheld.
pub fn is_on() -> bool {
    !functions().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property::Settings as _;

    #[test]
    fn one_function_with_the_property_is_enough() {
        let [first, second]: [*mut Object; 2] = [0x10, 0x20].map(std::ptr::without_provenance_mut);
        let store = |object, withhold| assert!(Settings { withhold }.store(object, false));
        assert!(!is_on());
        store(first, true);
        store(second, false);
        assert!(is_on() && Settings::of(first).withhold && !Settings::of(second).withhold);
        store(first, false);
        assert!(!is_on());
        store(second, true);
        forget(second);
        assert!(!is_on());
    }
}
