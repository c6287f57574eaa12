// SPDX-License-Identifier: MIT OR Apache-2.0
//! An installed `svm-vm` carries each file that a build includes.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of Rust in `src` directories below a directory.
fn sources(directory: &Path, inside: bool, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" {
                sources(&path, inside || name == "src", files);
            }
        } else if inside && name.ends_with(".rs") {
            files.push(path);
        }
    }
}

#[test]
fn what_is_included_is_carried() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = fs::read_to_string(project.join("vmm-glue/launch/build.rs")).unwrap();
    let (_, endings) = script.split_once("const ENDINGS").unwrap();
    let (endings, _) = endings.split_once("];").unwrap();
    let mut files = Vec::new();
    for part in ["demo-device", "guest-app", "vmm-glue"] {
        sources(&project.join(part), false, &mut files);
    }
    let mut included = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split("include_str!(\"").skip(1) {
            let (name, _) = rest.split_once('"').unwrap();
            let (_, ending) = name.rsplit_once('.').unwrap();
            included += 1;
            assert!(
                endings.contains(&format!("{ending:?}")),
                "{} includes {name}, which vmm-glue/launch/build.rs leaves out",
                file.display()
            );
        }
    }
    assert!(included > 10, "{included} files are included");
}
