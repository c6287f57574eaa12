// SPDX-License-Identifier: MIT OR Apache-2.0
//! The correctness suite against an IOMMU model that is written in C: docs/bring-your-own.md.

mod model;

use model::SmallIommu;
use std::process::ExitCode;
use svm_suite::bench::ModelBench;
use svm_suite::deviations::Deviation;
use svm_suite::need::Need;

/// What the model cannot be.
const LACKS: &[(Need, &str)] = &[
    (Need::Supervisor, "small_iommu does not report ECAP.SRS"),
    (Need::WithoutRidPasid, "small_iommu never has RID_PASID"),
    (Need::WithoutFirstStage, "small_iommu has no second stage"),
];

/// What the model is known to do wrong: rule, clause, what it does in a line, a text that the
/// failure contains, and where the reason is.
const KNOWN: &[Deviation] = &[
    Deviation::new(
        31,
        "0xfeexxxxx",
        "Translated requests reach the interrupt address range",
        "found []",
        "translate(), which passes all translated requests",
    ),
    Deviation::new(
        44,
        "the unit's time",
        "Invalidations never time out",
        "found None",
        "descriptor(), case 5, which waits for ever",
    ),
    Deviation::new(
        74,
        "reserved bits",
        "Reserved bits of descriptors are ignored",
        "expected true, found false",
        "descriptor()",
    ),
    Deviation::new(
        74,
        "reason",
        "There is no IQERCD",
        "found 0x0",
        "process_queue()",
    ),
    Deviation::new(
        77,
        "FPD",
        "FPD is ignored",
        "FirstStageEntryNotPresent",
        "record(), which every fault reaches",
    ),
    Deviation::new(
        77,
        "FPD of a context entry",
        "Reserved bits of context entries are ignored",
        "Ok(",
        "context_entry(), which looks at the present bit alone",
    ),
    Deviation::new(
        78,
        "beyond the directory",
        "The PASID directory has no end",
        "found true",
        "pasid_entry(), which does not look at PDTS",
    ),
    Deviation::new(
        78,
        "reserved bits",
        "Reserved bits of PASID table entries are ignored",
        "found true",
        "pasid_entry()",
    ),
];

fn main() -> anyhow::Result<ExitCode> {
    let bench = ModelBench::new("small-iommu", "small_iommu 1", |wish| {
        Box::new(SmallIommu::new(wish.one_gib_pages))
    });
    svm_suite::main(vec![Box::new(bench.lacking(LACKS).deviating(KNOWN))])
}
