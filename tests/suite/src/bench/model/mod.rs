// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bench of a remapping unit of your own: a model that answers calls, put between this project's
//! device and memory. `docs/bring-your-own.md` leads through it.

mod board;
mod machine;
mod port;
mod unit;

pub use unit::{Model, Platform};

use super::host::{Bench, Shared, Wish};
use crate::deviations::Deviation;
use crate::need::Need;
use std::fmt;
use std::sync::Arc;

/// Makes a model.
type Make = dyn Fn(&Wish) -> Box<dyn Model> + Send + Sync;

/// The bench of a model: this project's device behind it in a machine in this process.
pub struct ModelBench {
    name: &'static str,
    subject: String,
    make: Box<Make>,
    lacks: &'static [(Need, &'static str)],
    deviations: &'static [Deviation],
}

impl ModelBench {
    /// A bench of a name, which tests the models that `make` makes, each as after power-up. Of the
    /// [`Wish`] they heed what their unit can be like. `subject` says what is tested, with its
    /// version.
    pub fn new(
        name: &'static str,
        subject: impl Into<String>,
        make: impl Fn(&Wish) -> Box<dyn Model> + Send + Sync + 'static,
    ) -> Self {
        ModelBench {
            name,
            subject: subject.into(),
            make: Box::new(make),
            lacks: &[],
            deviations: &[],
        }
    }

    /// The same of a model that cannot do something, and why. Clauses that need it are not
    /// applicable; if the model can do it all the same, they fail.
    #[must_use]
    pub fn lacking(self, lacks: &'static [(Need, &'static str)]) -> Self {
        ModelBench { lacks, ..self }
    }

    /// The same of a model that is known to break clauses. A run is good with these deviations, and
    /// fails when one is gone.
    #[must_use]
    pub fn deviating(self, deviations: &'static [Deviation]) -> Self {
        ModelBench { deviations, ..self }
    }
}

impl fmt::Debug for ModelBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelBench")
            .field("name", &self.name)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl Bench for ModelBench {
    fn name(&self) -> &'static str {
        self.name
    }

    fn machine(&self, wish: &Wish) -> Shared {
        Arc::new(machine::ModelMachine::new((self.make)(wish), wish))
    }

    fn lacks(&self, need: Need) -> Option<&'static str> {
        let lacks = self.lacks.iter().find(|(lacks, _)| *lacks == need);
        lacks.map(|(_, why)| *why)
    }

    fn deviations(&self) -> &'static [Deviation] {
        self.deviations
    }

    fn subject(&self) -> String {
        self.subject.clone()
    }
}
