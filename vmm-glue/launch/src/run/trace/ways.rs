// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways of page requests, from the device down to L2's kernel and back.
//!
//! At each stop a request is known by its PASID, its group's index and its page. The PASID is the
//! same at all levels, for L1's QEMU attaches L2's page tables to the PASIDs that L2 has chosen; the
//! index is the device's in L0 and L1, and another in L2, which L1's QEMU gives and tells both of.
//! Indices come again. So what belongs to a request lies between its sending and the first response
//! to its group, and what happens at a stop before the stop that causes it belongs to none.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use super::device::DeviceTrace;
use super::kernel::{Detail, Group, Line, Request};

/// The stops, in order: those of the request, then those of the response.
pub const STOPS: [&str; LEGS + 1] = [
    "device",
    "L0's unit",
    "L1's kernel",
    "L1's unit",
    "L2's kernel",
    "L2's kernel",
    "L1's unit",
    "L1's kernel",
    "L0's unit",
    "device",
];

/// Legs of the way.
pub const LEGS: usize = 9;

/// The way of a page request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// PASID.
    pub pasid: Option<u32>,
    /// The page.
    pub address: u64,
    /// Index of the group, by the device.
    pub index: u16,
    /// Index of the group in L2.
    pub second_index: Option<u16>,
    /// When it was at each stop, in ticks of L1's counter.
    pub at: [Option<u64>; LEGS + 1],
}

impl Way {
    /// The times of a way that has all stops.
    pub fn complete(&self) -> Option<[u64; LEGS + 1]> {
        let mut times = [0; LEGS + 1];
        for (time, at) in times.iter_mut().zip(self.at) {
            *time = at?;
        }
        Some(times)
    }
}

/// What happened at one stop, by what it is known by. Each is used once.
struct Stop<K> {
    events: BTreeMap<K, Vec<u64>>,
    used: HashSet<(K, u64)>,
}

impl<K: Copy + Ord + Hash> Stop<K> {
    fn new(events: impl IntoIterator<Item = (u64, K)>) -> Self {
        let mut by_key: BTreeMap<K, Vec<u64>> = BTreeMap::new();
        for (at, key) in events {
            by_key.entry(key).or_default().push(at);
        }
        by_key.values_mut().for_each(|times| times.sort_unstable());
        Self {
            events: by_key,
            used: HashSet::new(),
        }
    }

    /// Takes the first event between two times that nobody has taken.
    fn take(&mut self, key: K, from: u64, to: u64) -> Option<u64> {
        let times = self.events.get(&key)?;
        let between = times.iter().filter(|at| (from..=to).contains(at));
        let at = *between
            .into_iter()
            .find(|at| !self.used.contains(&(key, **at)))?;
        self.used.insert((key, at));
        Some(at)
    }

    /// The first event between two times: a response is for all requests of its group.
    fn first(&self, key: K, from: u64, to: u64) -> Option<u64> {
        let times = self.events.get(&key)?;
        times.iter().find(|at| (from..=to).contains(at)).copied()
    }
}

/// What the traces have seen of page requests, in ticks of L1's counter.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Sent by the device.
    pub sent: Vec<(u64, Request)>,
    /// Taken by L0's unit.
    pub taken: Vec<(u64, Request)>,
    /// Taken by L1's kernel.
    pub first: Vec<(u64, Request)>,
    /// Given to L2's unit, with the index of L2.
    pub given: Vec<(u64, Request, u16)>,
    /// Taken by L2's kernel.
    pub second: Vec<(u64, Request)>,
    /// Answered by L2's kernel.
    pub second_answers: Vec<(u64, Group)>,
    /// Answered by L2's unit.
    pub given_answers: Vec<(u64, Group)>,
    /// Answered by L1's kernel.
    pub first_answers: Vec<(u64, Group)>,
    /// Answered by L0's unit.
    pub answered: Vec<(u64, Group)>,
    /// The response is at the device.
    pub received: Vec<(u64, Group)>,
}

impl Seen {
    /// What the traces have seen while L1 did the step `step`.
    pub fn new(device: &DeviceTrace, first: &[Line], second: &[Line], step: &str) -> Self {
        let mark = |is: fn(&Detail) -> Option<&String>| {
            let mut lines = first.iter();
            lines.find(|line| is(&line.detail).is_some_and(|name| name == step))
        };
        let begin = mark(|detail| match detail {
            Detail::Begin(name) => Some(name),
            _ => None,
        });
        let end = mark(|detail| match detail {
            Detail::End(name) => Some(name),
            _ => None,
        });
        // Without its beginning nothing is L2's; without its end L1 hung in it.
        let from = begin.map_or(u64::MAX, |line| line.at);
        let during = from..end.map_or(u64::MAX, |line| line.at);
        let sent = device.sent.iter().filter(|(at, _)| during.contains(at));
        let mut seen = Self {
            sent: sent.copied().collect(),
            taken: device.taken.clone(),
            answered: device.answered.clone(),
            received: device.received.clone(),
            ..Self::default()
        };
        for line in first {
            match &line.detail {
                Detail::PageRequest(request) => seen.first.push((line.at, *request)),
                Detail::Response(group) => seen.first_answers.push((line.at, *group)),
                Detail::Given {
                    request,
                    host_index,
                } => {
                    let group = Group {
                        index: *host_index,
                        ..request.group
                    };
                    let of_host = Request { group, ..*request };
                    seen.given.push((line.at, of_host, request.group.index));
                }
                Detail::Answered(group) => seen.given_answers.push((line.at, *group)),
                _ => {}
            }
        }
        for line in second {
            match &line.detail {
                Detail::PageRequest(request) => seen.second.push((line.at, *request)),
                Detail::Response(group) => seen.second_answers.push((line.at, *group)),
                _ => {}
            }
        }
        seen
    }

    /// The way of each page request, in the order of sending.
    pub fn ways(&self) -> Vec<Way> {
        let mut taken = Stop::new(self.taken.iter().copied());
        let mut first = Stop::new(self.first.iter().copied());
        let mut given = Stop::new(self.given.iter().map(|(at, request, _)| (*at, *request)));
        let indices: BTreeMap<_, _> = self
            .given
            .iter()
            .map(|(at, request, index)| ((*at, *request), *index))
            .collect();
        let mut second = Stop::new(self.second.iter().copied());
        let answers = |of: &[(u64, Group)]| Stop::new(of.iter().copied());
        let second_answers = answers(&self.second_answers);
        let given_answers = answers(&self.given_answers);
        let first_answers = answers(&self.first_answers);
        let answered = answers(&self.answered);
        let received = answers(&self.received);
        let mut sent = self.sent.clone();
        sent.sort_by_key(|(at, _)| *at);
        let again = Stop::new(sent.iter().copied());
        let way = |(start, request): &(u64, Request)| {
            let group = request.group;
            let mut at = [None; LEGS + 1];
            at[0] = Some(*start);
            at[9] = received.first(group, *start, u64::MAX);
            // An answer that never came ends nothing.
            let end = at[9].unwrap_or(u64::MAX);
            let mut last = *start;
            let mut step = |found: Option<u64>| {
                last = found.unwrap_or(last);
                (found, last)
            };
            let (found, from) = step(taken.take(*request, *start, end));
            at[1] = found;
            // Linux writes its event of a request after it has handed the request over: it may come
            // after what the next level does with it, even after the response, but not after the
            // index was used again.
            let until = again.first(*request, end, u64::MAX).unwrap_or(u64::MAX);
            let here = first.take(*request, from, until);
            let there = given.take(*request, from, end);
            let (found, _) = step(here.map(|at| at.min(there.unwrap_or(end))));
            at[2] = found;
            let (found, from) = step(there);
            at[3] = found;
            let second_index = found.and_then(|at| indices.get(&(at, *request)).copied());
            let mut from = from;
            if let Some(index) = second_index {
                let group = Group { index, ..group };
                let inner = Request { group, ..*request };
                let inner_end = given_answers.first(group, from, end);
                let here = second.take(inner, from, until);
                let there = second_answers.first(group, from, inner_end.unwrap_or(end));
                let (found, _) = step(here.map(|at| at.min(there.unwrap_or(end))));
                at[4] = found;
                let (found, next) = step(there);
                at[5] = found;
                at[6] = inner_end;
                from = inner_end.unwrap_or(next);
            }
            let (found, from) = step(first_answers.first(group, from, end));
            at[7] = found;
            at[8] = answered.first(group, from, end);
            Way {
                pasid: group.pasid,
                address: request.address,
                index: group.index,
                second_index,
                at,
            }
        };
        sent.iter().map(way).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of PASID 1, of this index and page.
    const fn request(index: u16, address: u64) -> Request {
        Request {
            group: group(index),
            address,
        }
    }

    const fn group(index: u16) -> Group {
        Group {
            pasid: Some(1),
            index,
        }
    }

    impl Seen {
        /// Adds a request that is at each stop a time after it was at the one before.
        fn add(&mut self, start: u64, leg: u64, of: Request, second_index: u16) {
            let at = |n: u64| start + n * leg;
            let inner = Request {
                group: group(second_index),
                ..of
            };
            self.sent.push((at(0), of));
            self.taken.push((at(1), of));
            self.first.push((at(2), of));
            self.given.push((at(3), of, second_index));
            self.second.push((at(4), inner));
            self.second_answers.push((at(5), inner.group));
            self.given_answers.push((at(6), inner.group));
            self.first_answers.push((at(7), of.group));
            self.answered.push((at(8), of.group));
            self.received.push((at(9), of.group));
        }

        /// Moves the times of L2's kernel.
        fn with_second_off_by(mut self, ticks: i64) -> Self {
            let moved = |at: &mut u64| *at = at.saturating_add_signed(ticks);
            self.second.iter_mut().for_each(|(at, _)| moved(at));
            self.second_answers.iter_mut().for_each(|(at, _)| moved(at));
            self
        }
    }

    fn complete(ways: &[Way]) -> Vec<[u64; LEGS + 1]> {
        ways.iter().filter_map(Way::complete).collect()
    }

    fn steps(start: u64, leg: u64) -> [u64; LEGS + 1] {
        std::array::from_fn(|n| start + n as u64 * leg)
    }

    #[test]
    fn outstanding_requests_for_one_page_are_told_apart_by_their_index() {
        // The second one is faster, and overtakes the first.
        let mut seen = Seen::default();
        seen.add(1000, 100, request(3, 0x7000), 40);
        seen.add(1010, 20, request(4, 0x7000), 41);
        let ways = seen.ways();
        assert_eq!(complete(&ways), [steps(1000, 100), steps(1010, 20)]);
        assert_eq!(
            (ways[0].second_index, ways[1].second_index),
            (Some(40), Some(41))
        );
    }

    #[test]
    fn an_index_that_comes_again_is_another_request() {
        let mut seen = Seen::default();
        for n in 0..3 {
            seen.add(1000 * (n + 1), 100, request(3, 0x7000), 40);
        }
        assert_eq!(
            complete(&seen.ways()),
            [1000, 2000, 3000].map(|start| steps(start, 100))
        );
        // What L1's kernel has not traced is not taken from the next one.
        seen.first.remove(1);
        let ways = seen.ways();
        assert_eq!(ways[1].at[2], None);
        assert_eq!(complete(&ways), [1000, 3000].map(|start| steps(start, 100)));
        // The same with the index of L2.
        seen.add(5000, 100, request(9, 0x7000), 40);
        seen.second.remove(3);
        assert_eq!(complete(&seen.ways()).len(), 2);
    }

    #[test]
    fn requests_of_a_group_have_one_response() {
        let mut seen = Seen::default();
        seen.add(1000, 100, request(3, 0x7000), 40);
        let mut another = Seen::default();
        another.add(1001, 100, request(3, 0x8000), 40);
        seen.sent.append(&mut another.sent);
        seen.taken.append(&mut another.taken);
        seen.first.append(&mut another.first);
        seen.given.append(&mut another.given);
        seen.second.append(&mut another.second);
        let ways = complete(&seen.ways());
        assert_eq!(ways.len(), 2);
        assert_eq!(ways[0][5..], ways[1][5..]);
        assert_eq!((ways[0][4], ways[1][4]), (1400, 1401));
    }

    #[test]
    fn a_page_that_is_requested_twice_in_a_group_is_two_requests() {
        let mut seen = Seen::default();
        seen.add(1000, 100, request(3, 0x7000), 40);
        for requests in [
            &mut seen.sent,
            &mut seen.taken,
            &mut seen.first,
            &mut seen.second,
        ] {
            let (at, request) = requests[0];
            requests.push((at + 1, request));
        }
        let (at, request, index) = seen.given[0];
        seen.given.push((at + 1, request, index));
        let ways = complete(&seen.ways());
        assert_eq!(ways[1][..5], steps(1001, 100)[..5]);
        assert_eq!(ways[1][5..], ways[0][5..]);
    }

    #[test]
    fn what_a_kernel_tells_of_a_request_after_its_response_belongs_to_it() {
        let mut seen = Seen::default();
        seen.add(1000, 100, request(3, 0x7000), 40);
        seen.add(3000, 100, request(3, 0x7000), 40);
        // Another processor was faster than the one that writes the event.
        for told in [&mut seen.first, &mut seen.second] {
            told[0].0 = 2500;
        }
        let ways = complete(&seen.ways());
        assert_eq!(
            ways[0],
            [0, 1, 3, 3, 5, 5, 6, 7, 8, 9].map(|n| 1000 + n * 100)
        );
        assert_eq!(ways[1], steps(3000, 100));
        // What comes after the index was used again is of the later one.
        seen.first.remove(0);
        assert_eq!(complete(&seen.ways()), [steps(3000, 100)]);
    }

    #[test]
    fn a_clock_that_is_off_leaves_ways_incomplete() {
        let seen = || {
            let mut seen = Seen::default();
            seen.add(1000, 100, request(3, 0x7000), 40);
            seen
        };
        assert_eq!(complete(&seen().with_second_off_by(99).ways()).len(), 1);
        for ticks in [-101, 101] {
            let ways = seen().with_second_off_by(ticks).ways();
            assert!(complete(&ways).is_empty(), "{ticks}");
        }
        // An index that L1's QEMU tells wrongly joins nothing.
        let mut wrong = seen();
        wrong.given[0].2 = 41;
        assert!(complete(&wrong.ways()).is_empty());
    }

    #[test]
    fn only_what_was_sent_while_l2_ran_is_its_own() {
        let lines = |text: &[&str]| -> Vec<Line> {
            text.iter().filter_map(|line| Line::parse(line)).collect()
        };
        let marks = lines(&[
            "init-1 [000] ... 100: tracing_mark_write: svm begin other",
            "init-1 [000] ... 200: tracing_mark_write: svm begin guest",
            "init-1 [000] ... 300: tracing_mark_write: svm end guest",
        ]);
        let mut device = DeviceTrace::with_clock(1.0);
        device.sent = [150, 250, 350].map(|at| (at, request(1, 0x1000))).into();
        let sent = |first: &[Line]| -> Vec<u64> {
            let seen = Seen::new(&device, first, &[], "guest");
            seen.sent.iter().map(|(at, _)| *at).collect()
        };
        assert_eq!(sent(&marks), [250]);
        assert_eq!(sent(&marks[..2]), [250, 350]);
        assert!(sent(&marks[..1]).is_empty());
    }
}
