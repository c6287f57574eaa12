// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's information about pages: present, swapped, huge.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use svmctl::region::{PAGE, Region};

/// Size of a huge page in bytes.
pub const HUGE: usize = 2 << 20;

/// How many pages of a region are present, and how many are swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residence {
    /// Pages in memory.
    pub present: usize,
    /// Pages in swap.
    pub swapped: usize,
}

/// The entries of `/proc/self/pagemap` for the pages of a range: bit 63 marks a present page, bit
/// 62 one in swap, and the lowest 55 bits hold the frame.
fn entries(address: u64, length: usize) -> anyhow::Result<Vec<u64>> {
    const ENTRY: usize = 8;
    let file = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
    let mut bytes = vec![0; length / PAGE * ENTRY];
    file.read_exact_at(&mut bytes, address / PAGE as u64 * ENTRY as u64)
        .context("/proc/self/pagemap")?;
    let word = |entry: &[u8]| {
        let bytes = entry.iter().rev();
        bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    Ok(bytes.chunks_exact(ENTRY).map(word).collect())
}

/// Counts the present and the swapped pages of a region.
///
/// # Errors
///
/// `/proc/self/pagemap` cannot be read.
pub fn residence(region: &Region) -> anyhow::Result<Residence> {
    let mut sum = Residence::default();
    for entry in entries(region.address(0), region.len())? {
        sum.present += (entry >> 63 & 1) as usize;
        sum.swapped += (entry >> 62 & 1) as usize;
    }
    Ok(sum)
}

/// The frame of each page of a range; 0 if it has none.
///
/// # Errors
///
/// `/proc/self/pagemap` cannot be read.
pub fn frames(address: u64, length: usize) -> anyhow::Result<Vec<u64>> {
    let frame = |entry: u64| match entry >> 63 {
        0 => 0,
        _ => entry & ((1 << 55) - 1),
    };
    Ok(entries(address, length)?.into_iter().map(frame).collect())
}

/// Whether any swap is on.
///
/// # Errors
///
/// `/proc/swaps` cannot be read.
pub fn swap_is_on() -> anyhow::Result<bool> {
    let swaps = fs::read_to_string("/proc/swaps").context("/proc/swaps")?;
    Ok(swaps.lines().count() > 1)
}

/// Why there are no transparent huge pages; `None` if there are.
pub fn no_huge_pages() -> Option<String> {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    match fs::read_to_string(path) {
        Ok(text) if text.contains("[never]") => Some(format!("{path} is `never`")),
        Ok(_) => None,
        Err(error) => Some(format!("{path}: {error}")),
    }
}

/// Bytes of huge pages in the mapping that contains a region.
///
/// # Errors
///
/// `/proc/self/smaps` cannot be read, or does not have the region.
pub fn huge_bytes(region: &Region) -> anyhow::Result<usize> {
    huge_bytes_at(region.address(0))
}

/// Bytes of huge pages in the mapping that contains an address.
///
/// # Errors
///
/// As [`huge_bytes`].
pub fn huge_bytes_at(address: u64) -> anyhow::Result<usize> {
    let smaps = fs::read_to_string("/proc/self/smaps").context("/proc/self/smaps")?;
    huge_bytes_in(&smaps, address)
}

fn huge_bytes_in(smaps: &str, address: u64) -> anyhow::Result<usize> {
    let mut inside = false;
    for line in smaps.lines() {
        if let Some(range) = range(line) {
            inside = range.contains(&address);
        } else if let Some(value) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
            let kib: usize = value.trim().trim_end_matches(" kB").parse()?;
            return Ok(kib << 10);
        }
    }
    ensure!(inside, "{address:#x} is not in /proc/self/smaps");
    Ok(0)
}

/// The address range of a line that begins the description of a mapping.
fn range(line: &str) -> Option<std::ops::Range<u64>> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use svmctl::region::Advice;

    #[test]
    fn pages_are_present_once_they_were_touched() {
        let region = Region::new(4 * PAGE).unwrap();
        region.advise(Advice::NoHugePage).unwrap();
        assert_eq!(residence(&region).unwrap(), Residence::default());
        region.write(PAGE, &[1]);
        assert_eq!(residence(&region).unwrap().present, 1);
    }

    #[test]
    fn huge_pages_are_those_of_the_mapping_around_the_address() {
        let smaps = "\
1000-3000 rw-p 00000000 00:00 0
AnonHugePages:      2048 kB
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Rss:                4096 kB
AnonHugePages:      4096 kB
8000-9000 rw-p 00000000 00:00 0
AnonHugePages:         0 kB
";
        assert_eq!(huge_bytes_in(smaps, 0x7f00_0020_0000).unwrap(), 4 << 20);
        assert_eq!(huge_bytes_in(smaps, 0x8000).unwrap(), 0);
        assert!(huge_bytes_in(smaps, 0x5000).is_err());
    }
}
