// SPDX-License-Identifier: MIT OR Apache-2.0
//! What crates.io shows of the crates that others would use.

use std::path::Path;

use serde_json::Value;

/// The crates that can be published, each after those that it depends on.
pub const PUBLISHED: &[&str] = &[
    "svm-abi",
    "pcie-ats",
    "svm-endpoint",
    "vtd",
    "host-iommu",
    "host-iommufd",
    "svm-doctor",
    "svm-init",
    "svmctl",
];

/// How many keywords and categories crates.io takes.
const MOST: usize = 5;

/// What is wrong with the metadata of these crates, a sentence each. `metadata` is what
/// `cargo metadata` prints.
pub fn check(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let mut wrong = Vec::new();
    for name in PUBLISHED {
        match packages.iter().find(|package| package["name"] == *name) {
            Some(package) => {
                let sentences = check_package(package);
                wrong.extend(
                    sentences
                        .iter()
                        .map(|sentence| format!("{name}: {sentence}")),
                );
            }
            None => wrong.push(format!("{name}: the workspace has no such crate")),
        }
    }
    wrong
}

fn check_package(package: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for field in ["description", "license", "readme"] {
        if package[field].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("Cargo.toml has no {field}"));
        }
    }
    for field in ["keywords", "categories"] {
        let count = package[field].as_array().map_or(0, Vec::len);
        if count == 0 || count > MOST {
            wrong.push(format!("{count} {field}; crates.io takes one to {MOST}"));
        }
    }
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    if let Some(readme) = package["readme"].as_str() {
        if !manifest.with_file_name(readme).is_file() {
            wrong.push(format!("{readme} is missing"));
        }
    }
    let dependencies = package["dependencies"].as_array();
    for dependency in dependencies.into_iter().flatten() {
        // One of the workspace is published by its version. One for tests without a version is left
        // out when the crate is published.
        let kept = dependency["kind"] != "dev";
        if kept && dependency["path"].is_string() && dependency["req"] == "*" {
            let name = dependency["name"].as_str().unwrap_or_default();
            wrong.push(format!("the dependency {name} has no version"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_crates_io_would_miss_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = directory.path().join("Cargo.toml");
        std::fs::write(directory.path().join("README.md"), "").unwrap();
        let right = json!({
            "name": "vtd", "description": "d", "license": "MIT",
            "readme": "README.md", "keywords": ["k"], "categories": ["c"],
            "manifest_path": manifest,
            "dependencies": [{"name": "pcie-ats", "path": "/x", "req": "^0.1.0"}],
        });
        assert!(
            check_package(&right).is_empty(),
            "{:?}",
            check_package(&right)
        );
        for (field, wrong) in [
            ("description", json!(null)),
            ("readme", json!("OTHER.md")),
            ("keywords", json!([])),
            ("categories", json!(["1", "2", "3", "4", "5", "6"])),
            (
                "dependencies",
                json!([{"name": "a", "path": "/x", "req": "*"}]),
            ),
        ] {
            let mut package = right.clone();
            package[field] = wrong;
            assert_eq!(check_package(&package).len(), 1, "{field}");
        }
        assert_eq!(
            check(&json!({"packages": [right]})).len(),
            PUBLISHED.len() - 1
        );
    }
}
