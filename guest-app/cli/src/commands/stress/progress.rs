// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work done by one context and by all, and how it is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::storm::Change;
use crate::mix::{KINDS, Kind};

/// The work of one context, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Rounds of descriptors that were checked.
    pub rounds: u64,
    /// Descriptors by kind.
    pub operations: [u64; KINDS],
    /// Bytes that the device read and wrote.
    pub moved: u64,
    /// Bytes that were compared with their expected values.
    pub compared: u64,
    /// Translation requests.
    pub translations: u64,
    /// Page requests.
    pub page_requests: u64,
    /// Invalidation requests.
    pub invalidations: u64,
    /// Times that memory was taken away, moved or replaced.
    pub disturbances: u64,
    /// Changes of memory under a fill, by kind.
    pub storms: [u64; Change::ALL.len()],
    /// How many of them had ended before the fill was complete.
    pub storms_in_flight: u64,
}

impl Progress {
    /// Descriptors of all kinds.
    pub fn total(&self) -> u64 {
        self.operations.iter().sum()
    }

    /// The sum of both.
    pub fn plus(&self, other: &Progress) -> Progress {
        Progress {
            rounds: self.rounds + other.rounds,
            operations: std::array::from_fn(|n| self.operations[n] + other.operations[n]),
            moved: self.moved + other.moved,
            compared: self.compared + other.compared,
            translations: self.translations + other.translations,
            page_requests: self.page_requests + other.page_requests,
            invalidations: self.invalidations + other.invalidations,
            disturbances: self.disturbances + other.disturbances,
            storms: std::array::from_fn(|n| self.storms[n] + other.storms[n]),
            storms_in_flight: self.storms_in_flight + other.storms_in_flight,
        }
    }

    /// Descriptors by the name of their kind, without kinds that did not occur.
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        Kind::all()
            .map(|kind| (kind.key(), self.operations[kind.index()]))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Storms by the name of their change.
    pub fn storms_by_name(&self) -> BTreeMap<&'static str, u64> {
        let count = |change: Change| (change.key(), self.storms[change.index()]);
        Change::ALL.map(count).into()
    }

    /// In one line.
    pub fn line(&self, time: Duration) -> String {
        format!(
            "{:.0} s: {} operations ({}/s), {} MiB moved, {} MiB compared, {} page requests, {} \
             invalidations",
            time.as_secs_f64(),
            grouped(self.total()),
            grouped(rate(self.total(), time)),
            grouped(self.moved >> 20),
            grouped(self.compared >> 20),
            grouped(self.page_requests),
            grouped(self.invalidations),
        )
    }
}

/// Number per second.
pub fn rate(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64().max(0.001)) as u64
}

/// A number with its thousands separated.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns, the most important first: on a narrow terminal the last ones are left out.
const COLUMNS: [&str; 10] = [
    "process",
    "context",
    "operations",
    "/s",
    "page requests",
    "invalidations",
    "MiB moved",
    "MiB compared",
    "translations",
    "disturbances",
];

/// A row for each context, grouped by process, and one for all: at most `rows` rows, and no wider
/// than `width`.
pub fn table(processes: &[Vec<Progress>], time: Duration, rows: usize, width: usize) -> String {
    let row = |process: &str, context: &str, progress: &Progress| {
        let numbers = [
            progress.total(),
            rate(progress.total(), time),
            progress.page_requests,
            progress.invalidations,
            progress.moved >> 20,
            progress.compared >> 20,
            progress.translations,
            progress.disturbances,
        ];
        let mut row = vec![process.to_owned(), context.to_owned()];
        row.extend(numbers.map(grouped));
        row
    };
    let sum = |all: &[Progress]| all.iter().fold(Progress::default(), |sum, p| sum.plus(p));
    let contexts: usize = processes.iter().map(Vec::len).sum();
    let mut all_rows = Vec::new();
    for (p, all) in processes.iter().enumerate() {
        if contexts < rows {
            for (c, progress) in all.iter().enumerate() {
                all_rows.push(row(&p.to_string(), &c.to_string(), progress));
            }
        } else if processes.len() < rows {
            all_rows.push(row(&p.to_string(), "all", &sum(all)));
        }
    }
    let all: Vec<_> = processes.iter().map(|all| sum(all)).collect();
    all_rows.push(row("all", "", &sum(&all)));
    let draw = |columns: usize| {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_header(&COLUMNS[..columns]);
        for row in &all_rows {
            table.add_row(&row[..columns]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    };
    let fits = |text: &String| text.lines().all(|line| line.chars().count() <= width);
    let narrower = (3..=COLUMNS.len()).rev().map(draw);
    narrower.into_iter().find(fits).unwrap_or_else(|| draw(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(copies: u64) -> Progress {
        let mut progress = Progress {
            moved: copies << 20,
            ..Progress::default()
        };
        progress.operations[1] = copies;
        progress
    }

    #[test]
    fn a_table_has_as_many_rows_as_there_is_room_for() {
        let processes = vec![vec![progress(1), progress(2)], vec![progress(3000)]];
        let rows = |room| {
            let text = table(&processes, Duration::from_secs(2), room, 200);
            assert!(text.lines().last().unwrap().contains("3,003"), "{text}");
            text.lines().count() - 1
        };
        assert_eq!((rows(10), rows(3), rows(2)), (4, 3, 1));
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        let processes = vec![vec![progress(1)]];
        let table = |width| table(&processes, Duration::from_secs(1), 9, width);
        assert!(table(200).contains("disturbances"));
        let narrow = table(80);
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 80),
            "{narrow}"
        );
        assert!(narrow.contains("invalidations") && !narrow.contains("disturbances"));
        assert!(table(1).contains("operations"));
    }

    #[test]
    fn what_never_came_is_not_listed() {
        assert_eq!(progress(5).by_name(), [("copy", 5)].into());
        assert!(
            progress(5)
                .line(Duration::from_secs(1))
                .contains("5 operations (5/s)")
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
