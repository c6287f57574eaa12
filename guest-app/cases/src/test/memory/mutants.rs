// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that breaks a rule, and the cases of the demonstration that must detect it. They need
//! page tables or children, so no model of the device can run them.

use anyhow::{anyhow, ensure};
use svm_init::events::Status;
use svm_init::kernel::BOUND;

use crate::demo;
use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, remark, run_case, skipped};
use crate::system::laboratory::{self, Laboratory};
use crate::system::sysfs::Function;

/// See the module.
pub const CASES: &[Case] =
    &[Case::new("the demonstration notices broken rules", noticed).provoking(BOUND)];

/// A case, and a mutant that it must detect.
struct Noticed {
    case: &'static str,
    /// Number of the mutant in the laboratory.
    mutant: u64,
    /// The case's message about it.
    says: &'static str,
}

const NOTICED: &[Noticed] = &[
    // Invalidations remove nothing.
    Noticed {
        case: "copy-on-write page after fork",
        mutant: 47,
        says: "page_requests: ",
    },
    // Only one page of a large translation is used.
    Noticed {
        case: "2 MiB huge page",
        mutant: 115,
        says: "translation_requests: ",
    },
    Noticed {
        case: "MADV_PAGEOUT to swap, reached again",
        mutant: 47,
        says: "page_requests: ",
    },
    // Address spaces share their translations.
    Noticed {
        case: "two processes, one virtual address",
        mutant: 21,
        says: "own memory: ",
    },
    // A context writes to the place that another context wrote.
    Noticed {
        case: "two contexts of one process",
        mutant: 201,
        says: "own memory: ",
    },
];

fn noticed(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let (mut seen, mut left_out) = (Vec::new(), Vec::new());
    for row in NOTICED {
        let chosen = demo::SUITE.choose(&[row.case.to_owned()])?;
        let [chosen] = chosen[..] else {
            return Err(anyhow!("`{}` is {} cases", row.case, chosen.len()));
        };
        let without = run_case(chosen.case, bench);
        if without.status == Status::Skipped {
            left_out.push(format!("{}: {}", row.case, without.message));
            continue;
        }
        ensure!(
            without.status == Status::Ok,
            "`{}` without a mutant: {}",
            row.case,
            without.message
        );
        bench.close();
        let set = Laboratory::change(&function, |device| device.set_mutant(row.mutant))?;
        if set.is_none() {
            bench.renew()?;
            return skipped(laboratory::NONE);
        }
        let with = run_case(chosen.case, bench);
        bench.close();
        Laboratory::change(&function, |device| device.set_mutant(0))?;
        ensure!(
            with.status == Status::Failed && with.message.contains(row.says),
            "`{}` with mutant {}, expected to fail with \"{}\": {:?}, {}",
            row.case,
            row.mutant,
            row.says,
            with.status,
            with.message
        );
        seen.push(format!("{}: {}", row.case, with.message));
    }
    bench.renew()?;
    ensure!(!seen.is_empty(), "nothing ran: {}", left_out.join("; "));
    remark(format!("{}; skipped: {left_out:?}", seen.join("; ")))
}
