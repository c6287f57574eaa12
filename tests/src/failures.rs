// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run that goes wrong must say so: a guest that panics, hangs or dies, a QEMU that is killed, a
//! launcher that is killed, an option that makes no sense. Beside these, what people do with guests
//! of their own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::launcher::Launcher;
use crate::parts::Part;
use crate::users::text;
use crate::{terminal, users};

type Test = fn(&Launcher) -> anyhow::Result<()>;

/// Every test of this module, by name.
const TESTS: &[(&str, Test)] = &[
    (
        "a panic of the guest fails the run and is shown",
        a_panic_fails_the_run,
    ),
    (
        "a hanging guest fails the run at its time limit",
        a_hang_fails_the_run,
    ),
    (
        "a QEMU that is killed fails the run",
        a_killed_qemu_fails_the_run,
    ),
    (
        "a launcher that is killed leaves no QEMU behind",
        a_killed_launcher_leaves_nothing,
    ),
    (
        "a wrong device option is refused with its range",
        a_wrong_option_is_refused,
    ),
    (
        "a step that fails, fails the run",
        a_failing_step_fails_the_run,
    ),
    (
        "two runs at a time do not harm each other",
        two_runs_at_a_time,
    ),
    (
        "a shell takes what is typed, and the terminal is as before when it is ended",
        terminal::a_shell_on_a_terminal,
    ),
    ("the doctor examines a guest", users::a_guest_is_examined),
    (
        "a command's exit status is its own, and what it leaves running is ended",
        users::a_command_ends_as_it_ends,
    ),
    // These two take the module that the one before fetched.
    (
        "files, programs and modules go in, commands come from a pipe, results come out",
        users::all_goes_in_and_out,
    ),
    (
        "a module for another kernel is refused",
        users::a_module_for_another_kernel,
    ),
    (
        "the README's program runs in the guest by its three commands",
        users::the_program_of_the_readme,
    ),
];

/// Runs every test of this module.
///
/// # Errors
///
/// None: what goes wrong is a test that failed.
pub fn run(launcher: &Launcher, part: &mut Part) -> anyhow::Result<()> {
    for (name, test) in TESTS {
        part.test(name, |_| test(launcher).map(|()| ""));
    }
    Ok(())
}

/// A command of the guest that does not end. It sleeps: the host has others to run beside it.
const HANG: &str = "while :; do sleep 1000; done";

/// Runs `svm-vm`, which must fail, and whose output must contain all of `needles`.
fn must_fail_with(launcher: &Launcher, arguments: &[&str], needles: &[&str]) -> anyhow::Result<()> {
    let output = launcher.captured(arguments)?;
    let text = text(&output);
    ensure!(
        !output.status.success(),
        "svm-vm {arguments:?} succeeded:\n{text}"
    );
    for needle in needles {
        ensure!(
            text.contains(needle),
            "no {needle:?} in the output:\n{text}"
        );
    }
    Ok(())
}

fn a_panic_fails_the_run(launcher: &Launcher) -> anyhow::Result<()> {
    let line = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger";
    must_fail_with(
        launcher,
        &["run", "--name", "panic", "--exec", line],
        // Not any panic, and not one before the guest was asked for it.
        &[
            "guest is up",
            "Kernel panic - not syncing: sysrq triggered crash",
        ],
    )
}

/// Time limits, in seconds, of a guest that hangs: the shortest one in which it boots is tried.
const LIMITS: &[&str] = &["25", "50", "100", "200", "400"];

fn a_hang_fails_the_run(launcher: &Launcher) -> anyhow::Result<()> {
    let mut said = String::new();
    for limit in LIMITS {
        let arguments = ["run", "--name", "hang", "--timeout", limit, "--exec", HANG];
        let output = launcher.captured(&arguments)?;
        said = text(&output);
        ensure!(
            !output.status.success(),
            "svm-vm {arguments:?} succeeded:\n{said}"
        );
        // Earlier it is another failure, of a busy host: while it boots, or before its step begins.
        if said.contains("in the step \"exec\"") {
            let needle = format!(
                "the guest hung in the step \"exec\": no end within {limit} s: processor 0 at "
            );
            ensure!(
                said.contains(&needle),
                "no {needle:?} in the output:\n{said}"
            );
            let directory = launcher.run_dir("hang");
            let results = fs::read_to_string(directory.join("results.json"))?;
            let results: serde_json::Value = serde_json::from_str(&results)?;
            ensure!(results["bad_end"] == "hung", "{}", results["bad_end"]);
            let found = fs::read_to_string(directory.join("hang.txt"))?;
            ensure!(
                found.contains("processor 1") && found.contains("RIP=") && found.contains("stack"),
                "not where the processors are:\n{found}"
            );
            return Ok(());
        }
    }
    bail!("the guest did not come to its step in any time:\n{said}")
}

fn a_failing_step_fails_the_run(launcher: &Launcher) -> anyhow::Result<()> {
    let arguments = [
        "run",
        "--name",
        "failing",
        "--exec",
        "echo something went wrong; exit 3",
    ];
    must_fail_with(
        launcher,
        &arguments,
        &["something went wrong", "exit status 3", "1 failed"],
    )
}

fn a_wrong_option_is_refused(launcher: &Launcher) -> anyhow::Result<()> {
    let arguments = [
        "run",
        "--name",
        "wrong",
        "--device-option",
        "contexts=1000",
        "--exec",
        "true",
    ];
    must_fail_with(launcher, &arguments, &["contexts", "256"])
}

fn a_killed_qemu_fails_the_run(launcher: &Launcher) -> anyhow::Result<()> {
    let run = Running::start(launcher, "killed-qemu")?;
    kill_process(run.qemu, Signal::KILL).context("QEMU cannot be killed")?;
    let (status, text) = run.end()?;
    ensure!(
        !status.success(),
        "svm-vm succeeded although QEMU was killed:\n{text}"
    );
    ensure!(
        text.contains("QEMU died"),
        "the message does not say that QEMU died:\n{text}"
    );
    Ok(())
}

fn a_killed_launcher_leaves_nothing(launcher: &Launcher) -> anyhow::Result<()> {
    let mut run = Running::start(launcher, "killed-launcher")?;
    let qemu = pidfd_open(run.qemu, PidfdFlags::empty()).context("QEMU is gone already")?;
    run.launcher.kill()?;
    run.launcher.wait()?;
    // The kernel ends QEMU when its parent is gone; its pidfd becomes readable then.
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&qemu, PollFlags::IN)], Some(&limit))?;
    ensure!(
        ended == 1,
        "QEMU (process {}) still runs",
        run.qemu.as_raw_nonzero()
    );
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(
        !mounts.contains("svm-demo"),
        "something is still mounted:\n{mounts}"
    );
    Ok(())
}

fn two_runs_at_a_time(launcher: &Launcher) -> anyhow::Result<()> {
    let start = |name: &str| {
        launcher
            .command(&["run", "--name", name, "--exec", "svmctl info"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("svm-vm did not start")
    };
    let children = [start("first-of-two")?, start("second-of-two")?];
    for child in children {
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "one of the two runs failed:\n{text}"
        );
    }
    Ok(())
}

/// A run whose guest is up and waits.
struct Running {
    launcher: Child,
    /// What the launcher says from now on.
    rest: BufReader<ChildStderr>,
    qemu: Pid,
}

impl Running {
    /// Starts a run and reads what it says until its guest is up.
    fn start(launcher: &Launcher, name: &str) -> anyhow::Result<Self> {
        let mut child = launcher
            .command(&["run", "--name", name, "--exec", HANG])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("svm-vm did not start")?;
        let mut rest = BufReader::new(child.stderr.take().context("it has no output")?);
        let (mut said, mut qemu) = (String::new(), None);
        loop {
            let mut line = String::new();
            if rest.read_line(&mut line)? == 0 {
                bail!("svm-vm ended with {}:\n{said}", child.wait()?);
            }
            if let Some(number) = line.trim().strip_prefix("QEMU is process ") {
                qemu = Pid::from_raw(number.parse()?);
            }
            if line.starts_with("guest is up") {
                break;
            }
            said.push_str(&line);
        }
        let qemu = qemu.context("svm-vm does not say which process QEMU is")?;
        Ok(Running {
            launcher: child,
            rest,
            qemu,
        })
    }

    /// Waits for its end: how it ended, and what it said at last.
    fn end(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let mut text = String::new();
        self.rest.read_to_string(&mut text)?;
        Ok((self.launcher.wait()?, text))
    }
}
