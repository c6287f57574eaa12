// SPDX-License-Identifier: GPL-2.0-or-later
//! The unit's own interrupts: what is held back by a mask is pending, is sent once, or is not sent
//! any more when software has seen to its cause.

use crate::client::{Installation, setting, skip};
use crate::laboratory::{ADDRESS, Laboratory};
use crate::machine::Machine;
use crate::unit::{FECTL, FSTS, ICS, IECTL, PECTL, PRS};

/// Interrupt Mask and Interrupt Pending, in the control register of each event.
const IM: u32 = 1 << 31;
const IP: u32 = 1 << 30;

/// An event of the unit.
struct Event {
    name: &'static str,
    /// The control register; behind it are those of data, address and upper address.
    control: u64,
    vector: u32,
    cause: fn(&mut Laboratory),
    /// What software does when it has seen to it.
    service: fn(&mut Machine),
}

const EVENTS: [Event; 3] = [
    Event {
        name: "fault",
        control: FECTL,
        vector: 0x51,
        cause: |laboratory| laboratory.read_in_vain(ADDRESS),
        service: |machine| {
            assert!(machine.take_fault().is_some());
            machine.qemu.writel(FSTS, 1);
        },
    },
    Event {
        name: "invalidation completion",
        control: IECTL,
        vector: 0x52,
        cause: |laboratory| laboratory.machine.wait_with_interrupt(),
        service: |machine| {
            // IWC.
            assert_eq!(machine.qemu.readl(ICS), 1);
            machine.qemu.writel(ICS, 1);
        },
    },
    Event {
        name: "page request",
        control: PECTL,
        vector: 0x53,
        cause: Laboratory::request_page,
        service: |machine| {
            assert!(machine.page_request_is_pending());
            machine.qemu.writel(PRS, 1);
        },
    },
];

#[test]
fn an_event_that_is_masked_is_pending_and_sent_once() {
    if setting("SVM_QTEST_ACCEL").is_some() {
        // The kernel has the interrupt controllers, and QEMU notes nothing of their messages.
        return skip("the messages of a machine of KVM are not in QEMU's hands");
    }
    let Some(installation) = Installation::find() else {
        return;
    };
    for event in EVENTS {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let arguments = [
            "-device",
            "svm-demo,addr=4.0,lab=on",
            "-trace",
            "apic_deliver_irq",
            "-D",
            log.to_str().unwrap(),
        ];
        let mut laboratory = Laboratory::of(Machine::new(&installation, &arguments));
        let sent = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let vector = format!(" vector {} ", event.vector);
            text.lines().filter(|line| line.contains(&vector)).count()
        };
        let control = |laboratory: &mut Laboratory, value: Option<u32>| {
            let qemu = &mut laboratory.machine.qemu;
            if let Some(value) = value {
                qemu.writel(event.control, value);
            }
            (qemu.readl(event.control), sent())
        };
        let (name, l) = (event.name, &mut laboratory);
        // Fixed delivery to the first processor, by a local APIC that takes anything.
        for (n, value) in [event.vector, 0xfee0_0000, 0].into_iter().enumerate() {
            let at = event.control + 4 * (n as u64 + 1);
            l.machine.qemu.writel(at, value);
        }
        assert_eq!(control(l, Some(IM)), (IM, 0), "{name}");
        (event.cause)(l);
        assert_eq!(control(l, None), (IM | IP, 0), "{name}");
        // Pending is not for software to change.
        assert_eq!(control(l, Some(IM)), (IM | IP, 0), "{name}");
        assert_eq!(control(l, Some(0)), (0, 1), "{name}");
        // It is not sent again, neither by the mask nor by a cause that nobody has seen to.
        assert_eq!(control(l, Some(IM)), (IM, 1), "{name}");
        assert_eq!(control(l, Some(0)), (0, 1), "{name}");
        (event.service)(&mut l.machine);
        // What was seen to while it was masked is not sent.
        assert_eq!(control(l, Some(IM)), (IM, 1), "{name}");
        (event.cause)(l);
        assert_eq!(control(l, None), (IM | IP, 1), "{name}");
        (event.service)(&mut l.machine);
        assert_eq!(control(l, None), (IM, 1), "{name}");
        assert_eq!(control(l, Some(0)), (0, 1), "{name}");
        // Without the mask it is sent at once.
        (event.cause)(l);
        l.machine.qemu.until("the interrupt", |_| sent() == 2);
        assert_eq!(control(l, None), (0, 2), "{name}");
        laboratory.machine.qemu.quit();
        assert_eq!(sent(), 2, "{name}");
    }
}
