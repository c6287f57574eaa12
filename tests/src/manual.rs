// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference of registers, descriptors and errors, written from the tables of `svm-abi`.
//!
//! `docs/device-reference.md` is this text; a test fails when the two differ.

use std::fmt::Write;

use svm_abi::completion::{self, Error};
use svm_abi::counters::COUNTERS;
use svm_abi::descriptor::{self, Operation};
use svm_abi::registers::{self, Register, RegisterAccess};
use svm_abi::{doorbell, ids};

/// Where the manual stands in the project.
pub const PATH: &str = "docs/device-reference.md";

/// The whole manual, in Markdown.
pub fn text() -> String {
    let mut out = String::new();
    write_manual(&mut out).expect("writing to a string cannot fail");
    out
}

fn write_manual(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n\
         <!-- Written by `cargo run -p svm-tests --bin device-manual`; edit svm-abi instead. -->\n\n\
         # svm-demo: device reference\n\n\
         The programmer's view of the device, from the tables of the crate `svm-abi` \
         (`demo-device/abi`). [device.md](device.md) explains how the parts work together.\n"
    )?;
    identification(out)?;
    register_block(
        out,
        "Device registers",
        "From offset 0 of BAR 0.",
        registers::DEVICE_REGISTERS,
    )?;
    register_block(
        out,
        "Context registers",
        &format!(
            "Context n: from offset {:#x} + n × {:#x} of BAR 0.",
            registers::CONTEXTS,
            registers::CONTEXT_STRIDE
        ),
        registers::CONTEXT_REGISTERS,
    )?;
    register_block(
        out,
        "Laboratory registers",
        &format!(
            "From offset {:#x} of BAR 0, if `CAPABILITIES` bit 63 is set.",
            registers::LABORATORY
        ),
        registers::LABORATORY_REGISTERS,
    )?;
    doorbell_page(out)?;
    counters(out)?;
    descriptors(out)?;
    completions(out)
}

fn identification(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## Identification and BARs\n")?;
    writeln!(out, "| what | value |\n| --- | --- |")?;
    writeln!(
        out,
        "| vendor id, device id | `{:04x}:{:04x}` |",
        ids::VENDOR_ID,
        ids::DEVICE_ID
    )?;
    writeln!(
        out,
        "| revision, class | `{:02x}`, `{:04x}` |",
        ids::REVISION_ID,
        ids::CLASS
    )?;
    writeln!(out, "| interface version | `{:#06x}` |", ids::ABI_VERSION)?;
    writeln!(
        out,
        "| BAR {} | registers, {:#x} bytes, 64-bit |",
        ids::REGISTERS_BAR,
        registers::REGISTERS_SIZE
    )?;
    writeln!(
        out,
        "| BAR {} | doorbell pages, {:#x} bytes a context, 64-bit |",
        ids::DOORBELLS_BAR,
        doorbell::PAGE_SIZE
    )?;
    writeln!(
        out,
        "| BAR {} | MSI-X table and pending bits, 64-bit |",
        ids::MSIX_BAR
    )?;
    writeln!(out, "| contexts | at most {} |", ids::MAX_CONTEXTS)?;
    writeln!(
        out,
        "| ring | at most 2^{} descriptors |",
        ids::MAX_RING_LOG2
    )?;
    writeln!(
        out,
        "| transfer | at most 2^{} bytes |",
        ids::MAX_TRANSFER_LOG2
    )?;
    writeln!(
        out,
        "| batch | at most 2^{} descriptors |\n",
        ids::MAX_BATCH_LOG2
    )
}

fn register_block(
    out: &mut String,
    title: &str,
    place: &str,
    block: &[Register],
) -> std::fmt::Result {
    writeln!(
        out,
        "## {title}\n\n{place}\n\n| offset | name | access | meaning |\n| --- | --- | --- | --- |"
    )?;
    for r in block {
        let access = match r.access {
            RegisterAccess::ReadOnly => "RO",
            RegisterAccess::WriteOnly => "WO",
            RegisterAccess::ReadWrite => "RW",
            RegisterAccess::WhileDisabled => "RW while DISABLED",
        };
        writeln!(
            out,
            "| {:#04x} | `{}` | {access} | {} |",
            r.offset,
            r.name,
            r.doc.trim()
        )?;
    }
    writeln!(out)
}

fn doorbell_page(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "## Doorbell page\n\nContext n: from offset n × {:#x} of BAR {}.\n\n\
         | offset | name | access | meaning |\n| --- | --- | --- | --- |",
        doorbell::PAGE_SIZE,
        ids::DOORBELLS_BAR
    )?;
    for (offset, name, access, meaning) in [
        (
            doorbell::TAIL,
            "TAIL",
            "RW",
            "Descriptors submitted since the start; written with 8 bytes.",
        ),
        (
            doorbell::HEAD,
            "HEAD",
            "RO",
            "Descriptors consumed since the start.",
        ),
        (
            doorbell::STATUS,
            "STATUS",
            "RO",
            "As the context's `STATUS` register.",
        ),
        (
            doorbell::LOST,
            "LOST",
            "RO",
            "As the context's `LOST` register.",
        ),
        (
            doorbell::COUNTERS,
            "COUNTERS",
            "RO",
            "The context's counter block.",
        ),
    ] {
        writeln!(out, "| {offset:#04x} | `{name}` | {access} | {meaning} |")?;
    }
    writeln!(out)
}

fn counters(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "## Counters\n\nBlocks of 64-bit counters: of the device at {:#x} of BAR 0, of a context \
         at {:#x} of its register block and at {:#x} of its doorbell page.\n\n\
         | offset | name | what is counted |\n| --- | --- | --- |",
        registers::DEVICE_COUNTERS,
        registers::CONTEXT_COUNTERS,
        doorbell::COUNTERS
    )?;
    for c in COUNTERS {
        writeln!(
            out,
            "| {:#04x} | `{}` | {} |",
            8 * c.index,
            c.key,
            c.doc.trim()
        )?;
    }
    writeln!(out)
}

fn descriptors(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "## Descriptor\n\n{} bytes, little-endian. Bytes that the table does not name are 0.\n\n\
         | offset | bytes | field |\n| --- | --- | --- |",
        descriptor::SIZE
    )?;
    for (offset, bytes, field) in [
        (descriptor::OPERATION, 1, "operation"),
        (descriptor::FLAGS, 1, "flags"),
        (
            descriptor::COMPLETION,
            8,
            "address of the completion record, 0 for none",
        ),
        (descriptor::SOURCE, 8, "source address"),
        (descriptor::DESTINATION, 8, "destination address"),
        (descriptor::LENGTH, 8, "length in bytes"),
        (descriptor::OPERAND0, 8, "operand0"),
        (descriptor::OPERAND1, 8, "operand1"),
    ] {
        writeln!(out, "| {offset} | {bytes} | {field} |")?;
    }
    writeln!(out, "\n| flag | bit | meaning |\n| --- | --- | --- |")?;
    for (name, bit, meaning) in [
        (
            "FENCE",
            descriptor::flags::FENCE,
            "Starts only when all earlier descriptors have completed; in a batch, only if all of them \
             succeeded.",
        ),
        (
            "INTERRUPT",
            descriptor::flags::INTERRUPT,
            "Sends the context's interrupt after completion.",
        ),
        (
            "BLOCK_ON_FAULT",
            descriptor::flags::BLOCK_ON_FAULT,
            "Requests pages that are not present, and waits.",
        ),
    ] {
        writeln!(out, "| `{name}` | {} | {meaning} |", bit.trailing_zeros())?;
    }
    writeln!(
        out,
        "\n| number | operation | what it does |\n| --- | --- | --- |"
    )?;
    for op in Operation::ALL {
        writeln!(
            out,
            "| {} | `{}` | {} |",
            *op as u8,
            op.key(),
            op.doc().trim()
        )?;
    }
    let list = descriptor::gather::ENTRY_SIZE;
    writeln!(
        out,
        "\nAn entry of the list of `gather` has {list} bytes: at offset {} an address, at offset {} \
         a number of bytes, 64 bits each.\n\n| bits of the result of `translate` | meaning |\n\
         | --- | --- |",
        descriptor::gather::ADDRESS,
        descriptor::gather::LENGTH,
    )?;
    for (mask, meaning) in [
        (descriptor::translation::SIZE, "log2 of its size in bytes"),
        (descriptor::translation::READ, "reads are permitted"),
        (descriptor::translation::WRITE, "writes are permitted"),
        (
            descriptor::translation::UNTRANSLATED_ONLY,
            "to be reached by untranslated requests only",
        ),
        (
            descriptor::translation::GLOBAL,
            "the same in every address space",
        ),
        (
            descriptor::translation::ADDRESS,
            "translated address, if the device has a laboratory",
        ),
    ] {
        writeln!(out, "| `{mask:#x}` | {meaning} |")?;
    }
    writeln!(out)
}

fn completions(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "## Completion record\n\n{} bytes, aligned to as many. The device writes bytes 8 to 31 \
         first and bytes 0 to 7 last, in one access.\n\n\
         | offset | bytes | field |\n| --- | --- | --- |",
        completion::SIZE
    )?;
    for (offset, bytes, field) in [
        (
            completion::STATUS,
            1,
            "status: 0 pending, 1 success, 2 failure",
        ),
        (completion::ERROR, 1, "error"),
        (
            completion::ACCESS,
            1,
            "the access that failed: bit 0 set for a write",
        ),
        (
            completion::BYTES_DONE,
            8,
            "bytes processed; nodes for `chase`",
        ),
        (
            completion::FAULT_ADDRESS,
            8,
            "virtual address whose access failed",
        ),
        (completion::RESULT, 8, "result"),
    ] {
        writeln!(out, "| {offset} | {bytes} | {field} |")?;
    }
    writeln!(out, "\n| error | name | meaning |\n| --- | --- | --- |")?;
    for e in Error::ALL {
        writeln!(out, "| {} | `{e:?}` | {} |", *e as u8, e.doc().trim())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_in_docs_is_the_one_of_svm_abi() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/device-reference.md");
        let there = std::fs::read_to_string(path).expect("docs/device-reference.md is readable");
        assert!(
            there == text(),
            "{PATH} is out of date: run `cargo run -p svm-tests --bin device-manual > {PATH}`"
        );
    }

    #[test]
    fn registers_of_a_block_do_not_overlap_and_stay_below_the_counters() {
        for (block, end) in [
            (registers::DEVICE_REGISTERS, registers::DEVICE_COUNTERS),
            (registers::CONTEXT_REGISTERS, registers::CONTEXT_COUNTERS),
            (
                registers::LABORATORY_REGISTERS,
                registers::CONTEXTS - registers::LABORATORY,
            ),
        ] {
            for pair in block.windows(2) {
                assert!(pair[0].offset + 8 <= pair[1].offset, "{pair:?}");
            }
            assert!(
                block
                    .iter()
                    .all(|r| r.offset % 8 == 0 && r.offset + 8 <= end)
            );
        }
    }
}
