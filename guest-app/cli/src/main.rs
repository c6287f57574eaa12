// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl`: uses the device from the command line, demonstrates it, and tests its driver.

mod cli;
mod commands;
mod mix;

use std::io;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match commands::run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of the output has closed it.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(2),
        Err(error) => {
            eprintln!("svmctl: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.root_cause().downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
