// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's own account of a run: the log of its trace events `vtd_*`, of which the invalidation
//! descriptors say what the kernel sent to the device.

/// A page group response descriptor (VT-d 7.7.1, type 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Response {
    /// Requester id of the device.
    pub rid: u16,
    /// PASID of the group.
    pub pasid: u32,
    /// Page request group index.
    pub prgi: u16,
    /// Response code: 0 success, 1 invalid request, 15 response failure.
    pub code: u8,
}

/// A device-TLB invalidation descriptor (VT-d 6.5.2.5, type 3), or a PASID-based one (6.5.2.6,
/// type 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Invalidation {
    /// Requester id of the device.
    pub rid: u16,
    /// PASID whose translations go; none if those of requests without PASID do.
    pub pasid: Option<u32>,
    /// First address of the range.
    pub base: u64,
    /// Log2 of the size of the range.
    pub shift: u8,
    /// In all address spaces.
    pub global: bool,
}

/// What a line of the log tells, of the things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// A page group response.
    Response(Response),
    /// A device-TLB invalidation.
    Invalidation(Invalidation),
}

/// The descriptor that a line of the log tells of; none for all other lines.
pub fn parse_line(line: &str) -> Option<Descriptor> {
    let rest = line.split_once("vtd_inv_desc invalidate desc type ")?.1;
    let (kind, words) = rest.split_once(" high 0x")?;
    let (high, low) = words.split_once(" low 0x")?;
    let high = u64::from_str_radix(high.trim(), 16).ok()?;
    let low = u64::from_str_radix(low.trim(), 16).ok()?;
    let pasid = (low >> 32) as u32 & 0xf_ffff;
    let rid = (low >> 16) as u16;
    match low & 0xf {
        9 if kind.contains("page group response") => Some(Descriptor::Response(Response {
            rid,
            pasid,
            prgi: (high >> 3) as u16 & 0x1ff,
            code: (low >> 12) as u8 & 0xf,
        })),
        8 if kind.contains("device-piotlb") => {
            let (base, shift) = range(high, high >> 11 & 1 != 0);
            Some(Descriptor::Invalidation(Invalidation {
                rid,
                pasid: Some(pasid),
                base,
                shift,
                global: high & 1 != 0,
            }))
        }
        3 if kind == "device" => {
            let (base, shift) = range(high, high & 1 != 0);
            Some(Descriptor::Invalidation(Invalidation {
                rid: (low >> 32) as u16,
                pasid: None,
                base,
                shift,
                global: false,
            }))
        }
        _ => None,
    }
}

/// The range that an address and its S bit name, read naively, bit by bit.
fn range(word: u64, s: bool) -> (u64, u8) {
    let mut shift = 12;
    if s {
        while shift < 64 && word >> shift & 1 != 0 {
            shift += 1;
        }
        shift += 1;
    }
    if shift >= 63 {
        (0, 64)
    } else {
        (word >> shift << shift, shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_group_response_is_read() {
        let line =
            "vtd_inv_desc invalidate desc type page group response high 0x18 low 0x500081009";
        let expected = Response {
            rid: 8,
            pasid: 5,
            prgi: 3,
            code: 1,
        };
        assert_eq!(parse_line(line), Some(Descriptor::Response(expected)));
    }

    #[test]
    fn an_invalidation_of_two_mebibytes_is_read() {
        let line = "12@1.5:vtd_inv_desc invalidate desc type device-piotlb high 0x7f00000ff800 low 0x500080008";
        let expected = Invalidation {
            rid: 8,
            pasid: Some(5),
            base: 0x7f00_0000_0000,
            shift: 21,
            global: false,
        };
        assert_eq!(parse_line(line), Some(Descriptor::Invalidation(expected)));
    }

    #[test]
    fn the_whole_address_space_is_read() {
        let line = "vtd_inv_desc invalidate desc type device-piotlb high 0x7ffffffffffff800 low 0x500080008";
        let Some(Descriptor::Invalidation(i)) = parse_line(line) else {
            panic!("not read")
        };
        assert_eq!((i.base, i.shift), (0, 64));
    }

    #[test]
    fn an_invalidation_without_pasid_is_read() {
        let line = "vtd_inv_desc invalidate desc type device high 0x7f2be01ff001 low 0x800000003";
        let expected = Invalidation {
            rid: 8,
            pasid: None,
            base: 0x7f2b_e000_0000,
            shift: 22,
            global: false,
        };
        assert_eq!(parse_line(line), Some(Descriptor::Invalidation(expected)));
    }

    #[test]
    fn other_lines_are_passed_over() {
        assert_eq!(
            parse_line("vtd_reg_write addr 0x88 size 0x8 value 0x20"),
            None
        );
        assert_eq!(
            parse_line("vtd_inv_desc invalidate desc type wait high 0x1 low 0x25"),
            None
        );
    }
}
