// SPDX-License-Identifier: MIT OR Apache-2.0
//! Traces the kernel, and sends the lines on the results channel while the guest runs: what a guest
//! that hangs has sent is not lost.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use svm_init::events::{Event, TraceEvent as Lines};
use svm_init::plan::TraceEvent;

use super::channel::Channel;

/// The trace is an instance of its own: other tracing in the guest does not change it.
const INSTANCE: &str = "/sys/kernel/tracing/instances/svm";

/// How often the lines are sent, in milliseconds. Each line at once would take time from what is
/// traced.
const INTERVAL: u16 = 500;

/// Bytes of text in an event, if its lines are not longer.
const PIECE: usize = 4096;

/// A trace that is being taken. It ends when the guest does.
#[derive(Debug)]
pub struct Tracer {
    instance: PathBuf,
    /// Closed, it ends the thread.
    stop: OwnedFd,
    thread: JoinHandle<Result<()>>,
}

impl Tracer {
    /// Starts to trace these events.
    pub fn start(events: &[TraceEvent], results: &str) -> Result<Self> {
        let instance = PathBuf::from(INSTANCE);
        fs::create_dir(&instance).with_context(|| {
            format!("{INSTANCE}: the kernel has no trace instances (CONFIG_FTRACE)")
        })?;
        // The time stamps of the processor, which the levels above and below see as well.
        set(&instance.join("trace_clock"), "x86-tsc")?;
        for event in events {
            enable(&instance, event)?;
        }
        let pipe = fs::File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(instance.join("trace_pipe"))
            .context("trace_pipe")?;
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).context("pipe")?;
        let mut channel = Channel::open(results.as_ref())?;
        let thread = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || forward(pipe, &stopped, |event| channel.send(event)))
            .context("cannot start a thread")?;
        Ok(Self {
            instance,
            stop,
            thread,
        })
    }

    /// The file for marks.
    pub fn marker(&self) -> PathBuf {
        self.instance.join("trace_marker")
    }

    /// Ends the trace: all of its lines have been sent.
    pub fn finish(self) -> Result<()> {
        set(&self.instance.join("tracing_on"), "0")?;
        drop(self.stop);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| anyhow::bail!("the thread of the trace panicked"))
    }
}

fn set(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value:?} to {}", path.display()))
}

/// Turns an event on.
fn enable(instance: &Path, event: &TraceEvent) -> Result<()> {
    let directory = instance.join("events").join(&event.name);
    if !directory.is_dir() {
        let name = &event.name;
        ensure!(event.optional, "the kernel has no trace event {name}");
        return Ok(());
    }
    if let Some(filter) = &event.filter {
        set(&directory.join("filter"), filter)?;
    }
    set(&directory.join("enable"), "1")
}

/// Sends whole lines of the pipe from time to time, until `stopped` has no writer any more, and then
/// the rest.
fn forward(
    mut pipe: fs::File,
    stopped: &OwnedFd,
    mut send: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let mut pending = Vec::new();
    loop {
        let mut fds = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        let last = match poll(&mut fds, PollTimeout::from(INTERVAL)) {
            Ok(number) => number > 0,
            Err(Errno::EINTR) => false,
            Err(error) => return Err(error).context("poll"),
        };
        loop {
            let mut buffer = [0; PIECE];
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => pending.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read the trace"),
            }
            for text in pieces(&mut pending, PIECE) {
                send(&Event::Trace(Lines { text }))?;
            }
        }
        for text in pieces(&mut pending, 1) {
            send(&Event::Trace(Lines { text }))?;
        }
        if last {
            return Ok(());
        }
    }
}

/// Takes whole lines: as many as make `least` bytes at a time, and leaves the rest.
fn pieces(pending: &mut Vec<u8>, least: usize) -> Vec<String> {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
        return Vec::new();
    };
    if end + 1 < least {
        return Vec::new();
    }
    let rest = pending.split_off(end + 1);
    let whole = std::mem::replace(pending, rest);
    let mut pieces = vec![String::new()];
    for line in String::from_utf8_lossy(&whole).split_inclusive('\n') {
        match pieces.last_mut() {
            Some(piece) if piece.is_empty() || piece.len() + line.len() <= PIECE => {
                piece.push_str(line);
            }
            _ => pieces.push(line.to_owned()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_are_sent_whole_and_the_rest_at_the_end() {
        let (pipe, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let line = |n: usize| format!("line {n} {}\n", "x".repeat(60));
        let text: String = (0..100).map(line).collect();
        let mut writer = fs::File::from(writer);
        writer.write_all(text.as_bytes()).unwrap();
        drop((writer, stop));
        let mut sent = Vec::new();
        forward(fs::File::from(pipe), &stopped, |event| {
            let Event::Trace(lines) = event else {
                panic!("not of a trace")
            };
            sent.push(lines.text.clone());
            Ok(())
        })
        .unwrap();
        assert!(sent.len() > 1 && sent.iter().all(|t| t.len() <= PIECE && t.ends_with('\n')));
        assert_eq!(sent.concat(), text);
    }

    #[test]
    fn lines_are_sent_while_the_trace_goes_on() {
        let (pipe, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut writer = fs::File::from(writer);
        writer.write_all(b"one\ntw").unwrap();
        let mut rest = Some((writer, stop));
        let mut sent = Vec::new();
        forward(fs::File::from(pipe), &stopped, |event| {
            sent.push(event.clone());
            // What is written now comes in another event, and then the trace ends.
            if let Some((mut writer, stop)) = rest.take() {
                writer.write_all(b"o\nthree\n").unwrap();
                drop((writer, stop));
            }
            Ok(())
        })
        .unwrap();
        let lines = |text: &str| Event::Trace(Lines { text: text.into() });
        assert_eq!(sent, [lines("one\n"), lines("two\nthree\n")]);
    }

    #[test]
    fn an_event_that_the_kernel_lacks_is_named_unless_it_is_optional() {
        let directory = tempfile::tempdir().unwrap();
        let known = directory.path().join("events/intel_iommu/qi_submit");
        fs::create_dir_all(&known).unwrap();
        let event = |name: &str, optional| TraceEvent {
            name: name.to_owned(),
            filter: Some("qw0 & 8".to_owned()),
            optional,
        };
        enable(directory.path(), &event("intel_iommu/qi_submit", false)).unwrap();
        assert_eq!(fs::read_to_string(known.join("enable")).unwrap(), "1");
        assert_eq!(fs::read_to_string(known.join("filter")).unwrap(), "qw0 & 8");
        enable(directory.path(), &event("svm_demo", true)).unwrap();
        let error = enable(directory.path(), &event("svm_demo", false)).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no trace event svm_demo");
    }
}
