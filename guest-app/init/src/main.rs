// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-init`: the first process of an svm-vm guest. It mounts the file systems that Linux programs
//! expect, carries out the plan that `svm-vm` packed, reports each event on the results channel and
//! powers off.
#![forbid(unsafe_code)]

mod guest;

use std::process::ExitCode;

fn main() -> ExitCode {
    if nix::unistd::getpid().as_raw() == 1 {
        guest::main();
    }
    eprintln!("svm-init: this is the first process of a guest, and does nothing as another");
    ExitCode::from(2)
}
