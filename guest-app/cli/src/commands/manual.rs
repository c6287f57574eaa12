// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl completions` and `svmctl manual`, both generated from the definition of the command
//! line.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Arguments;

/// Prints completions.
pub fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "svmctl", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Prints the program's page, or writes the pages of all commands to a directory.
pub fn manual(to: Option<&Path>) -> anyhow::Result<()> {
    let Some(directory) = to else {
        let mut page = Vec::new();
        Man::new(Arguments::command()).render(&mut page)?;
        return Ok(io::stdout().write_all(&page)?);
    };
    let writing = || format!("cannot write to {}", directory.display());
    fs::create_dir_all(directory).with_context(writing)?;
    clap_mangen::generate_to(Arguments::command(), directory).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn commands() -> Vec<String> {
        let command = Arguments::command();
        let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
        let names = shown.map(|command| command.get_name());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "svmctl", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in commands() {
                assert!(script.contains(&command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        manual(Some(directory.path())).unwrap();
        let main = fs::read_to_string(directory.path().join("svmctl.1")).unwrap();
        assert!(
            main.starts_with(".ie") || main.contains(".TH svmctl 1"),
            "{main}"
        );
        for command in commands() {
            let page = directory.path().join(format!("svmctl-{command}.1"));
            let page = fs::read_to_string(page).unwrap();
            assert!(page.contains(".SH"), "{page}");
        }
    }
}
