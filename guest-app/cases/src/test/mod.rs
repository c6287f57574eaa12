// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the driver and the device from a program's side: what they refuse, what they survive,
//! and what they leave behind. During each test the kernel must log nothing that the test does not
//! provoke.

mod endings;
mod fuzz;
mod injection;
mod interface;
mod leaks;
mod memory;
mod raw;
mod scale;

pub use endings::{Successor, successor};

use crate::harness::{Group, Suite};

/// The tests.
pub const SUITE: Suite = Suite {
    name: "test",
    groups: &[
        Group {
            name: "interface",
            about: "system calls, doorbells, rings and descriptors, right and wrong",
            cases: interface::CASES,
        },
        Group {
            name: "memory",
            about: "memory as it is really used, moved, merged, swapped and truncated at work",
            cases: memory::CASES,
        },
        Group {
            name: "endings",
            about: "every way to die, under load; afterwards nothing is left",
            cases: endings::CASES,
        },
        Group {
            name: "scale",
            about: "a process for each context, and many one after the other",
            cases: &[scale::CASES],
        },
        Group {
            name: "fuzz",
            about: "hostile programs beside one that checks its data",
            cases: &[fuzz::CASES],
        },
        Group {
            name: "injection",
            about: "a kernel that runs out of memory in the middle of a call",
            cases: &[injection::CASES],
        },
    ],
};
