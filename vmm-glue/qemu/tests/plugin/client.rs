// SPDX-License-Identifier: GPL-2.0-or-later
//! A QEMU process with its two sockets: qtest, which accesses memory and ports as a processor
//! would, and QMP. Knows nothing of the device.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long QEMU may take for anything before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// The loader's option, and the variable, by which the library is loaded.
const PRELOAD: &str = "--preload";
const LD_PRELOAD: &str = "LD_PRELOAD";

/// How QEMU is run: a command line and variables that the test knows, not a wrapper.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The program and its first arguments; with QEMU's own loader, QEMU is one of those.
    command: Vec<OsString>,
    /// Variables beyond those of the test.
    variables: Vec<(OsString, OsString)>,
    directory: PathBuf,
    plugin: PathBuf,
}

impl Installation {
    /// The one of `SVM_QEMU`, or None with a notice that the test is skipped.
    pub fn find() -> Option<Installation> {
        static FOUND: OnceLock<Installation> = OnceLock::new();
        let Some(wrapper) = std::env::var_os("SVM_QEMU").filter(|value| !value.is_empty()) else {
            skip("SVM_QEMU is not set");
            return None;
        };
        Some(FOUND.get_or_init(|| Installation::learn(&wrapper)).clone())
    }

    /// Lets the wrapper start a QEMU, and looks at the process that has become of it.
    fn learn(wrapper: &OsStr) -> Installation {
        const MARK: &str = "learn-how-qemu-is-run";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Command::new(wrapper)
            .args([
                "-name",
                MARK,
                "-M",
                "none",
                "-nodefaults",
                "-display",
                "none",
            ])
            .args(["-qmp", &format!("unix:{}", path.display())])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("SVM_QEMU cannot be run");
        // The wrapper may have to prepare something first.
        accept(&listener, &mut child, 10 * PATIENCE);
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let split = |name: &str| -> Vec<OsString> {
            let bytes = std::fs::read(process.join(name)).unwrap();
            let parts = bytes
                .split(|byte| *byte == 0)
                .filter(|part| !part.is_empty());
            parts
                .map(|part| OsStr::from_bytes(part).to_owned())
                .collect()
        };
        let command: Vec<OsString> = split("cmdline")
            .into_iter()
            .take_while(|part| part != "-name")
            .collect();
        let variables: Vec<(OsString, OsString)> = split("environ")
            .iter()
            .filter_map(|variable| {
                let bytes = variable.as_bytes();
                let at = bytes.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (&bytes[..at], &bytes[at + 1..]);
                Some((
                    OsStr::from_bytes(name).into(),
                    OsStr::from_bytes(value).into(),
                ))
            })
            .filter(|(name, value)| std::env::var_os(name).as_ref() != Some(value))
            .collect();
        let directory = std::fs::read_link(process.join("cwd")).unwrap();
        let _ = child.kill();
        let _ = child.wait();
        let preloaded = command
            .iter()
            .skip_while(|part| *part != PRELOAD)
            .nth(1)
            .or_else(|| {
                let variable = variables.iter().find(|(name, _)| name == LD_PRELOAD);
                variable.map(|(_, value)| value)
            });
        let plugin = preloaded
            .unwrap_or_else(|| panic!("SVM_QEMU does not preload the library: {command:?}"))
            .into();
        Installation {
            command,
            variables,
            directory,
            plugin,
        }
    }

    /// QEMU's binary.
    pub fn binary(&self) -> PathBuf {
        self.directory.join(&self.command[self.binary_index()])
    }

    fn binary_index(&self) -> usize {
        let is_qemu = |part: &OsString| {
            let name = Path::new(part).file_name().unwrap_or_default();
            name.as_bytes().starts_with(b"qemu-system")
        };
        self.command
            .iter()
            .position(is_qemu)
            .unwrap_or_else(|| panic!("no QEMU in {:?}", self.command))
    }

    /// The same with another binary.
    pub fn with_binary(&self, binary: PathBuf) -> Installation {
        let mut other = self.clone();
        let index = other.binary_index();
        other.command[index] = binary.into();
        other
    }

    /// The same with a variable of the environment.
    pub fn with_variable(&self, name: &str, value: &str) -> Installation {
        let mut other = self.clone();
        other.variables.push((name.into(), value.into()));
        other
    }

    /// The same without the library.
    pub fn without_plugin(&self) -> Installation {
        let mut other = self.clone();
        if let Some(index) = other.command.iter().position(|part| part == PRELOAD) {
            other.command.drain(index..index + 2);
        }
        other.variables.retain(|(name, _)| name != LD_PRELOAD);
        other
    }

    /// The library to test.
    pub fn plugin(&self) -> PathBuf {
        self.directory.join(&self.plugin)
    }

    /// A command that runs QEMU.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// What QEMU says, on both outputs, until it ends by itself.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self
            .command()
            .args(arguments)
            .output()
            .expect("QEMU cannot be run");
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
        Qemu::start_with(installation, &accelerator(), arguments)
    }

    /// Starts a machine whose processors run, and which needs firmware therefore.
    pub fn start_running(
        installation: &Installation,
        accelerator: &str,
        arguments: &[&str],
    ) -> Qemu {
        let accelerator = ["-accel".to_owned(), accelerator.to_owned()];
        Qemu::start_with(installation, &accelerator, arguments)
    }

    fn start_with(installation: &Installation, accelerator: &[String], arguments: &[&str]) -> Qemu {
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
            .command()
            .args(["-M", "q35", "-m", "512", "-nodefaults", "-display", "none"])
            .args(accelerator)
            .args(["-qtest-log", "none"])
            .args(["-qtest", &qtest_path, "-qmp", &qmp_path])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("SVM_QEMU cannot be run");
        let mut accept = |listener: UnixListener| accept(&listener, &mut child, PATIENCE);
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

    /// Reads a byte.
    pub fn readb(&mut self, address: u64) -> u8 {
        self.read_number("readb", address) as u8
    }

    /// Reads 2 bytes.
    pub fn readw(&mut self, address: u64) -> u16 {
        self.read_number("readw", address) as u16
    }

    /// Reads 4 bytes.
    pub fn readl(&mut self, address: u64) -> u32 {
        self.read_number("readl", address) as u32
    }

    /// Reads 8 bytes.
    pub fn readq(&mut self, address: u64) -> u64 {
        self.read_number("readq", address)
    }

    /// Writes a byte.
    pub fn writeb(&mut self, address: u64, value: u8) {
        self.qtest(&format!("writeb {address:#x} {value:#x}"));
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

    /// Sets an interrupt line of a device, which is named by its path.
    pub fn set_irq(&mut self, path: &str, line: u32, level: u32) {
        self.qtest(&format!("set_irq_in {path} unnamed-gpio-in {line} {level}"));
    }

    /// The names of QEMU's threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let names = std::fs::read_dir(tasks).unwrap().filter_map(name);
        names.map(|name| name.trim_end().to_owned()).collect()
    }

    /// Lets time pass for the machine: the clock of the qtest accelerator stands still otherwise.
    pub fn clock_step(&mut self, time: Duration) {
        self.qtest(&format!("clock_step {}", time.as_nanos()));
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

/// Names a file that the runner of the tests reads: a line for each test that was skipped, and for
/// each setting that a test has asked for.
const NOTES: &str = "SVM_TEST_NOTES";

/// Says that the running test is skipped, and why.
pub fn skip(reason: &str) {
    // Not by a macro, whose output the test harness would keep to itself.
    let notice = format!("{}: SKIPPED: {reason}\n", test_name());
    let _ = std::io::stderr().write_all(notice.as_bytes());
    note("skipped", reason);
}

/// The value of a variable that changes what the tests are run on. The runner repeats those tests
/// with another value that have asked for it, and no others.
pub fn setting(variable: &str) -> Option<String> {
    note("asked", variable);
    let value = std::env::var(variable).ok();
    value.filter(|value| !value.is_empty())
}

/// Tells the runner something of the running test, if there is one that listens.
fn note(kind: &str, text: &str) {
    let Some(path) = std::env::var_os(NOTES).filter(|value| !value.is_empty()) else {
        return;
    };
    let line = format!("{kind}\t{}\t{text}\n", test_name());
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("SVM_TEST_NOTES cannot be opened");
    // In one piece, since tests run at the same time.
    file.write_all(line.as_bytes())
        .expect("SVM_TEST_NOTES cannot be written");
}

/// The test harness gives a test's thread its name.
fn test_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("test").to_owned()
}

/// Whether the test can let time pass for the machine; a notice if it cannot.
pub fn has_clock() -> bool {
    let other = setting("SVM_QTEST_ACCEL").is_some();
    if other {
        skip("only the accelerator qtest has a clock to set");
    }
    !other
}

/// The accelerator: qtest, which has processors that do nothing, or that of `SVM_QTEST_ACCEL`,
/// with processors that never start.
fn accelerator() -> Vec<String> {
    match setting("SVM_QTEST_ACCEL") {
        Some(accelerator) => vec!["-accel".to_owned(), accelerator, "-S".to_owned()],
        None => vec!["-accel".to_owned(), "qtest".to_owned()],
    }
}

/// What a machine takes for the unit to see its interrupts: with all of the interrupt controllers in
/// KVM they pass by it.
pub fn remapped_interrupts() -> &'static [&'static str] {
    if setting("SVM_QTEST_ACCEL").is_some_and(|value| value.starts_with("kvm")) {
        &["-M", "kernel-irqchip=split"]
    } else {
        &[]
    }
}

/// Waits for QEMU to connect.
fn accept(listener: &UnixListener, child: &mut Child, patience: Duration) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let begin = Instant::now();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            return stream;
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || begin.elapsed() > patience {
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
