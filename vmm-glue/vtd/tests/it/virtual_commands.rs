// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual command interface: capability, registers, commands, responses.

use crate::bench::*;
use vtd::spec::register::offset::{VCCAP, VCMD, VCMD_EO, VCRSP};
use vtd::spec::virtual_command::{Command, Response, Status};
use vtd::{Effect, Effects, VirtualCommandEnd};

fn with_commands() -> Bench {
    Bench::bare(|c| c.virtual_commands = true)
}

/// The command that the host is told, if it is.
fn told(b: &mut Bench) -> Option<Command> {
    let fx: Effects = std::mem::take(&mut b.fx);
    fx.into_iter().find_map(|e| match e {
        Effect::VirtualCommand(command) => Some(command),
        _ => None,
    })
}

#[test]
pub(crate) fn n1_20_a_unit_says_whether_it_takes_virtual_commands() {
    let b = with_commands();
    assert_eq!(b.unit.capabilities().ecap().0 >> 44 & 1, 1);
    assert_eq!(b.read(VCCAP), 1, "PASIDs can be allocated");
    let mut b = Bench::bare(|_| {});
    assert_eq!(b.unit.capabilities().ecap().0 >> 44 & 1, 0);
    b.write(VCMD, 1);
    assert_eq!((told(&mut b), b.read(VCCAP), b.read(VCMD)), (None, 0, 0));
}

#[test]
pub(crate) fn n1_21_the_registers_have_their_places() {
    let mut b = with_commands();
    b.write(0xe00, 1);
    b.write(0xe08, 0x1234_5678_9abc_def0);
    assert_eq!((b.read(0xe00), b.read(0xe08)), (1, 0x1234_5678_9abc_def0));
    assert_eq!((b.read(0xe10), b.read(0xe30)), (1, 1), "IP, and PAS");
    b.unit
        .virtual_command_ended(VirtualCommandEnd::Allocated(pasid_of(7)));
    assert_eq!((b.read(0xe10), b.read(0xe30)), (7 << 16, 1));
    // They can be read by halves, and what is between is reserved.
    assert_eq!(
        (b.read32(VCMD_EO + 4), b.read32(VCRSP)),
        (0x1234_5678, 7 << 16)
    );
    assert_eq!((b.read(0xe18), b.read(0xe20), b.read(0xe28)), (0, 0, 0));
    b.write(VCRSP, 0);
    b.write(VCCAP, 0);
    assert_eq!((b.read(VCRSP), b.read(VCCAP)), (7 << 16, 1));
}

#[test]
pub(crate) fn n1_22_commands_allocate_and_free() {
    let mut b = with_commands();
    b.write(VCMD, Command::AllocatePasid.to_word());
    assert_eq!(told(&mut b), Some(Command::AllocatePasid));
    b.unit
        .virtual_command_ended(VirtualCommandEnd::Allocated(pasid_of(0xabcde)));
    b.write(VCMD, 2 | 0xabcde << 16);
    assert_eq!(told(&mut b), Some(Command::FreePasid(pasid_of(0xabcde))));
    b.unit.virtual_command_ended(VirtualCommandEnd::Freed);
    // By halves: the lower one has the command.
    b.write32(VCMD + 4, 0xa);
    assert_eq!(told(&mut b), None);
    b.write32(VCMD, 2 | 0xbcde << 16);
    assert_eq!(told(&mut b), Some(Command::FreePasid(pasid_of(0xabcde))));
}

#[test]
pub(crate) fn n1_23_a_response_says_whether_a_command_is_in_progress() {
    let mut b = with_commands();
    let response = |b: &Bench| Response::from_word(b.read(VCRSP));
    let ended = |status, result| Some(Response { status, result });
    assert_eq!(response(&b), ended(Status::Success, 0));
    // What ends without having begun changes nothing.
    b.unit.virtual_command_ended(VirtualCommandEnd::NoPasid);
    assert_eq!(response(&b), ended(Status::Success, 0));
    b.write(VCMD, 1);
    assert_eq!(response(&b), None);
    b.unit
        .virtual_command_ended(VirtualCommandEnd::Allocated(pasid_of(9)));
    assert_eq!(response(&b), ended(Status::Success, 9));
    b.write(VCMD, 1);
    b.unit.reset(&mut b.fx);
    assert_eq!(response(&b), ended(Status::Success, 0));
}

#[test]
pub(crate) fn n1_24_failures_have_their_status() {
    let mut b = with_commands();
    for (command, end) in [
        (1, VirtualCommandEnd::NoPasid),
        (2 | 5 << 16, VirtualCommandEnd::InvalidPasid),
    ] {
        b.write(VCMD, command);
        b.unit.virtual_command_ended(end);
        assert_eq!(b.read(VCRSP), 16 << 1, "{end:?}");
    }
    b.fx.clear();
    b.write(VCMD, 3);
    assert_eq!((told(&mut b), b.read(VCRSP)), (None, 1 << 1));
}

#[test]
pub(crate) fn n1_26_a_command_during_another_is_ignored() {
    let mut b = with_commands();
    b.write(VCMD, 1);
    assert_eq!(told(&mut b), Some(Command::AllocatePasid));
    b.write(VCMD, 2 | 7 << 16);
    assert_eq!((told(&mut b), b.read(VCMD)), (None, 1));
    b.unit
        .virtual_command_ended(VirtualCommandEnd::Allocated(pasid_of(3)));
    assert_eq!(b.read(VCRSP), 3 << 16);
}
