// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the primitives behave while the model checker runs: everything is one thread of the host,
//! and the checker decides at each point which goes on. Endpoints need no points of their own:
//! their lock is never held at one.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Where the random schedules begin: the same ones in every run.
const SEED: u64 = 38;
/// Points in a schedule after which nothing is waited for any more.
const PATIENCE: usize = 100_000;
/// Points after which a schedule is taken to be endless, though nothing waits.
const ENDLESS: usize = 2 * PATIENCE;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Points of the current schedule up to now.
    static POINTS: Cell<usize> = const { Cell::new(0) };
    /// The current task has nothing to do before another has gone on.
    static WAITING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the model checker runs in this thread.
pub fn is_running() -> bool {
    RUNNING.get()
}

/// Lets another task go on, if the checker wants that.
pub fn point() {
    if is_running() {
        shuttle::thread::yield_now();
    }
}

/// Lets others go on.
pub fn pause() {
    WAITING.set(true);
    point();
}

/// Waits for a lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    point();
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(error)) => return PoisonError::into_inner(error),
            Err(TryLockError::WouldBlock) => pause(),
        }
    }
}

/// Waits until something holds. A schedule in which it never does fails where this is called.
#[track_caller]
pub fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        assert!(POINTS.get() < PATIENCE, "what is waited for never comes");
        pause();
    }
}

/// Random schedules in which a task stays on for a while: in some for two points, in others for
/// a hundred. What takes long ways meets what stands still in the middle of something.
struct Schedules {
    left: usize,
    number: Arc<AtomicUsize>,
    state: u64,
    /// A task goes on with one chance in so many of being interrupted.
    stay: u64,
}

impl Schedules {
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 16
    }
}

impl Scheduler for Schedules {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.left = self.left.checked_sub(1)?;
        self.number.fetch_add(1, Ordering::Relaxed);
        self.stay = [2, 8, 32, 128][self.random() as usize % 4];
        WAITING.set(false);
        POINTS.set(0);
        Some(Schedule::new(SEED))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        POINTS.set(POINTS.get() + 1);
        let waits = WAITING.replace(false);
        if !waits && self.random() % self.stay != 0 {
            if let Some(task) = runnable.iter().find(|task| Some(task.id()) == current) {
                return Some(task.id());
            }
        }
        let others: Vec<TaskId> = runnable
            .iter()
            .map(|task| task.id())
            .filter(|id| !waits || Some(*id) != current)
            .collect();
        match others.len() {
            0 => current,
            count => Some(others[self.random() as usize % count]),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.random()
    }
}

/// While it lives, the checker runs; says on failure which schedule it was.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(false);
        if std::thread::panicking() {
            let number = self.0.load(Ordering::Relaxed);
            eprintln!("it was schedule {number} from seed {SEED}");
        }
    }
}

/// Runs a test under a number of random schedules. It fails if one of them fails, or never comes
/// to an end.
pub fn check(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
    let number = Arc::new(AtomicUsize::new(0));
    RUNNING.set(true);
    let _running = Running(number.clone());
    let scheduler = Schedules {
        left: schedules,
        number,
        state: SEED << 32 | 1,
        stay: 1,
    };
    let mut config = shuttle::Config::default();
    config.max_steps = shuttle::MaxSteps::FailAfter(ENDLESS);
    config.failure_persistence = shuttle::FailurePersistence::None;
    shuttle::Runner::new(scheduler, config).run(test);
}
