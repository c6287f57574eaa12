// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lends the terminal to QEMU and restores it afterwards; and reads commands if there is no
//! terminal.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::follow::{Ending, Follower, Then};

/// An interactive shell has no time limit.
pub const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);

/// A background job waits until it is brought to the foreground and owns the terminal.
pub fn come_to_foreground(terminal: impl AsFd) -> Result<()> {
    let is_ours = || tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp());
    if is_ours() {
        return Ok(());
    }
    eprintln!("svm-vm: the guest's shell needs the terminal: `fg` gives it that");
    killpg(getpgrp(), Signal::SIGTTIN).context("cannot wait for the terminal")?;
    ensure!(
        is_ours(),
        "the terminal belongs to another job: start this one in the foreground, or give it commands \
         by a pipe"
    );
    Ok(())
}

/// Starts a program that uses the terminal, waits for its end, and restores the terminal's
/// settings, which a killed program cannot do itself. A signal that ends this process ends the
/// program first.
pub fn attend(terminal: impl AsFd, start: impl FnOnce() -> Result<Child>) -> Result<Ending> {
    let _terminal = Terminal::save(terminal.as_fd());
    // From here on signals are read from a descriptor.
    let mut follower = Follower::new(&[])?;
    let mut child = start()?;
    follower.follow(&mut child, NO_LIMIT, |_, _| Ok(Then::Continue), |_| {})
}

/// Reads commands from standard input if it is not a terminal.
pub fn read_script(mut input: impl Read) -> Result<Vec<u8>> {
    let mut script = Vec::new();
    input
        .read_to_end(&mut script)
        .context("cannot read standard input")?;
    if script.trim_ascii().is_empty() {
        bail!(
            "standard input is neither a terminal nor has it commands to run in the guest: give it \
             some, as in `echo 'svmctl info' | svm-vm shell`"
        );
    }
    Ok(script)
}

/// The terminal's settings, restored on drop.
struct Terminal<'a> {
    terminal: BorrowedFd<'a>,
    settings: Option<Termios>,
}

impl<'a> Terminal<'a> {
    fn save(terminal: BorrowedFd<'a>) -> Self {
        Self {
            terminal,
            settings: tcgetattr(terminal).ok(),
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            // A terminal that has gone away needs no settings.
            let _ = tcsetattr(self.terminal, SetArg::TCSANOW, settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::process::Stdio;

    use nix::pty::openpty;
    use nix::sys::termios::LocalFlags;

    use super::*;
    use crate::external::External;

    /// Attends a program that makes the terminal raw, and then acts on it.
    fn attended(script: &str, action: impl FnOnce(&Child)) -> (Ending, u32, bool) {
        let pty = openpty(None, None).unwrap();
        let mut number = 0;
        let ending = attend(&pty.slave, || {
            let mut command = External::new("sh")
                .args(["-c", &format!("stty raw -echo; echo raw >&2; {script}")])
                .command();
            let stdin = pty.slave.try_clone()?;
            let mut child = command.stdin(stdin).stderr(Stdio::piped()).spawn()?;
            let mut line = String::new();
            std::io::BufReader::new(child.stderr.take().unwrap()).read_line(&mut line)?;
            assert_eq!(line, "raw\n");
            let flags = tcgetattr(&pty.slave)?.local_flags;
            assert!(!flags.contains(LocalFlags::ECHO), "it is not raw");
            number = child.id();
            action(&child);
            Ok(child)
        })
        .unwrap();
        let flags = tcgetattr(&pty.slave).unwrap().local_flags;
        let restored = flags.contains(LocalFlags::ECHO | LocalFlags::ICANON);
        (ending, number, restored)
    }

    #[test]
    fn a_signal_gives_the_terminal_back_and_leaves_no_qemu() {
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            let (ending, number, restored) = attended("exec tail -f /dev/null", |_| {
                // To this thread: the harness's other threads do not expect it.
                nix::sys::signal::raise(signal).unwrap();
            });
            assert_eq!(ending, Ending::Interrupted(signal));
            assert!(restored, "the terminal is still raw after {signal}");
            let process = format!("/proc/{number}");
            assert!(!std::path::Path::new(&process).exists(), "it still runs");
        }
    }

    #[test]
    fn a_program_that_dies_gives_the_terminal_back() {
        let (ending, _, restored) = attended("kill -9 $$", |_| {});
        assert!(matches!(ending, Ending::Exited(status) if !status.success()));
        assert!(restored);
    }

    #[test]
    fn a_script_is_all_of_the_input_and_not_empty() {
        assert_eq!(read_script(&b"a\nb"[..]).unwrap(), b"a\nb");
        let error = read_script(&b" \n"[..]).unwrap_err().to_string();
        assert!(error.contains("standard input"), "{error}");
    }
}
