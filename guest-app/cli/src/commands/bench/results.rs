// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results of a measurement, for files and as tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use svmctl::abi::ioctl::Info;

/// All results of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// What.
    pub figures: Vec<Figure>,
    /// Quotients of two points of this run.
    pub ratios: Vec<Ratio>,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The device file.
    pub device: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// Number of processors.
    pub processors: usize,
    /// Whether there is a hypervisor: then all times are those of an emulation.
    pub virtual_machine: bool,
    /// Entries of the device's address translation cache.
    pub atc_entries: u32,
    /// Page requests that the device may have outstanding.
    pub page_requests: u32,
}

/// One figure: curves over the same quantity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Name on the command line.
    pub name: String,
    /// Title.
    pub title: String,
    /// What `x` is.
    pub x: Axis,
    /// What the values are.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// A quantity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// Name and unit.
    pub label: String,
    /// Whether the axis is logarithmic: equal factors have equal lengths.
    pub logarithmic: bool,
    /// Whether the values are bytes, which are written as KiB and MiB.
    pub bytes: bool,
}

/// One curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// What did it, and how.
    pub name: String,
    /// The processor did it, for comparison.
    pub processor: bool,
    /// The points.
    pub points: Vec<Point>,
}

/// One point: median, and the range of four samples out of five.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// The middle sample.
    pub median: f64,
    /// A tenth of the samples are below it.
    pub p10: f64,
    /// A tenth of the samples are above it.
    pub p90: f64,
    /// Number of samples.
    pub samples: usize,
}

impl Point {
    /// Converts the point to another quantity, by a monotonic function.
    pub fn map(self, convert: impl Fn(f64) -> f64) -> Point {
        let (a, b) = (convert(self.p10), convert(self.p90));
        Point {
            median: convert(self.median),
            p10: a.min(b),
            p90: a.max(b),
            ..self
        }
    }
}

/// The quotient of two points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// What is compared.
    pub what: String,
    /// How many times as much.
    pub value: f64,
}

impl Axis {
    /// A quantity on a linear axis.
    pub fn linear(label: &str) -> Axis {
        Axis {
            label: label.to_owned(),
            logarithmic: false,
            bytes: false,
        }
    }

    /// A quantity on a logarithmic axis.
    pub fn log(label: &str) -> Axis {
        Axis {
            logarithmic: true,
            ..Axis::linear(label)
        }
    }

    /// Numbers of bytes, on a logarithmic axis.
    pub fn bytes(label: &str) -> Axis {
        Axis {
            bytes: true,
            ..Axis::log(label)
        }
    }

    /// A value of this quantity, with its name unless the unit makes it clear.
    fn write_with_unit(&self, value: f64) -> String {
        match self.bytes {
            true => self.write(value),
            false => format!("{} {}", self.write(value), self.label),
        }
    }

    /// A value of this quantity.
    pub fn write(&self, value: f64) -> String {
        if self.bytes {
            let units = [(1 << 20, "MiB"), (1 << 10, "KiB")];
            let whole = value as u64;
            let unit = units.iter().find(|(unit, _)| whole >= *unit);
            return match unit {
                Some((unit, name)) => format!("{} {name}", whole / unit),
                None => format!("{whole} B"),
            };
        }
        number(value)
    }
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Series {
    /// The curve of the device.
    pub fn device(name: &str) -> Series {
        Series {
            name: name.to_owned(),
            processor: false,
            points: Vec::new(),
        }
    }

    /// The curve of the processor.
    pub fn processor(name: &str) -> Series {
        Series {
            processor: true,
            ..Series::device(name)
        }
    }

    fn at(&self, x: f64) -> Option<&Point> {
        self.points.iter().find(|point| point.x == x)
    }
}

impl Machine {
    /// Reads the properties of the system.
    pub fn read(device: &Path, info: &Info) -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let flags = field("flags").unwrap_or_default();
        Machine {
            device: device.display().to_string(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: flags.split_whitespace().any(|flag| flag == "hypervisor"),
            atc_entries: info.atc_entries,
            page_requests: info.page_requests,
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!(
            "{}, Linux {}, {} × {}{}",
            self.device,
            self.kernel,
            self.processors,
            self.processor,
            match self.virtual_machine {
                true => ", a virtual machine: the times are those of an emulation",
                false => "",
            }
        )
    }
}

impl Results {
    /// Nothing measured yet.
    pub fn new(machine: Machine) -> Results {
        Results {
            machine,
            figures: Vec::new(),
            ratios: Vec::new(),
        }
    }

    fn series(&self, figure: &str, series: &str) -> Option<&Series> {
        let figure = self.figures.iter().find(|f| f.name == figure)?;
        figure.series.iter().find(|s| s.name == series)
    }

    /// Compares the curves of the device with those of the processor, and a few of the device's
    /// with each other. Each comparison is at the last point that both curves have.
    pub fn compare(&mut self) {
        use super::names::*;
        let pairs = [
            ("copy by the device, by memcpy", "size", COPY, MEMCPY),
            (
                "CRC-32C by the device, by the processor",
                "size",
                CRC,
                CPU_CRC,
            ),
            (
                "page brought by the device, by the processor",
                "faults",
                DEVICE_TOUCH,
                CPU_TOUCH,
            ),
            (
                "4 KiB pages without ATC, 2 MiB pages without",
                "pages",
                SMALL_COLD,
                LARGE_COLD,
            ),
            (
                "4 KiB pages without ATC, with",
                "pages",
                SMALL_COLD,
                SMALL_WARM,
            ),
            ("descriptors one by one, in one batch", "depth", RING, BATCH),
        ];
        self.ratios = pairs
            .iter()
            .filter_map(|(what, figure, left, right)| {
                let (left, right) = (self.series(figure, left)?, self.series(figure, right)?);
                let (l, r) = left
                    .points
                    .iter()
                    .rev()
                    .find_map(|point| Some((point, right.at(point.x)?)))?;
                let figure = self.figures.iter().find(|f| f.name == *figure)?;
                Some(Ratio {
                    what: format!("{what} ({})", figure.x.write_with_unit(l.x)),
                    value: l.median / r.median,
                })
            })
            .collect();
    }

    /// As tables.
    pub fn render(&self) -> String {
        let mut text = format!("{}\n", self.machine.line());
        // Writing to a String cannot fail.
        for figure in &self.figures {
            let _ = writeln!(text, "\n{}: {}", figure.name, figure.title);
            let _ = writeln!(text, "{}", figure.table());
            for note in &figure.notes {
                let _ = writeln!(text, "  {note}");
            }
        }
        if !self.ratios.is_empty() {
            let _ = writeln!(text, "\ntime of one, as a multiple of the other's");
            for ratio in &self.ratios {
                let _ = writeln!(text, "  {:>8}  {}", number(ratio.value), ratio.what);
            }
        }
        text
    }
}

impl Figure {
    /// A table with a row for each `x` and a column for each curve.
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let names = self.series.iter().map(|series| series.name.clone());
        let mut header = vec![self.x.label.clone()];
        header.extend(names);
        table.set_header(header);
        let mut xs: Vec<f64> = Vec::new();
        let mut seen = BTreeSet::new();
        for point in self.series.iter().flat_map(|series| &series.points) {
            if seen.insert(point.x.to_bits()) {
                xs.push(point.x);
            }
        }
        xs.sort_by(f64::total_cmp);
        for x in xs {
            let values = self.series.iter().map(|series| {
                let point = series.at(x);
                point.map_or_else(|| "-".to_owned(), |point| number(point.median))
            });
            let mut row = vec![self.x.write(x)];
            row.extend(values);
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::commands::bench::names;

    /// Results with a few curves, all different.
    pub fn example() -> Results {
        let curve = |mut series: Series, factor: f64| {
            for n in 6..20 {
                let x = f64::from(1 << n);
                let median = factor * (5.0 + x / 1000.0);
                series.points.push(Point {
                    x,
                    median,
                    p10: median * 0.9,
                    p90: median * 1.3,
                    samples: 11,
                });
            }
            series
        };
        let figure = |name: &str, first: &str, second: &str| Figure {
            name: name.into(),
            title: format!("title of {name}"),
            x: Axis::bytes("size"),
            y: Axis::log("µs"),
            series: vec![
                curve(Series::device(first), 1.0),
                curve(Series::processor(second), 0.25),
            ],
            notes: vec!["a note".into()],
        };
        let mut results = Results::new(Machine {
            device: "/dev/svm0".into(),
            kernel: "7.2.12".into(),
            processor: "a processor".into(),
            processors: 2,
            virtual_machine: true,
            atc_entries: 512,
            page_requests: 64,
        });
        results.figures = vec![
            figure("size", names::COPY, names::MEMCPY),
            figure("faults", names::DEVICE_TOUCH, names::CPU_TOUCH),
            figure("depth", names::RING, names::BATCH),
        ];
        results.compare();
        results
    }

    #[test]
    fn ratios_compare_the_last_points() {
        let results = example();
        assert_eq!(results.ratios.len(), 3);
        assert!((results.ratios[0].value - 4.0).abs() < 1e-9);
        assert!(
            results.ratios[0].what.ends_with("(512 KiB)"),
            "{:?}",
            results.ratios
        );
    }

    #[test]
    fn tables_have_a_row_for_each_point() {
        let text = example().render();
        let rows = text.lines().filter(|line| line.contains("KiB  ")).count();
        assert_eq!(rows, 3 * 10, "{text}");
        assert!(text.contains("a note"));
    }

    #[test]
    fn results_survive_a_file() {
        let text = serde_json::to_string(&example()).unwrap();
        let back: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(back.render(), example().render());
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let texts = [0.01234, 1.234, 12.34, 1234.5].map(number);
        assert_eq!(texts, ["0.012", "1.23", "12.3", "1234"]);
        let bytes = Axis::bytes("x");
        assert_eq!(
            [64.0, 4096.0, 2097152.0].map(|n| bytes.write(n)),
            ["64 B", "4 KiB", "2 MiB"]
        );
    }
}
