// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl info`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::json;
use svm_cases::harness::report::print_json;
use svmctl::Context;
use svmctl::abi::ioctl::Info;

/// Prints the properties of a context of the device.
pub fn run(device: &Path, as_json: bool) -> anyhow::Result<()> {
    let context = Context::open(device)?;
    if as_json {
        print_json(&to_json(device, context.info()))
    } else {
        Ok(io::stdout().write_all(to_text(device, context.info()).as_bytes())?)
    }
}

fn operations(info: &Info) -> Vec<&'static str> {
    svmctl::operations(info)
        .map(|operation| operation.key())
        .collect()
}

fn version(info: &Info) -> String {
    format!(
        "{}.{}",
        info.device_version >> 8,
        info.device_version & 0xff
    )
}

fn to_json(device: &Path, info: &Info) -> serde_json::Value {
    json!({
        "device": device,
        "device_version": version(info),
        "context": info.context,
        "contexts": info.contexts,
        "pasid": info.pasid,
        "ring_entries_max": 1u64 << info.ring_log2_max.min(63),
        "transfer_bytes_max": 1u64 << info.transfer_log2_max.min(63),
        "atc_entries": info.atc_entries,
        "page_requests": info.page_requests,
        "operations": operations(info),
    })
}

fn to_text(device: &Path, info: &Info) -> String {
    let rows = [
        ("device", device.display().to_string()),
        ("interface version", version(info)),
        ("context", format!("{} of {}", info.context, info.contexts)),
        ("PASID of this process", info.pasid.to_string()),
        (
            "largest ring",
            format!("{} descriptors", 1u64 << info.ring_log2_max.min(63)),
        ),
        (
            "longest transfer",
            bytes(1u64 << info.transfer_log2_max.min(63)),
        ),
        ("translation cache", format!("{} entries", info.atc_entries)),
        (
            "page requests",
            format!("{} outstanding", info.page_requests),
        ),
        ("operations", operations(info).join(" ")),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<22} {value}");
        text
    })
}

fn bytes(n: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let step = (n.max(1).trailing_zeros() / 10).min(units.len() as u32 - 1);
    format!("{} {}", n >> (10 * step), units[step as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: Info = Info {
        size: size_of::<Info>() as u32,
        flags: 0,
        device_version: 0x0102,
        context: 3,
        pasid: 77,
        contexts: 64,
        ring_log2_max: 15,
        transfer_log2_max: 32,
        operations: 0b11,
        atc_entries: 512,
        page_requests: 128,
        batch_log2_max: 10,
        reserved: 0,
    };

    #[test]
    fn the_text_names_versions_sizes_and_operations() {
        let text = to_text(Path::new("/dev/svm0"), &INFO);
        for line in [
            "interface version      1.2",
            "context                3 of 64",
            "PASID of this process  77",
            "largest ring           32768 descriptors",
            "longest transfer       4 GiB",
            "operations             nop copy",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_json_has_the_same() {
        let value = to_json(Path::new("/dev/svm0"), &INFO);
        assert_eq!(value["pasid"], 77);
        assert_eq!(value["transfer_bytes_max"], 1u64 << 32);
        assert_eq!(value["operations"], json!(["nop", "copy"]));
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_is_exact() {
        let texts = [1, 512, 1024, 3 << 20].map(bytes);
        assert_eq!(texts, ["1 bytes", "512 bytes", "1 KiB", "3 MiB"]);
    }
}
