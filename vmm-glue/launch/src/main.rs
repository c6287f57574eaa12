// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm`: prepares a Linux guest with the svm-demo device, runs it and collects its results.
//!
//! - [`cli`] defines the commands and options;
//! - [`prepare`] makes what a guest needs: shared parts in the [`cache`], this project's own parts
//!   from its [`installation`];
//! - [`run`] starts QEMU, follows the guest and judges it by its [`plans`];
//! - [`layout`] reads the layout of the user's own QEMUs;
//! - [`doctor`] reports what this machine lacks.
#![forbid(unsafe_code)]

mod additions;
mod cache;
mod clean;
mod cli;
mod doctor;
mod external;
mod installation;
mod layout;
mod manual;
mod next;
mod plans;
mod prepare;
mod progress;
mod run;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli::Cli {
        cache,
        mirror,
        command,
    } = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && cli::asks_for_exec(std::env::args_os()) => {
            // A terminal that has gone away must not change the exit status.
            let _ = error.print();
            return ExitCode::from(run::NOT_THE_COMMAND);
        }
        Err(error) => error.exit(),
    };
    let failure = match &command {
        cli::Command::Run(options)
        | cli::Command::Nested(cli::NestedOptions { run: options, .. })
            if options.exec.is_some() =>
        {
            ExitCode::from(run::NOT_THE_COMMAND)
        }
        _ => ExitCode::FAILURE,
    };
    let place = cli::Place { cache, mirror };
    let outcome = match command {
        cli::Command::Prepare(options) => prepare::command(&place, &options),
        cli::Command::Run(options) => run::command(&place, &options),
        cli::Command::Nested(options) => run::nested::command(&place, &options),
        cli::Command::Shell(options) => run::shell(&place, &options),
        cli::Command::Qemu(options) => run::qemu(&place, &options),
        cli::Command::QemuLayout(options) => layout::command(&place, &options),
        cli::Command::Selftests(options) => prepare::selftests(&place, &options),
        cli::Command::Llvm(options) => prepare::llvm(&place, &options),
        cli::Command::Doctor(options) => doctor::command(&place, &options),
        cli::Command::Next => next::command(&place),
        cli::Command::Clean(options) => clean::command(&place, &options),
        cli::Command::CacheKey(options) => prepare::cache_key(&place, &options),
        cli::Command::Completions(options) => manual::completions(&options),
        cli::Command::Manual(options) => manual::manual(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("svm-vm: {error:#}");
        failure
    })
}
