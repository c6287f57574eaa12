// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue for commands that work on one thing at a time, and measurements of that work.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use svmctl::{Context, Counters, Queue};

/// Descriptors of the ring.
const ENTRIES: u32 = 16;

/// Opens the device and starts a queue.
pub fn open(device: &Path) -> anyhow::Result<Queue> {
    Ok(Context::open(device)?.start(ENTRIES)?)
}

/// A command's work on one file, for `--json`.
#[derive(Debug, Serialize)]
pub struct Work {
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub micros: u64,
    /// The device's counters for this work, by name.
    pub counters: serde_json::Value,
}

/// Measures `work` on a queue.
pub fn measure<T>(
    queue: &mut Queue,
    bytes: u64,
    work: impl FnOnce(&mut Queue) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Work)> {
    let before: Counters = queue.counters()?;
    let start = Instant::now();
    let result = work(queue)?;
    let micros = start.elapsed().as_micros() as u64;
    let counters = json!(queue.counters()?.since(&before).to_map());
    Ok((
        result,
        Work {
            bytes,
            micros,
            counters,
        },
    ))
}
