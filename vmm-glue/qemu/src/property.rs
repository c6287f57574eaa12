// SPDX-License-Identifier: GPL-2.0-or-later
//! The properties of `-device svm-demo`: one table with names, ranges and meanings, and the two
//! functions by which QEMU reads and writes them.

use std::ffi::{CStr, CString, c_char, c_void};

use pcie_ats::PasidWidth;
use svm_abi::ids::MAX_CONTEXTS;
use svm_endpoint::{Config, MAX_ATC_ENTRIES, MAX_ATC_WAYS, MIN_ATC_ENTRIES, MIN_ATC_WAYS};

use crate::abi::layout::{ErrorOut, Object, Visitor};
use crate::abi::qemu;
use crate::instance;
use crate::message::ErrorSlot;
use crate::qom::Class;

/// What the properties say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Contexts.
    pub contexts: u64,
    /// Entries of the address translation cache.
    pub atc_entries: u64,
    /// Entries of a set of it.
    pub atc_ways: u64,
    /// Page request capacity.
    pub pri_capacity: u64,
    /// Max PASID Width; 0 for as wide as possible.
    pub pasid_bits: u64,
    /// Whether requests for execution are offered.
    pub execute: bool,
    /// Whether requests in privileged mode are offered.
    pub privileged: bool,
    /// Whether the laboratory is present.
    pub lab: bool,
    /// Whether ECAP.SMPWCS is to be set.
    pub smpwcs: bool,
    /// Whether PASID entries that are not present are kept from the intel-iommu.
    pub pasid_check: bool,
    /// Whether wide PASID-based invalidations are made acceptable to the intel-iommu.
    pub wide_invalidations: bool,
    /// Path of the trace file; empty for none.
    pub trace: String,
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::default();
        Settings {
            contexts: config.contexts.into(),
            atc_entries: config.atc_entries.into(),
            atc_ways: config.atc_ways.into(),
            pri_capacity: config.pri_capacity.into(),
            pasid_bits: 0,
            execute: config.execute,
            privileged: config.privileged,
            lab: config.laboratory,
            smpwcs: true,
            pasid_check: true,
            wide_invalidations: true,
            trace: String::new(),
        }
    }
}

/// How a property is read and written.
enum Kind {
    /// A number, with the least and the most that it may be.
    Number(u64, u64, fn(&mut Settings) -> &mut u64),
    /// On or off.
    Switch(fn(&mut Settings) -> &mut bool),
    /// A text.
    Text(fn(&mut Settings) -> &mut String),
}

/// One property.
struct Property {
    name: &'static CStr,
    description: &'static CStr,
    kind: Kind,
}

static PROPERTIES: [Property; 12] = [
    Property {
        name: c"contexts",
        description: c"contexts, each with a PASID and a doorbell page: 1 to 256 (default: 64)",
        kind: Kind::Number(1, MAX_CONTEXTS as u64, |s| &mut s.contexts),
    },
    Property {
        name: c"atc-entries",
        description: c"address translation cache entries: a power of two, 4 to 65536 \
            (default: 1024)",
        kind: Kind::Number(MIN_ATC_ENTRIES as u64, MAX_ATC_ENTRIES as u64, |s| {
            &mut s.atc_entries
        }),
    },
    Property {
        name: c"atc-ways",
        description: c"entries of a set of that cache: a power of two, 2 to 16 (default: 4)",
        kind: Kind::Number(MIN_ATC_WAYS as u64, MAX_ATC_WAYS as u64, |s| {
            &mut s.atc_ways
        }),
    },
    Property {
        name: c"pri-capacity",
        description: c"page requests that may be outstanding: 1 to 4294967295 (default: 64)",
        kind: Kind::Number(1, u32::MAX as u64, |s| &mut s.pri_capacity),
    },
    Property {
        name: c"pasid-bits",
        description: c"PASID width: 1 to 20, at most that of the intel-iommu (default: as wide \
            as possible)",
        kind: Kind::Number(1, PasidWidth::MAX.bits() as u64, |s| &mut s.pasid_bits),
    },
    Property {
        name: c"execute",
        description: c"offer requests for execution, Execute Permission Supported (default: off)",
        kind: Kind::Switch(|s| &mut s.execute),
    },
    Property {
        name: c"privileged",
        description: c"offer requests in privileged mode, Privileged Mode Supported \
            (default: off)",
        kind: Kind::Switch(|s| &mut s.privileged),
    },
    Property {
        name: c"lab",
        description: c"registers for raw ATS, PRI and memory requests (default: off)",
        kind: Kind::Switch(|s| &mut s.lab),
    },
    Property {
        name: c"smpwcs",
        description: c"let the intel-iommu report SMPWCS, which Linux needs for SVA (default: on)",
        kind: Kind::Switch(|s| &mut s.smpwcs),
    },
    Property {
        name: c"pasid-check",
        description: c"do not ask the intel-iommu about PASIDs whose entry is not present, which \
            it does not look at (default: on)",
        kind: Kind::Switch(|s| &mut s.pasid_check),
    },
    Property {
        name: c"wide-invalidations",
        description: c"let the intel-iommu take PASID-based invalidations of more than 1 GiB, \
            which Linux sends (default: on)",
        kind: Kind::Switch(|s| &mut s.wide_invalidations),
    },
    Property {
        name: c"trace",
        description: c"file for a trace of all requests, as Chrome trace JSON (default: none)",
        kind: Kind::Text(|s| &mut s.trace),
    },
];

/// Adds the properties to the class.
pub fn add_all(class: &mut Class) {
    for property in &PROPERTIES {
        let type_name = match property.kind {
            Kind::Number(..) => c"uint32",
            Kind::Switch(_) => c"bool",
            Kind::Text(_) => c"str",
        };
        class.add_property(
            property.name,
            type_name,
            property.description,
            get,
            set,
            property,
        );
    }
}

/// Gives a property to a visitor.
unsafe extern "C" fn get(
    object: *mut Object,
    visitor: *mut Visitor,
    name: *const c_char,
    property: *mut c_void,
    error: ErrorOut,
) {
    // SAFETY: what `add_all` has given.
    let property = unsafe { &*property.cast::<Property>() };
    let mut settings = instance::settings(object);
    // SAFETY: the visitor is QEMU's, and reads from the place that it is given; a text is a C
    // string that outlives the call.
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

/// Takes a property from a visitor.
unsafe extern "C" fn set(
    object: *mut Object,
    visitor: *mut Visitor,
    name: *const c_char,
    property: *mut c_void,
    error: ErrorOut,
) {
    // SAFETY: what `add_all` has given, and QEMU's place for an error.
    let (property, slot) = unsafe { (&*property.cast::<Property>(), ErrorSlot::new(error)) };
    let mut settings = instance::settings(object);
    // SAFETY: the visitor is QEMU's, and writes a value to the place that it is given if it
    // returns true; a text is then ours to free.
    let accepted = unsafe {
        match property.kind {
            Kind::Number(least, most, field) => {
                let mut value = 0;
                if !(qemu().visit_type_uint64)(visitor, name, &mut value, error) {
                    return;
                }
                *field(&mut settings) = value;
                in_range(property.name, value, least, most)
            }
            Kind::Switch(field) => {
                if !(qemu().visit_type_bool)(visitor, name, field(&mut settings), error) {
                    return;
                }
                Ok(())
            }
            Kind::Text(field) => {
                let mut text = std::ptr::null_mut();
                if !(qemu().visit_type_str)(visitor, name, &mut text, error) {
                    return;
                }
                let result = CStr::from_ptr(text).to_str().map(str::to_owned);
                (qemu().g_free)(text.cast());
                match result {
                    Ok(text) => {
                        *field(&mut settings) = text;
                        Ok(())
                    }
                    Err(_) => Err(format!("{} is not UTF-8", property.name.to_string_lossy())),
                }
            }
        }
    };
    let name = property.name.to_string_lossy();
    match accepted {
        Err(message) => slot.set(&message),
        Ok(()) if instance::set_settings(object, settings) => {}
        Ok(()) => slot.set(&format!(
            "{name} cannot be changed when the device has been made"
        )),
    }
}

/// Checks a number.
fn in_range(name: &CStr, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!(
            "{} must be {least} to {most}, not {value}",
            name.to_string_lossy()
        ))
    }
}

impl Settings {
    /// The endpoint's configuration. The width of PASIDs is limited by `iommu_bits`, if there is
    /// a vIOMMU that limits it.
    pub fn config(&self, iommu_bits: Option<u64>) -> Result<Config, String> {
        let most = iommu_bits
            .unwrap_or(PasidWidth::MAX.bits().into())
            .min(PasidWidth::MAX.bits().into());
        let bits = match self.pasid_bits {
            0 => most,
            bits if bits <= most => bits,
            bits => {
                return Err(format!(
                    "pasid-bits must be 1 to {most}, not {bits}: the intel-iommu has pasid-bits={most}"
                ));
            }
        };
        let config = Config {
            contexts: narrow("contexts", self.contexts)?,
            atc_entries: narrow("atc-entries", self.atc_entries)?,
            atc_ways: narrow("atc-ways", self.atc_ways)?,
            pasid_width: PasidWidth::new(narrow("pasid-bits", bits)?).map_err(|e| e.to_string())?,
            pri_capacity: narrow("pri-capacity", self.pri_capacity)?,
            execute: self.execute,
            privileged: self.privileged,
            laboratory: self.lab,
            ..Config::default()
        };
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// A number of the type that the endpoint has for it. `set` has let no other through.
fn narrow<T: TryFrom<u64>>(name: &str, value: u64) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{name} is too large: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_the_real_defaults() {
        let mut settings = Settings::default();
        for property in &PROPERTIES {
            let description = property.description.to_str().unwrap();
            if let Kind::Number(least, most, field) = property.kind {
                let value = *field(&mut settings);
                let default = if value == 0 {
                    "as wide".to_owned()
                } else {
                    value.to_string()
                };
                assert!(
                    description.contains(&format!("(default: {default}")),
                    "{description}"
                );
                assert!(
                    description.contains(&format!("{least} to {most}")),
                    "{description}"
                );
            }
        }
    }

    #[test]
    fn pasids_are_as_wide_as_the_iommu_allows() {
        let settings = Settings::default();
        assert_eq!(settings.config(None).unwrap().pasid_width, PasidWidth::MAX);
        assert_eq!(settings.config(Some(8)).unwrap().pasid_width.bits(), 8);
        let wide = Settings {
            pasid_bits: 16,
            ..Settings::default()
        };
        assert_eq!(wide.config(Some(20)).unwrap().pasid_width.bits(), 16);
        assert!(wide.config(Some(8)).unwrap_err().contains("1 to 8, not 16"));
    }
}
