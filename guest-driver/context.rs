// SPDX-License-Identifier: GPL-2.0-only

//! One context of the device: its owner, and how it is started, stopped and revoked.
//!
//! The purpose of this module is the order of teardown. It is always: no new work (the doorbell
//! page is unmapped, or its owner is gone), stop, wait for the responses to the page requests, end
//! the bond, and only then free the context for its next owner.
//!
//! Locks, in the order in which they may be taken:
//!
//! 1. the lock of the device, taken to bind, unbind and reset the function;
//! 2. the lock of the node (`node.c`), taken for reading by `open`, for writing by unbinding;
//! 3. `state`;
//! 4. one of `progress` and `doorbell`, and `i_mmap_rwsem` where mappings are removed;
//! 5. those of [`Faults`] and of the quota.
//!
//! `iommu_sva_lock`, which the kernel takes to begin and end bonds, comes after the lock of the
//! node and after `state`, and none of the others is taken below it; a bond ends below `state` only
//! when its own file is closed. No lock is held while user memory is accessed, and only `doorbell`
//! is taken below the mmap lock. An interrupt handler takes none of them.

use kernel::{
    devres::Devres,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        Mutex, //
    }, //
};

use crate::{
    bar::{
        ContextRegisters,
        Registers,
        Start,
        StopTimeout, //
    },
    doorbell::Mappings,
    eventfd::EventFd,
    faults::{
        FaultKind,
        Faults, //
    },
    quota::Share,
    regs::{
        Phase,
        MODERATION,
        STATUS, //
    },
    signals::Signals,
    sva::Bond,
    trace::{
        self,
        Tracer, //
    }, //
};

/// The state of an open file in its context.
pub(crate) struct FileState {
    /// The file's mappings of the doorbell page.
    pub(crate) mappings: Mappings,
    /// The resources to hold until the context has stopped.
    pub(crate) held: HeldResources,
}

/// The resources of a file that a context holds until it has stopped, even if the file is closed
/// earlier.
pub(crate) struct HeldResources {
    /// The bond with the address space that opened the file.
    pub(crate) _bond: Devres<Bond>,
    /// The context's share of its user's quota.
    pub(crate) _share: Share,
    /// The owner, for display.
    pub(crate) owner: Owner,
}

/// The owner of a context.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    /// The process that opened the file.
    pub(crate) process: i32,
    /// The PASID of its address space.
    pub(crate) pasid: u32,
}

/// The allocation state of the context.
enum State {
    /// No owner.
    Free,
    /// A file that is being opened, and has no bond yet.
    Reserved,
    /// An open file.
    Open(FileState),
    /// No owner, but it may not have stopped yet: the file was closed while a page request had no
    /// response, or the device is being removed. The bond lives until it has stopped.
    Draining(HeldResources),
    /// No owner. It has stopped, and its bond is being ended.
    Ending,
    /// No owner ever again: the device is gone.
    Gone,
}

/// Whether a page fault on the doorbell page maps the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The context has no owner.
    Closed,
    /// It does.
    Open,
    /// Not now: the function is being reset, and does not answer.
    Paused,
}

/// The result of a page fault on the doorbell page.
pub(crate) enum Doorbell<R> {
    /// The page may be mapped; the result of mapping it.
    Mapped(R),
    /// Not now, but later.
    Later,
    /// Never again.
    Never,
}

/// A context reserved for a file, until the value is dropped or the file has taken it.
pub(crate) struct Reservation(Option<Arc<Context>>);

impl Reservation {
    /// Gives the context to the file of `file_state`.
    pub(crate) fn occupy(mut self, file_state: FileState) -> Result<Arc<Context>> {
        let context = self.0.take().ok_or(ENODEV)?;

        context.occupy(file_state);
        Ok(context)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.abandon();
        }
    }
}

/// The requests to the context, and the progress of its readers.
struct Progress {
    /// The process that opened the context last.
    owner: Option<Owner>,
    /// The context was started, and not asked to stop.
    started: bool,
    /// The reasons why it must not be started now, if any.
    paused: Paused,
    /// The last ring that it was started with, since the file was opened.
    ring: u64,
    ring_log2: u8,
    /// The moderation of its interrupts.
    moderation: MODERATION,
    /// Number of interrupts since then that were reported to readers.
    taken: u64,
    /// Number of lost completion records since then that were reported to readers.
    lost: u64,
    /// The halt of the context was already reported.
    told: bool,
    /// The file is being closed.
    closing: bool,
}

/// Why contexts must not be started temporarily.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The machine is going to sleep.
    Sleep,
    /// The function is being reset: its registers may not answer.
    Reset,
}

/// The active [`Pause`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Paused {
    sleep: bool,
    reset: bool,
}

impl Paused {
    fn set(&mut self, why: Pause, paused: bool) {
        match why {
            Pause::Sleep => self.sleep = paused,
            Pause::Reset => self.reset = paused,
        }
    }
}

impl Progress {
    /// The progress of a context that `owner` has just opened.
    fn new(owner: Option<Owner>, paused: Paused) -> Self {
        Self {
            owner,
            started: false,
            paused,
            ring: 0,
            ring_log2: 0,
            moderation: Zeroable::zeroed(),
            taken: 0,
            lost: 0,
            told: false,
            closing: false,
        }
    }
}

/// One context.
#[pin_data]
pub(crate) struct Context {
    index: u16,
    tracer: Tracer,
    faults: Arc<Faults>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    progress: Mutex<Progress>,
    #[pin]
    doorbell: Mutex<Door>,
    /// The context was revoked.
    gone: Atomic<bool>,
    #[pin]
    signals: Signals,
}

/// What a reader or poller finds.
pub(crate) enum Pending {
    /// This number of interrupts, and the context works.
    Interrupts(u64),
    /// This number of interrupts, and the context no longer works: there will be no more.
    Halted(u64),
    /// The device could not write a completion record since the last read.
    Lost,
    /// The device is gone.
    Gone,
}

/// A context for display in `fdinfo` and `debugfs`.
pub(crate) struct View {
    /// The allocation state.
    pub(crate) holder: &'static str,
    pub(crate) owner: Option<Owner>,
    /// The name of its state.
    pub(crate) state: &'static str,
    /// Why it halted: see [`STATUS::reason`].
    pub(crate) reason: u8,
    pub(crate) ring: u64,
    pub(crate) ring_entries: u64,
    pub(crate) head: u64,
    pub(crate) tail: u64,
    pub(crate) moderation: MODERATION,
    pub(crate) eventfd: bool,
}

impl Context {
    /// Creates context `index` of `/dev/svmN`, in the free state.
    pub(crate) fn new(index: u16, number: u32, faults: Arc<Faults>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            index,
            tracer: Tracer {
                device: number,
                context: *index,
            },
            faults,
            state <- new_mutex!(State::Free, "svm_demo::Context::state"),
            progress <- new_mutex!(
                Progress::new(None, Paused::default()),
                "svm_demo::Context::progress"
            ),
            doorbell <- new_mutex!(Door::Closed, "svm_demo::Context::doorbell"),
            gone: Atomic::new(false),
            signals <- Signals::new(),
        })
    }

    /// Number of the context in its device.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Whether the context was revoked.
    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: a thread that sees it also sees the end of the bond before it.
        self.gone.load(Acquire)
    }

    /// Whether the context has no owner.
    pub(crate) fn is_free(&self) -> bool {
        // The holder of the lock owns the context, or is about to release it.
        self.state
            .try_lock()
            .is_some_and(|state| matches!(*state, State::Free))
    }

    /// The notification of the context's waiters.
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    fn registers<'a>(&self, registers: &'a Registers) -> ContextRegisters<'a> {
        registers.context(self.index)
    }

    /// Reserves the context if it is free. If the function is being reset, waits for the end of the
    /// reset.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone, `ERESTARTSYS` if a signal arrived during the wait.
    pub(crate) fn reserve(this: &Arc<Self>, registers: &Registers) -> Result<Option<Reservation>> {
        loop {
            match this.try_reserve(registers) {
                Err(EAGAIN) => drop(this.wait_for_reset()?),
                Ok(true) => return Ok(Some(Reservation(Some(this.clone())))),
                Ok(false) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reserves the context if it is free; `EAGAIN` if the function is being reset.
    fn try_reserve(&self, registers: &Registers) -> Result<bool> {
        // The holder of the lock owns the context, or is about to release it.
        let Some(mut state) = self.state.try_lock() else {
            return Ok(false);
        };
        let State::Free = *state else {
            return Ok(false);
        };
        if self.progress.lock().paused.reset {
            return Err(EAGAIN);
        }
        let context = self.registers(registers);

        // The driver may have found it active, and even a reset may not have stopped it.
        if !context.status()?.is(Phase::Disabled) {
            return Ok(false);
        }
        // Before the next owner can see its doorbell page.
        context.clear()?;
        *state = State::Reserved;
        Ok(true)
    }

    /// Assigns a reserved context to the file of `file_state`.
    fn occupy(&self, file_state: FileState) {
        let owner = file_state.held.owner;
        let mut state = self.state.lock();

        *state = State::Open(file_state);
        let mut progress = self.progress.lock();
        *progress = Progress::new(Some(owner), progress.paused);
        let paused = progress.paused.reset;
        drop(progress);
        *self.doorbell.lock() = if paused { Door::Paused } else { Door::Open };

        self.tracer.open(owner.pasid);
    }

    /// Releases a reserved context.
    fn abandon(&self) {
        *self.state.lock() = State::Free;
    }

    /// Starts the context on a ring. If the machine is going to sleep, waits until it has woken up;
    /// if the function is being reset, waits for the end of the reset.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is already started, or stopping, `ENODEV` if the device is gone, `EIO` if it
    /// halted at once, `ERESTARTSYS` if a signal (or the freezer) interrupted the wait.
    pub(crate) fn start(&self, registers: &Registers, start: Start) -> Result {
        let result = loop {
            // Read this before the check, so that no event between check and sleep is lost.
            let events = self.signals.events();

            match self.try_start(registers, start) {
                Ok(true) => break Ok(()),
                Ok(false) => self.signals.wait(events)?,
                Err(error) => break Err(error),
            }
        };

        self.tracer
            .start(start.ring, 1 << start.ring_log2, trace::result(&result));
        result
    }

    /// Starts the context; `false` if that is not permitted now.
    fn try_start(&self, registers: &Registers, start: Start) -> Result<bool> {
        let state = self.state.lock();
        match *state {
            State::Open(_) => {}
            // The device is about to go.
            State::Draining(_) | State::Ending => return Err(EBUSY),
            State::Free | State::Reserved | State::Gone => return Err(ENODEV),
        }
        let context = self.registers(registers);
        let mut progress = self.progress.lock();

        if progress.paused != Paused::default() {
            return Ok(false);
        }
        if !context.status()?.is(Phase::Disabled) {
            return Err(EBUSY);
        }
        // Before the first interrupt can arrive: the device counts from the start.
        progress.taken = 0;
        progress.lost = 0;
        self.signals.started();
        let status = context.start(start, progress.moderation)?;
        progress.ring = start.ring;
        progress.ring_log2 = start.ring_log2;
        progress.started = status.is(Phase::Enabled);
        progress.told = false;

        if progress.started {
            return Ok(true);
        }
        progress.told = true;
        self.record_fault(&progress, FaultKind::NotStarted(status.reason()));
        drop(progress);
        match context.stop(StopTimeout::Short, |_| {}) {
            Err(ENODEV) => Err(ENODEV),
            // If it has not stopped, the next start detects that.
            Ok(()) | Err(_) => Err(EIO),
        }
    }

    /// Stops the context and waits until it is disabled. Does nothing if it is not started.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone, `ETIMEDOUT` if the context is not disabled in time,
    /// `ERESTARTSYS` if a signal arrived first.
    pub(crate) fn stop(&self, registers: &Registers) -> Result {
        let mut again = true;
        let result = loop {
            match self.try_stop(registers) {
                // The device exists, but does not answer during a reset; or the reset has ended
                // between the read and this check.
                Err(ENODEV) if self.wait_for_reset()? || core::mem::take(&mut again) => {}
                result => break result,
            }
        };

        self.tracer.stop(trace::result(&result));
        result
    }

    fn try_stop(&self, registers: &Registers) -> Result {
        let state = self.state.lock();
        let context = self.registers(registers);

        match *state {
            State::Open(_) => {
                let mut progress = self.progress.lock();
                progress.started = false;
                let status = context.begin_stop()?;
                self.look(&mut progress, &context, status);
            }
            // The device is being removed, and the context was asked to stop. It may still access
            // the memory of the process, so do not return `ENODEV` yet.
            State::Draining(_) | State::Ending => {}
            State::Free | State::Reserved | State::Gone => return Err(ENODEV),
        }

        // Without the lock, because any number of threads may wait here, and revoking the context
        // must not wait for them.
        drop(state);
        let task = current!();
        context.wait_disabled(StopTimeout::Full, || {
            if task.signal_pending() {
                return Err(ERESTARTSYS);
            }
            // If another thread has started it again, it was disabled meanwhile.
            Ok(self.progress.lock().started)
        })
    }

    /// Sets the moderation of interrupts, until the file is closed.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone.
    pub(crate) fn moderate(&self, registers: &Registers, moderation: MODERATION) -> Result {
        let state = self.state.lock();
        let (State::Open(_) | State::Draining(_)) = *state else {
            return Err(ENODEV);
        };
        let mut progress = self.progress.lock();

        // During a reset the registers may not answer, and lose their values; the next start sets
        // this one.
        if !progress.paused.reset {
            self.registers(registers).moderate(moderation)?;
        }
        progress.moderation = moderation;
        Ok(())
    }

    /// Attaches the program's eventfd, which replaces an earlier one.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone.
    pub(crate) fn attach(&self, eventfd: Option<EventFd>) -> Result {
        if self.is_gone() {
            return Err(ENODEV);
        }
        self.signals.attach(eventfd);
        // The device may have gone before the eventfd was attached.
        if self.is_gone() {
            self.signals.tell();
        }
        Ok(())
    }

    /// Releases the context when its file is released. `false` if it has not stopped in time, and
    /// therefore stays in use.
    pub(crate) fn close(&self, registers: &Registers) -> bool {
        self.progress.lock().closing = true;
        self.signals.attach(None);

        let mut state = self.state.lock();
        let held = match core::mem::replace(&mut *state, State::Free) {
            // A mapping would hold a reference to the file, which is being released, so there is
            // none to remove.
            State::Open(FileState { held, mappings: _ }) => held,
            other => {
                *state = other;
                return true;
            }
        };
        *self.doorbell.lock() = Door::Closed;

        let process = held.owner.process;
        let context = self.registers(registers);
        let result = context.stop(registers.stop_timeout(process), |status| {
            self.look(&mut self.progress.lock(), &context, status);
        });

        self.tracer.close(trace::result(&result));
        match result {
            // No device, no transactions.
            Ok(()) | Err(ENODEV) => {
                drop(held);
                true
            }
            Err(error) => {
                dev_warn!(
                    registers.device(),
                    "context {} of process {} has not stopped ({:?}): \
                     it stays in use until its page requests are answered\n",
                    self.index,
                    process,
                    error
                );
                registers.set_overdue(process);
                self.record_fault(&self.progress.lock(), FaultKind::NotStopped);
                *state = State::Draining(held);
                false
            }
        }
    }

    /// Frees the context if it drains and has stopped. Does not wait for the stop, but for the end
    /// of the bond. Returns whether it may still drain.
    pub(crate) fn reap(&self, registers: &Registers) -> bool {
        // The holder of the lock is working on the context.
        let Some(mut state) = self.state.try_lock() else {
            return true;
        };
        let State::Draining(_) = *state else {
            return false;
        };

        // Its state is unknown during a reset.
        if self.progress.lock().paused.reset {
            return true;
        }
        match self.registers(registers).status() {
            Ok(status) if !status.is(Phase::Disabled) => return true,
            // No device, no transactions.
            Ok(_) | Err(_) => {}
        }
        let old = core::mem::replace(&mut *state, State::Ending);

        // Release the lock, because this may take long.
        drop(state);
        drop(old);
        *self.state.lock() = State::Free;
        false
    }

    /// Asks the context to stop, and prevents starting it. Does not wait: [`Self::wait_disabled`]
    /// does.
    ///
    /// Before a reset, unmaps the doorbell page from all processes: a function in reset decodes no
    /// memory, and accesses to it are bus errors.
    pub(crate) fn pause(&self, registers: &Registers, why: Pause) {
        self.progress.lock().paused.set(why, true);
        // Waits for a thread that has not seen the pause and continues.
        let state = self.state.lock();
        // Without a device there is nothing to stop.
        let _ = self.registers(registers).begin_stop();

        if let (Pause::Reset, State::Open(file_state)) = (why, &*state) {
            *self.doorbell.lock() = Door::Paused;
            file_state.mappings.zap();
        }
    }

    /// Permits starting the context again. A program that had started it before learns that it has
    /// halted.
    pub(crate) fn end_pause(&self, why: Pause) {
        self.progress.lock().paused.set(why, false);
        if why == Pause::Reset {
            let mut door = self.doorbell.lock();

            if *door == Door::Paused {
                *door = Door::Open;
            }
        }
        self.signals.tell();
    }

    /// If the function is being reset, waits for the end of the reset and returns `true`.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal arrived during the wait.
    pub(crate) fn wait_for_reset(&self) -> Result<bool> {
        let mut waited = false;

        loop {
            // Read this before the check, so that no event between check and sleep is lost.
            let events = self.signals.events();

            if !self.progress.lock().paused.reset {
                return Ok(waited);
            }
            waited = true;
            self.signals.wait(events)?;
        }
    }

    /// Waits until the context is disabled. `false` if it timed out.
    pub(crate) fn wait_disabled(&self, registers: &Registers, timeout: StopTimeout) -> bool {
        match self
            .registers(registers)
            .wait_disabled(timeout, || Ok(false))
        {
            // No device, no transactions.
            Ok(()) | Err(ENODEV) => true,
            Err(error) => {
                dev_err!(
                    registers.device(),
                    "context {} does not stop ({:?})\n",
                    self.index,
                    error
                );
                self.record_fault(&self.progress.lock(), FaultKind::NotStopped);
                false
            }
        }
    }

    /// Revokes the context from its file permanently, and asks it to stop. Does not wait for that:
    /// [`Self::wait_drained`] does, and then [`Self::release`] ends the bond and notifies waiters.
    pub(crate) fn revoke(&self, registers: &Registers) {
        let mut state = self.state.lock();

        match core::mem::replace(&mut *state, State::Gone) {
            State::Open(FileState { mappings, held }) => {
                self.progress.lock().started = false;
                // Before the zap: a process that rings the doorbell afterwards dies of SIGBUS, and
                // its address space with it; the context must not be working in it by then. Without
                // a device there is nothing to stop.
                let result = self.registers(registers).begin_stop();
                self.tracer.revoke(trace::result(&result));
                // Later page faults find the door closed; the zap undoes earlier ones.
                *self.doorbell.lock() = Door::Closed;
                mappings.zap();
                *state = State::Draining(held);
            }
            // It was already asked to stop.
            State::Draining(held) => *state = State::Draining(held),
            // `release()` comes after the end of the bond.
            State::Ending => *state = State::Ending,
            State::Free | State::Reserved | State::Gone => {}
        }
    }

    /// Waits until the context has stopped, if it was revoked. `false` if it timed out.
    pub(crate) fn wait_drained(&self, registers: &Registers) -> bool {
        let draining = matches!(*self.state.lock(), State::Draining(_));

        // Without the lock, so that calls of programs do not wait for this.
        !draining || self.wait_disabled(registers, StopTimeout::Full)
    }

    /// Ends the bond of a revoked context, and notifies waiters. From now on its user gets
    /// `ENODEV`, which guarantees that the device does not access its memory any more.
    pub(crate) fn release(&self) {
        let old = core::mem::replace(&mut *self.state.lock(), State::Gone);

        drop(old);
        // Release: see `is_gone()`.
        self.gone.store(true, Release);
        self.signals.tell();
    }

    /// Calls `map` if the doorbell page may be mapped. The page stays mappable until `map` returns.
    pub(crate) fn with_doorbell<R>(&self, map: impl FnOnce() -> R) -> Doorbell<R> {
        let door = self.doorbell.lock();

        match *door {
            Door::Open => Doorbell::Mapped(map()),
            Door::Paused => Doorbell::Later,
            Door::Closed => Doorbell::Never,
        }
    }

    /// Handles an interrupt with `vector`, which the context uses, possibly shared. Called in
    /// interrupt context.
    pub(crate) fn interrupt(&self, registers: &Registers, vector: u32, shared: bool) {
        self.tracer.interrupt(vector);
        self.signals
            .interrupt(shared.then(|| self.registers(registers)));
    }

    /// The events since the last read. With `take`, the interrupts count as reported.
    ///
    /// The count is the device's own, so it is right even if contexts share a vector, or if several
    /// messages became one interrupt.
    pub(crate) fn pending(&self, registers: &Registers, take: bool) -> Pending {
        if self.is_gone() {
            return Pending::Gone;
        }

        let context = self.registers(registers);
        let mut progress = self.progress.lock();
        // The notification comes after the reset.
        if progress.paused.reset {
            return Pending::Interrupts(0);
        }
        let (Ok(sent), Ok(lost), Ok(status)) =
            (context.interrupts(), context.lost(), context.status())
        else {
            return Pending::Gone;
        };
        self.look(&mut progress, &context, status);
        if lost > progress.lost {
            if take {
                progress.lost = lost;
            }
            return Pending::Lost;
        }
        // Smaller than before if the function was reset meanwhile.
        let new = sent.saturating_sub(progress.taken);

        if take {
            progress.taken = sent;
        }
        // A context that is disabled without a request to stop was reset with its function, or
        // stopped because the machine went to sleep.
        if status.is(Phase::Halted) || (progress.started && !status.is(Phase::Enabled)) {
            Pending::Halted(new)
        } else {
            Pending::Interrupts(new)
        }
    }

    /// Reports, once, that a context has halted.
    fn look(&self, progress: &mut Progress, context: &ContextRegisters<'_>, status: STATUS) {
        if !status.is(Phase::Halted) || progress.told {
            return;
        }
        let head = context.head().unwrap_or(0);

        progress.told = true;
        self.tracer.halt(status.reason(), head);
        self.record_fault(progress, FaultKind::Halted(status.reason(), head));
    }

    /// Records a fault for debugfs.
    fn record_fault(&self, progress: &Progress, what: FaultKind) {
        if let Some(Owner { process, pasid }) = progress.owner {
            self.faults.add(self.index, pasid, process, what);
        }
    }

    /// The current state of the context. While the function is being reset, nobody can read the
    /// registers, which lose their values.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone.
    pub(crate) fn view(&self, registers: &Registers) -> Result<View> {
        if self.is_gone() {
            return Err(ENODEV);
        }
        // `close()` waits for the context with the lock held; others hold it only briefly.
        let holder = match self.state.try_lock().as_deref() {
            None => None,
            Some(State::Free) => Some("free"),
            Some(State::Reserved) => Some("opening"),
            Some(State::Open(_)) => Some("open"),
            Some(State::Draining(_) | State::Ending) => Some("draining"),
            Some(State::Gone) => return Err(ENODEV),
        };
        let context = self.registers(registers);
        let progress = self.progress.lock();
        let holder = holder.unwrap_or(if progress.closing { "closing" } else { "open" });
        let (state, reason, head, tail) = if progress.paused.reset {
            ("resetting", 0, 0, 0)
        } else {
            let status = context.status()?;
            (
                status.name(),
                status.reason(),
                context.head()?,
                context.tail()?,
            )
        };

        Ok(View {
            holder,
            owner: progress.owner,
            state,
            reason,
            ring: progress.ring,
            ring_entries: if progress.ring == 0 {
                0
            } else {
                1 << progress.ring_log2
            },
            head,
            tail,
            moderation: progress.moderation,
            eventfd: self.signals.has_eventfd(),
        })
    }
}
