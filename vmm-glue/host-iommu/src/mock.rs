// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host's IOMMU in memory, for tests: it has the objects of iommufd, and refuses what Linux 7.2
//! refuses, with the same error numbers. It can be made to fail, remembers the calls that were
//! made, and lets a test be the devices.

use crate::host::{
    DeviceId, Errno, Fault, FaultCode, FaultQueueId, FaultResponse, FirstStage, HardwareInfo,
    HostError, HostIommu, HostResult, HwptId, Invalidation, IoasId, Mapping, NestedFlags,
    Operation, ParentFlags, Partial, VtdInfo, device_capability,
};
use pcie_ats::Pasid;
use std::collections::{BTreeMap, VecDeque};
use vtd::{Capabilities, Config};

/// What a device of the mock can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MockDevice {
    /// What its hardware says.
    pub info: HardwareInfo,
    /// PRI is enabled.
    pub pri: bool,
    /// It is a virtual function.
    pub virtual_function: bool,
}

impl MockDevice {
    /// A device with PRI and PASIDs of 20 bits below a unit of a configuration.
    pub fn below(config: Config) -> Option<Self> {
        let caps = Capabilities::new(config).ok()?;
        let pasids = caps.ecap().pasid_width();
        let info = HardwareInfo {
            vtd: Some(VtdInfo {
                flags: VtdInfo::ERRATUM_772415_SPR17,
                cap: caps.cap(),
                ecap: caps.ecap(),
            }),
            capabilities: match caps.ecap().ssads() && caps.ecap().smpwcs() {
                true => device_capability::DIRTY_TRACKING,
                false => 0,
            },
            max_pasid_log2: pasids,
        };
        Some(MockDevice {
            info,
            pri: true,
            virtual_function: false,
        })
    }
}

/// A call that has changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A parent or nested page table was made.
    Alloc(HwptId),
    /// A page table was freed.
    Free(HwptId),
    /// A page table was attached.
    Attach(DeviceId, Option<Pasid>, HwptId),
    /// A page table was attached in the place of another.
    Replace(DeviceId, Option<Pasid>, HwptId),
    /// A page table was detached.
    Detach(DeviceId, Option<Pasid>),
    /// Memory was mapped.
    Map(IoasId, Mapping),
    /// Translations were invalidated.
    Invalidate(HwptId, Invalidation),
    /// A group was answered by the user.
    Respond(u32, FaultCode),
}

#[derive(Clone, Debug)]
enum Kind {
    Parent {
        ioas: u32,
        flags: ParentFlags,
        /// Dirty pages of 4 KiB, while they are tracked.
        dirty: Option<Vec<u64>>,
    },
    Nested {
        parent: u32,
        stage: FirstStage,
        flags: NestedFlags,
    },
}

#[derive(Clone, Debug)]
enum Object {
    Device(MockDevice),
    Ioas(Vec<Mapping>),
    Hwpt(Kind),
    FaultQueue {
        waiting: VecDeque<Vec<Fault>>,
        /// The groups that wait for a response: cookie, device, PASID.
        unanswered: Vec<(u32, u32, Option<Pasid>)>,
    },
}

/// The mock.
#[derive(Clone, Debug, Default)]
pub struct MockHost {
    objects: BTreeMap<(u32, u32), Object>,
    attached: BTreeMap<(DeviceId, Option<Pasid>), HwptId>,
    next: u32,
    cookie: u32,
    failures: Vec<(Operation, usize, Errno)>,
    /// The calls so far.
    pub calls: Vec<Call>,
    /// The groups that the host has answered by itself, with invalid.
    pub answered: Vec<u32>,
}

/// The most entries of one invalidation.
const MOST_ENTRIES: usize = 1 << 19;

fn refuse<T>(operation: Operation, errno: Errno) -> HostResult<T> {
    Err(HostError { operation, errno })
}

impl MockHost {
    /// A host without devices.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, iommufd: u32, object: Object) -> u32 {
        self.next += 1;
        self.objects.insert((iommufd, self.next), object);
        self.next
    }

    /// Binds a device to an iommufd.
    pub fn bind(&mut self, iommufd: u32, device: MockDevice) -> DeviceId {
        let id = self.add(iommufd, Object::Device(device));
        DeviceId { iommufd, id }
    }

    /// Makes the next call of an operation fail, behind `after` that do not.
    pub fn fail(&mut self, operation: Operation, after: usize, errno: Errno) {
        self.failures.push((operation, after, errno));
    }

    /// No call is made to fail any more.
    pub fn heal(&mut self) {
        self.failures.clear();
    }

    fn injected(&mut self, operation: Operation) -> HostResult<()> {
        let at = self.failures.iter().position(|(of, _, _)| *of == operation);
        let Some(at) = at else {
            return Ok(());
        };
        if self.failures[at].1 > 0 {
            self.failures[at].1 -= 1;
            return Ok(());
        }
        let (_, _, errno) = self.failures.remove(at);
        refuse(operation, errno)
    }

    fn device(&self, operation: Operation, device: DeviceId) -> HostResult<MockDevice> {
        match self.objects.get(&(device.iommufd, device.id)) {
            Some(Object::Device(device)) => Ok(*device),
            _ => refuse(operation, Errno::NoEntry),
        }
    }

    fn hwpt(&self, operation: Operation, hwpt: HwptId) -> HostResult<&Kind> {
        match self.objects.get(&(hwpt.iommufd, hwpt.id)) {
            Some(Object::Hwpt(kind)) => Ok(kind),
            _ => refuse(operation, Errno::Invalid),
        }
    }

    /// What is attached.
    pub fn attached(&self, device: DeviceId, pasid: Option<Pasid>) -> Option<HwptId> {
        self.attached.get(&(device, pasid)).copied()
    }

    /// The first stage that is attached; none if nothing is, or a parent.
    pub fn attached_stage(&self, device: DeviceId, pasid: Option<Pasid>) -> Option<FirstStage> {
        self.stage(self.attached(device, pasid)?)
    }

    /// The first stage of a nested page table.
    pub fn stage(&self, hwpt: HwptId) -> Option<FirstStage> {
        match self.objects.get(&(hwpt.iommufd, hwpt.id))? {
            Object::Hwpt(Kind::Nested { stage, .. }) => Some(*stage),
            _ => None,
        }
    }

    /// How many page tables there are.
    pub fn page_tables(&self) -> usize {
        let is = |object: &&Object| matches!(object, Object::Hwpt(_));
        self.objects.values().filter(is).count()
    }

    /// The mappings of an I/O address space.
    pub fn mappings(&self, ioas: IoasId) -> &[Mapping] {
        match self.objects.get(&(ioas.iommufd, ioas.id)) {
            Some(Object::Ioas(mappings)) => mappings,
            _ => &[],
        }
    }

    /// A device sends a group of page requests: addresses, with whether each is a write. Returns
    /// its cookie; none if nothing takes page requests there.
    pub fn page_request(
        &mut self,
        device: DeviceId,
        pasid: Option<Pasid>,
        group: u32,
        pages: &[(u64, bool)],
    ) -> Option<u32> {
        let hwpt = self.attached(device, pasid)?;
        let queue = match self.objects.get(&(hwpt.iommufd, hwpt.id))? {
            Object::Hwpt(Kind::Nested { flags, .. }) => flags.fault_queue?,
            _ => return None,
        };
        self.cookie += 1;
        let cookie = self.cookie;
        let faults = pages.iter().enumerate().map(|(n, (address, write))| Fault {
            device: device.id,
            pasid,
            group,
            last: n + 1 == pages.len(),
            read: !write,
            write: *write,
            execute: false,
            privileged: false,
            address: *address,
            cookie,
        });
        let faults = faults.collect();
        match self.objects.get_mut(&(queue.iommufd, queue.id))? {
            Object::FaultQueue {
                waiting,
                unanswered,
            } => {
                waiting.push_back(faults);
                unanswered.push((cookie, device.id, pasid));
            }
            _ => return None,
        }
        Some(cookie)
    }

    /// A device writes to guest physical memory.
    pub fn write(&mut self, parent: HwptId, address: u64) {
        if let Some(Object::Hwpt(Kind::Parent {
            dirty: Some(dirty), ..
        })) = self.objects.get_mut(&(parent.iommufd, parent.id))
        {
            dirty.push(address >> 12);
        }
    }

    /// What is attached is gone: groups that are not answered are answered.
    fn leave(&mut self, device: DeviceId, pasid: Option<Pasid>) {
        for ((iommufd, _), object) in &mut self.objects {
            if let (
                true,
                Object::FaultQueue {
                    waiting,
                    unanswered,
                },
            ) = (*iommufd == device.iommufd, object)
            {
                let is =
                    |(_, of, with): &(u32, u32, Option<Pasid>)| *of == device.id && *with == pasid;
                let gone: Vec<u32> = unanswered.iter().filter(|g| is(g)).map(|g| g.0).collect();
                unanswered.retain(|group| !is(group));
                waiting.retain(|group| !gone.contains(&group[0].cookie));
                self.answered.extend(gone);
            }
        }
    }

    /// Whether a page table can be attached, by the rules of the hardware.
    fn check_attach(
        &self,
        operation: Operation,
        device: DeviceId,
        pasid: Option<Pasid>,
        hwpt: HwptId,
    ) -> HostResult<()> {
        let mock = self.device(operation, device)?;
        if device.iommufd != hwpt.iommufd {
            return refuse(operation, Errno::NoEntry);
        }
        let kind = match self.objects.get(&(hwpt.iommufd, hwpt.id)) {
            Some(Object::Hwpt(kind)) => kind,
            _ => return refuse(operation, Errno::NoEntry),
        };
        let Some(vtd) = mock.info.vtd else {
            return refuse(operation, Errno::NotSupported);
        };
        let alloc_pasid = |kind: &Kind| match kind {
            Kind::Parent { flags, .. } => flags.pasid,
            Kind::Nested { flags, .. } => flags.pasid,
        };
        if let Some(pasid) = pasid {
            if mock.info.max_pasid_log2 == 0 || !vtd.ecap.pasid() {
                return refuse(operation, Errno::NotSupported);
            }
            if pasid.get() == 0 && self.attached.contains_key(&(device, None)) {
                // It is that of requests without PASID: as Linux 7.3.4 says.
                return refuse(operation, Errno::Busy);
            }
            if pasid.get() == 0 || pasid.get() >> mock.info.max_pasid_log2 != 0 {
                return refuse(operation, Errno::Invalid);
            }
            // That of the requests without PASID has to have the flag, too.
            let rid = self.attached.get(&(device, None));
            let rid = rid.and_then(|hwpt| self.hwpt(operation, *hwpt).ok());
            if !alloc_pasid(kind) || rid.is_some_and(|rid| !alloc_pasid(rid)) {
                return refuse(operation, Errno::Invalid);
            }
        }
        let others = self
            .attached
            .keys()
            .any(|(of, with)| *of == device && with.is_some());
        if pasid.is_none() && others && !alloc_pasid(kind) {
            return refuse(operation, Errno::Invalid);
        }
        if let Kind::Nested { stage, flags, .. } = kind {
            let width = match stage.address_width {
                48 => true,
                57 => vtd.cap.fs5lp(),
                _ => false,
            };
            let flags_fit = (!stage.supervisor_requests || vtd.ecap.srs())
                && (!stage.extended_accessed || vtd.ecap.eafs());
            if !width || !flags_fit {
                return refuse(operation, Errno::Invalid);
            }
            if flags.fault_queue.is_some() {
                if !mock.pri {
                    return refuse(operation, Errno::NoDevice);
                }
                if mock.virtual_function {
                    return refuse(operation, Errno::Invalid);
                }
            }
        }
        Ok(())
    }

    fn invalidate_one(&mut self, hwpt: HwptId, entry: &Invalidation) -> HostResult<()> {
        self.injected(Operation::Invalidate)?;
        if let Invalidation::Pages { address, pages, .. } = *entry {
            if address & 0xfff != 0 || pages == 0 || pages == u64::MAX && address != 0 {
                return refuse(Operation::Invalidate, Errno::Invalid);
            }
        }
        self.calls.push(Call::Invalidate(hwpt, *entry));
        Ok(())
    }

    fn respond_one(&mut self, queue: FaultQueueId, response: FaultResponse) -> HostResult<()> {
        let operation = Operation::Respond;
        self.injected(operation)?;
        let Some(Object::FaultQueue { unanswered, .. }) =
            self.objects.get_mut(&(queue.iommufd, queue.id))
        else {
            return refuse(operation, Errno::NoEntry);
        };
        let before = unanswered.len();
        unanswered.retain(|group| group.0 != response.cookie);
        if unanswered.len() == before {
            return refuse(operation, Errno::Invalid);
        }
        self.calls
            .push(Call::Respond(response.cookie, response.code));
        Ok(())
    }
}

impl HostIommu for MockHost {
    fn hardware_info(&mut self, device: DeviceId) -> HostResult<HardwareInfo> {
        self.injected(Operation::HardwareInfo)?;
        Ok(self.device(Operation::HardwareInfo, device)?.info)
    }

    fn alloc_ioas(&mut self, iommufd: u32) -> HostResult<IoasId> {
        self.injected(Operation::AllocIoas)?;
        let id = self.add(iommufd, Object::Ioas(Vec::new()));
        Ok(IoasId { iommufd, id })
    }

    fn free_ioas(&mut self, ioas: IoasId) -> HostResult<()> {
        let operation = Operation::FreeIoas;
        self.injected(operation)?;
        let key = (ioas.iommufd, ioas.id);
        if !matches!(self.objects.get(&key), Some(Object::Ioas(_))) {
            return refuse(operation, Errno::NoEntry);
        }
        let uses = |((iommufd, _), object): (&(u32, u32), &Object)| {
            *iommufd == ioas.iommufd
                && matches!(object, Object::Hwpt(Kind::Parent { ioas: of, .. }) if *of == ioas.id)
        };
        if self.objects.iter().any(uses) {
            return refuse(operation, Errno::Busy);
        }
        self.objects.remove(&key);
        Ok(())
    }

    fn map(&mut self, ioas: IoasId, mapping: &Mapping) -> HostResult<()> {
        let operation = Operation::Map;
        self.injected(operation)?;
        let is_parent = self.objects.iter().any(|((iommufd, _), object)| {
            *iommufd == ioas.iommufd
                && matches!(object, Object::Hwpt(Kind::Parent { ioas: of, .. }) if *of == ioas.id)
        });
        let Some(Object::Ioas(mappings)) = self.objects.get_mut(&(ioas.iommufd, ioas.id)) else {
            return refuse(operation, Errno::NoEntry);
        };
        let Mapping { iova, length, .. } = *mapping;
        let aligned = (iova | length | mapping.host) & 0xfff == 0 && length != 0;
        // Under a parent, what is read-only could be written to through a nested page table.
        if !aligned || iova.checked_add(length - 1).is_none() || is_parent && !mapping.writable {
            return refuse(operation, Errno::Invalid);
        }
        let meets = |m: &Mapping| iova < m.iova + m.length && m.iova < iova + length;
        if mappings.iter().any(meets) {
            return refuse(operation, Errno::Exists);
        }
        mappings.push(*mapping);
        self.calls.push(Call::Map(ioas, *mapping));
        Ok(())
    }

    fn unmap(&mut self, ioas: IoasId, iova: u64, length: u64) -> HostResult<()> {
        let operation = Operation::Unmap;
        self.injected(operation)?;
        let Some(Object::Ioas(mappings)) = self.objects.get_mut(&(ioas.iommufd, ioas.id)) else {
            return refuse(operation, Errno::NoEntry);
        };
        let inside = |m: &Mapping| iova <= m.iova && m.iova + m.length <= iova + length;
        let meets = |m: &Mapping| iova < m.iova + m.length && m.iova < iova + length;
        let whole = mappings.iter().filter(|m| meets(m)).all(inside);
        if !whole || !mappings.iter().any(inside) {
            return refuse(operation, Errno::NoEntry);
        }
        mappings.retain(|m| !inside(m));
        Ok(())
    }

    fn alloc_parent(
        &mut self,
        device: DeviceId,
        ioas: IoasId,
        flags: ParentFlags,
    ) -> HostResult<HwptId> {
        let operation = Operation::AllocParent;
        self.injected(operation)?;
        let mock = self.device(operation, device)?;
        let key = (ioas.iommufd, ioas.id);
        let same = device.iommufd == ioas.iommufd;
        let Some(Object::Ioas(mappings)) = self.objects.get(&key).filter(|_| same) else {
            return refuse(operation, Errno::Invalid);
        };
        let read_only = mappings.iter().any(|m| !m.writable);
        let can = mock.info.vtd.is_some_and(|vtd| {
            let tracks = vtd.ecap.ssads() && vtd.ecap.smpwcs();
            vtd.ecap.nest() && vtd.ecap.ssts() && (!flags.dirty_tracking || tracks)
        });
        if !can {
            return refuse(operation, Errno::NotSupported);
        }
        if read_only {
            return refuse(operation, Errno::Invalid);
        }
        let kind = Kind::Parent {
            ioas: ioas.id,
            flags,
            dirty: None,
        };
        let hwpt = HwptId {
            iommufd: device.iommufd,
            id: self.add(device.iommufd, Object::Hwpt(kind)),
        };
        self.calls.push(Call::Alloc(hwpt));
        Ok(hwpt)
    }

    fn alloc_nested(
        &mut self,
        device: DeviceId,
        parent: HwptId,
        stage: &FirstStage,
        flags: NestedFlags,
    ) -> HostResult<HwptId> {
        let operation = Operation::AllocNested;
        self.injected(operation)?;
        self.device(operation, device)?;
        let is_parent = matches!(self.hwpt(operation, parent)?, Kind::Parent { .. });
        if !is_parent || device.iommufd != parent.iommufd {
            return refuse(operation, Errno::Invalid);
        }
        if let Some(queue) = flags.fault_queue {
            let key = (queue.iommufd, queue.id);
            let is = matches!(self.objects.get(&key), Some(Object::FaultQueue { .. }));
            if !is || queue.iommufd != device.iommufd {
                return refuse(operation, Errno::NoEntry);
            }
        }
        let kind = Kind::Nested {
            parent: parent.id,
            stage: *stage,
            flags,
        };
        let hwpt = HwptId {
            iommufd: device.iommufd,
            id: self.add(device.iommufd, Object::Hwpt(kind)),
        };
        self.calls.push(Call::Alloc(hwpt));
        Ok(hwpt)
    }

    fn free_hwpt(&mut self, hwpt: HwptId) -> HostResult<()> {
        let operation = Operation::FreeHwpt;
        self.injected(operation)?;
        let key = (hwpt.iommufd, hwpt.id);
        if !matches!(self.objects.get(&key), Some(Object::Hwpt(_))) {
            return refuse(operation, Errno::NoEntry);
        }
        let is_used = self.attached.values().any(|of| *of == hwpt)
            || self.objects.iter().any(|((iommufd, _), object)| {
                *iommufd == hwpt.iommufd
                    && matches!(object, Object::Hwpt(Kind::Nested { parent, .. }) if *parent == hwpt.id)
            });
        if is_used {
            return refuse(operation, Errno::Busy);
        }
        self.objects.remove(&key);
        self.calls.push(Call::Free(hwpt));
        Ok(())
    }

    fn attach(&mut self, device: DeviceId, pasid: Option<Pasid>, hwpt: HwptId) -> HostResult<()> {
        let operation = Operation::Attach;
        self.injected(operation)?;
        self.check_attach(operation, device, pasid, hwpt)?;
        if self.attached.contains_key(&(device, pasid)) {
            return refuse(operation, Errno::Invalid);
        }
        self.attached.insert((device, pasid), hwpt);
        self.calls.push(Call::Attach(device, pasid, hwpt));
        Ok(())
    }

    fn replace(&mut self, device: DeviceId, pasid: Option<Pasid>, hwpt: HwptId) -> HostResult<()> {
        let operation = Operation::Replace;
        self.injected(operation)?;
        self.check_attach(operation, device, pasid, hwpt)?;
        if !self.attached.contains_key(&(device, pasid)) {
            return refuse(operation, Errno::Invalid);
        }
        self.leave(device, pasid);
        self.attached.insert((device, pasid), hwpt);
        self.calls.push(Call::Replace(device, pasid, hwpt));
        Ok(())
    }

    fn detach(&mut self, device: DeviceId, pasid: Option<Pasid>) -> HostResult<()> {
        let operation = Operation::Detach;
        self.injected(operation)?;
        self.device(operation, device)?;
        self.leave(device, pasid);
        if self.attached.remove(&(device, pasid)).is_some() {
            self.calls.push(Call::Detach(device, pasid));
        }
        Ok(())
    }

    fn invalidate(&mut self, hwpt: HwptId, entries: &[Invalidation]) -> Result<(), Partial> {
        let total = entries.len();
        let partial = |done| move |error| Partial { done, total, error };
        let kind = self.hwpt(Operation::Invalidate, hwpt).map_err(partial(0))?;
        if !matches!(kind, Kind::Nested { .. }) || total > MOST_ENTRIES {
            return refuse(Operation::Invalidate, Errno::Invalid).map_err(partial(0));
        }
        for (done, entry) in entries.iter().enumerate() {
            self.invalidate_one(hwpt, entry).map_err(partial(done))?;
        }
        Ok(())
    }

    fn alloc_fault_queue(&mut self, iommufd: u32) -> HostResult<FaultQueueId> {
        self.injected(Operation::AllocFaultQueue)?;
        let object = Object::FaultQueue {
            waiting: VecDeque::new(),
            unanswered: Vec::new(),
        };
        let id = self.add(iommufd, object);
        Ok(FaultQueueId { iommufd, id })
    }

    fn free_fault_queue(&mut self, queue: FaultQueueId) -> HostResult<()> {
        let operation = Operation::FreeFaultQueue;
        self.injected(operation)?;
        let key = (queue.iommufd, queue.id);
        if !matches!(self.objects.get(&key), Some(Object::FaultQueue { .. })) {
            return refuse(operation, Errno::NoEntry);
        }
        let uses = |object: &Object| {
            matches!(object, Object::Hwpt(Kind::Nested { flags, .. })
                if flags.fault_queue == Some(queue))
        };
        if self.objects.values().any(uses) {
            return refuse(operation, Errno::Busy);
        }
        self.objects.remove(&key);
        Ok(())
    }

    fn read_faults(&mut self, queue: FaultQueueId) -> HostResult<Vec<Fault>> {
        let operation = Operation::ReadFaults;
        self.injected(operation)?;
        match self.objects.get_mut(&(queue.iommufd, queue.id)) {
            Some(Object::FaultQueue { waiting, .. }) => {
                Ok(std::mem::take(waiting).into_iter().flatten().collect())
            }
            _ => refuse(operation, Errno::NoEntry),
        }
    }

    fn respond(&mut self, queue: FaultQueueId, responses: &[FaultResponse]) -> Result<(), Partial> {
        let total = responses.len();
        for (done, response) in responses.iter().enumerate() {
            let result = self.respond_one(queue, *response);
            result.map_err(|error| Partial { done, total, error })?;
        }
        Ok(())
    }

    fn set_dirty_tracking(&mut self, hwpt: HwptId, on: bool) -> HostResult<()> {
        let operation = Operation::SetDirtyTracking;
        self.injected(operation)?;
        match self.objects.get_mut(&(hwpt.iommufd, hwpt.id)) {
            Some(Object::Hwpt(Kind::Parent { flags, dirty, .. })) if flags.dirty_tracking => {
                *dirty = on.then(Vec::new);
                Ok(())
            }
            Some(Object::Hwpt(Kind::Parent { .. })) => refuse(operation, Errno::NotSupported),
            Some(Object::Hwpt(Kind::Nested { .. })) => refuse(operation, Errno::Invalid),
            _ => refuse(operation, Errno::NoEntry),
        }
    }

    fn read_dirty(
        &mut self,
        hwpt: HwptId,
        iova: u64,
        length: u64,
        page_size: u64,
    ) -> HostResult<Vec<u64>> {
        let operation = Operation::ReadDirty;
        self.injected(operation)?;
        if page_size < 4096 || !page_size.is_power_of_two() || (iova | length) % page_size != 0 {
            return refuse(operation, Errno::Invalid);
        }
        let Some(Object::Hwpt(Kind::Parent { dirty, .. })) =
            self.objects.get_mut(&(hwpt.iommufd, hwpt.id))
        else {
            return refuse(operation, Errno::Invalid);
        };
        let Some(dirty) = dirty else {
            return refuse(operation, Errno::Invalid);
        };
        let pages = length / page_size;
        let mut bits = vec![0; pages.div_ceil(64) as usize];
        dirty.retain(|page| {
            let address = page << 12;
            let inside = (iova..iova + length).contains(&address);
            if inside {
                let n = (address - iova) / page_size;
                bits[(n / 64) as usize] |= 1u64 << (n % 64);
            }
            !inside
        });
        Ok(bits)
    }
}
