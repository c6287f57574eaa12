// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work that the device combines: consecutive descriptors in one action, and translation requests
//! ahead of need.

use super::*;
use crate::testing::{Service, World};
use crate::{Config, Step};
use pcie_ats::{AlignedRange, Function, Invalidation, PageRequest, ResponseCode};
use std::sync::{Arc, Mutex};
use svm_abi::counters::index;
use svm_abi::registers::{context, control};

const PAGE: u64 = 0x1000;

/// A running world with pages at [`HERE`] and [`THERE`]. The translations of its ring and records
/// are cached.
fn world(pages: u64) -> World {
    let world = World::running();
    for page in 0..pages {
        world.map(1, HERE + page * PAGE, true);
        world.map(1, THERE + page * PAGE, true);
    }
    success(world.perform(nop()));
    world
}

/// Rings the doorbell once for all of them, and returns the addresses of their records.
fn submit(world: &World, descriptors: &[Descriptor]) -> Vec<u64> {
    let tail = world.get(0, context::TAIL);
    let stopped = world.get(0, context::STATUS);
    // They are submitted one by one before the device takes a step, so the device sees them as one
    // piece of work.
    let records = descriptors.iter().map(|d| world.submit(*d)).collect();
    assert_eq!(world.get(0, context::STATUS), stopped);
    assert_eq!(world.get(0, context::TAIL), tail + descriptors.len() as u64);
    records
}

/// The memory address of an address of the process.
fn place(world: &World, address: u64) -> u64 {
    world.mapping(1, address).unwrap().output + address % PAGE
}

/// The addresses of the translation requests since the last call.
fn requests(world: &World) -> Vec<u64> {
    let requests = std::mem::take(&mut world.inner.lock().unwrap().translations);
    requests.iter().map(|request| request.address).collect()
}

#[test]
fn data_and_record_of_each_descriptor_come_before_those_of_the_next() {
    let world = world(1);
    success(world.perform(copy(HERE, THERE, 8)));
    world.inner.lock().unwrap().writes.clear();
    let all: Vec<_> = (0..4).map(|n| fill(THERE + 8 * n, 8)).collect();
    let records = submit(&world, &all);
    assert_eq!(world.endpoint.step(&world), Step::Worked);
    let data = place(&world, THERE);
    let expected = records.iter().enumerate().flat_map(|(n, record)| {
        let record = place(&world, *record);
        [(data + 8 * n as u64, 8), (record + 8, 24), (record, 8)]
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(world.inner.lock().unwrap().writes, expected);
    for record in records {
        success(world.record(1, record));
    }
}

#[test]
fn a_descriptor_without_memory_touches_none_behind_one_with() {
    let world = world(1);
    world.poke(1, HERE, &[7; 8]);
    success(world.perform(copy(HERE, THERE, 8)));
    let copies = [copy(HERE, THERE, 8); 6];
    submit(&world, &copies);
    world.run();
    let none = [copy(HERE, THERE + 8, 0), fill(THERE + 16, 0), nop()];
    let all = none.map(|none| [copy(HERE, THERE, 8), none]).concat();
    world.inner.lock().unwrap().writes.clear();
    let records = submit(&world, &all);
    world.run();
    for record in records {
        success(world.record(1, record));
    }
    let writes = world.inner.lock().unwrap().writes.clone();
    let data = place(&world, THERE);
    let written = writes.iter().filter(|(to, _)| *to / PAGE == data / PAGE);
    assert!(written.eq([(data, 8); 3].iter()));
}

#[test]
fn behind_a_failure_the_next_descriptor_begins_after_its_record() {
    let world = world(1);
    success(world.perform(copy(HERE, THERE, 8)));
    let refused = place(&world, HERE);
    world.inner.lock().unwrap().refuse_memory = Some(refused);
    world.inner.lock().unwrap().writes.clear();
    let all = [fill(THERE, 8), crc(HERE, 8), fill(THERE + 8, 8)];
    let records = submit(&world, &all);
    world.run();
    success(world.record(1, records[0]));
    assert_eq!(
        failure(world.record(1, records[1])),
        (Error::MemoryAccess, HERE, 0)
    );
    success(world.record(1, records[2]));
    let places: Vec<_> = records.iter().map(|r| place(&world, *r)).collect();
    let writes = world.inner.lock().unwrap().writes.clone();
    let at = |place| writes.iter().position(|(to, _)| *to == place).unwrap();
    assert!(at(places[0]) < at(places[1]) && at(places[1]) < at(places[2]));
    // Two writes for each record, and the data of two descriptors.
    assert_eq!(writes.len(), 3 * 2 + 2);
}

#[test]
fn a_stop_in_the_middle_ends_what_is_behind_it() {
    let world = world(1);
    success(world.perform(copy(HERE, THERE, 8)));
    let all: Vec<_> = (0..4).map(|n| fill(THERE + 8 * n, 8)).collect();
    world.poke(1, THERE, &[0; 32]);
    let records = submit(&world, &all);
    // In the middle of the first descriptor's data.
    *world.on_write.lock().unwrap() = Some(Box::new(|world: &World| {
        world.set(0, context::CONTROL, control::STOP);
    }));
    world.run();
    assert_eq!(world.peek(1, THERE, 8), [0x5a; 8]);
    assert_eq!(world.peek(1, THERE + 8, 24), [0; 24]);
    for record in records {
        assert_eq!(world.record(1, record).status, status::PENDING);
    }
}

#[test]
fn an_interrupt_is_sent_before_the_next_descriptor_begins() {
    let world = world(1);
    world.set(0, context::VECTOR, 1 << 31);
    success(world.perform(copy(HERE, THERE, 8)));
    world.poke(1, THERE, &[0; 16]);
    let loud = Descriptor {
        flags: flags::INTERRUPT,
        ..fill(THERE, 8)
    };
    submit(&world, &[loud, fill(THERE + 8, 8)]);
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let second = place(&world, THERE + 8);
    // The first write is that of the first descriptor; at each write, the hook installs itself
    // again.
    fn look(world: &World, second: u64, note: Arc<Mutex<Option<usize>>>) {
        let again = Arc::clone(&note);
        *world.on_write.lock().unwrap() = Some(Box::new(move |world: &World| {
            look(world, second, Arc::clone(&again));
        }));
        let inner = world.inner.lock().unwrap();
        if inner.writes.iter().all(|(to, _)| *to != second) {
            *note.lock().unwrap() = Some(inner.interrupts.len());
        }
    }
    look(&world, second, note);
    world.inner.lock().unwrap().writes.clear();
    world.run();
    // The interrupt had been sent before the write of the second descriptor's data.
    assert_eq!(*seen.lock().unwrap(), Some(1));
}

#[test]
fn every_job_of_an_action_is_waited_for() {
    let world = world(4);
    success(world.perform(copy(HERE, THERE, 4 * PAGE)));
    let all: Vec<_> = (0..4).map(|n| fill(THERE + n * PAGE, 8)).collect();
    submit(&world, &all);
    let answers = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&answers);
    *world.on_write.lock().unwrap() = Some(Box::new(move |world: &World| {
        for (tag, page) in [THERE, THERE + 3 * PAGE, HERE].into_iter().enumerate() {
            let range = AlignedRange::page(page);
            let answer = world.invalidate_tagged(1, range, tag as u8);
            note.lock().unwrap().push(answer);
        }
    }));
    world.run();
    let pending = Invalidation::Pending;
    assert_eq!(
        *answers.lock().unwrap(),
        [pending, pending, Invalidation::Completed]
    );
    let completions = &world.inner.lock().unwrap().completions;
    let tags = completions.iter().fold(0, |all, c| all | c.itag_vector);
    assert_eq!(tags, 0b11);
}

#[test]
fn what_a_turn_will_reach_is_asked_for_in_one_round() {
    let world = world(64);
    requests(&world);
    submit(&world, &[copy(HERE, THERE, 64 * PAGE)]);
    assert_eq!(world.endpoint.step(&world), Step::Worked);
    let ends = [HERE, THERE].map(|base| (0..4).map(move |n| base + n * 16 * PAGE));
    assert_eq!(
        requests(&world),
        ends.into_iter().flatten().collect::<Vec<_>>()
    );
    assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS), 8 + 2);
    world.run();
    assert_eq!(requests(&world), []);
}

#[test]
fn the_descriptors_behind_are_thought_of() {
    let world = world(3);
    requests(&world);
    let all: Vec<_> = (0..3)
        .map(|n| copy(HERE + n * PAGE, THERE + n * PAGE, 8))
        .collect();
    let records = submit(&world, &all);
    world.run();
    let first = [HERE, THERE];
    let behind = (1..3).flat_map(|n| [HERE + n * PAGE, THERE + n * PAGE]);
    let expected: Vec<_> = first.into_iter().chain(behind).collect();
    assert_eq!(requests(&world), expected);
    for record in records {
        success(world.record(1, record));
    }
}

#[test]
fn nothing_is_asked_for_ahead_behind_a_page_that_lacks_something() {
    let world = world(64);
    world.unmap(1, HERE + 20 * PAGE);
    requests(&world);
    let record = world.perform(copy(HERE, THERE, 64 * PAGE));
    assert_eq!(
        failure(record),
        (Error::PageFault, HERE + 20 * PAGE, 0),
        "{record:?}"
    );
    let asked = requests(&world);
    // The request for the second 16 pages is the last one ahead, and it caused no page request.
    assert_eq!(asked[..3], [HERE, HERE + 16 * PAGE, THERE]);
    assert!(asked.iter().all(|a| *a < HERE + 21 * PAGE || *a >= THERE));
    let pages = &world.inner.lock().unwrap().page_requests;
    assert!(pages.iter().all(|page| page.address == HERE + 20 * PAGE));
}

#[test]
fn a_page_that_is_larger_than_thought_is_asked_for_once() {
    let world = World::running();
    for base in [HERE, THERE] {
        let range = AlignedRange::containing(base, 21).unwrap();
        let frames = world.frames(21);
        world.map_to(1, range, frames, true, true);
    }
    success(world.perform(nop()));
    requests(&world);
    success(world.perform(copy(HERE, THERE, 64 * PAGE)));
    assert_eq!(requests(&world), [HERE, THERE]);
}

/// For how many pages the device has requested translations before it reads the first byte, with a
/// cache of `atc_entries` entries.
fn asked_for_before_the_first_byte(atc_entries: u32) -> u64 {
    let world = World::running_with(Config {
        atc_entries,
        ..Config::default()
    });
    for page in 0..64 {
        world.map(1, HERE + page * PAGE, true);
    }
    success(world.perform(nop()));
    submit(&world, &[crc(HERE, 64 * PAGE)]);
    requests(&world);
    // The first read is that of the descriptor.
    let pages = Arc::new(Mutex::new(0));
    let note = Arc::clone(&pages);
    *world.on_read.lock().unwrap() = Some(Box::new(move |world: &World| {
        let note = Arc::clone(&note);
        *world.on_read.lock().unwrap() = Some(Box::new(move |world: &World| {
            let asked = &world.inner.lock().unwrap().translations;
            *note.lock().unwrap() = asked.iter().map(|r| u64::from(r.pages)).sum();
        }));
    }));
    world.run();
    *pages.lock().unwrap()
}

#[test]
fn a_small_cache_is_not_filled_with_what_has_time() {
    assert_eq!(asked_for_before_the_first_byte(1024), 64);
    assert_eq!(asked_for_before_the_first_byte(32), 16);
}

#[test]
fn neighbours_of_one_round_are_one_entry() {
    let world = World::running();
    let frames = [HERE, THERE].map(|base| {
        let frames = world.frames(18);
        for page in 0..64 {
            let range = AlignedRange::page(base + page * PAGE);
            world.map_to(1, range, frames + page * PAGE, true, true);
        }
        frames
    });
    success(world.perform(nop()));
    let bytes: Vec<u8> = (0..64 * PAGE).map(|n| (n / 251) as u8).collect();
    world.poke(1, HERE, &bytes);
    // With four descriptors, whose source and destination alternate.
    let quarters: Vec<_> = (0..4)
        .map(|n| copy(HERE + n * 16 * PAGE, THERE + n * 16 * PAGE, 16 * PAGE))
        .collect();
    submit(&world, &quarters);
    world.run();
    assert_eq!(world.peek(1, THERE, bytes.len()), bytes);
    requests(&world);
    let hits = world.counter(0, index::ATC_HITS);
    success(world.perform(copy(HERE, THERE, 64 * PAGE)));
    // One hit each for ring, record, source and destination.
    assert_eq!(world.counter(0, index::ATC_HITS), hits + 4);
    // The invalidation of one page removes the whole entry.
    let dropped = || world.counter(0, index::INVALIDATED_ENTRIES);
    let before = dropped();
    let page = HERE + 33 * PAGE;
    let range = AlignedRange::page(page);
    world.map_to(1, range, world.frame(), true, true);
    assert_eq!(world.invalidate(1, range), Invalidation::Completed);
    assert_eq!(dropped(), before + 1);
    // The page must not be accessed any more; its neighbours are accessed as before.
    world.retire_frame(frames[0] + 33 * PAGE);
    success(world.perform(crc(HERE, 64 * PAGE)));
    assert!(world.inner.lock().unwrap().trespasses.is_empty());
    let asked: u64 = {
        let asked = &world.inner.lock().unwrap().translations;
        asked.iter().map(|r| u64::from(r.pages)).sum()
    };
    assert_eq!(asked, 64);
}

/// 512 consecutive pages in consecutive frames: their translations have become one of 2 MiB.
fn world_of_one_large_entry() -> (World, u64) {
    let world = World::running();
    let frames = world.frames(21);
    for page in 0..512 {
        let range = AlignedRange::page(HERE + page * PAGE);
        world.map_to(1, range, frames + page * PAGE, true, true);
    }
    success(world.perform(crc(HERE, 512 * PAGE)));
    requests(&world);
    success(world.perform(crc(HERE, 512 * PAGE)));
    assert_eq!(requests(&world), []);
    assert_eq!(
        [16, 18, 21].map(|shift| world.endpoint.cached(shift)),
        [0, 0, 1]
    );
    (world, frames)
}

#[test]
pub(super) fn rule_37_what_has_grown_to_2_mib_goes_with_any_of_its_pages() {
    let dropped = |world: &World| world.counter(0, index::INVALIDATED_ENTRIES);
    // It is one entry.
    let (world, _) = world_of_one_large_entry();
    let whole = AlignedRange::containing(HERE, 21).unwrap();
    let before = dropped(&world);
    assert_eq!(world.invalidate(1, whole), Invalidation::Completed);
    assert_eq!(dropped(&world), before + 1);
    for page in [0, 15, 16, 63, 300, 511] {
        let (world, frames) = world_of_one_large_entry();
        let moved = AlignedRange::page(HERE + page * PAGE);
        let before = dropped(&world);
        world.map_to(1, moved, world.frame(), true, true);
        assert_eq!(world.invalidate(1, moved), Invalidation::Completed);
        world.retire_frame(frames + page * PAGE);
        success(world.perform(crc(HERE, 512 * PAGE)));
        let trespasses = world.inner.lock().unwrap().trespasses.clone();
        assert_eq!(trespasses, [], "page {page}");
        assert_eq!(dropped(&world), before + 1, "page {page}");
    }
}

/// An access to one page of a large entry holds all of it: the invalidation of another page waits.
#[test]
fn rule_38_an_access_within_2_mib_holds_all_of_its_entry() {
    let (world, _) = world_of_one_large_entry();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&answers);
    submit(&world, &[crc(HERE + 8 * PAGE, 64)]);
    // The first read is that of the descriptor.
    *world.on_read.lock().unwrap() = Some(Box::new(move |world: &World| {
        let seen = Arc::clone(&seen);
        *world.on_read.lock().unwrap() = Some(Box::new(move |world: &World| {
            let range = AlignedRange::page(HERE + 500 * PAGE);
            seen.lock().unwrap().push(world.invalidate(1, range));
            let range = AlignedRange::page(HERE + 512 * PAGE);
            seen.lock().unwrap().push(world.invalidate(1, range));
        }));
    }));
    world.run();
    use Invalidation::{Completed, Pending};
    assert_eq!(*answers.lock().unwrap(), [Pending, Completed]);
}

#[test]
pub(super) fn rule_39_what_was_asked_for_ahead_and_overtaken_is_not_used() {
    // The request whose answer is overtaken: the needed one, and those ahead of need.
    for overtaken in 0..4u64 {
        let world = World::running();
        let frames = world.frames(18);
        for page in 0..64 {
            let range = AlignedRange::page(HERE + page * PAGE);
            world.map_to(1, range, frames + page * PAGE, true, true);
        }
        success(world.perform(nop()));
        requests(&world);
        arm(&world, overtaken, overtaken, frames);
        success(world.perform(crc(HERE, 64 * PAGE)));
        // They were requested in one round, before any byte was read.
        let asked = requests(&world);
        assert_eq!(asked[..4], [0, 16, 32, 48].map(|n| HERE + n * PAGE));
        // Once more, from the cache.
        success(world.perform(crc(HERE, 64 * PAGE)));
        let trespasses = world.inner.lock().unwrap().trespasses.clone();
        assert_eq!(trespasses, [], "request {overtaken}");
    }
}

/// Moves a page while the answer to its request is on its way: the answer to the `nth` request,
/// with `left` requests still to come.
fn arm(world: &World, left: u64, nth: u64, frames: u64) {
    let hook = move |world: &World| match left {
        0 => overtake(world, nth, frames),
        _ => arm(world, left - 1, nth, frames),
    };
    *world.on_translate.lock().unwrap() = Some(Box::new(hook));
}

/// Moves the ninth page of the `nth` request.
fn overtake(world: &World, nth: u64, frames: u64) {
    let page = 16 * nth + 8;
    let range = AlignedRange::page(HERE + page * PAGE);
    world.map_to(1, range, world.frame(), true, true);
    assert_eq!(world.invalidate(1, range), Invalidation::Completed);
    world.retire_frame(frames + page * PAGE);
}

#[test]
fn what_is_read_ahead_does_not_take_the_permission_to_write_away() {
    let world = world(5);
    let length = 4 * PAGE;
    world.unmap(1, HERE);
    world.map_absent(1, HERE, true);
    success(world.perform(crc(THERE, length)));
    requests(&world);
    // The second descriptor reads the page that the first one writes, and before it an absent page,
    // whose translation is requested each time.
    let all = [copy(THERE, HERE + PAGE, length), crc(HERE, length)];
    let records = submit(&world, &all);
    let mut steps = 0;
    while world.endpoint.step(&world) == Step::Worked {
        steps += 1;
        assert!(steps < 20, "{:x?}", requests(&world));
    }
    for record in records {
        success(world.record(1, record));
    }
    // Requests for the write, for reading ahead, and again when the page is needed and when it is
    // present.
    assert_eq!(requests(&world), [HERE + PAGE, HERE, HERE, HERE]);
}

/// A world that keeps page requests unanswered, with absent pages from [`HERE`] on and an
/// allocation of page requests.
fn absent(pages: u64, allocation: u32, config: Config) -> World {
    let world = World::new(Config {
        contexts: 1,
        pri_capacity: 512,
        ..config
    });
    world.enable(allocation);
    world.start(0, 1);
    success(world.perform(nop()));
    for page in 0..pages {
        world.map_absent(1, HERE + page * PAGE, true);
    }
    *world.service.lock().unwrap() = Service::Later;
    world
}

/// The groups that wait for their responses, oldest first.
fn groups(world: &World) -> Vec<Vec<PageRequest>> {
    let queue = world.inner.lock().unwrap().queue.clone();
    let mut groups: Vec<Vec<PageRequest>> = Vec::new();
    for request in queue {
        match groups
            .iter_mut()
            .find(|group| group[0].prgi == request.prgi)
        {
            Some(group) => group.push(request),
            None => groups.push(vec![request]),
        }
    }
    groups
}

/// The first page of each waiting group, counted from [`HERE`], and its number of pages.
fn waiting(world: &World) -> Vec<(u64, usize)> {
    let first = |group: &Vec<PageRequest>| ((group[0].address - HERE) / PAGE, group.len());
    groups(world).iter().map(first).collect()
}

/// Answers the waiting group at an index, and lets the device continue.
fn answer(world: &World, place: usize) {
    let group = groups(world).remove(place);
    let mut inner = world.inner.lock().unwrap();
    inner.queue.retain(|request| request.prgi != group[0].prgi);
    drop(inner);
    world.serve_group(&group, ResponseCode::Success);
    world.run();
}

#[test]
fn pages_behind_a_group_that_is_absent_as_a_whole_are_requested_with_it() {
    let world = absent(256, 512, Config::default());
    let record = world.submit(fill(HERE, 256 * PAGE));
    world.run();
    assert_eq!(waiting(&world), [(0, 16), (16, 16)]);
    // Each group is complete.
    for group in groups(&world) {
        let lasts = group.iter().filter(|request| request.last).count();
        assert_eq!((lasts, group[15].last), (1, true));
    }
    // The access waits for both, in any order.
    answer(&world, 1);
    assert_eq!(waiting(&world), [(0, 16)]);
    answer(&world, 0);
    // It continues where the pages ahead ended. The next time there are more pages ahead.
    let third = [(32, 16), (48, 16), (64, 16), (80, 16), (96, 16)];
    assert_eq!(waiting(&world), third);
    for _ in 0..4 {
        answer(&world, 0);
    }
    assert_eq!(waiting(&world), [(96, 16)]);
    answer(&world, 0);
    // Up to a quarter of the allocation, and none beyond the last page.
    let all: usize = waiting(&world).iter().map(|(_, pages)| pages).sum();
    assert_eq!(all, 128);
    while !groups(&world).is_empty() {
        answer(&world, 0);
    }
    success(world.record(1, record));
    assert_eq!(world.counter(0, index::PAGE_REQUESTS), 256);
    assert_eq!(world.counter(0, index::PRG_RESPONSES), 16);
    assert_eq!(world.peek(1, HERE + 255 * PAGE, 8), [0x5a; 8]);
}

#[test]
fn what_the_response_to_pages_ahead_says_is_of_no_account() {
    // The last twelve pages of the group ahead do not exist.
    let world = absent(20, 512, Config::default());
    let record = world.submit(fill(HERE, 32 * PAGE));
    world.run();
    assert_eq!(waiting(&world), [(0, 16), (16, 16)]);
    answer(&world, 1);
    answer(&world, 0);
    while !groups(&world).is_empty() {
        answer(&world, 0);
    }
    // The existing pages were accessed, and the record names the first one that does not exist.
    let record = world.record(1, record);
    assert_eq!(
        failure(record),
        (Error::PageFault, HERE + 20 * PAGE, 1),
        "{record:?}"
    );
    assert_eq!(record.bytes_done, 20 * PAGE);
}

#[test]
fn pages_ahead_that_nobody_answers_do_not_keep_the_access_for_ever() {
    let config = Config {
        page_response_timeout: 100,
        ..Config::default()
    };
    let world = absent(32, 512, config);
    let record = world.submit(fill(HERE, 32 * PAGE));
    world.run();
    world.endpoint.tick(1000);
    answer(&world, 0);
    assert_eq!(waiting(&world), [(16, 16)]);
    world.endpoint.tick(1100);
    world.run();
    // The pages are needed now and requested as such; the old group is still outstanding.
    assert_eq!(waiting(&world), [(16, 16), (16, 16)]);
    answer(&world, 1);
    success(world.record(1, record));
    answer(&world, 0);
    assert_eq!(
        world.endpoint.config_read(crate::config_space::PRI + 4) >> 17 & 1,
        0
    );
}

#[test]
fn a_context_stops_when_its_pages_ahead_are_answered_too() {
    let world = absent(32, 512, Config::default());
    world.submit(fill(HERE, 32 * PAGE));
    world.run();
    world.set(0, context::CONTROL, control::STOP);
    world.run();
    let state = || svm_abi::registers::status::state(world.get(0, context::STATUS));
    for _ in 0..2 {
        assert_eq!(state(), svm_abi::registers::status::STOPPING);
        answer(&world, 0);
    }
    // The stop marker has no response.
    world.inner.lock().unwrap().queue.clear();
    assert_eq!(state(), svm_abi::registers::status::DISABLED);
}

#[test]
pub(super) fn rule_58_credits_bound_the_pages_ahead() {
    // Together with those of the access, pages ahead use at most a quarter of the allocation.
    for (allocation, expected) in [(20, 16), (64, 16), (96, 24), (128, 32), (512, 32)] {
        let world = absent(64, allocation, Config::default());
        world.submit(fill(HERE, 64 * PAGE));
        world.run();
        let pages = world.inner.lock().unwrap().queue.len();
        assert_eq!(pages, expected, "of {allocation}");
    }
}
