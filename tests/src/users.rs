// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests as people use them: their own programs, files and modules go in, results come out, and a
//! command ends as it would have ended on the host.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};

use crate::launcher::{Launcher, cargo};

/// A module that nothing else in a guest loads, and that depends on none.
const MODULE: &str = "nvme-keyring";

/// Size of a large file that leaves the guest, in MiB.
const LARGE_MIB: u64 = 100;

/// All that a program said.
pub fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// The module as the first test fetched it.
fn module(launcher: &Launcher) -> std::path::PathBuf {
    let directory = launcher.run_dir("left").join("fetched/svm/modules");
    directory.join(format!("{MODULE}.ko"))
}

/// An exit status, and what is left running. The writer is in a session of its own and never
/// pauses: neither the step's end nor that of the run may wait for it.
pub fn a_command_ends_as_it_ends(launcher: &Launcher) -> anyhow::Result<()> {
    let line = "(setsid yes $(printf %01000d 1) &); sleep 1; exit 22";
    let module_in_guest = format!("/svm/modules/{MODULE}.ko");
    let mut arguments = vec!["run", "--name", "left", "--exec", line];
    arguments.extend(["--fetch", &module_in_guest, "--fetch", "missing"]);
    let output = launcher.captured(&arguments)?;
    let text = text(&output);
    let lines = text.lines().filter(|line| !line.contains("00000"));
    let said: Vec<_> = lines.collect();
    ensure!(
        output.status.code() == Some(22),
        "{}: {said:?}",
        output.status
    );
    let left = said.iter().find(|line| line.contains("which are killed"));
    ensure!(
        left.is_some_and(|line| line.contains("yes (process ")),
        "what was left is not named: {said:?}"
    );
    let missing = said.iter().find(|line| line.contains("/root/missing"));
    ensure!(
        missing.is_some_and(|line| line.contains("no such file")),
        "what is missing is not named: {said:?}"
    );
    ensure!(module(launcher).is_file(), "nothing was fetched: {said:?}");
    Ok(())
}

/// What the guest has for shared virtual addressing, as JSON.
pub fn a_guest_is_examined(launcher: &Launcher) -> anyhow::Result<()> {
    let output = launcher.captured(&["doctor", "--guest", "--json"])?;
    let all = text(&output);
    ensure!(output.status.success(), "{}: {all}", output.status);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {all}"))?;
    let devices = report["devices"].as_array().context("no devices")?;
    let able: Vec<_> = devices
        .iter()
        .filter(|device| device["sva"] == "works")
        .collect();
    ensure!(able.len() == 1, "one device shares address spaces: {all}");
    Ok(())
}

/// Copying, a module instead of the driver, a shell without a terminal, and fetching.
pub fn all_goes_in_and_out(launcher: &Launcher) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let tool = directory.path().join("my tool");
    fs::create_dir(&tool)?;
    fs::write(tool.join("data"), "what went in")?;
    compile(
        "#include <stdio.h>\nint main(void) { return puts(\"linked dynamically\") < 0; }",
        &tool.join("program"),
    )?;
    let script = format!(
        "'./my tool/program' && cat /tmp/data && grep -q nvme_keyring /proc/modules || exit 1\n\
         dd if=/dev/zero of=large bs=1M count={LARGE_MIB} && mkdir out && cp /tmp/data out\n\
         ! grep svm_demo /proc/modules || exit 2\n\
         exit 3\n"
    );
    let script_file = directory.path().join("script");
    fs::write(&script_file, script)?;
    let data = format!("{}:/tmp/data", tool.join("data").display());
    let (tool, module) = (tool.display().to_string(), module(launcher));
    let module = module.display().to_string();
    let mut arguments = vec!["shell", "--name", "in-and-out", "--copy", &tool];
    arguments.extend(["--copy", &data, "--module", &module, "--no-driver"]);
    arguments.extend(["--fetch", "large", "--fetch", "out"]);
    let output = launcher
        .command(&arguments)
        .stdin(fs::File::open(&script_file)?)
        .output()?;
    let text = text(&output);
    ensure!(
        output.status.code() == Some(3),
        "{}:\n{text}",
        output.status
    );
    for line in ["linked dynamically", "what went in"] {
        ensure!(text.contains(line), "no {line:?} in:\n{text}");
    }
    let fetched = launcher.run_dir("in-and-out").join("fetched/root");
    let size = fs::metadata(fetched.join("large"))?.len();
    ensure!(size == LARGE_MIB << 20, "{size} bytes came");
    let data = fs::read_to_string(fetched.join("out/data"))?;
    ensure!(data == "what went in", "it reads {data:?}");
    Ok(())
}

fn compile(source: &str, program: &Path) -> anyhow::Result<()> {
    let file = program.with_extension("c");
    fs::write(&file, source)?;
    let status = Command::new("cc")
        .arg("-o")
        .arg(program)
        .arg(&file)
        .status();
    ensure!(status?.success(), "{} does not compile", file.display());
    Ok(())
}

/// The module is the one that was fetched, with another kernel's name in it.
pub fn a_module_for_another_kernel(launcher: &Launcher) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("other.ko");
    let mut bytes = fs::read(module(launcher))?;
    let magic = b"vermagic=";
    let at = bytes.windows(magic.len()).position(|piece| piece == magic);
    let at = at.context("the module does not say its kernel")? + magic.len();
    bytes[at] = b'6';
    fs::write(&path, bytes)?;
    let path = path.display().to_string();
    let arguments = [
        "run", "--name", "other", "--module", &path, "--exec", "true",
    ];
    let output = launcher.captured(&arguments)?;
    let text = text(&output);
    ensure!(
        output.status.code() == Some(125),
        "{}:\n{text}",
        output.status
    );
    let line = text.lines().find(|line| line.contains("other.ko"));
    ensure!(
        line.is_some_and(|line| line.contains("is a module for the kernel \"6.")),
        "no sentence about it in:\n{text}"
    );
    Ok(())
}

/// The first block of commands behind these words of the README.
fn commands_below(readme: &str, heading: &str) -> Option<String> {
    let (_, rest) = readme.split_once(heading)?;
    let (_, rest) = rest.split_once("```\n")?;
    let (block, _) = rest.split_once("```\n")?;
    Some(block.to_owned())
}

/// The commands are those that the README has.
pub fn the_program_of_the_readme(launcher: &Launcher) -> anyhow::Result<()> {
    let readme = fs::read_to_string(launcher.checkout().join("README.md"))?;
    let commands = commands_below(&readme, "\n**[Test my driver or program]")
        .context("the README has no such commands")?;
    let mut path = vec![Path::new(&cargo()).parent().map(Path::to_owned)];
    let rest = std::env::var_os("PATH").unwrap_or_default();
    path.extend(std::env::split_paths(&rest).map(Some));
    let output = Command::new("sh")
        .args(["-e", "-c", &commands])
        .current_dir(launcher.checkout())
        .env("PATH", std::env::join_paths(path.into_iter().flatten())?)
        .stdin(Stdio::null())
        .output()
        .context("the shell did not start")?;
    let text = text(&output);
    ensure!(output.status.success(), "{}:\n{text}", output.status);
    ensure!(
        text.contains("copied by the device"),
        "no result in:\n{text}"
    );
    Ok(())
}
