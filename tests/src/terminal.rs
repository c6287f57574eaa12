// SPDX-License-Identifier: MIT OR Apache-2.0
//! A person at a terminal: `svm-vm shell` takes what is typed and leaves the terminal as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use crate::launcher::Launcher;

/// Seconds in which a guest boots or ends, however busy the host is.
const PATIENCE: i64 = 300;

/// What the terminal shows when the guest's shell waits for a line.
const PROMPT: &str = "# ";

/// A terminal, seen from the side of the person.
struct Terminal {
    person: File,
    programs: OwnedFd,
    shown: String,
}

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&person)?;
        unlockpt(&person)?;
        let name = ptsname(&person, Vec::new())?;
        let programs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        Ok(Self {
            person: File::from(person),
            programs,
            shown: String::new(),
        })
    }

    /// How the terminal treats what is typed.
    fn settings(&self) -> anyhow::Result<Termios> {
        Ok(tcgetattr(&self.programs)?)
    }

    /// Reads until `text` is shown behind what was read before.
    fn until(&mut self, text: &str) -> anyhow::Result<()> {
        let begin = self.shown.len();
        while !self.shown[begin..].contains(text) {
            let limit = Timespec {
                tv_sec: PATIENCE,
                tv_nsec: 0,
            };
            let mut readable = [PollFd::new(&self.person, PollFlags::IN)];
            if poll(&mut readable, Some(&limit))? == 0 {
                bail!("{text:?} does not come, only: {}", self.shown);
            }
            let mut bytes = [0; 4096];
            let number = self.person.read(&mut bytes)?;
            self.shown += &String::from_utf8_lossy(&bytes[..number]);
        }
        Ok(())
    }

    fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.person.write_all(format!("{line}\n").as_bytes())?)
    }

    fn end(&self) -> anyhow::Result<Stdio> {
        Ok(self.programs.try_clone()?.into())
    }
}

/// A calculation by the guest's shell, and the terminal's settings before, meanwhile and when
/// `svm-vm` was told to end.
pub fn a_shell_on_a_terminal(launcher: &Launcher) -> anyhow::Result<()> {
    let mut terminal = Terminal::open()?;
    let before = terminal.settings()?;
    let shell = launcher.command(&["shell", "--name", "terminal"]);
    let mut child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(shell.get_program())
        .args(shell.get_args())
        .current_dir(launcher.checkout())
        .stdin(terminal.end()?)
        .stdout(terminal.end()?)
        .stderr(terminal.end()?)
        .spawn()
        .context("svm-vm did not start by setsid")?;
    terminal.until("starting the guest")?;
    terminal.until(PROMPT)?;
    // The guest's own terminal echoes.
    ensure!(
        !terminal
            .settings()?
            .local_modes
            .contains(LocalModes::ICANON),
        "the terminal passes lines on, and not what is typed"
    );
    // What is typed is shown, too, and is not what is waited for.
    terminal.type_line("echo $((6 * 7))-$(ls /dev/svm0)")?;
    terminal.until("42-/dev/svm0")?;
    // Nothing of QEMU is left to do it: svm-vm must restore the terminal itself.
    let launcher = Pid::from_raw(child.id() as i32).context("svm-vm has no number")?;
    kill_process(launcher, Signal::TERM)?;
    let status = child.wait()?;
    ensure!(
        status.code() == Some(128 + Signal::TERM.as_raw()),
        "svm-vm ended with {status}: {}",
        terminal.shown
    );
    let after = terminal.settings()?;
    ensure!(
        after.local_modes == before.local_modes && after.input_modes == before.input_modes,
        "the terminal was left with {:?}, and had {:?}",
        after.local_modes,
        before.local_modes
    );
    Ok(())
}
