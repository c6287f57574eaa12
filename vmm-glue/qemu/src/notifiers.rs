// SPDX-License-Identifier: GPL-2.0-or-later
//! Receives invalidations and page responses from QEMU's vIOMMU. QEMU delivers both by address
//! space, to the client that has registered for it; a function on a real bus receives all of them.
//!
//! So the device registers for a PASID before it first uses it, and stays registered when no
//! context uses it any more, because the system invalidates the PASID's translations at that time.
//! To bound the number, the device keeps only the last few idle registrations, and those with
//! unanswered page requests: even a late response releases the resources of its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use pcie_ats::{AlignedRange, Pasid, Prgi, ResponseCode};

use crate::abi::layout::*;
use crate::bql::Bql;
use crate::message;
use crate::pci::PciDevice;
use crate::qom::Neighbour;

/// Number of unused PASIDs that stay registered.
const IDLE: usize = 64;

/// Offset of the PASID capability's control register in its double word, and its enable bit.
const PASID_CONTROL: u16 = svm_endpoint::config_space::PASID + 4;
const PASID_ENABLE: u32 = 1 << 16;

/// An address space of the function: with a PASID, or without one.
type Key = Option<Pasid>;

/// The receiver of a device's notifications.
pub trait Receiver: Send + Sync {
    /// An invalidation request arrives.
    fn invalidated(&self, bql: &Bql, pasid: Option<Pasid>, range: AlignedRange);

    /// No more notifications will arrive for an address space.
    fn forget(&self, pasid: Option<Pasid>);

    /// A page request group response arrives.
    fn responded(&self, bql: &Bql, pasid: Option<Pasid>, prgi: Prgi, code: ResponseCode);
}

/// The device that a notifier notifies.
struct Client {
    device: Weak<dyn Receiver>,
    pasid: Key,
}

/// The notifier of page responses; QEMU passes only its address back.
#[repr(C)]
struct PriNotifier {
    base: IOMMUPRINotifier,
    client: *const Client,
}

/// The two notifiers of an address space.
struct Registration {
    iotlb: NonNull<IOMMUNotifier>,
    pri: NonNull<PriNotifier>,
    client: NonNull<Client>,
    has_iotlb: bool,
    has_pri: bool,
    /// Time of its last use: a count of [`Notifiers::sync`].
    wanted: u64,
    /// The page request groups that wait for their responses.
    groups: BTreeSet<u16>,
}

// SAFETY: QEMU and this module access the notifiers only under the BQL; the client is only read.
unsafe impl Send for Registration {}

impl Registration {
    fn new(device: Weak<dyn Receiver>, pasid: Key) -> Registration {
        let client = NonNull::from(Box::leak(Box::new(Client { device, pasid })));
        let pri = PriNotifier {
            base: IOMMUPRINotifier { notify: responded },
            client: client.as_ptr(),
        };
        Registration {
            iotlb: IOMMUNotifier::allocate(),
            pri: NonNull::from(Box::leak(Box::new(pri))),
            client,
            has_iotlb: false,
            has_pri: false,
            wanted: 0,
            groups: BTreeSet::new(),
        }
    }

    /// Registers the notifiers that are not registered yet, as far as the function's state permits.
    fn register(&mut self, bql: &Bql, pci: PciDevice, pasid: u32) {
        if !self.has_iotlb {
            // SAFETY: the notifier is writable and not registered, and does not move until `drop`,
            // before which it is unregistered.
            self.has_iotlb = unsafe {
                pci.init_iotlb_notifier(
                    bql,
                    self.iotlb.as_ptr(),
                    invalidated,
                    self.client.as_ptr().cast(),
                )
                .is_ok()
                    && self.is_laid_out()
                    && pci
                        .register_iotlb_notifier(bql, pasid, self.iotlb.as_ptr())
                        .is_ok()
            };
        }
        if !self.has_pri {
            // SAFETY: the notifier does not move until `drop`.
            self.has_pri = unsafe {
                pci.register_pri_notifier(bql, pasid, self.pri.as_ptr().cast())
                    .is_ok()
            };
        }
    }

    /// Whether QEMU has filled in the notifier at the offsets of the layout.
    fn is_laid_out(&self) -> bool {
        // SAFETY: the notifier is ours, and not registered.
        let good = unsafe {
            IOMMUNotifier::notify(self.iotlb)
                .is_some_and(|n| n as usize == invalidated as *const () as usize)
                && IOMMUNotifier::flags(self.iotlb) == NOTIFIER_DEVIOTLB_UNMAP
                && IOMMUNotifier::window(self.iotlb) == (0, u64::MAX)
                && IOMMUNotifier::opaque(self.iotlb) == self.client.as_ptr().cast()
                && IOMMUNotifier::is_intact(self.iotlb)
        };
        if !good {
            message::error("IOMMUNotifier is not laid out as expected: ATS stays without use");
        }
        good
    }

    /// Unregisters the registered notifiers.
    fn unregister(&mut self, bql: &Bql, pci: PciDevice, pasid: u32) {
        if self.has_iotlb {
            // QEMU refuses this while the PASID capability is disabled, although the notifier was
            // registered before. Under the BQL no other code sees the temporary bit.
            let control = pci.read_config_raw(bql, PASID_CONTROL);
            pci.write_config_raw(bql, PASID_CONTROL, control | PASID_ENABLE);
            // SAFETY: it is registered for this PASID.
            let result = unsafe { pci.unregister_iotlb_notifier(bql, pasid, self.iotlb.as_ptr()) };
            pci.write_config_raw(bql, PASID_CONTROL, control);
            self.has_iotlb = result.is_err();
        }
        if self.has_pri {
            pci.unregister_pri_notifier(bql, pasid);
            self.has_pri = false;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.has_iotlb || self.has_pri {
            return; // QEMU still knows them: rather lose the memory.
        }
        // SAFETY: `new` created the three, and QEMU no longer uses them.
        unsafe {
            IOMMUNotifier::free(self.iotlb);
            drop(Box::from_raw(self.pri.as_ptr()));
            drop(Box::from_raw(self.client.as_ptr()));
        }
    }
}

/// All registrations of a device.
pub struct Notifiers {
    pci: PciDevice,
    device: Weak<dyn Receiver>,
    registrations: Mutex<BTreeMap<Key, Registration>>,
    generation: AtomicU64,
    syncs: AtomicU64,
    permitted: OnceLock<bool>,
}

impl Notifiers {
    /// None yet.
    pub fn new(pci: PciDevice, device: Weak<dyn Receiver>) -> Notifiers {
        Notifiers {
            pci,
            device,
            registrations: Mutex::default(),
            generation: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            permitted: OnceLock::new(),
        }
    }

    /// Registers for the PASIDs in use, if they may have changed, or if `again` says that earlier
    /// failures might succeed now.
    pub fn sync(&self, bql: &Bql, endpoint: &svm_endpoint::Endpoint, again: bool) {
        let generation = endpoint.pasid_generation();
        if self.generation.swap(generation, Ordering::AcqRel) == generation && !again {
            return;
        }
        let now = self.syncs.fetch_add(1, Ordering::AcqRel) + 1;
        let used = endpoint.pasids();
        for pasid in &used {
            self.with(
                Some(*pasid),
                |registration| {
                    registration.register(bql, self.pci, pasid.get());
                    registration.wanted = now;
                },
                bql,
            );
        }
        self.trim(bql, now);
    }

    /// Unregisters idle PASIDs beyond the limit. The endpoint has to drop their cached
    /// translations, because it will not receive their invalidations.
    fn trim(&self, bql: &Bql, now: u64) {
        let mut idle: Vec<(u64, Key)> = self
            .lock()
            .iter()
            .filter(|(_, registration)| registration.wanted != now)
            .filter(|(_, registration)| registration.groups.is_empty())
            .map(|(key, registration)| (registration.wanted, *key))
            .collect();
        if idle.len() <= IDLE {
            return;
        }
        idle.sort_unstable();
        for (_, key) in &idle[..idle.len() - IDLE] {
            self.remove(bql, *key);
            if let Some(device) = self.device.upgrade() {
                device.forget(*key);
            }
        }
    }

    /// Ensures, before the first use of an address space, that its invalidations and page responses
    /// will arrive. False, false if they cannot.
    pub fn ensure(&self, bql: &Bql, key: Key) -> Heard {
        let known = self.lock().get(&key).map(|r| Heard {
            invalidations: r.has_iotlb,
            responses: r.has_pri,
        });
        match known {
            Some(heard) if heard.invalidations && heard.responses => heard,
            _ => {
                let now = self.syncs.load(Ordering::Acquire);
                self.with(
                    key,
                    |registration| {
                        registration.register(bql, self.pci, number(key));
                        registration.wanted = now;
                        Heard {
                            invalidations: registration.has_iotlb,
                            responses: registration.has_pri,
                        }
                    },
                    bql,
                )
                .unwrap_or_default()
            }
        }
    }

    /// Notes a page request of a group.
    pub fn page_requested(&self, key: Key, prgi: Prgi) {
        if let Some(registration) = self.lock().get_mut(&key) {
            registration.groups.insert(prgi.get());
        }
    }

    /// Notes the response to a group.
    pub fn page_answered(&self, key: Key, prgi: Prgi) {
        if let Some(registration) = self.lock().get_mut(&key) {
            registration.groups.remove(&prgi.get());
        }
    }

    /// Notes that no page request is outstanding any more.
    pub fn page_requests_stopped(&self) {
        for registration in self.lock().values_mut() {
            registration.groups.clear();
        }
    }

    /// Unregisters everything.
    pub fn clear(&self, bql: &Bql) {
        let keys: Vec<Key> = self.lock().keys().copied().collect();
        for key in keys {
            self.remove(bql, key);
        }
    }

    /// Works on the registration of an address space, without the lock. Creates it if there is
    /// none.
    fn with<R>(&self, key: Key, work: impl FnOnce(&mut Registration) -> R, bql: &Bql) -> Option<R> {
        if !self.is_permitted(bql) {
            return None;
        }
        let known = self.lock().remove(&key);
        let mut registration = known.unwrap_or_else(|| Registration::new(self.device.clone(), key));
        let result = work(&mut registration);
        self.lock().insert(key, registration);
        Some(result)
    }

    /// Unregisters an address space.
    fn remove(&self, bql: &Bql, key: Key) {
        let removed = self.lock().remove(&key);
        if let Some(mut registration) = removed {
            registration.unregister(bql, self.pci, number(key));
        }
    }

    /// Whether the vIOMMU accepts notifiers of invalidations. QEMU ends the process if one is
    /// registered with an intel-iommu without device-iotlb; an svm-vtd accepts all.
    fn is_permitted(&self, bql: &Bql) -> bool {
        *self.permitted.get_or_init(|| {
            let Some(iommu) = Neighbour::find(bql, c"intel-iommu") else {
                return true;
            };
            if Neighbour::find(bql, crate::vtd::TYPE).is_some() {
                return true;
            }
            let device_iotlb = iommu.switch(bql, c"device-iotlb") == Some(true);
            let snoop_control = iommu.switch(bql, c"snoop-control") == Some(true);
            if !device_iotlb || snoop_control {
                message::warning(
                    "ATS is without use: it needs -device intel-iommu with device-iotlb=on and \
                     without snoop-control=on",
                );
            }
            device_iotlb && !snoop_control
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Registration>> {
        self.registrations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The notifications of an address space that reach the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// Invalidations.
    pub invalidations: bool,
    /// Page responses.
    pub responses: bool,
}

/// An address space as QEMU takes it.
fn number(key: Key) -> u32 {
    key.map_or(NO_PASID, Pasid::get)
}

/// The range for QEMU's address and mask.
fn range(address: u64, mask: u64) -> AlignedRange {
    let shift = (u64::BITS - mask.leading_zeros()) as u8;
    AlignedRange::containing(address, shift.max(pcie_ats::PAGE_SHIFT)).unwrap_or(AlignedRange::ALL)
}

/// `IOMMUNotify`: an invalidation request.
unsafe extern "C" fn invalidated(notifier: *mut IOMMUNotifier, entry: *mut IOMMUTLBEntry) {
    let Some(notifier) = NonNull::new(notifier) else {
        return;
    };
    // SAFETY: the notifier is registered, so its client is alive; the entry is QEMU's and valid
    // during the call. QEMU handles invalidations with the BQL held.
    let (client, entry, bql) = unsafe {
        let client = IOMMUNotifier::opaque(notifier).cast::<Client>();
        (&*client, &*entry, Bql::held())
    };
    if let Some(device) = client.device.upgrade() {
        device.invalidated(&bql, client.pasid, range(entry.iova, entry.addr_mask));
    }
}

/// `IOMMUPRINotify`: a page request group response.
unsafe extern "C" fn responded(notifier: *mut IOMMUPRINotifier, response: *mut IOMMUPRIResponse) {
    // SAFETY: the notifier is the first field of a registered `PriNotifier`, so its client is
    // alive; the response is QEMU's. QEMU handles responses with the BQL held.
    let (client, response, bql) = unsafe {
        (
            &*(*notifier.cast::<PriNotifier>()).client,
            &*response,
            Bql::held(),
        )
    };
    let code = match response.response_code {
        pri_response::SUCCESS => ResponseCode::Success,
        pri_response::INVALID_REQUEST => ResponseCode::InvalidRequest,
        _ => ResponseCode::ResponseFailure,
    };
    if let (Some(device), Ok(prgi)) = (client.device.upgrade(), Prgi::new(response.prgi)) {
        device.responded(&bql, client.pasid, prgi, code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_a_range() {
        let page = range(0x7000_1234_5678, 0xfff);
        assert_eq!((page.base(), page.shift()), (0x7000_1234_5000, 12));
        assert_eq!(range(0x20_0000, 0x1f_ffff).shift(), 21);
        assert_eq!(range(0, u64::MAX), AlignedRange::ALL);
        // There is no range smaller than a page.
        assert_eq!(range(0x1000, 0).shift(), 12);
    }
}
