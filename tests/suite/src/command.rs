// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: runs rules on benches, or their mutants, and reports what came of it.

use crate::bench::{Bench, InProcess, Like, Qtest, Unit};
use crate::deviations::Deviation;
use crate::differential::{Amount, differential};
use crate::guest::{self, Cases, Guest, Level};
use crate::report::compare::compare;
use crate::report::folder::{self, Folder};
use crate::report::results::{self, Results};
use crate::report::{junit, tap};
use crate::rule::{Judged, Rule};
use crate::rules;
use crate::run::{self, Count, MutantResult, RuleResult};
use anyhow::{Context, bail, ensure};
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The rules of ATS, PRI and PASID against IOMMUs.
#[derive(Debug, Parser)]
struct Options {
    /// Where to run them, by the names of benches: those of this program, in-process, and qtest,
    /// guest and l2, each for both of -intel-iommu and -svm-vtd; more than once for several. Those of
    /// this program if it is not given, or in-process and qtest if it has none.
    #[arg(long)]
    bench: Vec<String>,
    /// The rules to run, by their numbers; more than once for several.
    #[arg(long)]
    rule: Vec<u8>,
    /// Expect no deviation: each that is known is a failure, too.
    #[arg(long)]
    without_deviations: bool,
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
    /// The launcher of guests, for the benches guest and l2.
    #[arg(long, env = "SVM_VM", hide_env_values = true)]
    svm_vm: Option<OsString>,
    /// Start no guest, and judge by the results.json of runs that were: more than once for several,
    /// for one bench.
    #[arg(long, value_name = "FILE")]
    guest_results: Vec<PathBuf>,
    /// A program that becomes QEMU with the plug-in.
    #[arg(long, env = "SVM_QEMU", hide_env_values = true)]
    qemu: Option<OsString>,
}

/// A bench of this project.
#[derive(Clone, Copy)]
enum Kind {
    InProcess,
    Qtest(Unit),
    Guest(Level, Unit),
}

/// The benches of this project by their names.
const BUILT_IN: &[(&str, Kind)] = &[
    ("in-process", Kind::InProcess),
    ("qtest-intel-iommu", Kind::Qtest(Unit::IntelIommu)),
    ("qtest-svm-vtd", Kind::Qtest(Unit::SvmVtd)),
    (
        "guest-intel-iommu",
        Kind::Guest(Level::Guest, Unit::IntelIommu),
    ),
    ("guest-svm-vtd", Kind::Guest(Level::Guest, Unit::SvmVtd)),
    ("l2-intel-iommu", Kind::Guest(Level::L2, Unit::IntelIommu)),
    ("l2-svm-vtd", Kind::Guest(Level::L2, Unit::SvmVtd)),
];

/// Names for several.
const SEVERAL: &[&str] = &["qtest", "guest", "l2"];

/// What rules run on.
enum Chosen {
    Bench(Arc<dyn Bench>),
    Guest(Guest),
}

impl Chosen {
    fn name(&self) -> &'static str {
        match self {
            Chosen::Bench(bench) => bench.name(),
            Chosen::Guest(guest) => guest.name,
        }
    }

    /// A bench that makes machines.
    fn bench(&self) -> anyhow::Result<&dyn Bench> {
        match self {
            Chosen::Bench(bench) => Ok(&**bench),
            Chosen::Guest(guest) => bail!(
                "{} has no machine for this: name a bench without Linux, in-process or qtest",
                guest.name
            ),
        }
    }
}

/// What came of the rules on a bench.
struct OfBench {
    name: &'static str,
    subject: String,
    rules: Vec<RuleResult>,
    mutants: Vec<MutantResult>,
    /// What went wrong beside the rules.
    troubles: Vec<String>,
}

/// What a program runs the suite with.
struct Program {
    /// Its own benches.
    own: Vec<Arc<dyn Bench>>,
    options: Options,
}

impl Program {
    /// The benches of a name.
    fn named(&self, name: &str) -> anyhow::Result<Vec<Chosen>> {
        if let Some(own) = self.own.iter().find(|bench| bench.name() == name) {
            return Ok(vec![Chosen::Bench(Arc::clone(own))]);
        }
        let is_meant = |full: &str| {
            full == name
                || SEVERAL.contains(&name)
                    && full
                        .strip_prefix(name)
                        .is_some_and(|rest| rest.starts_with('-'))
        };
        let meant = BUILT_IN.iter().filter(|(full, _)| is_meant(full));
        let benches: anyhow::Result<Vec<Chosen>> = meant
            .map(|(full, kind)| self.built_in(full, *kind))
            .collect();
        let benches = benches?;
        if benches.is_empty() {
            let own = self.own.iter().map(|bench| bench.name());
            let built_in = BUILT_IN.iter().map(|(name, _)| *name);
            let all: Vec<&str> = own.chain(SEVERAL.iter().copied()).chain(built_in).collect();
            bail!("there is no bench {name}: name one of {}", all.join(", "));
        }
        Ok(benches)
    }

    fn built_in(&self, name: &'static str, kind: Kind) -> anyhow::Result<Chosen> {
        match kind {
            Kind::InProcess => Ok(Chosen::Bench(Arc::new(InProcess))),
            Kind::Guest(level, unit) => Ok(Chosen::Guest(Guest { name, level, unit })),
            Kind::Qtest(unit) => {
                let program = self.options.qemu.clone().with_context(|| {
                    format!(
                        "{name} needs QEMU: name a program that becomes it, by --qemu or SVM_QEMU"
                    )
                })?;
                let bench = Qtest::new(program.clone(), unit)
                    .with_context(|| format!("{} cannot be run", program.to_string_lossy()))?;
                Ok(Chosen::Bench(Arc::new(bench)))
            }
        }
    }

    /// The benches that were chosen, or these names.
    fn benches(&self, default: &[&str]) -> anyhow::Result<Vec<Chosen>> {
        let chosen = self.options.bench.iter().map(String::as_str);
        let names: Vec<&str> = match self.options.bench.is_empty() {
            true => default.to_vec(),
            false => chosen.collect(),
        };
        let mut benches = Vec::new();
        for name in names {
            benches.extend(self.named(name)?);
        }
        Ok(benches)
    }

    /// Runs what was asked for on a bench.
    fn run(&self, chosen: &Chosen, rules: &[&'static Rule]) -> anyhow::Result<OfBench> {
        let mut of = OfBench {
            name: chosen.name(),
            subject: String::new(),
            rules: Vec::new(),
            mutants: Vec::new(),
            troubles: Vec::new(),
        };
        if let (Chosen::Guest(guest), false) = (chosen, self.options.mutants) {
            let cases = self.cases(guest)?;
            of.subject = guest.subject(&cases);
            of.rules = guest::judge(guest.level, rules, &cases);
            of.troubles = cases.troubles;
            return Ok(of);
        }
        let bench = chosen.bench()?;
        let known = self.deviations(bench)?;
        of.subject = bench.subject();
        match self.options.mutants {
            true => of.mutants = run::mutants(bench, rules, known),
            false => of.rules = run::rules(bench, rules, known),
        }
        Ok(of)
    }

    /// What the cases of a guest reported: by a run, or by results that are there.
    fn cases(&self, guest: &Guest) -> anyhow::Result<Cases> {
        if !self.options.guest_results.is_empty() {
            let mut cases = Cases::default();
            for path in &self.options.guest_results {
                cases.add(path)?;
            }
            return Ok(cases);
        }
        let svm_vm = self.options.svm_vm.as_deref().with_context(|| {
            format!(
                "{} needs svm-vm: name it by --svm-vm or SVM_VM, or results by --guest-results",
                guest.name
            )
        })?;
        guest.run(svm_vm)
    }

    /// What runs if no bench is named.
    fn usual(&self) -> Vec<&str> {
        match (self.own.as_slice(), &self.options.qemu) {
            ([], None) => vec!["in-process"],
            ([], Some(_)) => vec!["in-process", "qtest"],
            (own, _) => own.iter().map(|bench| bench.name()).collect(),
        }
    }

    /// Compares the units of QEMU that were chosen, or both.
    fn compare_units(&self) -> anyhow::Result<bool> {
        let benches = self.benches(&["qtest"])?;
        let of_qemu = benches.iter().filter_map(|chosen| {
            let like = match chosen.name() {
                "qtest-intel-iommu" => Like::IntelIommu,
                "qtest-svm-vtd" => Like::SvmVtd,
                _ => return None,
            };
            Some((chosen.bench().ok()?, like))
        });
        differential(&of_qemu.collect::<Vec<_>>(), &self.options.amount)
    }

    /// The deviations that are expected of a bench.
    fn deviations(&self, bench: &dyn Bench) -> anyhow::Result<&'static [Deviation]> {
        let known = bench.deviations();
        let all = rules::all();
        if let Some(wrong) = known.iter().find_map(|known| run::unknown(known, &all)) {
            bail!("{}: {wrong}", bench.name());
        }
        Ok(match self.options.without_deviations {
            true => &[],
            false => known,
        })
    }

    /// How to run the same again, on any machine: by make, or by this program if it is another's.
    fn command(&self) -> String {
        let options = &self.options;
        let rules = options.rule.iter().map(u8::to_string).collect();
        if !self.own.is_empty() {
            let path = std::env::args_os().next().unwrap_or_default();
            let name = Path::new(&path).file_name().unwrap_or_default();
            let mut words = vec![name.to_string_lossy().into_owned()];
            let mut add = |name: &str, values: &Vec<String>| {
                words.extend(values.iter().map(|value| format!("{name} {value}")));
            };
            add("--rule", &rules);
            add("--bench", &options.bench);
            let flags = [
                (options.mutants, "--mutants"),
                (options.without_deviations, "--without-deviations"),
            ];
            words.extend(
                flags
                    .iter()
                    .filter(|(on, _)| *on)
                    .map(|(_, flag)| (*flag).to_owned()),
            );
            return words.join(" ");
        }
        let mut words = vec![
            if options.mutants {
                "make mutants"
            } else {
                "make suite"
            }
            .to_owned(),
        ];
        let mut add = |name: &str, values: &Vec<String>| match values.as_slice() {
            [] => {}
            [value] => words.push(format!("{name}={value}")),
            values => words.push(format!("{name}=\"{}\"", values.join(" "))),
        };
        add("RULE", &rules);
        add("BENCH", &options.bench);
        words.join(" ")
    }
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

/// The command line of a program with benches of its own, or with those of this project alone: call
/// it from `main`. `--help` says what it takes.
///
/// Rules run on the program's own benches unless `--bench` names others. The process fails if a rule
/// does, with the exit status 1, and likewise for mutants.
///
/// # Errors
///
/// What was asked for cannot be done: a sentence says why.
pub fn main(benches: Vec<Box<dyn Bench>>) -> anyhow::Result<ExitCode> {
    let program = Program {
        own: benches.into_iter().map(Arc::from).collect(),
        options: Options::parse(),
    };
    let options = &program.options;
    let folder = match &options.report {
        Some(path) => Some(Folder::new(path).with_context(|| named(path))?),
        None => None,
    };
    if let (true, Some(folder)) = (options.page, &folder) {
        draw(folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rules = chosen(options)?;
    if options.list {
        list(&rules);
        return Ok(ExitCode::SUCCESS);
    }
    if options.differential {
        return Ok(match program.compare_units()? {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    let baseline = options.baseline.as_deref().map(baseline).transpose()?;
    let benches = program.benches(&program.usual())?;
    ensure!(
        options.guest_results.is_empty() || benches.len() == 1,
        "--guest-results are of one bench: name it by --bench"
    );
    let mut all = Vec::new();
    for bench in &benches {
        let of = program.run(bench, &rules)?;
        if !options.mutants {
            show_rules(&of)?;
        }
        all.push(of);
    }
    let mut results = results(&program, &all);
    if let Some((name, before)) = &baseline {
        let comparison = compare(name, before, &results);
        print!("{}", comparison.comments());
        results.comparison = Some(comparison);
    }
    write_files(options, folder.as_ref(), &results, &all)?;
    let good = match options.mutants {
        true => judge_mutants(&all),
        false => judge_rules(&all),
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
fn results(program: &Program, all: &[OfBench]) -> Results {
    let of =
        |of: &OfBench| results::Bench::new(of.name, of.subject.clone(), &of.rules, &of.mutants);
    Results::new(program.command(), all.iter().map(of).collect())
}

fn show_rules(of: &OfBench) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "# {}\n{}", of.subject, tap::header(of.rules.len()))?;
    for result in &of.rules {
        write!(out, "{}", tap::rule(of.name, result))?;
    }
    for trouble in &of.troubles {
        writeln!(out, "# {}: trouble beside the rules: {trouble}", of.name)?;
    }
    writeln!(out, "# {}: {}", of.name, Count::of(&of.rules))?;
    Ok(())
}

fn write_files(
    options: &Options,
    folder: Option<&Folder>,
    results: &Results,
    all: &[OfBench],
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
    let suites: Vec<(&str, &[RuleResult])> =
        all.iter().map(|of| (of.name, &of.rules[..])).collect();
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

/// Prints the total, and returns whether no rule failed, and nothing else went wrong.
fn judge_rules(all: &[OfBench]) -> bool {
    let results: Vec<RuleResult> = all.iter().flat_map(|of| of.rules.clone()).collect();
    let count = Count::of(&results);
    println!("suite: {count}");
    count.failed == 0 && all.iter().all(|of| of.troubles.is_empty())
}

/// Prints the mutants, and returns whether each was caught.
fn judge_mutants(all: &[OfBench]) -> bool {
    let all: Vec<(&str, &MutantResult)> = all
        .iter()
        .flat_map(|of| of.mutants.iter().map(|result| (of.name, result)))
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
