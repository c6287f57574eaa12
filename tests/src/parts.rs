// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of a run of the tests: what each found out and how long it took. Parts that leave
//! processors idle run beside each other; their lines begin with the name of their part then.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::skips;
use crate::tally::Tally;

/// How many of the slowest tests are listed.
const SLOWEST: usize = 10;

/// A part under way.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    /// Whether there are others, which may run beside it.
    beside: bool,
    begin: Instant,
    tally: Tally,
    times: Vec<(Duration, String)>,
    failures: Vec<String>,
}

/// What a part does.
pub type Work<'a> = Box<dyn FnOnce(&mut Part) -> anyhow::Result<()> + Send + 'a>;

/// A part to come.
pub struct Job<'a> {
    /// Its name, as short as its lines need.
    pub name: &'static str,
    /// How many processors it keeps busy. One of none takes what others leave, and runs beside
    /// any.
    pub load: usize,
    /// What it does.
    pub run: Work<'a>,
}

/// What the parts found out.
#[derive(Debug, Default)]
pub struct Report {
    /// Name, duration and totals of each part.
    parts: Vec<(&'static str, Duration, Tally)>,
    times: Vec<(Duration, String)>,
    failures: Vec<String>,
}

impl<'a> Job<'a> {
    /// A part that keeps `load` processors busy.
    pub fn new(
        name: &'static str,
        load: usize,
        run: impl FnOnce(&mut Part) -> anyhow::Result<()> + Send + 'a,
    ) -> Self {
        Job {
            name,
            load,
            run: Box::new(run),
        }
    }
}

impl Part {
    fn begin(name: &'static str, beside: bool) -> Self {
        Part {
            name,
            beside,
            begin: Instant::now(),
            tally: Tally::default(),
            times: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Prints a line.
    pub fn line(&self, text: impl Display) {
        if self.beside {
            println!("{:<12}| {text}", self.name);
        } else {
            println!("{text}");
        }
    }

    /// Counts what another runner has counted.
    pub fn count(&mut self, tally: Tally) {
        self.tally += tally;
    }

    /// Takes back a test that its runner has counted as passed and that was skipped.
    pub fn uncount_passed(&mut self) {
        self.tally.passed = self.tally.passed.saturating_sub(1);
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Remembers how long something took.
    pub fn took(&mut self, what: impl Into<String>, time: Duration) {
        self.times.push((time, what.into()));
    }

    /// Does a test, prints how it ended, and counts it.
    pub fn test<T: Display>(
        &mut self,
        name: &str,
        test: impl FnOnce(&mut Part) -> anyhow::Result<T>,
    ) {
        let begin = Instant::now();
        let verdict = test(self);
        self.took(name, begin.elapsed());
        match &verdict {
            Ok(remark) => {
                let remark = remark.to_string();
                let mark = if remark.is_empty() { "" } else { ": " };
                self.line(format_args!("ok - {name}{mark}{remark}"));
            }
            Err(error) => {
                self.line(format_args!("not ok - {name}: {error:#}"));
                self.record_failure(format_args!("{name}: {error:#}"));
            }
        }
        self.tally += Tally::one(verdict.is_ok());
    }

    /// Counts a failure that is none of a test.
    pub fn fail(&mut self, what: impl Display) {
        self.line(format_args!("not ok - {what}"));
        self.record_failure(&what);
        self.tally.failed += 1;
    }

    /// Remembers what failed, for the end, where all that did is told again: between the lines of
    /// parts that run beside each other it is hard to find.
    pub fn record_failure(&mut self, what: impl Display) {
        self.failures.push(what.to_string());
    }

    /// Counts a test that was skipped; one that may not be fails. `on` says in words what it ran
    /// on.
    pub fn skipped(&mut self, on: &[&str], test: &str, reason: &str) {
        match skips::is_allowed(on, test, reason) {
            Ok(true) => {
                self.line(format_args!("# skipped: {test}: {reason}"));
                self.tally.skipped += 1;
            }
            Ok(false) => self.fail(format_args!(
                "{test} was skipped ({reason}) on `{}`: run it, or allow it in \
                 tests/allowed-skips.txt",
                on.join(" ")
            )),
            Err(error) => self.fail(format_args!("{error:#}")),
        }
    }

    /// Runs a program and takes each line that it prints, on either output.
    ///
    /// # Errors
    ///
    /// The program does not start.
    pub fn follow(
        &mut self,
        command: &mut Command,
        mut take: impl FnMut(&mut Part, &str),
    ) -> anyhow::Result<ExitStatus> {
        let (output, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .context("a pipe cannot be made")?;
        let copy = input.try_clone().context("a pipe cannot be duplicated")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(copy)
            .spawn()
            .with_context(|| format!("{:?} did not start", command.get_program()))?;
        // The command holds the pipe open otherwise, and its end is never reached.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut output = BufReader::new(File::from(output));
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            take(self, text.trim_end_matches(['\n', '\r']));
            line.clear();
        }
        Ok(child.wait()?)
    }

    fn end(mut self, outcome: anyhow::Result<()>) -> Self {
        if let Err(error) = outcome {
            let name = self.name;
            self.fail(format_args!("{name}: {error:#}"));
        }
        self.line(format_args!(
            "# {}: {}, {:.1} s",
            self.name,
            self.tally,
            self.begin.elapsed().as_secs_f64()
        ));
        self
    }
}

impl Report {
    /// All that was counted.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (_, _, tally) in &self.parts {
            total += *tally;
        }
        total
    }

    /// Adds what a part found out.
    fn add(&mut self, part: Part) {
        let time = part.begin.elapsed();
        self.parts.push((part.name, time, part.tally));
        let named = |(time, what)| (time, format!("{}: {what}", part.name));
        self.times.extend(part.times.into_iter().map(named));
        let named = |what| format!("{}: {what}", part.name);
        self.failures.extend(part.failures.into_iter().map(named));
    }

    /// What is printed at the end, but for the totals: how long each part took, the slowest tests,
    /// and what failed.
    pub fn lines(&self) -> Vec<String> {
        let row = |time: &Duration, what: &str| format!("# {:7.1} s  {what}", time.as_secs_f64());
        let mut lines = vec!["# how long each part took".to_owned()];
        for (name, time, tally) in &self.parts {
            lines.push(row(time, &format!("{name}: {tally}")));
        }
        let mut times = self.times.clone();
        times.sort_by(|(a, _), (b, _)| b.cmp(a));
        times.truncate(SLOWEST);
        lines.push("# the slowest".to_owned());
        lines.extend(times.iter().map(|(time, what)| row(time, what)));
        if !self.failures.is_empty() {
            lines.push("# what failed".to_owned());
            let rows = self.failures.iter().flat_map(|what| what.lines());
            lines.extend(rows.map(|line| format!("#   {line}")));
        }
        lines
    }
}

/// Runs the parts, as many at a time as `processors` carry, and starts them in their order. A part
/// that needs more than there are runs alone.
pub fn run(jobs: Vec<Job>, processors: usize) -> Report {
    let mut report = Report::default();
    let beside = jobs.len() > 1;
    let mut waiting = jobs;
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| {
        let mut busy = 0;
        let mut running = 0;
        loop {
            while let Some(next) = next(&waiting, busy, processors) {
                let Job { name, load, run } = waiting.remove(next);
                let load = load.min(processors);
                let sender = sender.clone();
                let mut part = Part::begin(name, beside);
                busy += load;
                running += 1;
                part.line(format_args!("# {name} begins"));
                scope.spawn(move || {
                    let outcome =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut part)))
                            .unwrap_or_else(|_| {
                                Err(anyhow::anyhow!("the runner of the tests panicked"))
                            });
                    // The receiver outlives all threads.
                    let _ = sender.send((load, part.end(outcome)));
                });
            }
            if running == 0 {
                break;
            }
            // This thread has a sender of its own.
            let Ok((load, part)) = ended.recv() else {
                break;
            };
            busy -= load;
            running -= 1;
            report.add(part);
        }
    });
    report
}

/// The first part that the idle processors carry.
fn next(waiting: &[Job], busy: usize, processors: usize) -> Option<usize> {
    waiting
        .iter()
        .position(|job| busy + job.load.min(processors) <= processors)
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use super::*;

    #[test]
    fn parts_run_beside_each_other_as_far_as_the_processors_go() {
        let order = Mutex::new(Vec::new());
        let both = Barrier::new(2);
        let meets = |name: &'static str| {
            let (order, both) = (&order, &both);
            Job::new(name, 1, move |_: &mut Part| {
                // Comes back only if the other is there at the same time.
                both.wait();
                order.lock().unwrap().push(name);
                Ok(())
            })
        };
        let alone = Job::new("alone", 9, |part: &mut Part| {
            order.lock().unwrap().push("alone");
            part.count(Tally::one(true));
            Ok(())
        });
        let report = run(vec![alone, meets("a"), meets("b")], 2);
        assert_eq!(order.lock().unwrap().first(), Some(&"alone"));
        assert_eq!(report.total(), Tally::one(true));
        assert_eq!(report.parts.len(), 3);
    }

    #[test]
    fn what_does_not_fit_waits() {
        let job = |load| Job::new("a", load, |_: &mut Part| Ok(()));
        let waiting = [job(2), job(1)];
        assert_eq!(next(&waiting, 0, 2), Some(0));
        assert_eq!(next(&waiting, 1, 2), Some(1));
        assert_eq!(next(&waiting, 2, 2), None);
        assert_eq!(next(&waiting, 0, 1), Some(0));
        // What keeps no processor busy does not, whatever is running.
        let waiting = [job(2), job(0)];
        assert_eq!(next(&waiting, 2, 2), Some(1));
        assert_eq!(next(&waiting[1..], 1, 1), Some(0));
    }

    #[test]
    fn a_part_that_fails_or_panics_fails_the_run() {
        let jobs = vec![
            Job::new("error", 1, |_: &mut Part| anyhow::bail!("nothing works")),
            Job::new("panic", 1, |_: &mut Part| panic!("on purpose")),
        ];
        let report = run(jobs, 1);
        assert_eq!(report.total().failed, 2);
        let lines = report.lines();
        let at = lines.iter().position(|line| line == "# what failed");
        assert_eq!(
            lines[at.unwrap() + 1..],
            [
                "#   error: error: nothing works",
                "#   panic: panic: the runner of the tests panicked"
            ]
        );
    }

    #[test]
    fn both_outputs_of_a_program_are_followed_to_their_end() {
        let mut part = Part::begin("a", false);
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let status = part
            .follow(&mut command, |_, line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_skip_counts_and_fails_where_it_is_not_allowed() {
        let mut part = Part::begin("a", false);
        part.skipped(
            &["guest", "intel-iommu", "stock"],
            "a device that does not stop",
            "the device has no laboratory (lab=on)",
        );
        let one = Tally {
            skipped: 1,
            ..Tally::default()
        };
        assert_eq!(part.tally(), one);
        part.skipped(
            &["guest", "svm-vtd", "stock"],
            "a device that does not stop",
            "the device has no laboratory (lab=on)",
        );
        assert_eq!(part.tally(), Tally { failed: 1, ..one });
    }

    #[test]
    fn the_slowest_are_listed_slowest_first() {
        let mut part = Part::begin("part", false);
        for second in [3, 1, 2] {
            part.took(format!("test {second}"), Duration::from_secs(second));
        }
        for _ in 0..20 {
            part.took("quick", Duration::ZERO);
        }
        let mut report = Report::default();
        report.add(part);
        let lines = report.lines();
        let at = lines
            .iter()
            .position(|line| line == "# the slowest")
            .unwrap();
        assert_eq!(lines[at + 1], "#     3.0 s  part: test 3");
        assert_eq!(lines[at + 2], "#     2.0 s  part: test 2");
        assert_eq!(lines.len() - at - 1, SLOWEST);
    }
}
