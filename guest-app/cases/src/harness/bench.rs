// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tools of a case: a queue that works when the case begins, operations on regions, and checks
//! of the device's counters.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use svmctl::abi::completion;
use svmctl::abi::completion::Completion;
use svmctl::abi::ioctl::Info;
use svmctl::region::Region;
use svmctl::{Context, Counters, Descriptor, Error, Failure, Queue, State};

use super::verdict::Verdict;

/// Descriptors of the bench's ring.
pub const ENTRIES: u32 = 16;
/// No operation of a case takes this long unless the device has stopped working.
const TIME_LIMIT: Duration = Duration::from_secs(60);

type Open = dyn Fn() -> Result<Context, Error>;

/// How much a run tests.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of all random choices: the same seed gives the same choices.
    pub seed: u64,
    /// Multiplies rounds and durations.
    pub scale: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            scale: 1.0,
        }
    }
}

/// The device, and a queue on it.
pub struct Bench {
    device: PathBuf,
    open: Box<Open>,
    options: Options,
    /// Information about context and device from when the queue was opened.
    info: Info,
    /// `None` while a case has closed it.
    queue: Option<Queue>,
    /// Counters of the queue when the case began.
    start: Counters,
    /// Counters of other queues of the case.
    others: Counters,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// A bench on the file `device`, which `open` opens.
    ///
    /// # Errors
    ///
    /// Those of `open`, and of starting a queue.
    pub fn new(
        device: &Path,
        open: impl Fn() -> Result<Context, Error> + 'static,
    ) -> Result<Bench, Error> {
        let queue = start(&open, ENTRIES)?;
        Ok(Bench {
            device: device.to_owned(),
            open: Box::new(open),
            options: Options::default(),
            info: *queue.info(),
            start: queue.counters()?,
            queue: Some(queue),
            others: Counters::default(),
        })
    }

    /// How much to test.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Sets how much to test.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// The number of rounds of a case that has `standard` of them; at least 1.
    pub fn rounds(&self, standard: u32) -> u32 {
        (f64::from(standard) * self.options.scale).round().max(1.0) as u32
    }

    /// Closes the bench's queue, so that the program has no file of the device open. The next
    /// case, or [`Bench::renew`], opens it again.
    pub fn close(&mut self) {
        self.queue = None;
    }

    /// Ensures that the next case has a working queue.
    ///
    /// # Errors
    ///
    /// As [`Bench::new`].
    pub fn renew(&mut self) -> anyhow::Result<()> {
        let state = self.queue.as_ref().map(Queue::state).transpose()?;
        if state != Some(State::Enabled) {
            self.close();
            let queue = self.open_queue(ENTRIES);
            let queue = queue.context("the queue cannot be started again")?;
            self.info = *queue.info();
            self.queue = Some(queue);
        }
        self.start = self.queue().counters()?;
        self.others = Counters::default();
        Ok(())
    }

    /// Restarts the bench's queue. Its previous counts are discarded.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::restart`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.queue().restart()?;
        self.start = self.queue().counters()?;
        Ok(())
    }

    /// The counts of the bench's queue and of the case's other queues since the case began.
    pub fn take_counters(&mut self) -> Counters {
        let own = match self.queue.as_ref().map(Queue::counters) {
            Some(Ok(now)) => now.since(&self.start),
            _ => Counters::default(),
        };
        own.plus(&std::mem::take(&mut self.others))
    }

    /// Information about context and device.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Why a case that needs a second context cannot run; `None` if it can.
    pub fn lacks_contexts(&self) -> Option<Verdict> {
        let reason = "the device has one context only (-device svm-demo,contexts=N)";
        (self.info().contexts < 2).then(|| Verdict::Skipped(reason.to_owned()))
    }

    /// The bench's queue.
    ///
    /// # Panics
    ///
    /// If the case has closed it.
    pub fn queue(&mut self) -> &mut Queue {
        // A case that closes the queue does not use it.
        self.queue.as_mut().expect("the case has closed the queue")
    }

    /// The device file.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Opens the device once more and starts a queue.
    ///
    /// # Errors
    ///
    /// Those of opening and starting.
    pub fn open_queue(&self, entries: u32) -> Result<Queue, Error> {
        start(&self.open, entries)
    }

    /// Adds the counts of another queue of the case.
    ///
    /// # Errors
    ///
    /// Those of reading its counters.
    pub fn add_counters(&mut self, queue: &Queue) -> anyhow::Result<()> {
        self.others = self.others.plus(&queue.counters()?);
        Ok(())
    }

    /// Runs `work` and returns the counts of the bench's queue meanwhile.
    ///
    /// # Errors
    ///
    /// Those of `work`, and of reading the counters.
    pub fn count<T>(
        &mut self,
        work: impl FnOnce(&mut Bench) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Counted)> {
        let before = self.queue().counters()?;
        let result = work(self)?;
        let change = self.queue().counters()?.since(&before);
        let translates = self.info().atc_entries > 0;
        Ok((result, Counted { change, translates }))
    }

    /// Fills part of a region.
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`].
    pub fn fill(&mut self, to: &Region, range: Range<usize>, pattern: u64) -> Result<(), Error> {
        let fill = Descriptor::fill(to.at(range.start), range.len() as u64, pattern);
        // SAFETY: a region is accessed by atomic accesses alone, and lives as long as the call.
        unsafe { self.queue().execute(&fill) }.map(drop)
    }

    /// Copies `length` bytes from one region to another, each with an offset.
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`].
    pub fn copy(
        &mut self,
        (from, from_offset): (&Region, usize),
        (to, to_offset): (&Region, usize),
        length: usize,
    ) -> Result<(), Error> {
        let copy = Descriptor::copy(from.at(from_offset), to.at(to_offset), length as u64);
        // SAFETY: as for `fill`.
        unsafe { self.queue().execute(&copy) }.map(drop)
    }

    /// The checksum of part of a region.
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`].
    pub fn crc32c(&mut self, from: &Region, range: Range<usize>) -> Result<u32, Error> {
        let crc = Descriptor::crc32c(from.at(range.start), range.len() as u64, 0);
        // SAFETY: as for `fill`.
        unsafe { self.queue().execute(&crc) }.map(|record| record.result as u32)
    }
}

fn start(open: &Open, entries: u32) -> Result<Queue, Error> {
    let mut queue = open()?.start(entries)?;
    queue.set_time_limit(Some(TIME_LIMIT));
    Ok(queue)
}

/// The counts during a part of a case.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    change: Counters,
    /// The device translates addresses. A software model, in a test of this program, does not.
    translates: bool,
}

impl Counted {
    /// The change of one counter.
    pub fn get(&self, index: usize) -> u64 {
        self.change.get(index)
    }

    /// Checks that a counter of translations, page requests or invalidations has risen by at
    /// least `least`.
    ///
    /// # Errors
    ///
    /// It has not.
    pub fn at_least(&self, index: usize, least: u64) -> anyhow::Result<()> {
        let (count, key) = (self.get(index), key(index));
        ensure!(
            count >= least || !self.translates,
            "{key}: {count} counted, at least {least} expected"
        );
        Ok(())
    }

    /// Checks that such a counter has risen by no more than `most`.
    ///
    /// # Errors
    ///
    /// It has.
    pub fn at_most(&self, index: usize, most: u64) -> anyhow::Result<()> {
        let (count, key) = (self.get(index), key(index));
        ensure!(
            count <= most,
            "{key}: {count} counted, at most {most} expected"
        );
        Ok(())
    }
}

fn key(index: usize) -> &'static str {
    let mut counters = svmctl::abi::counters::COUNTERS.iter();
    counters
        .find(|counter| counter.index == index)
        .map_or("counter", |counter| counter.key)
}

/// The failure with which an operation must have ended.
///
/// # Errors
///
/// It succeeded, or something else went wrong.
pub fn failure<T: fmt::Debug>(result: Result<T, Error>) -> anyhow::Result<Failure> {
    match result {
        Err(Error::Failed(failure)) => Ok(failure),
        Err(other) => Err(anyhow!(other).context("a failure of the operation was expected")),
        Ok(value) => bail!("the operation succeeded with {value:?}, a failure was expected"),
    }
}

/// Checks that an operation failed because of the page at `address`.
///
/// # Errors
///
/// It did not.
pub fn expect_fault<T: fmt::Debug>(
    result: Result<T, Error>,
    write: bool,
    address: u64,
) -> anyhow::Result<Failure> {
    let failure = failure(result)?;
    ensure!(
        failure.error() == Some(completion::Error::PageFault)
            && failure.write == write
            && failure.address == address,
        "a page fault was expected, {} at {address:#x}; it was: {failure}",
        if write { "write" } else { "read" }
    );
    Ok(failure)
}

/// Checks that a record says success.
///
/// # Errors
///
/// It does not.
pub fn expect_success(record: &Completion) -> anyhow::Result<()> {
    match Failure::of(record) {
        None => Ok(()),
        Some(failure) => Err(anyhow!(failure)),
    }
}

/// Checks that two ranges of bytes are equal, and names the first difference.
///
/// # Errors
///
/// They are not.
pub fn expect_bytes(what: &str, found: &[u8], expected: &[u8]) -> anyhow::Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} bytes, {} expected",
        found.len(),
        expected.len()
    );
    match found.iter().zip(expected).position(|(f, e)| f != e) {
        None => Ok(()),
        Some(at) => bail!(
            "{what}: byte {at} is {:#04x}, {:#04x} was expected",
            found[at],
            expected[at]
        ),
    }
}

/// Bytes that differ by position, by page and by `seed`.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    // Knuth's MMIX generator: no two pages are alike.
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
