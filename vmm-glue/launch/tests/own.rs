// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user's own kernel, QEMU, machine and cache: an error in them is reported in one sentence,
//! and nothing is prepared.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{Bench, said};

#[test]
fn a_build_directory_that_is_none_is_named_with_what_it_lacks() {
    let bench = Bench::new();
    let kdir = bench.path("kdir");
    let place = kdir.to_str().unwrap();
    let kernel = ["run", "--kdir", place];
    let text = bench.refused(&kernel);
    assert!(text.contains(place), "{text}");
    fs::create_dir(&kdir).unwrap();
    let text = bench.refused(&kernel);
    let wanted = "the kernel's build directory has no image; give one by --kernel";
    assert!(text.contains(wanted), "{text}");
    let image = bench.write("kdir/arch/x86/boot/bzImage");
    let text = bench.refused(&kernel);
    assert!(text.contains("include/config/kernel.release"), "{text}");
    // An image does not tell how to build a module for it.
    let text = bench.refused(&["run", "--kernel", image.to_str().unwrap()]);
    assert!(text.contains("--kdir"), "{text}");
}

#[test]
fn a_qemu_that_is_none_is_named_with_what_was_expected() {
    let bench = Bench::new();
    let nowhere = bench.path("nowhere");
    let text = bench.refused(&["run", "--qemu", nowhere.to_str().unwrap()]);
    assert!(text.contains("nowhere"), "{text}");
    fs::create_dir(bench.path("build")).unwrap();
    let build = bench.path("build");
    let text = bench.refused(&["run", "--qemu", build.to_str().unwrap()]);
    assert!(text.contains("qemu-system-x86_64"), "{text}");
    let file = bench.write("notes.txt");
    let text = bench.refused(&["run", "--qemu", file.to_str().unwrap()]);
    assert!(text.contains("notes.txt is no QEMU"), "{text}");
}

#[test]
fn this_machine_is_examined_as_it_is() {
    let bench = Bench::new();
    let output = bench.run(&["doctor", "--machine", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = fs::read_to_string("/proc/cmdline").unwrap();
    let scalable = line.contains("sm_on");
    let checks = report["machine"].as_array().unwrap();
    let name = "kernel command line: scalable mode on";
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(check["verdict"] == "present", scalable, "{check}");
    // The text output reports the same.
    let words = bench.run(&["doctor", "--machine"]);
    assert_eq!(words.status.code(), output.status.code());
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains(name), "{words}");
    let both = bench.run(&["doctor", "--machine", "--guest"]);
    assert!(said(&both).contains("cannot be used with"));
}

/// A cache that was prepared under a umask that excludes others: another user is told who owns it
/// and what the owner can do. Root can access everything, so the test runs as another user.
#[test]
fn a_cache_that_keeps_others_out_is_told_from_one_that_is_empty() {
    let bench = Bench::new();
    let open = fs::Permissions::from_mode(0o755);
    for place in [bench.path(""), bench.path("checkout")] {
        fs::set_permissions(place, open.clone()).unwrap();
    }
    // At a place where another user can run it. Another process makes the copy: otherwise a process
    // that a parallel test starts could have the copy open for writing.
    let program = bench.path("svm-vm");
    let mut copy = Command::new("install");
    copy.args(["-m", "755", env!("CARGO_BIN_EXE_svm-vm")]);
    assert!(copy.arg(&program).status().unwrap().success());
    let closed = bench.path("cache");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let user = nix::unistd::geteuid();
    let mut command = Command::new("setpriv");
    if user.is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    let output = command
        .arg("--")
        .arg(&program)
        .args(["run", "--exec", "true"])
        .current_dir(bench.path("checkout"))
        .env("SVM_CACHE", &closed)
        .env("HOME", bench.path(""))
        .output()
        .unwrap();
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    let advice = format!("chmod -R a+rX {}", closed.display());
    assert!(text.contains(&advice), "{text}");
    assert!(
        text.contains(&format!("belongs to the user {user}")),
        "{text}"
    );
    // So that it can be removed.
    fs::set_permissions(&closed, open).unwrap();
}
