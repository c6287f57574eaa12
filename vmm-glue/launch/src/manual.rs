// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm completions` and `svm-vm manual`, both generated from the definition of the command
//! line.

use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::{Cli, CompletionsOptions, ManualOptions};

/// The name of this program.
const NAME: &str = "svm-vm";

/// Prints completions.
pub fn completions(options: &CompletionsOptions) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), NAME, &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the program's page, or writes the pages of all commands to a directory.
pub fn manual(options: &ManualOptions) -> Result<ExitCode> {
    match &options.to {
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
        Some(directory) => {
            let writing = || format!("cannot write to {}", directory.display());
            fs::create_dir_all(directory).with_context(writing)?;
            clap_mangen::generate_to(Cli::command().name(NAME), directory).with_context(writing)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use clap_complete::Shell;

    use super::*;

    fn commands() -> Vec<String> {
        let command = Cli::command();
        let names = command.get_subcommands().map(clap::Command::get_name);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), NAME, &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in commands() {
                assert!(script.contains(&command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let to = Some(directory.path().to_owned());
        manual(&ManualOptions { to }).unwrap();
        assert!(directory.path().join("svm-vm.1").is_file());
        for command in commands() {
            let page = directory.path().join(format!("svm-vm-{command}.1"));
            let page = fs::read_to_string(page).unwrap();
            assert!(page.contains(".SH"), "{page}");
        }
    }
}
