// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the page is made of: the files that the project's commands leave in a folder. Whatever is
//! not there is not on the page; what cannot be read is told on it.

use super::super::origin;
use super::super::results::Results;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Where the reports of deviations are, seen from `target/report`.
const REPORTS: &str = "../../docs/deviations";

/// All that is there.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The rules: `suite.json`.
    pub suite: Option<Results>,
    /// The mutants: `mutants.json`.
    pub mutants: Option<Results>,
    /// Covered lines: `coverage.json`.
    pub coverage: Option<Dated<Coverage>>,
    /// Benchmarks in process: `bench.json`.
    pub rows: Option<Dated<Vec<Row>>>,
    /// Curves, in process and in guests, with what was measured.
    pub curves: Vec<(String, Dated<Measured>)>,
    /// The folder of the reports of deviations as a link, if it is there.
    pub reports: Option<&'static str>,
    /// Files that could not be read, and why.
    pub unreadable: Vec<String>,
}

/// Something, and when its file was written.
#[derive(Debug)]
pub struct Dated<T> {
    /// RFC 3339, in UTC; empty if that is not known.
    pub date: String,
    /// The thing.
    pub of: T,
}

/// What `make coverage` leaves.
#[derive(Debug, Deserialize)]
pub struct Coverage {
    /// Percentage of lines that is demanded.
    pub goal: f64,
    /// Percentage of lines of all files.
    pub percent: f64,
    /// The files.
    pub files: Vec<CoveredFile>,
}

/// Coverage of a file.
#[derive(Debug, Deserialize)]
pub struct CoveredFile {
    /// Its name.
    pub file: String,
    /// Lines with code.
    pub lines: usize,
    /// Lines that were executed.
    pub covered: usize,
    /// Numbers of the others.
    pub missing: String,
}

/// A row of `make bench`.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What its baseline is.
    pub against: Option<String>,
    /// The best value.
    pub value: f64,
    /// Unit of value and baseline.
    pub unit: String,
    /// The best value of the baseline.
    pub baseline: Option<f64>,
    /// Value by baseline.
    pub ratio: Option<f64>,
    /// What the ratio has to be.
    pub goal: Option<String>,
    /// Whether it is.
    pub met: Option<bool>,
}

/// Curves, as `svmctl bench` and `make bench` write them.
#[derive(Debug, Deserialize)]
pub struct Measured {
    /// A picture each.
    pub figures: Vec<Figure>,
}

/// Curves over the same quantity.
#[derive(Debug, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub title: String,
    /// What `x` is.
    pub x: Axis,
    /// What the values are.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
}

/// A quantity.
#[derive(Debug, Deserialize)]
pub struct Axis {
    /// Name and unit.
    pub label: String,
    /// Whether equal factors have equal lengths.
    pub logarithmic: bool,
    /// Whether the values are bytes.
    pub bytes: bool,
}

/// A curve.
#[derive(Debug, Deserialize)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// A point: median, and the range of four samples of five.
#[derive(Debug, Deserialize)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// The middle sample.
    pub median: f64,
    /// A tenth of the samples are below it.
    pub p10: f64,
    /// A tenth of the samples are above it.
    pub p90: f64,
}

impl Inputs {
    /// Reads what is in a folder.
    pub fn read(folder: &Path) -> Self {
        let mut inputs = Inputs::default();
        inputs.suite = inputs.results(folder, "suite.json");
        inputs.mutants = inputs.results(folder, "mutants.json");
        inputs.coverage = inputs.json(folder, "coverage.json");
        inputs.rows = inputs.json(folder, "bench.json");
        for (file, title) in [
            ("curves.json", "In process"),
            ("bench-guest-intel-iommu.json", "In a guest, on QEMU's unit"),
            ("bench-guest-svm-vtd.json", "In a guest, on svm-vtd"),
        ] {
            let curves = inputs.json(folder, file);
            inputs.curves.extend(curves.map(|c| (title.to_owned(), c)));
        }
        inputs.reports = folder.join(REPORTS).is_dir().then_some(REPORTS);
        inputs
    }

    fn results(&mut self, folder: &Path, name: &str) -> Option<Results> {
        let path = folder.join(name);
        if !path.exists() {
            return None;
        }
        let results = Results::read(&path);
        results.map_err(|why| self.unreadable.push(why)).ok()
    }

    fn json<T: DeserializeOwned>(&mut self, folder: &Path, name: &str) -> Option<Dated<T>> {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).ok()?;
        match serde_json::from_str(&text) {
            Ok(of) => Some(Dated {
                date: origin::written_at(&path).unwrap_or_default(),
                of,
            }),
            Err(error) => {
                let sentence = format!("{} is not as expected: {error}", path.display());
                self.unreadable.push(sentence);
                None
            }
        }
    }
}
