// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmarks in the guest, on each IOMMU: `svmctl bench` and the time from start to result.

use std::process::ExitCode;

use svm_tests::bench_guest;
use svm_tests::launcher::Launcher;

fn main() -> anyhow::Result<ExitCode> {
    let launcher = Launcher::build()?;
    launcher.prepare("stock")?;
    let report = bench_guest::run(&launcher)?;
    print!("{}", report.table());
    let path = report.write(launcher.checkout())?;
    println!("\nwritten to {}", path.display());
    Ok(if report.all_met() {
        ExitCode::SUCCESS
    } else {
        println!("not all goals are met");
        ExitCode::FAILURE
    })
}
