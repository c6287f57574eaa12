// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which lines of a file were executed, by LLVM's export in lcov's format. Knows nothing of how
//! it came about.

use std::collections::BTreeMap;
use std::path::Path;

/// Lines with code, and how often each was executed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<(usize, usize), u64>, usize);

impl Lines {
    /// The lines of a file. Those of its tests do not count: they always execute.
    pub fn of(export: &str, path: &Path, source: &str) -> Self {
        let header = format!("SF:{}", path.display());
        let record = export
            .lines()
            .skip_while(|line| *line != header)
            .take_while(|line| *line != "end_of_record");
        let tests = test_lines(source);
        let mut lines = BTreeMap::new();
        for entry in record.filter_map(|line| line.strip_prefix("DA:")) {
            let mut numbers = entry.split(',').map(str::parse::<u64>);
            if let (Some(Ok(line)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
                let line = line as usize;
                if !tests.get(line - 1).copied().unwrap_or_default() {
                    *lines.entry((0, line)).or_default() += count;
                }
            }
        }
        Lines(lines, 1)
    }

    /// Whether there is no code at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of lines with code.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Number of lines that were executed.
    pub fn covered(&self) -> usize {
        self.0.values().filter(|count| **count > 0).count()
    }

    /// Percentage of lines that were executed.
    pub fn percent(&self) -> f64 {
        100.0 * self.covered() as f64 / self.count().max(1) as f64
    }

    /// The numbers of the lines that were not executed.
    pub fn missing(&self) -> String {
        let missing = self.0.iter().filter(|(_, count)| **count == 0);
        let numbers: Vec<String> = missing.map(|((_, line), _)| line.to_string()).collect();
        numbers.join(" ")
    }

    /// The lines of another file in addition.
    pub fn extend(&mut self, other: Lines) {
        let file = self.1;
        self.0
            .extend(other.0.into_iter().map(|((_, line), n)| ((file, line), n)));
        self.1 += 1;
    }
}

/// For each line, whether it belongs to a module of tests: from the attribute at the margin to the
/// brace at the margin.
fn test_lines(source: &str) -> Vec<bool> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in source.lines() {
        inside |= line == "#[cfg(test)]";
        lines.push(inside);
        // A module in a file of its own ends with its name.
        if line == "}" || line.starts_with("mod ") && line.ends_with(';') {
            inside = false;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = "SF:/a/other.rs\nDA:1,9\nend_of_record\n\
        SF:/a/file.rs\nFN:1,x\nDA:1,3\nDA:2,0\nDA:7,0\nDA:9,1\nend_of_record\n\
        SF:/a/last.rs\nDA:2,0\nend_of_record\n";
    const SOURCE: &str =
        "fn a() {\n}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n    fn c() {}\n}\nfn d() {}\n";

    #[test]
    fn lines_are_those_of_the_file_without_its_tests() {
        let lines = Lines::of(EXPORT, Path::new("/a/file.rs"), SOURCE);
        assert_eq!((lines.count(), lines.covered()), (3, 2));
        assert_eq!(lines.missing(), "2");
        assert!(Lines::of(EXPORT, Path::new("/a/none.rs"), SOURCE).is_empty());
    }

    #[test]
    fn the_lines_of_several_files_add_up() {
        let mut all = Lines::default();
        all.extend(Lines::of(EXPORT, Path::new("/a/file.rs"), SOURCE));
        all.extend(Lines::of(EXPORT, Path::new("/a/last.rs"), ""));
        assert_eq!((all.count(), all.covered()), (4, 2));
        assert_eq!(all.percent(), 50.0);
    }
}
