// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl trace`: shows the traffic between device and IOMMU, from the trace that the QEMU plug-in
//! writes, or live from the guest's kernel.

mod live;
mod summary;

use std::fs::File;
use std::io::{self, BufReader, Write};

use anyhow::Context;

use crate::cli::TraceOptions;
use summary::Summary;
use svm_cases::harness::report::print_json;

/// Summarises a file, or follows the kernel.
pub fn run(as_json: bool, options: &TraceOptions) -> anyhow::Result<()> {
    let Some(path) = &options.file else {
        return live::follow(as_json, options.duration, &options.event);
    };
    let open = || path.display().to_string();
    let file = File::open(path).with_context(open)?;
    let summary = Summary::read(BufReader::new(file)).with_context(open)?;
    if as_json {
        print_json(&summary)
    } else {
        Ok(io::stdout().write_all(summary.render().as_bytes())?)
    }
}
