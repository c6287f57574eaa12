// SPDX-License-Identifier: MIT OR Apache-2.0
//! One context under load. A worker chooses random work, computes the expected results, lets the
//! device do the work, and compares every record and every written byte.
//!
//! The same random numbers give the same load: the work depends only on the generator.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use svmctl::abi::completion::{self, Completion};
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::{Operation, gather, translation};
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Batch, Descriptor, Failure, GatherEntry, Queue, Ticket};

use super::progress::Progress;
use super::storm::{Change, Prey, Storm};
use crate::mix::{Kind, Mix};
use svm_cases::harness::random::Random;

/// Areas of memory of a worker.
const AREAS: usize = 4;
/// A round in this many has a storm.
const STORMS: u64 = 4;
/// No descriptor takes this long unless the device has stopped working.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rounds between two checks of all memory.
const FULL_CHECK: u64 = 64;
/// Most entries of a batch, ranges of a gather and nodes of a chain.
const BATCH: usize = 8;
const RANGES: usize = 4;
const NODES: usize = 32;
/// Bytes of a node: the next node's address, and a number.
const NODE: usize = 16;
/// Most bytes of an operation, except for one in sixteen.
const USUAL: usize = 32 << 10;
/// For a number to which both the device and the processor add: the processor's additions between
/// two checks of a record, and the number of checks.
const ADDITIONS: u64 = 16;
const CONTENTION: u32 = 128;
/// An address at which nothing is ever mapped: below the lowest address of `mmap`.
const NOWHERE: usize = 0x1000;

/// Memory and its expected content.
struct Area {
    region: Region,
    shadow: Vec<u8>,
}

/// Expected outcome of a descriptor.
enum Expected {
    /// Success, with this result if one is expected.
    Success(Option<u64>),
    /// A failure because of the page at this address.
    Fault(u64),
    /// Success for each entry.
    Batch(Vec<Expected>),
    /// A translation, granted or refused.
    Translation,
}

/// The work chosen for one descriptor.
struct Task {
    kind: Kind,
    descriptor: Descriptor,
    expected: Expected,
    /// Index of the batch among those of the worker.
    batch: usize,
}

/// A range of an area.
#[derive(Clone, Copy, Debug)]
struct Place {
    area: usize,
    start: usize,
    length: usize,
}

/// A number to which the device and the processor add at the same time.
struct Tally {
    region: Region,
    /// Its expected value when nothing is in flight.
    expected: u64,
    /// A descriptor of the round adds to it.
    contended: bool,
}

/// A worker.
pub struct Worker {
    queue: Queue,
    random: Random,
    mix: Mix,
    pressure: bool,
    depth: usize,
    longest: usize,
    areas: Vec<Area>,
    /// Lists of ranges and chains of nodes, rebuilt in every round.
    scratch: Region,
    scratch_used: usize,
    batches: Vec<Batch>,
    /// The ranges to which the descriptors of the round write.
    written: Vec<Place>,
    tally: Tally,
    /// The memory that is taken away under the device, if it can fill.
    prey: Option<Prey>,
    storms: Vec<Change>,
    round: u64,
    /// The work done so far.
    pub progress: Progress,
}

/// The settings of a worker, apart from its queue.
#[derive(Clone, Debug)]
pub struct Load {
    /// The operations.
    pub mix: Mix,
    /// Bytes of memory.
    pub memory: usize,
    /// Most descriptors in flight.
    pub depth: usize,
    /// Whether memory is dropped and moved.
    pub pressure: bool,
    /// What happens to memory under a fill, if there is pressure.
    pub storms: Vec<Change>,
}

impl Worker {
    /// A worker on a queue.
    pub fn new(queue: Queue, load: &Load, random: Random) -> anyhow::Result<Worker> {
        let mix = load.mix.of_device(queue.info().operations);
        let mix = mix.context("the device performs none of the operations of the mix")?;
        let length = (load.memory / AREAS).max(PAGE).next_multiple_of(PAGE);
        let areas = (0..AREAS)
            .map(|_| Area::new(length))
            .collect::<Result<_, _>>()?;
        // A storm has a descriptor, too.
        let depth = load.depth.clamp(1, queue.capacity() - 1);
        let fills = queue.info().operations & 1 << Operation::Fill as u32 != 0;
        let batches = (0..depth)
            .map(|_| Batch::new(BATCH))
            .collect::<Result<_, _>>()?;
        let longest = 1usize
            .checked_shl(queue.info().transfer_log2_max)
            .unwrap_or(usize::MAX);
        // Room for a list or a chain for each entry of each batch.
        let scratch = Region::new(depth * BATCH * NODES * NODE)?;
        Ok(Worker {
            queue,
            random,
            mix,
            pressure: load.pressure,
            depth,
            longest: longest.min(length),
            areas,
            scratch,
            scratch_used: 0,
            batches,
            written: Vec::new(),
            tally: Tally {
                region: Region::new(PAGE)?,
                expected: 0,
                contended: false,
            },
            storms: load.storms.clone(),
            prey: (load.pressure && fills).then(Prey::new).transpose()?,
            round: 0,
            progress: Progress::default(),
        })
    }

    /// Chooses some descriptors, lets the device perform them, and checks all results.
    pub fn round(&mut self) -> anyhow::Result<()> {
        let number = self.round;
        self.try_round()
            .with_context(|| format!("in round {number}"))?;
        self.round += 1;
        Ok(())
    }

    fn try_round(&mut self) -> anyhow::Result<()> {
        if self.pressure && self.random.once_in(4) {
            self.disturb().context("the memory could not be changed")?;
        }
        self.scratch_used = 0;
        self.written.clear();
        self.tally.contended = false;
        let before = self.queue.counters()?;
        let count = 1 + self.random.index(self.depth);
        let mut tasks = Vec::with_capacity(count);
        for n in 0..count {
            let kind = self.mix.draw(&mut self.random);
            tasks.push(self.draw(kind, n)?);
        }
        let mut storm = None;
        if self.prey.is_some() && self.random.once_in(STORMS) {
            let prey = self.prey.take();
            storm = prey.map(|prey| prey.into_storm(&self.storms, &mut self.random));
        }
        let mut tickets = Vec::with_capacity(count);
        for task in &tasks {
            // SAFETY: a descriptor refers to unmapped addresses or to the worker's regions. The
            // regions are accessed only by atomic accesses, and unmapped only when nothing is in
            // flight.
            tickets.push(unsafe { self.queue.push(&task.descriptor) }?);
        }
        let storm = storm.map(|storm| self.storm(storm)).transpose()?;
        self.queue.flush()?;
        if self.pressure {
            self.press()?;
        }
        let deadline = Instant::now() + PATIENCE;
        for (task, ticket) in tasks.iter().zip(&tickets) {
            let record = match self.contend(ticket)? {
                Some(record) => Some(record),
                None => self.queue.wait_until(ticket, Some(deadline))?,
            };
            let record = record.with_context(|| {
                format!("{} has not completed in {PATIENCE:?}", task.kind.key())
            })?;
            self.judge(task, &record)
                .with_context(|| task.kind.key().to_owned())?;
        }
        if let Some((storm, ticket, record)) = storm {
            self.calm(storm, ticket, record).context("a storm")?;
        }
        self.compare(number_is_due(self.round))?;
        self.tally.compare()?;
        let change = self.queue.counters()?.since(&before);
        self.progress.rounds += 1;
        for task in &tasks {
            self.progress.operations[task.kind.index()] += 1;
        }
        let counted = |at| change.get(at);
        self.progress.moved += counted(index::BYTES_READ) + counted(index::BYTES_WRITTEN);
        self.progress.translations += counted(index::TRANSLATION_REQUESTS);
        self.progress.page_requests += counted(index::PAGE_REQUESTS);
        self.progress.invalidations += counted(index::INVALIDATIONS);
        Ok(())
    }

    /// Starts the fill of a storm after the descriptors of the round, and changes its memory. Also
    /// returns the record, if the fill was complete before the change was.
    fn storm(&mut self, storm: Storm) -> anyhow::Result<(Storm, Ticket, Option<Completion>)> {
        // SAFETY: only atomic accesses reach the region. Its addresses stay its own until nothing
        // is in flight, also while other pages are mapped there.
        let ticket = unsafe { self.queue.submit(&storm.descriptor()) }?;
        let change = storm.change;
        let storm = storm
            .strike()
            .with_context(|| format!("memory could not be {}", change.key()))?;
        let record = self.queue.try_wait(&ticket)?;
        self.progress.storms[change.index()] += 1;
        self.progress.storms_in_flight += u64::from(record.is_none());
        Ok((storm, ticket, record))
    }

    /// Waits for the fill of a storm, and checks it, and another one after it.
    fn calm(
        &mut self,
        storm: Storm,
        ticket: Ticket,
        record: Option<Completion>,
    ) -> anyhow::Result<()> {
        let record = match record {
            Some(record) => record,
            None => self.record(&ticket)?,
        };
        let calm = storm.judge(&record)?;
        // SAFETY: as in `storm`.
        let ticket = unsafe { self.queue.submit(&calm.descriptor()) }?;
        let record = self.record(&ticket)?;
        self.prey = Some(calm.settle(&record).context("afterwards")?);
        Ok(())
    }

    /// Waits for the record of a fill.
    fn record(&mut self, ticket: &Ticket) -> anyhow::Result<Completion> {
        let deadline = Instant::now() + PATIENCE;
        let record = self.queue.wait_until(ticket, Some(deadline))?;
        record.with_context(|| format!("fill has not completed in {PATIENCE:?}"))
    }

    /// Chooses a descriptor of a kind, and changes the shadows as the descriptor will change the
    /// memory.
    fn draw(&mut self, kind: Kind, n: usize) -> anyhow::Result<Task> {
        let (descriptor, expected) = match kind {
            Kind::Fault => self.fault(),
            Kind::Operation(Operation::Batch) => {
                let count = 1 + self.random.index(BATCH);
                let (mut entries, mut expected) = (Vec::new(), Vec::new());
                for _ in 0..count {
                    let (entry, expect) = match self.mix.draw(&mut self.random) {
                        Kind::Fault | Kind::Operation(Operation::Batch) => {
                            (Descriptor::nop(), Expected::Success(None))
                        }
                        Kind::Operation(operation) => self.operation(operation),
                    };
                    entries.push(entry);
                    expected.push(expect);
                }
                self.batches[n].set(&entries)?;
                (self.batches[n].descriptor(), Expected::Batch(expected))
            }
            Kind::Operation(operation) => self.operation(operation),
        };
        Ok(Task {
            kind,
            descriptor: if self.random.once_in(8) {
                descriptor.fenced()
            } else {
                descriptor
            },
            expected,
            batch: n,
        })
    }

    fn fault(&mut self) -> (Descriptor, Expected) {
        let to = self.place();
        let from = std::ptr::without_provenance(NOWHERE + self.random.index(64) * 8);
        let copy = Descriptor::copy(from, self.at(to), to.length as u64);
        (copy, Expected::Fault(NOWHERE as u64))
    }

    fn operation(&mut self, operation: Operation) -> (Descriptor, Expected) {
        let done = Expected::Success(None);
        let result = |result: u64| Expected::Success(Some(result));
        match operation {
            Operation::Nop | Operation::Batch => (Descriptor::nop(), done),
            Operation::Drain => (Descriptor::drain(), done),
            Operation::Copy => {
                let from = self.place();
                let to = self.place_of(from.length);
                let data = self.shadow(from).to_vec();
                self.shadow_mut(to).copy_from_slice(&data);
                let copy = Descriptor::copy(self.at(from), self.at(to), from.length as u64);
                (copy, done)
            }
            Operation::Fill => {
                let to = self.place();
                let pattern = self.random.next_u64();
                let bytes = pattern.to_le_bytes();
                let shadow = self.shadow_mut(to);
                shadow
                    .iter_mut()
                    .zip(bytes.iter().cycle())
                    .for_each(|(to, from)| *to = *from);
                (
                    Descriptor::fill(self.at(to), to.length as u64, pattern),
                    done,
                )
            }
            Operation::Compare => {
                let left = self.place();
                let right = self.place_of(left.length);
                let (l, r) = (self.shadow(left), self.shadow(right));
                let same = l.iter().zip(r).take_while(|(l, r)| l == r).count();
                let compare =
                    Descriptor::compare(self.at(left), self.at(right), left.length as u64);
                (compare, result(same as u64))
            }
            Operation::Crc32c => {
                let from = self.place();
                let seed = self.random.next_u64() as u32;
                let sum = crc32c::crc32c_append(seed, self.shadow(from));
                let crc = Descriptor::crc32c(self.at(from), from.length as u64, seed);
                (crc, result(sum.into()))
            }
            Operation::FetchAdd if self.random.once_in(2) => {
                let addend = self.random.next_u64();
                self.tally.contended = true;
                self.tally.expected = self.tally.expected.wrapping_add(addend);
                (
                    Descriptor::fetch_add(self.tally.region.at(0).cast(), addend),
                    done,
                )
            }
            Operation::FetchAdd => {
                let (place, before) = self.number();
                let addend = self.random.next_u64();
                self.store(place, before.wrapping_add(addend));
                (
                    Descriptor::fetch_add(self.at(place).cast(), addend),
                    result(before),
                )
            }
            Operation::CompareSwap => {
                let (place, before) = self.number();
                let new = self.random.next_u64();
                let fits = self.random.once_in(2);
                let expected = if fits { before } else { self.random.next_u64() };
                if expected == before {
                    self.store(place, new);
                }
                let swap = Descriptor::compare_swap(self.at(place).cast(), expected, new);
                (swap, result(before))
            }
            Operation::Gather => self.gather(),
            Operation::Chase => self.chase(),
            Operation::Prefetch => {
                let place = self.place();
                let write = self.random.once_in(2);
                (
                    Descriptor::prefetch(self.at(place), place.length as u64, write),
                    done,
                )
            }
            Operation::Translate => {
                let place = self.place();
                let write = self.random.once_in(2);
                (
                    Descriptor::translate(self.at(place), write),
                    Expected::Translation,
                )
            }
            Operation::CacheControl => {
                let place = self.place();
                let forget = match self.random.once_in(2) {
                    true => Descriptor::forget(self.at(place), place.length as u64),
                    false => Descriptor::forget_all(),
                };
                (forget, done)
            }
        }
    }

    /// A gather from ranges of all areas but one, to that one.
    fn gather(&mut self) -> (Descriptor, Expected) {
        let target = self.random.index(AREAS);
        let mut data = Vec::new();
        let mut ranges = Vec::new();
        for _ in 0..1 + self.random.index(RANGES) {
            let mut from = self.place();
            if from.area == target {
                from.area = (target + 1) % AREAS;
            }
            if data.len() + from.length > self.longest {
                break;
            }
            data.extend_from_slice(self.shadow(from));
            ranges.push(GatherEntry::new(self.at(from), from.length as u64));
        }
        let to = Place {
            area: target,
            start: self
                .random
                .index(self.areas[target].shadow.len() - data.len() + 1),
            length: data.len(),
        };
        self.shadow_mut(to).copy_from_slice(&data);
        let list = self.take_scratch(ranges.len() * gather::ENTRY_SIZE as usize);
        for (n, range) in ranges.iter().enumerate() {
            let at = list + n * gather::ENTRY_SIZE as usize;
            self.scratch.write(at, &range.to_bytes());
        }
        let list = self.scratch.at(list).cast_const().cast();
        let (count, room) = (ranges.len() as u64, data.len() as u64);
        let gather = Descriptor::gather(list, count, self.at(to), room);
        (gather, Expected::Success(Some(room)))
    }

    /// A chase along a chain of nodes in random order.
    fn chase(&mut self) -> (Descriptor, Expected) {
        let count = 1 + self.random.index(NODES);
        let base = self.take_scratch(count * NODE);
        let mut order: Vec<usize> = (0..count).collect();
        for n in (1..count).rev() {
            order.swap(n, self.random.index(n + 1));
        }
        let mut sum = 0u64;
        for (n, node) in order.iter().enumerate() {
            let next = order.get(n + 1);
            let next = next.map_or(0, |next| self.scratch.address(base + next * NODE));
            let value = self.random.next_u64();
            sum = sum.wrapping_add(value);
            let words = &self.scratch.words()[(base + node * NODE) / 8..];
            words[0].store(next, Ordering::Relaxed);
            words[1].store(value, Ordering::Relaxed);
        }
        let head = self.scratch.at(base + order[0] * NODE);
        let chase = Descriptor::chase(head, 0, 8, count as u64);
        (chase, Expected::Success(Some(sum)))
    }

    fn take_scratch(&mut self, length: usize) -> usize {
        let at = self.scratch_used;
        self.scratch_used += length.next_multiple_of(NODE);
        at
    }

    /// A range of at least one byte.
    fn place(&mut self) -> Place {
        let most = if self.random.once_in(16) {
            self.longest
        } else {
            USUAL
        };
        let length = 1 + self.random.index(most.min(self.longest));
        self.place_of(length)
    }

    fn place_of(&mut self, length: usize) -> Place {
        let area = self.random.index(AREAS);
        let room = self.areas[area].shadow.len() - length;
        Place {
            area,
            start: self.random.index(room + 1),
            length,
        }
    }

    /// The place of an aligned number, and its value.
    fn number(&mut self) -> (Place, u64) {
        let mut place = self.place_of(8);
        place.start &= !7;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.shadow(place));
        (place, u64::from_le_bytes(bytes))
    }

    fn store(&mut self, place: Place, number: u64) {
        self.shadow_mut(place)
            .copy_from_slice(&number.to_le_bytes());
    }

    fn at(&self, place: Place) -> *mut u8 {
        self.areas[place.area].region.at(place.start)
    }

    fn shadow(&self, place: Place) -> &[u8] {
        &self.areas[place.area].shadow[place.start..place.start + place.length]
    }

    fn shadow_mut(&mut self, place: Place) -> &mut [u8] {
        self.written.push(place);
        &mut self.areas[place.area].shadow[place.start..place.start + place.length]
    }

    fn judge(&self, task: &Task, record: &Completion) -> anyhow::Result<()> {
        match &task.expected {
            Expected::Batch(entries) => {
                for (n, expected) in entries.iter().enumerate() {
                    let record = self.batches[task.batch]
                        .record(n)
                        .with_context(|| format!("entry {n} has no record"))?;
                    judge(expected, &record).with_context(|| format!("entry {n}"))?;
                }
                // A translation may be refused, and then counts as a failure of the batch.
                let refused = entries
                    .iter()
                    .any(|entry| matches!(entry, Expected::Translation));
                let expected = Expected::Success(Some(entries.len() as u64));
                if refused {
                    Ok(())
                } else {
                    judge(&expected, record)
                }
            }
            expected => judge(expected, record),
        }
    }

    /// Compares the written ranges, or all memory, with the expected content.
    fn compare(&mut self, all: bool) -> anyhow::Result<()> {
        let places: Vec<Place> = if all {
            let whole = |area: usize| Place {
                area,
                start: 0,
                length: self.areas[area].shadow.len(),
            };
            (0..AREAS).map(whole).collect()
        } else {
            std::mem::take(&mut self.written)
        };
        for place in places {
            self.progress.compared += place.length as u64;
            self.areas[place.area]
                .compare(place.start..place.start + place.length)
                .with_context(|| format!("area {}", place.area))?;
        }
        Ok(())
    }

    /// Compares everything once more and ends.
    pub fn finish(mut self) -> anyhow::Result<Progress> {
        self.compare(true).context("at the end")?;
        self.queue.stop()?;
        Ok(self.progress)
    }

    /// If a descriptor of the round adds to the tally, adds to it, too: until the descriptor of
    /// this ticket has completed, or a limited number of times. Returns its record if it has
    /// completed.
    fn contend(&mut self, ticket: &Ticket) -> anyhow::Result<Option<Completion>> {
        if !self.tally.contended {
            return Ok(None);
        }
        for _ in 0..CONTENTION {
            self.tally.add(ADDITIONS);
            if let Some(record) = self.queue.try_wait(ticket)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Changes the memory while nothing is in flight.
    fn disturb(&mut self) -> anyhow::Result<()> {
        let n = self.random.index(AREAS);
        let area = &mut self.areas[n];
        match self.random.index(5) {
            0 => {
                area.region.advise(Advice::DontNeed)?;
                area.shadow.fill(0);
            }
            1 => area.region.advise(Advice::PageOut)?,
            2 => area.region.advise(Advice::HugePage)?,
            3 => area.region.advise(Advice::NoHugePage)?,
            _ => *area = Area::new(area.shadow.len())?,
        }
        self.progress.disturbances += 1;
        Ok(())
    }

    /// Changes the memory while the device works on it, in ways that keep its content.
    fn press(&mut self) -> anyhow::Result<()> {
        let n = self.random.index(AREAS);
        let advice = match self.random.index(8) {
            0 => Advice::PageOut,
            1 => Advice::HugePage,
            2 => Advice::NoHugePage,
            _ => return Ok(()),
        };
        self.progress.disturbances += 1;
        Ok(self.areas[n].region.advise(advice)?)
    }
}

fn number_is_due(round: u64) -> bool {
    round % FULL_CHECK == FULL_CHECK - 1
}

fn judge(expected: &Expected, record: &Completion) -> anyhow::Result<()> {
    let failure = Failure::of(record);
    match (expected, failure) {
        (Expected::Success(None), None) => Ok(()),
        (Expected::Success(Some(result)), None) => {
            let found = record.result;
            ensure!(
                found == *result,
                "the result is {found:#x}, {result:#x} was expected"
            );
            Ok(())
        }
        (Expected::Success(_), Some(failure)) => Err(anyhow!(failure)),
        (Expected::Fault(page), Some(failure)) => {
            let same = failure.error() == Some(completion::Error::PageFault)
                && failure.address & !(PAGE as u64 - 1) == *page
                && !failure.write;
            ensure!(
                same,
                "a page fault at {page:#x} was expected; it was: {failure}"
            );
            Ok(())
        }
        (Expected::Fault(page), None) => bail!("it succeeded; a page fault at {page:#x} was due"),
        (Expected::Translation, None) => {
            let size = record.result & translation::SIZE;
            ensure!((12..=30).contains(&size), "a translation of 2^{size} bytes");
            Ok(())
        }
        (Expected::Translation, Some(failure)) => {
            let absent = failure.error() == Some(completion::Error::NotPresent);
            ensure!(absent, "{failure}");
            Ok(())
        }
        (Expected::Batch(_), _) => bail!("a batch in a batch"),
    }
}

impl Tally {
    /// Adds to the number `times` times.
    fn add(&mut self, times: u64) {
        for _ in 0..times {
            self.region.words()[0].fetch_add(1, Ordering::Relaxed);
        }
        self.expected = self.expected.wrapping_add(times);
    }

    /// Checks that no addition was lost.
    fn compare(&self) -> anyhow::Result<()> {
        let found = self.region.words()[0].load(Ordering::Relaxed);
        ensure!(
            found == self.expected,
            "device and processor have added to a number at the same time: it is {found:#x}, and \
             {:#x} was expected",
            self.expected
        );
        Ok(())
    }
}

impl Area {
    fn new(length: usize) -> anyhow::Result<Area> {
        Ok(Area {
            region: Region::new(length)?,
            shadow: vec![0; length],
        })
    }

    /// Compares a range, widened to whole words.
    fn compare(&self, range: std::ops::Range<usize>) -> anyhow::Result<()> {
        let words = range.start / 8..range.end.div_ceil(8);
        let memory = &self.region.words()[words.clone()];
        let shadow = self.shadow[words.start * 8..words.end * 8].chunks_exact(8);
        for (n, (word, expected)) in memory.iter().zip(shadow).enumerate() {
            let found = word.load(Ordering::Relaxed).to_le_bytes();
            if found != expected {
                let at = (words.start + n) * 8;
                bail!(
                    "offset {at:#x}, address {:#x}: {found:02x?} found, {expected:02x?} expected",
                    self.region.address(at)
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use svmctl::Context;
    use svmctl::model::{Model, Mutant};

    fn worker(mutant: Option<Mutant>, seed: u64) -> Worker {
        worker_with(Mix::default(), 256 << 10, mutant, seed)
    }

    fn worker_with(mix: Mix, memory: usize, mutant: Option<Mutant>, seed: u64) -> Worker {
        let model = Model::with_mutant(mutant).unwrap();
        let queue = Context::with_file(Box::new(model))
            .unwrap()
            .start(16)
            .unwrap();
        let load = Load {
            mix,
            memory,
            depth: 8,
            pressure: true,
            storms: Change::ALL.to_vec(),
        };
        Worker::new(queue, &load, Random::new(seed)).unwrap()
    }

    #[test]
    fn a_device_that_keeps_the_rules_passes() {
        let mut worker = worker(None, 7);
        for _ in 0..150 {
            worker.round().unwrap();
        }
        let progress = worker.finish().unwrap();
        assert_eq!(progress.rounds, 150);
        // Every kind occurred except translations, which the model does not have.
        for kind in Kind::all().filter(|kind| *kind != Kind::Operation(Operation::Translate)) {
            assert!(progress.operations[kind.index()] > 0, "{}", kind.key());
        }
        assert!(progress.disturbances > 0 && progress.compared > 1 << 20);
        assert!(
            progress.storms.iter().all(|count| *count > 0),
            "{progress:?}"
        );
    }

    #[test]
    fn a_device_that_breaks_a_rule_is_noticed() {
        for mutant in [
            Mutant::LastByteMissing,
            Mutant::OneByteTooMany,
            Mutant::WrongFaultAddress,
            Mutant::FaultsHidden,
            Mutant::FailureSpreads,
            Mutant::WrongResult,
        ] {
            let mut worker = worker(Some(mutant), 7);
            let error = (0..300).find_map(|_| worker.round().err());
            assert!(error.is_some(), "{mutant:?} was not noticed");
        }
    }

    #[test]
    fn additions_that_are_not_atomic_are_noticed() {
        let mix: Mix = "fetch_add".parse().unwrap();
        let mut worker = worker_with(mix, 256 << 10, Some(Mutant::TornFetchAdd), 7);
        let error = (0..10_000).find_map(|_| worker.round().err());
        let error = format!("{:#}", error.expect("it was not noticed"));
        assert!(error.contains("at the same time"), "{error}");
    }

    #[test]
    fn copies_that_run_over_themselves_are_noticed() {
        // The model performs these byte by byte.
        let mix: Mix = "copy,fill".parse().unwrap();
        let mut worker = worker_with(mix, 16 << 10, Some(Mutant::CopiesForwards), 7);
        assert!((0..100).any(|_| worker.round().is_err()));
    }

    #[test]
    fn the_same_seed_gives_the_same_load() {
        let done = |seed| {
            let mut worker = worker(None, seed);
            for _ in 0..20 {
                worker.round().unwrap();
            }
            let progress = worker.finish().unwrap();
            (progress.operations, progress.compared)
        };
        assert_eq!(done(3), done(3));
        assert_ne!(done(3), done(4));
    }
}
