// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has moved since a result that was kept (`--baseline`). Ratios are compared, each of a value
//! with its own baseline of the same run: values themselves differ with what else the machine does.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How much a ratio has to change to be listed: less is noise of one run.
const NOTICEABLE: f64 = 0.1;

/// The ratios of a kept result, by the names of their rows.
pub struct Kept(BTreeMap<String, f64>);

/// A row whose ratio has changed.
#[derive(Debug, PartialEq)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// The ratio that was kept.
    pub before: f64,
    /// The ratio of this run.
    pub now: f64,
}

/// How a run differs from a kept one.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// Rows that both have, the largest change first.
    pub moved: Vec<Moved>,
    /// How many rows both have.
    pub common: usize,
    /// Rows that only this run has.
    pub new: Vec<String>,
}

impl Kept {
    /// Reads what an earlier run wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no result of this program.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the baseline {}", path.display()))?;
        Self::parse(&text).with_context(|| {
            format!(
                "{} is no result of make bench, which are in target/report/bench.json",
                path.display()
            )
        })
    }

    fn parse(text: &str) -> Result<Self> {
        let rows: Vec<Value> = serde_json::from_str(text)?;
        let ratio = |row: &Value| Some((row["name"].as_str()?.to_owned(), row["ratio"].as_f64()?));
        let rows = rows
            .iter()
            .map(|row| ratio(row).context("a row has no name or no ratio"));
        Ok(Kept(rows.collect::<Result<_>>()?))
    }

    /// Compares the rows of a run, by name and ratio.
    pub fn compare<'a>(&self, rows: impl Iterator<Item = (&'a str, f64)>) -> Difference {
        let mut difference = Difference::default();
        for (name, now) in rows {
            let Some(&before) = self.0.get(name) else {
                difference.new.push(name.to_owned());
                continue;
            };
            difference.common += 1;
            if (now / before - 1.0).abs() > NOTICEABLE {
                difference.moved.push(Moved {
                    name: name.to_owned(),
                    before,
                    now,
                });
            }
        }
        let change = |row: &Moved| (row.now / row.before).ln().abs();
        difference
            .moved
            .sort_by(|a, b| change(b).total_cmp(&change(a)));
        difference
    }
}

impl Difference {
    /// Prints it as a table.
    pub fn print(&self) {
        let percent = NOTICEABLE * 100.0;
        println!(
            "\nof {} rows that the baseline has, {} moved by more than {percent} %",
            self.common,
            self.moved.len()
        );
        let width = self.moved.iter().map(|row| row.name.len()).max();
        let width = width.unwrap_or_default().max(4);
        if !self.moved.is_empty() {
            println!(
                "{:width$}  {:>9} {:>9} {:>8}",
                "name", "ratio was", "is", "change"
            );
        }
        for row in &self.moved {
            let change = (row.now / row.before - 1.0) * 100.0;
            let Moved { name, before, now } = row;
            println!("{name:width$}  {before:>9.3} {now:>9.3} {change:>+7.0}%");
        }
        if !self.new.is_empty() {
            println!("the baseline does not have {}", self.new.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_moved_are_listed_by_how_much() {
        let kept = r#"[{"name": "a", "ratio": 1.0}, {"name": "b", "ratio": 0.5},
                       {"name": "c", "ratio": 2.0}, {"name": "gone", "ratio": 1.0}]"#;
        let kept = Kept::parse(kept).unwrap();
        let rows = [("a", 1.05), ("b", 0.4), ("c", 4.0), ("d", 1.0)];
        let difference = kept.compare(rows.into_iter());
        let names: Vec<_> = difference.moved.iter().map(|row| &row.name[..]).collect();
        assert_eq!(names, ["c", "b"]);
        assert_eq!(
            (difference.common, &difference.new[..]),
            (3, &["d".to_owned()][..])
        );
    }

    #[test]
    fn another_file_is_refused_with_the_reason() {
        for text in ["{}", "[{\"name\": \"a\"}]", "[1]", "not JSON"] {
            assert!(Kept::parse(text).is_err(), "{text}");
        }
        let error = Kept::read(Path::new("/nowhere.json")).err().unwrap();
        assert!(format!("{error:#}").contains("/nowhere.json"), "{error:#}");
    }
}
