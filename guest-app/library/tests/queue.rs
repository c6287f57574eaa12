// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library with a software model of the device: operations, tickets, the ring's wrap, waiting.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use svmctl::abi::completion::Error as DeviceError;
use svmctl::abi::registers::{halt, lost, status};
use svmctl::abi::{doorbell, ioctl};
use svmctl::device::DeviceFile;
use svmctl::model::{Model, TRANSFER_LOG2};
use svmctl::region::{PAGE, Region};
use svmctl::{Batch, Context, Descriptor, Error, Failure, Halt, Queue, State};

fn queue(entries: u32) -> Queue {
    let context = Context::with_file(Box::new(Model::new().unwrap())).unwrap();
    context.start(entries).unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn failure(result: Result<impl std::fmt::Debug, Error>) -> Failure {
    match result.unwrap_err() {
        Error::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn operations_do_what_their_names_say() {
    let mut queue = queue(4);
    let data = bytes(10_000);
    let mut copy = vec![0; data.len()];
    queue.nop().unwrap();
    queue.copy(&data, &mut copy).unwrap();
    assert_eq!(copy, data);
    assert_eq!(queue.crc32c(&data, 0).unwrap(), crc32c::crc32c(&data));
    assert_eq!(queue.compare(&data, &copy).unwrap(), None);
    copy[9_999] ^= 1;
    assert_eq!(queue.compare(&data, &copy).unwrap(), Some(9_999));
    queue.fill(&mut copy[1..14], 0x0807_0605_0403_0201).unwrap();
    assert_eq!(
        copy[..15],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, data[14]]
    );
    let number = AtomicU64::new(u64::MAX);
    assert_eq!(queue.fetch_add(&number, 3).unwrap(), u64::MAX);
    assert_eq!(queue.compare_swap(&number, 7, 9).unwrap(), 2);
    assert_eq!(queue.compare_swap(&number, 2, 9).unwrap(), 2);
    assert_eq!(number.into_inner(), 9);
    let parts: [&[u8]; 4] = [b"one", &[], b"two", &data[..5000]];
    let mut all = vec![0; 6000];
    assert_eq!(queue.gather(&parts, &mut all).unwrap(), 5006);
    assert_eq!(all[..5006], parts.concat());
    assert!(matches!(
        queue.gather(&parts, &mut all[..5005]),
        Err(Error::Argument(_))
    ));
    queue.prefetch(&data).unwrap();
    queue.prefetch_mut(&mut all).unwrap();
    assert_eq!(queue.forget_all().unwrap(), 0);
    // SAFETY: a drain accesses no memory.
    let ticket = unsafe { queue.push(&Descriptor::drain()) }.unwrap();
    queue.wait(ticket).unwrap();
}

#[test]
fn empty_slices_are_no_work() {
    let mut queue = queue(1);
    queue.copy(&[], &mut []).unwrap();
    queue.fill(&mut [], 1).unwrap();
    assert_eq!(queue.crc32c(&[], 5).unwrap(), 5);
    assert_eq!(queue.compare(&[], &[]).unwrap(), None);
    assert_eq!(queue.counters().unwrap().get(0), 0);
}

#[test]
fn long_buffers_take_several_descriptors() {
    let mut queue = queue(2);
    let data = bytes((3 << TRANSFER_LOG2) + 5);
    let mut copy = vec![0; data.len()];
    queue.copy(&data, &mut copy).unwrap();
    assert_eq!(copy, data);
    assert_eq!(queue.crc32c(&data, 0).unwrap(), crc32c::crc32c(&data));
    *copy.last_mut().unwrap() ^= 0x80;
    assert_eq!(queue.compare(&data, &copy).unwrap(), Some(data.len() - 1));
    assert_eq!(queue.counters().unwrap().get(0), 12);
}

#[test]
fn long_overlapping_copies_are_right_in_both_directions() {
    let mut queue = queue(2);
    let len = 2 << TRANSFER_LOG2;
    for (from, to) in [(0, 4099), (4099, 0), (100, 100)] {
        let mut buffer = bytes(len + 5000);
        let mut expected = buffer.clone();
        expected.copy_within(from..from + len, to);
        queue
            .copy_within(&mut buffer, from..from + len, to)
            .unwrap();
        assert!(buffer == expected, "from {from} to {to}");
    }
}

#[test]
fn slices_that_do_not_fit_are_refused() {
    let mut queue = queue(1);
    let mut buffer = [0; 8];
    let results = [
        queue.copy(&[0; 7], &mut buffer),
        queue.compare(&[0; 7], &buffer).map(drop),
        queue.copy_within(&mut buffer, 4..9, 0),
        queue.copy_within(&mut buffer, 0..4, 5),
        queue.copy_within(&mut buffer, 0..4, usize::MAX),
    ];
    for result in results {
        assert!(matches!(result, Err(Error::Argument(_))), "{result:?}");
    }
}

#[test]
fn the_ring_wraps_many_times() {
    let mut queue = queue(4);
    let mut buffer = vec![0u8; 8];
    for n in 0..1000u64 {
        queue.fill(&mut buffer, n).unwrap();
        assert_eq!(buffer, n.to_le_bytes());
    }
}

#[test]
fn a_full_ring_is_an_error_until_the_oldest_ticket_is_waited_for() {
    let mut queue = queue(2);
    // SAFETY: the operation reaches no memory.
    let mut nop = || unsafe { queue.submit(&Descriptor::nop()) };
    let first = nop().unwrap();
    let _second = nop().unwrap();
    assert!(matches!(nop(), Err(Error::Full { oldest: 0 })));
    queue.wait(first).unwrap();
    // SAFETY: as above.
    let third = unsafe { queue.submit(&Descriptor::nop()) }.unwrap();
    assert_eq!(third.number(), 2);
    queue.drain().unwrap();
    assert!(matches!(
        queue.try_wait(&third),
        Err(Error::UnknownTicket(2))
    ));
}

#[test]
fn tickets_may_be_waited_for_in_any_order() {
    let mut queue = queue(8);
    let memory = Region::new(PAGE).unwrap();
    let tickets: Vec<_> = (0..8)
        .map(|n| {
            // SAFETY: the number is in a region, which outlives the queue's work on it.
            unsafe { queue.push(&Descriptor::fetch_add(memory.at(64).cast(), n)) }.unwrap()
        })
        .collect();
    assert_eq!(queue.counters().unwrap().get(0), 0, "before the doorbell");
    let mut before: Vec<u64> = tickets
        .into_iter()
        .rev()
        .map(|ticket| queue.wait(ticket).unwrap().result)
        .collect();
    before.reverse();
    assert_eq!(before, [0, 0, 1, 3, 6, 10, 15, 21]);
}

#[test]
fn a_ticket_of_another_queue_is_unknown() {
    let (mut one, mut other) = (queue(2), queue(2));
    // SAFETY: the operation reaches no memory.
    let ticket = unsafe { one.submit(&Descriptor::nop()) }.unwrap();
    // SAFETY: as above.
    let _own = unsafe { other.submit(&Descriptor::nop()) }.unwrap();
    assert!(matches!(other.wait(ticket), Err(Error::UnknownTicket(0))));
}

#[test]
fn quiet_descriptors_complete_without_an_interrupt() {
    let mut queue = queue(4);
    // SAFETY: the operation reaches no memory.
    let ticket = unsafe { queue.submit(&Descriptor::nop().quiet()) }.unwrap();
    assert_eq!(Failure::of(&queue.wait(ticket).unwrap()), None);
    assert_eq!(queue.wait_interrupts(0, None).unwrap(), 0);
    queue.nop().unwrap();
    assert_eq!(queue.wait_interrupts(1, None).unwrap(), 1);
    let over = Some(Instant::now());
    assert_eq!(queue.wait_interrupts(2, over).unwrap(), 1);
}

#[test]
fn a_bad_address_fails_its_own_descriptor_only() {
    let mut queue = queue(4);
    let memory = Region::new(3 * PAGE).unwrap();
    // The first pages are never mapped because of mmap_min_addr.
    let gone = 0x1000;
    let bad = ptr::without_provenance_mut(gone as usize);
    let descriptors = [
        Descriptor::fill(memory.at(0), 8, 1),
        Descriptor::fill(bad, 8, 2),
        Descriptor::copy(bad, memory.at(16), 8),
        Descriptor::fill(memory.at(8), 8, 3),
    ];
    let tickets = descriptors.map(|descriptor| {
        // SAFETY: the region outlives the work; nothing is mapped at the bad address.
        unsafe { queue.push(&descriptor) }.unwrap()
    });
    let [first, write, read, last] =
        tickets.map(|ticket| Failure::of(&queue.wait(ticket).unwrap()));
    assert_eq!((first, last), (None, None));
    for (failure, is_write) in [(write.unwrap(), true), (read.unwrap(), false)] {
        assert_eq!(failure.error(), Some(DeviceError::PageFault));
        assert_eq!((failure.write, failure.address), (is_write, gone));
    }
    assert_eq!(
        memory.read(0..24)[..16],
        [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn a_failure_says_how_far_it_came() {
    let mut queue = queue(1);
    let mut memory = Region::new(2 * PAGE).unwrap();
    memory.set_read_only(PAGE..2 * PAGE).unwrap();
    // SAFETY: the memory is a region.
    let ticket = unsafe { queue.submit(&Descriptor::fill(memory.at(100), 8000, 1)) }.unwrap();
    let failure = Failure::of(&queue.wait(ticket).unwrap()).unwrap();
    assert_eq!(failure.bytes_done, PAGE as u64 - 100);
    assert_eq!(
        (failure.write, failure.address),
        (true, memory.address(PAGE))
    );
}

#[test]
fn each_bad_descriptor_has_its_own_error() {
    let mut queue = queue(1);
    let memory = Region::new(PAGE).unwrap();
    let at = |offset| memory.at(offset);
    let cases = [
        (
            DeviceError::Misaligned,
            Descriptor::fetch_add(at(4).cast(), 1),
        ),
        (DeviceError::BadLength, Descriptor::fill(at(0), u64::MAX, 1)),
        (DeviceError::ChainTooLong, Descriptor::chase(at(0), 0, 8, 0)),
    ];
    for (expected, descriptor) in cases {
        // SAFETY: the memory is a region.
        let ticket = unsafe { queue.submit(&descriptor) }.unwrap();
        let failure = Failure::of(&queue.wait(ticket).unwrap()).unwrap();
        assert_eq!(failure.error(), Some(expected));
    }
}

#[test]
fn a_chain_is_followed_to_its_end() {
    #[repr(C)]
    struct Node {
        value: u64,
        next: *const Node,
    }
    let mut queue = queue(2);
    let mut nodes: Vec<Box<Node>> = Vec::new();
    for value in 1..=100 {
        let next = nodes.last().map_or(ptr::null(), |node| &raw const **node);
        nodes.push(Box::new(Node { value, next }));
    }
    let head: *const Node = &raw const **nodes.last().unwrap();
    let (next, value) = (
        std::mem::offset_of!(Node, next),
        std::mem::offset_of!(Node, value),
    );
    // SAFETY: the nodes live and do not change.
    let result = unsafe { queue.chase(head, next, value, 100) }.unwrap();
    assert_eq!(result, (5050, 100));
    // SAFETY: as above.
    let short = failure(unsafe { queue.chase(head, next, value, 99) });
    assert_eq!(short.error(), Some(DeviceError::ChainTooLong));
}

#[test]
fn a_stopped_queue_refuses_work_and_starts_again() {
    let mut queue = queue(2);
    queue.nop().unwrap();
    queue.stop().unwrap();
    assert_eq!(queue.state().unwrap(), State::Disabled);
    assert!(matches!(queue.nop(), Err(Error::Stopped)));
    queue.restart().unwrap();
    queue.nop().unwrap();
    assert_eq!(queue.counters().unwrap().get(0), 1);
}

/// A model that receives no doorbell until it is released.
struct Held {
    model: Model,
    tail: AtomicU64,
    go: Arc<AtomicBool>,
}

impl Held {
    fn tell(&self) {
        if self.go.load(Ordering::Relaxed) {
            let tail = self.tail.load(Ordering::Relaxed);
            // SAFETY: the queue has written this tail itself.
            unsafe { self.model.write_tail(tail) };
        }
    }
}

// SAFETY: as for the model, which receives each doorbell later.
unsafe impl DeviceFile for Held {
    fn info(&self) -> io::Result<ioctl::Info> {
        self.model.info()
    }
    unsafe fn queue_setup(&mut self, queue: &ioctl::Queue) -> io::Result<()> {
        // SAFETY: passed on.
        unsafe { self.model.queue_setup(queue) }
    }
    fn queue_stop(&mut self) -> io::Result<()> {
        self.model.queue_stop()
    }
    fn read_doorbell(&self, offset: u64) -> u64 {
        self.tell();
        self.model.read_doorbell(offset)
    }
    unsafe fn write_tail(&self, tail: u64) {
        self.tail.store(tail, Ordering::Relaxed);
        self.tell();
    }
    fn interrupts(&self) -> BorrowedFd<'_> {
        self.tell();
        self.model.interrupts()
    }
}

#[test]
fn a_deadline_that_has_passed_gives_none_and_the_ticket_stays_good() {
    let go = Arc::new(AtomicBool::new(false));
    let file = Held {
        model: Model::new().unwrap(),
        tail: AtomicU64::new(0),
        go: go.clone(),
    };
    let mut queue = Context::with_file(Box::new(file))
        .unwrap()
        .start(2)
        .unwrap();
    // SAFETY: the operation reaches no memory.
    let ticket = unsafe { queue.submit(&Descriptor::nop()) }.unwrap();
    // The device cannot have done the work.
    let deadline = Some(Instant::now());
    assert!(queue.wait_until(&ticket, deadline).unwrap().is_none());
    go.store(true, Ordering::Relaxed);
    queue.wait(ticket).unwrap();

    // Completed work is also returned after the deadline: records arrive in order, without an
    // interrupt.
    let batch = [Descriptor::nop(), Descriptor::nop()];
    // SAFETY: as above.
    let [first, second] = batch.map(|nop| unsafe { queue.push(&nop) }.unwrap());
    queue.flush().unwrap();
    queue.wait(second).unwrap();
    assert!(queue.wait_until(&first, deadline).unwrap().is_some());
}

#[test]
fn a_generous_time_limit_changes_nothing() {
    let mut queue = queue(2);
    queue.set_time_limit(Some(Duration::MAX));
    queue.nop().unwrap();
    queue.set_time_limit(Some(Duration::from_secs(600)));
    queue.nop().unwrap();
}

#[test]
fn a_ring_has_a_power_of_two_of_descriptors() {
    for entries in [0, 3, 1 << 11, 1 << 31] {
        let context = Context::with_file(Box::new(Model::new().unwrap())).unwrap();
        let error = context.start(entries).unwrap_err();
        assert!(
            matches!(error, Error::Capacity { requested, max: 1024 } if requested == entries),
            "{error:?}"
        );
    }
}

#[test]
fn a_file_that_is_no_device_is_refused_with_advice() {
    let error = Context::open("/dev/null").unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");
    let error = Context::open("/dev/svm-of-nobody").unwrap_err().to_string();
    assert!(error.contains("modprobe svm_demo"), "{error}");
}

/// A model whose HEAD lags behind the records: each value appears only at the second read. A tail
/// that is more than a ring ahead of the HEAD read fails the test.
struct LateHead {
    model: Model,
    seen: AtomicU64,
    entries: u64,
}

// SAFETY: as for the model, whose HEAD is never behind the returned one.
unsafe impl DeviceFile for LateHead {
    fn info(&self) -> io::Result<ioctl::Info> {
        self.model.info()
    }
    unsafe fn queue_setup(&mut self, queue: &ioctl::Queue) -> io::Result<()> {
        // SAFETY: passed on.
        unsafe { self.model.queue_setup(queue) }
    }
    fn queue_stop(&mut self) -> io::Result<()> {
        self.model.queue_stop()
    }
    fn read_doorbell(&self, offset: u64) -> u64 {
        let value = self.model.read_doorbell(offset);
        match offset {
            doorbell::HEAD => self.seen.swap(value, Ordering::Relaxed),
            _ => value,
        }
    }
    unsafe fn write_tail(&self, tail: u64) {
        let seen = self.seen.load(Ordering::Relaxed);
        assert!(
            tail - seen <= self.entries,
            "tail {tail} is more than {} ahead of HEAD {seen}",
            self.entries
        );
        // SAFETY: passed on.
        unsafe { self.model.write_tail(tail) }
    }
    fn interrupts(&self) -> BorrowedFd<'_> {
        self.model.interrupts()
    }
}

#[test]
fn a_place_in_the_ring_is_used_again_when_head_has_passed_it() {
    let entries = 4;
    let file = LateHead {
        model: Model::new().unwrap(),
        seen: AtomicU64::new(0),
        entries: entries.into(),
    };
    let mut queue = Context::with_file(Box::new(file))
        .unwrap()
        .start(entries)
        .unwrap();
    for _ in 0..20 {
        queue.nop().unwrap();
    }
}

/// A device that consumes descriptors at once and loses the record of each.
struct Forgetful {
    model: Model,
    head: AtomicU64,
    /// Readable, as `poll` of a context that has lost a record.
    told: std::os::fd::OwnedFd,
}

// SAFETY: it accesses no memory at all.
unsafe impl DeviceFile for Forgetful {
    fn info(&self) -> io::Result<ioctl::Info> {
        self.model.info()
    }
    unsafe fn queue_setup(&mut self, _queue: &ioctl::Queue) -> io::Result<()> {
        Ok(())
    }
    fn queue_stop(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn read_doorbell(&self, offset: u64) -> u64 {
        let head = self.head.load(Ordering::SeqCst);
        match offset {
            doorbell::HEAD => head,
            doorbell::STATUS => status::ENABLED.into(),
            doorbell::LOST => lost::encode(DeviceError::PageFault as u8, head - 1),
            _ => 0,
        }
    }
    unsafe fn write_tail(&self, tail: u64) {
        self.head.store(tail, Ordering::SeqCst);
    }
    fn interrupts(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

#[test]
fn a_record_that_was_lost_is_told() {
    for quiet in [false, true] {
        let (told, _writer) = io::pipe().unwrap();
        let file = Forgetful {
            model: Model::new().unwrap(),
            head: AtomicU64::new(0),
            told: told.into(),
        };
        nix::fcntl::fcntl(
            &file.told,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .unwrap();
        let mut queue = Context::with_file(Box::new(file))
            .unwrap()
            .start(2)
            .unwrap();
        let nop = Descriptor::nop();
        let nop = if quiet { nop.quiet() } else { nop };
        for round in 0..5 {
            // SAFETY: the operation reaches no memory.
            let ticket = unsafe { queue.submit(&nop) }.unwrap();
            let error = queue.wait(ticket).unwrap_err();
            let right = matches!(
                error,
                Error::Lost { number, why: Some(DeviceError::PageFault) } if number == round
            );
            assert!(right, "{error:?}");
        }
    }
}

/// A model whose doorbell runs more than a ring ahead, once.
struct Overrun {
    model: Model,
    done: AtomicBool,
}

// SAFETY: as for the model. The device is told of more descriptors than the ring has, and halts
// instead of reading them.
unsafe impl DeviceFile for Overrun {
    fn info(&self) -> io::Result<ioctl::Info> {
        self.model.info()
    }
    unsafe fn queue_setup(&mut self, queue: &ioctl::Queue) -> io::Result<()> {
        // SAFETY: passed on.
        unsafe { self.model.queue_setup(queue) }
    }
    fn queue_stop(&mut self) -> io::Result<()> {
        self.model.queue_stop()
    }
    fn read_doorbell(&self, offset: u64) -> u64 {
        self.model.read_doorbell(offset)
    }
    unsafe fn write_tail(&self, tail: u64) {
        let ahead = if self.done.swap(true, Ordering::Relaxed) {
            0
        } else {
            100
        };
        // SAFETY: passed on.
        unsafe { self.model.write_tail(tail + ahead) }
    }
    fn interrupts(&self) -> BorrowedFd<'_> {
        self.model.interrupts()
    }
}

#[test]
fn a_halted_context_says_why_and_restarts() {
    let file = Overrun {
        model: Model::new().unwrap(),
        done: AtomicBool::new(false),
    };
    let mut queue = Context::with_file(Box::new(file))
        .unwrap()
        .start(2)
        .unwrap();
    // SAFETY: the operation reaches no memory.
    let ticket = unsafe { queue.submit(&Descriptor::nop()) }.unwrap();
    let error = queue.wait(ticket).unwrap_err();
    assert!(
        matches!(error, Error::Halted(Halt(halt::BAD_DOORBELL))),
        "{error:?}"
    );
    assert_eq!(
        queue.state().unwrap(),
        State::Halted(Halt(halt::BAD_DOORBELL))
    );
    queue.restart().unwrap();
    queue.nop().unwrap();
}

#[test]
fn a_batch_is_one_descriptor_with_a_record_for_each_entry() {
    let mut queue = queue(4);
    let data = Region::new(2 * PAGE).unwrap();
    let mut batch = Batch::new(3).unwrap();
    let bad = std::ptr::without_provenance_mut(0x1000);
    batch
        .set(&[
            Descriptor::fill(data.at(0), 8, 0x55),
            Descriptor::fill(bad, 8, 0),
            Descriptor::copy(data.at(0), data.at(8), 8),
            Descriptor::copy(data.at(0), data.at(16), 8).fenced(),
        ])
        .unwrap();
    // SAFETY: a region may be written by the device at any time.
    let record = unsafe { queue.execute_batch(&batch) }.unwrap();
    let failure = Failure::of(&record).unwrap();
    assert_eq!(failure.error(), Some(DeviceError::EntryFailed));
    // The record names the second one; the third was performed, and the fence stopped the last.
    assert_eq!((record.result, record.bytes_done), (2, 3));
    let at = batch.descriptor();
    assert!(Failure::of(&batch.record(0).unwrap()).is_none());
    assert!(Failure::of(&batch.record(1).unwrap()).is_some());
    assert!(batch.record(3).is_none());
    assert_eq!(
        data.read(8..24),
        [[0x55, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat()
    );
    // A batch in a batch.
    let mut outer = Batch::new(1).unwrap();
    outer.set(&[at]).unwrap();
    // SAFETY: as above.
    unsafe { queue.execute_batch(&outer) }.unwrap();
    let nested = Failure::of(&outer.record(0).unwrap()).unwrap();
    assert_eq!(nested.error(), Some(DeviceError::NestedBatch));
    assert!(batch.set(&[Descriptor::nop(); 5]).is_err());
}
