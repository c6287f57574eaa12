// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks of `svmctl iommufd`, in the order in which they run: each leaves the device as the
//! next one finds it.

use std::os::fd::AsFd;

use anyhow::{Context as _, bail, ensure};
use host_iommu::ats::host_supports_ats;
use host_iommu::host::{
    Errno, Fault, FaultCode, FaultQueueId, FaultResponse, FirstStage, HostIommu, HostResult,
    HwptId, Invalidation, IoasId, Mapping, NestedFlags, ParentFlags,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pcie_ats::Pasid;
use svmctl::abi::counters::index;
use svmctl::abi::registers::function;
use svmctl::region::PAGE;
use vtd::spec::DomainId;
use vtd::spec::invalidation::{PageGroupResponse, PasidCacheInvalidate, PasidIotlbInvalidate};

use super::guest::{Guest, REQUESTER};
use super::laboratory::Reason;
use super::world::{GUEST, PARENT, READ_ONLY, READ_WRITE, Tables, World};

/// A check: what it found, in a few words.
type Check = fn(&mut World) -> anyhow::Result<String>;

/// Checks that need no nested translation.
pub const PLAIN: &[(&str, Check)] = &[
    ("capabilities of the host's unit", capabilities),
    ("an address space, with the kernel's tables", plain),
];

/// Checks that need it.
pub const NESTED: &[(&str, Check)] = &[
    ("a first stage nested in a parent", nested),
    ("ATS through both stages", through_both_stages),
    ("read-only in the first stage", read_only),
    ("a hole in either stage", holes),
    ("one page is invalidated", invalidate_page),
    ("everything is invalidated", invalidate_all),
    (
        "the parent is unmapped while translations are cached",
        unmap_parent,
    ),
    ("a page request is answered with success", page_request),
    (
        "a page request is answered as invalid",
        page_request_invalid,
    ),
    ("several page requests in a group", page_request_group),
    ("two PASIDs at one address", two_pasids),
    ("a page request with a PASID", page_request_pasid),
    ("detached with a page request outstanding", detached),
    ("dirty pages are tracked", dirty),
    ("a guest's unit above the kernel's", guest_unit),
    ("what the kernel refuses, and how", refusals),
];

fn pasid(number: u32) -> anyhow::Result<Pasid> {
    Ok(Pasid::new(number)?)
}

fn filled(byte: u64) -> u64 {
    byte * 0x0101_0101_0101_0101
}

fn capabilities(w: &mut World) -> anyhow::Result<String> {
    let info = w.host.hardware_info(w.device)?;
    let vtd = info.vtd.context("the unit is not one of VT-d")?;
    // The kernel nests where the unit does.
    ensure!(
        (vtd.ecap.nest() && vtd.ecap.ssts()) == w.parent.is_some(),
        "ECAP is {:#x}, and the parent {:?}",
        vtd.ecap.0,
        w.parent
    );
    // The device has ATS, and no table of the firmware takes it away.
    ensure!(
        host_supports_ats(&info) == vtd.ecap.dt(),
        "ECAP is {:#x}, and the capabilities are {:#x}",
        vtd.ecap.0,
        info.capabilities
    );
    let permitted = w.laboratory.function()?;
    let wanted = function::BUS_MASTER | function::ATS | function::PRI | function::PASID;
    ensure!(permitted & wanted == wanted, "FUNCTION is {permitted:#x}");
    Ok(format!(
        "CAP {:#x} ECAP {:#x} flags {:#x} capabilities {:#x}, PASIDs of {} bits",
        vtd.cap.0, vtd.ecap.0, vtd.flags, info.capabilities, info.max_pasid_log2
    ))
}

fn plain(w: &mut World) -> anyhow::Result<String> {
    // The kernel makes a page table of its own for the device, or takes one that it has.
    let tables = HwptId {
        iommufd: w.ioas.iommufd,
        id: w.ioas.id,
    };
    w.host.attach(w.device, None, tables)?;
    let address = GUEST + (9 * PAGE) as u64;
    let all = [
        w.laboratory.read(address)?,
        w.laboratory
            .read_translated(None, address)?
            .map(Option::unwrap_or_default),
    ];
    ensure!(all == [Ok(filled(0x99)); 2], "{all:x?}");
    let mapping = Mapping {
        iova: GUEST + 0x400_0000,
        host: w.memory.address(8 * PAGE),
        length: PAGE as u64,
        writable: true,
    };
    w.host.map(w.ioas, &mapping)?;
    let there = w.laboratory.read_translated(None, mapping.iova)?;
    ensure!(there == Ok(Some(filled(0x88))), "{there:x?}");
    let before = w.invalidations()?;
    w.host.unmap(w.ioas, mapping.iova, mapping.length)?;
    let received = w.invalidations()? - before;
    ensure!(received > 0, "the device has received no invalidation");
    let gone = w.laboratory.read(mapping.iova)?;
    ensure!(gone.is_err(), "it is still read: {gone:x?}");
    w.host.detach(w.device, None)?;
    Ok(format!("{received} invalidations of the device"))
}

fn nested(w: &mut World) -> anyhow::Result<String> {
    let tables = w.tables;
    w.build(tables);
    w.map(tables, 0, 8, READ_WRITE);
    w.map(tables, 1, 9, READ_ONLY);
    // In the first stage, and not in the second.
    w.map_to(tables, 2, GUEST + 0x100_0000, READ_WRITE);
    let hwpt = w.nest(tables, false)?;
    w.host.attach(w.device, None, hwpt)?;
    w.nested = Some(hwpt);
    let data = w.laboratory.read(World::input(0))?;
    ensure!(
        data == Ok(filled(0x88)),
        "an untranslated read gives {data:x?}"
    );
    Ok(String::new())
}

fn through_both_stages(w: &mut World) -> anyhow::Result<String> {
    let translation = w.laboratory.translate(None, World::input(0), true)?;
    let translation = translation.map_err(|reason| anyhow::anyhow!("{reason:?}"))?;
    ensure!(translation.read && translation.write, "{translation:x?}");
    let data = w.laboratory.read_translated(None, World::input(0))?;
    ensure!(
        data == Ok(Some(filled(0x88))),
        "a translated read gives {data:x?}"
    );
    // The unit has set the flags: accessed 5, dirty 6.
    let leaf = w.leaf(w.tables, 0);
    ensure!(leaf & 0x60 == 0x60, "the leaf entry is {leaf:#x}");
    Ok(format!("at {:#x}", translation.address))
}

fn read_only(w: &mut World) -> anyhow::Result<String> {
    let translation = w.laboratory.translate(None, World::input(1), true)?;
    let translation = translation.map_err(|reason| anyhow::anyhow!("{reason:?}"))?;
    ensure!(translation.read && !translation.write, "{translation:x?}");
    let data = w.laboratory.read(World::input(1))?;
    ensure!(data == Ok(filled(0x99)), "{data:x?}");
    let written = w.laboratory.write(World::input(1), 0)?;
    ensure!(
        written.is_err() && w.word(9, 0) == filled(0x99),
        "{written:?}"
    );
    Ok(String::new())
}

fn holes(w: &mut World) -> anyhow::Result<String> {
    for n in [2, 5] {
        let data = w.laboratory.read_translated(None, World::input(n))?;
        ensure!(!matches!(data, Ok(Some(_))), "page {n}: {data:x?}");
        let data = w.laboratory.read(World::input(n))?;
        ensure!(data.is_err(), "page {n}: {data:x?}");
    }
    Ok(String::new())
}

fn invalidate_page(w: &mut World) -> anyhow::Result<String> {
    let hwpt = w.nested()?;
    w.map(w.tables, 0, 10, READ_WRITE);
    let before = w.invalidations()?;
    let entry = Invalidation::Pages {
        address: World::input(0),
        pages: 1,
        leaf_only: true,
    };
    w.host.invalidate(hwpt, &[entry])?;
    let received = w.invalidations()? - before;
    ensure!(
        received == 1,
        "the device has received {received} invalidations"
    );
    let all = [
        w.laboratory.read(World::input(0))?,
        w.laboratory
            .read_translated(None, World::input(0))?
            .map(Option::unwrap_or_default),
    ];
    ensure!(all == [Ok(filled(0xaa)); 2], "{all:x?}");
    Ok(String::new())
}

fn invalidate_all(w: &mut World) -> anyhow::Result<String> {
    let hwpt = w.nested()?;
    w.map(w.tables, 0, 8, READ_WRITE);
    w.map(w.tables, 1, 10, READ_WRITE);
    let before = w.invalidations()?;
    w.host.invalidate(hwpt, &[Invalidation::All])?;
    let received = w.invalidations()? - before;
    ensure!(received > 0, "the device has received no invalidation");
    let all = [
        w.laboratory.read(World::input(0))?,
        w.laboratory.read(World::input(1))?,
    ];
    ensure!(all == [Ok(filled(0x88)), Ok(filled(0xaa))], "{all:x?}");
    Ok(format!("{received} invalidations of the device"))
}

fn unmap_parent(w: &mut World) -> anyhow::Result<String> {
    let (guest, n) = (GUEST + 0x200_0000, 3);
    let mapping = Mapping {
        iova: guest,
        host: w.memory.address(9 * PAGE),
        length: PAGE as u64,
        writable: true,
    };
    w.host.map(w.ioas, &mapping)?;
    w.map_to(w.tables, n, guest, READ_WRITE);
    let there = w.laboratory.read(World::input(n))?;
    ensure!(there == Ok(filled(0x99)), "{there:x?}");
    let before = w.invalidations()?;
    w.host.unmap(w.ioas, guest, PAGE as u64)?;
    let received = w.invalidations()? - before;
    ensure!(received > 0, "the device has received no invalidation");
    let gone = w.laboratory.read(World::input(n))?;
    ensure!(gone.is_err(), "it is still read: {gone:x?}");
    Ok(format!("{received} invalidations of the device"))
}

/// Waits for page requests.
fn wait_for_faults(w: &World) -> anyhow::Result<()> {
    let fd = w.host.fault_queue_fd(w.queue).context("no fault queue")?;
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(10_000u16))?;
    ensure!(ready == 1, "no page request has come");
    Ok(())
}

/// Waits for page requests, and takes them.
fn faults(w: &mut World) -> anyhow::Result<Vec<Fault>> {
    wait_for_faults(w)?;
    Ok(w.host.read_faults(w.queue)?)
}

fn respond(w: &mut World, cookie: u32, code: FaultCode) -> anyhow::Result<()> {
    Ok(w.host.respond(w.queue, &[FaultResponse { cookie, code }])?)
}

fn page_request(w: &mut World) -> anyhow::Result<String> {
    let hwpt = w.nest(w.tables, true)?;
    w.host.replace(w.device, None, hwpt)?;
    let old = w.nested.replace(hwpt).context("nothing was attached")?;
    w.host.free_hwpt(old)?;
    let n = 6;
    let before = w.laboratory.counter(index::PRG_RESPONSES)?;
    w.laboratory
        .page_request(None, World::input(n), true, true)?;
    let all = faults(w)?;
    let [fault] = all[..] else {
        bail!("{all:x?}");
    };
    let expected = fault.address == World::input(n) && fault.write && fault.pasid.is_none();
    ensure!(
        expected && fault.last && fault.device == w.device.id,
        "{fault:x?}"
    );
    w.map(w.tables, n, 10, READ_WRITE);
    respond(w, fault.cookie, FaultCode::Success)?;
    let end = w.laboratory.end()?;
    let responses = w.laboratory.counter(index::PRG_RESPONSES)? - before;
    ensure!(
        end == Ok(()) && responses == 1,
        "{end:?}, {responses} responses"
    );
    let data = w.laboratory.read_translated(None, World::input(n))?;
    ensure!(data == Ok(Some(filled(0xaa))), "{data:x?}");
    Ok(String::new())
}

fn page_request_invalid(w: &mut World) -> anyhow::Result<String> {
    w.laboratory
        .page_request(None, World::input(7), false, true)?;
    let all = faults(w)?;
    let fault = all.first().context("nothing was read")?;
    respond(w, fault.cookie, FaultCode::Invalid)?;
    let end = w.laboratory.end()?;
    ensure!(end == Err(Reason::PageFault), "{end:?}");
    // Once.
    let again = w.host.respond(
        w.queue,
        &[FaultResponse {
            cookie: fault.cookie,
            code: FaultCode::Invalid,
        }],
    );
    let errno = again.err().map(|partial| partial.error.errno);
    ensure!(
        errno == Some(Errno::Invalid),
        "a second response: {errno:?}"
    );
    Ok(String::new())
}

fn page_request_group(w: &mut World) -> anyhow::Result<String> {
    for n in [20, 21] {
        w.laboratory
            .page_request(None, World::input(n), false, false)?;
        let end = w.laboratory.end()?;
        ensure!(end == Ok(()), "{end:?}");
    }
    w.laboratory
        .page_request(None, World::input(22), true, true)?;
    let all = faults(w)?;
    let addresses: Vec<u64> = all.iter().map(|fault| fault.address).collect();
    let expected = [20, 21, 22].map(World::input);
    ensure!(addresses == expected, "{all:x?}");
    let cookie = all[0].cookie;
    let last: Vec<bool> = all.iter().map(|fault| fault.last).collect();
    let whole = all.iter().all(|fault| fault.cookie == cookie) && last == [false, false, true];
    ensure!(whole, "{all:x?}");
    respond(w, cookie, FaultCode::Success)?;
    let end = w.laboratory.end()?;
    ensure!(end == Ok(()), "{end:?}");
    Ok(String::new())
}

/// The PASIDs of the checks, and the tables of each.
const PASIDS: [(u32, Tables); 2] = [(5, Tables { root: 16 }), (300_000, Tables { root: 20 })];

fn two_pasids(w: &mut World) -> anyhow::Result<String> {
    let mut pages = [24, 25].into_iter();
    for (number, tables) in PASIDS {
        let page = pages.next().context("a page for each")?;
        w.build(tables);
        w.fill(page, u64::from(number & 0xff));
        w.map(tables, 0, page, READ_WRITE);
        let hwpt = w.nest(tables, true)?;
        w.host.attach(w.device, Some(pasid(number)?), hwpt)?;
    }
    for (number, _) in PASIDS {
        let data = w
            .laboratory
            .read_translated(Some(number), World::input(0))?;
        let expected = filled(u64::from(number & 0xff));
        ensure!(data == Ok(Some(expected)), "PASID {number}: {data:x?}");
    }
    let without = w.laboratory.read_translated(None, World::input(0))?;
    ensure!(
        without == Ok(Some(filled(0x88))),
        "without PASID: {without:x?}"
    );
    let other = w.laboratory.read_translated(Some(6), World::input(0))?;
    ensure!(
        !matches!(other, Ok(Some(_))),
        "a PASID that nothing is attached to: {other:x?}"
    );
    Ok(String::new())
}

fn page_request_pasid(w: &mut World) -> anyhow::Result<String> {
    let (number, tables) = PASIDS[1];
    w.laboratory
        .page_request(Some(number), World::input(4), true, true)?;
    let all = faults(w)?;
    let fault = all.first().context("nothing was read")?;
    ensure!(fault.pasid == Some(pasid(number)?), "{fault:x?}");
    w.map(tables, 4, 10, READ_WRITE);
    respond(w, fault.cookie, FaultCode::Success)?;
    let end = w.laboratory.end()?;
    ensure!(end == Ok(()), "{end:?}");
    let data = w
        .laboratory
        .read_translated(Some(number), World::input(4))?;
    ensure!(data == Ok(Some(filled(0xaa))), "{data:x?}");
    Ok(String::new())
}

fn detached(w: &mut World) -> anyhow::Result<String> {
    let (number, _) = PASIDS[1];
    w.laboratory
        .page_request(Some(number), World::input(9), true, true)?;
    let all = faults(w)?;
    let cookie = all.first().context("nothing was read")?.cookie;
    w.host.detach(w.device, Some(pasid(number)?))?;
    let end = w.laboratory.end()?;
    ensure!(
        end == Err(Reason::PageFault),
        "the kernel has answered: {end:?}"
    );
    let late = respond(w, cookie, FaultCode::Success);
    ensure!(late.is_err(), "a late response was taken");
    let data = w
        .laboratory
        .read_translated(Some(number), World::input(0))?;
    ensure!(
        !matches!(data, Ok(Some(_))),
        "it is still translated: {data:x?}"
    );
    w.host.detach(w.device, Some(pasid(PASIDS[0].0)?))?;
    Ok(String::new())
}

fn dirty(w: &mut World) -> anyhow::Result<String> {
    let flags = ParentFlags {
        dirty_tracking: true,
        pasid: true,
    };
    let hwpt = w.host.alloc_parent(w.device, w.ioas, flags)?;
    w.host.replace(w.device, None, hwpt)?;
    w.host.set_dirty_tracking(hwpt, true)?;
    let length = w.memory.len() as u64;
    let read = |w: &mut World| w.host.read_dirty(hwpt, GUEST, length, PAGE as u64);
    read(w)?;
    for page in [30, 41] {
        let written = w.laboratory.write(GUEST + (page * PAGE) as u64, 7)?;
        ensure!(
            written == Ok(()) && w.word(page, 0) == 7,
            "page {page}: {written:?}"
        );
    }
    let first = read(w)?;
    ensure!(first == [1 << 30 | 1 << 41], "{first:x?}");
    let second = read(w)?;
    ensure!(second == [0], "each page is told once: {second:x?}");
    w.host.set_dirty_tracking(hwpt, false)?;
    let nested = w.nested()?;
    w.host.replace(w.device, None, nested)?;
    w.host.free_hwpt(hwpt)?;
    Ok(String::new())
}

/// What a virtual machine does: software programs a unit of its own by registers, tables and
/// descriptors, and the kernel's unit walks its tables.
fn guest_unit(w: &mut World) -> anyhow::Result<String> {
    let (rid, tables) = (w.tables, PASIDS[0].1);
    let number = 7;
    let parent = w.parent()?;
    w.host.replace(w.device, None, parent)?;
    let mut guest = Guest::new(w)?;
    w.build(tables);
    w.map(rid, 0, 8, READ_WRITE);
    w.map(tables, 0, 9, READ_WRITE);
    guest.entry(0, 1, Some(rid))?;
    guest.start(&mut w.host)?;
    let data = w.laboratory.read(World::input(0))?;
    ensure!(data == Ok(filled(0x88)), "without PASID: {data:x?}");
    // A PASID that comes.
    guest.entry(number, 2, Some(tables))?;
    let cache = PasidCacheInvalidate::new().with_g(1).with_did(DomainId(2));
    guest.submit(&mut w.host, cache.with_pasid(number).0)?;
    let read = |w: &World, n| w.laboratory.read_translated(Some(number), World::input(n));
    let data = read(w, 0)?;
    ensure!(data == Ok(Some(filled(0x99))), "PASID {number}: {data:x?}");
    // A page that changes.
    w.map(tables, 0, 10, READ_WRITE);
    let before = w.invalidations()?;
    let pages = PasidIotlbInvalidate::new().with_g(3).with_did(DomainId(2));
    let pages = pages.with_pasid(number).with_addr(World::input(0));
    guest.submit(&mut w.host, pages.0)?;
    let (received, data) = (w.invalidations()? - before, read(w, 0)?);
    ensure!(
        received == 1 && data == Ok(Some(filled(0xaa))),
        "{received} invalidations, then {data:x?}"
    );
    // A page that is requested.
    w.laboratory
        .page_request(Some(number), World::input(12), true, true)?;
    wait_for_faults(w)?;
    let request = guest.page_request(w)?;
    let expected = request.rid == REQUESTER
        && request.request.pasid == Some(pasid(number)?)
        && request.request.address == World::input(12);
    ensure!(expected, "{request:x?}");
    w.map(tables, 12, 8, READ_WRITE);
    let response = PageGroupResponse::new().with_pp(true).with_rid(request.rid);
    let response = response
        .with_pasid(number)
        .with_prgi(request.request.prgi.get());
    guest.submit(&mut w.host, response.0)?;
    let (end, data) = (w.laboratory.end()?, read(w, 12)?);
    ensure!(
        end == Ok(()) && data == Ok(Some(filled(0x88))),
        "{end:?}, then {data:x?}"
    );
    // A PASID that goes, and translation that is switched off.
    guest.entry(number, 2, None)?;
    guest.submit(&mut w.host, cache.with_pasid(number).0)?;
    let data = read(w, 0)?;
    ensure!(
        !matches!(data, Ok(Some(_))),
        "it is still translated: {data:x?}"
    );
    guest.stop(&mut w.host)?;
    let data = w.laboratory.read(GUEST + (9 * PAGE) as u64)?;
    ensure!(data == Ok(filled(0x99)), "guest physical memory: {data:x?}");
    guest.end(&mut w.host)?;
    let nested = w.nested()?;
    w.host.replace(w.device, None, nested)?;
    Ok(String::new())
}

/// What a call was refused with.
fn refused<T>(result: HostResult<T>) -> Option<Errno> {
    result.err().map(|error| error.errno)
}

fn refusals(w: &mut World) -> anyhow::Result<String> {
    let iommufd = w.device.iommufd;
    let (stage, device) = (World::stage(w.tables), w.device);
    let flags = NestedFlags {
        pasid: true,
        fault_queue: None,
    };
    let mut got: Vec<(&str, Option<Errno>, &[Errno])> = Vec::new();
    let nothing = |id| HwptId { iommufd, id };
    let nested = w.nested()?;
    let parent = w.parent()?;
    // Allocation.
    let on_nested = w.host.alloc_nested(device, nested, &stage, flags);
    got.push((
        "nested in a nested page table",
        refused(on_nested),
        &[Errno::Invalid],
    ));
    let unknown = w.host.alloc_nested(device, nothing(0xffff), &stage, flags);
    got.push(("nested in nothing", refused(unknown), &[Errno::Invalid]));
    let no_queue = NestedFlags {
        pasid: true,
        fault_queue: Some(FaultQueueId {
            iommufd,
            id: parent.id,
        }),
    };
    let wrong = w.host.alloc_nested(device, parent, &stage, no_queue);
    got.push((
        "a fault queue that is none",
        refused(wrong),
        &[Errno::NoEntry],
    ));
    let ioas = IoasId {
        iommufd,
        id: 0xffff,
    };
    let unknown = w.host.alloc_parent(device, ioas, PARENT);
    got.push(("a parent of nothing", refused(unknown), &[Errno::Invalid]));
    // Attachment: what the hardware cannot walk.
    let width = FirstStage {
        address_width: 39,
        ..stage
    };
    let odd = w.host.alloc_nested(device, parent, &width, flags)?;
    let attached = w.host.replace(device, None, odd);
    got.push(("39 bits, attached", refused(attached), &[Errno::Invalid]));
    w.host.free_hwpt(odd)?;
    // It is that of requests without PASID, which have a page table.
    let zero = w.host.attach(device, Some(pasid(0)?), nested);
    got.push(("PASID 0", refused(zero), &[Errno::Busy, Errno::Invalid]));
    let plain = w
        .host
        .alloc_nested(device, parent, &stage, NestedFlags::default())?;
    let without = w.host.attach(device, Some(pasid(9)?), plain);
    got.push((
        "a PASID without the flag",
        refused(without),
        &[Errno::Invalid],
    ));
    w.host.free_hwpt(plain)?;
    // Use.
    let busy = w.host.free_hwpt(nested);
    got.push(("freed while attached", refused(busy), &[Errno::Busy]));
    let busy = w.host.free_hwpt(parent);
    got.push((
        "a parent freed with nested ones",
        refused(busy),
        &[Errno::Busy],
    ));
    // Invalidation.
    let mut invalidate = |hwpt, entry| {
        let partial = w.host.invalidate(hwpt, &[Invalidation::All, entry]).err();
        partial.map(|partial| (partial.error.errno, partial.done))
    };
    let odd = Invalidation::Pages {
        address: 0x800,
        pages: 1,
        leaf_only: false,
    };
    let unaligned = invalidate(nested, odd);
    ensure!(
        unaligned == Some((Errno::Invalid, 1)),
        "unaligned: {unaligned:?}"
    );
    let of_parent = invalidate(parent, Invalidation::All);
    ensure!(
        of_parent == Some((Errno::Invalid, 0)),
        "of a parent: {of_parent:?}"
    );
    // Mappings.
    let mapping = |iova, writable| Mapping {
        iova,
        host: w.memory.address(0),
        length: PAGE as u64,
        writable,
    };
    let (read_only, twice) = (mapping(GUEST + 0x300_0000, false), mapping(GUEST, true));
    let result = w.host.map(w.ioas, &read_only);
    got.push((
        "read-only below a parent",
        refused(result),
        &[Errno::Invalid],
    ));
    let result = w.host.map(w.ioas, &twice);
    got.push(("mapped twice", refused(result), &[Errno::Exists]));
    let result = w.host.unmap(w.ioas, GUEST + 0x300_0000, PAGE as u64);
    got.push((
        "unmapped, and not mapped",
        refused(result),
        &[Errno::NoEntry],
    ));
    let wrong: Vec<_> = got
        .iter()
        .filter(|(_, got, want)| got.is_none_or(|got| !want.contains(&got)))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(format!("{} refusals", got.len() + 2))
}
