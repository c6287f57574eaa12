// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers that no program may reach while a driver has them, and what the function does not have.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use anyhow::{Context, ensure};
use memmap2::MmapOptions;
use nix::libc::{EINVAL, EPERM};
use svmctl::region::PAGE;

use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, passed, remark, skipped};
use crate::system::sysfs::Function;

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("no program reaches the registers of the function", function),
    Case::new("no program reaches the registers of the IOMMU", iommu),
    Case::new(
        "the function has no virtual functions",
        no_virtual_functions,
    ),
];

/// Why nothing is said of a kernel without `CONFIG_IO_STRICT_DEVMEM`, as small ones are.
const LAX: &str = "this kernel lets root map the registers that a driver has";

/// Memory, by physical addresses.
const MEMORY: &str = "/dev/mem";

fn function(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let resources = fs::read_to_string(function.file("resource")).context("resource")?;
    let first = resources.split_whitespace().next();
    let address =
        first.and_then(|start| u64::from_str_radix(start.trim_start_matches("0x"), 16).ok());
    let address = address.filter(|address| *address != 0);
    let address = address.with_context(|| format!("no BAR in {resources:?}"))?;
    let path = function.file("resource0");
    let file = OpenOptions::new().read(true).open(&path);
    if reaches(&path, map(&file.context("resource0")?, 0))? {
        return skipped(LAX);
    }
    of_memory(address)
}

fn iommu(_: &mut Bench) -> anyhow::Result<Verdict> {
    let regions = fs::read_to_string("/proc/iomem").context("/proc/iomem")?;
    let unit = regions.lines().find_map(|line| {
        let (range, name) = line.trim().split_once(" : ")?;
        let (start, _) = range.split_once('-')?;
        name.starts_with("dmar").then_some(start)
    });
    let unit = unit.context("no registers of an IOMMU are in /proc/iomem")?;
    of_memory(u64::from_str_radix(unit, 16).context("/proc/iomem")?)
}

/// Judges whether the registers at a physical address can be mapped.
fn of_memory(address: u64) -> anyhow::Result<Verdict> {
    let file = match OpenOptions::new().read(true).open(MEMORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return remark(format!("there is no {MEMORY}"));
        }
        file => file.context(MEMORY)?,
    };
    if reaches(Path::new(MEMORY), map(&file, address))? {
        return skipped(LAX);
    }
    remark(format!("{address:#x} is refused"))
}

/// Maps a page of a file, and forgets it.
fn map(file: &File, offset: u64) -> io::Result<()> {
    let mut options = MmapOptions::new();
    options.offset(offset).len(PAGE);
    options.map_raw_read_only(file).map(drop)
}

/// Whether the kernel permits a mapping of registers; it refuses it as it should, or fails.
fn reaches(path: &Path, mapped: io::Result<()>) -> anyhow::Result<bool> {
    match mapped {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(EPERM | EINVAL)) => Ok(false),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn no_virtual_functions(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = Function::of(bench.device())?.file("sriov_totalvfs");
    ensure!(!file.exists(), "{} is there", file.display());
    passed()
}
