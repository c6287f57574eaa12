// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl stress`: load from several contexts in several processes. All results are checked.

mod progress;
pub mod storm;
mod worker;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use console::Term;
use serde::{Deserialize, Serialize};
use serde_json::json;
use svmctl::Context;

use crate::cli::StressOptions;
use progress::{Progress, rate, table};
use svm_cases::harness::random::Random;
use svm_cases::harness::report::print_json;
use svm_cases::system::child::{Child, Line};
use worker::{Load, Worker};

/// Time between two reports of a process.
const REPORT: Duration = Duration::from_millis(250);
/// Time between two lines if the output is not a terminal.
const LINES: Duration = Duration::from_secs(5);
/// Descriptors of a ring.
const ENTRIES: u32 = 64;

/// A message from a process to its parent.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// The progress of its contexts.
    Now(Vec<Progress>),
    /// The contexts have finished.
    Done(Vec<Progress>),
}

/// When a worker stops.
#[derive(Clone, Copy, Debug)]
struct Limits {
    time: Option<Duration>,
    operations: Option<u64>,
}

/// Puts the device under load. Returns `false` if something was wrong.
pub fn run(device: &Path, as_json: bool, options: &StressOptions) -> anyhow::Result<bool> {
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        // Short enough to type.
        Random::new(now.as_nanos() as u64).below(1 << 32)
    });
    let limits = Limits {
        time: match (options.duration, options.operations) {
            (None, None) => Some(Duration::from_secs(10)),
            (time, _) => time,
        },
        operations: options.operations,
    };
    let load = Load {
        mix: options.mix.clone().unwrap_or_default(),
        memory: (options.memory as usize) << 20,
        depth: options.depth as usize,
        pressure: !options.calm,
        storms: options.storm.clone(),
    };
    // Before any child starts, so that an error common to all is reported once.
    let contexts = Context::open(device)?.info().contexts;
    let wanted = options.processes * options.threads;
    anyhow::ensure!(
        wanted <= contexts,
        "{} processes with {} contexts each are {wanted} contexts; the device has {contexts}",
        options.processes,
        options.threads
    );
    let begin = Instant::now();
    let mut children = Vec::new();
    for process in 0..options.processes {
        let (path, load) = (device.to_owned(), load.clone());
        let threads = options.threads;
        let first = u64::from(process) * u64::from(threads);
        children.push(Child::fork(move |line| {
            process_main(line, path, &load, limits, (seed, first, threads))
        })?);
    }
    if !as_json {
        eprintln!(
            "seed {seed}: {wanted} contexts in {} processes{}",
            options.processes,
            limits
                .time
                .map_or_else(String::new, |time| format!(", {} s", time.as_secs_f64()))
        );
    }
    let mut screen = Screen::new(
        as_json,
        options.threads as usize,
        options.processes as usize,
    );
    let failures = follow(&mut children, &mut screen, begin)?;
    let time = begin.elapsed();
    screen.clear()?;
    summarise(&screen.processes, &failures, (seed, time), as_json)?;
    Ok(failures.is_empty())
}

/// A process of the load, with a thread for each context.
fn process_main(
    line: &mut Line,
    device: PathBuf,
    load: &Load,
    limits: Limits,
    (seed, first, threads): (u64, u64, u32),
) -> anyhow::Result<()> {
    let slots: Vec<Mutex<Progress>> = (0..threads).map(|_| Mutex::default()).collect();
    let failed = AtomicBool::new(false);
    let running = AtomicUsize::new(threads as usize);
    let (ended, end) = mpsc::channel::<()>();
    let read = || -> Vec<Progress> { slots.iter().map(|slot| *lock(slot)).collect() };
    std::thread::scope(|scope| {
        let handles: Vec<_> = slots
            .iter()
            .enumerate()
            .map(|(n, slot)| {
                let (device, failed, running) = (&device, &failed, &running);
                let ended = ended.clone();
                scope.spawn(move || {
                    let number = first + n as u64;
                    let random = Random::part(seed, number);
                    let result = whole(|| work(device, load, limits, random, slot, failed));
                    if result.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    if running.fetch_sub(1, Ordering::AcqRel) == 1 {
                        // If the receiver is gone, there is nothing to report.
                        let _ = ended.send(());
                    }
                    result.with_context(|| format!("context {number} of the load"))
                })
            })
            .collect();
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(REPORT) {
            if let Err(error) = line.tell(&Report::Now(read())) {
                // The parent no longer reads reports.
                failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        handles.into_iter().try_for_each(|handle| {
            // `whole` has already caught a panic of the work itself.
            let joined = handle.join();
            joined.unwrap_or_else(|_| Err(anyhow!("a thread of the load panicked")))
        })
    })?;
    line.tell(&Report::Done(read()))
}

/// The result of `work`. A panic becomes an error, so that the waiting thread hears of it.
fn whole(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow!("a thread of the load panicked")))
}

fn lock(slot: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    // A thread that panicked left consistent numbers.
    slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs one context until it has done enough or a thread of the process has failed.
fn work(
    device: &Path,
    load: &Load,
    limits: Limits,
    random: Random,
    slot: &Mutex<Progress>,
    failed: &AtomicBool,
) -> anyhow::Result<()> {
    let queue = Context::open(device)?.start(ENTRIES)?;
    let mut worker = Worker::new(queue, load, random)?;
    let begin = Instant::now();
    let enough = |progress: &Progress| {
        limits.time.is_some_and(|time| begin.elapsed() >= time)
            || limits
                .operations
                .is_some_and(|most| progress.total() >= most)
            || failed.load(Ordering::Relaxed)
    };
    while !enough(&worker.progress) {
        worker.round()?;
        *lock(slot) = worker.progress;
    }
    *lock(slot) = worker.finish()?;
    Ok(())
}

/// Follows the processes until all have ended or one has failed. On a failure it ends the others.
fn follow(
    children: &mut Vec<Child>,
    screen: &mut Screen,
    begin: Instant,
) -> anyhow::Result<Vec<String>> {
    let (said, heard) = mpsc::channel();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        for (number, mut child) in children.drain(..).enumerate() {
            let said = said.clone();
            scope.spawn(move || {
                loop {
                    let report = child.line().receive::<Report>();
                    let last = !matches!(report, Ok(Report::Now(_)));
                    // The parent stops listening after a failure: the child ends, too.
                    if said.send((number, report)).is_err() || last {
                        break;
                    }
                }
            });
        }
        drop(said);
        loop {
            match heard.recv_timeout(screen.pause()) {
                Ok((number, Ok(Report::Now(progress) | Report::Done(progress)))) => {
                    screen.processes[number] = progress;
                }
                Ok((number, Err(error))) => {
                    failures.push(format!("process {number}: {error:#}"));
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Err(error) = screen.show(begin.elapsed()) {
                failures.push(format!("cannot write: {error:#}"));
                break;
            }
        }
        drop(heard);
    });
    Ok(failures)
}

/// Shows the progress: as a table that is redrawn, or as lines.
struct Screen {
    processes: Vec<Vec<Progress>>,
    term: Term,
    silent: bool,
    /// Lines of the table on the screen.
    drawn: usize,
    shown: Duration,
}

impl Screen {
    fn new(silent: bool, threads: usize, processes: usize) -> Screen {
        Screen {
            processes: vec![vec![Progress::default(); threads]; processes],
            term: Term::stderr(),
            silent,
            drawn: 0,
            shown: Duration::ZERO,
        }
    }

    fn pause(&self) -> Duration {
        if self.term.is_term() { REPORT } else { LINES }
    }

    fn show(&mut self, now: Duration) -> io::Result<()> {
        if self.silent || now.saturating_sub(self.shown) < self.pause() {
            return Ok(());
        }
        self.shown = now;
        if !self.term.is_term() {
            return self.term.write_line(&self.total().line(now));
        }
        let (height, width) = self.term.size();
        let rows = usize::from(height).saturating_sub(3);
        let mut text = table(&self.processes, now, rows, width.into());
        text.push('\n');
        // Writing to a String cannot fail.
        let _ = write!(text, "{:.0} s", now.as_secs_f64());
        self.clear()?;
        self.term.write_line(&text)?;
        self.drawn = text.lines().count();
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.term.clear_last_lines(std::mem::take(&mut self.drawn))
    }

    fn total(&self) -> Progress {
        let all = self.processes.iter().flatten();
        all.fold(Progress::default(), |sum, progress| sum.plus(progress))
    }
}

fn summarise(
    processes: &[Vec<Progress>],
    failures: &[String],
    (seed, time): (u64, Duration),
    as_json: bool,
) -> anyhow::Result<()> {
    let all = processes.iter().flatten();
    let total = all.fold(Progress::default(), |sum, progress| sum.plus(progress));
    if as_json {
        return print_json(&json!({
            "seed": seed,
            "seconds": time.as_secs_f64(),
            "processes": processes.len(),
            "contexts": processes.iter().map(Vec::len).sum::<usize>(),
            "operations": total.total(),
            "operations_per_second": rate(total.total(), time),
            "by_operation": total.by_name(),
            "bytes_moved": total.moved,
            "bytes_compared": total.compared,
            "translation_requests": total.translations,
            "page_requests": total.page_requests,
            "invalidations": total.invalidations,
            "disturbances": total.disturbances,
            "storms": total.storms_by_name(),
            "storms_in_flight": total.storms_in_flight,
            "failures": failures,
        }));
    }
    let mut out = io::stdout();
    let rows = processes.iter().map(Vec::len).sum::<usize>() + 2;
    let width = Term::stdout()
        .size_checked()
        .map_or(usize::MAX, |(_, width)| width.into());
    writeln!(out, "{}\n", table(processes, time, rows, width))?;
    let names = total.by_name();
    let counts: Vec<_> = names
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    writeln!(out, "{}", counts.join(", "))?;
    let storms = total.storms_by_name();
    let counts: Vec<_> = storms
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    let (counts, in_flight) = (counts.join(", "), total.storms_in_flight);
    writeln!(out, "storms: {counts}, {in_flight} of them in flight\n")?;
    for failure in failures {
        writeln!(out, "FAILED  {failure}")?;
    }
    let verdict = match failures.is_empty() {
        true => "every result and every byte was right".to_owned(),
        false => format!("failed; `--seed {seed}` with the same options does the same again"),
    };
    writeln!(out, "stress: {}; seed {seed}: {verdict}", total.line(time))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_load_is_an_error_and_not_silence() {
        whole(|| Ok(())).unwrap();
        let error = whole(|| panic!("on purpose")).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    }
}
