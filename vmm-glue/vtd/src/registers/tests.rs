// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access rules and events of the register file.

use super::*;
use crate::config::Config;
use crate::effect::Effect;
use crate::spec::fault::{AddressType, FaultReason, RequestKind};
use offset as o;

fn registers(change: impl FnOnce(&mut Config)) -> Registers {
    let mut config = Config {
        protected_memory: true,
        ..Config::default()
    };
    change(&mut config);
    Registers::new(Capabilities::new(config).unwrap())
}

fn write(r: &mut Registers, at: u16, value: u64, size: u8) -> Option<Command> {
    r.write(at, value, size, &mut Effects::new())
}

fn fault(page: u64) -> FaultRecord {
    FaultRecord {
        fi: page << 12,
        sid: SourceId(0x18),
        fr: FaultReason::ScalableWrite,
        pasid: Some(0xf_ffff),
        exe: false,
        privileged: true,
        kind: RequestKind::Write,
        at: AddressType::Untranslated,
    }
}

#[test]
fn every_register_has_its_writable_bits_by_4_and_by_8_bytes() {
    // Offset, bytes, writable bits with a host address width of 52.
    let table: &[(u16, u8, u64)] = &[
        (o::VER, 4, 0),
        (o::CAP, 8, 0),
        (o::ECAP, 8, 0),
        (o::GSTS, 4, 0),
        (o::RTADDR, 8, 0x000f_ffff_ffff_fc00),
        (o::CCMD, 8, 0xe000_0003_ffff_ffff),
        (o::FECTL, 4, 1 << 31),
        (o::FECTL + 4, 4, 0xffff),
        (o::FECTL + 8, 4, 0xffff_fffc),
        (o::FECTL + 12, 4, 0xffff_ffff),
        (o::PLMBASE, 4, 0xffe0_0000),
        (o::PLMLIMIT, 4, 0xffe0_0000),
        (o::PHMBASE, 8, 0x000f_ffff_ffe0_0000),
        (o::PHMLIMIT, 8, 0x000f_ffff_ffe0_0000),
        (o::IQH, 8, 0),
        (o::IQT, 8, 0x7_fff0),
        (o::IQA, 8, 0x000f_ffff_ffff_f807),
        (o::IECTL, 4, 1 << 31),
        (o::IECTL + 4, 4, 0xffff),
        (o::IQERCD, 8, 0),
        (o::IRTA, 8, 0x000f_ffff_ffff_f80f),
        (o::PQH, 8, 0x7_ffe0),
        (o::PQT, 8, 0x7_ffe0),
        (o::PQA, 8, 0x000f_ffff_ffff_f007),
        (o::PECTL, 4, 1 << 31),
        (o::PECTL + 4, 4, 0xffff),
        (o::PECTL + 8, 4, 0xffff_fffc),
        (o::PECTL + 12, 4, 0xffff_ffff),
        (o::IOTLB, 8, 0xb003_ffff_0000_0000),
        (0x100, 8, 0),
        (0x400, 8, 0),
        (0xe00, 8, 0),
    ];
    for &(at, bytes, writable) in table {
        let mut r = registers(|_| {});
        let fixed = r.read(at, bytes) & !writable;
        let all = if bytes == 4 { 0xffff_ffff } else { u64::MAX };
        for value in [all, 0, 0x5555_5555_5555_5555 & all] {
            write(&mut r, at, value, bytes);
            assert_eq!(r.read(at, bytes), fixed | value & writable, "{at:#x}");
            if bytes == 8 {
                write(&mut r, at, !value & 0xffff_ffff, 4);
                let now = fixed | (value >> 32 << 32 | !value & 0xffff_ffff) & writable;
                assert_eq!(r.read(at, 8), now, "{at:#x}, low half");
                write(&mut r, at + 4, !value >> 32, 4);
                assert_eq!(
                    r.read(at, 8),
                    fixed | !value & writable,
                    "{at:#x}, high half"
                );
                assert_eq!(r.read(at + 4, 4), r.read(at, 8) >> 32);
            }
        }
    }
}

#[test]
fn registers_of_abilities_that_are_missing_are_reserved() {
    let mut r = registers(|c| {
        c.scalable = None;
        c.interrupt_remapping = None;
        c.protected_memory = false;
    });
    for (at, bytes) in [
        (o::IRTA, 8),
        (o::PQH, 8),
        (o::PQT, 8),
        (o::PQA, 8),
        (o::PECTL, 4),
        (o::PECTL + 4, 4),
        (o::PMEN, 4),
        (o::PLMBASE, 4),
        (o::PHMLIMIT, 8),
    ] {
        write(&mut r, at, u64::MAX, bytes);
        assert_eq!(r.read(at, bytes), 0, "{at:#x}");
    }
    let mut r = registers(|c| c.interrupt_remapping.as_mut().unwrap().extended_mode = false);
    write(&mut r, o::IRTA, 1 << 11, 8);
    assert_eq!(r.read(o::IRTA, 8), 0);
}

#[test]
fn bits_beyond_the_host_address_width_do_not_exist() {
    let mut r = registers(|c| c.host_address_width = 40);
    for at in [o::RTADDR, o::IQA, o::IRTA, o::PQA, o::PHMBASE] {
        write(&mut r, at, u64::MAX, 8);
        assert_eq!(r.read(at, 8) >> 40, 0, "{at:#x}");
    }
}

#[test]
fn accesses_of_other_sizes_do_nothing() {
    let mut r = registers(|_| {});
    for (at, size) in [
        (o::RTADDR, 1),
        (o::RTADDR, 2),
        (o::RTADDR + 2, 4),
        (o::RTADDR + 4, 8),
    ] {
        assert_eq!(write(&mut r, at, u64::MAX, size), None);
        assert_eq!(r.read(at, size), 0);
    }
    assert_eq!(r.read(o::RTADDR, 8), 0);
}

#[test]
fn commands_are_given_by_the_half_that_holds_the_trigger() {
    let mut r = registers(|_| {});
    assert_eq!(write(&mut r, o::CCMD, u64::MAX >> 32, 4), None);
    let invalidate = Some(Command::InvalidateContext);
    assert_eq!(write(&mut r, o::CCMD + 4, 0xa000_0000, 4), invalidate);
    assert_eq!(write(&mut r, o::CCMD, 0xa000_0000_0000_0000, 8), invalidate);
    assert_eq!(write(&mut r, o::CCMD, 0x2000_0000_0000_0000, 8), None);
    assert_eq!(write(&mut r, o::IOTLB, 0, 4), None);
    let invalidate = Some(Command::InvalidateIotlb);
    assert_eq!(write(&mut r, o::IOTLB + 4, 0x9000_0000, 4), invalidate);
    assert_eq!(write(&mut r, o::IQT, 0x20, 4), Some(Command::Queue));
    assert_eq!(write(&mut r, o::IQT + 4, 0, 4), None);
    assert_eq!(
        write(&mut r, o::GCMD, global::TE.into(), 4),
        Some(Command::Global(global::TE))
    );
}

#[test]
fn a_first_fault_raises_the_event_and_later_ones_do_not() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.write(o::FECTL, 0, 4, &mut fx);
    r.record_fault(&fault(1), &mut fx);
    assert_eq!(fx.len(), 1);
    r.record_fault(&fault(2), &mut fx);
    r.queue_error(QueueError::Type, &mut fx);
    r.completion_error(SourceId(1), &mut fx);
    assert_eq!(fx.len(), 1);
    assert_eq!(r.read(o::FSTS, 4) as u32, fsts::PPF | fsts::IQE | fsts::ICE);
    // Clearing the errors while a fault is pending does not make the unit quiet.
    write(&mut r, o::FSTS, u64::from(!0u32), 4);
    assert_eq!(r.read(o::FSTS, 4) as u32, fsts::PPF);
    r.timeout_error(SourceId(2), &mut fx);
    assert_eq!(fx.len(), 1);
    write(&mut r, o::FSTS, fsts::ITE.into(), 4);
    for n in 0..2 {
        write(&mut r, o::FRCD + 16 * n + 12, 1 << 31, 4);
    }
    assert_eq!(r.read(o::FSTS, 4) as u32 & 0xff, 0);
    r.timeout_error(SourceId(2), &mut fx);
    assert_eq!(fx.len(), 2);
}

#[test]
fn a_masked_fault_event_is_forgotten_when_all_is_serviced() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.record_fault(&fault(1), &mut fx);
    assert_eq!(r.read(o::FECTL, 4), 3 << 30);
    write(&mut r, o::FRCD + 12, 1 << 31, 4);
    assert_eq!(r.read(o::FECTL, 4), 1 << 31);
    r.write(o::FECTL, 0, 4, &mut fx);
    assert_eq!(fx, []);
}

#[test]
fn overflow_is_set_once_the_registers_are_full_and_stops_recording() {
    let (mut r, mut fx) = (registers(|c| c.fault_records = 2), Effects::new());
    r.write(o::FECTL, 0, 4, &mut fx);
    for page in 1..=3 {
        r.record_fault(&fault(page), &mut fx);
    }
    assert_eq!(r.read(o::FSTS, 4) as u32, fsts::PFO | fsts::PPF);
    write(&mut r, o::FRCD + 12, 1 << 31, 4);
    write(&mut r, o::FRCD + 28, 1 << 31, 4);
    r.record_fault(&fault(4), &mut fx);
    assert_eq!(r.read(o::FSTS, 4) as u32, fsts::PFO);
    write(&mut r, o::FSTS, fsts::PFO.into(), 4);
    r.record_fault(&fault(5), &mut fx);
    assert_eq!(r.read(o::FRCD, 8), 5 << 12);
    assert_eq!(r.read(o::FSTS, 4) as u32, fsts::PPF);
    assert_eq!(fx.len(), 2);
}

#[test]
fn fri_names_the_register_of_the_first_pending_fault() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.record_fault(&fault(1), &mut fx);
    r.record_fault(&fault(2), &mut fx);
    assert_eq!(r.read(o::FSTS, 4) >> 8, 0);
    write(&mut r, o::FRCD + 12, 1 << 31, 4);
    write(&mut r, o::FRCD + 28, 1 << 31, 4);
    r.record_fault(&fault(3), &mut fx);
    assert_eq!(r.read(o::FSTS, 4) >> 8, 2);
    // The index restarts when both translations are turned off.
    write(&mut r, o::FRCD + 44, 1 << 31, 4);
    r.set_status(global::TE, false);
    r.record_fault(&fault(4), &mut fx);
    assert_eq!(r.read(o::FSTS, 4) >> 8, 0);
}

#[test]
fn the_fault_record_has_all_20_bits_of_the_pasid() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.record_fault(&fault(7), &mut fx);
    let words = [r.read(o::FRCD, 8), r.read(o::FRCD + 8, 8)];
    assert_eq!(FaultRecord::from_words(words), Some(fault(7)));
}

#[test]
fn every_error_bit_is_write_1_to_clear_and_two_of_them_resume_the_queue() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.set_status(global::QIE, true);
    for (bit, resumes) in [(fsts::IQE, true), (fsts::ITE, true), (fsts::ICE, false)] {
        match bit {
            fsts::IQE => r.queue_error(QueueError::Reserved, &mut fx),
            fsts::ITE => r.timeout_error(SourceId(0x1234), &mut fx),
            _ => r.completion_error(SourceId(0x5678), &mut fx),
        }
        assert_eq!(r.queue_runs(), !resumes);
        assert_eq!(write(&mut r, o::FSTS, 0, 4), None);
        assert_ne!(r.read(o::FSTS, 4) as u32 & bit, 0);
        let command = write(&mut r, o::FSTS, bit.into(), 4);
        assert_eq!(command, resumes.then_some(Command::Queue));
        assert_eq!(r.read(o::FSTS, 4) as u32 & bit, 0);
        assert!(r.queue_runs());
    }
    assert_eq!(r.read(o::IQERCD, 8), 0x5678_1234_0000_0004);
}

#[test]
fn the_first_error_keeps_its_requester() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.timeout_error(SourceId(1), &mut fx);
    r.timeout_error(SourceId(2), &mut fx);
    r.completion_error(SourceId(3), &mut fx);
    r.completion_error(SourceId(4), &mut fx);
    assert_eq!(r.read(o::IQERCD, 8), 0x0003_0001_0000_0000);
}

#[test]
fn the_invalidation_event_comes_once_until_iwc_is_cleared() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.wait_completed(&mut fx);
    assert_eq!((r.read(o::ICS, 4), r.read(o::IECTL, 4)), (1, 3 << 30));
    r.write(o::IECTL, 0, 4, &mut fx);
    assert_eq!(fx.len(), 1);
    r.wait_completed(&mut fx);
    assert_eq!(fx.len(), 1);
    r.write(o::ICS, 1, 4, &mut fx);
    r.wait_completed(&mut fx);
    assert_eq!(fx.len(), 2);
}

#[test]
fn the_page_request_event_comes_once_until_ppr_and_pro_are_cleared() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.write(o::PECTL, 0, 4, &mut fx);
    r.set_page_request_status(prs::PPR, &mut fx);
    r.set_page_request_status(prs::PRO, &mut fx);
    assert_eq!((fx.len(), r.read(o::PRS, 4)), (1, 3));
    r.write(o::PRS, 1, 4, &mut fx);
    assert!(r.page_request_overflow());
    r.set_page_request_status(prs::PPR, &mut fx);
    assert_eq!(fx.len(), 1);
    r.write(o::PRS, 3, 4, &mut fx);
    r.write(o::PECTL, 1 << 31, 4, &mut fx);
    r.set_page_request_status(prs::PPR, &mut fx);
    assert_eq!(r.read(o::PECTL, 4), 3 << 30);
    r.write(o::PRS, 1, 4, &mut fx);
    assert_eq!(r.read(o::PECTL, 4), 1 << 31);
}

#[test]
fn every_event_is_masked_after_a_reset() {
    let r = registers(|_| {});
    for at in [o::FECTL, o::IECTL, o::PECTL] {
        assert_eq!(r.read(at, 4), 1 << 31, "{at:#x}");
    }
}

#[test]
fn protected_regions_are_ranges_of_2_mib_granules() {
    let mut r = registers(|_| {});
    write(&mut r, o::PLMBASE, 0x0020_0000, 4);
    write(&mut r, o::PLMLIMIT, 0x0020_0000, 4);
    write(&mut r, o::PHMBASE, 0x1_0000_0000, 8);
    write(&mut r, o::PHMLIMIT, 0, 8);
    assert!(!r.is_protected(0x20_0000, 0x20_0000));
    write(&mut r, o::PMEN, 1 << 31, 4);
    assert_eq!(r.read(o::PMEN, 4), 1 << 31 | 1);
    for (first, last, meets) in [
        (0x1f_f000, 0x1f_ffff, false),
        (0x1f_f000, 0x20_0000, true),
        (0x3f_ffff, 0x3f_ffff, true),
        (0x40_0000, 0x40_0fff, false),
        (0x1_0000_0000, 0x1_0000_0fff, false),
    ] {
        assert_eq!(r.is_protected(first, last), meets, "{first:#x}");
    }
    write(&mut r, o::PHMLIMIT, 0x1_0000_0000, 8);
    assert!(r.is_protected(0x1_0000_0000, 0x1_0000_0fff));
}

#[test]
fn disabling_the_queue_resets_its_head() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.set_status(global::QIE, true);
    r.set_iqh(0x40);
    assert_eq!(r.read(o::IQH, 8), 0x40);
    r.set_status(global::QIE, false);
    assert_eq!(r.read(o::IQH, 8), 0);
    assert_eq!(r.write(o::IQH, 0x40, 8, &mut fx), None);
    assert_eq!(r.read(o::IQH, 8), 0);
}

#[test]
fn unit_interrupts_go_where_the_event_says() {
    let (mut r, mut fx) = (registers(|_| {}), Effects::new());
    r.write(o::FECTL + 4, 0x4021, 4, &mut fx);
    r.write(o::FECTL + 8, 0xfee0_2000, 8, &mut fx);
    r.write(o::FECTL, 0, 4, &mut fx);
    r.record_fault(&fault(1), &mut fx);
    assert_eq!(
        fx,
        [Effect::Interrupt(crate::spec::interrupt::Message {
            address: 0xfee0_2000,
            data: 0x4021
        })]
    );
}

/// Software that unmasks an event and sets its data in one write gets the new data.
#[test]
fn an_event_that_is_unmasked_by_8_bytes_is_sent_with_the_data_of_the_same_write() {
    let raise = |at, r: &mut Registers, fx: &mut Effects| match at {
        o::FECTL => r.record_fault(&fault(1), fx),
        o::IECTL => r.wait_completed(fx),
        _ => r.set_page_request_status(prs::PPR, fx),
    };
    for at in [o::FECTL, o::IECTL, o::PECTL] {
        let (mut r, mut fx) = (registers(|_| {}), Effects::new());
        r.write(at, 1 << 31 | 0x11 << 32, 8, &mut fx);
        raise(at, &mut r, &mut fx);
        assert_eq!(fx, []);
        r.write(at, 0x22 << 32, 8, &mut fx);
        assert!(
            matches!(fx[..], [Effect::Interrupt(message)] if message.data == 0x22),
            "{at:#x}: {fx:?}"
        );
        // And masked by the same write, it is not sent.
        raise(at, &mut r, &mut Effects::new());
        let (mut r, mut fx) = (registers(|_| {}), Effects::new());
        raise(at, &mut r, &mut fx);
        r.write(at, 1 << 31 | 0x33 << 32, 8, &mut fx);
        assert_eq!(fx, []);
    }
}

/// The lowest bits of the tail are reserved: they are ignored and cause no error.
#[test]
fn the_reserved_bits_of_the_tail_are_not_there() {
    let mut r = registers(|_| {});
    write(&mut r, o::IQT, 0xffff_ffff_ffff_ffff, 8);
    assert_eq!(r.iqt(), 0x7_fff0);
}

/// A 64-bit command starts with the write of the half that has its bit, with the operands at that
/// moment.
#[test]
fn a_command_in_halves_starts_once_with_what_is_there_then() {
    for (at, command) in [
        (o::CCMD, Command::InvalidateContext),
        (o::IOTLB, Command::InvalidateIotlb),
    ] {
        let mut r = registers(|_| {});
        assert_eq!(write(&mut r, at, 0x0001_0007, 4), None);
        assert_eq!(write(&mut r, at + 4, 1 << 31 | 1 << 29, 4), Some(command));
        let mut r = registers(|_| {});
        assert_eq!(write(&mut r, at + 4, 1 << 31 | 1 << 29, 4), Some(command));
        assert_eq!(write(&mut r, at, 0x0001_0007, 4), None);
    }
    for at in [o::RTADDR, o::IQA, o::PQA] {
        let mut r = registers(|_| {});
        write(&mut r, at + 4, 0x1, 4);
        write(&mut r, at, 0x2345_6000, 4);
        assert_eq!(r.read(at, 8), 0x1_2345_6000, "{at:#x}");
    }
}
