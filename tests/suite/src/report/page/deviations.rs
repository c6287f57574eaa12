// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known deviations that the run has met, with their reports.

use super::super::deviation_reports;
use super::super::results::{Clause, Known};
use super::inputs::Inputs;
use super::markdown;
use super::parts::{self, badge, scrolled};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// The id of a report.
pub fn anchor(report: u8) -> String {
    format!("deviation-{report:02}")
}

/// Where a deviation was met.
struct Met<'a> {
    known: &'a Known,
    bench: &'a str,
    rule: u8,
    to: String,
    clause: &'a Clause,
}

/// The deviations.
pub fn deviations(inputs: &Inputs) -> Option<Markup> {
    let results = inputs.suite.as_ref()?;
    // By report, and those of other lists by what they say.
    let mut met: BTreeMap<(Option<u8>, &str), Vec<Met<'_>>> = BTreeMap::new();
    for (at, bench) in results.benches.iter().enumerate() {
        for rule in &bench.rules {
            for clause in &rule.clauses {
                let Some(known) = &clause.deviation else {
                    continue;
                };
                let key = (known.report, known.title.as_str());
                met.entry(key).or_default().push(Met {
                    known,
                    bench: &bench.bench,
                    rule: rule.number,
                    to: parts::anchor(results, rule.number, Some(at)),
                    clause,
                });
            }
        }
    }
    if met.is_empty() {
        return None;
    }
    let table = html! {
        table {
            caption { "Deviations that this run has met" }
            thead { tr {
                th scope="col" { "Report" }
                th scope="col" { "Where" }
                th scope="col" { "What came" }
                th scope="col" { "Place in the unit's source" }
            } }
            tbody {
                @for ((report, title), all) in &met {
                    @for (n, one) in all.iter().enumerate() {
                        tr {
                            @if n == 0 {
                                th scope="rowgroup" rowspan=(all.len()) {
                                    @match report {
                                        Some(report) => a href={ "#" (anchor(*report)) } {
                                            (format!("{report:02}")) " " (title)
                                        },
                                        None => (title),
                                    }
                                }
                            }
                            td {
                                a href={ "#" (one.to) } { "rule " (one.rule) ", “" (one.clause.name) "”" }
                                ", " (one.bench) " " (badge(one.clause.verdict))
                            }
                            td { (one.clause.text) }
                            td { (one.known.place) }
                        }
                    }
                }
            }
        }
    };
    let reports: Vec<(u8, &str)> = met
        .keys()
        .filter_map(|(report, title)| Some(((*report)?, *title)))
        .collect();
    Some(html! {
        p {
            "Where a unit that is not this project's is known to break a clause. The run is good while "
            "each is as reported, and fails when one is gone."
            @if !reports.is_empty() {
                " The reports are those of "
                @match inputs.reports {
                    Some(folder) => a href={ (folder) "/README.md" } { "docs/deviations" },
                    None => code { "docs/deviations" },
                }
                "."
            }
        }
        (scrolled("Deviations", table))
        @if !reports.is_empty() { h3 { "Their reports" } }
        @for (number, title) in reports { (report(inputs, number, title)) }
    })
}

fn report(inputs: &Inputs, number: u8, title: &str) -> Markup {
    let file = format!("{number:02}.md");
    html! {
        details {
            summary { (format!("{number:02}")) " " (title) }
            // Browsers unfold what holds the target of a link.
            div.report id=(anchor(number)) tabindex="-1" {
                (markdown::body(deviation_reports::text(number)))
                p {
                    "File: "
                    @match inputs.reports {
                        Some(folder) => a href={ (folder) "/" (file) } { "docs/deviations/" (file) },
                        None => code { "docs/deviations/" (file) },
                    }
                }
            }
        }
    }
}
