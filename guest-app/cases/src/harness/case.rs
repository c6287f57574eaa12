// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases, and the groups and suites that contain them.

use anyhow::ensure;
use svm_init::kernel;

use super::bench::Bench;
use super::verdict::Verdict;

/// One case. An error is a failure.
#[derive(Debug)]
pub struct Case {
    /// Name: what it shows or tests.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&mut Bench) -> anyhow::Result<Verdict>,
    /// Beginnings of the kernel messages that it provokes, which are not faults.
    pub provokes: &'static [&'static str],
    /// Whether processes die during the case while the device works for them.
    pub kills: bool,
}

impl Case {
    /// A case that provokes no messages of the kernel.
    pub const fn new(name: &'static str, run: fn(&mut Bench) -> anyhow::Result<Verdict>) -> Case {
        Case {
            name,
            run,
            provokes: &[],
            kills: false,
        }
    }

    /// Sets the messages that the kernel may log because of it.
    #[must_use]
    pub const fn provoking(mut self, messages: &'static [&'static str]) -> Case {
        self.provokes = messages;
        self
    }

    /// Marks a case during which processes die while the device works for them. The IOMMU driver
    /// may then log the messages of [`kernel::after_death`].
    #[must_use]
    pub const fn killing(mut self) -> Case {
        self.kills = true;
        self
    }

    /// All messages that the kernel may log because of it.
    pub(super) fn provoked(&self) -> Vec<&'static str> {
        let deaths = if self.kills {
            kernel::after_death()
        } else {
            &[]
        };
        [self.provokes, deaths].concat()
    }
}

/// Cases of one theme.
#[derive(Debug)]
pub struct Group {
    /// A name that selects all of them.
    pub name: &'static str,
    /// What they test, in one line.
    pub about: &'static str,
    /// The cases, by module.
    pub cases: &'static [&'static [Case]],
}

/// Several groups, in the order in which they run.
#[derive(Debug)]
pub struct Suite {
    /// Name of the suite. The last line of a report begins with it.
    pub name: &'static str,
    /// The groups.
    pub groups: &'static [Group],
}

/// A case and its group.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// Its group.
    pub group: &'static Group,
    /// The case.
    pub case: &'static Case,
}

impl Suite {
    /// The cases of the groups in `names`, and those whose name contains one of the others; all if
    /// there are no names.
    ///
    /// # Errors
    ///
    /// A name selects no case.
    pub fn choose(&self, names: &[String]) -> anyhow::Result<Vec<Chosen>> {
        let all = || {
            self.groups.iter().flat_map(|group| {
                let cases = group.cases.iter().copied().flatten();
                cases.map(move |case| Chosen { group, case })
            })
        };
        let meant = |chosen: &Chosen, name: &String| {
            if self.groups.iter().any(|group| group.name == name) {
                chosen.group.name == name
            } else {
                chosen.case.name.contains(name.as_str())
            }
        };
        for name in names {
            ensure!(
                all().any(|chosen| meant(&chosen, name)),
                "no group of `{}` is called `{name}`, and no case has it in its name: `svmctl {} \
                 --list` lists them",
                self.name,
                self.name
            );
        }
        Ok(all()
            .filter(|chosen| names.is_empty() || names.iter().any(|name| meant(chosen, name)))
            .collect())
    }
}
