// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a guest: packs its initial file system, starts QEMU, follows the guest to its end, judges
//! it and leaves the files of the run in `target/runs/<name>`.

mod console;
pub mod fetch;
mod follow;
mod hang;
mod inside;
mod judge;
mod junit;
mod machine;
pub mod nested;
mod render;
mod reset;
mod results;
mod shell;
mod trace;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{IsTerminal as _, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use qemu_layout::REFUSED;
use svm_init::events::{Event, Status};
use svm_init::paths;
use svm_init::plan::Plan;

use crate::additions::Added;
use crate::cache::lock::Lock;
use crate::cli::{
    Accel, Groups, MachineOptions, Place, PlanName, QemuOptions, RunOptions, ShellOptions,
};
use crate::external::tail;
use crate::installation::Installation;
use crate::plans::{self, Given};
use crate::prepare::{self, Prepared, Qemu, host, initramfs, kernel};
use crate::progress::{Progress, Task};

use console::{Kind, Watcher};
use follow::{Ending, Follower, Source, Then};
use hang::Monitor;
use judge::Found;
pub use judge::NOT_THE_COMMAND;
use machine::{Console, Files};
use render::Renderer;
use results::Results;

/// How long QEMU may take to end after the guest has reported its end or a panic.
const TO_END: Duration = Duration::from_secs(30);

/// QEMU's messages when the host's virtualization fails.
const QEMU_STOPS: &[&str] = &["KVM internal error", "error: kvm run failed"];

/// Lines of a log that a failure shows.
const SHOWN_LINES: usize = 20;

/// Name of the file in a run's folder that is locked during the run.
pub const LOCK: &str = ".lock";

/// A run before its start.
struct Run<'a> {
    plan_name: &'a str,
    plan: Plan,
    /// The plan is a single command of the user, whose exit status is that of the run.
    is_exec: bool,
    renderer: Renderer,
    timeout: Duration,
    options: &'a MachineOptions,
    added: Added,
    progress: &'a Progress,
}

/// `svm-vm run`.
pub fn command(place: &Place, options: &RunOptions) -> Result<ExitCode> {
    let machine = &options.machine;
    let groups = options.groups()?;
    let progress = Progress::new();
    let (prepared, added) = prepare_for(place, machine, &progress)?;
    let given = Given {
        groups,
        ..given(&prepared, machine, &added)
    };
    let (plan_name, plan) = match &options.exec {
        Some(line) => ("exec", plans::exec(line, &given)),
        None => {
            let plan = plans::plan(options.plan, &options.scale, &given);
            (options.plan.name(), plan)
        }
    };
    let several = plan.steps.len() > 1;
    let run = Run {
        plan_name,
        plan,
        is_exec: options.exec.is_some(),
        renderer: Renderer::new(options.verbose || options.exec.is_some(), several),
        timeout: Duration::from_secs(options.seconds().into()),
        options: machine,
        added,
        progress: &progress,
    };
    let (results, code) = run.perform(&prepared)?;
    if let Some(path) = &options.junit {
        fs::write(path, junit::report(&results)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&results.summary());
    Ok(code)
}

/// `svm-vm doctor --guest`: prints the examination as text or JSON.
pub fn doctor(place: &Place, json: bool) -> Result<ExitCode> {
    let options = MachineOptions::standard();
    let progress = Progress::new();
    let (prepared, added) = prepare_for(place, &options, &progress)?;
    let run = Run {
        plan_name: "doctor",
        plan: plans::doctor(json, &given(&prepared, &options, &added)),
        is_exec: false,
        renderer: Renderer::new(true, false),
        timeout: Duration::from_secs(300),
        options: &options,
        added,
        progress: &progress,
    };
    Ok(run.perform(&prepared)?.1)
}

/// Runs the demonstration on the prepared parts, and returns the last line of its report.
///
/// # Errors
///
/// The failure, in a line.
pub fn demonstration(
    prepared: &Prepared,
    options: &MachineOptions,
    progress: &Progress,
) -> Result<String> {
    let added = Added::default();
    let given = given(prepared, options, &added);
    let run = Run {
        plan_name: PlanName::Demo.name(),
        plan: plans::plan(PlanName::Demo, "1", &given),
        renderer: Renderer::new(false, false),
        is_exec: false,
        timeout: Duration::from_secs(300),
        options,
        added,
        progress,
    };
    let (results, _) = run.perform(prepared)?;
    match results.first_failure() {
        Some(why) => bail!("{why}"),
        None => Ok(results.summary()),
    }
}

/// Whether the plug-in supports a QEMU.
///
/// # Errors
///
/// The plug-in's refusal.
pub fn accepts(qemu: &Qemu, plugin: &Path) -> Result<()> {
    let help = machine::start(qemu, plugin)?
        .args(["-machine", "none", "-device", "svm-demo,help"])
        .command()
        .output()
        .context("cannot start QEMU by setpriv")?;
    let (said, errors) = (
        String::from_utf8_lossy(&help.stdout),
        String::from_utf8_lossy(&help.stderr),
    );
    // QEMU's last message is not the reason: it only says that there is no such device.
    if let Some(refusal) = errors.lines().find(|line| line.contains(REFUSED)) {
        bail!("{}", refusal.trim());
    }
    if !help.status.success() || !said.contains("trace=") {
        let all = [said, errors].concat();
        bail!("QEMU ended with {}: {}", help.status, tail(&all, 1).trim());
    }
    Ok(())
}

/// `svm-vm shell`. If standard input is not a terminal, it runs the commands from there.
pub fn shell(place: &Place, options: &ShellOptions) -> Result<ExitCode> {
    let options = &options.machine;
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return script(place, options, stdin.lock());
    }
    shell::come_to_foreground(&stdin)?;
    let progress = Progress::new();
    let (prepared, added) = prepare_for(place, options, &progress)?;
    let (files, _lock) = open_run(&prepared.installation, "shell", options)?;
    let plan = plans::shell(&given(&prepared, options, &added));
    initramfs::pack(&prepared, &plan, &added, &files.initramfs)?;
    let fetch = fetch_arguments(&plan, &files)?;
    progress.line("starting the guest; `exit` or Ctrl-A X ends it");

    let mut command =
        machine::command(&prepared, options, &files, Console::Terminal, &fetch)?.command();
    command.stdin(Stdio::inherit());
    // QEMU's messages about the device would disturb the user's typing.
    command.stderr(qemu_log(&files)?);
    let ending = shell::attend(&stdin, || {
        command.spawn().context("cannot start QEMU by setpriv")
    })?;
    let _ = fs::remove_file(&files.initramfs);
    report_setup_failures(&files)?;
    take_fetched(&files, &plan, &progress)?;
    match ending {
        Ending::Exited(status) if !status.success() => {
            let said = fs::read_to_string(&files.qemu).unwrap_or_default();
            bail!("QEMU ended with {status}:\n{}", said.trim_end());
        }
        Ending::Interrupted(signal) => Ok(ExitCode::from(judge::by_signal(signal as i32))),
        Ending::Exited(_) | Ending::TimedOut => Ok(ExitCode::SUCCESS),
    }
}

/// `svm-vm shell` with commands from a pipe or a file: runs them and ends with their exit status.
fn script(place: &Place, options: &MachineOptions, input: impl Read) -> Result<ExitCode> {
    let script = shell::read_script(input)?;
    let progress = Progress::new();
    let (prepared, mut added) = prepare_for(place, options, &progress)?;
    added.files.script(script);
    let line = format!("exec sh {}", paths::SCRIPT);
    let run = Run {
        plan_name: "shell",
        plan: plans::exec(&line, &given(&prepared, options, &added)),
        is_exec: true,
        renderer: Renderer::new(true, false),
        timeout: shell::NO_LIMIT,
        options,
        added,
        progress: &progress,
    };
    Ok(run.perform(&prepared)?.1)
}

/// `svm-vm qemu`: this process becomes QEMU, or prints the command.
pub fn qemu(place: &Place, options: &QemuOptions) -> Result<ExitCode> {
    let (qemu, plugin) = prepare::prepare_qemu(place, options.qemu.as_deref(), &Progress::new())?;
    let qemu = machine::start(&qemu, &plugin)?.args(&options.arguments);
    if options.print {
        println!("{}", qemu.line()?);
        return Ok(ExitCode::SUCCESS);
    }
    let error = qemu.untethered().exec();
    Err(error).context("cannot start QEMU")
}

impl Run<'_> {
    /// Runs the guest, shows the events, and writes the results.
    fn perform(self, prepared: &Prepared) -> Result<(Results, ExitCode)> {
        let (files, _lock) = open_run(&prepared.installation, self.plan_name, self.options)?;
        initramfs::pack(prepared, &self.plan, &self.added, &files.initramfs)?;
        let fetch = fetch_arguments(&self.plan, &files)?;
        let mut results = self.new_results(prepared, &files);
        let output_was_shown = self.renderer.shows_output();

        let mut follower = Follower::new(&[
            (Source::Console, &files.console),
            (Source::Results, &files.events),
            (Source::Qemu, &files.qemu),
        ])?;
        let task = self.progress.quick_task("booting the guest");
        let start = Instant::now();
        let (mut child, monitor) = start_qemu(prepared, self.options, &files, fetch)?;
        if output_was_shown {
            self.progress
                .line(&format!("QEMU is process {}", child.id()));
        }
        let mut view = View {
            level: "",
            renderer: self.renderer,
            progress: self.progress,
            booting: Some(task),
            watcher: Watcher::default(),
            results: &mut results,
            start,
        };
        let mut found = None;
        let ending = follower.follow(
            &mut child,
            self.timeout,
            |source, line| {
                Ok(match source {
                    Source::Console => view.console(line),
                    Source::Results => view.event(line),
                    Source::Qemu => view.qemu(line),
                    Source::SecondConsole
                    | Source::SecondResults
                    | Source::NeighbourConsole
                    | Source::NeighbourResults => Then::Continue,
                })
            },
            |child| found = Some(monitor.report(child.id())),
        )?;
        if let Some(task) = view.booting.take() {
            drop(task);
        }
        results.seconds = start.elapsed().as_secs_f64();
        let why = why_it_ended(&files, found)?;
        judge::ending(&mut results, &ending, self.timeout, &why);
        if let Err(error) = take_fetched(&files, &self.plan, self.progress) {
            results.fail(format!("{error:#}"));
        }
        results.close();
        let text = serde_json::to_string_pretty(&results).context("cannot write the results")?;
        fs::write(&files.results, text + "\n")
            .with_context(|| format!("cannot write {}", files.results.display()))?;
        // It is large, and each run packs it again.
        let _ = fs::remove_file(&files.initramfs);
        show_failures(&results, &files, output_was_shown);
        let code = judge::status(&results, &ending, self.is_exec);
        Ok((results, ExitCode::from(code)))
    }

    fn new_results(&self, prepared: &Prepared, files: &Files) -> Results {
        let name = files.directory.file_name().unwrap_or_default();
        let mut results = Results::new(&name.to_string_lossy(), self.plan_name);
        results.qemu = match &prepared.qemu {
            Qemu::Prepared { version, .. } => version.clone(),
            Qemu::Own { path, .. } => path.display().to_string(),
        };
        results.accel = self.options.accel.name().to_owned();
        results.iommu = self.options.iommu.name().to_owned();
        results
    }
}

/// Processes the lines of a guest and shows the relevant ones.
struct View<'a> {
    /// Name of the guest's level, if there are several.
    level: &'static str,
    renderer: Renderer,
    progress: &'a Progress,
    booting: Option<Task>,
    watcher: Watcher,
    results: &'a mut Results,
    start: Instant,
}

impl View<'_> {
    /// The beginning of a line about a guest's level.
    fn of_level(&self) -> String {
        match self.level {
            "" => String::new(),
            level => format!("{level}: "),
        }
    }

    fn console(&mut self, line: &str) -> Then {
        let Some(trouble) = self.watcher.feed(line) else {
            return Then::Continue;
        };
        self.progress.line(&format!(
            "  {}{}: {}",
            self.of_level(),
            trouble.kind.describe(),
            trouble.line
        ));
        let kind = trouble.kind;
        self.results.trouble(trouble);
        if kind == Kind::Panic {
            Then::EndsWithin(TO_END)
        } else {
            Then::Continue
        }
    }

    fn qemu(&mut self, line: &str) -> Then {
        // QEMU then stops the guest and waits for a debugger.
        if QEMU_STOPS.iter().any(|sign| line.contains(sign)) {
            self.results
                .fail(format!("QEMU cannot run the guest: {line}"));
            return Then::EndsWithin(Duration::ZERO);
        }
        Then::Continue
    }

    fn event(&mut self, line: &str) -> Then {
        let event = match Event::parse(line) {
            Ok(event) => event,
            Err(error) => {
                self.results.fail(format!(
                    "the guest sent a line that is no event ({error}): {line}"
                ));
                return Then::Continue;
            }
        };
        if let Event::Ready(ready) = &event {
            if let Some(task) = self.booting.take() {
                task.done();
            }
            let seconds = self.start.elapsed().as_secs_f64();
            // That of the first boot, if the guest reboots.
            self.results.boot_seconds.get_or_insert(seconds);
            self.progress.line(&format!(
                "{} is up after {seconds:.1} s: Linux {}, {} processors, {} MiB",
                if self.level.is_empty() {
                    "guest"
                } else {
                    self.level
                },
                ready.kernel,
                ready.cpus,
                ready.memory_kib / 1024
            ));
        }
        for line in self.renderer.lines(&event) {
            say(&format!("{}{line}", self.of_level()));
        }
        let then = match &event {
            Event::End(_) => Then::EndsWithin(TO_END),
            _ => Then::Continue,
        };
        self.results.take(event);
        then
    }
}

/// Prints a line. The run continues if the reader has gone away.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What is known of a guest's end: of one that hangs, whose description is kept, or that was reset.
fn why_it_ended(files: &Files, hang: Option<hang::Report>) -> Result<Found> {
    let Some(hang) = hang else {
        return Ok(match reset::is_triple_fault(&files.processors) {
            true => Found::TripleFault,
            false => Found::Nothing,
        });
    };
    fs::write(&files.hang, &hang.text)
        .with_context(|| format!("cannot write {}", files.hang.display()))?;
    Ok(Found::Hang(hang.summary))
}

fn prepare_for(
    place: &Place,
    options: &MachineOptions,
    progress: &Progress,
) -> Result<(Prepared, Added)> {
    if options.accel == Accel::Kvm {
        host::kvm()?;
    }
    let mut added = Added::collect(&options.additions, &options.memory)?;
    let prepared = prepare::prepare(place, &options.parts, progress)?;
    if options.additions.with_qemu {
        inside::add_command(&mut added.files, &prepared)?;
        added.check_size(&options.memory)?;
    }
    added.check_kernel(&prepared.driver)?;
    Ok((prepared, added))
}

/// QEMU's arguments for the files that the plan fetches.
fn fetch_arguments(plan: &Plan, files: &Files) -> Result<Vec<OsString>> {
    let arguments = plan
        .fetch
        .as_ref()
        .map(|plan| fetch::arguments(plan, files));
    Ok(arguments.transpose()?.unwrap_or_default())
}

/// Unpacks the files that the guest sent, if it reached that point.
fn take_fetched(files: &Files, plan: &Plan, progress: &Progress) -> Result<()> {
    if plan.fetch.is_none() {
        return Ok(());
    }
    let text = fs::read_to_string(&files.events).unwrap_or_default();
    let mut events = text.lines().filter_map(|line| Event::parse(line).ok());
    if !events.any(|event| matches!(event, Event::Fetch(fetched) if fetched.status == Status::Ok)) {
        return fetch::discard(files);
    }
    fetch::unpack(files)?;
    progress.line(&format!("fetched into {}", files.fetched.display()));
    Ok(())
}

fn given(prepared: &Prepared, options: &MachineOptions, added: &Added) -> Given {
    let own_modules = added.modules.iter().map(|(module, _)| module.clone());
    Given {
        groups: Groups::All,
        own_modules: own_modules.collect(),
        no_driver: added.no_driver,
        fetch: fetch::plan(prepared, &added.fetch),
        modules: kernel::loaded(&prepared.modules)
            .map(str::to_owned)
            .collect(),
        driver_options: options.driver_option.clone(),
        kernel_options: prepared.kernel_options.clone(),
    }
}

/// Opens and locks the directory of a run. If a requested name is in use, this is an error;
/// otherwise it uses the next free name.
fn open_run(
    installation: &Installation,
    plan: &str,
    options: &MachineOptions,
) -> Result<(Files, Lock)> {
    let runs = installation.runs();
    let mut attempt = 1;
    loop {
        let name = match (&options.name, attempt) {
            (Some(name), _) => name.clone(),
            (None, 1) => plan.to_owned(),
            (None, number) => format!("{plan}-{number}"),
        };
        let directory = runs.join(&name);
        match Lock::try_exclusive(&directory.join(LOCK))? {
            Ok(lock) => {
                let files = Files::new(&directory);
                clear(&files)?;
                return Ok((files, lock));
            }
            Err(holder) if options.name.is_some() => {
                bail!("the run {name:?} is in use by {holder}: wait for it, or give another --name")
            }
            Err(_) => attempt += 1,
        }
    }
}

/// Removes the files of an earlier run with this name, and creates the files to follow.
fn clear(files: &Files) -> Result<()> {
    for path in files.all() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    fetch::clear(&files.fetched)?;
    for path in [&files.console, &files.events, &files.qemu] {
        File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    Ok(())
}

/// The file for QEMU's messages. QEMU may also log to the same file, so it is opened for appending.
fn qemu_log(files: &Files) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(&files.qemu)
        .with_context(|| format!("cannot create {}", files.qemu.display()))
}

fn start_qemu(
    prepared: &Prepared,
    options: &MachineOptions,
    files: &Files,
    mut extra: Vec<OsString>,
) -> Result<(Child, Monitor)> {
    let (monitor, inherited) = Monitor::new()?;
    extra.extend(inherited.arguments());
    let log = qemu_log(files)?;
    let copy = log.try_clone().context("cannot duplicate a file")?;
    let child = machine::command(prepared, options, files, Console::File, &extra)?
        .command()
        .stdout(copy)
        .stderr(log)
        .spawn()
        .context("cannot start QEMU by setpriv")?;
    Ok((child, monitor))
}

/// Shows why a run failed: the ends of the logs if the failure is not in a step.
fn show_failures(results: &Results, files: &Files, output_was_shown: bool) {
    if results.failed == 0 {
        return;
    }
    for failure in &results.failures {
        eprintln!("{failure}");
    }
    if !results.failures.is_empty() || !results.troubles.is_empty() {
        for path in [
            &files.console,
            &files.second_console,
            &files.neighbour_console,
            &files.qemu,
        ] {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            if !text.trim().is_empty() {
                eprintln!(
                    "the end of {}:\n{}",
                    path.display(),
                    tail(&text, SHOWN_LINES)
                );
            }
        }
    }
    let others = results.host.iter().chain(&results.neighbour);
    for step in others
        .flat_map(|other| &other.steps)
        .chain(&results.steps)
        .filter(|step| step.end.status == Status::Failed)
    {
        if !output_was_shown && !step.output.is_empty() {
            let output = step.output.join("\n");
            eprintln!(
                "the end of what {:?} printed:\n{}",
                step.end.name,
                tail(&output, SHOWN_LINES)
            );
        }
    }
    eprintln!("all of it is in {}", files.directory.display());
}

/// Reports failures before the start of the shell, such as a driver that did not load.
fn report_setup_failures(files: &Files) -> Result<()> {
    let text = fs::read_to_string(&files.events)
        .with_context(|| format!("cannot read {}", files.events.display()))?;
    for event in text.lines().filter_map(|line| Event::parse(line).ok()) {
        match event {
            Event::Setup(setup) if setup.status == Status::Failed => {
                eprintln!("{} failed: {}", setup.name, setup.message);
            }
            Event::Fetch(fetch) if fetch.status == Status::Failed => {
                eprintln!("cannot fetch {}: {}", fetch.path, fetch.message);
            }
            _ => {}
        }
    }
    Ok(())
}
