// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors in a command are reported before anything is prepared.

mod common;

use std::fs;
use std::process::Command;

use common::{Bench, said};

#[test]
fn a_checkout_with_a_colon_is_refused() {
    let bench = Bench::new();
    let place = bench.path("a:b");
    fs::rename(bench.path("checkout"), &place).unwrap();
    let mut command = bench.command(&["prepare"]);
    let output = command.current_dir(&place).output().unwrap();
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains("a:b has a colon"), "{text}");
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let bench = Bench::new();
    let text = bench.refused(&["run", "--copy", "none", "--exec", "./none"]);
    assert!(text.contains("cannot copy none"), "{text}");
    // The header of a program for another machine.
    let foreign = bench.path("foreign");
    let mut head = [0; 64];
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    head[18] = 183;
    head[52] = 64;
    fs::write(&foreign, head).unwrap();
    let foreign = foreign.to_str().unwrap();
    let text = bench.refused(&["run", "--copy", foreign, "--exec", "./foreign"]);
    assert!(text.contains("is a program for AArch64"), "{text}");
    let text = bench.refused(&["run", "--module", foreign, "--exec", "true"]);
    assert!(text.contains("NAME.ko was expected"), "{text}");
}

#[test]
fn a_program_without_its_library_is_refused_by_the_librarys_name() {
    let bench = Bench::new();
    let library = bench.path("libsvmtest.so");
    let program = bench.path("program");
    let cc = |source: &str, arguments: &[&str]| {
        let file = bench.path("source.c");
        fs::write(&file, source).unwrap();
        let status = Command::new("cc").arg(&file).args(arguments).status();
        assert!(status.unwrap().success());
    };
    let directory = format!("-L{}", bench.path("").display());
    let (so, out) = (library.to_str().unwrap(), program.to_str().unwrap());
    cc("int f(void) { return 0; }", &["-shared", "-fPIC", "-o", so]);
    let main = "int f(void); int main(void) { return f(); }";
    cc(main, &[&directory, "-lsvmtest", "-o", out]);
    let text = bench.refused(&["run", "--copy", out, "--exec", "./program"]);
    assert!(text.contains("needs the library libsvmtest.so"), "{text}");
}

#[test]
fn a_command_line_that_is_wrong_is_not_the_commands_exit_status() {
    let bench = Bench::new();
    let status = |arguments: &[&str]| bench.run(arguments).status.code();
    assert_eq!(status(&["run", "--exec", "true", "--cpus", "0"]), Some(125));
    assert_eq!(status(&["run", "--exec=true", "--copy", "none"]), Some(125));
    assert_eq!(status(&["run", "--copy", "none"]), Some(1));
    assert_eq!(status(&["run", "--cpus", "0"]), Some(2));
}
