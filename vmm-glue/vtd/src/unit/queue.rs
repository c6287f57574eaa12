// SPDX-License-Identifier: MIT OR Apache-2.0
//! The invalidation queue (section 6.5.2).
//!
//! Descriptors are executed in order as they are fetched. What takes time is the invalidation of
//! Device-TLBs, and the draining of requests in flight: a wait descriptor completes when all of
//! that ahead of it is over. Descriptors behind it go on meanwhile, unless it is a fence.

use super::Unit;
use super::waits::PendingWait;
use crate::effect::{Effect, Effects, Refusal};
use crate::memory::{Memory, read_words};
use crate::mutant::{Mutant, breaks};
use crate::spec::SourceId;
use crate::spec::descriptor::{
    Descriptor, DescriptorError, DeviceTlbInvalidation, QueueError, UnitMode, Wrong,
};
use crate::spec::register::TranslationTableMode;
use crate::turn::QueueTurn;
use pcie_ats::{AlignedRange, InvalidateCompletion, InvalidateRequest};
use std::time::Duration;

/// Why the queue stopped, with the words of the descriptor, if it was fetched.
struct Stop {
    error: DescriptorError,
    words: [u64; 4],
}

impl Stop {
    /// Stopped ahead of a descriptor.
    const fn unfetched(error: QueueError, field: &'static str) -> Self {
        Stop {
            error: DescriptorError {
                error,
                wrong: Wrong::Field(field),
            },
            words: [0; 4],
        }
    }
}

impl Unit {
    /// Processes descriptors of the invalidation queue until it is empty, or something has to
    /// happen first. The host calls this when [`Effect::QueueReady`] asks for it, with an empty
    /// list of effects, carries the effects out, and then ends the turn by [`Unit::end_turn`]: a
    /// wait descriptor is not processed together with what is ahead of it, nor during the turn of
    /// another thread, so that its status says the truth.
    pub fn process_queue(
        &mut self,
        memory: &impl Memory,
        now: Duration,
        fx: &mut Effects,
    ) -> QueueTurn {
        let turn = self.take_turn();
        if turn.is_held() || breaks(Mutant::Turn) {
            self.process_turn(memory, now, fx);
        }
        turn
    }

    /// The effects of a round were carried out. Returns whether another thread asked
    /// for the queue meanwhile: then this host has to call [`Unit::process_queue`] again.
    pub fn end_turn(&mut self, turn: QueueTurn) -> bool {
        self.turns.end(turn)
    }

    /// Takes the turn of the queue, if it is nobody's.
    pub(crate) fn take_turn(&mut self) -> QueueTurn {
        self.turns.take()
    }

    /// Processes descriptors, during a turn.
    pub(crate) fn process_turn(&mut self, memory: &impl Memory, now: Duration, fx: &mut Effects) {
        self.accesses_ended();
        self.queue.last = None;
        self.complete_waits_here(memory, fx);
        while self.registers.queue_runs()
            && self.registers.iqh() != self.registers.iqt()
            && !self.queue.held()
        {
            match self.step(memory, now, fx) {
                Ok(true) if self.awaits_confirmation(fx) => return self.queue_ready(fx),
                Ok(true) => {}
                Ok(false) => return,
                Err(stop) => return self.stop(stop, fx),
            }
        }
    }

    /// The queue stops at the descriptor that its head stands at.
    fn stop(&mut self, stop: Stop, fx: &mut Effects) {
        let Stop { error, words } = stop;
        fx.push(Effect::Refused(Refusal::Descriptor {
            head: self.registers.iqh(),
            words,
            error: error.error,
            wrong: error.wrong,
        }));
        self.registers.queue_error(error.error, fx);
        if breaks(Mutant::Rule74) {
            self.registers.set_iqh(self.registers.iqh() + 32);
        }
    }

    /// Whether the host has yet to say that it could carry out what was invalidated.
    fn awaits_confirmation(&self, fx: &Effects) -> bool {
        self.caps.config().confirm_invalidations
            && !breaks(Mutant::Confirm)
            && fx.iter().any(|e| matches!(e, Effect::Invalidated(_)))
    }

    /// The host could not carry out what the descriptor of this turn invalidates: the queue stops
    /// there with IQE, and no wait behind it completes (section 6.5.2.11). For units whose
    /// configuration has `confirm_invalidations`; returns whether there was such a descriptor.
    pub fn invalidation_failed(&mut self, turn: &QueueTurn, fx: &mut Effects) -> bool {
        if !turn.is_held() || !self.caps.config().confirm_invalidations {
            return false;
        }
        let Some((head, words)) = self.queue.last.take() else {
            return false;
        };
        self.registers.set_iqh(head);
        let error = DescriptorError {
            error: QueueError::NoInformation,
            wrong: Wrong::Field("what it invalidates, which the host could not carry out"),
        };
        self.stop(Stop { error, words }, fx);
        true
    }

    /// Fetches and executes one descriptor. Returns whether it went on.
    fn step(
        &mut self,
        memory: &impl Memory,
        now: Duration,
        fx: &mut Effects,
    ) -> Result<bool, Stop> {
        let (base, size, wide) = self.registers.iqa();
        let (head, tail) = (self.registers.iqh(), self.registers.iqt());
        let scalable_types = self.check_queue_mode(wide)?;
        if wide && tail & 0x10 != 0 {
            let field = "tail (IQT), which is not a multiple of 32";
            return Err(Stop::unfetched(QueueError::TailAlignment, field));
        }
        if tail >= size || head >= size {
            let field = "tail (IQT), which is beyond the queue";
            return Err(Stop::unfetched(QueueError::Tail, field));
        }
        let at = base + head;
        let words = if wide {
            read_words(memory, at)
        } else {
            read_words::<2>(memory, at).map(|w| [w[0], w[1], 0, 0])
        };
        let field = "address, where the descriptor cannot be read";
        let words = words.map_err(|_| Stop::unfetched(QueueError::Fetch, field))?;
        let checked = match breaks(Mutant::B12) {
            true => [words[0], words[1], 0, 0],
            false => words,
        };
        let descriptor = Descriptor::parse(
            checked,
            &UnitMode {
                cap: self.cap(),
                ecap: self.ecap(),
                host_address_width: self.caps.host_address_width(),
                scalable_types,
                always_drain: self.caps.config().version.0 >= 2,
            },
        )
        .map_err(|error| Stop { error, words })?;
        let without_pasid = matches!(&descriptor, Descriptor::PageGroupResponse { response, .. }
            if response.pasid.is_none());
        if without_pasid && breaks(Mutant::S57) {
            let error = DescriptorError {
                error: QueueError::Reserved,
                wrong: Wrong::Field("PP"),
            };
            return Err(Stop { error, words });
        }
        if matches!(descriptor, Descriptor::Wait(_)) && !fx.is_empty() {
            fx.push(Effect::QueueReady);
            return Ok(false);
        }
        if !self.execute(&descriptor, now, fx) {
            return Ok(false);
        }
        self.queue.last = Some((head, words));
        self.counters.descriptors += 1;
        let width = if wide { 32 } else { 16 };
        self.registers.set_iqh((head + width) % size);
        self.complete_waits_here(memory, fx);
        Ok(true)
    }

    /// Checks that the descriptor width goes with the translation table mode. Returns whether the
    /// descriptor types of scalable mode are valid (table 26).
    fn check_queue_mode(&self, wide: bool) -> Result<bool, Stop> {
        let ecap = self.ecap();
        let width = |field| Err(Stop::unfetched(QueueError::Width, field));
        if wide && !(ecap.smts() || ecap.adms()) {
            return width("descriptor width (IQA.DW), which is 256 bits without scalable mode");
        }
        let scalable = match self.translation_table_mode() {
            TranslationTableMode::Legacy => return Ok(false),
            TranslationTableMode::Scalable => ecap.smts(),
            TranslationTableMode::AbortDma => ecap.adms(),
            TranslationTableMode::Reserved => false,
        };
        if !scalable {
            let field = "translation table mode (RTADDR.TTM)";
            return Err(Stop::unfetched(QueueError::TranslationTableMode, field));
        }
        if !wide && self.caps.config().strict {
            return width("descriptor width (IQA.DW), which is 128 bits in scalable mode");
        }
        Ok(true)
    }

    /// Executes a descriptor. Returns false if it cannot be now.
    fn execute(&mut self, descriptor: &Descriptor, now: Duration, fx: &mut Effects) -> bool {
        match *descriptor {
            Descriptor::ContextCache(scope) => self.invalidate_contexts(scope, fx),
            Descriptor::PasidCache(scope) => self.invalidate_pasids(scope, fx),
            Descriptor::Iotlb {
                scope,
                leaf_only,
                drain,
            } => {
                self.invalidate_iotlb(scope, leaf_only, fx);
                if drain && !breaks(Mutant::G12) {
                    self.queue.generation = self.in_flight.drain();
                }
            }
            Descriptor::DeviceTlb(request) => return self.invalidate_device_tlb(&request, now, fx),
            Descriptor::InterruptEntryCache(scope) => self.invalidate_interrupts(scope, fx),
            Descriptor::PageGroupResponse { rid, mut response } => {
                if breaks(Mutant::G29) {
                    response.pasid = None;
                }
                if !self.groups.answered(rid, &response) {
                    self.counters.unexpected_responses += 1;
                }
                fx.push(Effect::PrgResponse {
                    requester: rid,
                    response,
                });
            }
            Descriptor::Wait(wait) => self.queue.waits.push_back(PendingWait {
                wait,
                after: self.device_tlb.sequence(),
                generation: self.queue.generation,
            }),
        }
        true
    }

    /// Sends an invalidation request (section 4.3). Returns false if the function has as many
    /// pending as it takes: the queue goes on when one of them completes.
    fn invalidate_device_tlb(
        &mut self,
        request: &DeviceTlbInvalidation,
        now: Duration,
        fx: &mut Effects,
    ) -> bool {
        let Some(itag) = self.device_tlb.begin(request, now) else {
            return false;
        };
        fx.push(Effect::InvalidateRequest {
            requester: request.sid,
            request: InvalidateRequest {
                itag,
                pasid: request.pasid,
                range: match breaks(Mutant::S36) {
                    true => AlignedRange::page(request.range.base()),
                    false => request.range,
                },
                global: request.global,
            },
        });
        true
    }

    /// A function has completed invalidation requests (section 4.3).
    pub fn invalidate_completion(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        completion: &InvalidateCompletion,
        fx: &mut Effects,
    ) {
        // Without remapping, the message is an unsupported request (section 4.2.1).
        if !self.translation_enabled() {
            return;
        }
        let completed = self.device_tlb.complete(requester, completion);
        if completed.any {
            self.complete_waits(memory, fx);
            self.queue_ready(fx);
        }
        if completed.invalid {
            fx.push(Effect::Refused(Refusal::Completion {
                requester,
                itag_vector: completion.itag_vector,
            }));
            self.registers.completion_error(requester, fx);
        }
    }

    /// Time has passed: invalidation requests may have timed out (section 6.5.2.11).
    pub fn advance(&mut self, now: Duration, fx: &mut Effects) {
        let expired = self.device_tlb.expire(now);
        if expired.is_empty() {
            return;
        }
        self.counters.invalidation_timeouts += expired.len() as u64;
        // Pending waits are aborted; software submits them again.
        self.queue.waits.clear();
        for requester in expired {
            if !breaks(Mutant::G19) {
                self.registers.timeout_error(requester, fx);
            }
        }
    }

    /// When [`Unit::advance`] has something to do next.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.device_tlb.next_deadline()
    }

    /// How many invalidation requests are pending.
    pub fn pending_invalidations(&self) -> usize {
        self.device_tlb.len()
    }

    /// Completes the wait descriptors that have nothing to wait for any more, and says so if the
    /// queue can go on.
    pub(super) fn complete_waits(&mut self, memory: &impl Memory, fx: &mut Effects) {
        let held = self.queue.held();
        self.complete_waits_here(memory, fx);
        if held && !self.queue.held() {
            self.queue_ready(fx);
        }
    }

    fn complete_waits_here(&mut self, memory: &impl Memory, fx: &mut Effects) {
        while let Some(&PendingWait {
            wait,
            after,
            generation,
        }) = self.queue.waits.front()
        {
            if !self.device_tlb.settled(after) || !self.in_flight.drained(generation) {
                return;
            }
            self.queue.waits.pop_front();
            // Page requests are written to their queue as they arrive: those that were received
            // before this are visible already, as PD asks (section 7.7).
            if let Some((address, data)) = wait.status {
                if memory.write(address, &data.to_le_bytes()).is_err() {
                    self.counters.lost_status_writes += 1;
                }
            }
            if wait.interrupt {
                self.registers.wait_completed(fx);
            }
        }
    }
}
