// SPDX-License-Identifier: GPL-2.0-or-later
//! Layout files: which one belongs to a QEMU, and that each value that is wrong is noticed before
//! it does harm.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use qemu_layout::{Kind, REFUSED, Table};

use crate::client::Installation;

/// Variable that names a layout file.
const VARIABLE: &str = "SVM_QEMU_LAYOUT";

/// Values of the table that nothing notices when they are wrong: what only the debug information
/// tells. `docs/architecture.md` lists them too.
const NOT_VERIFIED: &[&str] = &[
    "bits MemTxAttrs.address_type",
    "bits MemTxAttrs.requester_id",
    "offset CPUArchState.exception_is_int",
    "offset CPUArchState.vm_vmcb",
    "offset CPUState.exception_index",
    "offset TCGCPUOps.do_interrupt",
];

/// What shows with a device of the host alone, when it is set: its files are looked at, and what two
/// structures have is compared.
const WITH_A_DEVICE: &[&str] = &[
    "offset IOMMUFDBackend.fd",
    "offset VFIOPCIDevice.emulated_config_bits",
    "offset VFIOPCIDevice.vbasedev.fd",
    "offset VFIOPCIDevice.vbasedev.iommufd",
];

/// Sizes that nothing notices when they are wrong, because nothing comes of it: what is too large is
/// memory that nobody uses, the sizes of the last row are used for nothing, and the last operations of
/// a processor only serve debuggers and replay.
/// `docs/architecture.md` says it, too.
const HARMLESS: &[(&str, &[&str])] = &[
    (
        "larger",
        &[
            "AddressSpace",
            "IOMMUNotifier",
            "PCIIOMMUOps",
            "QEMUTimer",
            "VMStateDescription",
        ],
    ),
    (
        "larger or smaller",
        &["CPUArchState", "ObjectClass", "TCGCPUOps", "TypeImpl"],
    ),
];

/// What is not noticed, by the names of [`wrong_tables`].
fn unnoticed() -> BTreeSet<String> {
    let sizes = HARMLESS.iter().flat_map(|(how, names)| {
        let each = |how| names.iter().map(move |name| format!("size {name}, {how}"));
        how.split(" or ").flat_map(each)
    });
    sizes
        .chain(NOT_VERIFIED.iter().map(|name| (*name).to_owned()))
        .chain(WITH_A_DEVICE.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// The prepared QEMU with a layout file, in a directory that goes with the value.
struct WithFile {
    installation: Installation,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl WithFile {
    fn new(text: &str) -> Option<WithFile> {
        let installation = Installation::find()?;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.layout");
        std::fs::write(&path, text).unwrap();
        Some(WithFile {
            installation: installation.with_variable(VARIABLE, &path.display().to_string()),
            path,
            _directory: directory,
        })
    }

    fn says(&self, arguments: &[&str]) -> String {
        self.installation.says(arguments)
    }
}

/// The table of this library with the build id of the prepared QEMU, which the library tells when
/// it refuses a file of another program.
fn table() -> Option<Table> {
    let mut table = Table::builtin();
    table.build_id = Some("00".to_owned());
    let said = WithFile::new(&table.to_string())?.says(&["-device", "svm-demo,help"]);
    let (_, id) = said
        .split_once("it is of the build id 00, and this program has ")
        .unwrap_or_else(|| panic!("{said}"));
    let (id, _) = id.split_once(';').unwrap();
    table.build_id = Some(id.to_owned());
    Some(table)
}

#[test]
fn a_file_of_another_program_is_refused() {
    let mut table = Table::builtin();
    table.build_id = Some("0123456789abcdef".to_owned());
    let Some(with) = WithFile::new(&table.to_string()) else {
        return;
    };
    let said = with.says(&["-device", "svm-demo,help"]);
    let path = with.path.display();
    assert!(
        said.contains(&format!(
            "svm-demo: {REFUSED} svm-demo: its layout file {path} cannot be used: it is of the build \
             id 0123"
        )),
        "{said}"
    );
    assert!(
        said.contains("make one for it by `svm-vm qemu-layout`"),
        "{said}"
    );
    assert!(said.contains("Device 'svm-demo' not found"), "{said}");
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_reason() {
    for (text, reason) in [
        (
            "nonsense",
            "it does not begin with the line 'qemu-layout 1'",
        ),
        (
            "qemu-layout 1\nsize x",
            "line 2 is not understood: 'size x'",
        ),
    ] {
        let Some(with) = WithFile::new(text) else {
            return;
        };
        let said = with.says(&["-device", "svm-demo,help"]);
        assert!(said.contains(reason), "{said}");
    }
    let Some(installation) = Installation::find() else {
        return;
    };
    let nowhere = installation.with_variable(VARIABLE, "/nowhere/x.layout");
    let said = nowhere.says(&["-device", "svm-demo,help"]);
    assert!(
        said.contains("layout file /nowhere/x.layout cannot be used: No such file"),
        "{said}"
    );
}

#[test]
fn a_file_beside_the_program_is_used() {
    let (Some(table), Some(installation)) = (table(), Installation::find()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("qemu-system-beside");
    std::fs::copy(installation.binary(), &copy).unwrap();
    let other = installation.with_binary(copy);
    let file = directory.path().join("qemu-system-beside.layout");
    let wrong = table.to_string().replace(
        "signature msix_notify (ptr, 32)",
        "signature msix_notify (ptr, 16)",
    );
    for (text, expected) in [
        (table.to_string(), "svm-demo options"),
        (
            wrong,
            "the signature of msix_notify is \"(ptr, 16)\", expected \"(ptr, 32)\"",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = other.says(&["-device", "svm-demo,help"]);
        assert!(said.contains(expected), "{said}");
    }
}

/// Tables with a line that is another one: kind, what is wrong, and the table.
fn wrong_tables(table: &Table) -> Vec<(Kind, String, Table)> {
    let mut tables = Vec::new();
    for (kind, name, _) in table.lines() {
        let named = format!("{} {name}", kind.word());
        let mut add = |what: String, change: &dyn Fn(&mut Table)| {
            let mut wrong = table.clone();
            change(&mut wrong);
            tables.push((kind, what, wrong));
        };
        let set = |wrong: &mut Table, less: u64, more: u64| {
            let (first, second) = table.get(kind, name).unwrap();
            wrong.set(kind, name, (first + more).saturating_sub(less), second);
        };
        match kind {
            Kind::Signature => {
                let text = table.signature(name).unwrap();
                add(named, &|wrong| {
                    wrong.set_signature(name, &format!("{text}, ptr"));
                });
            }
            Kind::Size => {
                add(format!("{named}, larger"), &|wrong| set(wrong, 0, 16));
                add(format!("{named}, smaller"), &|wrong| set(wrong, 16, 0));
            }
            // A member of eight bytes more in front of it, or of one bit.
            Kind::Offset => add(named, &|wrong| set(wrong, 0, 8)),
            Kind::Bits | Kind::Value | Kind::Address => add(named, &|wrong| set(wrong, 0, 1)),
        }
    }
    tables
}

/// The sentence with which the library refuses the QEMU, or a device in its machine. None if there
/// is none: the machine is made, until a snapshot that does not exist ends QEMU.
fn refusal(with: &WithFile) -> Option<String> {
    const END: &str = "no block device can store vmstate for snapshot";
    let first = "intel-iommu,scalable-mode=on,fsts=on,svm=on,device-iotlb=on,pasid-bits=20";
    for iommu in [first, "svm-vtd"] {
        let said = with.says(&[
            "-M",
            "q35",
            "-m",
            "64",
            "-display",
            "none",
            "-nodefaults",
            "-S",
            "-device",
            iommu,
            "-device",
            "svm-demo",
            "-loadvm",
            "none",
        ]);
        let says = [REFUSED, "laid out", "larger than expected"];
        let is_ours = |line: &&str| says.iter().any(|text| line.contains(text));
        if let Some(line) = said.lines().find(is_ours) {
            return Some(line.to_owned());
        }
        // One that only shows by other means is not noticed; nothing may crash.
        assert!(said.contains(END) || said.contains("No '"), "{said}");
    }
    None
}

/// Whether each table is refused. Each takes a QEMU or two: as many at a time as there are
/// processors.
fn told_of(tables: &[(Kind, String, Table)]) -> Vec<bool> {
    let is_told = |table: &Table| refusal(&WithFile::new(&table.to_string()).unwrap()).is_some();
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let size = tables.len().div_ceil(processors).max(1);
    thread::scope(|scope| {
        let several: Vec<_> = tables
            .chunks(size)
            .map(|part| {
                scope.spawn(move || part.iter().map(|(_, _, table)| is_told(table)).collect())
            })
            .collect();
        let told = several.into_iter().map(|thread| thread.join().unwrap());
        told.collect::<Vec<Vec<bool>>>().concat()
    })
}

#[test]
fn each_value_that_is_wrong_is_noticed() {
    let Some(table) = table() else { return };
    assert_eq!(refusal(&WithFile::new(&table.to_string()).unwrap()), None);
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut silent = BTreeSet::new();
    let tables = wrong_tables(&table);
    let told = told_of(&tables);
    assert_eq!(told.len(), tables.len());
    for ((kind, name, _), is_told) in tables.iter().zip(told) {
        let count = kinds.entry(kind.word()).or_default();
        count.0 += 1;
        if is_told {
            count.1 += 1;
        } else {
            silent.insert(name.clone());
        }
    }
    println!("values and how many of them are noticed: {kinds:?}");
    assert_eq!(silent, unnoticed());
}

#[test]
fn the_documentation_names_what_is_not_verified() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/architecture.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sizes = HARMLESS.iter().flat_map(|(_, names)| *names);
    let names = NOT_VERIFIED
        .iter()
        .chain(WITH_A_DEVICE)
        .map(|value| value.split_once(' ').unwrap().1);
    for name in names.chain(sizes.copied()) {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}
