// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pending invalidation requests to Device-TLBs (section 4.3): their tags, completions and
//! time-outs.

use crate::cache::NumberMap;
use crate::mutant::{Mutant, breaks};
use crate::spec::SourceId;
use crate::spec::descriptor::DeviceTlbInvalidation;
use pcie_ats::{InvalidateCompletion, Itag};
use std::time::Duration;

/// Number of tags of a function.
const TAGS: u8 = 32;

/// A pending invalidation request.
#[derive(Clone, Copy, Debug)]
struct Pending {
    requester: SourceId,
    /// The function whose pending requests are counted.
    throttle: SourceId,
    itag: u8,
    /// InvCmpCnt: completions received.
    completions: u8,
    /// Number of expected completions, from the first one.
    expected: Option<u8>,
    /// Its completions contradict each other: they are not reliable, and the request times out.
    contradicted: bool,
    deadline: Duration,
    sequence: u64,
}

/// The pending invalidation requests.
#[derive(Debug)]
pub(crate) struct DeviceTlb {
    timeout: Duration,
    pending: Vec<Pending>,
    /// The tag after the last one of each requester: tags are used in turn, so that a late
    /// completion finds a free tag rather than another request.
    next: NumberMap<u8>,
    sequence: u64,
}

/// The result of a completion message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completed {
    /// At least one request is complete.
    pub any: bool,
    /// At least one tag belonged to no request of the function, or to one whose earlier completions
    /// had another count.
    pub invalid: bool,
}

impl DeviceTlb {
    pub fn new(timeout: Duration) -> Self {
        DeviceTlb {
            timeout,
            pending: Vec::new(),
            next: NumberMap::default(),
            sequence: 0,
        }
    }

    /// Starts a request, and returns its tag; none if the function has its maximum of pending
    /// requests, or no free tag.
    pub fn begin(&mut self, request: &DeviceTlbInvalidation, now: Duration) -> Option<Itag> {
        let pfsid = match breaks(Mutant::G20) {
            true => request.sid,
            false => request.pfsid,
        };
        let busy = self.pending.iter().filter(|p| p.throttle == pfsid);
        if busy.count() >= usize::from(request.max_pending) {
            return None;
        }
        let next = self.next.entry(request.sid.0.into()).or_default();
        let taken = |tag: u8| {
            let same = |p: &Pending| p.requester == request.sid && p.itag == tag;
            self.pending.iter().any(same)
        };
        let tag = (0..TAGS).map(|n| (*next + n) % TAGS).find(|t| !taken(*t))?;
        let itag = Itag::new(tag).ok()?;
        *next = (tag + 1) % TAGS;
        self.pending.push(Pending {
            requester: request.sid,
            throttle: pfsid,
            itag: tag,
            completions: 0,
            expected: None,
            contradicted: false,
            deadline: now.saturating_add(self.timeout),
            sequence: self.sequence,
        });
        self.sequence += 1;
        Some(itag)
    }

    /// Handles a completion of a function: first its valid tags, then the others (section 4.3).
    pub fn complete(&mut self, requester: SourceId, message: &InvalidateCompletion) -> Completed {
        let mut completed = Completed::default();
        for tag in (0..TAGS).filter(|tag| message.itag_vector >> tag & 1 != 0) {
            let same = |p: &Pending| p.requester == requester && p.itag == tag;
            let Some(at) = self.pending.iter().position(same) else {
                completed.invalid = true;
                continue;
            };
            let pending = &mut self.pending[at];
            // A count of 0 means 8; all completions of a tag have the same count (PCIe 10.3.3).
            let count = match message.completion_count {
                0 => 8,
                count => count,
            };
            if *pending.expected.get_or_insert(count) != count {
                pending.contradicted = true;
            }
            if pending.contradicted {
                completed.invalid = true;
                continue;
            }
            pending.completions += 1;
            if pending.completions >= count {
                self.pending.swap_remove(at);
                completed.any = true;
            }
        }
        completed
    }

    /// Frees the tags of requests that have timed out, and returns their functions.
    pub fn expire(&mut self, now: Duration) -> Vec<SourceId> {
        let mut expired: Vec<Pending> = Vec::new();
        self.pending.retain(|p| {
            if p.deadline <= now {
                expired.push(*p);
            }
            p.deadline > now
        });
        expired.sort_by_key(|p| p.sequence);
        expired.iter().map(|p| p.requester).collect()
    }

    /// When the next request times out.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.pending.iter().map(|p| p.deadline).min()
    }

    /// The number of the next request.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether all requests with a number below this are completed, or timed out.
    pub fn settled(&self, sequence: u64) -> bool {
        self.pending.iter().all(|p| p.sequence >= sequence)
    }

    /// Number of pending requests.
    pub fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::AlignedRange;

    const SECOND: Duration = Duration::from_secs(1);

    fn to(sid: u16, pfsid: u16, max_pending: u8) -> DeviceTlbInvalidation {
        DeviceTlbInvalidation {
            sid: SourceId(sid),
            pfsid: SourceId(pfsid),
            max_pending,
            pasid: None,
            global: false,
            range: AlignedRange::ALL,
        }
    }

    fn message(itag_vector: u32, completion_count: u8) -> InvalidateCompletion {
        InvalidateCompletion {
            itag_vector,
            completion_count,
        }
    }

    #[test]
    fn a_function_has_32_tags_and_takes_no_more_than_it_says() {
        let mut d = DeviceTlb::new(SECOND);
        let tags: Vec<u8> = (0..40)
            .map_while(|_| d.begin(&to(1, 1, 32), Duration::ZERO))
            .map(Itag::get)
            .collect();
        assert_eq!(tags, (0..32).collect::<Vec<u8>>());
        assert!(d.begin(&to(2, 2, 1), Duration::ZERO).is_some());
        assert!(d.begin(&to(2, 2, 1), Duration::ZERO).is_none());
        // Virtual functions share the depth of their physical function.
        assert!(d.begin(&to(3, 9, 2), Duration::ZERO).is_some());
        assert!(d.begin(&to(4, 9, 2), Duration::ZERO).is_some());
        assert!(d.begin(&to(5, 9, 2), Duration::ZERO).is_none());
    }

    #[test]
    fn a_request_is_complete_when_all_its_completions_have_come() {
        let mut d = DeviceTlb::new(SECOND);
        for _ in 0..3 {
            let _ = d.begin(&to(1, 1, 32), Duration::ZERO);
        }
        let sequence = d.sequence();
        let one = d.complete(SourceId(1), &message(0b101, 2));
        assert_eq!((one.any, one.invalid), (false, false));
        let two = d.complete(SourceId(1), &message(0b101, 2));
        assert_eq!((two.any, two.invalid, d.len()), (true, false, 1));
        assert!(!d.settled(sequence));
        let late = d.complete(SourceId(1), &message(0b110, 1));
        assert_eq!((late.any, late.invalid), (true, true));
        assert!(d.settled(sequence));
        // The same tag of another function is a different tag.
        let _ = d.begin(&to(1, 1, 32), Duration::ZERO);
        assert!(d.complete(SourceId(2), &message(1 << 3, 1)).invalid);
        assert_eq!(d.len(), 1);
    }

    #[test]
    fn a_completion_count_of_zero_means_eight() {
        let mut d = DeviceTlb::new(SECOND);
        let _ = d.begin(&to(1, 1, 32), Duration::ZERO);
        for n in 1..=8 {
            let completed = d.complete(SourceId(1), &message(1, 0));
            assert_eq!((completed.any, completed.invalid), (n == 8, false), "{n}");
        }
    }

    #[test]
    fn completions_that_contradict_each_other_complete_nothing() {
        let mut d = DeviceTlb::new(SECOND);
        let _ = d.begin(&to(1, 1, 32), Duration::ZERO);
        for (count, invalid) in [(2, false), (3, true), (2, true), (2, true)] {
            let completed = d.complete(SourceId(1), &message(1, count));
            assert_eq!((completed.any, completed.invalid), (false, invalid));
        }
        assert_eq!(d.expire(SECOND), [SourceId(1)]);
    }

    #[test]
    fn a_tag_is_free_after_a_time_out_and_used_again_last() {
        let mut d = DeviceTlb::new(SECOND);
        let _ = d.begin(&to(1, 1, 32), Duration::ZERO);
        let _ = d.begin(&to(2, 2, 32), SECOND / 2);
        assert_eq!(d.next_deadline(), Some(SECOND));
        assert_eq!(d.expire(SECOND - Duration::from_nanos(1)), []);
        assert_eq!(d.expire(SECOND), [SourceId(1)]);
        let tag = d.begin(&to(1, 1, 32), SECOND);
        assert_eq!(tag.map(Itag::get), Some(1));
        assert!(d.complete(SourceId(1), &message(1, 1)).invalid);
        assert_eq!(d.expire(SECOND * 9), [SourceId(2), SourceId(1)]);
        assert_eq!(d.next_deadline(), None);
    }
}
