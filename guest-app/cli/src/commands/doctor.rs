// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl doctor`: explains why shared virtual addressing works or does not work here.

use std::io::{self, Write};
use std::path::Path;

use console::Term;
use svm_cases::harness::report::print_json;
use svm_doctor::{Facts, Report};

/// Columns if the output is not a terminal.
const WIDTH: u16 = 120;
/// Most columns of a terminal that are used.
const WIDEST: u16 = 160;

/// Examines the machine; `false` if shared virtual addressing does not work.
pub fn run(as_json: bool, names: &[String]) -> anyhow::Result<bool> {
    let mut report = Report::examine(&Facts::read(Path::new("/")));
    report.choose(names)?;
    let named = !names.is_empty();
    if as_json {
        print_json(&report)?;
    } else {
        let width = Term::stdout()
            .size_checked()
            .map_or(WIDTH, |(_, columns)| columns.min(WIDEST));
        io::stdout().write_all(report.render(width, named).as_bytes())?;
    }
    Ok(report.works(named))
}
