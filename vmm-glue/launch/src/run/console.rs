// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recognizes kernel trouble in the lines of a guest's console. A pure function of the lines.

use serde::Serialize;
use svm_init::paths::TASKS_FOLLOW;

/// The kind of trouble.
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
    /// A stack trace with an unknown cause.
    Trace,
    /// A memory error that a sanitizer found, or a leak.
    Memory,
    /// An out-of-memory kill that no test has provoked.
    OutOfMemory,
}

/// Trouble, and the line that reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What kind.
    pub kind: Kind,
    /// The line.
    pub line: String,
}

/// Text in a line, and its kind of trouble. The first match counts.
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

/// A line before a stack trace: memory is short. A line with [`KILLED`] then tells whose.
const SHORT: &str = "invoked oom-killer";
/// Beginning of the line that tells whose memory was short and what is killed.
const KILLED: &str = "oom-kill:constraint=";
/// Its contents if a test provokes it: the limit of the test's own control group.
const WANTED: &[&str] = &["constraint=CONSTRAINT_MEMCG,", "oom_memcg=/svmctl-test,"];

/// A line before a stack trace without trouble: the handler of page requests reports that it cannot
/// wait for a program (`userfaultfd`, in a kernel that checks its memory management).
const NO_RETRY: &str = "FAULT_FLAG_ALLOW_RETRY missing";
/// A line of that trace, which identifies the handler of page requests.
const HANDLER: &str = "Workqueue: iopf_queue/";

/// Follows a console line by line.
#[derive(Debug, Default)]
pub struct Watcher {
    /// An earlier line reported the trouble; its stack trace is not another one.
    trace_is_explained: bool,
    /// A report of the handler of page requests has begun.
    handler_speaks: bool,
    /// The kernel lists its tasks on request.
    tasks_are_listed: bool,
}

impl Watcher {
    /// Judges the next line.
    pub fn feed(&mut self, line: &str) -> Option<Trouble> {
        if line.contains(TASKS_FOLLOW) {
            self.tasks_are_listed = true;
        }
        if line.contains(SHORT) {
            self.trace_is_explained = true;
            return None;
        }
        if line.contains(KILLED) && !WANTED.iter().all(|sign| line.contains(sign)) {
            return Some(Trouble {
                kind: Kind::OutOfMemory,
                line: line.trim().to_owned(),
            });
        }
        self.handler_speaks |= line.contains(NO_RETRY);
        self.trace_is_explained |= self.handler_speaks && line.contains(HANDLER);
        let &(_, kind) = SIGNS.iter().find(|(sign, _)| line.contains(sign))?;
        self.handler_speaks = false;
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
            Self::OutOfMemory => "the kernel killed a process for want of memory",
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

    const SHORT_OF_MEMORY: &str = "[    9.1] svmctl invoked oom-killer: gfp_mask=0xcc0, order=0";

    #[test]
    fn a_trace_without_trouble_is_none() {
        let handler = [
            "[    9.1] FAULT_FLAG_ALLOW_RETRY missing 8c0",
            "[    9.1] CPU: 1 UID: 0 PID: 99 Comm: kworker/u9:2",
            "[    9.1] Workqueue: iopf_queue/dmar0-iopfq iommu_sva_handle_iopf",
        ];
        for trace in [&[SHORT_OF_MEMORY][..], &handler] {
            let once = [trace, &["Call Trace:"]].concat();
            assert!(kinds(&once).is_empty(), "{trace:?}");
            let twice = [&once[..], &["Call Trace:"]].concat();
            assert_eq!(kinds(&twice), [Kind::Trace], "{trace:?}");
        }
        // Not the reports of others.
        assert_eq!(
            kinds(&[handler[0], handler[1], "Call Trace:"]),
            [Kind::Trace]
        );
        assert_eq!(kinds(&[handler[2], "Call Trace:"]), [Kind::Trace]);
    }

    #[test]
    fn a_process_that_no_test_has_killed_for_memory_is_trouble() {
        let killed = |constraint: &str, group: &str| {
            format!(
                "[    9.2] oom-kill:constraint={constraint},nodemask=(null),cpuset=/,\
                 mems_allowed=0,oom_memcg={group},task_memcg={group},task=svmctl,pid=99,uid=0"
            )
        };
        let of_the_test = killed("CONSTRAINT_MEMCG", "/svmctl-test");
        let lines = [SHORT_OF_MEMORY, "Call Trace:", &of_the_test];
        assert!(kinds(&lines).is_empty());
        let whole_machine = "[    9.2] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),\
                             cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=svmctl,pid=99";
        for other in [
            killed("CONSTRAINT_MEMCG", "/other"),
            whole_machine.to_owned(),
        ] {
            let lines = [SHORT_OF_MEMORY, "Call Trace:", &other];
            assert_eq!(kinds(&lines), [Kind::OutOfMemory], "{other}");
        }
    }

    #[test]
    fn a_list_of_tasks_that_was_asked_for_is_no_trouble() {
        let marker = format!("[    9.1] {TASKS_FOLLOW}");
        assert!(kinds(&[&marker, "task:sh state:S", "Call Trace:", "Call Trace:"]).is_empty());
    }
}
