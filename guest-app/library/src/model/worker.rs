// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread of a model: it fetches descriptors, performs them in the memory of the process, and
//! writes the records.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::{Pid, write};
use svm_abi::completion::{Completion, Error, access, status};
use svm_abi::counters::index;
use svm_abi::descriptor::{self, Descriptor, Operation, batch, flags, gather, operand};
use svm_abi::doorbell;
use svm_abi::registers::{halt, status as context};

use super::shared::{BATCH_LOG2, Mutant, Shared, TRANSFER_LOG2};

const PAGE: u64 = doorbell::PAGE_SIZE;

/// Why an operation ended early.
struct Fault {
    error: Error,
    write: bool,
    address: u64,
    done: u64,
}

impl Fault {
    fn bad(error: Error) -> Fault {
        Fault {
            error,
            write: false,
            address: 0,
            done: 0,
        }
    }

    fn done(self, done: u64) -> Fault {
        Fault { done, ..self }
    }
}

/// The thread.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) mutant: Option<Mutant>,
    /// Address of the ring.
    pub(super) ring: u64,
    /// Descriptors of the ring.
    pub(super) capacity: u64,
    /// Closed when the context halts: `poll` reports an error then.
    pub(super) sender: Option<OwnedFd>,
    /// Interrupts that did not fit into the pipe.
    pub(super) unsent: u64,
    /// A descriptor has failed.
    pub(super) failed: bool,
}

impl Worker {
    /// Works until `stop` is set.
    pub(super) fn run(mut self) {
        let mut head = 0;
        while !self.shared.stop.load(Ordering::SeqCst) {
            let tail = self.shared.register(doorbell::TAIL).load(Ordering::SeqCst);
            if tail == head || self.sender.is_none() {
                std::thread::park();
                continue;
            }
            if tail.wrapping_sub(head) > self.capacity {
                let halted = context::encode(context::HALTED, halt::BAD_DOORBELL);
                self.shared
                    .register(doorbell::STATUS)
                    .store(halted, Ordering::SeqCst);
                self.sender = None;
                continue;
            }
            let words = self.fetch(head);
            head += 1;
            self.complete(&words, head);
        }
    }

    fn fetch(&self, number: u64) -> Descriptor {
        let start = self.ring + number % self.capacity * descriptor::SIZE as u64;
        let mut bytes = [0; descriptor::SIZE];
        for (at, word) in (start..).step_by(8).zip(bytes.chunks_exact_mut(8)) {
            // SAFETY: `queue_setup` requires that the ring is memory, changed only by atomic
            // accesses, until `queue_stop`, which waits for this thread.
            let register = unsafe { atomic(at) };
            word.copy_from_slice(&register.load(Ordering::Relaxed).to_le_bytes());
        }
        Descriptor::from_bytes(&bytes)
    }

    /// Performs a descriptor of the ring, which makes `head` the number of those consumed.
    fn complete(&mut self, words: &Descriptor, head: u64) {
        let record = match Operation::from_u8(words.operation) {
            Some(Operation::Batch) if check(Operation::Batch, words).is_ok() => self.batch(words),
            _ => self.record(words),
        };
        self.finish(words, &record);
        self.shared
            .register(doorbell::HEAD)
            .store(head, Ordering::SeqCst);
        self.announce(words);
    }

    /// Performs a batch, with the records of its entries, and returns its own record.
    fn batch(&mut self, words: &Descriptor) -> Completion {
        let mut record = Completion {
            status: status::SUCCESS,
            ..Completion::default()
        };
        let fail = |record: &mut Completion, error: Error, address| {
            if record.status == status::SUCCESS {
                record.status = status::FAILURE;
                record.error = error as u8;
                record.fault_address = address;
            }
        };
        for n in 0..words.length {
            let at = words.source + n * descriptor::SIZE as u64;
            let mut bytes = [0; descriptor::SIZE];
            match self.read(at, descriptor::SIZE as u64) {
                Ok(read) => bytes.copy_from_slice(&read),
                Err(fault) => {
                    record.status = status::SUCCESS;
                    fail(&mut record, fault.error, fault.address);
                    break;
                }
            }
            let entry = Descriptor::from_bytes(&bytes);
            if entry.flags & flags::FENCE != 0 && record.status != status::SUCCESS {
                break;
            }
            let done = if entry.operation == Operation::Batch as u8 {
                Completion {
                    status: status::FAILURE,
                    error: Error::NestedBatch as u8,
                    ..Completion::default()
                }
            } else {
                self.record(&entry)
            };
            self.finish(&entry, &done);
            self.announce(&entry);
            record.bytes_done += 1;
            if done.status == status::SUCCESS {
                record.result += 1;
            } else {
                fail(&mut record, Error::EntryFailed, at);
            }
        }
        record
    }

    /// Performs any other descriptor, and returns its record.
    fn record(&mut self, words: &Descriptor) -> Completion {
        let mut result = self.perform(words);
        if self.mutant == Some(Mutant::FailureSpreads) {
            self.failed |= result.is_err();
            if self.failed {
                result = result.and(Err(Fault::bad(Error::PageFault)));
            }
        }
        if self.mutant == Some(Mutant::WrongResult) {
            result = result.map(|(result, done)| (result + 1, done));
        }
        match result {
            Ok((result, bytes_done)) => Completion {
                status: status::SUCCESS,
                bytes_done,
                result,
                ..Completion::default()
            },
            Err(fault) => Completion {
                status: status::FAILURE,
                error: fault.error as u8,
                access: if fault.write { access::WRITE } else { 0 },
                bytes_done: fault.done,
                fault_address: fault.address,
                result: 0,
            },
        }
    }

    /// Counts a completed descriptor, and writes its record.
    fn finish(&mut self, words: &Descriptor, record: &Completion) {
        self.shared.count(index::DESCRIPTORS, 1);
        if record.status == status::FAILURE {
            self.shared.count(index::FAILED_DESCRIPTORS, 1);
        }
        if words.completion != 0 {
            let bytes = record.to_bytes();
            for n in [1, 2, 3, 0] {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[8 * n..8 * n + 8]);
                let at = words.completion + 8 * n as u64;
                // SAFETY: `write_tail` requires that the record is memory that the device may
                // write; the queue reads it with atomic accesses.
                let register = unsafe { atomic(at) };
                register.store(u64::from_le_bytes(word), Ordering::Release);
            }
        }
    }

    /// Sends the interrupt of a completed descriptor, if it asks for one.
    fn announce(&mut self, words: &Descriptor) {
        if words.flags & flags::INTERRUPT != 0 {
            self.interrupt();
        }
    }

    fn interrupt(&mut self) {
        self.shared.count(index::INTERRUPTS, 1);
        self.unsent += 1;
        let Some(sender) = &self.sender else { return };
        // If the pipe is full, the reader is already awake; the rest comes later.
        if write(sender, &self.unsent.to_ne_bytes()).is_ok() {
            self.unsent = 0;
        }
    }

    /// Performs an operation: its result and the bytes done.
    fn perform(&self, words: &Descriptor) -> Result<(u64, u64), Fault> {
        let operation =
            Operation::from_u8(words.operation).ok_or_else(|| Fault::bad(Error::BadOperation))?;
        check(operation, words)?;
        let len = words.length;
        let (source, destination) = (words.source, words.destination);
        match operation {
            Operation::Nop | Operation::Drain => Ok((0, 0)),
            Operation::Copy => self.copy(source, destination, len).map(|()| (0, len)),
            Operation::Fill => {
                let pattern = words.operand0.to_le_bytes();
                let data: Vec<u8> = pattern.into_iter().cycle().take(len as usize).collect();
                self.write(destination, &data)?;
                Ok((0, len))
            }
            Operation::Compare => {
                let left = self.read(source, len)?;
                let right = self.read(destination, len)?;
                let same = left.iter().zip(&right).take_while(|(l, r)| l == r).count();
                Ok((same as u64, len))
            }
            Operation::Crc32c => {
                let data = self.read(source, len)?;
                Ok((
                    crc32c::crc32c_append(words.operand0 as u32, &data).into(),
                    len,
                ))
            }
            Operation::FetchAdd => self.fetch_add(destination, words.operand0).map(|n| (n, 8)),
            Operation::Chase => self.chase(words),
            Operation::CompareSwap => {
                let (expected, new) = (words.operand0, words.operand1);
                self.swap(destination, expected, new).map(|n| (n, 8))
            }
            Operation::Gather => self.gather(words),
            Operation::Prefetch => {
                for piece in pages(source, len) {
                    self.read(piece.address, 1)?;
                    if words.operand0 != 0 && !is_writable(piece.address) {
                        return Err(self.fault(piece.address, true));
                    }
                }
                Ok((0, len))
            }
            // There is no cache.
            Operation::CacheControl => Ok((0, 0)),
            // There is no translation agent; batches are handled earlier.
            Operation::Translate | Operation::Batch => Err(Fault::bad(Error::BadOperation)),
        }
    }

    fn copy(&self, source: u64, destination: u64, len: u64) -> Result<(), Fault> {
        if self.mutant == Some(Mutant::CopiesForwards) {
            for n in 0..len {
                let byte = self.read(source + n, 1)?;
                self.write(destination + n, &byte)?;
            }
            return Ok(());
        }
        let data = self.read(source, len)?;
        self.write(destination, &data)
    }

    fn fetch_add(&self, address: u64, addend: u64) -> Result<u64, Fault> {
        let before = self.read(address, 8)?;
        if !is_writable(address) {
            return Err(self.fault(address, true));
        }
        // SAFETY: the address is aligned, readable and writable; `write_tail` requires that the
        // device may change the number, with atomic accesses.
        let counter = unsafe { atomic(address) };
        if self.mutant == Some(Mutant::TornFetchAdd) {
            let mut word = [0; 8];
            word.copy_from_slice(&before);
            let number = u64::from_le_bytes(word);
            std::thread::yield_now();
            counter.store(number.wrapping_add(addend), Ordering::SeqCst);
            return Ok(number);
        }
        Ok(counter.fetch_add(addend, Ordering::SeqCst))
    }

    fn swap(&self, address: u64, expected: u64, new: u64) -> Result<u64, Fault> {
        self.read(address, 8)?;
        if !is_writable(address) {
            return Err(self.fault(address, true));
        }
        // SAFETY: as for `fetch_add`.
        let number = unsafe { atomic(address) };
        let order = Ordering::SeqCst;
        Ok(number
            .compare_exchange(expected, new, order, order)
            .unwrap_or_else(|before| before))
    }

    fn gather(&self, words: &Descriptor) -> Result<(u64, u64), Fault> {
        let mut done = 0;
        let list = self.read(words.source, words.length * gather::ENTRY_SIZE)?;
        for entry in list.chunks_exact(gather::ENTRY_SIZE as usize) {
            let word = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&entry[at..at + 8]);
                u64::from_le_bytes(word)
            };
            let (address, length) = (word(gather::ADDRESS), word(gather::LENGTH));
            if length > words.operand0 - done || address.checked_add(length).is_none() {
                let fault = Fault::bad(Error::BadLength).done(done);
                return Err(Fault { address, ..fault });
            }
            let part = |fault: Fault| {
                let all = done + fault.done;
                fault.done(all)
            };
            let data = self.read(address, length).map_err(part)?;
            self.write(words.destination + done, &data).map_err(part)?;
            done += length;
        }
        Ok((done, done))
    }

    fn chase(&self, words: &Descriptor) -> Result<(u64, u64), Fault> {
        let (mut node, mut sum, mut nodes) = (words.source, 0u64, 0);
        let word = |address: u64, nodes: u64| -> Result<u64, Fault> {
            let mut word = [0; 8];
            word.copy_from_slice(&self.read(address, 8).map_err(|fault| fault.done(nodes))?);
            Ok(u64::from_le_bytes(word))
        };
        while node != 0 {
            if nodes == words.length {
                return Err(Fault::bad(Error::ChainTooLong).done(nodes));
            }
            if node % 8 != 0 {
                return Err(Fault::bad(Error::Misaligned).done(nodes));
            }
            sum = sum.wrapping_add(word(node + words.operand1, nodes)?);
            node = word(node + words.operand0, nodes)?;
            nodes += 1;
        }
        Ok((sum, nodes))
    }

    fn fault(&self, address: u64, write: bool) -> Fault {
        let wrong = self.mutant == Some(Mutant::WrongFaultAddress);
        Fault {
            error: Error::PageFault,
            write,
            address: if wrong { address + PAGE } else { address },
            done: 0,
        }
    }

    fn read(&self, address: u64, len: u64) -> Result<Vec<u8>, Fault> {
        let mut data = vec![0; len as usize];
        let mut done = 0;
        for piece in pages(address, len) {
            let to = &mut data[done..done + piece.len];
            let mut local = [IoSliceMut::new(to)];
            match process_vm_readv(Pid::this(), &mut local, &[piece.remote()]) {
                Ok(n) if n == piece.len => done += n,
                _ if self.mutant == Some(Mutant::FaultsHidden) => break,
                _ => return Err(self.fault(piece.address, false).done(done as u64)),
            }
        }
        self.shared.count(index::BYTES_READ, len);
        Ok(data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), Fault> {
        let mut data = data.to_vec();
        match self.mutant {
            Some(Mutant::LastByteMissing) => drop(data.pop()),
            Some(Mutant::OneByteTooMany) => data.push(0xee),
            _ => {}
        }
        let mut done = 0;
        for piece in pages(address, data.len() as u64) {
            let local = [IoSlice::new(&data[done..done + piece.len])];
            match process_vm_writev(Pid::this(), &local, &[piece.remote()]) {
                Ok(n) if n == piece.len => done += n,
                _ if self.mutant == Some(Mutant::FaultsHidden) => break,
                _ => return Err(self.fault(piece.address, true).done(done as u64)),
            }
        }
        self.shared.count(index::BYTES_WRITTEN, data.len() as u64);
        Ok(())
    }
}

/// The checks of descriptors that need no access to memory.
fn check(operation: Operation, words: &Descriptor) -> Result<(), Fault> {
    let Descriptor {
        source,
        destination,
        length,
        operand0,
        operand1,
        ..
    } = *words;
    let zero: &[u64] = match operation {
        Operation::Nop | Operation::Drain => &[source, destination, length, operand0, operand1],
        Operation::Copy | Operation::Compare => &[operand0, operand1],
        Operation::Fill => &[source, operand1],
        Operation::Crc32c => &[destination, operand0 >> 32, operand1],
        Operation::FetchAdd => &[source, length, operand1],
        Operation::Chase => &[destination, operand0 & !0xfff, operand1 & !0xfff],
        Operation::CompareSwap => &[source, length],
        Operation::Gather => &[operand1],
        Operation::Prefetch => &[destination, operand0 & !operand::WRITE, operand1],
        Operation::Translate => &[destination, length, operand0 & !operand::WRITE, operand1],
        Operation::CacheControl if operand0 == operand::ALL => {
            &[source, destination, length, operand1]
        }
        Operation::CacheControl => &[destination, operand0, operand1],
        Operation::Batch => &[destination, operand0, operand1],
    };
    if words.flags & !flags::ALL != 0
        || words.reserved0 != [0; 6]
        || words.reserved1 != 0
        || zero.iter().any(|word| *word != 0)
    {
        return Err(Fault::bad(Error::Reserved));
    }
    let (aligned, ranges): (&[u64], &[(u64, u64)]) = match operation {
        Operation::Nop | Operation::Drain => (&[], &[]),
        Operation::Copy | Operation::Compare => (&[], &[(source, length), (destination, length)]),
        Operation::Fill => (&[], &[(destination, length)]),
        Operation::Crc32c => (&[], &[(source, length)]),
        Operation::FetchAdd => (&[destination], &[(destination, 8)]),
        Operation::Chase => (&[source, operand0, operand1], &[]),
        Operation::CompareSwap => (&[destination], &[(destination, 8)]),
        Operation::Gather if length > gather::MAX_ENTRIES => {
            return Err(Fault::bad(Error::BadLength));
        }
        Operation::Gather => {
            let list = (source, length * gather::ENTRY_SIZE);
            // The list has a larger alignment than the other operands.
            let aligned: &[u64] = if source % gather::ENTRY_SIZE == 0 {
                &[]
            } else {
                &[1]
            };
            (aligned, &[list, (destination, operand0)])
        }
        Operation::Prefetch | Operation::CacheControl => (&[], &[(source, length)]),
        Operation::Translate => (&[], &[(source, 1)]),
        Operation::Batch => (&[], &[]),
    };
    if operation == Operation::Batch && source % batch::ALIGNMENT != 0 {
        return Err(Fault::bad(Error::Misaligned));
    }
    if operation == Operation::Batch && length > 1 << BATCH_LOG2 {
        return Err(Fault::bad(Error::BadLength));
    }
    if aligned.iter().any(|word| word % 8 != 0) {
        return Err(Fault::bad(Error::Misaligned));
    }
    for (start, len) in ranges {
        if *len > 1 << TRANSFER_LOG2 || start.checked_add(*len).is_none() {
            return Err(Fault::bad(Error::BadLength));
        }
        if *len > 0 && !is_canonical(*start) {
            let fault = Fault::bad(Error::BadAddress);
            return Err(Fault {
                address: *start,
                ..fault
            });
        }
    }
    Ok(())
}

fn is_canonical(address: u64) -> bool {
    let upper = (address as i64) >> 47;
    upper == 0 || upper == -1
}

/// A piece of a range within one page.
struct Piece {
    address: u64,
    len: usize,
}

impl Piece {
    fn remote(&self) -> RemoteIoVec {
        RemoteIoVec {
            base: self.address as usize,
            len: self.len,
        }
    }
}

fn pages(address: u64, len: u64) -> impl Iterator<Item = Piece> {
    let end = address + len;
    let mut at = address;
    std::iter::from_fn(move || {
        let next = ((at / PAGE + 1) * PAGE).min(end);
        let len = (next - at) as usize;
        let piece = Piece { address: at, len };
        at = next;
        (len > 0).then_some(piece)
    })
}

/// The word at an address.
///
/// # Safety
///
/// The address is aligned to 8 and mapped readable and writable while the result is used, and all
/// accesses to it are atomic.
unsafe fn atomic<'a>(address: u64) -> &'a AtomicU64 {
    // SAFETY: the caller's guarantee.
    unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(address as usize)) }
}

/// Whether the mappings of the process permit a write at `address`.
fn is_writable(address: u64) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return false;
    };
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        let inside =
            range.is_some_and(|(start, end)| (number(start)..number(end)).contains(&address));
        inside
            && fields
                .next()
                .is_some_and(|mode| mode.as_bytes().get(1) == Some(&b'w'))
    })
}
