// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows a running guest: the lines of its console and of its results channel as they arrive, its
//! end, a deadline, and signals to this process. It waits for events and never polls by time.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The source of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The guest's console.
    Console,
    /// The results channel.
    Results,
    /// QEMU's own output.
    Qemu,
    /// The console of the second-level guest.
    SecondConsole,
    /// Its results channel.
    SecondResults,
    /// The console of its neighbour.
    NeighbourConsole,
    /// The neighbour's results channel.
    NeighbourResults,
}

/// Why following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process ended on its own.
    Exited(ExitStatus),
    /// It was killed at the deadline.
    TimedOut,
    /// It was killed because this process was told to end.
    Interrupted(Signal),
}

/// What to do after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Continue.
    Continue,
    /// The process will end on its own within this time; if not, kill it.
    EndsWithin(Duration),
}

/// Signals that end this process.
const ENDING_SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The waiting side. Create it before the process is started, so that no event is missed.
#[derive(Debug)]
pub struct Follower {
    signals: SignalFd,
    writes: Inotify,
    tails: Vec<(Source, Tail)>,
}

/// A file that grows.
#[derive(Debug)]
struct Tail {
    file: File,
    pending: Vec<u8>,
}

impl Follower {
    /// Follows files, which must exist.
    pub fn new(files: &[(Source, &Path)]) -> Result<Self> {
        let mask: SigSet = ENDING_SIGNALS.into_iter().collect();
        mask.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("signalfd")?;
        let writes =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify")?;
        let mut tails = Vec::new();
        for &(source, path) in files {
            writes
                .add_watch(path, AddWatchFlags::IN_MODIFY)
                .with_context(|| format!("cannot watch {}", path.display()))?;
            tails.push((source, Tail::open(path)?));
        }
        Ok(Self {
            signals,
            writes,
            tails,
        })
    }

    /// Follows until the process has ended, and passes each line to `take`. At the deadline it
    /// passes the process to `late`, and then kills it.
    pub fn follow(
        &mut self,
        child: &mut Child,
        time: Duration,
        mut take: impl FnMut(Source, &str) -> Result<Then>,
        late: impl FnOnce(&Child),
    ) -> Result<Ending> {
        let start = Instant::now();
        let mut deadline = start + time;
        // Not with SIGCHLD, which any thread of this process may receive.
        let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
            .context("cannot await QEMU: pidfd_open (Linux 5.3 has it)")?;
        loop {
            // Check the process first: everything that it wrote before its end is then read below.
            let exited = child.try_wait().context("cannot await QEMU")?;
            let interrupted = self.ending_signal()?;
            for (source, tail) in &mut self.tails {
                for line in tail.lines()? {
                    if let Then::EndsWithin(time) = take(*source, &line)? {
                        deadline = deadline.min(Instant::now() + time);
                    }
                }
            }
            if let Some(status) = exited {
                return Ok(Ending::Exited(status));
            }
            if let Some(signal) = interrupted {
                kill(child)?;
                return Ok(Ending::Interrupted(signal));
            }
            if Instant::now() >= deadline {
                late(child);
                kill(child)?;
                return Ok(Ending::TimedOut);
            }
            self.wait(&end, deadline)?;
        }
    }

    fn wait(&self, end: &OwnedFd, deadline: Instant) -> Result<()> {
        // One millisecond more: poll counts whole milliseconds, and must not return early.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis()
            + 1;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut events = [
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.writes.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        match self.writes.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error).context("cannot read what inotify tells"),
        }
    }

    /// The first pending signal that ends this process.
    fn ending_signal(&mut self) -> Result<Option<Signal>> {
        let mut found = None;
        while let Some(info) = self.signals.read_signal().context("cannot read signals")? {
            let signal = i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|n| Signal::try_from(n).ok());
            found = found.or(signal.filter(|signal| ENDING_SIGNALS.contains(signal)));
        }
        Ok(found)
    }
}

impl Tail {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            file,
            pending: Vec::new(),
        })
    }

    /// The lines that are complete now.
    fn lines(&mut self) -> Result<Vec<String>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read what the guest writes"),
            }
        }
        let Some(last) = self.pending.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.pending.split_off(last + 1);
        let complete = std::mem::replace(&mut self.pending, rest);
        let text = String::from_utf8_lossy(&complete);
        Ok(text
            .lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect())
    }
}

fn kill(child: &mut Child) -> Result<()> {
    child.kill().context("cannot kill QEMU")?;
    child.wait().context("cannot await QEMU")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::external::External;

    /// Follows a shell script that writes to `$console` and `$results`.
    fn follow(script: &str, time: Duration) -> (Ending, Vec<(Source, String)>) {
        follow_and(script, time, || {})
    }

    /// The same, with an action after the start of the script.
    fn follow_and(
        script: &str,
        time: Duration,
        action: impl FnOnce(),
    ) -> (Ending, Vec<(Source, String)>) {
        let mut was_late = false;
        let directory = tempfile::tempdir().unwrap();
        let [console, results] = ["console", "results"].map(|name| directory.path().join(name));
        fs::write(&console, "").unwrap();
        fs::write(&results, "").unwrap();
        let mut follower =
            Follower::new(&[(Source::Console, &console), (Source::Results, &results)]).unwrap();
        let mut child = External::new("sh")
            .args(["-c", script])
            .env("console", &console)
            .env("results", &results)
            .command()
            .spawn()
            .unwrap();
        action();
        let mut lines = Vec::new();
        let ending = follower
            .follow(
                &mut child,
                time,
                |source, line| {
                    lines.push((source, line.to_owned()));
                    Ok(match line {
                        "bye" => Then::EndsWithin(Duration::ZERO),
                        _ => Then::Continue,
                    })
                },
                |child| was_late = Path::new(&format!("/proc/{}", child.id())).exists(),
            )
            .unwrap();
        assert_eq!(was_late, ending == Ending::TimedOut);
        (ending, lines)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn lines_come_whole_and_from_their_source() {
        let script = "printf 'a\\r\\nb' >>$console; echo r >>$results; printf 'c\\n' >>$console";
        let (ending, lines) = follow(script, LONG);
        assert!(matches!(ending, Ending::Exited(status) if status.success()));
        let of = |wanted: Source| -> Vec<_> {
            lines
                .iter()
                .filter(|(source, _)| *source == wanted)
                .map(|(_, line)| line)
                .collect()
        };
        assert_eq!(of(Source::Console), ["a", "bc"]);
        assert_eq!(of(Source::Results), ["r"]);
    }

    #[test]
    fn a_process_that_does_not_end_is_killed_at_the_deadline() {
        let (ending, _) = follow("while :; do read x <$console; done", Duration::ZERO);
        assert_eq!(ending, Ending::TimedOut);
    }

    #[test]
    fn a_line_can_bring_the_deadline_nearer() {
        let (ending, _) = follow("echo bye >>$console; exec tail -f $console >$results", LONG);
        assert_eq!(ending, Ending::TimedOut);
    }

    #[test]
    fn a_signal_to_this_process_ends_the_guest() {
        let (ending, _) = follow_and("exec tail -f $console", LONG, || {
            // To this thread, because the harness's other threads do not expect it.
            nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        });
        assert_eq!(ending, Ending::Interrupted(Signal::SIGHUP));
    }
}
