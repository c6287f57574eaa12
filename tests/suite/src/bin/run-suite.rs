// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the correctness suite on the benches of this project.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    svm_suite::main(Vec::new())
}
