// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl`: uses the device from the command line, shows that it works, and tests its driver.

mod cli;
mod commands;
mod demo;
mod harness;
mod selftest;
mod system;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match commands::run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("svmctl: {error:#}");
            ExitCode::from(2)
        }
    }
}
