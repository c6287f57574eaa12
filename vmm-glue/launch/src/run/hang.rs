// SPDX-License-Identifier: MIT OR Apache-2.0
//! Describes a machine that did not end in time: where its processors are, and whether QEMU itself
//! still answers. It asks QEMU through its machine protocol (QMP), on a socket that QEMU inherits.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

/// Time limit of an answer. QEMU's main loop answers at once unless it is stuck.
const TO_ANSWER: Duration = Duration::from_secs(10);

/// The largest number of processors to describe.
const MOST_PROCESSORS: usize = 8;

/// Our end of the socket.
#[derive(Debug)]
pub struct Monitor {
    socket: UnixStream,
}

/// QEMU's end of the socket, which has to exist until QEMU is started.
#[derive(Debug)]
pub struct Inherited(OwnedFd);

/// The findings.
#[derive(Debug)]
pub struct Report {
    /// Where the processors are, or why this is unknown, in a few words.
    pub summary: String,
    /// All answers of QEMU, for a file.
    pub text: String,
}

impl Monitor {
    /// A socket for a QEMU that will be started.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub fn new() -> Result<(Self, Inherited)> {
        let (socket, other) = UnixStream::pair().context("cannot make a socket for QEMU")?;
        fcntl(&other, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl")?;
        Ok((Self { socket }, Inherited(other.into())))
    }

    /// Asks the QEMU in process `id`.
    pub fn report(&self, id: u32) -> Report {
        let mut text = String::new();
        let asked = self.ask(&mut text);
        let summary = match asked {
            Ok(summary) => summary,
            Err(error) => {
                let _ = write!(text, "{error:#}\n\nthe threads of QEMU:\n{}", threads(id));
                format!("{error:#}")
            }
        };
        Report { summary, text }
    }

    fn ask(&self, text: &mut String) -> Result<String> {
        self.socket.set_read_timeout(Some(TO_ANSWER))?;
        let mut lines = BufReader::new(&self.socket);
        let mut call = |command: &str, arguments: Value| -> Result<Value> {
            let request = json!({ "execute": command, "arguments": arguments });
            let answer = (|| {
                writeln!(&self.socket, "{request}")?;
                answer(&mut lines)
            })();
            answer.with_context(|| match command {
                // QEMU waits until the processors can stop.
                "stop" => "QEMU answers, but a processor does not stop: it is inside a device",
                _ => "QEMU does not answer: its main loop is stuck",
            })
        };
        call("qmp_capabilities", json!({}))?;
        call("stop", json!({}))?;
        let mut places = Vec::new();
        for cpu in 0..MOST_PROCESSORS {
            let mut say = |line: &str| -> Result<String> {
                let arguments = json!({ "command-line": line, "cpu-index": cpu });
                let said = call("human-monitor-command", arguments)?;
                Ok(said.as_str().unwrap_or_default().replace('\r', ""))
            };
            let registers = match say("info registers") {
                Ok(registers) => registers,
                // There are no more.
                Err(error) if error.root_cause().is::<Refused>() && cpu > 0 => break,
                Err(error) => return Err(error),
            };
            let register = |name: &str| field(&registers, name);
            let (rip, rsp) = (register("RIP"), register("RSP"));
            places.push(format!(
                "processor {cpu} at {}{}",
                rip.unwrap_or("an unknown address"),
                if register("HLT") == Some("1") {
                    ", halted"
                } else {
                    ""
                }
            ));
            // A halted processor may be one that an interrupt does not reach.
            let interrupts = say("info lapic")?;
            let _ = writeln!(
                text,
                "processor {cpu}\n{registers}\ninterrupts\n{interrupts}"
            );
            if let (Some(rip), Some(rsp)) = (rip, rsp) {
                let code = say(&format!("x /16i 0x{rip}"))?;
                let stack = say(&format!("x /64xg 0x{rsp}"))?;
                let _ = writeln!(text, "code\n{code}\nstack\n{stack}");
            }
        }
        Ok(places.join("; "))
    }
}

impl Inherited {
    /// QEMU's arguments for it.
    pub fn arguments(&self) -> [OsString; 4] {
        let descriptor = self.0.as_raw_fd();
        [
            "-chardev".into(),
            format!("socket,id=qmp,fd={descriptor}").into(),
            "-qmp".into(),
            "chardev:qmp".into(),
        ]
    }
}

/// QEMU has refused a command.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QEMU says: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// The answer to a command. Skips the greeting and events.
fn answer(lines: &mut BufReader<&UnixStream>) -> Result<Value> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut message: Value = serde_json::from_str(&line)?;
        if let Some(value) = message.get_mut("return") {
            return Ok(value.take());
        }
        if let Some(error) = message.get("error") {
            let why = error["desc"].as_str().unwrap_or_default().to_owned();
            return Err(Refused(why).into());
        }
    }
}

/// The value of `name=value` in QEMU's list of registers.
fn field<'a>(registers: &'a str, name: &str) -> Option<&'a str> {
    registers
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// The host kernel's information about the threads of a process: name, state, and where each
/// sleeps.
fn threads(id: u32) -> String {
    let mut text = String::new();
    let tasks = fs::read_dir(format!("/proc/{id}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = read("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        let _ = writeln!(
            text,
            "{}: {}, in {}, system call {}",
            read("comm").trim(),
            state.unwrap_or_default().trim(),
            read("wchan").trim(),
            read("syscall").trim()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A monitor, and its other end as a stream.
    fn pair() -> (Monitor, UnixStream) {
        let (monitor, inherited) = Monitor::new().unwrap();
        (monitor, inherited.0.into())
    }

    /// Answers commands like QEMU, with the results of `say`, until there are none.
    fn answering(
        stream: UnixStream,
        say: impl Fn(&str, &Value) -> Option<Value> + Send + 'static,
    ) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let mut out = stream.try_clone().unwrap();
            writeln!(out, r#"{{"QMP": {{}}}}"#).unwrap();
            for line in BufReader::new(stream).lines() {
                let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
                let command = request["execute"].as_str().unwrap();
                let Some(answer) = say(command, &request["arguments"]) else {
                    return;
                };
                writeln!(out, r#"{{"event": "STOP"}}"#).unwrap();
                writeln!(out, "{answer}").unwrap();
            }
        })
    }

    #[test]
    fn the_processors_are_found_and_no_more_than_there_are() {
        let (monitor, stream) = pair();
        let qemu = answering(stream, |command, arguments| {
            let line = arguments["command-line"].as_str().unwrap_or_default();
            Some(match (command, line, arguments["cpu-index"].as_u64()) {
                ("human-monitor-command", _, Some(2..)) => {
                    json!({"error": {"class": "GenericError", "desc": "no such CPU"}})
                }
                ("human-monitor-command", "info registers", Some(n)) => {
                    json!({"return": format!("RSP=00f{n}\r\nRIP=00a{n} RFL=2 HLT={n}\r\n")})
                }
                ("human-monitor-command", line, Some(n)) => {
                    json!({"return": format!("{line} {n}")})
                }
                _ => json!({"return": {}}),
            })
        });
        let report = monitor.report(0);
        assert_eq!(
            report.summary,
            "processor 0 at 00a0; processor 1 at 00a1, halted"
        );
        for said in ["x /64xg 0x00f1 1", "info lapic 1"] {
            assert!(report.text.contains(said), "{}", report.text);
        }
        drop(monitor);
        qemu.join().unwrap();
    }

    #[test]
    fn what_is_stuck_is_told() {
        for (last, told) in [
            ("qmp_capabilities", "QEMU does not answer"),
            ("stop", "a processor does not stop"),
        ] {
            let (monitor, stream) = pair();
            let qemu = answering(stream, move |command, _| {
                (command != last).then(|| json!({"return": {}}))
            });
            let report = monitor.report(std::process::id());
            assert!(report.summary.contains(told), "{}", report.summary);
            // The threads of this process stand in for QEMU's.
            assert!(report.text.contains("run::hang"), "{}", report.text);
            qemu.join().unwrap();
        }
    }
}
