// SPDX-License-Identifier: GPL-2.0-or-later
//! Properties of devices: a table with names, ranges and meanings for each type of device, and the
//! two functions with which QEMU reads and writes them. Knows no particular property.

use std::ffi::{CStr, CString, c_char, c_void};

use crate::abi::layout::{ErrorOut, Object, Visitor};
use crate::abi::qemu;
use crate::message::ErrorSlot;
use crate::qom::Class;

/// The values of a device type's properties, for each of its objects.
pub trait Settings: Clone + 'static {
    /// The values of an object.
    fn of(object: *mut Object) -> Self;
    /// Changes the values of an object; false if it is too late. With `later` it is never too late.
    fn store(self, object: *mut Object, later: bool) -> bool;
}

/// The type and accessors of a property.
pub enum Kind<S: 'static> {
    /// A number, with its smallest and largest value.
    Number(u64, u64, fn(&mut S) -> &mut u64),
    /// On or off.
    Switch(fn(&mut S) -> &mut bool),
    /// A text.
    Text(fn(&mut S) -> &mut String),
}

/// One property.
pub struct Property<S: 'static> {
    name: &'static CStr,
    description: &'static CStr,
    kind: Kind<S>,
    later: bool,
}

impl<S: 'static> Property<S> {
    /// A number from `least` to `most`.
    pub const fn number(
        name: &'static CStr,
        (least, most): (u64, u64),
        field: fn(&mut S) -> &mut u64,
        description: &'static CStr,
    ) -> Property<S> {
        Property {
            name,
            description,
            kind: Kind::Number(least, most, field),
            later: false,
        }
    }

    /// On or off.
    pub const fn switch(
        name: &'static CStr,
        field: fn(&mut S) -> &mut bool,
        description: &'static CStr,
    ) -> Property<S> {
        Property {
            name,
            description,
            kind: Kind::Switch(field),
            later: false,
        }
    }

    /// A text.
    pub const fn text(
        name: &'static CStr,
        field: fn(&mut S) -> &mut String,
        description: &'static CStr,
    ) -> Property<S> {
        Property {
            name,
            description,
            kind: Kind::Text(field),
            later: false,
        }
    }

    /// The same; `qom-set` can also set it after the device is created.
    pub const fn also_later(mut self) -> Property<S> {
        self.later = true;
        self
    }

    /// Its name for messages.
    fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

/// Adds properties to a class.
pub fn add_all<S: Settings>(class: &mut Class, properties: &'static [Property<S>]) {
    for property in properties {
        let type_name = match property.kind {
            Kind::Number(..) => c"uint32",
            Kind::Switch(_) => c"bool",
            Kind::Text(_) => c"str",
        };
        class.add_property(
            property.name,
            type_name,
            property.description,
            get::<S>,
            set::<S>,
            property,
        );
    }
}

/// Passes a property to a visitor.
unsafe extern "C" fn get<S: Settings>(
    object: *mut Object,
    visitor: *mut Visitor,
    name: *const c_char,
    property: *mut c_void,
    error: ErrorOut,
) {
    // SAFETY: it is the pointer from `add_all`.
    let property = unsafe { &*property.cast::<Property<S>>() };
    let mut settings = S::of(object);
    // SAFETY: the visitor is QEMU's, and reads from the given place; a text is a C string that
    // outlives the call.
    unsafe {
        match property.kind {
            Kind::Number(_, _, field) => {
                (qemu().visit_type_uint64)(visitor, name, field(&mut settings), error);
            }
            Kind::Switch(field) => {
                (qemu().visit_type_bool)(visitor, name, field(&mut settings), error);
            }
            Kind::Text(field) => {
                let text = CString::new(field(&mut settings).as_str()).unwrap_or_default();
                let mut pointer = text.as_ptr().cast_mut();
                (qemu().visit_type_str)(visitor, name, &mut pointer, error);
            }
        }
    }
}

/// Reads a property from a visitor.
unsafe extern "C" fn set<S: Settings>(
    object: *mut Object,
    visitor: *mut Visitor,
    name: *const c_char,
    property: *mut c_void,
    error: ErrorOut,
) {
    // SAFETY: it is the pointer from `add_all`, and QEMU's error slot.
    let (property, slot) = unsafe { (&*property.cast::<Property<S>>(), ErrorSlot::new(error)) };
    let mut settings = S::of(object);
    // SAFETY: the visitor is QEMU's, and writes to the given place if it returns true; we then have
    // to free a text.
    let read = unsafe {
        match property.kind {
            Kind::Number(_, _, field) => {
                (qemu().visit_type_uint64)(visitor, name, field(&mut settings), error)
            }
            Kind::Switch(field) => {
                (qemu().visit_type_bool)(visitor, name, field(&mut settings), error)
            }
            Kind::Text(field) => {
                let mut text = std::ptr::null_mut();
                let read = (qemu().visit_type_str)(visitor, name, &mut text, error);
                if read {
                    let result = CStr::from_ptr(text).to_str().map(str::to_owned);
                    (qemu().g_free)(text.cast());
                    match result {
                        Ok(text) => *field(&mut settings) = text,
                        Err(_) => return slot.set(&format!("{} is not UTF-8", property.name())),
                    }
                }
                read
            }
        }
    };
    if !read {
        return; // The visitor has said why.
    }
    if let Kind::Number(least, most, field) = property.kind {
        let value = *field(&mut settings);
        if !(least..=most).contains(&value) {
            let name = property.name();
            return slot.set(&format!("{name} must be {least} to {most}, not {value}"));
        }
    }
    if !settings.store(object, property.later) {
        slot.set(&format!(
            "{} cannot be changed when the device has been made",
            property.name()
        ));
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Checks that each description names the actual range and default of the property. If the
    /// default of a number is 0 and out of its range, `unset` gives its text.
    pub fn descriptions_are_true<S>(properties: &[Property<S>], mut settings: S, unset: &str) {
        for property in properties {
            let description = property.description.to_str().unwrap();
            let default = match property.kind {
                Kind::Switch(field) if *field(&mut settings) => "on".to_owned(),
                Kind::Switch(_) => "off".to_owned(),
                Kind::Text(field) => {
                    assert_eq!(field(&mut settings), "");
                    "none".to_owned()
                }
                Kind::Number(least, most, field) => {
                    let range = format!("{least} to {most}");
                    assert!(description.contains(&range), "{description}: {range}");
                    match *field(&mut settings) {
                        0 if least > 0 => unset.to_owned(),
                        value => value.to_string(),
                    }
                }
            };
            assert!(
                description.ends_with(&format!("(default: {default})")),
                "{description}: {default}"
            );
        }
    }
}
