// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recognizes in the lines of a guest's console that its kernel is in trouble. Pure.

use serde::Serialize;
use svm_init::paths::TASKS_FOLLOW;

/// What kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The kernel stopped.
    Panic,
    /// An access or instruction that no code handles.
    Oops,
    /// A broken invariant.
    Bug,
    /// A lock order that can deadlock, or a rule of locking broken.
    Lockdep,
    /// A processor or a task that makes no progress.
    Stall,
    /// A condition that should not occur.
    Warning,
    /// A stack trace of a cause not recognized.
    Trace,
    /// A memory error that a sanitizer found, or a leak.
    Memory,
}

/// Trouble, and the line that told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What kind.
    pub kind: Kind,
    /// The line.
    pub line: String,
}

/// Text in a line, and what it tells. The first that fits counts.
const SIGNS: &[(&str, Kind)] = &[
    ("Kernel panic - not syncing", Kind::Panic),
    ("BUG: KASAN", Kind::Memory),
    ("BUG: KFENCE", Kind::Memory),
    ("new suspected memory leaks", Kind::Memory),
    ("UBSAN:", Kind::Memory),
    ("soft lockup", Kind::Stall),
    ("hard LOCKUP", Kind::Stall),
    ("rcu_preempt detected stalls", Kind::Stall),
    ("rcu_sched detected stalls", Kind::Stall),
    ("self-detected stall", Kind::Stall),
    ("blocked for more than", Kind::Stall),
    ("possible circular locking dependency", Kind::Lockdep),
    ("possible recursive locking", Kind::Lockdep),
    ("possible irq lock inversion", Kind::Lockdep),
    ("inconsistent lock state", Kind::Lockdep),
    ("suspicious RCU usage", Kind::Lockdep),
    ("bad unlock balance", Kind::Lockdep),
    ("held lock freed", Kind::Lockdep),
    (
        "sleeping function called from invalid context",
        Kind::Lockdep,
    ),
    ("Oops:", Kind::Oops),
    ("general protection fault", Kind::Oops),
    ("unable to handle", Kind::Oops),
    ("invalid opcode:", Kind::Oops),
    ("kernel BUG at", Kind::Bug),
    ("BUG:", Kind::Bug),
    ("WARNING:", Kind::Warning),
    ("Call Trace:", Kind::Trace),
];

/// Text in a line that a stack trace follows, though the kernel is not in trouble: a test may want
/// it. What should not have been killed for want of memory tells of itself; and the handler of page
/// requests says that it cannot wait for a program (`userfaultfd`, where the kernel checks its
/// memory management).
const TRACED: &[&str] = &["invoked oom-killer", "FAULT_FLAG_ALLOW_RETRY missing"];

/// Follows a console line by line.
#[derive(Debug, Default)]
pub struct Watcher {
    /// Trouble was told by an earlier line, whose stack trace is no further trouble.
    trace_is_explained: bool,
    /// The kernel lists its tasks because it was asked to.
    tasks_are_listed: bool,
}

impl Watcher {
    /// Judges the next line.
    pub fn feed(&mut self, line: &str) -> Option<Trouble> {
        if line.contains(TASKS_FOLLOW) {
            self.tasks_are_listed = true;
        }
        if TRACED.iter().any(|sign| line.contains(sign)) {
            self.trace_is_explained = true;
            return None;
        }
        let &(_, kind) = SIGNS.iter().find(|(sign, _)| line.contains(sign))?;
        if kind == Kind::Trace && (self.trace_is_explained || self.tasks_are_listed) {
            self.trace_is_explained = false;
            return None;
        }
        self.trace_is_explained = kind != Kind::Trace;
        Some(Trouble {
            kind,
            line: line.trim().to_owned(),
        })
    }
}

impl Kind {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Panic => "the kernel panicked",
            Self::Oops => "the kernel had an oops",
            Self::Bug => "the kernel reported a bug",
            Self::Lockdep => "the kernel reported a locking error",
            Self::Stall => "the kernel reported a stall",
            Self::Warning => "the kernel warned",
            Self::Trace => "the kernel printed a stack trace",
            Self::Memory => "the kernel reported a memory error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(lines: &[&str]) -> Vec<Kind> {
        let mut watcher = Watcher::default();
        lines
            .iter()
            .filter_map(|line| watcher.feed(line))
            .map(|trouble| trouble.kind)
            .collect()
    }

    #[test]
    fn each_kind_of_trouble_is_recognized() {
        for (line, kind) in [
            (
                "[    3.1] Kernel panic - not syncing: Attempted to kill init!",
                Kind::Panic,
            ),
            ("[    3.1] Oops: 0002 [#1] SMP NOPTI", Kind::Oops),
            (
                "[    3.1] Oops: general protection fault, probably for non-canonical",
                Kind::Oops,
            ),
            (
                "[    3.1] BUG: unable to handle page fault for address: ffff",
                Kind::Oops,
            ),
            ("[    3.1] kernel BUG at mm/memory.c:1!", Kind::Bug),
            ("[    3.1] BUG: Bad page state in process svmctl", Kind::Bug),
            (
                "[    3.1] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2",
                Kind::Warning,
            ),
            (
                "[    3.1] WARNING: possible circular locking dependency detected",
                Kind::Lockdep,
            ),
            (
                "[    3.1] INFO: task svmctl:99 blocked for more than 120 seconds.",
                Kind::Stall,
            ),
            (
                "[    3.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
                Kind::Stall,
            ),
            (
                "[    3.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
                Kind::Stall,
            ),
            (
                "[    3.1] BUG: KASAN: slab-use-after-free in f+0x1/0x2",
                Kind::Memory,
            ),
            (
                "[    3.1] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
                Kind::Memory,
            ),
            ("[    3.1] Call Trace:", Kind::Trace),
        ] {
            assert_eq!(kinds(&[line]), [kind], "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_no_trouble() {
        assert!(
            kinds(&[
                "[    0.1] Linux version 7.2.12",
                "[    0.2] DMAR: Intel(R) Virtualization Technology for Directed I/O",
                "[    0.3] debug: unmapping init memory",
                "[    0.4] kmemleak: Kernel memory leak detector initialized (mem pool available: 1)",
            ])
            .is_empty()
        );
    }

    #[test]
    fn a_stack_trace_belongs_to_the_trouble_before_it() {
        let warning = "WARNING: CPU: 0 PID: 1 at x.c:1";
        assert_eq!(kinds(&[warning, "Call Trace:"]), [Kind::Warning]);
        assert_eq!(
            kinds(&[warning, "Call Trace:", "Call Trace:"]),
            [Kind::Warning, Kind::Trace]
        );
    }

    #[test]
    fn a_trace_without_trouble_is_none() {
        for sign in [
            "[    9.1] svmctl invoked oom-killer: gfp_mask=0xcc0, order=0",
            "[    9.1] FAULT_FLAG_ALLOW_RETRY missing 8c0",
        ] {
            assert!(kinds(&[sign, "CPU: 1 PID: 99", "Call Trace:"]).is_empty());
            let after = kinds(&[sign, "Call Trace:", "Call Trace:"]);
            assert_eq!(after, [Kind::Trace]);
        }
    }

    #[test]
    fn a_list_of_tasks_that_was_asked_for_is_no_trouble() {
        let marker = format!("[    9.1] {TASKS_FOLLOW}");
        assert!(kinds(&[&marker, "task:sh state:S", "Call Trace:", "Call Trace:"]).is_empty());
    }
}
