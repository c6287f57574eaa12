// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder of reports: what a run leaves there, and the page of all that is there.

use super::page::{self, Inputs};
use super::results::Results;
use std::io::Result;
use std::path::{Path, PathBuf};

/// A folder of reports.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of a name, made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Folder(path.to_owned()))
    }

    /// Where the results of rules are.
    pub fn suite(&self) -> PathBuf {
        self.0.join("suite.json")
    }

    /// Where the results of rules are as JUnit XML.
    pub fn junit(&self) -> PathBuf {
        self.0.join("suite.xml")
    }

    /// Where the results of mutants are.
    pub fn mutants(&self) -> PathBuf {
        self.0.join("mutants.json")
    }

    /// Where the page is.
    pub fn page(&self) -> PathBuf {
        self.0.join("suite.html")
    }

    /// Writes the page of all that is in the folder.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn draw(&self) -> Result<()> {
        std::fs::write(self.page(), page::document(&Inputs::read(&self.0)))
    }
}

/// Writes results.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(results: &Results, path: &Path) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(results)?)
}
