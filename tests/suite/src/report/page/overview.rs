// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the page says of the run as a whole.

use super::super::change::Kind;
use super::super::origin::Commit;
use super::super::results::{Bench, Results};
use super::inputs::{Coverage, Dated, Inputs};
use super::parts::{anchor, badge, counted, scrolled, time};
use crate::run::Verdict;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// How many rules of a bench have a verdict.
fn count(bench: &Bench, verdict: Verdict) -> usize {
    let rules = bench.rules.iter();
    rules.filter(|rule| rule.verdict == verdict).count()
}

/// The rules that failed on any bench.
fn failed(results: &Results) -> BTreeSet<u8> {
    let rules = results.benches.iter().flat_map(|bench| &bench.rules);
    let failed = rules.filter(|rule| rule.verdict == Verdict::Failed);
    failed.map(|rule| rule.number).collect()
}

/// Whether there are rules on it.
fn has_rules(results: &Results) -> bool {
    results.benches.iter().any(|bench| !bench.rules.is_empty())
}

/// The title of the page: the verdict first, as it is what a tab shows.
pub fn title(inputs: &Inputs) -> String {
    let suite = inputs.suite.as_ref();
    match suite.map(|suite| failed(suite).len()) {
        Some(0) => "Passed: correctness suite".to_owned(),
        Some(failed) => format!("{failed} failed: correctness suite"),
        None => "Correctness suite".to_owned(),
    }
}

/// The verdict on everything, in a sentence or two.
pub fn verdict(inputs: &Inputs) -> Markup {
    let Some(suite) = inputs.suite.as_ref().filter(|suite| has_rules(suite)) else {
        return html! { p.overall { "No rule was run yet: " code { "make suite" } " runs them." } };
    };
    let failed = failed(suite).len();
    let with_failures = |bench: &&Bench| count(bench, Verdict::Failed) > 0;
    let benches: Vec<&str> = suite
        .benches
        .iter()
        .filter(with_failures)
        .map(|bench| bench.bench.as_str())
        .collect();
    let run: BTreeSet<u8> = suite
        .benches
        .iter()
        .flat_map(|bench| bench.rules.iter().map(|rule| rule.number))
        .collect();
    html! {
        @if failed == 0 {
            p.overall.passed {
                "No rule failed: "
                (counted(run.len(), "rule")) " on " (benches_of(suite.benches.len())) "."
            }
        } @else {
            p.overall.failed {
                (counted(failed, "rule")) " failed, on " (benches.join(", ")) ". "
                a href="#failures" { "See what failed, and why." }
            }
        }
        @if run.len() < suite.rules {
            p { "Only " (counted(run.len(), "rule")) " of " (suite.rules) " "
                (if run.len() == 1 { "was" } else { "were" }) " asked for: "
                @for (n, rule) in run.iter().take(20).enumerate() {
                    @if n > 0 { ", " }
                    (rule)
                }
                @if run.len() > 20 { ", …" }
                "."
            }
        }
    }
}

fn benches_of(number: usize) -> String {
    match number {
        1 => "1 bench".to_owned(),
        _ => format!("{number} benches"),
    }
}

fn commit(commit: Option<&Commit>) -> Markup {
    match commit {
        Some(commit) => html! {
            code { (commit.id.get(..12).unwrap_or(&commit.id)) }
            @if commit.changed { ", with changes" }
        },
        None => html! { "not known" },
    }
}

/// When, of what and how the run was.
pub fn origin(inputs: &Inputs) -> Markup {
    html! {
        @if let Some(suite) = &inputs.suite {
            dl.facts {
                div { dt { "Run" } dd { (time(&suite.date)) } }
                div { dt { "Suite" } dd { "version " (suite.version) ", commit " (commit(suite.commit.as_ref())) } }
                @for bench in &suite.benches {
                    div { dt { (bench.bench) } dd { (bench.subject) } }
                }
                @if !suite.command.is_empty() {
                    div { dt { "Run it again" } dd { code { (suite.command) } } }
                }
                div { dt { "Seeds" } dd { "none: the rules draw no random numbers" } }
            }
        }
        @for sentence in &inputs.unreadable {
            p.warning { "Left out: " (sentence) }
        }
    }
}

/// The benches and their numbers.
pub fn summary(inputs: &Inputs) -> Option<Markup> {
    const VERDICTS: [Verdict; 4] = [
        Verdict::Failed,
        Verdict::Passed,
        Verdict::Deviates,
        Verdict::NotApplicable,
    ];
    let suite = inputs.suite.as_ref().filter(|suite| has_rules(suite))?;
    let seconds = |bench: &Bench| bench.rules.iter().map(|rule| rule.seconds).sum::<f64>();
    let table = html! {
        table.numbers {
            caption { "Rules of each verdict on each bench" }
            thead { tr {
                th scope="col" { "Bench" }
                @for verdict in VERDICTS { th scope="col" { (badge(verdict)) } }
                th scope="col" { "Work" }
            } }
            tbody {
                @for bench in &suite.benches {
                    tr {
                        th scope="row" { (bench.bench) span.subject { (bench.subject) } }
                        @for verdict in VERDICTS {
                            td { (count(bench, verdict)) }
                        }
                        td { (format!("{:.1} s", seconds(bench))) }
                    }
                }
            }
        }
    };
    Some(html! {
        p { "Each rule is judged on each bench: a machine with an IOMMU and the device behind it. \
             “Work” is the time of all rules together, which run side by side." }
        (scrolled("Summary", table))
    })
}

/// What has changed since the baseline.
pub fn comparison(inputs: &Inputs) -> Option<Markup> {
    let suite = inputs.suite.as_ref()?;
    let comparison = suite.comparison.as_ref()?;
    let verdict = |verdict: Option<Verdict>| match verdict {
        Some(verdict) => badge(verdict),
        None => html! { "not there" },
    };
    let at = |name: &str| suite.benches.iter().position(|bench| bench.bench == name);
    let has = |at: usize, rule: u8| suite.benches[at].rules.iter().any(|r| r.number == rule);
    let table = html! {
        table {
            caption { "Verdicts that have changed, the worst first" }
            thead { tr {
                th scope="col" { "Change" }
                th scope="col" { "Bench" }
                th scope="col" { "Rule" }
                th scope="col" { "Clause" }
                th scope="col" { "Before" }
                th scope="col" { "Now" }
            } }
            tbody {
                @for change in &comparison.changes {
                    tr {
                        th scope="row" class={ "change-" (change.kind) } { (change.kind) }
                        td { (change.bench) }
                        td { @match at(&change.bench).filter(|at| has(*at, change.rule)) {
                            Some(at) => a href={ "#" (anchor(suite, change.rule, Some(at))) } {
                                "rule " (change.rule)
                            },
                            None => { "rule " (change.rule) }
                        } }
                        td { (change.clause.as_deref().unwrap_or("the whole rule")) }
                        td { (verdict(change.before)) }
                        td { (verdict(change.now)) }
                    }
                }
            }
        }
    };
    Some(html! {
        p {
            "Compared with " code { (comparison.baseline) } ", of " (time(&comparison.date))
            ", commit " (commit(comparison.commit.as_ref())) ": " (comparison.sentence()) "."
            @if comparison.count(Kind::Worse) == 0 { " Nothing is worse." }
        }
        @if !comparison.new_benches.is_empty() {
            p { "Not in the baseline: " (comparison.new_benches.join(", ")) "." }
        }
        @if comparison.not_run > 0 {
            p { (counted(comparison.not_run, "result")) " of the baseline had no counterpart: \
                 these rules were not asked for this time." }
        }
        @if !comparison.changes.is_empty() { (scrolled("Comparison", table)) }
    })
}

/// How much is judged where, and how much of the code the tests execute.
pub fn coverage(inputs: &Inputs) -> Option<Markup> {
    let suite = inputs.suite.as_ref().filter(|suite| has_rules(suite));
    if suite.is_none() && inputs.coverage.is_none() {
        return None;
    }
    Some(html! {
        @if let Some(suite) = suite { (judged(inputs, suite)) }
        h3 { "Lines of the device's code" }
        @match &inputs.coverage {
            Some(coverage) => (lines(coverage)),
            None => p { "Not measured: " code { "make coverage" } " measures how many lines of the \
                 device's ATC, ATS and PRI code the tests execute." },
        }
    })
}

fn judged(inputs: &Inputs, suite: &Results) -> Markup {
    let clauses = |bench: &Bench| {
        let all = bench.rules.iter().flat_map(|rule| &rule.clauses);
        let judged = all
            .clone()
            .filter(|clause| clause.verdict != Verdict::NotApplicable);
        (judged.count(), all.count())
    };
    let mutated = |name: &str| {
        let mutants = inputs.mutants.as_ref()?;
        let bench = mutants.benches.iter().find(|bench| bench.bench == name)?;
        let rules: BTreeSet<u8> = bench.mutants.iter().map(|mutant| mutant.rule).collect();
        Some(rules.len())
    };
    let table = html! {
        table.numbers {
            caption { "What is judged on each bench" }
            thead { tr {
                th scope="col" { "Bench" }
                th scope="col" { "Rules judged" }
                th scope="col" { "Clauses judged" }
                th scope="col" { "Rules with mutants" }
            } }
            tbody {
                @for bench in &suite.benches {
                    @let not = count(bench, Verdict::NotApplicable);
                    @let (judged, all) = clauses(bench);
                    tr {
                        th scope="row" { (bench.bench) }
                        td { (bench.rules.len() - not) " of " (bench.rules.len()) }
                        td { (judged) " of " (all) }
                        td { @match mutated(&bench.bench) {
                            Some(rules) => (rules),
                            None => "not run",
                        } }
                    }
                }
            }
        }
    };
    html! {
        p { a href="#matrix" { "Rules by bench" } " shows which rule is judged where; each that is \
             not says why." }
        (scrolled("What is judged", table))
    }
}

fn lines(dated: &Dated<Coverage>) -> Markup {
    let coverage = &dated.of;
    let percent = |covered: usize, lines: usize| 100.0 * covered as f64 / lines.max(1) as f64;
    let table = html! {
        table.numbers {
            caption { "Covered lines of each file" }
            thead { tr {
                th scope="col" { "File" }
                th scope="col" { "Lines" }
                th scope="col" { "Covered" }
                th scope="col" { "Share" }
                th.words scope="col" { "Lines that are not" }
            } }
            tbody {
                @for file in &coverage.files {
                    tr {
                        th scope="row" { code { (file.file) } }
                        td { (file.lines) }
                        td { (file.covered) }
                        td { (format!("{:.1} %", percent(file.covered, file.lines))) }
                        td.words { (file.missing) }
                    }
                }
            }
        }
    };
    html! {
        p { (format!("{:.1} % of the lines, of {} % that are demanded", coverage.percent, coverage.goal))
            "; measured " (time(&dated.date)) "." }
        (scrolled("Covered lines", table))
    }
}

/// The words of the page.
pub fn words() -> Markup {
    html! {
        p { "The suite checks devices that share the address space of a process (shared virtual \
             addressing), and the IOMMUs that translate for them." }
        dl {
            dt { "ATS, PRI, PASID" }
            dd { "Address Translation Services: a device asks the IOMMU for translations and keeps \
                  them in its address translation cache (ATC). Page Request Interface: it asks for \
                  pages that are absent. Process Address Space ID: which process it means." }
            dt { "Rule" }
            dd { "A demand of the PCIe or VT-d specification, or of Linux, with a number that does \
                  not change." }
            dt { "Clause" }
            dd { "A case of a rule. It sends something, looks at what comes, and has a verdict of its \
                  own; a rule has the worst verdict of its clauses." }
            dt { "Bench" }
            dd { "A machine with an IOMMU (the unit) and the device behind it, on which rules run." }
            dt { (badge(Verdict::Passed)) }
            dd { "Every clause that the bench can run is kept." }
            dt { (badge(Verdict::Failed)) }
            dd { "A clause is not kept or was not judged (“broken”), a deviation that was expected is \
                  gone, or a bench can do by now what it says that it cannot." }
            dt { (badge(Verdict::Deviates)) }
            dd { "The unit breaks a clause in a way that is known and has a report." }
            dt { (badge(Verdict::NotApplicable)) }
            dd { "No clause can run on this bench, for a reason that was tried." }
            dt { "Mutant" }
            dd { "A deliberate violation of a rule, by which the suite is tested: the clause has to \
                  notice it." }
        }
    }
}
