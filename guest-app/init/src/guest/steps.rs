// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the steps of a plan, each in its own process group. It reaps every process that ends, as
//! the first process must.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use svm_init::events::{Event, OutputEvent, RESULTS_VARIABLE, Status, StepBeginEvent, StepEvent};
use svm_init::kernel::Messages;
use svm_init::marks::{self, Marker};
use svm_init::paths;
use svm_init::plan::Step;

use super::channel::Channel;

/// How long a killed process may take to exit. Only a task stuck in the kernel takes longer.
const DEATH: Duration = Duration::from_secs(10);

/// Bytes of a step's output to read before checking for its end and its deadline. They can be
/// thousands of lines, and the results channel is slow.
const BUFFER: usize = 4096;

/// Length in bytes from which a line is reported in pieces.
const LINE: usize = 64 * 1024;

/// Most bytes that a pipe can hold when it has no writer any more (Linux, `fs/pipe-max-size`).
const PIPE: usize = 1 << 20;

/// The signals that `halt`, `poweroff` and `reboot` send to the first process.
const REQUESTS: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM];

/// Runs steps. It holds the descriptor that reports ended processes.
#[derive(Debug)]
pub struct Runner {
    /// Path of the results channel.
    results: String,
    ends: SignalFd,
    /// Where steps are marked in the kernel's trace, and its path.
    marker: Marker,
    marker_path: Option<PathBuf>,
    /// Someone has requested that the guest power off.
    asked: bool,
}

/// How a step's process ended.
enum End {
    Exit(i32),
    Signal(Signal),
    /// It exceeded its time limit. `died` tells whether it exited when killed.
    TimedOut {
        died: bool,
    },
}

/// The lines that a step prints, reported as they arrive.
struct Output<'a> {
    step: &'a Step,
    pending: Vec<u8>,
    /// The step printed the line that it expects.
    found: bool,
}

/// Outcome of reading a step's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There was some, and more may be available at once.
    Some,
    /// There is none at the moment.
    Empty,
    /// There will be no more: the pipe has no writer.
    Closed,
}

impl Runner {
    /// Takes over the notifications of ended processes.
    pub fn new(results: &str) -> Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.extend(REQUESTS);
        mask.thread_block().context("cannot block signals")?;
        let ends = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("signalfd")?;
        Ok(Self {
            results: results.to_owned(),
            ends,
            marker: Marker::none(),
            marker_path: None,
            asked: false,
        })
    }

    /// Marks steps in the kernel's trace, by this file, which programs find, too.
    pub fn mark(&mut self, path: &Path) {
        self.marker = Marker::open(path);
        self.marker_path = Some(path.to_owned());
    }

    /// Runs an interactive shell on the console until it ends, or until someone calls `poweroff` or
    /// similar.
    pub fn shell(&mut self) -> Result<()> {
        let console = |write| {
            fs::OpenOptions::new()
                .read(true)
                .write(write)
                .open(paths::CONSOLE)
                .with_context(|| format!("cannot open {}", paths::CONSOLE))
        };
        let mut child = self.command("/bin/busybox");
        child
            // Job control needs a session with the console as its terminal.
            .args(["setsid", "-c", "/bin/busybox", "sh", "-l"])
            .current_dir(paths::HOME)
            .stdin(console(true)?)
            .stdout(console(true)?)
            .stderr(console(true)?);
        let child = spawn(child).context("cannot start the shell")?;
        let pid = pid_of(&child);
        while self.reap(pid)?.is_none() && !self.asked {
            self.await_event(None, None)?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", paths::PATH)
            .env("HOME", paths::HOME)
            .env("LD_LIBRARY_PATH", paths::LIBRARIES)
            .env("TERM", "vt100")
            .env(RESULTS_VARIABLE, &self.results);
        if let Some(path) = &self.marker_path {
            command.env(marks::VARIABLE, path);
        }
        command
    }

    /// Reports a step as skipped.
    pub fn skip(&self, step: &Step, channel: &mut Channel, reason: &str) -> Result<()> {
        channel.send(&Event::Step(StepEvent {
            name: step.name.clone(),
            status: Status::Skipped,
            message: reason.to_owned(),
            exit: None,
            signal: None,
            micros: 0,
        }))
    }

    /// Runs a step and reports it. Returns whether further steps can run.
    pub fn run(&mut self, step: &Step, channel: &mut Channel) -> Result<bool> {
        channel.send(&Event::StepBegin(StepBeginEvent {
            name: step.name.clone(),
        }))?;
        let start = Instant::now();
        let mut output = Output {
            step,
            pending: Vec::new(),
            found: false,
        };
        let mut hearing = match &step.kernel_says {
            None => None,
            Some(texts) => Some((Messages::open()?, texts)),
        };
        self.marker.begin(&step.name);
        let ended = self.run_program(step, &mut output, channel);
        self.marker.end(&step.name);
        let signal = match ended {
            Ok(End::Signal(signal)) => Some(signal as i32),
            _ => None,
        };
        let (exit, mut outcome, usable) = match ended {
            Ok(End::Exit(exit)) => (Some(exit), step.judge(exit, output.found), true),
            Ok(End::Signal(signal)) => (None, Err(format!("killed by {signal}")), true),
            Ok(End::TimedOut { died }) => {
                let rest = if died {
                    ""
                } else {
                    ", and does not die: it hangs in the kernel"
                };
                (
                    None,
                    Err(format!("did not end within {} s{rest}", step.timeout_s)),
                    died,
                )
            }
            Err(error) => (None, Err(format!("{error:#}")), true),
        };
        if let Some((messages, texts)) = &mut hearing {
            outcome = and_kernel(outcome, &messages.unexpected(texts));
        }
        channel.send(&Event::Step(StepEvent {
            name: step.name.clone(),
            status: if outcome.is_ok() {
                Status::Ok
            } else {
                Status::Failed
            },
            message: outcome.err().unwrap_or_default(),
            exit,
            signal,
            micros: micros(start.elapsed()),
        }))?;
        Ok(usable)
    }

    fn run_program(
        &mut self,
        step: &Step,
        output: &mut Output<'_>,
        channel: &mut Channel,
    ) -> Result<End> {
        let (program, arguments) = step.argv.split_first().context("the step has no program")?;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("pipe")?;
        let mut reader = fs::File::from(reader);
        // Reading must stop when the output does, even if a stray process keeps the pipe open.
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .context("cannot set the pipe to non-blocking")?;
        let mut child = self.command(program);
        child
            .args(arguments)
            .current_dir(paths::HOME)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("cannot duplicate the pipe")?)
            .stderr(writer);
        let child = spawn(child).with_context(|| format!("cannot start {program}"))?;
        let pid = pid_of(&child);
        let deadline = Instant::now() + Duration::from_secs(step.timeout_s.into());

        let end = loop {
            let reading = output.read_from(&mut reader, channel)?;
            if let Some(end) = self.reap(pid)? {
                break end;
            }
            if Instant::now() >= deadline {
                list_tasks();
                kill_group(pid)?;
                break End::TimedOut {
                    died: self.await_death(pid)?,
                };
            }
            match reading {
                Reading::Some => {}
                Reading::Empty => self.await_event(Some(&reader), Some(deadline))?,
                Reading::Closed => self.await_event(None, Some(deadline))?,
            }
        };
        let left = self.end_all()?;
        // The pipe already holds all remaining output: a process that could not be killed cannot
        // write, either.
        for _ in 0..PIPE / BUFFER {
            if output.read_from(&mut reader, channel)? != Reading::Some {
                break;
            }
        }
        output.finish(channel)?;
        if !left.is_empty() {
            let line = format!(
                "svm-init: the step left these processes, which are killed: {}",
                left.join(", ")
            );
            output.pending = line.into_bytes();
            output.finish(channel)?;
        }
        Ok(end)
    }

    /// Kills every process of a step, including those that have left its process group, so that
    /// none disturbs the next step. Returns their names and numbers.
    fn end_all(&mut self) -> Result<Vec<String>> {
        // Anywhere else, "all processes" would include someone else's.
        ensure!(std::process::id() == 1, "this is not the first process");
        let left = processes()?;
        let deadline = Instant::now() + DEATH;
        loop {
            // All but the first process, which is this one. Kernel threads ignore the signal.
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("cannot kill the step's processes"),
            }
            self.reap(Pid::this())?;
            if processes()?.is_empty() || Instant::now() >= deadline {
                return Ok(left);
            }
            self.await_event(None, Some(deadline))?;
        }
    }

    /// Waits until a process ended, there is output, or the deadline passed.
    fn await_event(&self, output: Option<&fs::File>, deadline: Option<Instant>) -> Result<()> {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // One millisecond more: poll counts whole milliseconds and must not return too early.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut events = vec![PollFd::new(self.ends.as_fd(), PollFlags::POLLIN)];
        events.extend(output.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        match poll(&mut events, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("poll"),
        }
    }

    /// Reaps every process that ended. Returns how `pid` ended, if it did.
    fn reap(&mut self, pid: Pid) -> Result<Option<End>> {
        while let Some(signal) = self.ends.read_signal().context("cannot read the signals")? {
            self.asked |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        let mut end = None;
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(ended, status)) if ended == pid => {
                    end = Some(End::Exit(status));
                }
                Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => {
                    end = Some(End::Signal(signal));
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(end),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waitpid"),
            }
        }
    }

    /// Waits for a killed process. Returns whether it exited in time.
    fn await_death(&mut self, pid: Pid) -> Result<bool> {
        let deadline = Instant::now() + DEATH;
        while Instant::now() < deadline {
            if self.reap(pid)?.is_some() {
                return Ok(true);
            }
            self.await_event(None, Some(deadline))?;
        }
        Ok(false)
    }
}

impl Output<'_> {
    /// Reads some of the available output.
    fn read_from(&mut self, pipe: &mut fs::File, channel: &mut Channel) -> Result<Reading> {
        let mut buffer = [0; BUFFER];
        let length = match pipe.read(&mut buffer) {
            Ok(0) => return Ok(Reading::Closed),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Reading::Empty),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Reading::Some),
            Err(error) => return Err(error).context("cannot read the step's output"),
        };
        for piece in buffer[..length].split_inclusive(|&byte| byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.pending.len() >= LINE {
                self.finish(channel)?;
            }
        }
        Ok(Reading::Some)
    }

    /// Reports the pending line.
    fn finish(&mut self, channel: &mut Channel) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&self.pending).trim_end().to_owned();
        self.pending.clear();
        self.found |= self.step.expects(&line);
        channel.send(&Event::Output(OutputEvent {
            step: self.step.name.clone(),
            line,
        }))
    }
}

/// The outcome of a step, which also fails if the kernel logged something unexpected.
fn and_kernel(outcome: Result<(), String>, unexpected: &[String]) -> Result<(), String> {
    let said: Vec<String> = unexpected
        .iter()
        .map(|line| format!("the kernel said: {line}"))
        .collect();
    match (outcome, said.is_empty()) {
        (outcome, true) => outcome,
        (Ok(()), false) => Err(said.join("\n")),
        (Err(why), false) => Err(format!("{why}\n{}", said.join("\n"))),
    }
}

/// A duration as events carry it.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Starts a program with no signal blocked: it would inherit those that the runner waits for, and
/// then `timeout` would not end it, and a shell not notice the end of what it has started. A signal
/// that comes meanwhile can be lost; who starts a program therefore looks once for its end.
fn spawn(mut command: Command) -> std::io::Result<std::process::Child> {
    let unblocked = || {
        SigSet::all().thread_unblock()?;
        command.spawn()
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(unblocked);
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(std::io::Error::other("the thread that starts it panicked")))
    })
}

fn pid_of(child: &std::process::Child) -> Pid {
    // Process numbers are far below 2^31: the kernel's own limit is 2^22.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Kills the remaining processes of a process group, if any.
fn kill_group(group: Pid) -> Result<()> {
    match killpg(group, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("cannot kill the step's processes"),
    }
}

/// All user processes but this one: their names and numbers. Kernel threads and processes that have
/// ended have no command line.
fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let name = entry.context("cannot read /proc")?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may end at any time.
        let command = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let program = command.split(|&byte| byte == 0).next().unwrap_or_default();
        if number != std::process::id() && !program.is_empty() {
            let program = String::from_utf8_lossy(program);
            found.push(format!("{program} (process {number})"));
        }
    }
    Ok(found)
}

/// Makes the kernel write the state of every task to the console. The run has already failed, so a
/// kernel that cannot do this is not another error.
fn list_tasks() {
    let _ = fs::write("/dev/kmsg", format!("{}\n", paths::TASKS_FOLLOW));
    let _ = fs::write("/proc/sysrq-trigger", "t");
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A pipe that holds some bytes.
    fn pipe_with(bytes: &[u8]) -> fs::File {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let size = i32::try_from(PIPE).unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(size)).unwrap();
        fs::File::from(writer).write_all(bytes).unwrap();
        fs::File::from(reader)
    }

    fn output(step: &Step) -> (Output<'_>, Channel) {
        let output = Output {
            step,
            pending: Vec::new(),
            found: false,
        };
        (output, Channel::to(fs::File::create("/dev/null").unwrap()))
    }

    #[test]
    fn reading_what_is_printed_without_a_pause_comes_back() {
        let step = Step::new("s", &["yes"]);
        let (mut output, mut channel) = output(&step);
        let mut pipe = pipe_with(&b"y\n".repeat(PIPE / 2));
        let reading = output.read_from(&mut pipe, &mut channel).unwrap();
        assert_eq!(reading, Reading::Some);
        let mut rest = vec![0; PIPE];
        assert_eq!(pipe.read(&mut rest).unwrap(), PIPE - BUFFER);
    }

    #[test]
    fn programs_start_with_no_signal_blocked() {
        let _runner = Runner::new("/dev/null").unwrap();
        let mut grep = Command::new("grep");
        grep.args(["SigBlk", "/proc/self/status"]);
        grep.stdout(Stdio::piped());
        let child = spawn(grep).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), "SigBlk:\t0000000000000000");
    }

    #[test]
    fn the_expected_line_is_found_wherever_it_is() {
        let step = Step::new("s", &["x"]).expecting_output("needle");
        for (text, expected) in [("", false), ("the needle\n", true)] {
            let (mut output, mut channel) = output(&step);
            let mut pipe = pipe_with(("hay\n".repeat(20_000) + text).as_bytes());
            while output.read_from(&mut pipe, &mut channel).unwrap() == Reading::Some {}
            assert_eq!(output.found, expected);
        }
    }

    #[test]
    fn a_step_fails_for_what_the_kernel_says() {
        assert_eq!(and_kernel(Ok(()), &[]), Ok(()));
        assert_eq!(and_kernel(Err("exit".into()), &[]), Err("exit".into()));
        let said = ["DMAR: one".to_owned(), "DMAR: two".to_owned()];
        let outcome = and_kernel(Ok(()), &said).unwrap_err();
        assert_eq!(
            outcome,
            "the kernel said: DMAR: one\nthe kernel said: DMAR: two"
        );
        let outcome = and_kernel(Err("exit status 1".into()), &said[..1]).unwrap_err();
        assert_eq!(outcome, "exit status 1\nthe kernel said: DMAR: one");
    }
}
