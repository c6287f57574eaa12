// SPDX-License-Identifier: GPL-2.0-or-later
//! A QEMU process with its two sockets: qtest, which accesses memory and ports as a processor
//! would, and QMP. Knows nothing of the device.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long QEMU may take for anything before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the QEMU to test is.
#[derive(Clone)]
pub struct Installation {
    wrapper: PathBuf,
    plugin: PathBuf,
    binary: Option<PathBuf>,
}

impl Installation {
    /// The one of the environment, or None with a notice that the test is skipped.
    pub fn find() -> Option<Installation> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (variable("SVM_QEMU"), variable("SVM_PLUGIN")) {
            (Some(wrapper), Some(plugin)) => Some(Installation {
                wrapper: wrapper.into(),
                plugin: plugin.into(),
                binary: None,
            }),
            _ => {
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("test");
                let notice = format!("{name}: SKIPPED: SVM_QEMU and SVM_PLUGIN are not set\n");
                // Not by a macro, whose output the test harness would keep to itself.
                let _ = std::io::stderr().write_all(notice.as_bytes());
                None
            }
        }
    }

    /// The same with another binary.
    pub fn with_binary(&self, binary: PathBuf) -> Installation {
        Installation {
            binary: Some(binary),
            ..self.clone()
        }
    }

    /// The library to test.
    pub fn plugin(&self) -> &PathBuf {
        &self.plugin
    }

    /// A command that runs QEMU, with the library preloaded or not.
    fn command(&self, preload: bool) -> Command {
        let mut command = Command::new(&self.wrapper);
        let plugin: OsString = if preload {
            self.plugin.clone().into()
        } else {
            OsString::new()
        };
        command.env("SVM_PLUGIN", plugin);
        command.env("SVM_QEMU_BINARY", self.binary.clone().unwrap_or_default());
        command.stdin(Stdio::null());
        command
    }

    /// Runs QEMU until it ends by itself.
    pub fn run(&self, preload: bool, arguments: &[&str]) -> Output {
        self.command(preload)
            .args(arguments)
            .output()
            .expect("SVM_QEMU cannot be run")
    }

    /// What QEMU says, on both outputs, until it ends by itself.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(true, arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }
}

/// A running QEMU.
pub struct Qemu {
    child: Child,
    qtest: BufReader<UnixStream>,
    qmp: BufReader<UnixStream>,
    events: VecDeque<Value>,
    _directory: tempfile::TempDir,
}

impl Qemu {
    /// Starts a machine without processors that run.
    pub fn start(installation: &Installation, arguments: &[&str]) -> Qemu {
        Qemu::start_with(installation, true, arguments)
    }

    /// As [`Qemu::start`], with the library preloaded or not.
    pub fn start_with(installation: &Installation, preload: bool, arguments: &[&str]) -> Qemu {
        let directory = tempfile::tempdir().unwrap();
        let listen = |name: &str| {
            let path = directory.path().join(name);
            (
                UnixListener::bind(&path).unwrap(),
                format!("unix:{}", path.display()),
            )
        };
        let (qtest_listener, qtest_path) = listen("qtest");
        let (qmp_listener, qmp_path) = listen("qmp");
        let mut child = installation
            .command(preload)
            .args(["-M", "q35", "-m", "512", "-nodefaults", "-display", "none"])
            .args(accelerator())
            .args(["-qtest-log", "none"])
            .args(["-qtest", &qtest_path, "-qmp", &qmp_path])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("SVM_QEMU cannot be run");
        let mut accept = |listener: UnixListener| accept(&listener, &mut child);
        // QEMU opens QMP first.
        let qmp = accept(qmp_listener);
        let qtest = accept(qtest_listener);
        let mut qemu = Qemu {
            child,
            qtest: BufReader::new(qtest),
            qmp: BufReader::new(qmp),
            events: VecDeque::new(),
            _directory: directory,
        };
        qemu.read_qmp(); // The greeting.
        qemu.qmp("qmp_capabilities", json!({})).unwrap();
        qemu
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Performs a command of the qtest protocol and returns what follows `OK`.
    fn qtest(&mut self, command: &str) -> String {
        let line = format!("{command}\n");
        if self.qtest.get_mut().write_all(line.as_bytes()).is_err() {
            self.give_up(command);
        }
        loop {
            let mut line = String::new();
            if !self.qtest.read_line(&mut line).is_ok_and(|n| n > 0) {
                self.give_up(command);
            }
            let line = line.trim_end();
            if line.starts_with("IRQ") {
                continue;
            }
            let answer = line.strip_prefix("OK");
            return answer
                .unwrap_or_else(|| panic!("'{command}': {line}"))
                .trim()
                .to_owned();
        }
    }

    fn read_number(&mut self, command: &str, address: u64) -> u64 {
        let answer = self.qtest(&format!("{command} {address:#x}"));
        u64::from_str_radix(answer.trim_start_matches("0x"), 16).unwrap()
    }

    /// Reads 4 bytes.
    pub fn readl(&mut self, address: u64) -> u32 {
        self.read_number("readl", address) as u32
    }

    /// Reads 8 bytes.
    pub fn readq(&mut self, address: u64) -> u64 {
        self.read_number("readq", address)
    }

    /// Writes 2 bytes.
    pub fn writew(&mut self, address: u64, value: u16) {
        self.qtest(&format!("writew {address:#x} {value:#x}"));
    }

    /// Writes 4 bytes.
    pub fn writel(&mut self, address: u64, value: u32) {
        self.qtest(&format!("writel {address:#x} {value:#x}"));
    }

    /// Writes 8 bytes.
    pub fn writeq(&mut self, address: u64, value: u64) {
        self.qtest(&format!("writeq {address:#x} {value:#x}"));
    }

    /// Reads memory.
    pub fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let answer = self.qtest(&format!("read {address:#x} {length:#x}"));
        let digits = answer.trim_start_matches("0x").as_bytes();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// Writes memory.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        self.qtest(&format!("write {address:#x} {:#x} 0x{digits}", data.len()));
    }

    /// Writes 4 bytes to a port.
    pub fn outl(&mut self, port: u16, value: u32) {
        self.qtest(&format!("outl {port:#x} {value:#x}"));
    }

    /// Reads 4 bytes from a port.
    pub fn inl(&mut self, port: u16) -> u32 {
        self.read_number("inl", port.into()) as u32
    }

    /// Performs a QMP command.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let request = json!({ "execute": command, "arguments": arguments });
        // In one piece: QEMU acts as soon as the object is complete.
        let request = format!("{request}\n");
        if self.qmp.get_mut().write_all(request.as_bytes()).is_err() {
            self.give_up(command);
        }
        loop {
            let mut answer = self.read_qmp();
            if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap_or_default().to_owned());
            }
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
            self.events.push_back(answer);
        }
    }

    /// Ends a test to which QEMU does not answer any more.
    fn give_up(&mut self, doing: &str) -> ! {
        let _ = self.child.kill();
        let status = self.child.wait();
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        panic!("QEMU is gone or hangs at '{doing}' ({status:?}): {said}");
    }

    /// Waits for a QMP event.
    pub fn wait_event(&mut self, name: &str) -> Value {
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.read_qmp());
            if event["event"] == name {
                return event;
            }
        }
    }

    fn read_qmp(&mut self) -> Value {
        let mut line = String::new();
        if !self.qmp.read_line(&mut line).is_ok_and(|n| n > 0) {
            self.give_up("QMP");
        }
        serde_json::from_str(&line).unwrap()
    }

    /// Asks a question again and again until the answer is yes.
    pub fn until(&mut self, what: &str, mut question: impl FnMut(&mut Qemu) -> bool) {
        let begin = Instant::now();
        while !question(self) {
            assert!(begin.elapsed() < PATIENCE, "waited in vain for: {what}");
        }
    }

    /// Ends QEMU by `quit`, and returns what it said on its standard error.
    pub fn quit(mut self) -> String {
        // QEMU may be gone before its answer is out.
        let quit = format!("{}\n", json!({ "execute": "quit" }));
        self.qmp.get_mut().write_all(quit.as_bytes()).unwrap();
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut said).unwrap();
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "QEMU ended with {status}: {said}");
        said
    }

    /// Ends QEMU by a signal that it cannot handle.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The accelerator: qtest, which has processors that do nothing, or that of `SVM_QTEST_ACCEL`,
/// with processors that never start.
fn accelerator() -> Vec<String> {
    match std::env::var("SVM_QTEST_ACCEL") {
        Ok(accelerator) if !accelerator.is_empty() => {
            vec!["-accel".to_owned(), accelerator, "-S".to_owned()]
        }
        _ => vec!["-accel".to_owned(), "qtest".to_owned()],
    }
}

/// Waits for QEMU to connect.
fn accept(listener: &UnixListener, child: &mut Child) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let begin = Instant::now();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            return stream;
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || begin.elapsed() > PATIENCE {
            let mut said = String::new();
            if let (Some(errors), true) = (&mut child.stderr, ended.is_some()) {
                errors.read_to_string(&mut said).unwrap();
            }
            panic!("QEMU did not connect ({ended:?}): {said}");
        }
        // No event tells both: QEMU connects, or QEMU ends.
        std::thread::sleep(Duration::from_millis(5));
    }
}
