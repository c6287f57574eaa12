// SPDX-License-Identifier: MIT OR Apache-2.0
//! An installed `svm-vm` carries each file that a build includes.

use std::ffi::OsStr;

use crate::sources::sources;

#[test]
fn what_is_included_is_carried() {
    let script = include_str!("../../vmm-glue/launch/build.rs");
    let (_, endings) = script.split_once("const ENDINGS").unwrap();
    let (endings, _) = endings.split_once("];").unwrap();
    let mut files = sources(&[
        "demo-device",
        "guest-app",
        "tests/machine",
        "tests/suite",
        "vmm-glue",
    ]);
    // What tests beside the sources include, a build does not.
    files.retain(|(file, _)| file.iter().any(|part| part == OsStr::new("src")));
    let mut included = 0;
    for (file, text) in files {
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
