// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children of the program: copies of it that share only two pipes with it.
//!
//! Parent and child send each other lines of JSON. The parent notices by the closed pipe when a
//! child ends early. A dropped [`Child`] leaves no process behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long joined threads may remain in `/proc`.
const THREADS_LINGER: Duration = Duration::from_secs(5);

/// One end of a conversation.
#[derive(Debug)]
pub struct Line {
    from: BufReader<File>,
    to: File,
}

impl Line {
    fn new(from: OwnedFd, to: OwnedFd) -> Line {
        Line {
            from: BufReader::new(from.into()),
            to: to.into(),
        }
    }

    fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(message)?;
        text.push('\n');
        self.to
            .write_all(text.as_bytes())
            .context("the other process has ended")
    }

    /// Waits for a message.
    ///
    /// # Errors
    ///
    /// The other side has ended or sent something else.
    pub fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut text = String::new();
        let length = self.from.read_line(&mut text)?;
        ensure!(length > 0, "the other process has ended");
        let result: Result<T, String> = serde_json::from_str(&text)
            .with_context(|| format!("a message that was not expected: {}", text.trim()))?;
        result.map_err(|error| anyhow!("the other process says: {error}"))
    }

    /// Sends a message that [`receive`](Line::receive) returns.
    ///
    /// # Errors
    ///
    /// The other side has ended.
    pub fn tell(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        self.send(&Ok::<_, String>(message))
    }
}

/// A child process.
#[derive(Debug)]
pub struct Child {
    pid: Option<Pid>,
    line: Line,
}

impl Child {
    /// Forks. The child runs `work`, reports its error, if any, and ends.
    ///
    /// # Errors
    ///
    /// The process has several threads, but the child would have only one; those of `fork`.
    pub fn fork(work: impl FnOnce(&mut Line) -> anyhow::Result<()>) -> anyhow::Result<Child> {
        be_single(THREADS_LINGER)?;
        let (child_from, to) = pipe2(OFlag::O_CLOEXEC)?;
        let (from, child_to) = pipe2(OFlag::O_CLOEXEC)?;
        std::io::stdout().flush()?;
        // SAFETY: no other thread exists that could hold a lock.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => Ok(Child {
                pid: Some(child),
                line: Line::new(from, to),
            }),
            ForkResult::Child => {
                // The parent's ends: the child must not keep its own pipe open.
                drop((from, to));
                let mut line = Line::new(child_from, child_to);
                let result = catch_unwind(AssertUnwindSafe(|| work(&mut line)))
                    .unwrap_or_else(|_| Err(anyhow!("panic")));
                let status = match result {
                    Ok(()) => 0,
                    Err(error) => {
                        // If the parent is gone, there is nothing to report.
                        let _ = line.send(&Err::<(), _>(format!("{error:#}")));
                        1
                    }
                };
                // SAFETY: the function only ends the process. The parent's exit handlers and its
                // buffers do not belong to the child.
                unsafe { nix::libc::_exit(status) }
            }
        }
    }

    /// The conversation with the child.
    pub fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    /// Kills the child with SIGKILL at an arbitrary point and waits for its end.
    ///
    /// # Errors
    ///
    /// It had ended before.
    pub fn kill(mut self) -> anyhow::Result<()> {
        let Some(pid) = self.pid.take() else {
            bail!("no child")
        };
        kill(pid, Signal::SIGKILL)?;
        match waitpid(pid, None)? {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
            status => bail!("the child ended before it was killed: {status:?}"),
        }
    }

    /// Kills the child with SIGKILL as [`Child::kill`] does, but only returns whether it was still
    /// running. Its messages can still be received.
    ///
    /// # Errors
    ///
    /// Those of `kill` and `waitpid`.
    pub fn end_by_kill(&mut self) -> anyhow::Result<bool> {
        let Some(pid) = self.pid.take() else {
            bail!("no child")
        };
        kill(pid, Signal::SIGKILL)?;
        let status = waitpid(pid, None)?;
        Ok(matches!(
            status,
            WaitStatus::Signaled(_, Signal::SIGKILL, _)
        ))
    }

    /// Stops the child with SIGSTOP. When this returns, none of its threads is in the kernel or runs.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn stop(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        kill(pid, Signal::SIGSTOP)?;
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            status => bail!("the child ended before it was stopped: {status:?}"),
        }
    }

    /// Lets a child go on that was stopped.
    ///
    /// # Errors
    ///
    /// Those of `kill`.
    pub fn go_on(&self) -> anyhow::Result<()> {
        Ok(kill(self.pid()?, Signal::SIGCONT)?)
    }

    /// The child's process id.
    ///
    /// # Errors
    ///
    /// It was waited for already.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        self.pid.context("no child")
    }

    /// Waits for the child's end.
    ///
    /// # Errors
    ///
    /// It ended without completing its work.
    pub fn finish(mut self) -> anyhow::Result<()> {
        match self.wait()? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(..) => match self.line.receive::<serde_json::Value>() {
                Err(error) => Err(error),
                Ok(message) => bail!("the child failed after it had said {message}"),
            },
            status => bail!("the child ended by {status:?}"),
        }
    }

    /// Whether the child has sent a message or ended, or does so within `patience`. Only valid if
    /// nothing it sent is buffered unread.
    ///
    /// # Errors
    ///
    /// Those of `poll`.
    pub fn has_spoken(&self, patience: Duration) -> anyhow::Result<bool> {
        let file = self.line.from.get_ref().as_fd();
        let mut fds = [PollFd::new(file, PollFlags::POLLIN)];
        let millis = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
        Ok(poll(&mut fds, PollTimeout::from(millis))? > 0)
    }

    /// Waits for the end of a child that sends nothing until then; `None` if it takes longer.
    ///
    /// # Errors
    ///
    /// Those of `poll` and `waitpid`.
    pub fn wait_within(&mut self, patience: Duration) -> anyhow::Result<Option<WaitStatus>> {
        if self.has_spoken(patience)? {
            return self.wait().map(Some);
        }
        Ok(None)
    }

    /// Waits for the child's end, however it ends.
    ///
    /// # Errors
    ///
    /// Those of `waitpid`.
    pub fn wait(&mut self) -> anyhow::Result<WaitStatus> {
        let Some(pid) = self.pid.take() else {
            bail!("no child")
        };
        Ok(waitpid(pid, None)?)
    }
}

/// Ends only this thread. If it is the first one, the process continues without it.
pub fn end_this_thread() -> ! {
    // SAFETY: nothing of the thread runs after the call: no destructor, and no code that would
    // find its stack gone, for the stack stays mapped. A caller in a child of `Child::fork` has
    // nothing left to report.
    unsafe { nix::libc::syscall(nix::libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Ends this process at once, with all its threads.
pub fn end_this_process(status: i32) -> ! {
    // SAFETY: as at the end of a child above.
    unsafe { nix::libc::_exit(status) }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            // A child that has already ended must still be waited for.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Checks that the process has only one thread. Joined threads may still be visible for a moment.
fn be_single(patience: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let threads = fs::read_dir("/proc/self/task")
            .context("/proc/self/task")?
            .count();
        if threads == 1 {
            return Ok(());
        }
        ensure!(
            start.elapsed() < patience,
            "the process has {threads} threads, and can fork with one only"
        );
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Line, Line) {
        let (left_from, right_to) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (right_from, left_to) = pipe2(OFlag::O_CLOEXEC).unwrap();
        (
            Line::new(left_from, left_to),
            Line::new(right_from, right_to),
        )
    }

    #[test]
    fn what_one_end_tells_the_other_receives() {
        let (mut left, mut right) = ends();
        left.tell(&7).unwrap();
        left.tell(&"text\nof two lines").unwrap();
        assert_eq!(right.receive::<u32>().unwrap(), 7);
        assert_eq!(right.receive::<String>().unwrap(), "text\nof two lines");
    }

    #[test]
    fn an_error_of_the_other_end_is_received_as_one() {
        let (mut left, mut right) = ends();
        left.send(&Err::<(), _>("no device".to_owned())).unwrap();
        let error = right.receive::<u32>().unwrap_err().to_string();
        assert_eq!(error, "the other process says: no device");
    }

    #[test]
    fn the_end_of_the_other_end_is_noticed() {
        let (left, mut right) = ends();
        drop(left);
        let error = right.receive::<u32>().unwrap_err().to_string();
        assert_eq!(error, "the other process has ended");
        right.tell(&1).unwrap_err();
    }

    #[test]
    fn a_process_with_threads_is_noticed() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || ended.recv());
        let error = be_single(Duration::ZERO).unwrap_err().to_string();
        drop(end);
        other.join().unwrap().unwrap_err();
        assert!(
            error.contains("threads, and can fork with one only"),
            "{error}"
        );
    }
}
