// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which case of a guest judges which rule, and why the others are not judged there.

/// Which guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One on this machine.
    Guest,
    /// One on the guest, to which the device is passed through.
    L2,
}

/// What a rule demands in one case, as programs on Linux see it.
#[derive(Clone, Copy, Debug)]
pub struct Clause {
    /// Number of the rule.
    pub rule: u8,
    /// Its name, unique within the rule.
    pub name: &'static str,
    /// The cases that must pass.
    pub cases: &'static [&'static str],
    /// The text with which a guest of a guest skips all of them; none if it runs them.
    pub l2_skips: Option<&'static str>,
}

/// A clause that guests of both levels judge.
const fn clause(rule: u8, name: &'static str, cases: &'static [&'static str]) -> Clause {
    Clause {
        rule,
        name,
        cases,
        l2_skips: None,
    }
}

/// A clause that the guest of a guest cannot judge: its cases skip themselves with this text.
const fn first_level(
    rule: u8,
    name: &'static str,
    cases: &'static [&'static str],
    l2_skips: &'static str,
) -> Clause {
    Clause {
        rule,
        name,
        cases,
        l2_skips: Some(l2_skips),
    }
}

/// The clauses, by their rules.
pub const CLAUSES: &[Clause] = &[
    clause(
        15,
        "large pages",
        &["2 MiB huge page", "hugetlbfs, 2 MiB pages"],
    ),
    clause(17, "no page", &["munmap, then access fails", "guard pages"]),
    clause(18, "read only", &["read-only mapping", "a sealed memfd"]),
    clause(
        21,
        "two processes",
        &[
            "two processes, one virtual address",
            "two contexts of one process",
        ],
    ),
    clause(
        26,
        "D",
        &[
            "shared file mapping written",
            "a shared mapping of a file is the file",
            "pages go to swap at work",
        ],
    ),
    clause(
        27,
        "addresses of 64 bits",
        &[
            "addresses that are none",
            "more than 4 GiB of address space",
        ],
    ),
    clause(
        28,
        "another page",
        &[
            "MADV_DONTNEED, reached again",
            "mremap moves and grows memory",
        ],
    ),
    clause(
        34,
        "data",
        &[
            "compare across a page boundary",
            "overlapping copy",
            "mapped file, checksum as the CPU's",
        ],
    ),
    clause(
        35,
        "processor and device",
        &[
            "fetch-add against the CPU",
            "mprotect takes permissions and gives them back",
        ],
    ),
    clause(
        37,
        "a huge page",
        &["a huge page is split under the device"],
    ),
    clause(
        47,
        "at work",
        &[
            "memory is compacted at work",
            "a file truncated at work",
            "munmap of the data under the device",
        ],
    ),
    clause(
        48,
        "at work",
        &[
            "mprotect at work",
            "equal pages are merged by KSM, and written",
        ],
    ),
    clause(
        53,
        "pages that come late",
        &["page never touched", "pages provided by userfaultfd"],
    ),
    clause(54, "goes on", &["bad pointer fails only itself"]),
    clause(62, "no addresses", &["addresses that are none"]),
    clause(
        64,
        "a process that ends",
        &[
            "a process ends with work outstanding",
            "SIGKILL in the middle of page requests",
            "killed by the kernel, out of memory",
        ],
    ),
    clause(
        64,
        "nobody answers",
        &["a fault that nobody answers keeps no other device"],
    ),
    clause(
        65,
        "the next process",
        &["PASIDs are used again", "close with work outstanding"],
    ),
    clause(
        66,
        "after the stop",
        &[
            "SIGKILL in the middle of a copy",
            "a file sent through a socket is without rights",
        ],
    ),
    clause(
        67,
        "reset",
        &[
            "a reset of the function stops its contexts",
            "reset by sysfs at work",
            "contexts are started again under resets",
            "files are read and closed under resets",
        ],
    ),
    first_level(
        71,
        "D3hot",
        &[
            "asleep and awake again at work, rehearsed",
            "suspended to idle at work, and woken",
        ],
        "the kernel cannot suspend to idle",
    ),
    clause(
        71,
        "ends of a user",
        &[
            "a thread that opened the device ends",
            "exec with close-on-exec gives the context back",
            "contexts run out with EBUSY and come back",
            "unbound and bound again at work",
        ],
    ),
    clause(
        72,
        "each is counted",
        &[
            "ring wraps, every interrupt counted",
            "read counts interrupts",
            "an eventfd is signalled by interrupts",
        ],
    ),
    clause(75, "above 1 GiB", &["more than 4 GiB of address space"]),
];

/// The clauses of rule 8, whose cases a guest of its own reports.
pub const PORTS: &[Clause] = &[
    clause(8, "a way", &["a function behind a root port has PASIDs"]),
    clause(
        8,
        "no way",
        &[
            "a function behind a port without ACS has no PASIDs",
            "a function beside others without ACS has no PASIDs",
        ],
    ),
];

/// Why a rule is not judged, and the case whose success shows that the reason holds; none if
/// nothing can show it.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// The reason.
    pub text: &'static str,
    /// The case.
    pub shown_by: Option<&'static str>,
    /// The text with which it may skip itself in a guest of a guest, whose kernel has other options.
    pub l2_skips: Option<&'static str>,
}

const UNIT: Reason = Reason {
    text: "the unit is Linux's, which makes none of the errors that this takes",
    shown_by: Some("no program reaches the registers of the IOMMU"),
    l2_skips: Some("this kernel lets root map the registers that a driver has"),
};

const FUNCTION: Reason = Reason {
    text: "the registers that show this are the driver's",
    shown_by: Some("no program reaches the registers of the function"),
    l2_skips: Some("this kernel lets root map the registers that a driver has"),
};

const NO_VIRTUAL_FUNCTIONS: Reason = Reason {
    text: "the device has no virtual functions: there is no SR-IOV capability",
    shown_by: Some("the function has no virtual functions"),
    l2_skips: None,
};

const L2_PORTS: Reason = Reason {
    text: "the ports above the function are L1's QEMU's, and the bench guest has others",
    shown_by: None,
    l2_skips: None,
};

/// The clauses of a rule on a level.
pub fn clauses(level: Level, rule: u8) -> Vec<&'static Clause> {
    let ports = match level {
        Level::Guest => PORTS,
        Level::L2 => &[],
    };
    let all = CLAUSES.iter().chain(ports);
    all.filter(|clause| clause.rule == rule).collect()
}

/// Why a rule without clauses is not judged.
pub fn reason(rule: u8) -> Reason {
    match rule {
        8 => L2_PORTS,
        60 => NO_VIRTUAL_FUNCTIONS,
        13 | 20 | 23..=25 | 30..=32 | 44 | 50 | 61 | 74 | 76..=81 => UNIT,
        _ => FUNCTION,
    }
}

/// Cases of the demonstration, which runs as a whole; the others are tests.
const DEMONSTRATION: &[&str] = &[
    "2 MiB huge page",
    "MADV_DONTNEED, reached again",
    "bad pointer fails only itself",
    "compare across a page boundary",
    "fetch-add against the CPU",
    "mapped file, checksum as the CPU's",
    "munmap, then access fails",
    "overlapping copy",
    "page never touched",
    "read-only mapping",
    "ring wraps, every interrupt counted",
    "shared file mapping written",
    "two contexts of one process",
    "two processes, one virtual address",
];

/// The tests among the cases that a guest has to run.
pub fn tests() -> Vec<&'static str> {
    let mut all = cases();
    all.retain(|name| !DEMONSTRATION.contains(name));
    all
}

/// The cases that a guest has to run: those of clauses, and those that show reasons.
pub fn cases() -> Vec<&'static str> {
    let of_clauses = CLAUSES.iter().flat_map(|clause| clause.cases).copied();
    let reasons = [UNIT, FUNCTION, NO_VIRTUAL_FUNCTIONS];
    let of_reasons = reasons.iter().filter_map(|reason| reason.shown_by);
    let mut all: Vec<&str> = of_clauses.chain(of_reasons).collect();
    all.sort_unstable();
    all.dedup();
    all
}
