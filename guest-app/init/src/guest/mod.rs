// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of the guest's first process: from the bare initramfs to power-off.

mod channel;
mod files;
mod mounts;
mod steps;
mod swap;
mod trace;

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::reboot::{RebootMode, reboot};
use svm_init::events::{EndEvent, Event, ReadyEvent, SetupEvent, Status};
use svm_init::paths;
use svm_init::plan::{Module, Plan};

use channel::Channel;
use steps::Runner;
use trace::Tracer;

/// Runs the guest and powers it off. Never returns: the kernel panics when the first process
/// ends.
pub fn main() -> ! {
    if let Err(error) = run() {
        // Only the console is left to report on. The missing end event fails the run.
        eprintln!("svm-init: {error:#}");
    }
    match power_off() {
        Ok(never) => match never {},
        Err(error) => panic!("svm-init: cannot power off: {error:#}"),
    }
}

fn power_off() -> Result<Infallible> {
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF).context("reboot(RB_POWER_OFF)")
}

fn run() -> Result<()> {
    mounts::mount_all()?;
    let words = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    let results = channel::path(&words);
    let mut channel = Channel::open(results.as_ref())?;
    channel.send(&Event::Ready(ready()?))?;

    let text = fs::read_to_string(paths::PLAN)
        .with_context(|| format!("cannot read the plan {}", paths::PLAN))?;
    let plan = Plan::parse(&text).with_context(|| format!("{} is not a plan", paths::PLAN))?;
    // With `quiet` the kernel keeps warnings off the console, but svm-vm must see them there. In an
    // interactive shell they would disturb the user's typing, and `dmesg` has them.
    let level = if plan.shell { "4" } else { "7" };
    fs::write("/proc/sys/kernel/printk", level).context("cannot set the console's log level")?;

    let mut ready_for_steps = true;
    if Path::new(paths::LATE).exists() {
        ready_for_steps &= set_up(&mut channel, "files of one's own", files::place_late)?;
    }
    for module in &plan.modules {
        let name = format!("load {}", module.name);
        ready_for_steps &= set_up(&mut channel, &name, || load(module))?;
    }
    if let Some(mib) = plan.swap_mib {
        ready_for_steps &= set_up(&mut channel, "compressed swap", || swap::set_up(mib))?;
    }
    let mut runner = Runner::new(results)?;
    // After the modules, which bring events, and after the runner has blocked its signals.
    let mut tracer = None;
    if !plan.trace.is_empty() {
        ready_for_steps &= set_up(&mut channel, "the kernel's trace", || {
            let started = Tracer::start(&plan.trace, results)?;
            runner.mark(&started.marker());
            tracer = Some(started);
            Ok(())
        })?;
    }
    if plan.shell {
        runner.shell()?;
    }
    for step in &plan.steps {
        if ready_for_steps {
            ready_for_steps = runner.run(step, &mut channel)?;
        } else {
            runner.skip(
                step,
                &mut channel,
                "an earlier part of the plan failed for good",
            )?;
        }
    }
    if let Some(fetch) = &plan.fetch {
        files::fetch(fetch, &mut channel)?;
    }
    if let Some(tracer) = tracer {
        set_up(&mut channel, "the end of the trace", || tracer.finish())?;
    }
    channel.send(&Event::End(EndEvent {
        uptime_micros: uptime_micros()?,
    }))
}

/// Performs one preparation step and reports it. Returns whether it succeeded.
fn set_up(channel: &mut Channel, name: &str, action: impl FnOnce() -> Result<()>) -> Result<bool> {
    let start = Instant::now();
    let outcome = action();
    channel.send(&Event::Setup(SetupEvent {
        name: name.to_owned(),
        status: if outcome.is_ok() {
            Status::Ok
        } else {
            Status::Failed
        },
        message: outcome
            .as_ref()
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default(),
        micros: steps::micros(start.elapsed()),
    }))?;
    Ok(outcome.is_ok())
}

/// Loads a kernel module.
fn load(module: &Module) -> Result<()> {
    let path = Path::new(paths::MODULES).join(format!("{}.ko", module.name));
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let parameters = std::ffi::CString::new(module.parameters.as_str())
        .context("the parameters hold a NUL byte")?;
    finit_module(file, &parameters, ModuleInitFlags::empty())
        .with_context(|| format!("the kernel refused {}", path.display()))
}

/// Runs a busybox program and waits for its end.
fn busybox(arguments: &[&str]) -> Result<()> {
    let output = Command::new("/bin/busybox")
        .args(arguments)
        .output()
        .context("cannot run /bin/busybox")?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn ready() -> Result<ReadyEvent> {
    let system = nix::sys::utsname::uname().context("uname")?;
    let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(ReadyEvent {
        kernel: system.release().to_string_lossy().into_owned(),
        uptime_micros: uptime_micros()?,
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_kib: memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .context("/proc/meminfo has no MemTotal")?,
    })
}

/// Time since the kernel started, in microseconds. The kernel reports it in hundredths of a second.
fn uptime_micros() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    let (seconds, hundredths) = first.split_once('.').unwrap_or((first, "0"));
    let number = |digits: &str| {
        digits
            .parse::<u64>()
            .with_context(|| format!("/proc/uptime reads {text:?}"))
    };
    Ok(number(seconds)? * 1_000_000 + number(hundredths)? * 10_000)
}
