// SPDX-License-Identifier: GPL-2.0-or-later
//! The file of a recording (`record=FILE`). What is written into it, and how it is played again,
//! `vtd::recording` says; this knows only files.
//!
//! A recording is written while the unit's lock is held: a machine that records is slower.

use std::fs::File;
use std::io::Write;

use vtd::recording::Sink;

use crate::message;

/// The sink of a recording into a file; none for an empty path. Each call is written whole, and at
/// once, so that a QEMU that ends leaves a recording of all of them, but for how often the last
/// one came again.
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
