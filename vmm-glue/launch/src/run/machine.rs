// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of QEMU.

use std::ffi::OsString;
use std::os::fd::IntoRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::reset;
use crate::cli::{Accel, Iommu, MachineOptions};
use crate::external::External;
use crate::layout;
use crate::prepare::kernel::Image;
use crate::prepare::{Prepared, Qemu, root};

/// A virtio console on the chardev `results`, at the end of the bus: devices that are plugged in
/// without an address keep theirs. It is its controller's only port, without messages about ports, so
/// that the guest has it as soon as it has the driver.
pub const VIRTIO_RESULTS: [&str; 4] = [
    "-device",
    "virtio-serial-pci,id=virtio-results,addr=1d,max_ports=1,modern-pio-notify=on",
    "-device",
    "virtconsole,bus=virtio-results.0,chardev=results",
];

/// The kernel's argument for it.
pub const VIRTIO_RESULTS_ARGUMENT: &str = "svm_results=/dev/hvc0";

/// Libraries of the root.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Files of a run.
#[derive(Clone, Debug)]
pub struct Files {
    /// The directory of the run.
    pub directory: PathBuf,
    /// The guest's initial file system.
    pub initramfs: PathBuf,
    /// The log of the guest's console.
    pub console: PathBuf,
    /// The lines of the results channel.
    pub events: PathBuf,
    /// QEMU's log.
    pub qemu: PathBuf,
    /// The judged results.
    pub results: PathBuf,
    /// The device's trace; with a second-level guest, all traces joined.
    pub trace: PathBuf,
    /// The device's trace before it is joined with others.
    pub device_trace: PathBuf,
    /// The description of a machine that did not end in time.
    pub hang: PathBuf,
    /// QEMU's log of emulated processors that were reset.
    pub processors: PathBuf,
    /// The archive that the guest sends.
    pub archive: PathBuf,
    /// The directory of the fetched files.
    pub fetched: PathBuf,
    /// The second-level guest's initial file system.
    pub second_initramfs: PathBuf,
    /// The log of its console.
    pub second_console: PathBuf,
    /// The lines of its results channel.
    pub second_events: PathBuf,
    /// The same three of its neighbour.
    pub neighbour_initramfs: PathBuf,
    /// See above.
    pub neighbour_console: PathBuf,
    /// See above.
    pub neighbour_events: PathBuf,
}

/// The destination of the guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// A file.
    File,
    /// This terminal, shared with QEMU's monitor; a file gets a copy.
    Terminal,
}

impl Files {
    /// The files in a directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            initramfs: directory.join("initramfs.cpio"),
            console: directory.join("console.log"),
            events: directory.join("events.jsonl"),
            qemu: directory.join("qemu.log"),
            results: directory.join("results.json"),
            trace: directory.join("trace.json"),
            device_trace: directory.join("trace-device.json"),
            hang: directory.join("hang.txt"),
            processors: directory.join("processors.log"),
            archive: directory.join("fetched.tar"),
            fetched: directory.join("fetched"),
            second_initramfs: directory.join("initramfs-l2.cpio"),
            second_console: directory.join("console-l2.log"),
            second_events: directory.join("events-l2.jsonl"),
            neighbour_initramfs: directory.join("initramfs-neighbour.cpio"),
            neighbour_console: directory.join("console-neighbour.log"),
            neighbour_events: directory.join("events-neighbour.jsonl"),
        }
    }

    /// All files, without the directory.
    pub fn all(&self) -> [&Path; 16] {
        [
            &self.initramfs,
            &self.console,
            &self.events,
            &self.qemu,
            &self.results,
            &self.trace,
            &self.device_trace,
            &self.hang,
            &self.processors,
            &self.archive,
            &self.second_initramfs,
            &self.second_console,
            &self.second_events,
            &self.neighbour_initramfs,
            &self.neighbour_console,
            &self.neighbour_events,
        ]
    }
}

/// The command that starts the guest.
pub fn command(
    prepared: &Prepared,
    options: &MachineOptions,
    files: &Files,
    console: Console,
    fetch: &[OsString],
) -> Result<External> {
    let qemu = start(&prepared.qemu, &prepared.plugin)?;
    Ok(qemu
        .args(firmware(&prepared.qemu))
        .args(machine(options))
        .arg("-kernel")
        .arg(image(&prepared.kernel, options))
        .args(["-initrd".into(), files.initramfs.clone().into_os_string()])
        .args(["-append", &kernel_arguments(options, console)])
        .args(serial(files, console, options.virtio_results))
        .args(["-device".into(), device(options, files)])
        // After the device, so that the device has the same address with and without it.
        .args(fetch)
        .args(reset::arguments(options.accel, &files.processors))
        .args(&options.qemu_arguments))
}

/// QEMU with the plug-in loaded into it.
pub fn start(qemu: &Qemu, plugin: &Path) -> Result<External> {
    let plugin = for_loader(plugin)?;
    Ok(match qemu {
        // With the root's own loader, without any of the host's libraries.
        Qemu::Prepared { root, .. } => {
            External::new(root.join(LIBRARIES).join("ld-linux-x86-64.so.2"))
                .arg("--library-path")
                .arg(for_loader(&root.join(LIBRARIES))?)
                .arg("--preload")
                .arg(plugin)
                .arg(root.join("usr/bin/qemu-system-x86_64"))
                .args(searched(&root::firmware(root)))
                .env("QEMU_MODULE_DIR", root.join(LIBRARIES).join("qemu"))
                // If the variable is set, it is for the user's own QEMU.
                .without_env(layout::VARIABLE)
        }
        // Through `env`, so that the plug-in is loaded only into QEMU.
        Qemu::Own {
            path,
            layout,
            firmware,
        } => {
            let variable = |name: &str, value: &Path| {
                let mut text = OsString::from(name);
                text.push("=");
                text.push(value);
                text
            };
            let file = layout.as_deref();
            External::new("env")
                .args(file.map(|file| variable(layout::VARIABLE, file)))
                .arg(variable("LD_PRELOAD", &plugin))
                .arg(path)
                .args(searched(firmware))
        }
    })
}

/// The options that make QEMU search firmware in these directories.
fn searched(directories: &[PathBuf]) -> impl Iterator<Item = OsString> {
    let options = |directory: &PathBuf| ["-L".into(), directory.into()];
    directories.iter().flat_map(options)
}

/// A path for the dynamic loader's lists, which the loader splits and expands (ld.so(8)): a path
/// with a special character is passed as a descriptor, which QEMU inherits.
fn for_loader(path: &Path) -> Result<PathBuf> {
    let splits = |byte: &u8| b" \t\n:;$".contains(byte);
    if !path.as_os_str().as_bytes().iter().any(splits) {
        return Ok(path.to_owned());
    }
    // Without O_CLOEXEC. It stays open, because this process may start QEMU at any time.
    let file = open(path, OFlag::O_PATH, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(PathBuf::from(format!(
        "/proc/self/fd/{}",
        file.into_raw_fd()
    )))
}

/// A smaller firmware starts Linux half a second earlier; the user's own QEMU may lack it.
fn firmware(qemu: &Qemu) -> &'static [&'static str] {
    match qemu {
        Qemu::Prepared { .. } => &["-bios", "qboot.rom"],
        Qemu::Own { .. } => &[],
    }
}

/// Translated code is slow at unpacking a kernel; a real processor is not, and starts the packed
/// image like most machines.
fn image<'a>(kernel: &'a Image, options: &MachineOptions) -> &'a Path {
    match (options.accel, &kernel.unpacked) {
        (Accel::Tcg, Some(unpacked)) if !options.packed_kernel => unpacked,
        _ => &kernel.packed,
    }
}

fn machine(options: &MachineOptions) -> Vec<String> {
    let (irqchip, accel, cpu) = match (options.accel, options.one_thread) {
        (Accel::Tcg, false) => ("off", "tcg,thread=multi", "max,la57=off"),
        (Accel::Tcg, true) => ("off", "tcg,thread=single", "max,la57=off"),
        (Accel::Kvm, _) => ("split", "kvm", "host,la57=off"),
    };
    let iommu = match options.iommu {
        Iommu::IntelIommu => {
            "intel-iommu,scalable-mode=on,fsts=on,svm=on,device-iotlb=on,pasid-bits=20,intremap=off"
        }
        // It has all of these features by default.
        Iommu::SvmVtd => "svm-vtd,intremap=off",
    };
    let iommu = [iommu]
        .into_iter()
        .chain(options.iommu_option.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(",");
    [
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-M",
        &format!("q35,kernel-irqchip={irqchip}"),
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-smp",
        &options.cpus.to_string(),
        "-m",
        &options.memory,
        "-device",
        &iommu,
    ]
    .map(str::to_owned)
    .into()
}

fn kernel_arguments(options: &MachineOptions, console: Console) -> String {
    // An oops becomes a panic, and a panic ends QEMU: nothing waits for a broken guest.
    let mut words = vec![
        "console=ttyS0",
        "panic=-1",
        "oops=panic",
        "intel_iommu=on,sm_on",
    ];
    if options.accel == Accel::Tcg {
        // The kernel counts the timer's interrupts for a moment and panics if there are too few, as
        // on a busy host. On KVM it skips this check by itself.
        words.push("no_timer_check");
        // Without it the kernel compares the processors' TSCs with the HPET. A processor that does
        // so while another switches the clocksource (`stop_machine`) waits with interrupts off, and
        // measures its time limit in jiffies, which do not advance: one boot of 150 hung there on a
        // busy host. Here all TSCs are one clock of QEMU.
        words.push("tsc=reliable");
        // The distribution's kernel tests its algorithms at each boot, a tenth of it in translated
        // code. Others are unaffected: they have no such parameter.
        words.push("cryptomgr.notests=1");
    }
    match (options.boot_log, console) {
        (true, _) => {}
        // Warnings are still printed.
        (false, Console::File) => words.extend(["quiet", "loglevel=5"]),
        (false, Console::Terminal) => words.push("quiet"),
    }
    if options.virtio_results {
        words.push(VIRTIO_RESULTS_ARGUMENT);
    }
    words.extend(options.append.iter().map(String::as_str));
    words.join(" ")
}

fn serial(files: &Files, console: Console, virtio_results: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-chardev".into()];
    match console {
        Console::File => {
            arguments.push(with_path("file,id=console,path=", &files.console));
            arguments.extend(["-serial".into(), "chardev:console".into()]);
        }
        Console::Terminal => {
            let stdio = "stdio,id=console,mux=on,signal=off,logfile=";
            arguments.push(with_path(stdio, &files.console));
            arguments.extend(
                [
                    "-serial",
                    "chardev:console",
                    "-object",
                    "monitor-hmp,id=monitor,chardev=console",
                ]
                .map(Into::into),
            );
        }
    }
    arguments.push("-chardev".into());
    arguments.push(with_path("file,id=results,path=", &files.events));
    match virtio_results {
        true => arguments.extend(VIRTIO_RESULTS.map(Into::into)),
        false => arguments.extend(["-serial".into(), "chardev:results".into()]),
    }
    arguments
}

fn device(options: &MachineOptions, files: &Files) -> OsString {
    let mut text: OsString = match options.trace {
        true => with_path("svm-demo,trace=", &files.trace),
        false => "svm-demo".into(),
    };
    for option in &options.device_option {
        text.push(",");
        text.push(option);
    }
    text
}

/// QEMU separates options by commas; a comma within an option is doubled.
pub fn with_path(option: &str, path: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push(path.to_string_lossy().replace(',', ",,"));
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(words: &[&str]) -> MachineOptions {
        let cli = Cli::try_parse_from([&["svm-vm", "run"], words].concat()).unwrap();
        let Command::Run(options) = cli.command else {
            panic!("not run")
        };
        options.machine
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        let files = Files::new(Path::new("/a,b"));
        let text = device(
            &options(&["--trace", "--device-option", "contexts=4"]),
            &files,
        );
        assert_eq!(text, "svm-demo,trace=/a,,b/trace.json,contexts=4");
    }

    #[test]
    fn the_loader_takes_a_path_with_its_separators() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("my work:a;b $ORIGIN");
        std::fs::create_dir(&place).unwrap();
        let plugin = place.join("plug in.so");
        let crate::additions::elf::Kind::Dynamic { loader, .. } =
            crate::additions::elf::kind(&std::env::current_exe().unwrap()).unwrap()
        else {
            panic!("the test is linked statically");
        };
        let own = std::env::current_exe().unwrap();
        let libraries = crate::additions::elf::libraries(&own, &loader).unwrap();
        let any = libraries.iter().find(|library| library.name == "libm.so.6");
        let any = any.or(libraries.first()).unwrap().path.clone().unwrap();
        std::fs::copy(any, &plugin).unwrap();
        // One is found through the list of directories, and one is preloaded by its path.
        let output = External::new(&loader)
            .arg("--library-path")
            .arg(for_loader(&place).unwrap())
            .arg("--preload")
            .arg(for_loader(&plugin).unwrap())
            .args(["/bin/cat", "/proc/self/maps"])
            .output()
            .unwrap();
        assert!(output.contains(&*plugin.to_string_lossy()), "{output}");
        let plain = Path::new("/lib/x.so");
        assert_eq!(for_loader(plain).unwrap(), plain);
    }

    #[test]
    fn the_processor_never_has_five_level_paging() {
        for accel in ["tcg", "kvm"] {
            let arguments = machine(&options(&["--accel", accel, "--cpus", "3"]));
            assert!(
                arguments.iter().any(|word| word.ends_with(",la57=off")),
                "{arguments:?}"
            );
            assert!(
                arguments.windows(2).any(|pair| pair == ["-smp", "3"]),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn translated_processors_have_a_thread_each_unless_they_take_turns() {
        for (accel, one_thread, expected) in [
            ("tcg", false, "tcg,thread=multi"),
            ("tcg", true, "tcg,thread=single"),
            ("kvm", true, "kvm"),
        ] {
            let options = MachineOptions {
                one_thread,
                ..options(&["--accel", accel])
            };
            let arguments = machine(&options);
            let expected = ["-accel", expected];
            assert!(
                arguments.windows(2).any(|pair| pair == expected),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn the_iommu_is_the_one_that_was_asked_for_with_its_options() {
        let words = ["--iommu", "svm-vtd", "--iommu-option", "intremap=on"];
        let arguments = machine(&options(&words));
        assert!(
            arguments
                .windows(2)
                .any(|pair| pair == ["-device", "svm-vtd,intremap=off,intremap=on"]),
            "{arguments:?}"
        );
        let arguments = machine(&options(&["--iommu-option", "caching-mode=on"]));
        assert!(
            arguments
                .iter()
                .any(|word| word.starts_with("intel-iommu,") && word.ends_with(",caching-mode=on")),
            "{arguments:?}"
        );
    }

    #[test]
    fn translated_processors_have_one_clock_and_the_kernel_is_told() {
        let words = |accel| {
            let options = options(&["--accel", accel]);
            kernel_arguments(&options, Console::File)
        };
        assert!(words("tcg").contains("no_timer_check tsc=reliable"));
        assert!(!words("kvm").contains("tsc="), "{}", words("kvm"));
    }

    #[test]
    fn the_kernel_prints_less_unless_asked() {
        let quiet = kernel_arguments(&options(&["--append", "a=b"]), Console::File);
        assert!(quiet.contains("quiet") && quiet.ends_with("a=b"), "{quiet}");
        assert!(!kernel_arguments(&options(&["--boot-log"]), Console::File).contains("quiet"));
    }

    #[test]
    fn the_console_is_the_first_port_and_the_results_the_second() {
        let files = Files::new(Path::new("/r"));
        for console in [Console::File, Console::Terminal] {
            let words = serial(&files, console, false);
            let ports: Vec<_> = words
                .windows(2)
                .filter(|pair| pair[0] == "-serial")
                .map(|pair| &pair[1])
                .collect();
            assert_eq!(ports, ["chardev:console", "chardev:results"]);
        }
    }
}
