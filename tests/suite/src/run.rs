// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs rules and mutants on a bench. Prints nothing.

use crate::bench::{Bench, Wish};
use crate::deviations::{self, Deviation};
use crate::mutant::Mutant;
use crate::need::Need;
use crate::rule::{Clause, Judged, Rule};
use crate::trial::{Panic, Trial, caught};
use crate::verdict::Ended;
use crate::world::{HERE, World};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use svm_abi::completion::Error;
use svm_abi::registers::command;
use vtd::spec::capability::{Capability, ExtendedCapability};
use vtd::spec::register::offset;

/// What came of a rule or a clause, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// It is not kept, or was not judged, or a known deviation is gone.
    #[serde(rename = "failed")]
    Failed,
    /// It is not kept, as is known.
    #[serde(rename = "expected deviation")]
    Deviates,
    /// It is kept.
    #[serde(rename = "passed")]
    Passed,
    /// The bench cannot express it.
    #[serde(rename = "not applicable")]
    NotApplicable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Failed => "failed",
            Verdict::Deviates => "expected deviation",
            Verdict::Passed => "passed",
            Verdict::NotApplicable => "not applicable",
        })
    }
}

/// What came of a clause.
#[derive(Clone, Debug)]
pub struct ClauseResult {
    /// Its name.
    pub name: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen, or why not.
    pub text: String,
    /// The last requests of the device, oldest first, if the bench ran the clause.
    pub requests: Vec<String>,
    /// The deviation that is known of it.
    pub deviation: Option<&'static Deviation>,
}

/// What came of a rule.
#[derive(Clone, Debug)]
pub struct RuleResult {
    /// The rule.
    pub rule: &'static Rule,
    /// Its clauses; none if no bench judges it.
    pub clauses: Vec<ClauseResult>,
    /// The verdict.
    pub verdict: Verdict,
    /// What there is to say of the rule as a whole.
    pub text: String,
    /// How long it took.
    pub time: Duration,
}

/// What came of a mutant.
#[derive(Clone, Debug)]
pub struct MutantResult {
    /// Number of the rule.
    pub rule: u8,
    /// Name of the clause.
    pub clause: &'static str,
    /// The violation.
    pub mutant: Mutant,
    /// Whether the clause noticed.
    pub caught: bool,
    /// What it said.
    pub text: String,
}

/// Does something with each of a list, on all processors, and returns the results in order.
fn on_all<T: Sync, R: Send>(list: &[T], call: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = list.get(n) else { break };
                    let result = call(item);
                    if let Ok(mut results) = results.lock() {
                        results.push((n, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What is wrong with a deviation, in a sentence; none if there is the clause that it is of.
pub fn unknown(known: &Deviation, rules: &[&Rule]) -> Option<String> {
    let Deviation { rule, clause, .. } = known;
    let has_it = |r: &&Rule| match &r.judged {
        Judged::By(clauses) => clauses.iter().any(|c| c.name == *clause),
        Judged::Nowhere { .. } => false,
    };
    let found = rules.iter().any(|r| r.number == *rule && has_it(r));
    (!found).then(|| {
        format!(
            "a deviation is expected of rule {rule}, clause “{clause}”, which there is not: \
             --list names them all"
        )
    })
}

/// Runs rules on a bench, whose unit deviates as is known.
pub fn rules(
    bench: &dyn Bench,
    rules: &[&'static Rule],
    known: &'static [Deviation],
) -> Vec<RuleResult> {
    on_all(rules, |rule| run_rule(bench, rule, known))
}

fn run_rule(bench: &dyn Bench, rule: &'static Rule, known: &'static [Deviation]) -> RuleResult {
    let begin = Instant::now();
    let trial = Trial::new(bench, None);
    let (clauses, verdict, text) = match &rule.judged {
        Judged::By(clauses) => {
            let run = |clause: &Clause| {
                let known = deviations::of(known, rule.number, clause.name);
                run_clause(bench, clause, known)
            };
            let results: Vec<ClauseResult> = clauses.iter().map(run).collect();
            let verdict = results.iter().map(|result| result.verdict).min();
            (results, verdict.unwrap_or(Verdict::Failed), String::new())
        }
        Judged::Nowhere { reason, holds } => match caught(|| holds(&trial)) {
            Ok(true) => (Vec::new(), Verdict::NotApplicable, (*reason).to_owned()),
            Ok(false) => (
                Vec::new(),
                Verdict::Failed,
                format!("the reason holds no more: {reason}"),
            ),
            Err(panic) => (Vec::new(), Verdict::Failed, format!("broken: {panic}")),
        },
    };
    RuleResult {
        rule,
        clauses,
        verdict,
        text,
        time: begin.elapsed(),
    }
}

fn run_clause(
    bench: &dyn Bench,
    clause: &Clause,
    deviation: Option<&'static Deviation>,
) -> ClauseResult {
    let trial = Trial::new(bench, None);
    let (verdict, text, requests) = match trial.lacks(clause.needs) {
        Some((need, reason)) if !can(bench, need) => {
            (Verdict::NotApplicable, reason.to_owned(), Vec::new())
        }
        Some((need, _)) => (
            Verdict::Failed,
            format!("the bench can do this by now: {need:?}"),
            Vec::new(),
        ),
        None => match (trial.run(clause.run), deviation) {
            (Ended::Kept(evidence), None) => (Verdict::Passed, evidence.0, trial.requests()),
            (Ended::Kept(evidence), Some(known)) => (
                Verdict::Failed,
                format!("deviation {} is gone: {}", known.report, evidence.0),
                trial.requests(),
            ),
            (Ended::Failed(failure), Some(known)) if failure.to_string().contains(known.found) => {
                (Verdict::Deviates, failure.to_string(), failure.requests)
            }
            (Ended::Failed(failure), _) => (Verdict::Failed, failure.to_string(), failure.requests),
            (Ended::Broken(sentence), _) => {
                (Verdict::Failed, format!("broken: {sentence}"), Vec::new())
            }
        },
    };
    ClauseResult {
        name: clause.name,
        verdict,
        text,
        requests,
        deviation,
    }
}

/// Whether a bench can do what it says that it cannot.
fn can(bench: &dyn Bench, need: Need) -> bool {
    let world = || World::new(bench.machine(&Wish::default()), None);
    let result = caught(|| match need {
        Need::AccessWithPasid => {
            let world = world();
            let page = world.process().map(HERE, 0x1000);
            let answer = world.raw(command::UNTRANSLATED_READ, page, world.space());
            answer != Err(Error::MemoryAccess)
        }
        Need::Moments => world().machine().set_hook(None),
        Need::LostMessages => world().machine().lose_invalidations(false),
        Need::Supervisor => reported(bench, &Wish::default(), |_, ecap| ecap.srs()),
        Need::WithoutRidPasid => differs(
            bench,
            |wish, has| wish.rid_pasid = has,
            |_, ecap| ecap.rps(),
        ),
        Need::WithoutFirstStage => differs(
            bench,
            |wish, has| wish.first_stage = has,
            |_, ecap| ecap.fsts(),
        ),
        Need::WithoutOneGibPages => differs(
            bench,
            |wish, has| wish.one_gib_pages = has,
            |cap, _| cap.fs1gp(),
        ),
    });
    // What breaks on the way shows nothing of the sort.
    result.unwrap_or(false)
}

/// What a unit reports of itself.
type Report = fn(Capability, ExtendedCapability) -> bool;

/// What the unit of a machine reports.
fn reported(bench: &dyn Bench, wish: &Wish, report: Report) -> bool {
    let machine = bench.machine(wish);
    let [cap, ecap] = [offset::CAP, offset::ECAP].map(|at| machine.unit_read(0, at, 8));
    report(Capability(cap), ExtendedCapability(ecap))
}

/// Whether units can be made with and without something.
fn differs(bench: &dyn Bench, wish: impl Fn(&mut Wish, bool), report: Report) -> bool {
    let reported = |has| {
        let mut wished = Wish::default();
        wish(&mut wished, has);
        reported(bench, &wished, report)
    };
    reported(true) && !reported(false)
}

/// Runs the mutants of rules on a bench: those of clauses that it can run, and of which no deviation
/// is known.
pub fn mutants(
    bench: &dyn Bench,
    rules: &[&'static Rule],
    known: &'static [Deviation],
) -> Vec<MutantResult> {
    let mut list = Vec::new();
    for rule in rules {
        let Judged::By(clauses) = &rule.judged else {
            continue;
        };
        let kept = |clause: &&Clause| deviations::of(known, rule.number, clause.name).is_none();
        let clauses = clauses.iter().filter(kept);
        list.extend(clauses.map(|clause| (rule.number, clause)));
    }
    on_all(&list, |(rule, clause)| clause_mutants(bench, *rule, clause))
        .into_iter()
        .flatten()
        .collect()
}

fn clause_mutants(bench: &dyn Bench, rule: u8, clause: &Clause) -> Vec<MutantResult> {
    if Trial::new(bench, None).lacks(clause.needs).is_some() {
        return Vec::new();
    }
    let can_break = |mutant: &&Mutant| Trial::can_break(bench, **mutant);
    let mutants: Vec<&Mutant> = clause.mutants.iter().filter(can_break).collect();
    if mutants.is_empty() {
        return Vec::new();
    }
    // What is not kept without a mutant shows nothing with one.
    let before = match Trial::new(bench, None).run(clause.run) {
        Ended::Kept(_) => None,
        Ended::Failed(failure) => Some(format!("fails without it: {failure}")),
        Ended::Broken(sentence) => Some(sentence),
    };
    let run = |mutant: &Mutant| {
        let ended = match &before {
            None => Trial::new(bench, Some(*mutant)).run(clause.run),
            Some(why) => Ended::Broken(why.clone()),
        };
        let (caught, text) = match ended {
            Ended::Failed(failure) => (true, failure.to_string()),
            Ended::Kept(evidence) => (false, format!("not noticed: {}", evidence.0)),
            Ended::Broken(sentence) => (false, format!("broken: {sentence}")),
        };
        MutantResult {
            rule,
            clause: clause.name,
            mutant: *mutant,
            caught,
            text,
        }
    };
    mutants.into_iter().map(run).collect()
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Panic::Gone(said) | Panic::Other(said) => f.write_str(said),
        }
    }
}

/// How many rules have each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Kept.
    pub passed: usize,
    /// Not kept.
    pub failed: usize,
    /// Not kept, as is known.
    pub deviations: usize,
    /// Not expressible.
    pub not_applicable: usize,
}

impl Count {
    /// Counts results.
    pub fn of(results: &[RuleResult]) -> Count {
        let count = |verdict| results.iter().filter(|r| r.verdict == verdict).count();
        Count {
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            deviations: count(Verdict::Deviates),
            not_applicable: count(Verdict::NotApplicable),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count {
            passed,
            failed,
            deviations,
            not_applicable,
        } = self;
        write!(
            f,
            "{passed} passed, {failed} failed, {deviations} expected deviations, \
             {not_applicable} not applicable"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{InProcess, Shared};
    use crate::verdict::{Evidence, Failure};

    /// The in-process bench, which says that it cannot do what it can.
    #[derive(Debug)]
    struct Modest;

    impl Bench for Modest {
        fn name(&self) -> &'static str {
            "modest"
        }

        fn machine(&self, wish: &Wish) -> Shared {
            InProcess.machine(wish)
        }

        fn lacks(&self, need: Need) -> Option<&'static str> {
            Need::ALL.contains(&need).then_some("it is modest")
        }

        fn has_unit_mutants(&self) -> bool {
            true
        }

        fn subject(&self) -> String {
            InProcess.subject()
        }
    }

    #[test]
    fn a_reason_that_holds_no_more_fails_the_clause() {
        let needing: Vec<&'static Rule> = crate::rules::all()
            .into_iter()
            .filter(|rule| match &rule.judged {
                Judged::By(clauses) => clauses.iter().any(|clause| !clause.needs.is_empty()),
                Judged::Nowhere { .. } => false,
            })
            .collect();
        for result in rules(&Modest, &needing, &[]) {
            assert_eq!(result.verdict, Verdict::Failed, "{}", result.rule.number);
        }
        for need in Need::ALL {
            assert!(can(&InProcess, *need), "{need:?}");
        }
    }

    #[test]
    fn a_panic_is_no_verdict() {
        let trial = Trial::new(&InProcess, None);
        let ended = trial.run(|_| panic!("on purpose"));
        let Ended::Broken(sentence) = ended else {
            panic!("{ended:?}");
        };
        assert!(sentence.contains("on purpose"), "{sentence}");
        let failure = Failure {
            what: "a number".to_owned(),
            expected: "1".to_owned(),
            found: "2".to_owned(),
            requests: Vec::new(),
        };
        let ended = trial.run(|_| Err(failure.clone()));
        assert_eq!(ended, Ended::Failed(failure));
    }

    #[test]
    fn a_mutant_that_breaks_the_bench_is_not_caught() {
        const CLAUSES: &[Clause] = &[Clause::new("breaks", |trial| {
            let world = trial.world();
            // With the mutant no page is ever there.
            world.prepare(machine::os::nop());
            Ok(Evidence::default())
        })
        .catching(&[Mutant::Device(svm_endpoint::Mutant::Rule12)])];
        static RULE: Rule = Rule {
            number: 0,
            title: "",
            section: "",
            judged: Judged::By(CLAUSES),
        };
        let results = mutants(&InProcess, &[&RULE], &[]);
        assert_eq!(results.len(), 1);
        assert!(!results[0].caught, "{:?}", results[0]);
    }

    #[test]
    fn a_deviation_of_a_clause_that_there_is_not_is_told() {
        for (rule, clause) in [(99, "depth"), (2, "no such clause"), (8, "")] {
            let known = Deviation::new(rule, clause, "", "", "");
            let wrong = unknown(&known, &crate::rules::all()).unwrap();
            assert!(wrong.contains(&format!("rule {rule}, clause “{clause}”")));
        }
    }
}
