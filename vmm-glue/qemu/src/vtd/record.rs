// SPDX-License-Identifier: GPL-2.0-or-later
//! The file of a recording (`record=FILE`). `vtd::recording` defines its contents and its replay;
//! this module only handles files.
//!
//! A recording is written while the unit's lock is held, so a machine that records is slower.

use std::fs::File;
use std::io::Write;

use vtd::recording::Sink;

use crate::message;

/// The sink of a recording into a file; none for an empty path. Each call is written completely and
/// at once, so that QEMU leaves a recording of all calls at its end, except for the number of
/// repetitions of the last one.
pub fn sink(path: &str) -> Result<Option<Sink>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let file = File::create(path);
    let mut file = Some(file.map_err(|error| format!("record: cannot write {path}: {error}"))?);
    Ok(Some(Box::new(move |text| {
        let result = file.as_mut().map(|file| file.write_all(text.as_bytes()));
        if let Some(Err(error)) = result {
            message::error(&format!("the recording ends here: {error}"));
            file = None;
        }
    })))
}
