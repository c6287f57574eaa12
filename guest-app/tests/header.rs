// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C header against svm-abi: a C compiler compares every number, and every name of the tables
//! has to be there. And the C example compiles without a warning.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use svmctl::abi::completion::{self, Error};
use svmctl::abi::counters::{BLOCK_SIZE, COUNT, COUNTERS};
use svmctl::abi::descriptor::{self, Operation, flags, gather};
use svmctl::abi::ioctl::{self, Eventfd, Info, Moderation, Queue};
use svmctl::abi::registers::{halt, status};
use svmctl::abi::{doorbell, ids};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles with all warnings as errors; what the compiler says if it refuses.
fn compile(file: &Path, output: &Path) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler)
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-c",
            "-I",
        ])
        .arg(source("include"))
        .arg("-o")
        .arg(output)
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}: install a C compiler, or set CC"));
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A C program that is right if the header is.
#[derive(Default)]
struct Program(String);

impl Program {
    fn equal(&mut self, expression: &str, value: u64) {
        writeln!(
            self.0,
            "_Static_assert({expression} == {value}ULL, \"{expression} is {value}\");"
        )
        .unwrap();
    }

    fn structure(&mut self, name: &str, size: usize, fields: &[(&str, usize)]) {
        self.equal(&format!("sizeof(struct {name})"), size as u64);
        for (field, offset) in fields {
            self.equal(&format!("offsetof(struct {name}, {field})"), *offset as u64);
        }
    }

    fn compile(&self) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("check.c");
        let text = format!("#include <stddef.h>\n#include \"svm_demo.h\"\n{}\n", self.0);
        std::fs::write(&file, text).unwrap();
        compile(&file, &directory.path().join("check.o"))
    }
}

/// `PageFault` as `PAGE_FAULT`.
fn upper_snake(name: &str) -> String {
    let mut text = String::new();
    for (n, letter) in name.chars().enumerate() {
        if n > 0 && letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

macro_rules! fields {
    ($type:ty: $($field:ident)+) => {
        &[$((stringify!($field), offset_of!($type, $field)),)+]
    };
}

/// Number of an ioctl as Linux composes it (asm-generic/ioctl.h): direction, size, type, number.
fn request(direction: u64, number: u8, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | u64::from(ioctl::TYPE) << 8 | u64::from(number)
}

fn program() -> Program {
    let mut p = Program::default();
    p.equal("SVM_VENDOR_ID", ids::VENDOR_ID.into());
    p.equal("SVM_DEVICE_ID", ids::DEVICE_ID.into());
    p.equal("SVM_ABI_VERSION", ids::ABI_VERSION.into());

    let info = fields!(Info: abi_version context pasid contexts ring_log2_max transfer_log2_max
        operations atc_entries page_requests batch_log2_max reserved);
    p.structure("svm_info", size_of::<Info>(), info);
    let queue = fields!(Queue: ring ring_log2 flags);
    p.structure("svm_queue", size_of::<Queue>(), queue);
    p.structure(
        "svm_eventfd",
        size_of::<Eventfd>(),
        fields!(Eventfd: fd flags),
    );
    let moderation = fields!(Moderation: count microseconds);
    p.structure("svm_moderation", size_of::<Moderation>(), moderation);
    let (none, write, read) = (0, 1, 2);
    let requests = [
        ("INFO", request(read, ioctl::INFO, size_of::<Info>())),
        (
            "QUEUE_SETUP",
            request(write, ioctl::QUEUE_SETUP, size_of::<Queue>()),
        ),
        ("QUEUE_STOP", request(none, ioctl::QUEUE_STOP, 0)),
        (
            "EVENTFD",
            request(write, ioctl::EVENTFD, size_of::<Eventfd>()),
        ),
        (
            "MODERATION",
            request(write, ioctl::MODERATION, size_of::<Moderation>()),
        ),
    ];
    for (name, number) in requests {
        p.equal(&format!("SVM_IOCTL_{name}"), number);
    }

    p.equal("SVM_DOORBELL_SIZE", ioctl::DOORBELL_SIZE as u64);
    p.equal("SVM_DOORBELL_TAIL", doorbell::TAIL);
    p.equal("SVM_DOORBELL_HEAD", doorbell::HEAD);
    p.equal("SVM_DOORBELL_STATUS", doorbell::STATUS);
    p.equal("SVM_DOORBELL_COUNTERS", doorbell::COUNTERS);
    p.equal("SVM_STATE_DISABLED", status::DISABLED.into());
    p.equal("SVM_STATE_ENABLED", status::ENABLED.into());
    p.equal("SVM_STATE_STOPPING", status::STOPPING.into());
    p.equal("SVM_STATE_HALTED", status::HALTED.into());
    p.equal("SVM_HALT_NONE", halt::NONE.into());
    p.equal("SVM_HALT_BAD_PASID", halt::BAD_PASID.into());
    p.equal("SVM_HALT_BAD_RING", halt::BAD_RING.into());
    p.equal("SVM_HALT_BAD_DOORBELL", halt::BAD_DOORBELL.into());
    p.equal("SVM_HALT_RING_FAULT", halt::RING_FAULT.into());
    p.equal("SVM_HALT_FUNCTION_DISABLED", halt::FUNCTION_DISABLED.into());
    for counter in COUNTERS {
        let name = format!("SVM_COUNTER_{}", counter.key.to_uppercase());
        p.equal(&name, counter.index as u64);
    }

    for operation in Operation::ALL {
        let name = format!("SVM_OP_{}", operation.key().to_uppercase());
        p.equal(&name, *operation as u64);
    }
    p.equal("SVM_FLAG_FENCE", flags::FENCE.into());
    p.equal("SVM_FLAG_INTERRUPT", flags::INTERRUPT.into());
    p.equal("SVM_FLAG_BLOCK_ON_FAULT", flags::BLOCK_ON_FAULT.into());
    let words: &[(&str, usize)] = &[
        ("operation", descriptor::OPERATION),
        ("flags", descriptor::FLAGS),
        ("completion", descriptor::COMPLETION),
        ("source", descriptor::SOURCE),
        ("destination", descriptor::DESTINATION),
        ("length", descriptor::LENGTH),
        ("operand0", descriptor::OPERAND0),
        ("operand1", descriptor::OPERAND1),
    ];
    p.structure("svm_descriptor", descriptor::SIZE, words);
    let record: &[(&str, usize)] = &[
        ("status", completion::STATUS),
        ("error", completion::ERROR),
        ("access", completion::ACCESS),
        ("bytes_done", completion::BYTES_DONE),
        ("fault_address", completion::FAULT_ADDRESS),
        ("result", completion::RESULT),
    ];
    p.structure("svm_completion", completion::SIZE, record);
    p.equal("SVM_STATUS_PENDING", completion::status::PENDING.into());
    p.equal("SVM_STATUS_SUCCESS", completion::status::SUCCESS.into());
    p.equal("SVM_STATUS_FAILURE", completion::status::FAILURE.into());
    p.equal("SVM_ACCESS_WRITE", completion::access::WRITE.into());
    for error in Error::ALL {
        let name = format!("SVM_ERROR_{}", upper_snake(&format!("{error:?}")));
        p.equal(&name, *error as u64);
    }
    let entry: &[(&str, usize)] = &[("address", gather::ADDRESS), ("length", gather::LENGTH)];
    p.structure("svm_gather_entry", gather::ENTRY_SIZE as usize, entry);
    p
}

#[test]
fn the_header_has_every_name_and_number_of_the_interface() {
    if let Err(error) = program().compile() {
        panic!("include/svm_demo.h differs from svm-abi:\n{error}");
    }
}

/// What is in the tables cannot be left out of the header unnoticed; what a table does not list is
/// counted here.
#[test]
fn nothing_was_added_that_the_header_does_not_know() {
    assert_eq!(
        flags::ALL,
        flags::FENCE | flags::INTERRUPT | flags::BLOCK_ON_FAULT
    );
    assert_eq!(BLOCK_SIZE, 8 * COUNT as u64);
    assert_eq!(COUNTERS.len(), COUNT);
    assert_eq!(doorbell::END, doorbell::COUNTERS + BLOCK_SIZE);
}

#[test]
fn a_number_that_differs_is_noticed() {
    let mut wrong = program();
    wrong.equal("SVM_OP_COPY", 99);
    assert!(wrong.compile().unwrap_err().contains("SVM_OP_COPY is 99"));
    let mut missing = Program::default();
    missing.equal("SVM_OP_TELEPORT", 1);
    assert!(missing.compile().unwrap_err().contains("SVM_OP_TELEPORT"));
}

#[test]
fn the_example_compiles_without_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let example = source("examples/sum.c");
    compile(&example, &directory.path().join("sum.o")).unwrap();
}
