// SPDX-License-Identifier: MIT OR Apache-2.0
//! The differences that are known, of QEMU's `intel-iommu`: what a report of docs/deviations says,
//! as a condition on the case and on what both units did.

use super::apply::{Answer, Seen};
use super::case::{
    At, Case, ContextFault, Invalidated, Invalidation, Kind, PageRequest, Place, Request,
    SpaceFault, Step,
};
use super::run::{Field, Run};
use crate::bench::Like;
use machine::os::{Mode, QueueFault};
use svm_abi::completion::Error;
use vtd::spec::fault::{AddressType, FaultReason, FaultRecord, RequestKind};
use vtd::spec::paging::FirstStageEntry;

/// A difference, and all that may explain it.
struct Found<'a> {
    /// The case as its tables are at the step.
    case: Case,
    /// The steps before.
    earlier: &'a [Step],
    step: &'a Step,
    field: Field,
    left: &'a Seen,
    right: &'a Seen,
}

/// Reports of what this alone has found, which no clause of a rule shows.
pub const REPORTS: std::ops::RangeInclusive<u8> = 25..=41;

/// The numbers of the reports that explain a difference; none if they do not.
pub fn explain(case: &Case, step: usize, field: Field, left: &Run, right: &Run) -> Vec<u8> {
    if case.unit().like != Like::IntelIommu {
        return Vec::new();
    }
    let now = case.before(step);
    if field == Field::End {
        return end(&now, step, right);
    }
    let found = Found {
        case: now,
        earlier: &case.steps[..step],
        step: &case.steps[step],
        field,
        left: &left.seen[step],
        right: &right.seen[step],
    };
    found.explain()
}

/// Why QEMU ended.
fn end(case: &Case, step: usize, right: &Run) -> Vec<u8> {
    let aborts = right
        .end
        .as_ref()
        .is_some_and(|end| end.contains("SIGABRT"));
    match case.steps.get(step) {
        Some(Step::Request(request))
            if aborts
                && request.privileged
                && request.kind == Kind::Translate
                && !case.is_first_stage() =>
        {
            vec![7]
        }
        Some(Step::Request(request))
            if aborts
                && !request.kind.is_translated()
                && case.is_first_stage()
                && has_levels_that_there_are_not(case, request.space) =>
        {
            vec![42]
        }
        _ => Vec::new(),
    }
}

/// Whether the entry of a space has an FSPM that there is not, and FPD on the way suppresses it.
fn has_levels_that_there_are_not(case: &Case, space: usize) -> bool {
    let of_entry = |fault: &SpaceFault| matches!(fault, SpaceFault::PagingMode(mode) if *mode != 0);
    let of_directory = |fault: &SpaceFault| *fault == SpaceFault::DirectoryFaultsDisabled;
    let mut all = case.spaces.iter().flat_map(|space| &space.faults);
    case.mode == Mode::Scalable
        && case.spaces[space].faults.iter().any(of_entry)
        && (case.context.contains(&ContextFault::FaultsDisabled) || all.any(of_directory))
}

impl Found<'_> {
    fn explain(&self) -> Vec<u8> {
        match (self.step, self.field) {
            (Step::Invalidate(invalidation), Field::Queue) => self.queue(Some(invalidation)),
            (_, Field::Queue) => self.queue(None),
            (Step::Request(request), _) => self.request(request),
            (Step::PageRequest(request), _) => self.page_request(request),
            _ => Vec::new(),
        }
    }

    fn queue(&self, invalidation: Option<&Invalidation>) -> Vec<u8> {
        let descriptor = |fault| match fault {
            Some(QueueFault::Descriptor { reason, .. }) => Some(reason),
            _ => None,
        };
        let (left, right) = (self.left.queue, self.right.queue);
        if let (Some(_), Some(0)) = (descriptor(left), descriptor(right)) {
            return vec![12];
        }
        let Some(invalidation) = invalidation else {
            return Vec::new();
        };
        if left.is_some() || descriptor(right).is_none() || invalidation.reserved.is_some() {
            return Vec::new();
        }
        match invalidation.what {
            Invalidated::PasidIotlb if invalidation.granularity == 3 && invalidation.mask > 18 => {
                vec![5]
            }
            Invalidated::ResponseWithoutPasid => vec![21],
            // With FN alone it is taken: the lowest bit of the granularity is FN here.
            Invalidated::Wait if invalidation.granularity & 1 == 0 => vec![33],
            _ => Vec::new(),
        }
    }

    fn request(&self, request: &Request) -> Vec<u8> {
        match self.field {
            Field::Answer => self.answer(request),
            Field::Faults => self.faults(request),
            Field::Leaf => self.leaf(request),
            _ => self.consequence(request),
        }
    }

    // What is so at the step.

    fn space_has(&self, space: usize, wanted: impl Fn(&SpaceFault) -> bool) -> bool {
        self.case.spaces[space].faults.iter().any(wanted)
    }

    fn is(&self, fault: ContextFault) -> bool {
        self.case.mode == Mode::Scalable && self.case.context.contains(&fault)
    }

    /// Whether the PASID of a space is beyond the directory.
    fn is_beyond(&self, space: usize) -> bool {
        let pasid = self.case.spaces[space].pasid;
        pasid.is_some_and(|pasid| pasid >= self.case.pasid_limit())
    }

    fn is_interrupts(&self, space: usize, at: At) -> bool {
        match at {
            At::Interrupts => true,
            At::Page(page, _) => self.case.spaces[space].pages[page].place == Place::Interrupts,
            _ => false,
        }
    }

    /// Whether the entry of PASID 0 cannot be used.
    fn own_space_is_broken(&self) -> bool {
        let shares = |space: &&super::case::Space| space.pasid.is_some_and(|pasid| pasid < 64);
        let shared = self.case.spaces.iter().filter(shares);
        let mut faults = shared.flat_map(|space| &space.faults);
        self.case.mode == Mode::Scalable
            && (self.space_has(0, |_| true) || faults.any(|fault| fault.is_of_directory()))
    }

    /// The reports by which QEMU lets a request through that has to be refused.
    fn let_through(&self, request: &Request) -> Vec<u8> {
        let space = request.space;
        let with_pasid = self.case.spaces[space].pasid.is_some();
        let by_tables = !request.kind.is_translated();
        let of_device_tlb = request.kind == Kind::Translate || request.kind.is_translated();
        let mut reports = Vec::new();
        if by_tables && self.space_has(space, |fault| *fault == SpaceFault::NotPresent) {
            reports.push(4);
        }
        let of_legacy_mode =
            |fault: &ContextFault| matches!(fault, ContextFault::TranslationType(_));
        let refuses =
            self.case.mode == Mode::Legacy && self.case.context.iter().any(of_legacy_mode);
        if of_device_tlb && (self.is(ContextFault::NoDeviceTlb) || refuses) {
            reports.push(8);
        }
        if request.kind.is_translated() && request.at == At::Interrupts {
            reports.push(10);
        }
        if request.kind.is_translated() && self.context_is_broken() {
            reports.push(32);
        }
        if with_pasid && self.is_beyond(space) {
            reports.push(17);
        }
        let reserved = |fault: &SpaceFault| matches!(fault, SpaceFault::Reserved(..));
        if by_tables && self.space_has(space, reserved) {
            reports.push(18);
        }
        if by_tables && !self.case.wish.one_gib_pages && self.is_of_one_gib(request) {
            reports.push(19);
        }
        let reserved = |fault: &SpaceFault| matches!(fault, SpaceFault::DirectoryReserved(_));
        if by_tables
            && self
                .case
                .spaces
                .iter()
                .any(|s| s.faults.iter().any(reserved))
        {
            reports.push(27);
        }
        if with_pasid && self.is(ContextFault::NoPasid) {
            reports.push(22);
        }
        if request.kind == Kind::Read && self.is_interrupts(space, request.at) {
            reports.push(24);
        }
        reports
    }

    /// Whether no request gets beyond root and context entry.
    fn context_is_broken(&self) -> bool {
        let breaks = |fault: &ContextFault| {
            matches!(
                fault,
                ContextFault::NotPresent
                    | ContextFault::Reserved(..)
                    | ContextFault::RootNotPresent
                    | ContextFault::RootReserved(_)
                    | ContextFault::RootNowhere
            )
        };
        self.case.mode == Mode::Scalable && self.case.context.iter().any(breaks)
    }

    /// Whether a translation request without No Write met a page without the permission to write,
    /// of a second stage.
    fn is_read_only_page(&self, request: &Request) -> bool {
        let granted = match &self.left.answer {
            Answer::Translated(translated) => translated.flags,
            _ => return false,
        };
        !self.case.is_first_stage() && !request.no_write && granted.read && !granted.write
    }

    fn is_top(&self, request: &Request) -> bool {
        match request.at {
            At::Page(page, _) => {
                self.case.is_first_stage()
                    && self.case.spaces[request.space].pages[page].place == Place::Top
            }
            _ => false,
        }
    }

    /// Whether the directory entry of a request has FPD.
    fn is_suppressed_by_directory(&self, request: &Request) -> bool {
        let index = |space: &super::case::Space| space.pasid.unwrap_or(0) / 64;
        let own = index(&self.case.spaces[request.space]);
        let sharing = self.case.spaces.iter().filter(|space| index(space) == own);
        let mut faults = sharing.flat_map(|space| &space.faults);
        self.case.mode == Mode::Scalable
            && faults.any(|fault| *fault == SpaceFault::DirectoryFaultsDisabled)
    }

    /// Whether a directory entry has reserved bits, and the report of that is suppressed.
    fn directory_is_wrong(&self) -> bool {
        let faults = || self.case.spaces.iter().flat_map(|space| &space.faults);
        faults().any(|fault| matches!(fault, SpaceFault::DirectoryReserved(_)))
            && faults().any(|fault| *fault == SpaceFault::DirectoryFaultsDisabled)
    }

    /// Whether a request of a kind was sent to the same page before.
    fn follows(&self, request: &Request, kinds: &[Kind]) -> bool {
        let page = |request: &Request| match request.at {
            At::Page(page, _) => Some((request.space, page)),
            _ => None,
        };
        let here = page(request);
        here.is_some()
            && self.earlier.iter().any(|step| match step {
                Step::Request(other) => kinds.contains(&other.kind) && page(other) == here,
                _ => false,
            })
    }

    fn is_of_one_gib(&self, request: &Request) -> bool {
        match request.at {
            At::Page(page, _) => matches!(
                self.case.spaces[request.space].pages[page].place,
                Place::OneGib(_)
            ),
            _ => false,
        }
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        let permits = |answer: &Answer| match answer {
            Answer::Translated(translated) => translated.permits(),
            Answer::Data(_) | Answer::Done => true,
            _ => false,
        };
        let (left, right) = (&self.left.answer, &self.right.answer);
        let refuses = |answer: &Answer| matches!(answer, Answer::Failed(_));
        match (permits(left), permits(right)) {
            (false, true)
                if request.execute && !refuses(left) && self.let_through(request).is_empty() =>
            {
                vec![35]
            }
            (false, true) if self.case.spaces[request.space].pass_through => vec![37],
            (false, true) => self.let_through(request),
            (true, false) if self.own_space_is_broken() && request.space != 0 => vec![16],
            (true, false) if request.kind.is_translated() && self.case.mode == Mode::Legacy => {
                vec![28]
            }
            (true, false) if self.is_read_only_page(request) => vec![36],
            (true, false) if request.kind == Kind::Translate && self.is_top(request) => vec![31],
            (true, false) if request.kind == Kind::Translate => {
                let with_pasid = self.case.spaces[request.space].pasid.is_some();
                match with_pasid && self.is_interrupts(request.space, request.at) {
                    true => vec![9],
                    false => Vec::new(),
                }
            }
            (false, false)
                if request.kind == Kind::Translate
                    && *right == Answer::Failed(Error::CompleterAbort)
                    && self.is_interrupts(request.space, request.at) =>
            {
                vec![9]
            }
            // What was written by a translated address is elsewhere, or nowhere.
            (true, true)
                if request.kind == Kind::Read
                    && self.case.mode == Mode::Legacy
                    && self.follows(request, &[Kind::TranslatedWrite]) =>
            {
                vec![28]
            }
            (true, true) if self.case.spaces[request.space].pass_through && request.no_write => {
                vec![38]
            }
            (false, false) if request.kind == Kind::Translate && self.is_top(request) => vec![31],
            // The one has no PASID there, and the other walks levels that there are not.
            (false, false)
                if *left == Answer::Failed(Error::UnsupportedRequest)
                    && *right == Answer::Failed(Error::CompleterAbort)
                    && self.is_beyond(request.space)
                    && has_levels_that_there_are_not(&self.case, request.space) =>
            {
                vec![17, 42]
            }
            // Neither permits anything, but the one says why.
            (false, false) if refuses(left) && !refuses(right) => vec![25],
            _ => Vec::new(),
        }
    }

    fn leaf(&self, request: &Request) -> Vec<u8> {
        let (Some(left), Some(right)) = (self.left.leaf, self.right.leaf) else {
            return Vec::new();
        };
        let writable = match &self.left.answer {
            Answer::Translated(translated) => translated.flags.write,
            other => *other == Answer::Done,
        };
        if left == right | FirstStageEntry::D && FirstStageEntry(right).a() {
            return vec![1, 2];
        }
        if right == left | FirstStageEntry::D && FirstStageEntry(left).a() && !writable {
            return vec![3];
        }
        if !self.case.wish.one_gib_pages && self.is_of_one_gib(request) {
            return vec![19];
        }
        self.consequence(request)
    }

    /// What follows from it that a request is let through, or is not.
    fn consequence(&self, request: &Request) -> Vec<u8> {
        if self.left.answer != self.right.answer {
            return self.answer(request);
        }
        let unchecked = self.left.faults.iter().find_map(unchecked);
        unchecked.into_iter().collect()
    }

    fn faults(&self, request: &Request) -> Vec<u8> {
        let (left, right) = (&self.left.faults[..], &self.right.faults[..]);
        match (left, right) {
            ([left], [right]) if !self.record(request, left, right).is_empty() => {
                self.record(request, left, right)
            }
            ([_], [record]) if record.fr == FaultReason::ScalableInterruptAddress => {
                match self.is_interrupts(request.space, request.at) {
                    true => vec![9],
                    false => Vec::new(),
                }
            }
            ([left], _) if unchecked(left).is_some() => unchecked(left).into_iter().collect(),
            ([], [record])
                if record.fr == FaultReason::ScalableInterruptAddress
                    && request.kind == Kind::Translate
                    && self.is_interrupts(request.space, request.at) =>
            {
                vec![9]
            }
            ([record], [])
                if request.kind == Kind::Write
                    && self.left.answer == self.right.answer
                    && matches!(record.fr, FaultReason::Write | FaultReason::ScalableWrite) =>
            {
                vec![11]
            }
            ([record], [])
                if request.kind == Kind::Read
                    && self.left.answer == self.right.answer
                    && self.follows(request, &[Kind::Read, Kind::Write, Kind::Translate])
                    && matches!(record.fr, FaultReason::Read | FaultReason::ScalableRead) =>
            {
                vec![11]
            }
            // It has no memory there, but that is all.
            ([record], [])
                if record.fr == FaultReason::TranslationRequestBlocked
                    && request.kind.is_translated()
                    && self.case.spaces[request.space].pass_through =>
            {
                vec![8]
            }
            // The page of 1 GiB that it takes has no memory.
            ([record], [])
                if record.fr == FaultReason::FirstStageEntryReserved
                    && !self.case.wish.one_gib_pages
                    && self.is_of_one_gib(request) =>
            {
                vec![19]
            }
            // It walks though execution is not permitted, and meets an entry that is wrong.
            ([], [record])
                if request.kind == Kind::Translate
                    && request.execute
                    && self.left.answer == self.right.answer
                    && matches!(
                        record.fr,
                        FaultReason::SecondStageEntryAccess | FaultReason::SecondStageEntryReserved
                    ) =>
            {
                vec![35]
            }
            ([], [record])
                if request.space != 0
                    && self.own_space_is_broken()
                    && matches!(
                        record.fr,
                        FaultReason::PasidEntryAccess | FaultReason::PasidDirectoryAccess
                    ) =>
            {
                vec![16]
            }
            ([], [_]) if request.kind.is_translated() && self.case.mode == Mode::Legacy => vec![28],
            ([record], [])
                if self.case.spaces[request.space].pass_through
                    && matches!(
                        record.fr,
                        FaultReason::AddressBeyondHost | FaultReason::AddressBeyondMgaw
                    ) =>
            {
                vec![37]
            }
            ([], [record])
                if request.kind == Kind::Translate
                    && matches!(request.at, At::Beyond | At::Wide)
                    && matches!(
                        record.fr,
                        FaultReason::AddressBeyondMgaw | FaultReason::AddressBeyondSecondStage
                    ) =>
            {
                vec![40]
            }
            ([], [record])
                if record.fr == FaultReason::ContextEntryReserved
                    && self.case.context.contains(&ContextFault::FaultsDisabled) =>
            {
                vec![43]
            }
            ([record], [])
                if !record.fr.qualified()
                    && self.left.answer == self.right.answer
                    && self.case.context.contains(&ContextFault::FaultsDisabled) =>
            {
                vec![39]
            }
            // What the tables say behind an entry that is not looked at.
            ([], [_])
                if !request.kind.is_translated()
                    && self.space_has(request.space, |f| *f == SpaceFault::NotPresent) =>
            {
                vec![4]
            }
            ([_], []) | ([], [_])
                if self.left.answer == self.right.answer
                    && !self.directory_is_wrong()
                    && self.is_suppressed_by_directory(request) =>
            {
                vec![39]
            }
            ([], [_]) if self.directory_is_wrong() => vec![27],
            ([record], [])
                if request.kind.is_translated() && record.at == AddressType::Translated =>
            {
                match request.at {
                    At::Interrupts => vec![10],
                    // It does not get to memory, but that is all.
                    At::Wide | At::Beyond => vec![32],
                    _ => self.consequence(request),
                }
            }
            ([], [record])
                if request.kind == Kind::Translate
                    && matches!(
                        record.fr,
                        FaultReason::PasidEntryInvalid
                            | FaultReason::PasidEntryNotPresent
                            | FaultReason::PasidDirectoryNotPresent
                    ) =>
            {
                vec![6]
            }
            _ => self.consequence(request),
        }
    }

    fn page_request(&self, request: &PageRequest) -> Vec<u8> {
        let (left, right) = (self.left, self.right);
        if self.field == Field::Faults {
            // QEMU records none, or one that is of another kind and reason.
            return match (&left.faults[..], &right.faults[..]) {
                ([record], []) if record.kind == RequestKind::Page => vec![29],
                // FPD suppresses what it does record in no case.
                ([], [record])
                    if record.kind != RequestKind::Page
                        && self.case.context.contains(&ContextFault::FaultsDisabled) =>
                {
                    vec![29]
                }
                ([record], [other])
                    if record.kind == RequestKind::Page
                        && other.kind != RequestKind::Page
                        && (record.fi, record.sid) == (other.fi, other.sid) =>
                {
                    vec![29]
                }
                _ => self.queued(request),
            };
        }
        if let (Field::PageRequests, [one], [other]) = (
            self.field,
            &left.page_requests[..],
            &right.page_requests[..],
        ) {
            let mut without = *one;
            without.request.execute = false;
            return match one.request.execute && without == *other {
                true => vec![14],
                false => Vec::new(),
            };
        }
        self.queued(request)
    }

    /// Why a page request is in the queue of one unit alone.
    fn queued(&self, request: &PageRequest) -> Vec<u8> {
        let space = &self.case.spaces[request.space];
        let arrived = |seen: &Seen| !seen.page_requests.is_empty();
        match (arrived(self.left), arrived(self.right)) {
            (true, false) if space.pasid.is_none() => vec![15],
            (true, false) if self.own_space_is_broken() => vec![16],
            (true, false) if space.pass_through => vec![30],
            (false, true) => {
                let request = Request {
                    kind: Kind::Read,
                    space: request.space,
                    at: At::Hole,
                    no_write: false,
                    execute: false,
                    privileged: false,
                };
                self.let_through(&request)
            }
            _ => Vec::new(),
        }
    }

    /// Why two records of a request differ.
    fn record(&self, request: &Request, left: &FaultRecord, right: &FaultRecord) -> Vec<u8> {
        let mut reports = Vec::new();
        let mut alike = *left;
        if left.fr == FaultReason::PasidDirectoryReserved {
            reports.push(27);
            alike.fr = right.fr;
        }
        if legacy(left.fr) == Some(right.fr) || has_no_permission(left.fr, right.fr) {
            reports.push(34);
            alike.fr = right.fr;
        }
        let absent = matches!(
            left.fr,
            FaultReason::FirstStageEntryNotPresent | FaultReason::FirstStageEntryReserved
        );
        if absent
            && matches!(
                right.fr,
                FaultReason::ScalableWrite | FaultReason::SupervisorPage
            )
        {
            reports.push(41);
            alike.fr = right.fr;
        }
        if request.kind == Kind::Translate {
            if left.pasid.is_some() || left.at != right.at {
                reports.push(23);
                alike.pasid = None;
                alike.exe = false;
                alike.privileged = false;
                alike.at = AddressType::Untranslated;
            }
            if left.kind == RequestKind::Read && right.kind == RequestKind::Write {
                reports.push(26);
                alike.kind = right.kind;
            }
        }
        if request.kind.is_translated()
            && self.case.mode == Mode::Legacy
            && right.at == AddressType::Untranslated
        {
            reports.push(28);
            alike.at = right.at;
            // Where TT blocks it, too: what is recorded is of the second translation.
            if left.fr == FaultReason::TranslationRequestBlocked {
                alike.fr = right.fr;
            }
        }
        match alike == *right {
            true => reports,
            false => Vec::new(),
        }
    }
}

/// The report of a condition that QEMU does not look at: what it does then follows from others.
fn unchecked(record: &FaultRecord) -> Option<u8> {
    let translated = record.at == AddressType::Translated;
    match record.fr {
        FaultReason::PasidEntryNotPresent => Some(4),
        FaultReason::DeviceTlbDisabled => Some(8),
        FaultReason::PasidBeyondDirectory => Some(17),
        FaultReason::PasidEntryReserved => Some(18),
        FaultReason::PasidDisabled => Some(22),
        FaultReason::PasidDirectoryReserved => Some(27),
        reason if translated && is_of_context(reason) => Some(32),
        _ => None,
    }
}

/// Whether a condition is one of root or context entries.
fn is_of_context(reason: FaultReason) -> bool {
    let condition = reason.condition();
    condition.starts_with("SRT") || condition.starts_with("SCT")
}

/// The reason that a condition of scalable mode has in legacy mode.
fn legacy(reason: FaultReason) -> Option<FaultReason> {
    Some(match reason {
        FaultReason::ScalableRootEntryAccess => FaultReason::RootEntryAccess,
        FaultReason::ScalableRootEntryNotPresent => FaultReason::RootEntryNotPresent,
        FaultReason::ScalableRootEntryReserved => FaultReason::RootEntryReserved,
        FaultReason::ScalableContextEntryAccess => FaultReason::ContextEntryAccess,
        FaultReason::ScalableContextEntryNotPresent => FaultReason::ContextEntryNotPresent,
        FaultReason::ScalableContextEntryReserved => FaultReason::ContextEntryReserved,
        FaultReason::ScalableContextEntryInvalid => FaultReason::ContextEntryInvalid,
        FaultReason::ScalableSecondStageEntryAccess => FaultReason::SecondStageEntryAccess,
        FaultReason::ScalableSecondStageEntryReserved => FaultReason::SecondStageEntryReserved,
        FaultReason::SecondStageTableAccess => FaultReason::ContextEntryInvalid,
        FaultReason::AddressBeyondSecondStage => FaultReason::AddressBeyondMgaw,
        FaultReason::ScalableRead => FaultReason::Read,
        FaultReason::ScalableWrite => FaultReason::Write,
        _ => return None,
    })
}

/// Whether a missing permission in the second stage has the reason of legacy mode.
fn has_no_permission(left: FaultReason, right: FaultReason) -> bool {
    left == FaultReason::SecondStageNoPermission
        && matches!(right, FaultReason::Read | FaultReason::Write)
}
