// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures in the guest, on each IOMMU, and compares with what is aimed at.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::launcher::Launcher;

/// The IOMMUs, as `svm-vm` calls them.
const IOMMUS: [&str; 2] = ["intel-iommu", "svm-vtd"];
/// Where the guest leaves what it measured, and its picture.
const RESULTS: [&str; 2] = ["/tmp/bench.json", "/tmp/bench.svg"];
/// The folder of the reports, below the checkout.
const REPORT: &str = "target/report";

/// A result.
#[derive(Debug)]
struct Row {
    iommu: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// The most that is aimed at.
    goal: f64,
    /// What the value is compared with, or what bounds it.
    about: &'static str,
}

impl Row {
    fn met(&self) -> bool {
        self.value <= self.goal
    }
}

/// The same work on both IOMMUs.
#[derive(Debug)]
struct Peers {
    name: &'static str,
    /// Microseconds, in the order of [`IOMMUS`].
    micros: [f64; 2],
}

/// What the IOMMUs are compared by: a name, and figure, curve and place of `svmctl bench`. The
/// device has 1,024 translations, so of 2,048 pages it has none when it comes to them again.
const COMPARED: [(&str, &str, &str, f64); 7] = [
    (
        "a page of 256, translation asked for",
        "pages",
        "4 KiB pages, ATC empty",
        1048576.0,
    ),
    (
        "a page of 2,048, translation asked for",
        "pages",
        "4 KiB pages, ATC empty",
        8388608.0,
    ),
    (
        "a page of 2,048, asked for again",
        "pages",
        "4 KiB pages, ATC filled",
        8388608.0,
    ),
    (
        "a page that is absent, requested",
        "faults",
        "device",
        100.0,
    ),
    (
        "1 page taken away",
        "invalidations",
        "translations cached",
        1.0,
    ),
    (
        "1,024 pages taken away",
        "invalidations",
        "translations cached",
        1024.0,
    ),
    (
        "a copy of 64 bytes, waited for",
        "size",
        "device copy",
        64.0,
    ),
];

/// All results.
#[derive(Debug)]
pub struct Report {
    rows: Vec<Row>,
    peers: Vec<Peers>,
}

/// Measures.
///
/// # Errors
///
/// A guest fails, or leaves no results.
pub fn run(launcher: &Launcher) -> anyhow::Result<Report> {
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for iommu in IOMMUS {
        let (measured, boot) = (bench(launcher, iommu)?, demo(launcher, iommu)?);
        rows.extend(rows_of(iommu, &measured, &boot)?);
        all.push(measured);
    }
    let peers = match &all[..] {
        [reference, own] => peers_of([reference, own])?,
        _ => Vec::new(),
    };
    Ok(Report { rows, peers })
}

/// The same work on both IOMMUs.
fn peers_of(measured: [&Value; 2]) -> anyhow::Result<Vec<Peers>> {
    COMPARED
        .iter()
        .map(|&(name, figure, series, x)| {
            let [reference, own] = measured.map(|value| median(value, figure, series, x));
            let micros = [reference?, own?];
            Ok(Peers { name, micros })
        })
        .collect()
}

/// What `svmctl bench` measures in a guest. Leaves its files among the reports.
fn bench(launcher: &Launcher, iommu: &str) -> anyhow::Result<Value> {
    let name = format!("bench-{iommu}");
    let [results, picture] = RESULTS;
    let line = format!("svmctl bench --quiet --save {results} --plot {picture}");
    let mut arguments = vec!["run", "--name", &name, "--iommu", iommu, "--exec", &line];
    arguments.extend(["--fetch", results, "--fetch", picture]);
    eprintln!("measuring on {iommu} ...");
    launcher.succeeding(&arguments)?;
    let reports = launcher.checkout().join(REPORT);
    fs::create_dir_all(&reports).with_context(|| format!("cannot make {}", reports.display()))?;
    for path in RESULTS.map(Path::new) {
        // As in the guest, below the run's folder.
        let below = path
            .strip_prefix("/")
            .context("a path in the guest begins at its root")?;
        let from = launcher.run_dir(&name).join("fetched").join(below);
        let ending = path.extension().context("a file has an ending")?;
        let to = reports
            .join(format!("bench-guest-{iommu}"))
            .with_extension(ending);
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    read(&reports.join(format!("bench-guest-{iommu}.json")))
}

/// The results of a demonstration.
fn demo(launcher: &Launcher, iommu: &str) -> anyhow::Result<Value> {
    let name = format!("bench-demo-{iommu}");
    eprintln!("measuring the demonstration on {iommu} ...");
    launcher.succeeding(&["run", "--plan", "demo", "--name", &name, "--iommu", iommu])?;
    read(&launcher.run_dir(&name).join("results.json"))
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// What is compared of the results of an IOMMU.
fn rows_of(iommu: &'static str, measured: &Value, demo: &Value) -> anyhow::Result<[Row; 4]> {
    let row = |name, value, unit, goal, about| Row {
        iommu,
        name,
        value,
        unit,
        goal,
        about,
    };
    let seconds = |field: &str| {
        let value = demo[field].as_f64();
        value.with_context(|| format!("the demonstration's results have no {field}"))
    };
    Ok([
        row(
            "page_brought_by_the_device",
            median(measured, "faults", "device", 100.0)?
                / median(measured, "faults", "CPU", 100.0)?,
            "times",
            3.0,
            "a page fault of the processor; 256 pages absent",
        ),
        row(
            "copy_of_64_bytes_waited_for",
            median(measured, "size", "device copy", 64.0)?,
            "µs",
            13.5,
            "half of the 27 µs that it took",
        ),
        row(
            "boot",
            seconds("boot_seconds")?,
            "s",
            3.5,
            "from the start of QEMU to the guest's first message",
        ),
        row(
            "demonstration",
            seconds("seconds")?,
            "s",
            6.0,
            "from the start of QEMU to the last result",
        ),
    ])
}

/// A point of a curve.
fn median(measured: &Value, figure: &str, series: &str, x: f64) -> anyhow::Result<f64> {
    let named = |list: &Value, name: &str| -> Option<Value> {
        let list = list.as_array()?;
        list.iter().find(|item| item["name"] == name).cloned()
    };
    let find = || {
        let series = named(&named(&measured["figures"], figure)?["series"], series)?;
        let points = series["points"].as_array()?;
        let point = points.iter().find(|point| point["x"].as_f64() == Some(x))?;
        point["median"].as_f64()
    };
    find().with_context(|| format!("`svmctl bench` has no {series:?} at {x} in {figure}"))
}

impl Report {
    /// As a table.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let met = if row.met() { "met     " } else { "NOT MET " };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:12} {:28} {:>9.2} {:5}  {met} <= {} {} ({})",
                row.iommu, row.name, row.value, row.unit, row.goal, row.unit, row.about
            );
        }
        let [reference, own] = IOMMUS;
        let _ = writeln!(
            text,
            "\n{:40} {reference:>12} {own:>12} {:>7}",
            "the same work on both, µs", "ratio"
        );
        for peers in &self.peers {
            let [reference, own] = peers.micros;
            let _ = writeln!(
                text,
                "{:40} {reference:>12.2} {own:>12.2} {:>7.2}",
                peers.name,
                own / reference
            );
        }
        text
    }

    /// Whether all goals are met.
    pub fn all_met(&self) -> bool {
        self.rows.iter().all(Row::met)
    }

    /// Writes them beside the other reports, and returns where.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, checkout: &Path) -> anyhow::Result<PathBuf> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let peers: Vec<Value> = self.peers.iter().map(Peers::json).collect();
        let path = checkout.join(REPORT).join("bench-guest.json");
        let all = json!({ "rows": rows, "peers": peers });
        fs::write(&path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "iommu": self.iommu,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "goal": self.goal,
            "met": self.met(),
            "about": self.about,
        })
    }
}

impl Peers {
    fn json(&self) -> Value {
        let [reference, own] = self.micros;
        json!({
            "name": self.name,
            "unit": "µs",
            IOMMUS[0]: reference,
            IOMMUS[1]: own,
            "ratio": own / reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Value {
        let series = |name: &str, x: f64, median: f64| json!({ "name": name, "points": [{ "x": 1.0, "median": 9.0 }, { "x": x, "median": median }] });
        json!({ "figures": [
            { "name": "size", "series": [series("device copy", 64.0, 20.0)] },
            { "name": "faults", "series": [series("device", 100.0, 50.0), series("CPU", 100.0, 20.0)] },
        ] })
    }

    #[test]
    fn each_row_is_compared_with_its_goal() {
        let demo = json!({ "boot_seconds": 3.5, "seconds": 6.25 });
        let rows = rows_of("svm-vtd", &measured(), &demo).unwrap();
        let met: Vec<_> = rows.iter().map(|row| (row.value, row.met())).collect();
        assert_eq!(
            met,
            [(2.5, true), (20.0, false), (3.5, true), (6.25, false)]
        );
        let report = Report {
            rows: rows.into(),
            peers: vec![Peers {
                name: "a page",
                micros: [4.0, 3.0],
            }],
        };
        assert!(!report.all_met());
        assert!(
            report.table().contains("NOT MET  <= 6 s"),
            "{}",
            report.table()
        );
        assert!(report.table().contains("4.00         3.00    0.75"));
        assert_eq!(report.peers[0].json()["ratio"], 0.75);
    }

    #[test]
    fn what_is_missing_is_named() {
        let demo = json!({ "boot_seconds": 3.5 });
        let error = rows_of("svm-vtd", &measured(), &demo).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the demonstration's results have no seconds"
        );
        let demo = json!({ "boot_seconds": 3.5, "seconds": 6 });
        let error = rows_of("svm-vtd", &json!({ "figures": [] }), &demo).unwrap_err();
        let expected = "`svmctl bench` has no \"device\" at 100 in faults";
        assert_eq!(error.to_string(), expected);
    }
}
