// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device of a rust-vmm virtual machine monitor behind the unit, through `vm-memory`.

use machine::os::{App, Domain, Mode, Os};
use machine::{Machine, MachineConfig, Remapping};
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Iommu, IommuMemory, Permissions,
};

type Memory = IommuMemory<GuestMemoryMmap<()>, Remapping>;

/// Memory as a device without PASID sees it, behind a domain.
fn device(mode: Mode) -> (Machine, Os, Domain, Memory) {
    let machine = Machine::new(&MachineConfig::default()).unwrap();
    let os = Os::boot(&machine, mode);
    let domain = Domain::attach(&os, 0);
    let remapping = Remapping::of_function(&machine, 0, None);
    let memory = IommuMemory::new(machine.ram().guest_memory().clone(), remapping, true, ());
    (machine, os, domain, memory)
}

#[test]
fn a_device_sees_memory_as_the_tables_say() {
    for mode in [Mode::Legacy, Mode::Scalable] {
        let (machine, os, domain, memory) = device(mode);
        let frames = [0; 3].map(|_| os.frames().allocate());
        // Neighbours in the domain, in reverse order in memory.
        for (n, frame) in frames.iter().rev().enumerate() {
            domain.map(0x10_0000 + n as u64 * 0x1000, 12, *frame, true);
        }
        let data: Vec<u8> = (0..0x2800).map(|n| n as u8).collect();
        memory.write_slice(&data, GuestAddress(0x10_0400)).unwrap();
        let mut back = vec![0; data.len()];
        memory
            .read_slice(&mut back, GuestAddress(0x10_0400))
            .unwrap();
        assert_eq!(back, data);
        assert_eq!(
            machine.ram().load(frames[2] + 0x400),
            Ok(0x0706_0504_0302_0100)
        );
        assert!(memory.check_range(GuestAddress(0x10_0000), 0x3000, Permissions::ReadWrite));
        assert!(!memory.check_range(GuestAddress(0x10_0000), 0x3001, Permissions::Read));
        assert!(memory.read_slice(&mut [], GuestAddress(0x10_0000)).is_ok());
        assert!(
            memory
                .read_slice(&mut back, GuestAddress(u64::MAX - 8))
                .is_err()
        );
    }
}

#[test]
fn what_is_not_permitted_is_refused_and_recorded() {
    let (_, os, domain, memory) = device(Mode::Scalable);
    domain.map(0x10_0000, 12, os.frames().allocate(), false);
    let mut word = [0; 8];
    memory
        .read_slice(&mut word, GuestAddress(0x10_0000))
        .unwrap();
    assert!(memory.write_slice(&word, GuestAddress(0x10_0000)).is_err());
    assert!(
        memory
            .read_slice(&mut word, GuestAddress(0x20_0000))
            .is_err()
    );
    assert_eq!(os.faults(0).len(), 2);
}

#[test]
fn an_invalidation_ends_what_was_copied() {
    let (machine, os, domain, memory) = device(Mode::Scalable);
    let (old, new) = (os.frames().allocate(), os.frames().allocate());
    domain.map(0x10_0000, 12, old, true);
    memory
        .write_slice(&[1; 8], GuestAddress(0x10_0000))
        .unwrap();
    domain.unmap(0x10_0000).unwrap();
    assert!(
        memory
            .write_slice(&[2; 8], GuestAddress(0x10_0000))
            .is_err()
    );
    domain.map(0x10_0000, 12, new, true);
    memory
        .write_slice(&[3; 8], GuestAddress(0x10_0000))
        .unwrap();
    assert_eq!(machine.ram().load(old), Ok(0x0101_0101_0101_0101));
    assert_eq!(machine.ram().load(new), Ok(0x0303_0303_0303_0303));
}

#[test]
fn an_invalidation_waits_for_an_access_that_holds_the_copy() {
    let (machine, os, domain, memory) = device(Mode::Scalable);
    domain.map(0x10_0000, 12, os.frames().allocate(), true);
    let over = AtomicBool::new(false);
    let iommu = memory.iommu();
    let held = iommu
        .translate(GuestAddress(0x10_0000), 8, Permissions::Write)
        .unwrap();
    std::thread::scope(|scope| {
        let (over, domain) = (&over, &domain);
        scope.spawn(move || {
            domain.unmap(0x10_0000).unwrap();
            over.store(true, Ordering::SeqCst);
        });
        // The unit has forgotten the page, and software does not know yet.
        let request = vtd::Request {
            requester: machine.requester(0),
            pasid: None,
            address: 0x10_0000,
            access: vtd::Access::Write,
            execute: false,
            privileged: false,
        };
        let gone = || {
            machine
                .with_unit(0, |unit, ram, fx| unit.translate(ram, &request, fx))
                .is_err()
        };
        while !gone() {
            std::thread::yield_now();
        }
        assert!(!over.load(Ordering::SeqCst));
        drop(held);
    });
    assert!(over.load(Ordering::SeqCst));
}

#[test]
fn a_device_with_a_pasid_shares_a_process() {
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x2000);
    let pasid = Some(app.process().pasid());
    let remapping = Remapping::of_function(app.machine(), 0, pasid);
    let memory = app.machine().ram().guest_memory().clone();
    let memory: Memory = IommuMemory::new(memory, remapping, true, ());
    memory
        .write_slice(b"by address", GuestAddress(base + 0xffa))
        .unwrap();
    assert_eq!(app.process().read(base + 0xffa, 10), b"by address");
}
