// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of a clause: the bench that it runs on, and the rule that is broken there on purpose.

use crate::bench::{Bench, Gone, Shared, Wish};
use crate::mutant::Mutant;
use crate::need::Need;
use crate::verdict::{Ended, Evidence, Failure};
use crate::world::World;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once};

/// A run of a clause.
#[derive(Debug)]
pub struct Trial<'a> {
    bench: &'a dyn Bench,
    mutant: Option<Mutant>,
    /// The last requests of the device on the machine that was last given up.
    last: Arc<Mutex<Vec<String>>>,
}

thread_local! {
    /// Whether panics of this thread are caught and told by value.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// The sentence of the last one.
    static SENTENCE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the sentences of panics that are caught off the terminal.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                SENTENCE.set(info.to_string());
            } else {
                before(info);
            }
        }));
    });
}

impl<'a> Trial<'a> {
    /// A run on a bench, with a rule that is broken or none.
    pub fn new(bench: &'a dyn Bench, mutant: Option<Mutant>) -> Self {
        Trial {
            bench,
            mutant,
            last: Arc::default(),
        }
    }

    /// A machine on which nothing runs.
    pub fn machine(&self) -> Shared {
        self.bench.machine(&Wish::default())
    }

    /// A process that uses a device, on a new machine.
    pub fn world(&self) -> World {
        self.world_with(|_| ())
    }

    /// The same with a machine that differs from the usual.
    pub fn world_with(&self, change: impl FnOnce(&mut Wish)) -> World {
        let mut wish = Wish::default();
        change(&mut wish);
        let world = World::new(self.bench.machine(&wish), self.device_mutant());
        world.noting(&self.last)
    }

    /// The last requests of the device, oldest first, on the machine that was last given up.
    pub fn requests(&self) -> Vec<String> {
        self.last
            .lock()
            .map_or_else(|_| Vec::new(), |last| last.clone())
    }

    fn device_mutant(&self) -> Option<svm_endpoint::Mutant> {
        match self.mutant {
            Some(Mutant::Device(mutant) | Mutant::Hosted(mutant)) => Some(mutant),
            _ => None,
        }
    }

    /// What the bench cannot do of some needs, and why.
    pub fn lacks(&self, needs: &[Need]) -> Option<(Need, &'static str)> {
        let lacks = |need: &Need| Some((*need, self.bench.lacks(*need)?));
        needs.iter().find_map(lacks)
    }

    /// Whether the bench can break a rule in this way.
    pub fn can_break(bench: &dyn Bench, mutant: Mutant) -> bool {
        match mutant {
            Mutant::Device(_) => true,
            Mutant::Hosted(_) => bench.lacks(Need::LostMessages).is_none(),
            Mutant::Unit(_) => bench.has_unit_mutants(),
        }
    }

    /// Runs what judges.
    pub fn run(&self, judge: impl FnOnce(&Self) -> Result<Evidence, Failure>) -> Ended {
        let unit = match self.mutant {
            Some(Mutant::Unit(mutant)) => Some(mutant),
            _ => None,
        };
        vtd::mutant::set(unit);
        let result = caught(|| judge(self));
        vtd::mutant::set(None);
        match result {
            Ok(Ok(evidence)) => Ended::Kept(evidence),
            Ok(Err(failure)) => Ended::Failed(failure),
            // A unit that takes its machine down by what a function may send keeps no rule.
            Err(Panic::Gone(said)) if self.mutant.is_none() => Ended::Failed(Failure {
                what: "the machine".to_owned(),
                expected: "that it goes on".to_owned(),
                found: said,
                requests: Vec::new(),
            }),
            Err(Panic::Gone(said)) => Ended::Broken(said),
            Err(Panic::Other(sentence)) => Ended::Broken(sentence),
        }
    }
}

/// A panic that was caught.
#[derive(Debug)]
pub enum Panic {
    /// The machine ended.
    Gone(String),
    /// Another one.
    Other(String),
}

/// Calls something, and returns a panic of it by value.
pub fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Panic> {
    quiet();
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CATCHING.set(false);
    result.map_err(
        |payload: Box<dyn Any + Send>| match payload.downcast::<Gone>() {
            Ok(gone) => Panic::Gone(gone.0),
            Err(_) => Panic::Other(SENTENCE.take()),
        },
    )
}
