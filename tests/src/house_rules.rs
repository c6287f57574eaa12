// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules that every file of the project keeps, whatever its language: a licence line, and the
//! licence that its folder has.

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

#[cfg(test)]
mod tests {
    use super::*;

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
