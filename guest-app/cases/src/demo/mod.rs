// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demonstration: a device shares a process's address space. Each case is a check that can
//! fail.

mod memory;
mod operations;
mod pages;
mod permissions;
mod processes;

use crate::harness::{Group, Suite};

/// The cases, in the order of a tour: from ordinary memory to the kernel's changes to it.
pub const SUITE: Suite = Suite {
    name: "demo",
    groups: &[Group {
        name: "demo",
        about: "what sharing an address space means",
        cases: &[
            memory::CASES,
            pages::CASES,
            permissions::CASES,
            processes::CASES,
            operations::CASES,
        ],
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::bench::Bench;
    use crate::harness::{Case, run_case};
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};
    use svm_init::events::Status;
    use svmctl::Context;
    use svmctl::model::{Model, Mutant};

    /// Cases map memory at fixed addresses: the tests of this process run them one at a time.
    static ADDRESSES: Mutex<()> = Mutex::new(());

    fn bench(mutant: Option<Mutant>) -> Bench {
        Bench::new(Path::new("model"), move || {
            let model = Model::with_mutant(mutant).unwrap();
            Context::with_file(Box::new(model))
        })
        .unwrap()
    }

    fn case(name: &str) -> &'static Case {
        match SUITE.choose(&[name.to_owned()]).unwrap()[..] {
            [chosen] => chosen.case,
            ref cases => panic!("`{name}` chooses {cases:?}"),
        }
    }

    /// Cases that run without the device. The others need page tables, or children. A program with
    /// the threads of tests and models cannot fork children.
    const ON_A_MODEL: &[&str] = &[
        "heap buffer read",
        "buffer written, seen by the CPU",
        "stack variable",
        "mapped file, checksum as the CPU's",
        "shared file mapping written",
        "page never touched",
        "MADV_DONTNEED, reached again",
        "munmap, then access fails",
        "read-only mapping",
        "bad pointer fails only itself",
        "linked list followed",
        "fetch-add against the CPU",
        "compare across a page boundary",
        "overlapping copy",
        "ring wraps, every interrupt counted",
    ];

    #[test]
    fn cases_pass_on_a_device_that_keeps_the_rules() {
        let _addresses = ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bench = bench(None);
        for name in ON_A_MODEL {
            let event = run_case(case(name), &mut bench);
            assert_eq!(event.status, Status::Ok, "{name}: {}", event.message);
        }
    }

    /// For each broken rule, the cases that must detect it.
    #[test]
    fn cases_fail_on_a_device_that_breaks_the_rules() {
        let _addresses = ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
        let mutants: &[(Mutant, &[&str])] = &[
            (
                Mutant::LastByteMissing,
                &[
                    "buffer written, seen by the CPU",
                    "stack variable",
                    "shared file mapping written",
                    "page never touched",
                    "MADV_DONTNEED, reached again",
                    "overlapping copy",
                ],
            ),
            (
                Mutant::OneByteTooMany,
                &[
                    "buffer written, seen by the CPU",
                    "stack variable",
                    "overlapping copy",
                ],
            ),
            (
                Mutant::WrongFaultAddress,
                &[
                    "munmap, then access fails",
                    "read-only mapping",
                    "bad pointer fails only itself",
                ],
            ),
            (
                Mutant::FaultsHidden,
                &[
                    "munmap, then access fails",
                    "read-only mapping",
                    "bad pointer fails only itself",
                ],
            ),
            (Mutant::TornFetchAdd, &["fetch-add against the CPU"]),
            (Mutant::CopiesForwards, &["overlapping copy"]),
            (Mutant::FailureSpreads, &["bad pointer fails only itself"]),
            (
                Mutant::WrongResult,
                &[
                    "heap buffer read",
                    "mapped file, checksum as the CPU's",
                    "linked list followed",
                    "stack variable",
                    "compare across a page boundary",
                ],
            ),
        ];
        for (mutant, names) in mutants {
            for name in *names {
                let event = run_case(case(name), &mut bench(Some(*mutant)));
                assert_eq!(event.status, Status::Failed, "{mutant:?} passes `{name}`");
                assert!(
                    !event.message.contains("panic"),
                    "{name}: {}",
                    event.message
                );
            }
        }
    }
}
