// SPDX-License-Identifier: GPL-2.0-or-later
//! The clients that watch the address space of a function, because they access its memory directly:
//!
//! * some keep translations that they have requested, like vhost, and have to know which are no
//!   longer valid;
//! * others keep a copy of all mappings, like VFIO and vfio-user for devices outside of QEMU, and
//!   also have to know new ones. This needs Caching Mode: without it, software does not announce
//!   new mappings.
//!
//! A client cannot keep a copy for a function in pass-through mode: it sees system memory itself,
//! as while translation is off.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use pcie_ats::AlignedRange;
use vtd::{MappedPage, Reach};

use super::clients::invalidated;
use super::copies::{self, Changes, Part, Span, Updated};
use super::function::Function;
use super::space::Kept;
use crate::abi::layout::*;
use crate::abi::room;
use crate::bql::Bql;
use crate::main_loop;
use crate::message;

/// The largest number of present table entries to copy at once: 64 GiB in pages of 4 KiB. Tables
/// may contain themselves, and would then never end.
const MOST_ENTRIES: usize = 1 << 24;

impl Kept {
    /// A client starts or stops watching the region. `flags` are those of all clients.
    pub fn watch(self, flags: u32) -> Result<(), &'static str> {
        let space = self.get();
        let (caching_mode, snoop_control, device_tlbs) = space.unit.abilities();
        let copied = flags & NOTIFIER_MAP != 0;
        if copied && !caching_mode {
            return Err(
                "svm-vtd: a device outside of QEMU has to hear of new mappings, which the guest \
                 announces in caching mode only: add caching-mode=on",
            );
        }
        if copied && snoop_control {
            return Err(
                "svm-vtd: whether accesses of a device outside of QEMU snoop caches is not the \
                 guest's to control: add snoop-control=off",
            );
        }
        if flags & NOTIFIER_DEVIOTLB_UNMAP != 0 && !device_tlbs {
            return Err(
                "svm-vtd: a device that caches translations has to hear of their invalidation, \
                 which the guest announces with device-TLBs only: add device-iotlb=on",
            );
        }
        space.watched.copied.store(copied, Ordering::Relaxed);
        if !copied {
            space.watched.copies().clear();
        }
        Ok(())
    }

    /// Tells a client with a new copy of all mappings; the others already know them.
    pub fn replay(self, bql: &Bql, notifier: NonNull<IOMMUNotifier>) {
        let space = self.get();
        if !space.watched.is_copied() {
            return;
        }
        let others = |changes: &Changes| {
            for other in self.notifiers(bql).filter(|n| *n != notifier) {
                tell_all(bql, other, changes);
            }
        };
        if self.update(Span::ALL, others) == Updated::Everything {
            // It must see system memory, but regions cannot change now.
            let unit = space.unit;
            main_loop::soon(move |bql| unit.review(bql));
        }
        let all = Changes {
            unmapped: Vec::new(),
            mapped: space.watched.copies().pages().copied().collect(),
        };
        tell_all(bql, notifier, &all);
    }

    /// Brings the copies up to date.
    pub fn refresh(self, bql: &Bql, span: Span) {
        let space = self.get();
        // There is a client; buses of functions without clients may be gone.
        let there = match space.function {
            Function::Pci { bus, .. } => {
                space.watched.is_copied() || space.unit.root().reaches(bql, bus)
            }
            Function::IoApic => false,
        };
        if !there {
            return;
        }
        if space.watched.is_shown() {
            // A client with a copy starts over if there are pages now.
            if !space.unit.reaches_everything(space.function.source_id()) {
                space.watched.show(false);
                self.translate(bql, true);
            }
            return;
        }
        let all = |changes: &Changes| {
            for notifier in self.notifiers(bql) {
                tell_all(bql, notifier, changes);
            }
        };
        if self.update(span, all) == Updated::Everything {
            space.watched.show(true);
            self.translate(bql, false);
        }
    }

    /// Brings the copies of a span up to date, if there are any, and announces each change.
    fn update(self, span: Span, tell: impl FnMut(&Changes)) -> Updated {
        let space = self.get();
        let (watched, requester) = (&space.watched, space.function.source_id());
        if !watched.is_copied() {
            let everything = space.unit.reaches_everything(requester);
            return if everything {
                Updated::Everything
            } else {
                Updated::All
            };
        }
        let reach = |span| {
            let part = space.unit.reach(requester, span);
            watched.set_domain(part.domain);
            match part.reach {
                Reach::Everything => None,
                Reach::Pages(pages) => Some(Part {
                    pages,
                    next: part.next,
                    entries: part.entries,
                }),
            }
        };
        let updated = copies::update(&watched.copies, span, MOST_ENTRIES, reach, tell);
        if updated == Updated::Some && !watched.complained.swap(true, Ordering::Relaxed) {
            // Once: the guest must not fill the log.
            message::error(&format!(
                "svm-vtd: the tables of function {requester} have more than {MOST_ENTRIES} entries: \
                 a device outside of QEMU reaches only a part of what they map"
            ));
        }
        updated
    }

    /// The first client that watches the region.
    pub fn first_notifier(self, _bql: &Bql) -> Option<NonNull<IOMMUNotifier>> {
        // SAFETY: the field lies in the initialized region, and changes under the BQL only.
        unsafe {
            let region = NonNull::new(self.iommu())?;
            NonNull::new(room::read(region, layout().iommu_memory_region.notifiers))
        }
    }

    /// All clients. A notifier may remove itself when it is called: the iterator has read the next
    /// one before.
    fn notifiers(self, bql: &Bql) -> impl Iterator<Item = NonNull<IOMMUNotifier>> {
        std::iter::successors(self.first_notifier(bql), |notifier| {
            // SAFETY: the list changes only under the BQL, and its elements exist. This is called
            // before the notifier itself is returned.
            unsafe { IOMMUNotifier::next(*notifier) }
        })
    }

    /// Tells clients with translations of a range.
    pub fn unmap(self, bql: &Bql, kind: u32, range: AlignedRange) {
        for notifier in self.notifiers(bql) {
            // SAFETY: what is in the list exists.
            let (flags, window) = unsafe {
                (
                    IOMMUNotifier::flags(notifier),
                    IOMMUNotifier::window(notifier),
                )
            };
            let first = range.base().max(window.0);
            let last = range.last().min(window.1);
            // A client with a copy is told of the removed pages instead.
            let copies = flags & NOTIFIER_MAP != 0;
            if flags & kind == 0 || copies || first > last {
                continue;
            }
            let entry = IOMMUTLBEntry {
                iova: first,
                addr_mask: last - first,
                ..invalidated(range, NO_PASID)
            };
            tell(bql, notifier, entry);
        }
    }
}

/// Tells a client with a copy the changes in its window.
fn tell_all(bql: &Bql, notifier: NonNull<IOMMUNotifier>, changes: &Changes) {
    // SAFETY: the notifier is in a list, and so exists.
    let (flags, window) = unsafe {
        let (first, last) = IOMMUNotifier::window(notifier);
        (IOMMUNotifier::flags(notifier), Span { first, last })
    };
    if flags & NOTIFIER_MAP == 0 {
        return;
    }
    if flags & NOTIFIER_UNMAP != 0 {
        for page in &changes.unmapped {
            for piece in window.pieces(page.input) {
                tell(bql, notifier, invalidated(piece, NO_PASID));
            }
        }
    }
    for page in &changes.mapped {
        for piece in window.pieces(page.input) {
            tell(bql, notifier, mapped(page, piece));
        }
    }
}

/// The entry for a new mapping, or for a piece of it.
fn mapped(page: &MappedPage, piece: AlignedRange) -> IOMMUTLBEntry {
    let allowed = |is: bool, bit| if is { bit } else { 0 };
    IOMMUTLBEntry {
        translated_addr: page.output + (piece.base() - page.input.base()),
        perm: allowed(page.read, perm::READ) | allowed(page.write, perm::WRITE),
        ..invalidated(piece, NO_PASID)
    }
}

/// Passes an entry to a notifier.
fn tell(_bql: &Bql, notifier: NonNull<IOMMUNotifier>, mut entry: IOMMUTLBEntry) {
    // SAFETY: the notifier is in a list, so it exists; the BQL is held as QEMU requires.
    unsafe {
        if let Some(notify) = IOMMUNotifier::notify(notifier) {
            notify(notifier.as_ptr(), &mut entry);
        }
    }
}
