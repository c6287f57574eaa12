// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line. It defines the commands and options, not their implementation.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::prepare::built::Flavor;
use crate::prepare::series::Series;

/// Default time limit of a guest, in seconds.
const SECONDS: u32 = 300;

/// The same for the debug kernel, in translated code.
const SECONDS_DEBUG: u32 = 3600;

/// Prepares and runs a Linux guest with the svm-demo device: a PCIe device, loaded into an
/// unmodified QEMU, that shares the address space of a process through PASID, ATS and PRI.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// Directory of the prepared parts, shared by all checkouts [default: $XDG_CACHE_HOME/svm-demo
    /// or ~/.cache/svm-demo]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "SVM_CACHE",
        hide_env_values = true
    )]
    pub cache: Option<PathBuf>,

    /// Debian mirror to take packages from [default: the one that this machine's apt uses]
    #[arg(
        long,
        global = true,
        value_name = "URI",
        env = "SVM_MIRROR",
        hide_env_values = true
    )]
    pub mirror: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Sources and destinations.
#[derive(Debug)]
pub struct Place {
    /// `--cache`.
    pub cache: Option<PathBuf>,
    /// `--mirror`.
    pub mirror: Option<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare everything that a guest needs, without starting one
    Prepare(PrepareOptions),
    /// Run a guest by a plan and report the results
    Run(RunOptions),
    /// Run a guest inside of a guest: the first is a host that gives the device to the second, and
    /// the plan runs there
    Nested(NestedOptions),
    /// Start a guest with a shell on this terminal; `exit` ends it, and so does Ctrl-A X
    Shell(ShellOptions),
    /// Run the prepared QEMU with the device loaded into it, with your own arguments
    Qemu(QemuOptions),
    /// Read a QEMU's layout from its debug information, for the plug-in
    QemuLayout(QemuLayoutOptions),
    /// Build Linux's own selftests of VFIO and IOMMUFD, with a driver for the device, and write the
    /// programs into a directory, for a guest that is a host
    Selftests(SelftestsOptions),
    /// Prepare LLVM's tools of a version, for reports of coverage, and print the root file system
    /// that they are in
    Llvm(LlvmOptions),
    /// Report what this host, a guest or a real machine has and lacks
    Doctor(DoctorOptions),
    /// Try the distribution's coming versions: the newest kernel of its experimental suite and the
    /// newest QEMU; report what would break, and change nothing that other commands use
    Next,
    /// Remove the files of this checkout's or installation's runs
    Clean(CleanOptions),
    /// Print a word that changes when the prepared parts would change: a key for the caches of
    /// continuous integration
    CacheKey(CacheKeyOptions),
    /// Print completions for a shell
    #[command(after_help = "Example: svm-vm completions bash >/etc/bash_completion.d/svm-vm")]
    Completions(CompletionsOptions),
    /// Print the manual page of this program, or write those of all its commands
    #[command(after_help = "Example: svm-vm manual --to /usr/local/share/man/man1")]
    Manual(ManualOptions),
}

/// Options of `prepare`.
#[derive(Args, Debug)]
pub struct PrepareOptions {
    /// Examine every prepared file, and rebuild parts that differ
    #[arg(long)]
    pub verify: bool,

    /// Rebuild everything, with the packages' newest versions
    #[arg(long)]
    pub refresh: bool,

    /// What the guest is made of.
    #[command(flatten)]
    pub parts: Parts,
}

/// The parts of a guest.
#[derive(Args, Clone, Debug, Default)]
pub struct Parts {
    /// QEMU to run instead of the prepared one: of the plug-in's series, or with debug information
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,

    /// Kernel to boot: the distribution's, the debug kernel or the host kernel (built from the same
    /// source on first use; debug has lockdep, KASAN, kmemleak and fault injection, host has IOMMUFD
    /// and KVM), or, with --kdir, an image file [default: stock; with --kdir: its own]
    #[arg(long, value_name = "stock|debug|host|IMAGE")]
    pub kernel: Option<KernelName>,

    /// Series of the stock, debug or host kernel, such as 7.2 [default: the distribution's newest of
    /// those that the driver is known to work with]
    #[arg(long, value_name = "SERIES")]
    pub kernel_series: Option<Series>,

    /// Build directory of a kernel with Rust support, to build the driver for and to boot
    #[arg(long, value_name = "DIR")]
    pub kdir: Option<PathBuf>,
}

/// The value of `--kernel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelName {
    /// The distribution's kernel.
    Stock,
    /// A kernel that is built.
    Built(Flavor),
    /// An image file; a file with one of the names above needs a path with a directory.
    Image(PathBuf),
}

/// The kernel to boot and to build the driver for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelChoice {
    /// The distribution's kernel.
    Stock,
    /// One that is built from the distribution's source.
    Built(Flavor),
    /// A kernel of the user's own.
    Own {
        /// Its build directory.
        kdir: PathBuf,
        /// The image to boot, if it is not that of the build directory.
        image: Option<PathBuf>,
    },
}

/// The machine that a guest runs on.
#[derive(Args, Clone, Debug)]
pub struct MachineOptions {
    /// What the guest is made of.
    #[command(flatten)]
    pub parts: Parts,

    /// The guest's IOMMU
    #[arg(long, value_enum, default_value_t = Iommu::IntelIommu)]
    pub iommu: Iommu,

    /// Property of the IOMMU; `-device svm-vtd,help` lists them; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub iommu_option: Vec<String>,

    /// How QEMU runs the guest's processors
    #[arg(long, value_enum, default_value_t = Accel::Tcg)]
    pub accel: Accel,

    /// Number of the guest's processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,

    /// Memory of the guest, as QEMU takes it
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub memory: String,

    /// Name of the run, and of its directory below target/runs, or svm-demo-runs outside of a
    /// checkout [default: that of the plan]
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub name: Option<String>,

    /// Write the device's trace to trace.json, for a trace viewer; with `nested`, those of all levels on
    /// one clock
    #[arg(long)]
    pub trace: bool,

    /// Property of the device; `-device svm-demo,help` lists them; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub device_option: Vec<String>,

    /// Parameter of the driver; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub driver_option: Vec<String>,

    /// What the user adds to the guest.
    #[command(flatten)]
    pub additions: Additions,

    /// Words to add to the kernel's command line; may be repeated
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub append: Vec<String>,

    /// Boot the kernel's packed image, as most machines do: slower without KVM, but only its
    /// decompressor can switch on 5-level paging
    #[arg(long)]
    pub packed_kernel: bool,

    /// Print all kernel messages during boot (slower)
    #[arg(long)]
    pub boot_log: bool,

    /// The results channel is a virtio console, for a kernel with a driver for it. No option: the
    /// launcher decides.
    #[arg(skip)]
    pub virtio_results: bool,

    /// Translated processors take turns in one thread of QEMU. No option: the launcher decides.
    #[arg(skip)]
    pub one_thread: bool,

    /// Arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    pub qemu_arguments: Vec<String>,
}

/// The user's additions to a guest, and the files to fetch from it.
#[derive(Args, Clone, Debug, Default)]
pub struct Additions {
    /// Copy a file or a directory into the guest, with the libraries that its programs need
    /// [default PATH: /root/NAME; /root is where commands run]; may be repeated
    #[arg(long, value_name = "FILE[:PATH]")]
    pub copy: Vec<PathBuf>,

    /// Bring a file or a directory of the guest into the run's folder when the guest ends, below
    /// fetched/; may be repeated
    #[arg(long, value_name = "PATH")]
    pub fetch: Vec<String>,

    /// Load your own kernel module, after the driver; may be repeated
    #[arg(long, value_name = "FILE.ko")]
    pub module: Vec<PathBuf>,

    /// Parameter of your own module; may be repeated
    #[arg(long, value_name = "MODULE.KEY=VALUE", value_parser = key_value)]
    pub module_option: Vec<String>,

    /// Do not load the device's driver; with --module: load that instead
    #[arg(long, conflicts_with = "driver_option")]
    pub no_driver: bool,

    /// Put QEMU with the plug-in into the guest, as the command qemu-with-svm-demo: for machines
    /// inside of it (--kernel host)
    #[arg(long)]
    pub with_qemu: bool,
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunOptions {
    /// What the guest does
    #[arg(long, value_enum, default_value_t = PlanName::Demo)]
    pub plan: PlanName,

    /// Multiply the amount of testing of the plan: rounds, and the time of the guest's fuzzer
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = factor)]
    pub scale: String,

    /// With --plan test: load the driver and run only this group of the tests; may be repeated
    #[arg(long, value_name = "GROUP", value_enum)]
    pub group: Vec<Group>,

    /// With --plan test: omit this group of the tests; may be repeated
    #[arg(long, value_name = "GROUP", value_enum, conflicts_with = "group")]
    pub without_group: Vec<Group>,

    /// Run this line of shell in the guest instead of a plan. svm-vm ends with its exit status, or
    /// with 128 plus the signal's number if a signal ended it; 124 means that the time was
    /// exceeded, 125 that svm-vm or the guest failed and not the command
    #[arg(long, value_name = "COMMAND", conflicts_with = "plan")]
    pub exec: Option<String>,

    /// Time limit of the whole run in seconds [default: 300; with --kernel debug: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: Option<u32>,

    /// Also write the results as JUnit XML, for continuous integration
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Also show the output of the steps
    #[arg(long, short)]
    pub verbose: bool,

    /// The machine.
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// Options of `nested`: those of `run`, of which `--plan`, `--exec`, `--driver-option` and the files
/// are for the second-level guest, and the machine is that of the first, and those of the second.
#[derive(Args, Debug)]
#[command(
    mut_arg("kernel", |arg| arg.default_value("host")),
    mut_arg("iommu", |arg| arg.default_value(Iommu::SvmVtd.name())),
    mut_arg("memory", |arg| arg.default_value("2G"))
)]
pub struct NestedOptions {
    /// Plan and first-level guest.
    #[command(flatten)]
    pub run: RunOptions,

    /// The second-level guest.
    #[command(flatten)]
    pub second: SecondOptions,
}

/// The second-level guest.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Second-level guest")]
pub struct SecondOptions {
    /// Its IOMMU
    #[arg(long, value_enum, default_value_t = Iommu::SvmVtd)]
    pub l2_iommu: Iommu,

    /// Property of its IOMMU; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub l2_iommu_option: Vec<String>,

    /// Property of its vfio-pci device; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub l2_device_option: Vec<String>,

    /// Library to load into the first guest's QEMU instead of the plug-in that was built; `none` loads
    /// nothing
    #[arg(long, value_name = "FILE|none")]
    pub l2_plugin: Option<PathBuf>,

    /// Give it the device by a container of VFIO (type 1), not by iommufd
    #[arg(long)]
    pub l2_type1: bool,

    /// Let it reboot, which ends it otherwise
    #[arg(long)]
    pub l2_reboots: bool,

    /// Start another second-level guest beside it, with a device of its own and the same options, which
    /// runs this line of shell. The first guest needs memory for both
    #[arg(long, value_name = "COMMAND", conflicts_with = "l2_type1")]
    pub l2_neighbour: Option<String>,

    /// Number of its processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub l2_cpus: u32,

    /// Its memory, as QEMU takes it. Linux has no huge pages with less than 512 MiB
    #[arg(long, value_name = "SIZE", default_value = "640M")]
    pub l2_memory: String,

    /// Words to add to its kernel's command line; may be repeated
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub l2_append: Vec<String>,

    /// Variable of the environment of its QEMU, such as SVM_REMEDIES; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub l2_env: Vec<String>,

    /// Argument for its QEMU; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub l2_qemu_argument: Vec<String>,
}

/// A number above 0, as text.
fn factor(text: &str) -> Result<String, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(text.to_owned()),
        _ => Err("a number above 0 was expected, such as 0.1 or 10".to_owned()),
    }
}

/// Options of `shell`.
#[derive(Args, Debug)]
pub struct ShellOptions {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// Options of `qemu`.
#[derive(Args, Debug)]
pub struct QemuOptions {
    /// QEMU to run instead of the prepared one
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,

    /// Print the command as a line for the shell instead of running it: to run QEMU in a debugger,
    /// or repeatedly
    #[arg(long)]
    pub print: bool,

    /// Arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    pub arguments: Vec<String>,
}

/// Options of `selftests`.
#[derive(Args, Debug)]
pub struct SelftestsOptions {
    /// Directory for the programs; it is made if it is missing
    #[arg(long, value_name = "DIRECTORY")]
    pub output: PathBuf,

    /// Series of the kernel whose selftests are built, such as 7.3 [default: the prepared one]
    #[arg(long, value_name = "SERIES")]
    pub kernel_series: Option<Series>,
}

/// Options of `llvm`.
#[derive(Args, Debug)]
pub struct LlvmOptions {
    /// LLVM's major version, which `rustc -vV` prints
    #[arg(value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..1000))]
    pub major: u32,
}

/// Options of `qemu-layout`.
#[derive(Args, Debug)]
pub struct QemuLayoutOptions {
    /// The program qemu-system-x86_64, or the directory that it was built in
    #[arg(long, value_name = "PATH")]
    pub qemu: PathBuf,

    /// File with the program's debug information [default: the program itself, or the file of its
    /// build id below /usr/lib/debug]
    #[arg(long, value_name = "FILE")]
    pub debug_file: Option<PathBuf>,

    /// Where to write the layout file; `-` is the standard output [default: the cache, where `run`
    /// finds it]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Omit what differs between builds of a series: build id and addresses
    #[arg(long)]
    pub series: bool,

    /// Write nothing, and list the differences from the plug-in's own table
    #[arg(long, conflicts_with_all = ["output", "series"])]
    pub compare: bool,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorOptions {
    /// Examine a guest for shared virtual addressing: start one
    #[arg(long, conflicts_with = "machine")]
    pub guest: bool,

    /// Examine this machine itself for shared virtual addressing
    #[arg(long)]
    pub machine: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `clean`.
#[derive(Args, Debug)]
pub struct CleanOptions {
    /// Remove the prepared parts as well, which all checkouts share
    #[arg(long)]
    pub all: bool,
}

/// Options of `cache-key`.
#[derive(Args, Debug)]
pub struct CacheKeyOptions {
    /// What the guest is made of.
    #[command(flatten)]
    pub parts: Parts,
}

/// Options of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsOptions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Options of `manual`.
#[derive(Args, Debug)]
pub struct ManualOptions {
    /// Write svm-vm.1 and a page for each command to this directory
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// The IOMMUs that a guest can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Iommu {
    /// QEMU's model of Intel VT-d
    IntelIommu,
    /// The model of Intel VT-d in this repository, loaded into QEMU as the device is
    SvmVtd,
}

/// How QEMU runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// By translation of its code; works everywhere
    Tcg,
    /// By the host's virtualization; needs /dev/kvm
    Kvm,
}

/// The plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanName {
    /// The demonstration
    Demo,
    /// The tests of the driver and the device in a guest
    Test,
}

impl FromStr for KernelName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "stock" => Self::Stock,
            "debug" => Self::Built(Flavor::Debug),
            "host" => Self::Built(Flavor::Host),
            image => Self::Image(image.into()),
        })
    }
}

impl RunOptions {
    /// The selected groups of the tests.
    ///
    /// # Errors
    ///
    /// Groups are selected, and the plan has none.
    pub fn groups(&self) -> Result<Groups> {
        let groups = match (&self.group[..], &self.without_group[..]) {
            ([], []) => return Ok(Groups::All),
            (only, []) => Groups::Only(only.to_vec()),
            (_, but) => Groups::AllBut(but.to_vec()),
        };
        if self.exec.is_some() || self.plan != PlanName::Test {
            bail!(
                "--group and --without-group choose of the tests: add --plan test, or run one \
                 group by --exec 'svmctl test GROUP'"
            );
        }
        Ok(groups)
    }

    /// The time limit of the whole run in seconds.
    pub fn seconds(&self) -> u32 {
        let slow = self.machine.parts.kernel == Some(KernelName::Built(Flavor::Debug));
        self.timeout
            .unwrap_or(if slow { SECONDS_DEBUG } else { SECONDS })
    }
}

impl Parts {
    /// The kernel that `--kernel` and `--kdir` select.
    ///
    /// # Errors
    ///
    /// The two contradict each other, or an image comes without its build directory.
    pub fn kernel_choice(&self) -> Result<KernelChoice> {
        let name = match self.kernel {
            Some(KernelName::Built(flavor)) => flavor.name(),
            _ => "stock",
        };
        if let (Some(series), Some(_)) = (self.kernel_series, &self.kdir) {
            bail!(
                "--kernel-series {series} is about prepared kernels, and --kdir names one of your \
                 own: give one of the two"
            );
        }
        Ok(match (&self.kernel, &self.kdir) {
            (None | Some(KernelName::Stock), None) => KernelChoice::Stock,
            (Some(KernelName::Built(flavor)), None) => KernelChoice::Built(*flavor),
            (None, Some(kdir)) => KernelChoice::Own {
                kdir: kdir.clone(),
                image: None,
            },
            (Some(KernelName::Image(image)), Some(kdir)) => KernelChoice::Own {
                kdir: kdir.clone(),
                image: Some(image.clone()),
            },
            (Some(KernelName::Image(image)), None) => bail!(
                "--kernel {} is none of `stock`, `debug` and `host`, so it is the file of an image, and the \
                 driver has to be built for it: give its build directory by --kdir",
                image.display()
            ),
            (Some(KernelName::Stock | KernelName::Built(_)), Some(_)) => bail!(
                "--kernel {name} is a prepared kernel, and --kdir names one of your own: give one \
                 of the two (an image file called `{name}` is given as ./{name})"
            ),
        })
    }
}

impl MachineOptions {
    /// The machine without any options.
    pub fn standard() -> Self {
        match Cli::parse_from(["svm-vm", "run"]).command {
            Command::Run(options) => options.machine,
            _ => unreachable!("the words above are those of `run`"),
        }
    }
}

impl Iommu {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntelIommu => "intel-iommu",
            Self::SvmVtd => "svm-vtd",
        }
    }
}

impl Accel {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// Groups of `svmctl test` in the test plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Requests of a program to the driver and the device
    Interface,
    /// Memory of every kind
    Memory,
    /// Every way to end
    Endings,
    /// Many processes
    Scale,
    /// Hostile programs
    Fuzz,
    /// A kernel that runs out of memory
    Injection,
}

/// Which groups of the tests run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// All, and the steps without a group.
    #[default]
    All,
    /// Only these, after loading the driver.
    Only(Vec<Group>),
    /// All but these, and the steps without a group.
    AllBut(Vec<Group>),
}

impl Groups {
    /// Whether a group runs.
    pub fn has(&self, group: Group) -> bool {
        match self {
            Self::All => true,
            Self::Only(several) => several.contains(&group),
            Self::AllBut(several) => !several.contains(&group),
        }
    }
}

impl Group {
    /// Its name on the command line, here and of `svmctl test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Memory => "memory",
            Self::Endings => "endings",
            Self::Scale => "scale",
            Self::Fuzz => "fuzz",
            Self::Injection => "injection",
        }
    }
}

impl PlanName {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Test => "test",
        }
    }
}

/// Whether the words of a command line, which may be invalid, contain `--exec`.
pub fn asks_for_exec(words: impl IntoIterator<Item = OsString>) -> bool {
    words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .take_while(|word| word != "--")
        .any(|word| word == "--exec" || word.starts_with("--exec="))
}

/// A name that is safe as a directory name.
fn run_name(text: &str) -> std::result::Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.starts_with('.') || !text.chars().all(fits) {
        return Err("expected letters, digits, '-', '_' and '.', not beginning with '.'".into());
    }
    Ok(text.to_owned())
}

fn key_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains(char::is_whitespace) => {
            Ok(text.to_owned())
        }
        _ => Err("expected KEY=VALUE without blanks".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["svm-vm"], words].concat())
    }

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_stands_after_two_dashes_is_qemus() {
        let cli = parse(&["run", "--trace", "--", "-trace", "vtd_*"]).unwrap();
        let Command::Run(options) = cli.command else {
            panic!("not run")
        };
        assert_eq!(options.machine.qemu_arguments, ["-trace", "vtd_*"]);
        assert_eq!(options.plan, PlanName::Demo);
    }

    fn kernel(words: &[&str]) -> Result<KernelChoice> {
        let cli = parse(&[&["run"], words].concat()).unwrap();
        let Command::Run(options) = cli.command else {
            panic!("not run")
        };
        options.machine.parts.kernel_choice()
    }

    #[test]
    fn a_kernel_is_a_prepared_one_or_ones_own() {
        assert_eq!(kernel(&[]).unwrap(), KernelChoice::Stock);
        assert_eq!(kernel(&["--kernel", "stock"]).unwrap(), KernelChoice::Stock);
        for flavor in Flavor::ALL {
            let got = kernel(&["--kernel", flavor.name()]).unwrap();
            assert_eq!(got, KernelChoice::Built(flavor));
        }
        let own = |image: Option<&str>| KernelChoice::Own {
            kdir: "/k".into(),
            image: image.map(PathBuf::from),
        };
        assert_eq!(kernel(&["--kdir", "/k"]).unwrap(), own(None));
        assert_eq!(
            kernel(&["--kdir", "/k", "--kernel", "./debug"]).unwrap(),
            own(Some("./debug"))
        );
    }

    #[test]
    fn an_image_needs_its_build_directory() {
        let error = kernel(&["--kernel", "bzImage"]).unwrap_err().to_string();
        assert!(error.contains("--kdir"), "{error}");
    }

    #[test]
    fn a_prepared_kernel_and_ones_own_contradict_each_other() {
        let error = kernel(&["--kernel", "debug", "--kdir", "/k"]).unwrap_err();
        assert!(error.to_string().contains("./debug"), "{error}");
    }

    #[test]
    fn a_series_is_that_of_a_prepared_kernel() {
        let error = kernel(&["--kernel-series", "7.2", "--kdir", "/k"]).unwrap_err();
        assert!(error.to_string().contains("--kdir"), "{error}");
        let debug = ["--kernel", "debug", "--kernel-series", "7.2"];
        assert_eq!(kernel(&debug).unwrap(), KernelChoice::Built(Flavor::Debug));
        let error = parse(&["run", "--kernel-series", "7.2.12"]).unwrap_err();
        assert!(error.to_string().contains("such as 7."), "{error}");
    }

    #[test]
    fn a_name_cannot_leave_the_directory_of_runs() {
        assert!(parse(&["run", "--name", "../x"]).is_err());
        assert!(parse(&["run", "--name", "a-1.b"]).is_ok());
    }

    #[test]
    fn a_device_option_is_a_key_and_a_value() {
        assert!(parse(&["run", "--device-option", "contexts"]).is_err());
        assert!(parse(&["run", "--device-option", "contexts=4"]).is_ok());
    }
}
