// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs other programs so that they cannot outlive this one, logs their output, and shows the end
//! of the log if they fail.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::progress::Task;

/// Lines of a log that a failure shows.
const SHOWN_LINES: usize = 15;

/// Makes a directory a private mount, so that mounts below it are not visible to others, and runs a
/// program. Arguments: the directory, then the program and its arguments.
const IN_A_MOUNT: &str = r#"
below=$1
shift
mount --bind "$below" "$below" && mount --make-rprivate "$below" || exit 1
"$@"
status=$?
umount --lazy "$below"
exit "$status"
"#;

/// How a program is tied to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tether {
    /// It is killed with this process; its own children must end on their own.
    Process,
    /// It and everything that it starts are killed with this process, in a separate process
    /// namespace.
    Tree,
    /// The same, and its mounts below a directory are private and removed with it. Without
    /// privileges it is root in a user namespace, if the kernel permits that.
    TreeAndMounts(PathBuf),
}

/// A program to run.
#[derive(Debug)]
pub struct External {
    program: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, Option<OsString>)>,
    clear: bool,
    directory: Option<PathBuf>,
    low_priority: bool,
    tether: Tether,
}

/// Whether the root directory is a mount point. It is not in a plain chroot.
fn root_is_a_mount() -> bool {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return true;
    };
    is_mounted(&mounts, "/")
}

/// Whether a table of mounts has one at a path (proc_pid_mountinfo(5)).
fn is_mounted(mounts: &str, place: &str) -> bool {
    let mut mounts = mounts.lines();
    mounts.any(|mount| mount.split(' ').nth(4) == Some(place))
}

impl External {
    /// The program `program`, searched in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            clear: false,
            directory: None,
            low_priority: false,
            tether: Tether::Process,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push((name.into(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes an environment variable.
    pub fn without_env(mut self, name: &str) -> Self {
        self.variables.push((name.into(), None));
        self
    }

    /// Starts it with only the environment that [`Self::env`] sets.
    pub fn clear_env(mut self) -> Self {
        self.clear = true;
        self
    }

    /// Sets its working directory.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Gives it only the processor time that others leave, if that is `wanted`.
    pub fn low_priority(mut self, wanted: bool) -> Self {
        self.low_priority = wanted;
        self
    }

    /// Also kills everything that it starts when this process ends. Without privileges only the
    /// program itself is tethered.
    pub fn with_tree(mut self) -> Self {
        if nix::unistd::geteuid().is_root() {
            self.tether = Tether::Tree;
        }
        self
    }

    /// Likewise, and hides its mounts below a directory from all others. Needs root, or a kernel
    /// that permits unprivileged user namespaces.
    pub fn with_mounts(mut self, below: &Path) -> Self {
        self.tether = Tether::TreeAndMounts(below.to_owned());
        self
    }

    /// The command without a tether, to replace this process.
    pub fn untethered(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.complete(&mut command);
        command.args(&self.arguments);
        command
    }

    /// The command without a tether as a line for the shell. Its directory is the shell's.
    ///
    /// # Errors
    ///
    /// A word is not UTF-8, or has a byte of 0.
    pub fn line(&self) -> Result<String> {
        let (mut removed, mut set) = (Vec::new(), Vec::new());
        for (name, value) in &self.variables {
            match value {
                Some(value) => {
                    let mut word = name.clone();
                    word.push("=");
                    word.push(value);
                    set.push(word);
                }
                None => removed.extend([OsString::from("-u"), name.clone()]),
            }
        }
        let mut words = vec![OsString::from("env")];
        words.extend(self.clear.then(|| "-i".into()));
        // `env` takes its options first.
        words.extend(removed);
        words.extend(set);
        words.push(self.program.clone());
        words.extend(self.arguments.iter().cloned());
        let words = words
            .iter()
            .map(|word| word.to_str().context("a path that is not UTF-8"));
        shlex::try_join(words.collect::<Result<Vec<_>>>()?).context("a word has a byte of 0")
    }

    /// The command with its tether. It reads nothing from standard input.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        match &self.tether {
            Tether::Process => {}
            Tether::Tree => {
                command.args(["unshare", "--pid", "--fork", "--kill-child=KILL", "--"]);
            }
            Tether::TreeAndMounts(below) => {
                command.args(["unshare", "--pid", "--fork", "--kill-child=KILL"]);
                if !nix::unistd::geteuid().is_root() {
                    command.args(["--user", "--map-root-user"]);
                }
                command.args(["--mount", "--propagation"]);
                if root_is_a_mount() {
                    command.args(["private", "--"]);
                } else {
                    // The mount that contains such a root cannot be changed, because it has no path
                    // here.
                    command.args(["unchanged", "--", "sh", "-c", IN_A_MOUNT, "mount"]);
                    command.arg(below);
                }
            }
        }
        self.complete(&mut command);
        command
            .args(self.low_priority.then_some("nice"))
            .arg(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null());
        command
    }

    /// Gives a command its environment and directory.
    fn complete(&self, command: &mut Command) {
        if self.clear {
            command.env_clear();
            // The tether itself is looked up there.
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        }
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
    }

    /// Runs it and returns its standard output.
    pub fn output(&self) -> Result<String> {
        let name = self.program.to_string_lossy();
        let output = self
            .command()
            .output()
            .with_context(|| format!("cannot start {name} by setpriv"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{name} failed ({}): {}", output.status, errors.trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("{name} printed no UTF-8"))
    }

    /// Runs it and appends all its output to `log`. The task shows its progress: the last line that
    /// announces a part of the work.
    pub fn run_logged(&self, log: &Path, task: &Task) -> Result<()> {
        let name = Path::new(&self.program)
            .file_name()
            .unwrap_or(&self.program)
            .to_string_lossy();
        if let Some(directory) = log.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let words: Vec<_> = std::iter::once(&self.program)
            .chain(&self.arguments)
            .collect();
        writeln!(file, "$ {words:?}").with_context(|| format!("cannot write {}", log.display()))?;

        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("pipe")?;
        let mut command = self.command();
        command
            .stdout(writer.try_clone().context("cannot duplicate a pipe")?)
            .stderr(writer);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name} by setpriv"))?;
        // It holds the pipe's writing end: reading would never end.
        drop(command);
        for line in BufReader::new(File::from(reader)).split(b'\n') {
            let line = line.with_context(|| format!("cannot read what {name} prints"))?;
            let line = String::from_utf8_lossy(&line);
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
            if let Some(part) = announced(&line) {
                task.at(part);
            }
        }
        let status = child
            .wait()
            .with_context(|| format!("cannot await {name}"))?;
        if !status.success() {
            bail!(
                "{name} failed ({status}); the end of {}:\n{}",
                log.display(),
                tail(
                    &std::fs::read_to_string(log).unwrap_or_default(),
                    SHOWN_LINES
                )
            );
        }
        Ok(())
    }
}

/// The next part of the work that a line announces, if it does.
fn announced(line: &str) -> Option<&str> {
    let line = line.trim();
    ["==> ", "I: ", "Compiling ", "Get:"]
        .iter()
        .find_map(|mark| line.strip_prefix(mark))
        .map(str::trim)
}

/// The last `count` lines of a text, indented.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines[from..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn a_root_that_is_no_mount_is_recognized() {
        let host = "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let chroot = "40 27 0:21 / /proc rw - proc proc rw\n41 27 0:6 / /dev rw - devtmpfs d rw\n";
        assert!(is_mounted(host, "/"));
        assert!(!is_mounted(chroot, "/"));
    }

    #[test]
    fn a_line_for_the_shell_does_the_same() {
        let external = External::new("sh")
            .args(["-c", "echo \"$A $B $1\"", "sh", "it's"])
            .env("A", "a b")
            .without_env("B");
        let line = external.line().unwrap();
        let said = Command::new("sh")
            .args(["-c", &line])
            .env("B", "b")
            .output();
        assert_eq!(said.unwrap().stdout, b"a b  it's\n", "{line}");
        let alone = External::new("sh").args(["-c", "echo $B"]).clear_env();
        let line = alone.line().unwrap();
        let said = Command::new("sh")
            .args(["-c", &line])
            .env("B", "b")
            .output();
        assert_eq!(said.unwrap().stdout, b"\n", "{line}");
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("logs/a.log");
        let task = Progress::new().task("test");
        let error = External::new("sh")
            .args(["-c", "echo first; echo the reason >&2; exit 3"])
            .run_logged(&log, &task)
            .unwrap_err()
            .to_string();
        task.done();
        assert!(error.contains("the reason"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(std::fs::read_to_string(&log).unwrap().contains("first"));
    }

    #[test]
    fn the_output_of_a_failed_program_is_no_output() {
        let error = External::new("sh")
            .args(["-c", "echo no >&2; false"])
            .output()
            .unwrap_err();
        assert!(error.to_string().ends_with(": no"), "{error}");
    }

    #[test]
    fn a_low_priority_is_lower_than_this_process_has() {
        // Without arguments it prints its own niceness.
        let niceness = |wanted: bool| {
            let said = External::new("nice").low_priority(wanted).output();
            said.unwrap().trim().parse::<i32>().unwrap()
        };
        let own = niceness(false);
        assert_eq!(niceness(true), (own + 10).min(19));
    }

    #[test]
    fn announcements_are_recognized() {
        assert_eq!(announced("==> unpacking"), Some("unpacking"));
        assert_eq!(announced("   Compiling nix v0.31"), Some("nix v0.31"));
        assert_eq!(announced("cc -c x.c"), None);
    }

    #[test]
    fn a_tail_is_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), "    b\n    c");
    }
}
