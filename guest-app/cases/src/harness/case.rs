// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases, and the groups and suites that they stand in.

use anyhow::ensure;
use svm_init::kernel;

use super::bench::Bench;
use super::verdict::Verdict;

/// One case: an error is a failure.
#[derive(Debug)]
pub struct Case {
    /// Name: what is shown or tested.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&mut Bench) -> anyhow::Result<Verdict>,
    /// How messages of the kernel begin that it provokes, and that are no fault.
    pub provokes: &'static [&'static str],
    /// Whether processes die in it while the device works for them.
    pub kills: bool,
}

impl Case {
    /// A case that makes the kernel say nothing.
    pub const fn new(name: &'static str, run: fn(&mut Bench) -> anyhow::Result<Verdict>) -> Case {
        Case {
            name,
            run,
            provokes: &[],
            kills: false,
        }
    }

    /// What the kernel may say because of it.
    #[must_use]
    pub const fn provoking(mut self, messages: &'static [&'static str]) -> Case {
        self.provokes = messages;
        self
    }

    /// Processes die in it while the device works for them, of which the IOMMU driver may say what
    /// [`kernel::after_death`] has.
    #[must_use]
    pub const fn killing(mut self) -> Case {
        self.kills = true;
        self
    }

    /// All that the kernel may say because of it.
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
    /// A name that chooses them all.
    pub name: &'static str,
    /// What they are about, in a line.
    pub about: &'static str,
    /// The cases, by module.
    pub cases: &'static [&'static [Case]],
}

/// Several groups, in the order in which they run.
#[derive(Debug)]
pub struct Suite {
    /// Name of the suite, which its last line begins with.
    pub name: &'static str,
    /// The groups.
    pub groups: &'static [Group],
}

/// A case, and where it belongs.
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
    /// A name chooses no case.
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
