// SPDX-License-Identifier: MIT OR Apache-2.0
//! Marks in the kernel's trace: when a program in the guest begins something and ends it.
//!
//! The environment variable [`VARIABLE`] (`SVM_TRACE_MARKER`) names the file for them, if the run is
//! traced. A mark is the word [`PREFIX`], then `begin` or `end`, then what it is about.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// Environment variable of guest programs that holds the path of the trace's marker.
pub const VARIABLE: &str = "SVM_TRACE_MARKER";

/// The first word of marks.
pub const PREFIX: &str = "svm";

/// Writes marks, if the run is traced.
#[derive(Debug)]
pub struct Marker(Option<File>);

impl Marker {
    /// The marker that the environment names. Without one nothing is written.
    pub fn from_environment() -> Self {
        match std::env::var_os(VARIABLE) {
            Some(path) => Self::open(path.as_ref()),
            None => Self::none(),
        }
    }

    /// Writes no marks.
    pub const fn none() -> Self {
        Self(None)
    }

    /// A marker at a path. If it cannot be opened, nothing is written: a trace is no reason for a
    /// program to fail.
    pub fn open(path: &Path) -> Self {
        Self(File::options().append(true).open(path).ok())
    }

    /// Something begins.
    pub fn begin(&self, name: &str) {
        self.write("begin", name);
    }

    /// It ends.
    pub fn end(&self, name: &str) {
        self.write("end", name);
    }

    fn write(&self, what: &str, name: &str) {
        if let Some(mut file) = self.0.as_ref() {
            // The kernel refuses it while tracing is off.
            let _ = file.write_all(format!("{PREFIX} {what} {name}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_and_ends_has_two_marks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let marker = Marker::open(file.path());
        marker.begin("heap buffer");
        marker.end("heap buffer");
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "svm begin heap buffer\nsvm end heap buffer\n");
        Marker::open("/nowhere/at/all".as_ref()).begin("x");
    }
}
