// SPDX-License-Identifier: GPL-2.0-or-later
//! The objects of the type: their settings, and the unit of each.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::host::Host;
use super::settings::Settings;
use crate::abi::layout::Object;
use crate::property;

/// The state of an object.
#[derive(Default)]
pub struct Instance {
    pub settings: Settings,
    pub host: Option<&'static Host>,
}

static INSTANCES: Mutex<BTreeMap<usize, Instance>> = Mutex::new(BTreeMap::new());

/// The objects; no other code is called with the lock held.
pub fn table() -> MutexGuard<'static, BTreeMap<usize, Instance>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The unit of a realized object.
pub fn host_of(object: *mut Object) -> Option<&'static Host> {
    table().get(&object.addr())?.host
}

impl property::Settings for Settings {
    fn of(object: *mut Object) -> Settings {
        settings(object)
    }

    fn store(self, object: *mut Object, later: bool) -> bool {
        set_settings(object, self, later)
    }
}

/// The settings of an object.
pub fn settings(object: *mut Object) -> Settings {
    let table = table();
    let settings = table.get(&object.addr()).map(|i| i.settings.clone());
    settings.unwrap_or_default()
}

/// Changes the settings of an object; false if it is too late. With `later` it is never too late.
fn set_settings(object: *mut Object, settings: Settings, later: bool) -> bool {
    let lose_every = settings.lose_every;
    let host = match table().get_mut(&object.addr()) {
        Some(instance) if later || instance.host.is_none() => {
            instance.settings = settings;
            instance.host
        }
        _ => return false,
    };
    if let Some(host) = host {
        host.lose_every(lose_every);
    }
    true
}
