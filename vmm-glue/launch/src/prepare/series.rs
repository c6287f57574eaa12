// SPDX-License-Identifier: MIT OR Apache-2.0
//! The series of Linux: those that the driver is known to work with, and the choice for a guest.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use super::recipe;
use crate::cache::manifest::Manifest;
use crate::cache::{Cache, Component, Made};

/// The series that the driver is known to work with, oldest first. The driver's `compat.rs` handles
/// their differences; its packaging and the documents name them, too.
pub const KNOWN: &[Series] = &[Series::new(7, 2), Series::new(7, 3)];

/// The file with the differences between series, for messages.
pub const DIFFERENCES: &str = "guest-driver/compat.rs";

/// A series of Linux, such as 7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    version: u32,
    patch_level: u32,
}

impl Series {
    /// The series of a version and patch level, in the terms of the kernel's own makefile.
    pub const fn new(version: u32, patch_level: u32) -> Self {
        Self {
            version,
            patch_level,
        }
    }

    /// The series of a release: its first two numbers.
    pub fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self::new(
            numbers.next()?.parse().ok()?,
            numbers.next()?.parse().ok()?,
        ))
    }

    /// The newest that the driver is known to work with.
    pub fn newest_known() -> Self {
        KNOWN[KNOWN.len() - 1]
    }

    /// Whether the driver is known to work with it.
    pub fn is_known(self) -> bool {
        KNOWN.contains(&self)
    }

    /// For an unknown series: what that means, and what to do if it does not work.
    pub fn caution(self) -> Option<String> {
        (!self.is_known()).then(|| {
            format!(
                "Linux {self} is none of the series that the driver is known to work with ({}), \
                 and is tried: what differs between series belongs into {DIFFERENCES}; \
                 --kernel-series takes a known one, from a mirror that has it (--mirror)",
                list(KNOWN)
            )
        })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.patch_level)
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::of_release(text)
            .filter(|series| series.to_string() == text)
            .ok_or_else(|| {
                format!(
                    "a series of Linux was expected, such as {}",
                    Self::newest_known()
                )
            })
    }
}

/// Series in a sentence.
pub fn list(series: &[Series]) -> String {
    if series.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = series.iter().map(Series::to_string).collect();
    names.join(", ")
}

/// The fact of the component.
const FACT: &str = "series";

/// The component that stores the series chosen from the package index, so that the index is not
/// read again for each guest.
pub fn component(cache: &Cache) -> Component {
    let recipe = format!(
        "series {} known {} in {} {}",
        recipe::REVISION,
        list(KNOWN),
        recipe::SUITE,
        recipe::BACKPORTS
    );
    cache.component("series", recipe)
}

/// Makes the component from the series in the package index.
pub fn make(existing: &[Series]) -> Result<Made> {
    Ok(Made {
        key_files: Vec::new(),
        facts: vec![(FACT, choose(existing, None)?.to_string())],
    })
}

/// The series in the component.
pub fn of(manifest: &Manifest) -> Result<Series> {
    manifest
        .fact(FACT)?
        .parse()
        .map_err(|error| anyhow::anyhow!("the manifest is wrong: {error}"))
}

/// Chooses a series from the package index: the requested one; or the newest known one; or, if none
/// of these is left, the newest.
///
/// # Errors
///
/// The requested series does not exist, or is older than all known ones; or there is none.
pub fn choose(existing: &[Series], asked: Option<Series>) -> Result<Series> {
    if let Some(asked) = asked {
        check(asked)?;
        if !existing.contains(&asked) {
            bail!(
                "Linux {asked} is not in the package index, which has {}: ask for one of those by \
                 --kernel-series, use a mirror that still has it (--mirror), or your own kernel \
                 (--kdir)",
                list(existing)
            );
        }
        return Ok(asked);
    }
    let known = existing.iter().filter(|series| series.is_known()).max();
    known
        .or_else(|| existing.iter().max())
        .copied()
        .with_context(|| {
            format!(
                "the package index has no Linux from which modules in Rust can be built; use a \
                 mirror that has one of {} (--mirror), or your own kernel (--kdir)",
                list(KNOWN)
            )
        })
}

/// Checks a requested series.
///
/// # Errors
///
/// It is older than all known ones.
pub fn check(asked: Series) -> Result<()> {
    if asked < KNOWN[0] {
        bail!(
            "Linux {asked} is older than all series that the driver works with ({}): ask for one of \
             those by --kernel-series",
            list(KNOWN)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(text: &str) -> Vec<Series> {
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    }

    fn chosen(existing: &str, asked: Option<&str>) -> String {
        let asked = asked.map(|text| text.parse().unwrap());
        match choose(&series(existing), asked) {
            Ok(series) => series.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_known_series_are_sorted() {
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn the_newest_known_series_is_taken() {
        assert_eq!(chosen("7.2 7.3", None), "7.3");
        assert_eq!(chosen("7.1 7.2", None), "7.2");
        assert_eq!(chosen("7.2 7.4 7.10 8.0", None), "7.2");
    }

    #[test]
    fn without_a_known_series_the_newest_is_tried_and_that_is_said() {
        assert_eq!(chosen("7.4 7.10 7.9", None), "7.10");
        let caution = Series::new(7, 10).caution().unwrap();
        assert!(caution.contains("7.2, 7.3"), "{caution}");
        assert!(caution.contains(DIFFERENCES), "{caution}");
        assert_eq!(Series::newest_known().caution(), None);
        let error = chosen("", None);
        assert!(error.contains("--mirror"), "{error}");
    }

    #[test]
    fn another_series_is_taken_only_when_asked_for() {
        assert_eq!(chosen("7.2 7.3 7.4", Some("7.2")), "7.2");
        assert_eq!(chosen("7.2 7.3 7.4", Some("7.4")), "7.4");
        let error = chosen("7.2 7.3", Some("7.4"));
        assert!(error.contains("which has 7.2, 7.3"), "{error}");
        let error = chosen("6.12 7.3", Some("6.12"));
        assert!(error.contains("older"), "{error}");
    }

    #[test]
    fn a_series_is_two_numbers() {
        for wrong in ["", "7", "7.", "7.3.4", "7.03", "seven", "7.3-rc1", " 7.3"] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
        assert_eq!("7.3".parse(), Ok(Series::new(7, 3)));
        let release = |text| Series::of_release(text).map(|series| series.to_string());
        assert_eq!(release("7.3.4+deb13-amd64").as_deref(), Some("7.3"));
        assert_eq!(release("7.4-amd64").as_deref(), Some("7.4"));
        assert_eq!(release("amd64"), None);
    }
}
