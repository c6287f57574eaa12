// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm clean` removes only files that `svm-vm` created.

mod common;

use nix::fcntl::{Flock, FlockArg};

use common::{Bench, said};

#[test]
fn what_runs_left_goes_and_all_else_stays() {
    let bench = Bench::new();
    bench.write("checkout/target/runs/demo/.lock");
    bench.write("checkout/target/guest/driver/svm_demo.ko");
    let mine = [
        bench.write("checkout/target/runs/notes/mine"),
        bench.write("checkout/target/debug/mine"),
        bench.write("cache/root-0123456789ab/mine"),
    ];
    let output = bench.run(&["clean"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!bench.path("checkout/target/runs/demo").exists());
    assert!(!bench.path("checkout/target/guest").exists());
    for file in mine {
        assert!(file.exists(), "{} is gone", file.display());
    }
}

#[test]
fn a_run_in_use_is_kept_and_named() {
    let bench = Bench::new();
    let lock = bench.write("checkout/target/runs/busy/.lock");
    let file = std::fs::File::open(&lock).unwrap();
    let _held = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    let output = bench.run(&["clean"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(lock.exists());
    assert!(
        said(&output).contains("runs/busy is kept"),
        "{}",
        said(&output)
    );
}

#[test]
fn folders_of_ones_own_in_the_cache_stay_and_are_named() {
    let bench = Bench::new();
    let mine = ["kernel/mine", "logs/mine", "root-fs/mine", "apt/mine"];
    let mine = mine.map(|file| bench.write(&format!("cache/{file}")));
    let output = bench.run(&["clean", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    for file in mine {
        assert!(file.exists(), "{} is gone", file.display());
    }
    let text = said(&output);
    assert!(text.contains("apt, kernel, logs, root-fs"), "{text}");
}
