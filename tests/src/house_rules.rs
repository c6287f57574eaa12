// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules that every file of the project keeps, whatever its language: a licence line, and the
//! licence that its folder has. And one that the VT-d unit keeps: its public items name the section
//! of the specification that they implement.

use std::path::Path;

/// The licence that a file has to name, by its place in the project; none for files that cannot
/// carry the line.
pub fn expected_licence(path: &str) -> Option<&'static str> {
    let name = Path::new(path)
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or("");
    if path.starts_with("LICENSES/") || name == "Cargo.lock" || name.starts_with("LICENSE") {
        return None;
    }
    if name.ends_with(".json") || name.ends_with(".png") {
        return None;
    }
    Some(if path.starts_with("guest-driver/") {
        "GPL-2.0-only"
    } else if path.starts_with("vmm-glue/qemu/") {
        "GPL-2.0-or-later"
    } else {
        "MIT OR Apache-2.0"
    })
}

/// What is wrong with the licence line of a file, in a sentence; none if nothing is.
pub fn check_licence(path: &str, content: &str) -> Option<String> {
    let expected = expected_licence(path)?;
    let found = content
        .lines()
        .take(3)
        .find_map(|line| line.split_once("SPDX-License-Identifier:"))
        .map(|(_, id)| {
            id.trim()
                .trim_end_matches("-->")
                .trim_end_matches("*/")
                .trim()
        });
    match found {
        Some(id) if id == expected => None,
        Some(id) => Some(format!("{path}: licence is `{id}`, expected `{expected}`")),
        None => Some(format!(
            "{path}: no licence line; begin with `SPDX-License-Identifier: {expected}`"
        )),
    }
}

/// Where each public item names a section of the specification.
const BY_SECTION: &str = "vmm-glue/vtd/src/";

/// Whether a documentation names a section, or says that there is none to name.
fn names_section(documentation: &str) -> bool {
    let words: Vec<&str> = documentation.split_whitespace().collect();
    let text = words.join(" ").to_lowercase();
    let number_after = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let rest = text[at + word.len()..].trim_start_matches('s').trim_start();
            rest.starts_with(|first: char| first.is_ascii_digit())
        })
    };
    ["section", "chapter", "table", "pcie"]
        .into_iter()
        .any(number_after)
        || text.contains("not of the specification")
}

/// The public items of a file that name no section of the specification, neither they nor their
/// module, a sentence each.
pub fn check_sections(path: &str, content: &str) -> Vec<String> {
    if !path.starts_with(BY_SECTION) || !path.ends_with(".rs") {
        return Vec::new();
    }
    let text = |line: &str, mark: &str| line.trim_start().strip_prefix(mark).map(str::to_owned);
    let module: Vec<String> = content.lines().filter_map(|l| text(l, "//!")).collect();
    if names_section(&module.join(" ")) {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let mut documentation = String::new();
    for (number, line) in content.lines().enumerate() {
        let line = line.trim_start();
        if line == "#[cfg(test)]" {
            break;
        }
        if let Some(more) = text(line, "///") {
            documentation += " ";
            documentation += &more;
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let kinds = ["fn", "struct", "enum", "trait", "const", "type", "static"];
        let item = words[0] == "pub" && words.iter().skip(1).take(3).any(|w| kinds.contains(w));
        if item && !names_section(&documentation) {
            wrong.push(format!(
                "{path}:{}: `{line}` names no section of the specification (or that it is \
                 not of the specification), nor does its module",
                number + 1
            ));
        }
        documentation.clear();
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_items_of_the_unit_name_their_section() {
        let path = "vmm-glue/vtd/src/unit.rs";
        let wrong = |content: &str| check_sections(path, content).len();
        assert_eq!(wrong("/// Reads.\npub fn read() {}\n"), 1);
        assert_eq!(wrong("/// Reads (section 11.2).\npub fn read() {}\n"), 0);
        assert_eq!(
            wrong("/// By tables 23 and 24.\n#[must_use]\npub const fn a() {}\n"),
            0
        );
        assert_eq!(
            wrong("/// Not of the\n/// specification.\npub struct A;\n"),
            0
        );
        assert_eq!(wrong("//! Chapter 3.\n\n/// Reads.\npub fn read() {}\n"), 0);
        // A section that stands with the item before, or none.
        assert_eq!(wrong("/// Section 3.\npub type A = B;\npub enum C {}\n"), 1);
        assert_eq!(wrong("/// The next section.\npub enum C {}\n"), 1);
        assert_eq!(wrong("/// Reads.\npub(crate) fn read() {}\n"), 0);
        assert_eq!(
            check_sections("tests/src/lib.rs", "pub fn a() {}\n").len(),
            0
        );
    }

    #[test]
    fn the_licence_follows_the_folder() {
        assert_eq!(
            expected_licence("guest-driver/file.rs"),
            Some("GPL-2.0-only")
        );
        assert_eq!(
            expected_licence("vmm-glue/qemu/src/lib.rs"),
            Some("GPL-2.0-or-later")
        );
        assert_eq!(
            expected_licence("vmm-glue/launch/src/main.rs"),
            Some("MIT OR Apache-2.0")
        );
        assert_eq!(expected_licence("Cargo.lock"), None);
    }

    #[test]
    fn a_missing_or_wrong_line_is_found() {
        assert_eq!(
            check_licence("a.rs", "// SPDX-License-Identifier: MIT OR Apache-2.0\n"),
            None
        );
        assert_eq!(
            check_licence(
                "a.md",
                "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n"
            ),
            None
        );
        assert!(check_licence("a.rs", "fn main() {}\n").is_some());
        assert!(check_licence("guest-driver/a.rs", "// SPDX-License-Identifier: MIT\n").is_some());
    }
}
