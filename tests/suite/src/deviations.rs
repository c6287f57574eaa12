// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a unit that is not this project's is known to break a clause. A run is good with them, and
//! fails when one is gone: then it is taken off its list, and its report out of docs/deviations.

use crate::report::deviation_reports;
use std::fmt;

/// A clause that a unit is known to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Number of the rule.
    pub rule: u8,
    /// Name of the clause.
    pub clause: &'static str,
    /// What says more of it.
    pub report: Report,
    /// What comes: a text that the failure contains.
    pub found: &'static str,
    /// Where the reason is in the source of the unit.
    pub place: &'static str,
}

/// What says more of a deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A report of this project: its number in docs/deviations.
    Numbered(u8),
    /// A line that says what the unit does instead, for lists outside of this project.
    Line(&'static str),
}

impl Report {
    /// Its number in docs/deviations; none for those of others.
    pub const fn number(self) -> Option<u8> {
        match self {
            Report::Numbered(number) => Some(number),
            Report::Line(_) => None,
        }
    }

    /// What the unit does instead, in a line.
    pub fn title(self) -> &'static str {
        match self {
            Report::Numbered(number) => deviation_reports::title(number),
            Report::Line(line) => line,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Numbered(number) => write!(f, "{number:02}"),
            Report::Line(line) => write!(f, "“{line}”"),
        }
    }
}

impl Deviation {
    /// A deviation of a unit of your own: rule and clause that it breaks, what it does instead in a
    /// line, a text that the failure contains, and where the reason is in the source of the unit.
    pub const fn new(
        rule: u8,
        clause: &'static str,
        line: &'static str,
        found: &'static str,
        place: &'static str,
    ) -> Self {
        Deviation {
            rule,
            clause,
            report: Report::Line(line),
            found,
            place,
        }
    }
}

/// A deviation of QEMU's `intel-iommu`.
const fn intel_iommu(
    report: u8,
    rule: u8,
    clause: &'static str,
    found: &'static str,
    place: &'static str,
) -> Deviation {
    Deviation {
        rule,
        clause,
        report: Report::Numbered(report),
        found,
        place,
    }
}

/// Those of QEMU's `intel-iommu`.
pub const INTEL_IOMMU: &[Deviation] = &[
    intel_iommu(1, 26, "A was set", "found 0x20", "vtd_set_flag_in_pte()"),
    intel_iommu(
        2,
        26,
        "a read was cached",
        "0x20",
        "vtd_do_iommu_translate(), the path of an IOTLB hit",
    ),
    intel_iommu(
        2,
        26,
        "the device's write",
        "0x20",
        "vtd_do_iommu_translate(), the path of an IOTLB hit",
    ),
    intel_iommu(
        2,
        26,
        "untranslated write",
        "0x20",
        "vtd_do_iommu_translate(), the path of an IOTLB hit",
    ),
    intel_iommu(3, 26, "read-only page", "found 0x40", "vtd_iova_to_fspte()"),
    intel_iommu(
        4,
        78,
        "taken away, selectively",
        "found true",
        "vtd_get_iova_pgtbl_base(), which ignores the error of vtd_ce_get_pasid_entry()",
    ),
    intel_iommu(
        4,
        78,
        "taken away, globally",
        "found true",
        "vtd_get_iova_pgtbl_base(), which ignores the error of vtd_ce_get_pasid_entry()",
    ),
    intel_iommu(
        5,
        75,
        "above 1 GiB",
        "Descriptor",
        "vtd_process_piotlb_desc()",
    ),
    intel_iommu(
        6,
        23,
        "absent PASID",
        "PasidEntryInvalid",
        "vtd_do_iommu_translate(), the calls of vtd_report_fault() before the walk; vtd_get_pe_in_pasid_leaf_table(), which checks PGTT before the present bit",
    ),
    intel_iommu(
        7,
        25,
        "second stage",
        "SIGABRT",
        "vtd_iommu_ats_do_translate(), which calls abort(); the capabilities of scalable mode without a first stage, which report SRS",
    ),
    intel_iommu(
        8,
        13,
        "the unit's answer",
        "found Ok(",
        "vtd_iommu_ats_do_translate() and vtd_iommu_translate(), which ask for neither DTE nor its like in legacy mode",
    ),
    intel_iommu(
        8,
        13,
        "the device's conclusion",
        "found Some(",
        "vtd_iommu_ats_do_translate() and vtd_iommu_translate(), which ask for neither DTE nor its like in legacy mode",
    ),
    intel_iommu(
        8,
        30,
        "DTE clear",
        "found Ok(",
        "vtd_iommu_ats_do_translate() and vtd_iommu_translate(), which ask for neither DTE nor its like in legacy mode",
    ),
    intel_iommu(
        9,
        24,
        "with a PASID",
        "CompleterAbort",
        "vtd_iommu_ats_do_translate()",
    ),
    intel_iommu(
        10,
        31,
        "0xfeexxxxx",
        "found Ok(",
        "vtd_mem_ir_read(), which answers every read of the range with success, whatever its address type",
    ),
    intel_iommu(
        11,
        32,
        "cached page",
        "faults of the write: expected 0x1, found 0x0",
        "vtd_do_iommu_translate(), the path of an IOTLB hit",
    ),
    intel_iommu(
        12,
        74,
        "reason",
        "IQEI: expected 0x3, found 0x0",
        "vtd_process_inv_desc() and its register file, which has no IQERCD",
    ),
    intel_iommu(
        13,
        76,
        "masked",
        "PECTL.IM after power-up: expected 0x1, found 0x0",
        "vtd_init(), where DMAR_PECTL_REG is defined with 0",
    ),
    intel_iommu(
        14,
        76,
        "EXR",
        "false",
        "vtd_pri_request_page(), which takes exec_req and does not write it",
    ),
    intel_iommu(
        15,
        76,
        "without a PASID",
        "found None",
        "vtd_pri_request_page(), “We do not support PRI without PASID”",
    ),
    intel_iommu(
        16,
        78,
        "PASID 0",
        "expected true, found false",
        "vtd_ce_pasid_0_check(), which vtd_dev_to_context_entry() calls whatever the request is",
    ),
    intel_iommu(
        17,
        78,
        "beyond the directory",
        "expected false, found true",
        "vtd_get_pdire_from_pdir_table(), which knows no PDTS",
    ),
    intel_iommu(
        18,
        78,
        "reserved bits",
        "expected false, found true",
        "vtd_get_pe_in_pasid_leaf_table()",
    ),
    intel_iommu(
        19,
        79,
        "1 GiB",
        "expected false, found true",
        "vtd_fpte_rsvd_large, which does not depend on fs1gp",
    ),
    intel_iommu(
        20,
        80,
        "SMPWCS",
        "expected 0x1, found 0x0",
        "vtd_cap_init(), which never sets bit 48",
    ),
    intel_iommu(
        21,
        57,
        "without a PASID",
        "Descriptor",
        "vtd_process_page_group_response_desc(), which takes PP=0 for an invalid descriptor",
    ),
    intel_iommu(
        22,
        13,
        "PASIDE clear",
        "expected false, found true",
        "vtd_dev_to_context_entry() and its callers, which do not ask for PASIDE",
    ),
    intel_iommu(
        23,
        32,
        "translation request",
        "Untranslated",
        "vtd_report_dmar_fault() and its callers in vtd_do_iommu_translate(), which pass is_pasid=false and no address type",
    ),
    intel_iommu(
        24,
        24,
        "without",
        "found Ok(",
        "vtd_mem_ir_read(), which answers every read of the range with success",
    ),
    intel_iommu(
        42,
        79,
        "levels that there are not",
        "SIGABRT",
        "vtd_get_iova_level(), which ignores the error of vtd_ce_get_pasid_entry(); vtd_fspte_nonzero_rsvd()",
    ),
    intel_iommu(
        43,
        77,
        "FPD of a context entry",
        "with FPD: expected",
        "vtd_qualified_faults, which lacks VTD_FR_CONTEXT_ENTRY_RSVD",
    ),
];

/// The one of a clause in a list.
pub fn of(known: &'static [Deviation], rule: u8, clause: &str) -> Option<&'static Deviation> {
    known
        .iter()
        .find(|known| known.rule == rule && known.clause == clause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn each_is_of_a_clause_and_has_a_report_that_names_its_rule() {
        for known in INTEL_IOMMU {
            assert_eq!(crate::run::unknown(known, &crate::rules::all()), None);
            let number = known.report.number().unwrap();
            let text = deviation_reports::text(number);
            let command = format!("RULE={}", known.rule);
            assert!(text.contains(&command), "{number}: {command}");
        }
    }

    #[test]
    fn each_report_is_of_a_deviation_or_of_a_difference() {
        let reports = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deviations");
        for entry in std::fs::read_dir(reports).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Ok(number) = name.trim_end_matches(".md").parse::<u8>() else {
                assert_eq!(name, "README.md");
                continue;
            };
            let numbered = |known: &Deviation| known.report == Report::Numbered(number);
            let of_a_clause = INTEL_IOMMU.iter().any(numbered);
            let of_a_comparison = crate::differential::REPORTS.contains(&number);
            assert!(of_a_clause != of_a_comparison, "{name}");
        }
    }
}
