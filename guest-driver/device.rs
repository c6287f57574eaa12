// SPDX-License-Identifier: GPL-2.0-only

//! One device: its registers, its contexts and its doorbell pages.
//!
//! The value outlives the binding of the driver to the device if files are still open; then its
//! registers are inaccessible, and its contexts are gone. This module knows nothing of files.

use kernel::{
    bindings,
    device::Bound,
    devres::Devres,
    error::to_result,
    mm::MmWithUser,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

use crate::{
    bar::{
        Capabilities,
        Registers,
        StopTimeout, //
    },
    compat::DevresBar,
    context::{
        Context,
        Pause,
        Reservation, //
    },
    doorbell,
    faults::Faults,
    irq::{
        self,
        Contexts, //
    },
    quota::{
        Quota,
        Share, //
    },
    raw,
    regs::{
        Phase,
        FUNCTION, //
    },
    sva::Bond,
    work::{
        self,
        Delayed, //
    }, //
};

/// Milliseconds between two checks of draining contexts.
const REAP_INTERVAL: u32 = 250;

/// Ends the bonds of contexts that had not stopped in time when they were closed, once they have
/// stopped.
///
/// It runs in a kernel worker, because the end of a bond may take as long as a page fault of its
/// process: opening or closing a file, or a reset of the function, should not wait for another
/// process's page fault.
struct Reaper {
    contexts: Arc<Contexts>,
    registers: Arc<Registers>,
}

impl work::Task for Reaper {
    fn run(&self) -> Option<u32> {
        let mut draining = false;

        for context in self.contexts.iter() {
            draining |= context.reap(&self.registers);
        }
        if draining {
            return Some(REAP_INTERVAL);
        }
        self.registers.forgive();
        None
    }
}

/// One device.
pub(crate) struct Device {
    pdev: ARef<pci::Device>,
    registers: Arc<Registers>,
    capabilities: Capabilities,
    contexts: Arc<Contexts>,
    faults: Arc<Faults>,
    quota: Arc<Quota>,
    /// The limit of contexts of a user, 0 for none.
    contexts_per_user: Atomic<u32>,
    reaper: Pin<KBox<Delayed<Reaper>>>,
    /// Physical address of the doorbell BAR.
    doorbells: u64,
    /// Reserves the doorbell BAR, and makes its pages uncached for the whole kernel.
    _doorbells: DevresBar<0>,
    /// The reason why SVA is not available was already logged.
    explained: Atomic<bool>,
}

impl Device {
    /// Takes over `pdev`, which is enabled and need not be a bus master yet, as `/dev/svmN`. One
    /// user may have `contexts_per_user` of its contexts (0: no limit).
    pub(crate) fn new(
        pdev: &pci::Device<Bound>,
        number: u32,
        contexts_per_user: u32,
    ) -> Result<Arc<Self>> {
        let registers = Arc::new(Registers::map(pdev)?, GFP_KERNEL)?;
        let capabilities = registers.identify(pdev)?;
        let needed = doorbell::bar_size(capabilities.contexts);
        let size = pdev.resource_len(doorbell::BAR)?;

        if size < needed {
            dev_err!(
                pdev,
                "the doorbell BAR has {} bytes, {} contexts need {}\n",
                size,
                capabilities.contexts,
                needed
            );
            return Err(ENODEV);
        }
        let doorbells = pdev.iomap_region(doorbell::BAR, c"svm_demo doorbells")?;
        let faults = Faults::new()?;
        let contexts = Contexts::new(capabilities.contexts, number, &faults)?;

        // A kernel that ended without warning (a crash, then kexec) may have left them active, or
        // waiting for responses that never come; or this driver may have, if the device did not
        // stop.
        if !Self::is_quiet(&contexts, &registers) {
            dev_info!(pdev, "contexts are not disabled: the function is reset\n");
            reset(pdev);
        }
        if !Self::is_quiet(&contexts, &registers) {
            dev_warn!(
                pdev,
                "contexts that are not disabled even after a reset are not used\n"
            );
        }
        irq::register(pdev, &contexts, &registers, capabilities.vectors)?;

        let reaper = Delayed::new(Reaper {
            contexts: contexts.clone(),
            registers: registers.clone(),
        })?;

        Ok(Arc::new(
            Self {
                pdev: pdev.into(),
                contexts_per_user: Atomic::new(contexts_per_user),
                reaper,
                registers,
                capabilities,
                contexts,
                faults,
                quota: Arc::pin_init(Quota::new(), GFP_KERNEL)?,
                doorbells: pdev.resource_start(doorbell::BAR)?,
                _doorbells: doorbells.into_devres()?,
                explained: Atomic::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    /// Whether all contexts are disabled.
    fn is_quiet(contexts: &Contexts, registers: &Registers) -> bool {
        contexts.iter().all(|context| {
            let status = registers.context(context.index()).status();

            status.is_ok_and(|status| status.is(Phase::Disabled))
        })
    }

    pub(crate) fn pdev(&self) -> &pci::Device {
        &self.pdev
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The contexts in the order of their numbers.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &Arc<Context>> {
        self.contexts.iter()
    }

    /// The latest faults.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Its PCI address.
    pub(crate) fn name(&self) -> &CStr {
        let device: &kernel::device::Device = (*self.pdev).as_ref();

        device.name()
    }

    /// Number of contexts without an owner.
    pub(crate) fn available(&self) -> u64 {
        self.contexts
            .iter()
            .filter(|context| context.is_free())
            .count() as u64
    }

    /// The limit of contexts of one user; 0 for none.
    pub(crate) fn contexts_per_user(&self) -> u32 {
        self.contexts_per_user.load(Relaxed)
    }

    /// Limits the contexts of one user from now on. Open contexts stay.
    pub(crate) fn set_contexts_per_user(&self, contexts: u32) {
        self.contexts_per_user.store(contexts, Relaxed);
    }

    /// Number of interrupt vectors in use.
    pub(crate) fn vectors(&self) -> u32 {
        self.contexts.vectors()
    }

    /// The interrupt vector of context `index`.
    pub(crate) fn vector(&self, index: u16) -> u16 {
        self.contexts.vector(index)
    }

    /// Page frame number of the doorbell page of context `index`.
    pub(crate) fn doorbell_page(&self, index: u16) -> usize {
        doorbell::page_frame(self.doorbells, index)
    }

    /// Bonds the device with `mm`, and returns the bond and its PASID. Never ends a bond.
    ///
    /// # Safety
    ///
    /// The device is bound to its driver, and stays so during the call.
    ///
    /// # Errors
    ///
    /// `ENODEV` if SVA is not available here; the kernel log says why, once. Others of
    /// [`Bond::bind`], which may be temporary.
    pub(crate) unsafe fn bind(&self, mm: &MmWithUser) -> Result<(Devres<Bond>, u32)> {
        let device: &kernel::device::Device = (*self.pdev).as_ref();
        // SAFETY: By the requirement of this function; the result is not used after the call.
        let device = unsafe { device.as_bound() };

        let mut again = true;
        let bond = loop {
            match Bond::bind(device, mm) {
                // The kernel refuses bonds with a function that is being reset, or was until just
                // now.
                Err(EBUSY) if self.wait_for_reset()? || core::mem::take(&mut again) => {}
                result => break result.map_err(|error| self.refused(error))?,
            }
        };
        let pasid = bond.access(device)?.pasid().ok_or(ENODEV)?;

        Ok((bond, pasid))
    }

    /// If the function is being reset, waits until it was, and gives `true`.
    fn wait_for_reset(&self) -> Result<bool> {
        // There is at least one context, and all have the same pause.
        self.contexts
            .iter()
            .next()
            .map_or(Ok(false), |context| context.wait_for_reset())
    }

    /// Counts a context for the user of the current task.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if that exceeds [`Self::contexts_per_user`].
    pub(crate) fn share(&self) -> Result<Share> {
        self.quota.take(self.contexts_per_user())
    }

    /// Reserves a free context, before any step that would have to be undone if there is none.
    ///
    /// # Errors
    ///
    /// `EBUSY` if all contexts are in use, `ENODEV` if the device is gone.
    pub(crate) fn reserve(&self) -> Result<Reservation> {
        for context in self.contexts.iter() {
            if let Some(reservation) = Context::reserve(context, &self.registers)? {
                return Ok(reservation);
            }
        }
        Err(EBUSY)
    }

    /// Releases `context` when its file is released. `false` if it has not stopped in time, and
    /// therefore stays in use for a while.
    pub(crate) fn close_context(&self, context: &Context) -> bool {
        let closed = context.close(&self.registers);

        if !closed {
            self.reaper.schedule(REAP_INTERVAL);
        }
        closed
    }

    /// Stops all contexts, and prevents starting them: because the machine is going to sleep, so
    /// that no page request is outstanding while nothing can answer it; or because the function is
    /// going to be reset, so that it sends nothing any more and nothing accesses its registers.
    /// `false` if one has not stopped in time.
    pub(crate) fn pause(&self, why: Pause) -> bool {
        for context in self.contexts.iter() {
            context.pause(&self.registers, why);
        }
        let timeout = match why {
            Pause::Sleep => StopTimeout::Full,
            // The reset stops them in any case.
            Pause::Reset => StopTimeout::Short,
        };
        // They stop at the same time: if one times out, the others have had that time, too. The log
        // then says so.
        let stopped = self
            .contexts
            .iter()
            .all(|context| context.wait_disabled(&self.registers, timeout));

        if why == Pause::Reset {
            self.registers.begin_reset();
        }
        stopped
    }

    /// Handles the end of the machine, or the start of another kernel: the function must not send
    /// anything any more.
    pub(crate) fn shutdown(&self) {
        for context in self.contexts.iter() {
            context.pause(&self.registers, Pause::Sleep);
        }
        self.contexts
            .iter()
            .all(|context| context.wait_disabled(&self.registers, StopTimeout::Short));
        self.silence();
    }

    /// Permits starting contexts again.
    pub(crate) fn end_pause(&self, why: Pause) {
        if why == Pause::Reset {
            self.registers.end_reset();
        }
        for context in self.contexts.iter() {
            context.end_pause(why);
        }
        // A reset also stops contexts that did not stop otherwise.
        self.reaper.schedule(0);
    }

    /// Revokes all contexts from their users. New ones can no longer be opened, and the driver is
    /// still bound to the device. `false` if the function had to be cut off from the bus, because a
    /// context has not stopped in time. [`Self::release`] has to follow.
    pub(crate) fn revoke(&self) -> bool {
        for context in self.contexts.iter() {
            context.revoke(&self.registers);
        }
        // They stop at the same time: if one times out, the others have had that time, too.
        let stopped = self
            .contexts
            .iter()
            .all(|context| context.wait_drained(&self.registers));

        if !stopped {
            dev_err!(self.pdev, "the function is cut off from the bus\n");
            self.silence();
        }
        stopped
    }

    /// Ends the bonds of revoked contexts, and notifies their users.
    pub(crate) fn release(&self) {
        self.reaper.cancel();
        for context in self.contexts.iter() {
            context.release();
        }
        self.silence();
    }

    /// Stops the function from sending anything.
    fn silence(&self) {
        // SAFETY: `pdev` is a valid device.
        unsafe { bindings::pci_clear_master(raw::pci_dev(&self.pdev)) };
    }

    /// Converts the refusal of a bond into the error for programs, and logs the reason if it is
    /// permanent.
    fn refused(&self, error: Error) -> Error {
        let Ok(function) = self.registers.function() else {
            return ENODEV;
        };

        match error.to_errno().unsigned_abs() {
            bindings::ENODEV | bindings::EINVAL | bindings::EOPNOTSUPP => {}
            // No PASID at all.
            bindings::ENOSPC if !function.pasid() => {}
            _ => return error,
        }

        if !self.explained.xchg(true, Relaxed) {
            dev_err!(
                self.pdev,
                "the address space of a process cannot be shared ({:?}): {}\n",
                error,
                missing(function).unwrap_or(REFUSED)
            );
        }
        ENODEV
    }
}

/// Resets a function while its driver is being bound to it, and keeps its configuration. Logs if
/// the function cannot be reset.
///
/// Not with `pci_reset_function_locked()`, which calls the driver, which has no data yet.
fn reset(pdev: &pci::Device<Bound>) {
    let raw = raw::pci_dev(pdev);
    // SAFETY: `pdev` is a valid device. Its lock is held, because its driver is being bound to it,
    // so no other code changes its configuration meanwhile.
    let result = unsafe {
        bindings::pci_save_state(raw);
        let result = bindings::__pci_reset_function_locked(raw);
        bindings::pci_restore_state(raw);
        result
    };

    if let Err(error) = to_result(result) {
        dev_warn!(pdev, "the function cannot be reset: {:?}\n", error);
    }
}

/// What the configuration of the function lacks for SVA, if anything.
///
/// The IOMMU driver enables all of it when it finds the function, before this driver does.
pub(crate) fn missing(function: FUNCTION) -> Option<&'static str> {
    if !function.pasid() {
        Some(
            "PASID is not enabled: the IOMMU must be on, in scalable mode (intel_iommu=on,sm_on) \
             and with PASIDs, and the function must have the PASID capability",
        )
    } else if !function.ats() {
        Some(
            "ATS is not enabled: the IOMMU must have device TLBs, and the function the ATS \
             capability with page-aligned requests",
        )
    } else if !function.pri() {
        Some(
            "PRI is not enabled: the IOMMU must have page requests, and the function the page \
             request capability with PASIDs in responses",
        )
    } else {
        None
    }
}

/// The remaining reasons if the function lacks nothing.
const REFUSED: &str = "the IOMMU driver refuses: the IOMMU needs first-stage translation, snooped \
    page walks with PASID (ECAP.SMPWCS), and the page sizes and levels of the CPU (5-level paging, \
    1 GiB pages), or the CPU must do without (la57=off); see 'SVM disabled' in the boot log";
