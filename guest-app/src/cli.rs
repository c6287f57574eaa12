// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line. It only says what was asked for; `commands` does it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Uses the svm-demo device: a device that shares the address space of a process.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    /// The device file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/dev/svm0")]
    pub device: PathBuf,
    /// Prints JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Says what the device is and can do.
    Info,
    /// Prints the CRC-32C (Castagnoli) of files, computed by the device.
    ///
    /// The files are mapped, and the device demands the pages: the processor touches none.
    Crc32c {
        /// Files to read.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Copies a file by the device.
    ///
    /// Both files are mapped; DST is created, or replaced. It is removed if the copy fails.
    Copy {
        /// File to read.
        #[arg(value_name = "SRC")]
        source: PathBuf,
        /// File to write.
        #[arg(value_name = "DST")]
        destination: PathBuf,
    },
    /// Shows what sharing an address space means, one case a line, each checked.
    ///
    /// The exit status is 1 if a case failed.
    Demo(Cases),
    /// Tests driver and device: errors, limits, memory as it is really used, and every way to die.
    ///
    /// Takes root, and changes the machine: it unbinds and reloads the driver, resets the function,
    /// and kills processes of its own. The output is in the Test Anything Protocol. The exit status
    /// is 1 if a test failed.
    Test(Tests),
}

/// Which cases to run.
#[derive(Debug, Args)]
pub struct Cases {
    /// Only the cases whose name contains one of these texts.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Lists the cases and runs none.
    #[arg(long)]
    pub list: bool,
}

/// Which tests to run, and how much they try.
#[derive(Debug, Args)]
pub struct Tests {
    /// Only the tests of these groups, or whose name contains one of these texts.
    #[arg(value_name = "GROUP|NAME")]
    pub names: Vec<String>,
    /// Lists the tests by group and runs none.
    #[arg(long)]
    pub list: bool,
    /// Begins everything random: the same seed, the same tries.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Multiplies the rounds of the tests and the time that the fuzzer has.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    pub scale: f64,
}

/// A number above 0.
fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number < 1e6 => Ok(number),
        _ => Err("a number above 0 was expected, such as 0.1 or 10".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_behind_the_command() {
        let line = [
            "svmctl",
            "crc32c",
            "a",
            "b",
            "--device",
            "/dev/svm3",
            "--json",
        ];
        let arguments = Arguments::parse_from(line);
        assert_eq!(arguments.device, PathBuf::from("/dev/svm3"));
        assert!(arguments.json);
        assert!(matches!(arguments.command, Command::Crc32c { files } if files.len() == 2));
    }

    #[test]
    fn the_first_device_is_the_default() {
        let arguments = Arguments::parse_from(["svmctl", "info"]);
        assert_eq!(arguments.device, PathBuf::from("/dev/svm0"));
        assert!(!arguments.json);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        for line in [
            &["svmctl"][..],
            &["svmctl", "crc32c"],
            &["svmctl", "copy", "a"],
        ] {
            let error = Arguments::try_parse_from(line).unwrap_err();
            let kinds = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ];
            assert!(kinds.contains(&error.kind()), "{line:?}: {error}");
        }
    }
}
