// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows the kernel's events live: the tracepoints of the IOMMU core, of its driver, and of the
//! device's driver. It uses its own trace instance, which is removed when the program ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;
use svm_cases::harness::report::print_json;

/// Where tracefs is mounted, on its own and below debugfs.
const TRACING: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The systems whose events are followed by default.
const SYSTEMS: &[&str] = &["svm_demo", "intel_iommu", "iommu"];

/// Prints events until `duration` is over or someone interrupts the program.
pub fn follow(as_json: bool, duration: Option<Duration>, wanted: &[String]) -> anyhow::Result<()> {
    let tracing = TRACING
        .iter()
        .map(Path::new)
        .find(|path| path.join("instances").is_dir())
        .context(
            "the kernel's tracing is not to be seen: run this as root, and \
             `mount -t tracefs nodev /sys/kernel/tracing`",
        )?;
    // Before the instance is created: a signal must not leave it behind.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    mask.thread_block().context("sigprocmask")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("signalfd")?;
    let instance = Instance::new(tracing)?;
    let enabled = instance.enable(wanted)?;
    eprintln!("following {}; Ctrl-C ends it", enabled.join(", "));
    let deadline = duration.map(|duration| Instant::now() + duration);
    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(instance.path("trace_pipe"))
        .context("trace_pipe")?;
    let mut lines = Lines::default();
    loop {
        let timeout = match deadline.map(|end| end.checked_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(None) => break,
            Some(Some(left)) => {
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [
            PollFd::new(pipe.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let [events, interrupted] = fds.map(|fd| fd.any() == Some(true));
        if events {
            lines.read(&mut pipe)?;
            print(&mut lines, as_json)?;
        }
        if interrupted {
            break;
        }
    }
    Ok(())
}

fn print(lines: &mut Lines, as_json: bool) -> anyhow::Result<()> {
    for line in lines.take() {
        match (as_json, parse(&line)) {
            (false, _) => writeln!(io::stdout(), "{line}")?,
            (true, Some(event)) => print_json(&event)?,
            (true, None) => {}
        }
    }
    Ok(io::stdout().flush()?)
}

/// An event as an object: `comm-pid [cpu] flags seconds: name: text`.
fn parse(line: &str) -> Option<serde_json::Value> {
    let (front, rest) = line.split_once(": ")?;
    let (name, text) = rest
        .split_once(": ")
        .unwrap_or((rest.trim_end_matches(':'), ""));
    let (front, seconds) = front.trim_end().rsplit_once(' ')?;
    let (task, cpu) = front.split_once('[')?;
    let (comm, pid) = task.trim().rsplit_once('-')?;
    let cpu = cpu.split_once(']')?.0;
    Some(json!({
        "seconds": seconds.parse::<f64>().ok()?,
        "cpu": cpu.parse::<u32>().ok()?,
        "task": comm,
        "pid": pid.parse::<u32>().ok()?,
        "event": name,
        "text": text.trim(),
    }))
}

/// Splits the bytes read into whole lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn read(&mut self, from: &mut File) -> anyhow::Result<()> {
        let mut buffer = [0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.0.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("trace_pipe"),
            }
        }
    }

    fn take(&mut self) -> Vec<String> {
        let end = self.0.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = end else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        let text = String::from_utf8_lossy(&whole).into_owned();
        text.lines().map(str::to_owned).collect()
    }
}

/// A trace instance, independent of all other tracing.
struct Instance(PathBuf);

impl Instance {
    fn new(tracing: &Path) -> anyhow::Result<Instance> {
        let name = format!("instances/svmctl-{}", std::process::id());
        let path = tracing.join(name);
        fs::create_dir(&path).with_context(|| format!("{}: run this as root", path.display()))?;
        Ok(Instance(path))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Turns events on, and reports which of them the kernel has.
    fn enable(&self, wanted: &[String]) -> anyhow::Result<Vec<String>> {
        let names: Vec<String> = match wanted {
            [] => SYSTEMS.iter().map(|&name| name.to_owned()).collect(),
            names => names.to_vec(),
        };
        let mut enabled = Vec::new();
        for name in names {
            let switch = self
                .path("events")
                .join(name.replace(':', "/"))
                .join("enable");
            match fs::write(&switch, "1") {
                Ok(()) => enabled.push(name),
                Err(error) if error.kind() == io::ErrorKind::NotFound && wanted.is_empty() => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "the kernel has no events `{name}`; {} lists them",
                            self.path("events").display()
                        )
                    });
                }
            }
        }
        ensure!(
            !enabled.is_empty(),
            "the kernel has none of the events {}",
            SYSTEMS.join(", ")
        );
        Ok(enabled)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A reader may still have its pipe open for a moment.
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("svmctl: {} stays: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_becomes_an_object() {
        let line = "          svmctl-1234    [001] d..1.  1051.271231: qi_submit: dev_tlb_desc \
                    (0x1, 0x2) on dmar0: done";
        let event = parse(line).unwrap();
        assert_eq!(event["seconds"], 1051.271231);
        assert_eq!(
            (event["cpu"].as_u64(), event["pid"].as_u64()),
            (Some(1), Some(1234))
        );
        assert_eq!(
            (event["task"].as_str(), event["event"].as_str()),
            (Some("svmctl"), Some("qi_submit"))
        );
        assert_eq!(event["text"], "dev_tlb_desc (0x1, 0x2) on dmar0: done");
        assert_eq!(parse("CPU:1 [LOST 12 EVENTS]"), None);
        let task = parse("  irq/25-dmar0-pr-77 [000] ....  12.5: prq_report: x").unwrap();
        assert_eq!(
            (task["task"].as_str(), task["pid"].as_u64()),
            (Some("irq/25-dmar0-pr"), Some(77))
        );
    }

    #[test]
    fn a_line_is_taken_when_it_is_whole() {
        let mut lines = Lines(b"one\ntw".to_vec());
        assert_eq!(lines.take(), ["one"]);
        lines.0.extend_from_slice(b"o\n");
        assert_eq!(lines.take(), ["two"]);
        assert!(lines.take().is_empty());
    }
}
