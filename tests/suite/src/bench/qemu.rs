// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QEMU process whose processors do nothing, and its qtest socket: accesses of memory and ports
//! as a processor makes them.

use super::host::Gone;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// How long QEMU may take for an answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Held while a process starts, so that no other one inherits its socket.
static STARTING: Mutex<()> = Mutex::new(());

/// A running QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    child: Child,
    socket: BufReader<UnixStream>,
    /// What it says on its standard error.
    said: File,
}

impl Qemu {
    /// Starts QEMU with a qtest socket and more arguments.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(program: &OsStr, arguments: &[String]) -> Qemu {
        match Qemu::try_start(program, arguments) {
            Ok(qemu) => qemu,
            Err(error) => panic!("{} cannot be run: {error}", program.to_string_lossy()),
        }
    }

    fn try_start(program: &OsStr, arguments: &[String]) -> std::io::Result<Qemu> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let said = tempfile::tempfile()?;
        let guard = STARTING.lock();
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
        let child = Command::new(program)
            .args(["-M", "q35", "-m", "512", "-nodefaults", "-display", "none"])
            .args(["-accel", "qtest", "-qtest-log", "none"])
            .arg("-chardev")
            .arg(format!("socket,id=qtest,fd={}", theirs.as_raw_fd()))
            .args(["-qtest", "chardev:qtest"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone()?)
            .spawn()?;
        drop(theirs);
        drop(guard);
        Ok(Qemu {
            child,
            socket: BufReader::new(ours),
            said,
        })
    }

    /// Performs a command of the qtest protocol, and returns what follows `OK`.
    ///
    /// # Panics
    ///
    /// With [`Gone`] if QEMU ended or does not answer.
    pub fn command(&mut self, command: &str) -> String {
        let line = format!("{command}\n");
        if self.socket.get_mut().write_all(line.as_bytes()).is_err() {
            self.give_up(command);
        }
        loop {
            let mut line = String::new();
            if !self.socket.read_line(&mut line).is_ok_and(|n| n > 0) {
                self.give_up(command);
            }
            let line = line.trim_end();
            if line.starts_with("IRQ") {
                continue;
            }
            match line.strip_prefix("OK") {
                Some(answer) => return answer.trim().to_owned(),
                None => panic!("QEMU refuses '{command}': {line}"),
            }
        }
    }

    /// A command whose answer is a number.
    pub fn number(&mut self, command: &str) -> u64 {
        let answer = self.command(command);
        match u64::from_str_radix(answer.trim_start_matches("0x"), 16) {
            Ok(number) => number,
            Err(_) => panic!("'{command}': {answer}"),
        }
    }

    fn give_up(&mut self, doing: &str) -> ! {
        let _ = self.child.kill();
        let how = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = self.said();
        std::panic::panic_any(Gone(format!("QEMU is gone at '{doing}' ({how}): {said}")));
    }

    /// What it said on its standard error.
    fn said(&mut self) -> String {
        let mut said = String::new();
        // What cannot be read says nothing of the rule.
        let _ = self.said.rewind();
        let _ = self.said.read_to_string(&mut said);
        said.trim().to_owned()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
