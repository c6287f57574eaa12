// SPDX-License-Identifier: GPL-2.0-or-later
//! The register file of `svm-vtd` by accesses of all sizes, what a reset makes of it, and that it
//! says what the machine's tables say.

use serde_json::json;

use crate::client::{Installation, Qemu, remapped_interrupts};
use crate::machine::Machine;
use crate::unit::{CAP, CCMD, GCMD, GSTS, IQA, PQA, RTADDR, VTD};

/// Where the unit's registers end.
const END: u64 = 0x1000;

/// A machine with a unit of these properties.
fn with(properties: &str) -> Option<Machine> {
    let installation = Installation::find()?;
    let unit = format!("svm-vtd{properties}");
    let mut arguments = vec!["-device", &unit];
    arguments.extend(remapped_interrupts());
    Some(Machine::from(Qemu::start(&installation, &arguments)))
}

/// A file of QEMU's firmware configuration, by its DMA interface.
fn firmware_file(machine: &mut Machine, name: &str) -> Vec<u8> {
    const DIRECTORY: u16 = 0x19;
    let mut read = |key: u16, length: usize| {
        let command = machine.page();
        let buffer = machine.pages(length.div_ceil(0x1000) as u64);
        // Select and read; all of it is big-endian.
        let control = u32::from(key) << 16 | 8 | 2;
        let mut bytes = control.to_be_bytes().to_vec();
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(buffer.to_be_bytes());
        machine.qemu.write(command, &bytes);
        machine
            .qemu
            .outl(0x514, ((command >> 32) as u32).swap_bytes());
        machine.qemu.outl(0x518, (command as u32).swap_bytes());
        assert_eq!(machine.qemu.readl(command), 0, "the transfer fails");
        machine.qemu.read(buffer, length)
    };
    let count = u32::from_be_bytes(read(DIRECTORY, 4).try_into().unwrap()) as usize;
    let directory = read(DIRECTORY, 4 + 64 * count);
    let file = directory[4..]
        .chunks(64)
        .find(|file| file[8..].starts_with(&[name.as_bytes(), &[0]].concat()))
        .unwrap_or_else(|| panic!("no {name}"));
    let size = u32::from_be_bytes(file[..4].try_into().unwrap());
    let key = u16::from_be_bytes(file[4..6].try_into().unwrap());
    read(key, size as usize)
}

#[test]
fn the_address_width_is_that_of_aw_bits_in_the_register_and_in_the_dmar_table() {
    for (properties, bits, sagaw) in [
        ("", 48, 0b110),
        (",aw-bits=48", 48, 0b110),
        (",aw-bits=39", 39, 0b10),
        (",scalable-mode=off,aw-bits=39", 39, 0b10),
    ] {
        let Some(mut machine) = with(properties) else {
            return;
        };
        let cap = machine.qemu.readq(CAP);
        // MGAW and SAGAW.
        assert_eq!((cap >> 16 & 0x3f) + 1, bits, "{properties}: {cap:#x}");
        assert_eq!(cap >> 8 & 0x1f, sagaw, "{properties}: {cap:#x}");
        let tables = firmware_file(&mut machine, "etc/acpi/tables");
        let dmar = tables
            .windows(4)
            .position(|bytes| bytes == b"DMAR")
            .unwrap();
        // Host Address Width, less one (8.1).
        assert_eq!(u64::from(tables[dmar + 36]) + 1, bits, "{properties}");
        machine.qemu.quit();
    }
}

/// All registers, as 4 bytes each.
fn all(machine: &mut Machine) -> Vec<u32> {
    let offsets = (0..END).step_by(4);
    offsets.map(|at| machine.qemu.readl(VTD + at)).collect()
}

/// The registers that differ, by their offsets.
fn differences(before: &[u32], after: &[u32]) -> Vec<(usize, u32, u32)> {
    let pairs = before.iter().zip(after).enumerate();
    pairs
        .filter(|(_, (before, after))| before != after)
        .map(|(n, (before, after))| (4 * n, *before, *after))
        .collect()
}

fn reset(machine: &mut Machine) {
    machine.qemu.qmp("system_reset", json!({})).unwrap();
    machine.qemu.wait_event("RESET");
}

#[test]
fn a_reset_gives_every_register_its_default() {
    for properties in [
        "",
        ",intremap=on,eim=on,caching-mode=on",
        ",scalable-mode=off",
        ",device-iotlb=off",
    ] {
        let Some(mut machine) = with(properties) else {
            return;
        };
        let before = all(&mut machine);
        // Only these are not 0: version, capabilities, and the masks of the event interrupts.
        let others: Vec<usize> = (0..before.len()).filter(|n| before[*n] != 0).collect();
        let known = |at: usize| matches!(at, 0x00 | 0x08..0x18 | 0x38 | 0xa0 | 0xe0);
        assert!(
            others.iter().all(|n| known(4 * n)),
            "{properties}: {others:x?}"
        );
        for mask in [0x38, 0xa0] {
            assert_eq!(before[mask / 4], 1 << 31, "{properties}: {mask:#x}");
        }
        let (root, queue) = (machine.page(), machine.page());
        machine.qemu.writeq(RTADDR, root);
        machine.qemu.writel(GCMD, 1 << 30);
        machine.qemu.writeq(IQA, queue);
        machine.qemu.writel(GCMD, 1 << 26);
        machine.qemu.writel(GCMD, 1 << 31 | 1 << 26);
        for at in (0x38..0xec).step_by(4).chain((0xb00..0xc00).step_by(4)) {
            machine.qemu.writel(VTD + at, 0x1234_5670);
        }
        let changed = all(&mut machine);
        assert!(differences(&before, &changed).len() > 10, "{properties}");
        reset(&mut machine);
        let after = all(&mut machine);
        assert_eq!(differences(&before, &after), [], "{properties}");
        machine.qemu.quit();
    }
}

#[test]
fn an_access_of_any_size_at_any_offset_leaves_the_machine_alive() {
    let Some(mut machine) = with(",intremap=on,eim=on") else {
        return;
    };
    let before = all(&mut machine);
    // The last ones reach over the end.
    for at in VTD..VTD + END {
        let qemu = &mut machine.qemu;
        let (small, word) = (qemu.readb(at), qemu.readw(at));
        let (long, quad) = (qemu.readl(at), qemu.readq(at));
        if at % 8 == 0 && at + 8 <= VTD + END {
            assert_eq!(u64::from(long), quad & 0xffff_ffff, "{at:#x}");
            // Not a size that the registers have.
            assert_eq!((small, word), (0, 0), "{at:#x}");
        }
    }
    for at in VTD..VTD + END {
        let qemu = &mut machine.qemu;
        qemu.writeb(at, 0xff);
        qemu.writew(at, 0xffff);
    }
    assert_eq!(differences(&before, &all(&mut machine)), []);
    for value in [u64::MAX, 0, 0x5555_5555_5555_5555] {
        for at in VTD..VTD + END {
            machine.qemu.writel(at, value as u32);
            machine.qemu.writeq(at, value);
        }
    }
    reset(&mut machine);
    assert_eq!(differences(&before, &all(&mut machine)), []);
    machine.qemu.quit();
}

/// Writes a register of 8 bytes in halves, the lower first or the upper.
fn write_halves(qemu: &mut Qemu, at: u64, value: u64, low_first: bool) {
    let mut halves = [(at, value as u32), (at + 4, (value >> 32) as u32)];
    if !low_first {
        halves.reverse();
    }
    for (at, half) in halves {
        qemu.writel(at, half);
    }
}

#[test]
fn a_register_may_be_written_in_halves_in_either_order() {
    for low_first in [true, false] {
        let Some(mut machine) = with("") else { return };
        for (at, value) in [
            (RTADDR, 0x12_3456_7000 | 1 << 10),
            (IQA, 0x12_3456_8000 | 1 << 11 | 2),
            (PQA, 0x12_3456_9000 | 3),
        ] {
            write_halves(&mut machine.qemu, at, value, low_first);
            assert_eq!(machine.qemu.readq(at), value, "{at:#x} {low_first}");
        }
        machine.qemu.quit();
    }
}

#[test]
fn a_command_in_halves_starts_once() {
    /// ICC, and one of the three granularities.
    const GO: u64 = 1 << 63;
    const DOMAIN: u64 = 2 << 61;
    for low_first in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("recording");
        let recorded = format!(",scalable-mode=off,record={}", path.display());
        let Some(mut machine) = with(&recorded) else {
            return;
        };
        let root = machine.page();
        machine.qemu.writeq(RTADDR, root);
        machine.qemu.writel(GCMD, 1 << 30);
        assert_ne!(machine.qemu.readl(GSTS) & 1 << 30, 0);
        // The domain of the command before: what the upper half alone acts on.
        machine.qemu.writeq(CCMD, GO | DOMAIN | 0x33);
        write_halves(&mut machine.qemu, CCMD, GO | DOMAIN | 0x44, low_first);
        let command = machine.qemu.readq(CCMD);
        // Done (ICC), by domain (CAIG).
        assert_eq!((command >> 63, command >> 59 & 3), (0, 2), "{command:#x}");
        machine.qemu.quit();
        let text = std::fs::read_to_string(&path).unwrap();
        let domains: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("> invalidated contexts domain "))
            .collect();
        let second = if low_first { "68" } else { "51" };
        assert_eq!(domains, ["51", second], "{low_first}: {text}");
    }
}
