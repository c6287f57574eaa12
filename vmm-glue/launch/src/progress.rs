// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows the progress: spinners with elapsed times on a terminal, plain lines elsewhere. It writes
//! only to standard error.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The end of a quick task is shown if it took at least this long.
const NOTABLE: Duration = Duration::from_secs(2);

/// The display of all running tasks.
#[derive(Clone, Debug)]
pub struct Progress {
    /// None if standard error is not a terminal.
    bars: Option<MultiProgress>,
}

/// A running task. End it with [`Task::done`]; dropping it without that shows a failure.
#[derive(Debug)]
pub struct Task {
    progress: Progress,
    bar: Option<ProgressBar>,
    name: String,
    start: Instant,
    notable: Duration,
    ended: bool,
}

impl Progress {
    /// A display that fits standard error.
    pub fn new() -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self {
            bars: terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
        }
    }

    /// Shows a new task.
    pub fn task(&self, name: impl Into<String>) -> Task {
        let name = name.into();
        if self.bars.is_none() {
            eprintln!("{name} ...");
        }
        self.start(name, Duration::ZERO)
    }

    /// Shows a new task that usually has nothing to do: its end is shown only if it took a while or
    /// failed.
    pub fn quick_task(&self, name: impl Into<String>) -> Task {
        self.start(name.into(), NOTABLE)
    }

    fn start(&self, name: String, notable: Duration) -> Task {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            // The template is a constant and known to parse.
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Task {
            progress: self.clone(),
            bar,
            name,
            start: Instant::now(),
            notable,
            ended: false,
        }
    }

    /// Prints a line above the tasks.
    pub fn line(&self, text: &str) {
        match &self.bars {
            // A terminal that has gone away must not stop the work.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }
}

impl Task {
    /// Shows the current part of the task.
    pub fn at(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Shows that the task has to wait, with or without a terminal.
    pub fn waits(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("{}: {text}", self.name),
        }
    }

    /// Ends the task as done.
    pub fn done(mut self) {
        self.end("done", self.notable);
    }

    fn end(&mut self, how: &str, notable: Duration) {
        self.ended = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let elapsed = self.start.elapsed();
        if elapsed >= notable {
            self.progress.line(&format!(
                "{} {how} ({:.1} s)",
                self.name,
                elapsed.as_secs_f32()
            ));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            self.end("FAILED", Duration::ZERO);
        }
    }
}
