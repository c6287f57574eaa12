// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the correctness suite: rules on benches, or their mutants.

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use svm_suite::bench::{Bench, InProcess, Qtest, Unit};
use svm_suite::report::{json, junit, tap};
use svm_suite::rule::{Judged, Rule};
use svm_suite::rules;
use svm_suite::run::{self, Count, MutantResult, RuleResult};

/// The rules of ATS, PRI and PASID against IOMMUs.
#[derive(Debug, Parser)]
#[command(name = "run-suite")]
struct Options {
    /// Where to run them; more than once for several. All that are there, if it is not given.
    #[arg(long)]
    bench: Vec<Choice>,
    /// The rules to run, by their numbers; more than once for several.
    #[arg(long)]
    rule: Vec<u8>,
    /// Break the rules on purpose, and see that each violation is noticed.
    #[arg(long)]
    mutants: bool,
    /// Only say which rules and clauses there are.
    #[arg(long)]
    list: bool,
    /// Write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the results as JUnit XML.
    #[arg(long)]
    junit: Option<PathBuf>,
    /// A program that becomes QEMU with the plug-in.
    #[arg(long, env = "SVM_QEMU", hide_env_values = true)]
    qemu: Option<OsString>,
}

/// A bench by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// This project's unit in this process.
    InProcess,
    /// Both units in QEMU.
    Qtest,
    /// QEMU's unit.
    QtestIntelIommu,
    /// This project's unit in QEMU.
    QtestSvmVtd,
}

/// The benches that were chosen.
fn benches(options: &Options) -> anyhow::Result<Vec<Box<dyn Bench>>> {
    let mut chosen = options.bench.clone();
    if chosen.is_empty() {
        chosen.push(Choice::InProcess);
        if options.qemu.is_some() {
            chosen.push(Choice::Qtest);
        }
    }
    let mut benches: Vec<Box<dyn Bench>> = Vec::new();
    for choice in chosen {
        let units: &[Unit] = match choice {
            Choice::InProcess => {
                benches.push(Box::new(InProcess));
                continue;
            }
            Choice::Qtest => &[Unit::IntelIommu, Unit::SvmVtd],
            Choice::QtestIntelIommu => &[Unit::IntelIommu],
            Choice::QtestSvmVtd => &[Unit::SvmVtd],
        };
        let program = options.qemu.clone().context(
            "this bench needs QEMU: name a program that becomes it, by --qemu or SVM_QEMU",
        )?;
        for unit in units {
            let bench = Qtest::new(program.clone(), *unit)
                .with_context(|| format!("{} cannot be run", program.to_string_lossy()))?;
            benches.push(Box::new(bench));
        }
    }
    Ok(benches)
}

/// The rules that were chosen.
fn chosen(options: &Options) -> anyhow::Result<Vec<&'static Rule>> {
    let all = rules::all();
    if options.rule.is_empty() {
        return Ok(all);
    }
    for number in &options.rule {
        ensure!(
            all.iter().any(|rule| rule.number == *number),
            "there is no rule {number}: they are 1 to {}",
            all.len()
        );
    }
    let is_chosen = |rule: &&Rule| options.rule.contains(&rule.number);
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn list(rules: &[&Rule]) {
    for rule in rules {
        println!("{:2} {} ({})", rule.number, rule.title, rule.section);
        match &rule.judged {
            Judged::By(clauses) => {
                for clause in *clauses {
                    let mutants: Vec<String> =
                        clause.mutants.iter().map(ToString::to_string).collect();
                    println!("     {}: {}", clause.name, mutants.join(", "));
                }
            }
            Judged::Nowhere { reason, .. } => println!("     nowhere: {reason}"),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let rules = chosen(&options)?;
    if options.list {
        list(&rules);
        return Ok(ExitCode::SUCCESS);
    }
    let benches = benches(&options)?;
    let mut rule_results: Vec<(&dyn Bench, Vec<RuleResult>)> = Vec::new();
    let mut mutant_results: Vec<(&dyn Bench, Vec<MutantResult>)> = Vec::new();
    for bench in &benches {
        if options.mutants {
            mutant_results.push((&**bench, run::mutants(&**bench, &rules)));
        } else {
            let results = run::rules(&**bench, &rules);
            show_rules(&**bench, &results)?;
            rule_results.push((&**bench, results));
        }
    }
    write_files(&options, &rule_results, &mutant_results)?;
    let good = match options.mutants {
        true => judge_mutants(&mutant_results),
        false => judge_rules(&rule_results),
    };
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn show_rules(bench: &dyn Bench, results: &[RuleResult]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "# {}\n{}", bench.subject(), tap::header(results.len()))?;
    for result in results {
        write!(out, "{}", tap::rule(bench.name(), result))?;
    }
    writeln!(out, "# {}: {}", bench.name(), Count::of(results))?;
    Ok(())
}

fn write_files(
    options: &Options,
    rules: &[(&dyn Bench, Vec<RuleResult>)],
    mutants: &[(&dyn Bench, Vec<MutantResult>)],
) -> anyhow::Result<()> {
    if let Some(path) = &options.json {
        let mut benches = Vec::new();
        for (bench, results) in rules {
            benches.push(json::bench(bench.name(), &bench.subject(), results, &[]));
        }
        for (bench, results) in mutants {
            benches.push(json::bench(bench.name(), &bench.subject(), &[], results));
        }
        let document = serde_json::json!({ "schema": 1, "benches": benches });
        let text = serde_json::to_string_pretty(&document)?;
        std::fs::write(path, text).with_context(|| format!("{}", path.display()))?;
    }
    if let Some(path) = &options.junit {
        let suites: Vec<(&str, &[RuleResult])> = rules
            .iter()
            .map(|(bench, results)| (bench.name(), &results[..]))
            .collect();
        std::fs::write(path, junit::document(&suites))
            .with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

/// Prints the total, and returns whether no rule failed.
fn judge_rules(results: &[(&dyn Bench, Vec<RuleResult>)]) -> bool {
    let all: Vec<RuleResult> = results.iter().flat_map(|(_, r)| r.clone()).collect();
    let count = Count::of(&all);
    println!("suite: {count}");
    count.failed == 0
}

/// Prints the mutants, and returns whether each was caught.
fn judge_mutants(results: &[(&dyn Bench, Vec<MutantResult>)]) -> bool {
    let all: Vec<(&str, &MutantResult)> = results
        .iter()
        .flat_map(|(bench, results)| results.iter().map(|result| (bench.name(), result)))
        .collect();
    print!("{}", tap::header(all.len()));
    for (n, (bench, result)) in all.iter().enumerate() {
        print!("{}", tap::mutant(n + 1, bench, result));
    }
    let caught = all.iter().filter(|(_, result)| result.caught).count();
    let survived = all.len() - caught;
    println!("mutants: {caught} caught, {survived} survived");
    survived == 0
}
