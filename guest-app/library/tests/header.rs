// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the C header with svm-abi: a C compiler compares every number, size, offset and
//! alignment, and no name of either side may be missing from the comparison. Also, the C example
//! must compile without a warning.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use svmctl::abi::completion::{self, Error};
use svmctl::abi::counters::COUNTERS;
use svmctl::abi::descriptor::{self, Operation, batch, flags, gather, operand, translation};
use svmctl::abi::ioctl::{self, Eventfd, Info, Moderation, Queue};
use svmctl::abi::registers::{halt, lost, status};
use svmctl::abi::{doorbell, ids};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles with all warnings as errors. Returns the compiler's messages if it fails.
fn compile(file: &Path, output: &Path, options: &[&str]) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .args(options)
        .args(["-c", "-I"])
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

/// A number of the interface: its place in svm-abi, its name in C, and its value.
struct Number {
    place: String,
    name: String,
    value: u64,
}

/// A structure: its name, size and alignment, and its fields with their offsets and sizes.
struct Structure {
    name: &'static str,
    size: usize,
    alignment: usize,
    fields: Vec<(&'static str, usize, usize)>,
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

/// Numbers by their place in svm-abi: `NAME in C: place::of::it`.
macro_rules! numbers {
    ($($name:literal: $first:ident $(:: $rest:ident)*,)+) => {
        vec![$(Number {
            place: concat!(stringify!($first) $(, "::", stringify!($rest))*).to_owned(),
            name: format!("SVM_DEMO_{}", $name),
            value: $first $(:: $rest)* as u64,
        },)+]
    };
}

fn numbers() -> Vec<Number> {
    let mut all = numbers! {
        "VENDOR_ID": ids::VENDOR_ID,
        "DEVICE_ID": ids::DEVICE_ID,
        "DEVICE_VERSION": ids::ABI_VERSION,
        "MAX_CONTEXTS": ids::MAX_CONTEXTS,
        "MAX_RING_LOG2": ids::MAX_RING_LOG2,
        "MAX_TRANSFER_LOG2": ids::MAX_TRANSFER_LOG2,
        "MAX_BATCH_LOG2": ids::MAX_BATCH_LOG2,
        "IOCTL_TYPE": ioctl::TYPE,
        "DOORBELL_SIZE": ioctl::DOORBELL_SIZE,
        "DOORBELL_TAIL": doorbell::TAIL,
        "DOORBELL_HEAD": doorbell::HEAD,
        "DOORBELL_STATUS": doorbell::STATUS,
        "DOORBELL_LOST": doorbell::LOST,
        "DOORBELL_COUNTERS": doorbell::COUNTERS,
        "STATE_DISABLED": status::DISABLED,
        "STATE_ENABLED": status::ENABLED,
        "STATE_STOPPING": status::STOPPING,
        "STATE_HALTED": status::HALTED,
        "HALT_NONE": halt::NONE,
        "HALT_BAD_PASID": halt::BAD_PASID,
        "HALT_BAD_RING": halt::BAD_RING,
        "HALT_BAD_DOORBELL": halt::BAD_DOORBELL,
        "HALT_RING_FAULT": halt::RING_FAULT,
        "HALT_FUNCTION_DISABLED": halt::FUNCTION_DISABLED,
        "FLAG_FENCE": flags::FENCE,
        "FLAG_INTERRUPT": flags::INTERRUPT,
        "FLAG_BLOCK_ON_FAULT": flags::BLOCK_ON_FAULT,
        "OPERAND_WRITE": operand::WRITE,
        "OPERAND_EXECUTE": operand::EXECUTE,
        "OPERAND_ALL": operand::ALL,
        "TRANSLATION_SIZE": translation::SIZE,
        "TRANSLATION_READ": translation::READ,
        "TRANSLATION_WRITE": translation::WRITE,
        "TRANSLATION_UNTRANSLATED_ONLY": translation::UNTRANSLATED_ONLY,
        "TRANSLATION_GLOBAL": translation::GLOBAL,
        "TRANSLATION_EXECUTE": translation::EXECUTE,
        "TRANSLATION_ADDRESS": translation::ADDRESS,
        "BATCH_ALIGNMENT": batch::ALIGNMENT,
        "BATCH_MAX_ENTRIES": batch::MAX_ENTRIES,
        "GATHER_MAX_ENTRIES": gather::MAX_ENTRIES,
        "STATUS_PENDING": completion::status::PENDING,
        "STATUS_SUCCESS": completion::status::SUCCESS,
        "STATUS_FAILURE": completion::status::FAILURE,
        "ACCESS_WRITE": completion::access::WRITE,
    };
    // Paths below the module that the macro has imported.
    for number in &mut all {
        for (short, long) in [
            ("flags::", "descriptor::flags::"),
            ("operand::", "descriptor::operand::"),
            ("translation::", "descriptor::translation::"),
            ("batch::", "descriptor::batch::"),
            ("gather::", "descriptor::gather::"),
            ("status::", "registers::status::"),
            ("halt::", "registers::halt::"),
        ] {
            if number.place.starts_with(short) {
                number.place = number.place.replacen(short, long, 1);
            }
        }
    }
    let mut add = |place: String, name: String, value| {
        all.push(Number {
            place,
            name: format!("SVM_DEMO_{name}"),
            value,
        });
    };
    for (name, number) in [
        ("INFO", ioctl::INFO),
        ("QUEUE_SETUP", ioctl::QUEUE_SETUP),
        ("QUEUE_STOP", ioctl::QUEUE_STOP),
        ("EVENTFD", ioctl::EVENTFD),
        ("MODERATION", ioctl::MODERATION),
    ] {
        // As `_IO()` composes it (asm-generic/ioctl.h): type and number.
        let value = u64::from(ioctl::TYPE) << 8 | u64::from(number);
        add(format!("ioctl::{name}"), format!("IOCTL_{name}"), value);
    }
    for counter in COUNTERS {
        let name = counter.key.to_uppercase();
        add(
            format!("counters::index::{name}"),
            format!("COUNTER_{name}"),
            counter.index as u64,
        );
    }
    // Entries of tables that a macro declares; they are not constants.
    for operation in Operation::ALL {
        let name = operation.key().to_uppercase();
        add(String::new(), format!("OP_{name}"), *operation as u64);
    }
    for error in Error::ALL {
        let name = upper_snake(&format!("{error:?}"));
        add(String::new(), format!("ERROR_{name}"), *error as u64);
    }
    // Functions, in Rust.
    let (error, descriptor) = (lost::encode(0xff, 0), lost::encode(0, 1));
    add(String::new(), "LOST_ERROR_MASK".to_owned(), error);
    let shift = descriptor.trailing_zeros();
    add(
        String::new(),
        "LOST_DESCRIPTOR_SHIFT".to_owned(),
        shift.into(),
    );
    all
}

/// Constants of svm-abi that C programs get in another way, as the offset, size or alignment of a
/// compared structure, or that only the driver needs.
const OTHERWISE: &[&str] = &[
    // Offsets of fields, and sizes.
    "descriptor::SIZE",
    "descriptor::OPERATION",
    "descriptor::FLAGS",
    "descriptor::COMPLETION",
    "descriptor::SOURCE",
    "descriptor::DESTINATION",
    "descriptor::LENGTH",
    "descriptor::OPERAND0",
    "descriptor::OPERAND1",
    "descriptor::gather::ENTRY_SIZE",
    "descriptor::gather::ADDRESS",
    "descriptor::gather::LENGTH",
    "completion::SIZE",
    "completion::STATUS",
    "completion::ERROR",
    "completion::ACCESS",
    "completion::BYTES_DONE",
    "completion::FAULT_ADDRESS",
    "completion::RESULT",
    // Sums of others.
    "descriptor::flags::ALL",
    "doorbell::PAGE_SIZE",
    "doorbell::END",
    "counters::COUNT",
    "counters::BLOCK_SIZE",
    // Tables of names.
    "descriptor::ALL",
    "completion::ALL",
    "counters::index::COUNTERS",
    "counters::COUNTERS",
    // For the driver.
    "ids::REVISION_ID",
    "ids::CLASS",
    "ids::REGISTERS_BAR",
    "ids::DOORBELLS_BAR",
    "ids::MSIX_BAR",
    "ids::IDENT_MAGIC",
];

/// The modules of svm-abi that programs use, and the parts of `registers` that they use.
const MODULES: &[&str] = &[
    "completion",
    "counters",
    "descriptor",
    "doorbell",
    "ids",
    "ioctl",
    "registers",
];
const REGISTERS: &[&str] = &["registers::status::", "registers::halt::"];

macro_rules! structure {
    ($name:literal, $type:ty: $($field:ident)+) => {{
        let zero = <$type>::default();
        Structure {
            name: $name,
            size: size_of::<$type>(),
            alignment: align_of::<$type>(),
            fields: vec![$((
                stringify!($field),
                offset_of!($type, $field),
                std::mem::size_of_val(&zero.$field),
            ),)+],
        }
    }};
}

fn structures() -> Vec<Structure> {
    vec![
        structure!("svm_demo_info", Info: size flags device_version context pasid contexts
            ring_log2_max transfer_log2_max operations atc_entries page_requests batch_log2_max
            reserved),
        structure!("svm_demo_queue", Queue: size flags ring ring_log2 reserved),
        structure!("svm_demo_eventfd", Eventfd: size flags fd reserved),
        structure!("svm_demo_moderation", Moderation: size flags count microseconds),
        Structure {
            name: "svm_demo_descriptor",
            size: descriptor::SIZE,
            alignment: descriptor::SIZE,
            fields: vec![
                ("operation", descriptor::OPERATION, 1),
                ("flags", descriptor::FLAGS, 1),
                ("reserved0", 2, 6),
                ("completion", descriptor::COMPLETION, 8),
                ("source", descriptor::SOURCE, 8),
                ("destination", descriptor::DESTINATION, 8),
                ("length", descriptor::LENGTH, 8),
                ("operand0", descriptor::OPERAND0, 8),
                ("operand1", descriptor::OPERAND1, 8),
                ("reserved1", 56, 8),
            ],
        },
        Structure {
            name: "svm_demo_completion",
            size: completion::SIZE,
            // The device loses records that are not aligned.
            alignment: completion::SIZE,
            fields: vec![
                ("status", completion::STATUS, 1),
                ("error", completion::ERROR, 1),
                ("access", completion::ACCESS, 1),
                ("reserved", 3, 5),
                ("bytes_done", completion::BYTES_DONE, 8),
                ("fault_address", completion::FAULT_ADDRESS, 8),
                ("result", completion::RESULT, 8),
            ],
        },
        Structure {
            name: "svm_demo_gather_entry",
            size: gather::ENTRY_SIZE as usize,
            alignment: gather::ENTRY_SIZE as usize,
            fields: vec![
                ("address", gather::ADDRESS, 8),
                ("length", gather::LENGTH, 8),
            ],
        },
    ]
}

/// Structures only for programs: the state of a helper, which is not part of the interface.
const HELPERS: &[&str] = &["svm_demo_ring"];

/// A C program that compiles only if the header is correct.
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

    fn whole() -> Self {
        let mut program = Program::default();
        for number in numbers() {
            program.equal(&number.name, number.value);
        }
        for Structure {
            name,
            size,
            alignment,
            fields,
        } in structures()
        {
            program.equal(&format!("sizeof(struct {name})"), size as u64);
            program.equal(&format!("_Alignof(struct {name})"), alignment as u64);
            for (field, offset, size) in fields {
                let offset = offset as u64;
                program.equal(&format!("offsetof(struct {name}, {field})"), offset);
                let expression = format!("sizeof(((struct {name} *)0)->{field})");
                program.equal(&expression, size as u64);
            }
        }
        program
    }

    fn compile(&self, options: &[&str]) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("check.c");
        let text = format!("#include <stddef.h>\n#include \"svm_demo.h\"\n{}\n", self.0);
        std::fs::write(&file, text).unwrap();
        compile(&file, &directory.path().join("check.o"), options)
    }
}

/// The header without comments and strings.
fn code_of_the_header() -> String {
    let text = std::fs::read_to_string(source("include/svm_demo.h")).unwrap();
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    code.lines()
        .filter(|line| !line.starts_with("#error"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The words of C code.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The structures that C code defines, each with the names of its fields.
fn structures_of(code: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    for part in code.split("struct ").skip(1) {
        let Some((name, body)) = part.split_once(" {\n") else {
            continue;
        };
        if words(name).count() != 1
            || !name.starts_with("svm_demo_")
            || name.contains(['(', ')', '\n'])
        {
            continue;
        }
        let Some((body, _)) = body.split_once("\n}") else {
            continue;
        };
        let fields = body.split(';').filter_map(|field| {
            let field = field.split('[').next()?;
            words(field).last().map(str::to_owned)
        });
        found.push((name.to_owned(), fields.collect()));
    }
    found
}

/// The constants that a module of svm-abi declares, by their place.
fn constants_of(module: &str) -> Vec<String> {
    let path = source("../../demo-device/abi/src").join(format!("{module}.rs"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut inner = None;
    let mut found = Vec::new();
    for line in text.lines() {
        let code = line.trim_start();
        if let Some(name) = line.strip_prefix("pub mod ") {
            inner = name.strip_suffix(" {").map(str::to_owned);
        } else if line == "}" {
            inner = None;
        }
        let name = code
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split_once(':'))
            .map(|(name, _)| name)
            .filter(|name| words(name).count() == 1 && !name.starts_with("fn "));
        match (name, &inner) {
            (Some(name), Some(inner)) => found.push(format!("{module}::{inner}::{name}")),
            (Some(name), None) => found.push(format!("{module}::{name}")),
            (None, _) => {}
        }
    }
    if module == "counters" {
        // These are in a macro's table.
        found.retain(|place| !place.contains('$'));
        let index = |counter: &svmctl::abi::counters::Counter| {
            format!("counters::index::{}", counter.key.to_uppercase())
        };
        found.extend(COUNTERS.iter().map(index));
    }
    found
}

#[test]
fn the_header_says_what_the_interface_says() {
    if let Err(error) = Program::whole().compile(&[]) {
        panic!("include/svm_demo.h differs from svm-abi:\n{error}");
    }
}

#[test]
fn no_name_of_the_header_is_left_out() {
    let code = code_of_the_header();
    let compared: BTreeSet<String> = numbers().into_iter().map(|number| number.name).collect();
    let guards = ["SVM_DEMO_H", "SVM_DEMO_NO_HELPERS"];
    let left: BTreeSet<&str> = words(&code)
        .filter(|word| word.starts_with("SVM_"))
        .filter(|word| !compared.contains(*word) && !guards.contains(word))
        .collect();
    assert_eq!(left, BTreeSet::new(), "nobody compares these names");

    let mut seen = 0;
    for (name, fields) in structures_of(&code) {
        if HELPERS.contains(&name.as_str()) {
            continue;
        }
        let compared = structures()
            .into_iter()
            .find(|structure| structure.name == name)
            .unwrap_or_else(|| panic!("nobody compares struct {name}"));
        let compared: BTreeSet<String> = compared
            .fields
            .iter()
            .map(|field| field.0.to_owned())
            .collect();
        assert_eq!(fields, compared, "fields of struct {name}");
        seen += 1;
    }
    assert_eq!(seen, structures().len());
}

#[test]
fn no_constant_of_the_interface_is_left_out() {
    let places: BTreeSet<String> = numbers().into_iter().map(|number| number.place).collect();
    let mut seen = BTreeSet::new();
    for module in MODULES {
        let constants = constants_of(module);
        assert!(!constants.is_empty(), "no constant in {module}.rs");
        for place in constants {
            // Keys of a file, which are not numbers.
            if place.starts_with("ioctl::fdinfo::") {
                continue;
            }
            if *module == "registers" && !REGISTERS.iter().any(|part| place.starts_with(part)) {
                continue;
            }
            assert!(
                places.contains(&place) || OTHERWISE.contains(&place.as_str()),
                "svm_abi::{place} is not compared with the header"
            );
            seen.insert(place);
        }
    }
    // Each compared item was found at its stated place.
    for place in places.iter().filter(|place| !place.is_empty()) {
        assert!(seen.contains(place), "svm_abi::{place} was not found");
    }
}

#[test]
fn what_differs_is_noticed() {
    let mut wrong = Program::whole();
    wrong.equal("SVM_DEMO_OP_COPY", 99);
    let error = wrong.compile(&[]).unwrap_err();
    assert!(error.contains("SVM_DEMO_OP_COPY is 99"), "{error}");
    let mut missing = Program::default();
    missing.equal("SVM_DEMO_OP_TELEPORT", 1);
    let error = missing.compile(&[]).unwrap_err();
    assert!(error.contains("SVM_DEMO_OP_TELEPORT"), "{error}");
    let code = "struct svm_demo_new {\n\t__u32 size;\n\t__u8 more[3];\n};";
    let fields = ["size", "more"].map(str::to_owned);
    assert_eq!(
        structures_of(code),
        [("svm_demo_new".to_owned(), BTreeSet::from(fields))]
    );
}

/// A compiler for 32 bits would write the tail in two halves.
#[test]
fn helpers_are_refused_where_there_is_no_store_of_8_bytes() {
    let narrow = [
        "-Wno-builtin-macro-redefined",
        "-U__SIZEOF_POINTER__",
        "-D__SIZEOF_POINTER__=4",
    ];
    let error = Program::default().compile(&narrow).unwrap_err();
    assert!(error.contains("one store of 8 bytes"), "{error}");
    Program::whole()
        .compile(&["-DSVM_DEMO_NO_HELPERS"])
        .unwrap();
}

#[test]
fn the_example_compiles_without_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let example = source("examples/sum.c");
    compile(&example, &directory.path().join("sum.o"), &["-O2"]).unwrap();
}
