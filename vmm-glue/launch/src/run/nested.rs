// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm nested`: a guest inside of a guest. The first is a host: it gives the device to QEMU by
//! VFIO and iommufd, and that QEMU runs the second guest under KVM. The plan runs in the second.
//!
//! The console and the results channel of the second guest are ports of the first, so each level is
//! followed directly, and one that hangs hides nothing of another. Where the kernel has a driver for
//! them, they are virtio ports, and the results channels virtio consoles: a line is one exit there, and
//! on a serial port a byte is several, and an interrupt or more in the first guest.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use svm_init::plan::{Plan, Step};

use super::console::Watcher;
use super::follow::{Follower, Source, Then};
use super::inside::{DIRECTORY, FIRMWARE, QEMU, add_qemu};
use super::machine::{self, Files};
use super::render::Renderer;
use super::results::Results;
use super::trace;
use super::{
    View, given, judge, junit, open_run, prepare_for, say, show_failures, start_qemu, why_it_ended,
};
use crate::additions::Added;
use crate::cli::{Accel, Additions, Iommu, MachineOptions, NestedOptions, Place, SecondOptions};
use crate::plans;
use crate::prepare::{Prepared, Qemu, initramfs};
use crate::progress::Progress;

/// What runs QEMU in the first guest.
const ATTEND: &str = include_str!("../../scripts/attend.sh");

/// Kernel options without which a guest cannot be a host.
const HOST_OPTIONS: &[&str] = &[
    "CONFIG_IOMMUFD",
    "CONFIG_VFIO_DEVICE_CDEV",
    "CONFIG_VFIO_PCI",
    "CONFIG_KVM",
];

/// The device's place in the first guest, QEMU's first free one, and the place of the neighbour's.
const DEVICE: &str = "0000:00:01.0";
const NEIGHBOUR_DEVICE: &str = "0000:00:02.0";

/// Kernel options without which all channels are serial ports.
const VIRTIO_CONSOLE: [&str; 2] = ["CONFIG_VIRTIO_CONSOLE", "CONFIG_VIRTIO_PCI"];

/// Seconds that remain for the first guest, of the time of the run.
const FOR_FIRST: u32 = 30;

/// Seconds that the second guest's QEMU has to say where it hangs.
const TO_ANSWER: u32 = 5;

/// Names of the levels in messages.
pub const FIRST: &str = "L1";
pub const SECOND: &str = "L2";
const NEIGHBOUR: &str = "neighbour";

/// A guest inside of the first one.
struct Inner {
    /// Its name, below which its attendant has its files.
    name: &'static str,
    /// Its device in the first guest, and where the first guest's driver puts it.
    device: &'static str,
    node: &'static str,
    /// Its initial file system in the first guest.
    initramfs: &'static str,
    /// The first guest's virtio ports of its console and its results channel.
    ports: [u32; 2],
}

const L2: Inner = Inner {
    name: "l2",
    device: DEVICE,
    node: "/dev/svm0",
    initramfs: "initramfs.cpio",
    ports: [1, 2],
};

const L2_NEIGHBOUR: Inner = Inner {
    name: NEIGHBOUR,
    device: NEIGHBOUR_DEVICE,
    node: "/dev/svm1",
    initramfs: "initramfs-neighbour.cpio",
    ports: [3, 4],
};

/// Where the kernel of this machine changes the clock of a processor, if it does.
const FREQUENCIES: &str = "/sys/devices/system/cpu/cpu0/cpufreq";

/// Name of the step of the first guest in which the second runs.
const STEP: &str = "the second-level guest";

/// `svm-vm nested`.
pub fn command(place: &Place, options: &NestedOptions) -> Result<ExitCode> {
    let run = &options.run;
    let groups = run.groups()?;
    ensure!(
        run.machine.additions.fetch.is_empty(),
        "files cannot be fetched from a second-level guest: leave --fetch out"
    );
    ensure!(
        !run.machine.additions.with_qemu,
        "L1 has QEMU, and L2 has no use for it: leave --with-qemu out"
    );
    ensure!(
        !run.machine.trace || run.machine.accel == Accel::Tcg,
        "the traces of the levels are joined by the clock of translated code: leave --trace or --accel \
         kvm out"
    );
    let progress = Progress::new();
    let second = MachineOptions {
        memory: options.second.l2_memory.clone(),
        ..run.machine.clone()
    };
    let (prepared, added) = prepare_for(place, &second, &progress)?;
    can_be_host(&prepared.kernel_options)?;
    let given = plans::Given {
        groups,
        ..given(&prepared, &second, &added)
    };
    let (name, mut plan) = match &run.exec {
        Some(line) => ("exec", plans::exec(line, &given)),
        None => (run.plan.name(), plans::plan(run.plan, &run.scale, &given)),
    };
    if run.machine.trace {
        plan.trace = trace::events_of_second();
    }
    let plan_name = format!("{name}-l2");
    let virtio = VIRTIO_CONSOLE.iter().all(|&option| {
        let value = prepared.kernel_options.get(option);
        value.is_some_and(|value| value == "y")
    });
    let mut machine = first_machine(&run.machine)?;
    machine.virtio_results = virtio;
    let (files, _lock) = open_run(&prepared.installation, &plan_name, &machine)?;
    for path in [&files.second_console, &files.second_events] {
        fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    initramfs::pack(&prepared, &plan, &added, &files.second_initramfs)?;
    let mut images = vec![(L2.initramfs, &files.second_initramfs)];
    let beside = options.second.l2_neighbour.as_ref();
    if let Some(line) = beside {
        for path in [&files.neighbour_console, &files.neighbour_events] {
            fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let plan = plans::exec(line, &given);
        initramfs::pack(&prepared, &plan, &added, &files.neighbour_initramfs)?;
        images.push((L2_NEIGHBOUR.initramfs, &files.neighbour_initramfs));
        ensure!(
            virtio,
            "a neighbour needs a kernel with {}",
            VIRTIO_CONSOLE.join(", ")
        );
    }
    let first = first_files(&prepared, &options.second, &images)?;
    let seconds = run.seconds();
    let limit = seconds.saturating_sub(FOR_FIRST).max(FOR_FIRST);
    let qemu = |guest| second_qemu(&prepared, options, virtio, limit, guest);
    let mut first_plan = first_plan(
        &qemu(&L2),
        beside.map(|_| qemu(&L2_NEIGHBOUR)).as_deref(),
        limit,
    )?;
    if run.machine.trace {
        first_plan.trace = trace::events_of_first();
    }
    initramfs::pack(&prepared, &first_plan, &first, &files.initramfs)?;

    let new_results = |plan: &str, iommu: Iommu, accel: Accel| {
        let name = files.directory.file_name().unwrap_or_default();
        let mut results = Results::new(&name.to_string_lossy(), plan);
        if let Qemu::Prepared { version, .. } = &prepared.qemu {
            results.qemu.clone_from(version);
        }
        results.accel = accel.name().to_owned();
        results.iommu = iommu.name().to_owned();
        results
    };
    let mut first = new_results("host", machine.iommu, machine.accel);
    let mut second = new_results(&plan_name, options.second.l2_iommu, Accel::Kvm);
    let mut neighbour = new_results(NEIGHBOUR, options.second.l2_iommu, Accel::Kvm);
    let timeout = Duration::from_secs(seconds.into());
    let shows_output = run.verbose || run.exec.is_some();
    let several = plan.steps.len() > 1;

    let mut sources: Vec<(Source, &Path)> = vec![
        (Source::Console, &files.console),
        (Source::Results, &files.events),
        (Source::Qemu, &files.qemu),
        (Source::SecondConsole, &files.second_console),
        (Source::SecondResults, &files.second_events),
    ];
    if beside.is_some() {
        sources.push((Source::NeighbourConsole, &files.neighbour_console));
        sources.push((Source::NeighbourResults, &files.neighbour_events));
    }
    let mut follower = Follower::new(&sources)?;
    let start = Instant::now();
    let mut arguments = ports(&files, virtio, beside.is_some());
    if beside.is_some() {
        let words = ["svm-demo,addr=2".to_owned()].into_iter();
        let words: Vec<_> = words.chain(machine.device_option.iter().cloned()).collect();
        arguments.extend(["-device".into(), words.join(",").into()]);
    }
    let of_qemu = Files {
        trace: files.device_trace.clone(),
        ..files.clone()
    };
    let (mut child, monitor) = start_qemu(&prepared, &machine, &of_qemu, arguments)?;
    if shows_output {
        progress.line(&format!("QEMU is process {}", child.id()));
    }
    let mut views = [
        View {
            level: FIRST,
            renderer: Renderer::new(shows_output, true),
            progress: &progress,
            booting: Some(progress.quick_task("booting L1")),
            watcher: Watcher::default(),
            results: &mut first,
            start,
        },
        View {
            level: SECOND,
            renderer: Renderer::new(shows_output, several),
            progress: &progress,
            booting: None,
            watcher: Watcher::default(),
            results: &mut second,
            start,
        },
        View {
            level: NEIGHBOUR,
            renderer: Renderer::new(shows_output, false),
            progress: &progress,
            booting: None,
            watcher: Watcher::default(),
            results: &mut neighbour,
            start,
        },
    ];
    let mut found = None;
    let ending = follower.follow(
        &mut child,
        timeout,
        |source, line| {
            let [first, second, neighbour] = &mut views;
            Ok(match source {
                Source::Console => first.console(line),
                Source::Results => first.event(line),
                Source::Qemu => first.qemu(line),
                // The first guest ends after it, by itself.
                Source::SecondConsole => {
                    second.console(line);
                    Then::Continue
                }
                Source::SecondResults => {
                    second.event(line);
                    Then::Continue
                }
                Source::NeighbourConsole => {
                    neighbour.console(line);
                    Then::Continue
                }
                Source::NeighbourResults => {
                    neighbour.event(line);
                    Then::Continue
                }
            })
        },
        |child| found = Some(monitor.report(child.id())),
    )?;
    drop(views);
    first.seconds = start.elapsed().as_secs_f64();
    second.seconds = first.seconds;
    let why = why_it_ended(&files, found)?;
    judge::ending(&mut first, &ending, timeout, &why);
    judge::levels(&mut first, &mut second, STEP);
    if beside.is_some() {
        neighbour.seconds = second.seconds;
        judge::neighbour(&first, &mut second, &mut neighbour, STEP);
        say(&neighbour.summary());
        second.neighbour = Some(Box::new(neighbour));
    }
    first.close();
    second.close();
    if run.machine.trace {
        match trace::join(&files, STEP) {
            Ok(requests) => second.page_requests = Some(requests),
            // A run that went wrong may have left none.
            Err(error) if first.failed + second.failed > 0 => {
                progress.line(&format!("the traces are not joined: {error:#}"));
            }
            Err(error) => second.fail(format!("the traces cannot be joined: {error:#}")),
        }
    }
    let code = judge::status(&second, &ending, run.exec.is_some());
    second.host = Some(Box::new(first));
    let text = serde_json::to_string_pretty(&second).context("cannot write the results")?;
    fs::write(&files.results, text + "\n")
        .with_context(|| format!("cannot write {}", files.results.display()))?;
    for image in [
        &files.initramfs,
        &files.second_initramfs,
        &files.neighbour_initramfs,
    ] {
        let _ = fs::remove_file(image);
    }
    show_failures(&second, &files, shows_output);
    if let Some(path) = &run.junit {
        fs::write(path, junit::report(&second)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    for line in second
        .page_requests
        .iter()
        .flat_map(|requests| requests.lines())
    {
        say(&line);
    }
    say(&second.summary());
    Ok(ExitCode::from(code))
}

/// Fails if the kernel lacks what a host needs.
fn can_be_host(options: &BTreeMap<String, String>) -> Result<()> {
    let lacks = |option: &&&str| options.get(**option).is_none_or(|value| value != "y");
    if let Some(option) = HOST_OPTIONS.iter().find(lacks) {
        bail!(
            "this kernel cannot be a host: it lacks {option}, built in. Use the prepared one \
             (--kernel host), or another with {}",
            HOST_OPTIONS.join(", ")
        );
    }
    Ok(())
}

/// The first guest's machine: its interrupts are remapped, as VFIO wants, and its kernel need not
/// measure the clock.
fn first_machine(options: &MachineOptions) -> Result<MachineOptions> {
    let mut machine = MachineOptions {
        additions: Additions::default(),
        ..options.clone()
    };
    machine.iommu_option.insert(0, "intremap=on".to_owned());
    machine.one_thread = true;
    if machine.accel == Accel::Tcg {
        // On a busy host the kernel measures the processor's clock wrongly, and the second guest's
        // time then stands still for minutes. Where the clock can change, the number is not that of
        // the time stamps.
        let text = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let steady = !Path::new(FREQUENCIES).exists();
        if let Some(khz) = clock_khz(&text).filter(|_| steady) {
            machine.append.insert(0, format!("tsc_early_khz={khz}"));
        }
    }
    Ok(machine)
}

/// The processor's clock in kHz, from `/proc/cpuinfo`.
fn clock_khz(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("cpu MHz"))?;
    let mhz: f64 = line.split_once(':')?.1.trim().parse().ok()?;
    Some((mhz * 1000.0) as u64)
}

/// The ports of the first guest that are the second's console and results channel: virtio ports, or its
/// third and fourth serial port. Those of a neighbour follow.
fn ports(files: &Files, virtio: bool, neighbour: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if virtio {
        // The second controller of the first guest, whose own results channel is the first.
        arguments.extend(["-device", "virtio-serial-pci,id=l2,addr=1e"].map(Into::into));
    }
    let ports = [
        ("l2console", &files.second_console),
        ("l2results", &files.second_events),
        ("neighbourconsole", &files.neighbour_console),
        ("neighbourresults", &files.neighbour_events),
    ];
    let count = if neighbour { 4 } else { 2 };
    for (number, (id, path)) in (1..).zip(ports).take(count) {
        let file = format!("file,id={id},path=");
        arguments.extend(["-chardev".into(), machine::with_path(&file, path)]);
        arguments.extend(match virtio {
            true => {
                let port = format!("virtserialport,bus=l2.0,nr={number},chardev={id}");
                ["-device".into(), port.into()]
            }
            false => ["-serial".into(), format!("chardev:{id}").into()],
        });
    }
    arguments
}

/// What the first guest contains: QEMU with its libraries and firmware, the plug-in, and the second
/// guest's kernel and initial file system.
fn first_files(
    prepared: &Prepared,
    options: &SecondOptions,
    images: &[(&str, &PathBuf)],
) -> Result<Added> {
    let mut added = Added {
        no_driver: true,
        ..Added::default()
    };
    let files = &mut added.files;
    let plugin = plugin(prepared, options)?;
    add_qemu(files, prepared, plugin.as_deref())?;
    let kernel = &prepared.kernel;
    let kernel = kernel.unpacked.as_ref().unwrap_or(&kernel.packed);
    files.place(kernel, &format!("{DIRECTORY}/kernel"), 0o644)?;
    for (name, image) in images {
        files.place(image, &format!("{DIRECTORY}/{name}"), 0o644)?;
    }
    files.place_text(ATTEND, &format!("{DIRECTORY}/attend.sh"), 0o644)?;
    Ok(added)
}

/// The library that is loaded into the first guest's QEMU, if any.
fn plugin(prepared: &Prepared, options: &SecondOptions) -> Result<Option<PathBuf>> {
    match &options.l2_plugin {
        None => Ok(Some(prepared.plugin.clone())),
        Some(path) if path == Path::new("none") => Ok(None),
        Some(path) => {
            let found = path.canonicalize();
            let found = found
                .with_context(|| format!("cannot find {} (option --l2-plugin)", path.display()))?;
            Ok(Some(found))
        }
    }
}

/// What the first guest does: it gives the device to VFIO, runs the second guest, and takes the
/// device back.
fn first_plan(second: &[String], neighbour: Option<&[String]>, limit: u32) -> Result<Plan> {
    let inner: &[Inner] = match neighbour {
        Some(_) => &[L2, L2_NEIGHBOUR],
        None => &[L2],
    };
    let each = |line: &dyn Fn(&str, &Inner) -> String| {
        let lines = inner.iter().map(|inner| {
            let directory = format!("/sys/bus/pci/devices/{}", inner.device);
            line(&directory, inner)
        });
        lines.collect::<Vec<_>>().join(" && ")
    };
    let give = each(&|directory, inner| {
        format!(
            "cat {directory}/vendor {directory}/device | tr '\\n' ' ' && \
             echo vfio-pci >{directory}/driver_override && \
             echo {} >/sys/bus/pci/drivers_probe && ls {directory}/vfio-dev /dev/kvm /dev/iommu",
            inner.device
        )
    });
    let free = each(&|directory, inner| {
        let device = inner.device;
        format!("echo {device} >{directory}/driver/unbind && echo >{directory}/driver_override")
    });
    let driver = format!("insmod /svm/modules/{}.ko", plans::DRIVER);
    // A PASID of the second guest that is still attached would refuse one of the same number.
    let works = each(&|_, inner| format!("svmctl --device {} demo heap two", inner.node));
    let step = match neighbour {
        None => {
            let arguments: Vec<_> = second.iter().map(String::as_str).collect();
            Step::new(STEP, &arguments)
        }
        Some(neighbour) => {
            let line = |words: &[String]| shlex::try_join(words.iter().map(String::as_str));
            // How the neighbour ended, its own results say.
            let (second, neighbour) = (line(second)?, line(neighbour)?);
            let both = format!("{neighbour} & {second}; status=$?; wait $!; exit $status");
            Step::shell(STEP, &both)
        }
    };
    Ok(Plan {
        steps: vec![
            Step::shell("the device is given to VFIO", &give),
            step.within(limit),
            Step::shell(
                "the device is free, and works for L1",
                &format!("{free} && {driver} && {works}"),
            ),
        ],
        ..Plan::default()
    })
}

/// The command that starts the second guest, in the first.
fn second_qemu(
    prepared: &Prepared,
    options: &NestedOptions,
    virtio: bool,
    limit: u32,
    inner: &Inner,
) -> Vec<String> {
    let (run, second) = (&options.run, &options.second);
    let attend = format!("{DIRECTORY}/attend.sh");
    let examined = limit.saturating_sub(TO_ANSWER).to_string();
    let mut words: Vec<String> = ["sh", &attend, inner.name, &examined, "env"]
        .map(str::to_owned)
        .into();
    words.extend(second.l2_env.iter().cloned());
    if second.l2_plugin.as_deref() != Some(Path::new("none")) {
        words.push(format!("LD_PRELOAD={DIRECTORY}/plugin.so"));
    }
    let iommu = match second.l2_iommu {
        Iommu::IntelIommu => {
            "intel-iommu,caching-mode=on,scalable-mode=on,fsts=on,svm=on,device-iotlb=on,\
             pasid-bits=20,intremap=on"
        }
        Iommu::SvmVtd => "svm-vtd,caching-mode=on,ssts=off,intremap=on",
    };
    let with = |first: &str, options: &[String]| {
        let options = options.iter().map(String::as_str);
        let words = std::iter::once(first).chain(options).collect::<Vec<_>>();
        words.join(",")
    };
    let iommu = with(iommu, &second.l2_iommu_option);
    let mut device = format!("vfio-pci,id=svm0,bus=root,host={}", inner.device);
    if !second.l2_type1 {
        device += ",iommufd=iommufd0";
    }
    let device = with(&device, &second.l2_device_option);
    let mut kernel = vec![
        "console=ttyS0",
        "panic=-1",
        "oops=panic",
        "intel_iommu=on,sm_on",
        "no_timer_check",
    ];
    if run.machine.accel == Accel::Tcg {
        // One clock of QEMU, as in the first guest. Where the kernel does not know that, its
        // processors wait for each other twice a second, to compare their TSCs.
        kernel.push("tsc=reliable");
    }
    if !run.machine.boot_log {
        kernel.extend(["quiet", "loglevel=5"]);
    }
    let [console, results] = chardevs(virtio, inner);
    let mut channel = vec!["-chardev", &results];
    if virtio {
        kernel.push(machine::VIRTIO_RESULTS_ARGUMENT);
        channel.extend(["-chardev", "null,id=none", "-serial", "chardev:none"]);
        channel.extend(machine::VIRTIO_RESULTS);
    } else {
        channel.extend(["-serial", "chardev:results"]);
    }
    kernel.extend(second.l2_append.iter().map(String::as_str));
    let kernel = kernel.join(" ");
    let (cpus, image, initramfs) = (
        second.l2_cpus.to_string(),
        format!("{DIRECTORY}/kernel"),
        format!("{DIRECTORY}/{}", inner.initramfs),
    );
    // The packed image has no PVH entry.
    let bios: &[&str] = match prepared.kernel.unpacked {
        Some(_) => &["-bios", "qboot.rom"],
        None => &[],
    };
    let fixed: &[&str] = &[
        QEMU,
        "-L",
        FIRMWARE,
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-M",
        // KVM on translated code creates no whole one.
        "q35,kernel-irqchip=split",
        "-accel",
        "kvm",
        "-cpu",
        "host,la57=off",
        "-smp",
        &cpus,
        "-m",
        &second.l2_memory,
        "-device",
        &iommu,
        "-object",
        "iommufd,id=iommufd0",
        "-device",
        "pcie-root-port,id=root,chassis=1,slot=1,addr=1",
        "-device",
        &device,
        "-kernel",
        &image,
        "-initrd",
        &initramfs,
        "-append",
        &kernel,
        "-chardev",
        &console,
        "-serial",
        "chardev:console",
    ];
    let pipe = |id| format!("pipe,id={id},path=/tmp/{}/{id}", inner.name);
    let (host, qmp) = (pipe("host"), pipe("qmp"));
    let attended: &[&str] = &[
        "-chardev",
        &host,
        "-serial",
        "chardev:host",
        "-chardev",
        &qmp,
        "-qmp",
        "chardev:qmp",
    ];
    let reboot: &[&str] = if second.l2_reboots {
        &[]
    } else {
        &["-no-reboot"]
    };
    for part in [fixed, bios, &channel, attended, reboot] {
        words.extend(part.iter().map(|&word| word.to_owned()));
    }
    words.extend(second.l2_qemu_argument.iter().cloned());
    words
}

/// The chardevs of the first guest's QEMU for its console and its results channel, see [`ports`].
fn chardevs(virtio: bool, inner: &Inner) -> [String; 2] {
    let [console, results] = inner.ports;
    match virtio {
        true => [
            format!("file,id=console,path=/dev/vport1p{console}"),
            format!("file,id=results,path=/dev/vport1p{results}"),
        ],
        false => [
            "serial,id=console,path=/dev/ttyS2".to_owned(),
            "serial,id=results,path=/dev/ttyS3".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_in_khz() {
        let text = "processor\t: 0\ncpu MHz\t\t: 2445.426\nprocessor\t: 1\ncpu MHz\t\t: 1.0\n";
        assert_eq!(clock_khz(text), Some(2_445_426));
        assert_eq!(clock_khz("processor\t: 0\n"), None);
    }

    #[test]
    fn a_kernel_that_cannot_be_a_host_is_told_what_it_lacks() {
        let option = |name: &&str| ((*name).to_owned(), "y".to_owned());
        let mut options: BTreeMap<_, _> = HOST_OPTIONS.iter().map(option).collect();
        can_be_host(&options).unwrap();
        options.insert("CONFIG_KVM".to_owned(), "m".to_owned());
        let error = can_be_host(&options).unwrap_err().to_string();
        assert!(error.contains("it lacks CONFIG_KVM, built in"), "{error}");
    }
}
