// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures the line coverage of the endpoint's ATC, ATS and PRI code. Ends with
//! `coverage: N %`, and fails below the goal.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    Ok(if svm_tests::coverage::run()? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
