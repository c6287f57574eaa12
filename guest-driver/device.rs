// SPDX-License-Identifier: GPL-2.0-only

//! One device: its registers, its contexts and its doorbell pages.
//!
//! The value outlives the binding of the driver to the device where files are still open; its
//! registers are then closed, and its contexts are gone. This module knows nothing of files.

use core::ptr;
use kernel::{
    bindings,
    device::Bound,
    devres::Devres,
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
        Patience,
        Registers, //
    },
    compat::{
        self,
        DevresBar, //
    },
    context::{
        Context,
        Pause,
        Tenant, //
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
    regs::FUNCTION,
    sva::Bond, //
};

/// One device.
pub(crate) struct Device {
    pdev: ARef<pci::Device>,
    registers: Arc<Registers>,
    capabilities: Capabilities,
    contexts: Arc<Contexts>,
    faults: Arc<Faults>,
    quota: Arc<Quota>,
    /// Physical address of the doorbell BAR.
    doorbells: u64,
    /// Reserves the doorbell BAR, and makes its pages uncached for the whole kernel.
    _doorbells: DevresBar<0>,
    /// It was said already why SVA cannot be had.
    explained: Atomic<bool>,
}

impl Device {
    /// Takes possession of `pdev`, which is enabled and need not be a bus master yet, to become
    /// `/dev/svmN`.
    pub(crate) fn new(pdev: &pci::Device<Bound>, number: u32) -> Result<Arc<Self>> {
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

        // A kernel that ended without warning (kexec) may have left them at work.
        for context in contexts.iter() {
            context.begin_stop(&registers);
        }
        irq::register(pdev, &contexts, &registers, capabilities.vectors)?;

        Ok(Arc::new(
            Self {
                pdev: pdev.into(),
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

    /// What went wrong lately.
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

    /// Bonds the device with `mm`, and gives the bond and its PASID.
    ///
    /// # Safety
    ///
    /// The device is bound to its driver, and stays so during the call.
    ///
    /// # Errors
    ///
    /// `ENODEV` if SVA cannot be had here; the kernel log says why, once. Others of
    /// [`Bond::new`], which may pass.
    pub(crate) unsafe fn bind(&self, mm: &MmWithUser) -> Result<(Devres<Bond<'static>>, u32)> {
        let device: &kernel::device::Device = (*self.pdev).as_ref();
        // SAFETY: By the requirement of this function; the result is not used after the call.
        let device = unsafe { device.as_bound() };

        let mut again = true;
        let bond = loop {
            match Bond::new(device, mm) {
                // The kernel bonds nothing with a function that is being reset, or that was until a
                // moment ago.
                Err(EBUSY) if self.wait_for_reset()? || core::mem::take(&mut again) => {}
                result => break result.map_err(|error| self.refused(error))?,
            }
        };
        let pasid = bond.pasid();

        Ok((bond.into_devres()?, pasid))
    }

    /// If the function is being reset, waits until it was, and gives `true`.
    fn wait_for_reset(&self) -> Result<bool> {
        // There is at least one context, and what holds for it holds for all.
        self.contexts
            .iter()
            .next()
            .map_or(Ok(false), |context| context.wait_for_reset())
    }

    /// Counts a context for the user of the current task.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if that makes more than the module's parameter allows.
    pub(crate) fn share(&self) -> Result<Share> {
        self.quota.take(compat::contexts_per_user())
    }

    /// Opens a free context for `tenant`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if all contexts are in use, `ENODEV` if the device is gone.
    pub(crate) fn open_context(&self, tenant: Tenant) -> Result<Arc<Context>> {
        let mut tenant = Some(tenant);

        self.reap();

        for context in self.contexts.iter() {
            if context.open(&self.registers, &mut tenant)? {
                return Ok(context.clone());
            }
        }
        Err(EBUSY)
    }

    /// Gives `context` back when its file is released, and what earlier ones have left.
    pub(crate) fn close_context(&self, context: &Context) {
        self.reap();
        if !context.close(&self.registers) {
            self.announce(c"SVM_EVENT=CONTEXT_STUCK");
        }
    }

    /// Ends the bonds of contexts that had not stopped in time when they were closed, and have since.
    fn reap(&self) {
        let mut draining = false;

        for context in self.contexts.iter() {
            draining |= context.reap(&self.registers);
        }
        if !draining {
            self.registers.forgive();
        }
    }

    /// Stops all contexts, and lets nobody start one: because the machine is about to sleep, so that
    /// no page request is without its response while nobody is awake to give it; or because the
    /// function is about to be reset, so that it sends nothing any more.
    pub(crate) fn pause(&self, why: Pause) {
        for context in self.contexts.iter() {
            context.pause(&self.registers, why);
        }
        let patience = match why {
            Pause::Sleep => Patience::Full,
            // Which stops them in any case.
            Pause::Reset => Patience::Short,
        };
        // They stop at the same time: when one has not in time, the others have had that time, too.
        // The log then says so. Before a sleep the PCI core will turn bus mastering off.
        self.contexts
            .iter()
            .all(|context| context.wait_disabled(&self.registers, patience));
    }

    /// Lets contexts be started again.
    pub(crate) fn end_pause(&self, why: Pause) {
        for context in self.contexts.iter() {
            context.end_pause(why);
        }
        // A reset stops what does not stop otherwise.
        self.reap();
    }

    /// Takes all contexts away from their users. Nobody opens new ones any more, and the driver is
    /// still bound to the device.
    pub(crate) fn revoke(&self) {
        for context in self.contexts.iter() {
            context.revoke(&self.registers);
        }
        // They stop at the same time: when one has not in time, the others have had that time, too.
        if !self
            .contexts
            .iter()
            .all(|context| context.wait_drained(&self.registers))
        {
            dev_err!(self.pdev, "the function is cut off from the bus\n");
            self.silence();
            self.announce(c"SVM_EVENT=CUT_OFF");
        }
        for context in self.contexts.iter() {
            context.release();
        }
        self.silence();
    }

    /// Makes the function send nothing any more.
    fn silence(&self) {
        // SAFETY: `pdev` is a valid device.
        unsafe { bindings::pci_clear_master(crate::raw(&self.pdev)) };
    }

    /// Tells user space of `event`, as a change of the function: `udev` rules and `udevadm monitor`
    /// see it.
    fn announce(&self, event: &CStr) {
        let mut environment = [event.as_char_ptr().cast_mut(), ptr::null_mut()];

        // SAFETY: `pdev` is a valid device. The environment is an array of strings that ends with
        // null; the function only reads it.
        unsafe {
            bindings::kobject_uevent_env(
                &raw mut (*crate::raw(&self.pdev)).dev.kobj,
                bindings::kobject_action_KOBJ_CHANGE,
                environment.as_mut_ptr(),
            )
        };
    }

    /// Turns the refusal of a bond into what programs get, and says why if it is for good.
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

/// What remains when the function lacks nothing.
const REFUSED: &str = "the IOMMU driver refuses: the IOMMU needs first-stage translation, snooped \
    page walks with PASID (ECAP.SMPWCS), and the page sizes and levels of the CPU (5-level paging, \
    1 GiB pages), or the CPU must do without (la57=off); see 'SVM disabled' in the boot log";
