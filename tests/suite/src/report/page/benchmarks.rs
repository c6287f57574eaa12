// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was measured: curves as plots with their numbers, and the rows with goals.

use super::inputs::{Dated, Figure, Inputs, Measured, Row};
use super::numbers::{short, value};
use super::parts::{counted, scrolled, slug, time};
use super::plot;
use maud::{Markup, PreEscaped, html};

/// The benchmarks.
pub fn benchmarks(inputs: &Inputs) -> Option<Markup> {
    if inputs.rows.is_none() && inputs.curves.is_empty() {
        inputs.suite.as_ref()?;
        return Some(html! {
            p { "Not measured: " code { "make bench" } " measures in this process, "
                code { "make bench-guest" } " in a guest; then the curves are here." }
        });
    }
    Some(html! {
        @if let Some(rows) = &inputs.rows { (goals(rows)) }
        @for (title, curves) in &inputs.curves { (measured(title, curves)) }
    })
}

fn goals(rows: &Dated<Vec<Row>>) -> Markup {
    let with_goal = rows.of.iter().filter(|row| row.met.is_some());
    let met = with_goal.clone().filter(|row| row.met == Some(true));
    let table = html! {
        table.numbers {
            caption { "Benchmarks and their goals" }
            thead { tr {
                th scope="col" { "Name" }
                th scope="col" { "Value" }
                th scope="col" { "Baseline" }
                th scope="col" { "Ratio" }
                th.words scope="col" { "Goal" }
                th.words scope="col" { "Baseline is" }
            } }
            tbody {
                @for row in &rows.of {
                    tr {
                        th scope="row" { code { (row.name) } }
                        td { (short(row.value)) " " (row.unit) }
                        td { @if let Some(baseline) = row.baseline { (short(baseline)) " " (row.unit) } }
                        td { @if let Some(ratio) = row.ratio { (short(ratio)) } }
                        td.words {
                            @match row.met {
                                Some(true) => span.verdict.passed { "met" },
                                Some(false) => span.verdict.deviates { "missed" },
                                None => "no goal",
                            }
                            @if let Some(goal) = &row.goal { " " (goal) }
                        }
                        td.words { (row.against.as_deref().unwrap_or_default()) }
                    }
                }
            }
        }
    };
    html! {
        p {
            (met.count()) " of " (counted(with_goal.count(), "goal")) " met; measured "
            (time(&rows.date)) ". A goal is a ratio to a baseline of the same run."
        }
        details {
            summary { "All " (counted(rows.of.len(), "row")) }
            (scrolled("Benchmarks", table))
        }
    }
}

fn measured(title: &str, curves: &Dated<Measured>) -> Markup {
    let drawn = |figure: &&Figure| figure.series.iter().any(|s| !s.points.is_empty());
    let figures: Vec<&Figure> = curves.of.figures.iter().filter(drawn).collect();
    html! {
        @if !figures.is_empty() {
            h3 { (title) }
            p { "Lines are medians, bands four samples of five; measured " (time(&curves.date)) "." }
            div.plots { @for (n, figure) in figures.iter().enumerate() {
                (picture(title, n, figure))
            } }
        }
    }
}

fn picture(title: &str, number: usize, figure: &Figure) -> Markup {
    let label = format!("plot-{}-{number}", slug(title));
    let table = format!("{title}, {} by {}", figure.title, figure.x.label);
    html! {
        figure {
            figcaption #(label) {
                strong { (figure.title) } " by " (figure.x.label)
                ul.legend {
                    @for (n, series) in figure.series.iter().enumerate() {
                        @if !series.points.is_empty() {
                            li {
                                span class={ "curve-" (n % plot::CURVES) } aria-hidden="true" {
                                    (plot::mark(n))
                                }
                                " " (series.name)
                            }
                        }
                    }
                }
            }
            @match plot::draw(figure) {
                Ok(svg) => div.plot role="img" aria-labelledby=(label) { (PreEscaped(svg)) },
                Err(why) => p.warning { "It cannot be drawn: " (why) },
            }
            details { summary { "Its numbers" } (scrolled(&table, numbers(figure))) }
        }
    }
}

fn numbers(figure: &Figure) -> Markup {
    html! {
        table.numbers {
            caption { (figure.title) }
            thead { tr {
                th.words scope="col" { "Curve" }
                th scope="col" { (figure.x.label) }
                th scope="col" { "Median (" (figure.y.label) ")" }
                th scope="col" { "10th to 90th percentile" }
            } }
            tbody {
                @for series in &figure.series {
                    @for point in &series.points {
                        tr {
                            th.words scope="row" { (series.name) }
                            td { (value(&figure.x, point.x)) }
                            td { (value(&figure.y, point.median)) }
                            td { (value(&figure.y, point.p10)) " to " (value(&figure.y, point.p90)) }
                        }
                    }
                }
            }
        }
    }
}
