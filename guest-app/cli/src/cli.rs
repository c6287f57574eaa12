// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line. It only describes the request; `commands` carries it out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use svm_cases::test::Successor;

use crate::commands::stress::storm::Change;
use crate::mix::Mix;

/// Uses the svm-demo device: a device that shares the address space of a process.
///
/// The exit status is 0 if everything succeeded, 1 if part of the work failed and was reported, 2
/// if the work could not be done at all.
#[derive(Debug, Parser)]
#[command(name = "svmctl", version, about, max_term_width = 100)]
pub struct Arguments {
    /// The device file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/dev/svm0")]
    pub device: PathBuf,
    /// Prints JSON, one object per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the device's properties and features.
    #[command(after_help = "\
Examples:
  svmctl info
  svmctl info --device /dev/svm1 --json | jq .operations")]
    Info,
    /// Prints the CRC-32C (Castagnoli) of files, computed by the device.
    ///
    /// The files are mapped, and the device requests their pages: the processor touches none of
    /// them. The exit status is 1 if a file could not be read.
    #[command(after_help = "\
Examples:
  svmctl crc32c /bin/busybox /etc/passwd
  svmctl crc32c --json big.img | jq .counters.page_requests")]
    Crc32c {
        /// Files to read.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Copies a file with the device.
    ///
    /// Both files are mapped. DST is created or replaced, and removed if the copy fails.
    #[command(after_help = "\
Examples:
  svmctl copy disk.img copy.img
  svmctl copy --json disk.img copy.img | jq .micros")]
    Copy {
        /// File to read.
        #[arg(value_name = "SRC")]
        source: PathBuf,
        /// File to write.
        #[arg(value_name = "DST")]
        destination: PathBuf,
    },
    /// Demonstrates shared virtual addressing, one case per line, each checked.
    ///
    /// The exit status is 1 if a case failed.
    Demo(Cases),
    /// Explains why shared virtual addressing works or does not work on this machine, for any
    /// device.
    ///
    /// Needs no driver and changes nothing: it reads sysfs, configuration space and the kernel's
    /// options. Root sees everything; for other users it reports what could not be read. The exit
    /// status is 0 if nothing is missing for at least one device (with ADDRESS: for each of them),
    /// else 1.
    #[command(after_help = "\
Examples:
  svmctl doctor                 the machine, and a table of all its devices
  svmctl doctor 6a:01.0         all about one device, item by item
  svmctl doctor --json | jq -r '.devices[] | select(.sva == \"works\").address'")]
    Doctor {
        /// Devices to examine: addresses as `lspci` writes them, or the beginnings of addresses.
        #[arg(value_name = "ADDRESS")]
        devices: Vec<String>,
    },
    /// Measures the device: latency, throughput, queue depth, page sizes, page faults, interrupts.
    ///
    /// The same run measures the processor at the same work. Times are medians. In a virtual
    /// machine they are times of an emulation, and comparable only with each other.
    #[command(after_help = "\
Examples:
  svmctl bench                                   tables
  svmctl bench --save bench.json --plot bench.svg
  svmctl bench --only faults --only pages
  svmctl bench --from bench.json --plot bench.svg   draws what was measured elsewhere

From a guest, whose files are gone when it ends:
  svm-vm run --name bench --exec 'svmctl bench --json'
  jq -r '.steps[0].output[]' target/runs/bench/results.json | grep '^{' >bench.json")]
    Bench(BenchOptions),
    /// Puts the device under load and checks every result and every byte.
    ///
    /// Each context chooses random operations on its own memory, computes the expected results, and
    /// compares. Between and during the operations, memory is dropped, swapped out, merged into
    /// huge pages and split, copied by fork, and mapped anew. The exit status is 1 if anything was
    /// wrong.
    #[command(after_help = "\
Examples:
  svmctl stress --duration 1m
  svmctl stress --processes 8 --threads 4 --memory 16
  svmctl stress --mix copy=4,crc32c=2,fault --depth 1 --calm
  svmctl stress --seed 42 --operations 10000 --json

The same seed and options give each context the same operations.")]
    Stress(StressOptions),
    /// Drives the device through VFIO, without its kernel module, and checks its behaviour.
    ///
    /// The device then sends requests without a PASID, in an address space in which the program
    /// maps and unmaps memory: ATS without PASID and without page requests. Requires root and the
    /// modules vfio-pci and vfio_iommu_type1. The exit status is 1 if a check failed.
    #[command(after_help = "\
Examples:
  svmctl vfio --bind            takes the function from its driver, and gives it back afterwards
  svmctl vfio 0000:00:01.0      a function that is bound to vfio-pci already
  svmctl vfio --bind --json

Without interrupt remapping, as in most virtual machines, VFIO has to be told to do without:
  modprobe vfio_iommu_type1 allow_unsafe_interrupts=1")]
    Vfio(VfioOptions),
    /// Passes the device through to this program by iommufd, and checks the results.
    ///
    /// As a virtual machine would, the program maps memory, makes page tables of its own in it, and
    /// has the kernel nest them: without PASID and for two PASIDs, with page requests, invalidations
    /// and dirty tracking. Requires root, a device with its laboratory (`lab=on`), a unit with nested
    /// translation, and a kernel with IOMMUFD and VFIO_DEVICE_CDEV, which the distribution's is not.
    /// The exit status is 1 if a check failed.
    #[command(after_help = "\
Examples:
  svmctl iommufd --bind         takes the function from its driver, and gives it back afterwards
  svmctl iommufd --bind --json
  svm-vm run --kernel debug --iommu svm-vtd --device-option lab=on --exec 'svmctl iommufd --bind'

Without interrupt remapping, as in most virtual machines, allow iommufd to do without it:
  echo 1 >/sys/module/iommufd/parameters/allow_unsafe_interrupts")]
    Iommufd(VfioOptions),
    /// Summarises a trace of the device, or follows the kernel's tracepoints.
    ///
    /// FILE is a trace of the QEMU plug-in (`-device svm-demo,trace=FILE`, `svm-vm run --trace`).
    /// The summary lists translations, page requests and invalidations by PASID, and how long they
    /// took. Without FILE, the command follows the tracepoints of the IOMMU, of its driver and of
    /// the device's driver; this requires root.
    #[command(after_help = "\
Examples:
  svmctl trace target/runs/demo/trace.json
  svmctl trace trace.json --json | jq .page_request.median
  svmctl trace --duration 5s
  svmctl trace --event intel_iommu:prq_report --json")]
    Trace(TraceOptions),
    /// Prints this program's completions for a shell.
    #[command(after_help = "\
Examples:
  svmctl completions bash >/etc/bash_completion.d/svmctl
  svmctl completions zsh >~/.zfunc/_svmctl
  svmctl completions fish >~/.config/fish/completions/svmctl.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints this program's manual page, or writes those of all its commands.
    #[command(after_help = "\
Examples:
  svmctl manual | man -l -
  svmctl manual --to /usr/local/share/man/man1")]
    Manual {
        /// Writes svmctl.1 and a page for each command to this directory.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Tests driver and device: errors, limits, realistic use of memory, and every way to die.
    ///
    /// Requires root and changes the machine: it unbinds and reloads the driver, resets the
    /// function, and kills its own processes. The output is in the Test Anything Protocol. The exit
    /// status is 1 if a test failed.
    Test(Tests),
    /// The task of a program that replaced the one of a test.
    #[command(hide = true)]
    Successor {
        /// What to do.
        #[arg(value_parser = successor)]
        work: Successor,
    },
}

/// Options of `stress`.
#[derive(Debug, Args)]
pub struct StressOptions {
    /// Duration: seconds, or a number with s, m or h [default: 10s, or until --operations].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Ends when each context has done this many.
    #[arg(long, value_name = "N")]
    pub operations: Option<u64>,
    /// Seed of the random numbers that choose the operations [default: the time of day].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Processes, each with its own address spaces.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub processes: u32,
    /// Threads of each process, each with a context.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Memory of each context in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub memory: u32,
    /// Most descriptors in flight at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub depth: u32,
    /// Operations and their weights: copy=4,fill,fault [default: all].
    #[arg(long, value_name = "LIST")]
    pub mix: Option<Mix>,
    /// What happens to memory while the device fills it.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Change::ALL)]
    pub storm: Vec<Change>,
    /// Leaves the memory unchanged between and during the operations.
    #[arg(long)]
    pub calm: bool,
}

/// The task of a program that replaced the one of a test.
fn successor(name: &str) -> Result<Successor, String> {
    let mut all = Successor::ALL.into_iter();
    all.find(|work| work.name() == name)
        .ok_or_else(|| format!("expected one of {:?}", Successor::ALL.map(Successor::name)))
}

/// A time: `90`, `90s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, seconds)| Some((text.strip_suffix(name)?, *seconds)))
        .unwrap_or((text, 1));
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a time: 90, 90s, 2m, 1h")?;
    Duration::try_from_secs_f64(number * f64::from(unit)).map_err(|error| error.to_string())
}

/// Options of `trace`.
#[derive(Debug, Args)]
pub struct TraceOptions {
    /// A trace that the plug-in wrote.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Ends after this time: seconds, or a number with s, m or h.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "file")]
    pub duration: Option<Duration>,
    /// Follows these events instead: a system, or system:event; may be repeated.
    #[arg(long, value_name = "EVENT", conflicts_with = "file")]
    pub event: Vec<String>,
}

/// Options of `vfio` and `iommufd`.
#[derive(Debug, Args)]
pub struct VfioOptions {
    /// The PCI function [default: the first of the device].
    #[arg(value_name = "ADDRESS")]
    pub function: Option<String>,
    /// First binds the function to vfio-pci, and afterwards to its driver again. Programs that have
    /// the device open lose it.
    #[arg(long)]
    pub bind: bool,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchOptions {
    /// Only this measurement: size, rate, depth, pages, faults or interrupts; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Takes few samples, to see that it works.
    #[arg(long)]
    pub quick: bool,
    /// Shows no progress.
    #[arg(long, short)]
    pub quiet: bool,
    /// Writes all measurements to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Draws the measurements to an SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Measures nothing, and reads what `--save` or `--json` wrote before.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "quick"])]
    pub from: Option<PathBuf>,
}

/// Which cases to run.
#[derive(Debug, Args)]
pub struct Cases {
    /// Runs only the cases whose names contain one of these texts.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Lists the cases and runs none.
    #[arg(long)]
    pub list: bool,
}

/// Which tests to run, and how long.
#[derive(Debug, Args)]
pub struct Tests {
    /// Runs only the tests of these groups, and those whose names contain one of these texts.
    #[arg(value_name = "GROUP|NAME")]
    pub names: Vec<String>,
    /// Lists the tests by group and runs none.
    #[arg(long)]
    pub list: bool,
    /// Seed of all random choices: the same seed gives the same choices.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Multiplies the rounds of the tests and the time of the fuzzer.
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
    fn times_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").is_err() && duration("-1").is_err());
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
