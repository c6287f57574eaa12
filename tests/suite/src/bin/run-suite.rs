// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the correctness suite: rules on benches, or their mutants.

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use svm_suite::bench::{Bench, InProcess, Like, Qtest, Unit};
use svm_suite::differential::{Amount, differential};
use svm_suite::report::compare::compare;
use svm_suite::report::folder::{self, Folder};
use svm_suite::report::results::{self, Results};
use svm_suite::report::{junit, tap};
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
    /// Compare the units of QEMU with this project's in this process, by random cases.
    #[arg(long, conflicts_with_all = ["mutants", "list"])]
    differential: bool,
    /// How much is compared.
    #[command(flatten)]
    amount: Amount,
    /// Only say which rules and clauses there are.
    #[arg(long)]
    list: bool,
    /// Write the results as JSON, as JUnit XML and as a page, which has all results of this folder.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Run nothing, and only write the page of what the folder has.
    #[arg(long, requires = "report", conflicts_with_all = ["mutants", "list", "json", "junit", "baseline"])]
    page: bool,
    /// Say what has changed since an earlier result: a suite.json of this suite.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mutants", "list"])]
    baseline: Option<PathBuf>,
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
fn benches(chosen: &[Choice], qemu: Option<&OsString>) -> anyhow::Result<Vec<Box<dyn Bench>>> {
    let mut chosen = chosen.to_vec();
    if chosen.is_empty() {
        chosen.push(Choice::InProcess);
        if qemu.is_some() {
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
        let program = qemu.cloned().context(
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

/// Compares the units of QEMU that were chosen, or both.
fn compare_units(options: &Options) -> anyhow::Result<bool> {
    let mut options_of_qtest = options.bench.clone();
    if options_of_qtest.is_empty() {
        options_of_qtest.push(Choice::Qtest);
    }
    let benches = benches(&options_of_qtest, options.qemu.as_ref())?;
    let of_qemu = benches.iter().filter_map(|bench| {
        let like = match bench.name() {
            "qtest-intel-iommu" => Like::IntelIommu,
            "qtest-svm-vtd" => Like::SvmVtd,
            _ => return None,
        };
        Some((&**bench, like))
    });
    differential(&of_qemu.collect::<Vec<_>>(), &options.amount)
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
    let folder = match &options.report {
        Some(path) => Some(Folder::new(path).with_context(|| named(path))?),
        None => None,
    };
    if let (true, Some(folder)) = (options.page, &folder) {
        draw(folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rules = chosen(&options)?;
    if options.list {
        list(&rules);
        return Ok(ExitCode::SUCCESS);
    }
    if options.differential {
        return Ok(match compare_units(&options)? {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    let baseline = options.baseline.as_deref().map(baseline).transpose()?;
    let benches = benches(&options.bench, options.qemu.as_ref())?;
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
    let mut results = results(&options, &rule_results, &mutant_results);
    if let Some((name, before)) = &baseline {
        let comparison = compare(name, before, &results);
        print!("{}", comparison.comments());
        results.comparison = Some(comparison);
    }
    write_files(&options, folder.as_ref(), &results, &rule_results)?;
    let good = match options.mutants {
        true => judge_mutants(&mutant_results),
        false => judge_rules(&rule_results),
    };
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn named(path: &Path) -> String {
    format!("{} cannot be written", path.display())
}

/// A result to compare with, and the name of its file.
fn baseline(path: &Path) -> anyhow::Result<(String, Results)> {
    let results = Results::read(path).map_err(anyhow::Error::msg)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok((name.to_string_lossy().into_owned(), results))
}

/// The results as a document.
fn results(
    options: &Options,
    rules: &[(&dyn Bench, Vec<RuleResult>)],
    mutants: &[(&dyn Bench, Vec<MutantResult>)],
) -> Results {
    let of = |bench: &dyn Bench, rules: &[RuleResult], mutants: &[MutantResult]| {
        results::Bench::new(bench.name(), bench.subject(), rules, mutants)
    };
    let rules = rules.iter().map(|(bench, rules)| of(*bench, rules, &[]));
    let mutants = mutants
        .iter()
        .map(|(bench, mutants)| of(*bench, &[], mutants));
    Results::new(command(options), rules.chain(mutants).collect())
}

/// How to run the same again, on any machine.
fn command(options: &Options) -> String {
    let mut words = vec![
        if options.mutants {
            "make mutants"
        } else {
            "make suite"
        }
        .to_owned(),
    ];
    let mut add = |name: &str, values: Vec<String>| match values.as_slice() {
        [] => {}
        [value] => words.push(format!("{name}={value}")),
        values => words.push(format!("{name}=\"{}\"", values.join(" "))),
    };
    add("RULE", options.rule.iter().map(u8::to_string).collect());
    let name = |choice: &Choice| Some(choice.to_possible_value()?.get_name().to_owned());
    add("BENCH", options.bench.iter().filter_map(name).collect());
    words.join(" ")
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
    folder: Option<&Folder>,
    results: &Results,
    rules: &[(&dyn Bench, Vec<RuleResult>)],
) -> anyhow::Result<()> {
    let (mut json, mut xml) = (
        Vec::from_iter(&options.json),
        Vec::from_iter(&options.junit),
    );
    let (in_folder, junit_in_folder);
    if let Some(folder) = folder {
        in_folder = match options.mutants {
            true => folder.mutants(),
            false => folder.suite(),
        };
        json.push(&in_folder);
        if !options.mutants {
            junit_in_folder = folder.junit();
            xml.push(&junit_in_folder);
        }
    }
    for path in json {
        folder::write(results, path).with_context(|| named(path))?;
    }
    let suites: Vec<(&str, &[RuleResult])> = rules
        .iter()
        .map(|(bench, results)| (bench.name(), &results[..]))
        .collect();
    for path in xml {
        std::fs::write(path, junit::document(&suites)).with_context(|| named(path))?;
    }
    folder.map_or(Ok(()), draw)
}

/// Writes the page, and says where it is.
fn draw(folder: &Folder) -> anyhow::Result<()> {
    let page = folder.page();
    folder.draw().with_context(|| named(&page))?;
    println!("# the results as a page: {}", page.display());
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
