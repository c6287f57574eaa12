// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares what two units did with a case.

use super::apply::{Answer, Seen, apply};
use super::case::{Case, Step};
use super::expected;
use super::run::{Field, Run};
use crate::bench::{Bench, Shared, Wish};
use crate::trial::{Panic, caught};
use machine::os::QueueFault;
use std::sync::{Mutex, PoisonError};
use vtd::mutant::Mutant;

/// A bench that cases are applied to.
#[derive(Debug)]
pub struct Subject<'a> {
    bench: &'a dyn Bench,
    mutant: Option<Mutant>,
    /// A machine that can be renewed, and what it is like.
    machine: Mutex<Option<(Wish, Shared)>>,
}

/// A difference between two units.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The step that shows it.
    pub step: usize,
    /// What differs.
    pub field: Field,
    /// What the one did.
    pub left: String,
    /// What the other did.
    pub right: String,
    /// The reports that explain it.
    pub reports: Vec<u8>,
}

impl<'a> Subject<'a> {
    /// A bench.
    pub fn new(bench: &'a dyn Bench) -> Self {
        Subject {
            bench,
            mutant: None,
            machine: Mutex::default(),
        }
    }

    /// The same with a rule that the unit in this process breaks.
    #[must_use]
    pub fn breaking(self, mutant: Mutant) -> Self {
        Subject {
            mutant: Some(mutant),
            ..self
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.bench.name()
    }

    /// Applies a case to it.
    pub fn run(&self, case: &Case) -> Run {
        let wish = case.wish;
        let mut run = Run {
            seen: Vec::new(),
            end: None,
        };
        vtd::mutant::set(self.mutant);
        let ended = caught(|| {
            let machine = self.machine(&wish);
            apply(&machine, case, |seen| run.seen.push(seen));
            machine
        });
        vtd::mutant::set(None);
        match ended {
            Ok(machine) => *self.kept() = Some((wish, machine)),
            Err(Panic::Gone(said) | Panic::Other(said)) => run.end = Some(said),
        }
        run
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(Wish, Shared)>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine as it is when it is made.
    fn machine(&self, wish: &Wish) -> Shared {
        let kept = self.kept().take();
        match kept {
            Some((like, machine)) if like == *wish && machine.renew() => machine,
            _ => self.bench.machine(wish),
        }
    }
}

/// How two runs of a case differ.
pub fn differences(case: &Case, left: &Run, right: &Run) -> Vec<Difference> {
    let mut found: Vec<Difference> = Vec::new();
    for (step, (l, r)) in left.seen.iter().zip(&right.seen).enumerate() {
        let fields = [
            (
                Field::Answer,
                l.answer != r.answer && !(reads(l) && reads(r)),
            ),
            (Field::Faults, l.faults != r.faults),
            (Field::Leaf, l.leaf != r.leaf),
            (Field::Data, l.data != r.data),
            (Field::PageRequests, l.page_requests != r.page_requests),
            (Field::Queue, stop(l.queue) != stop(r.queue)),
        ];
        for (field, differs) in fields {
            if differs {
                let mut difference = Difference {
                    step,
                    field,
                    left: shown(l, field),
                    right: shown(r, field),
                    reports: expected::explain(case, step, field, left, right),
                };
                let lasts = |other: &&Difference| is_the_same(case, other, &difference);
                if let Some(before) = found.iter().rev().find(lasts) {
                    difference.reports = before.reports.clone();
                }
                found.push(difference);
            }
        }
    }
    let step = left.seen.len().min(right.seen.len());
    // What breaks on both sides alike shows nothing.
    if left.end.is_some() || right.end.is_some() || left.seen.len() != right.seen.len() {
        let end = |run: &Run| match &run.end {
            Some(why) => why.clone(),
            None => format!("{} steps are done", run.seen.len()),
        };
        found.push(Difference {
            step,
            field: Field::End,
            left: end(left),
            right: end(right),
            reports: expected::explain(case, step, Field::End, left, right),
        });
    }
    found
}

/// Whether a difference in memory is one that an earlier step has left there.
fn is_the_same(case: &Case, before: &Difference, difference: &Difference) -> bool {
    let place = |step: usize| match case.steps[step] {
        Step::Request(request) => Some((request.space, request.at.page()?)),
        Step::PageRequest(request) => Some((request.space, request.at.page()?)),
        _ => None,
    };
    matches!(difference.field, Field::Leaf | Field::Data)
        && before.field == difference.field
        && (&before.left, &before.right) == (&difference.left, &difference.right)
        && place(before.step) == place(difference.step)
}

/// Whether what was read is what the page has: then it is the page that differs.
fn reads(seen: &Seen) -> bool {
    matches!(seen.answer, Answer::Data(data) if seen.data == Some(data))
}

/// Why the queue stopped. Where it did depends on how much went through it before.
fn stop(fault: Option<QueueFault>) -> Option<QueueFault> {
    match fault {
        Some(QueueFault::Descriptor { reason, .. }) => {
            Some(QueueFault::Descriptor { head: 0, reason })
        }
        other => other,
    }
}

/// What was seen of a field, as text.
fn shown(seen: &Seen, field: Field) -> String {
    match field {
        Field::Answer => match &seen.answer {
            Answer::Translated(translated) => format!(
                "{:#x}, 2^{} bytes, {:?}",
                translated.address, translated.size, translated.flags
            ),
            other => format!("{other:?}"),
        },
        Field::Faults => format!("{:x?}", seen.faults),
        Field::Leaf => format!("{:#x}", seen.leaf.unwrap_or_default()),
        Field::Data => format!("{:#x}", seen.data.unwrap_or_default()),
        Field::PageRequests => format!("{:x?}", seen.page_requests),
        Field::Queue => match seen.queue {
            Some(fault) => fault.to_string(),
            None => "it goes on".to_owned(),
        },
        Field::End => String::new(),
    }
}

impl Difference {
    /// What is different, and at which step of its case.
    pub fn text(&self, case: &Case, left: &str, right: &str) -> String {
        let doing = match case.steps.get(self.step) {
            Some(step) => format!("at step {} ({step})", self.step),
            None => "at the end".to_owned(),
        };
        format!(
            "{} {doing}:\n  {left}: {}\n  {right}: {}",
            self.field, self.left, self.right
        )
    }

    /// Whether it is of the same kind as another one.
    pub fn is_like(&self, other: &Difference, case: &Case, of: &Case) -> bool {
        let kind = |step: Option<&Step>| step.map(std::mem::discriminant);
        self.field == other.field
            && self.reports == other.reports
            && kind(case.steps.get(self.step)) == kind(of.steps.get(other.step))
    }
}
