// SPDX-License-Identifier: GPL-2.0-or-later
//! Registers of the machine's remapping unit (VT-d 11.4).

/// Where they begin.
pub const VTD: u64 = 0xfed9_0000;

pub const CAP: u64 = VTD + 0x08;
pub const ECAP: u64 = VTD + 0x10;
pub const GCMD: u64 = VTD + 0x18;
pub const GSTS: u64 = VTD + 0x1c;
pub const RTADDR: u64 = VTD + 0x20;
pub const CCMD: u64 = VTD + 0x28;
pub const FSTS: u64 = VTD + 0x34;
pub const FECTL: u64 = VTD + 0x38;
pub const IQH: u64 = VTD + 0x80;
pub const IQT: u64 = VTD + 0x88;
pub const IQA: u64 = VTD + 0x90;
pub const ICS: u64 = VTD + 0x9c;
pub const IECTL: u64 = VTD + 0xa0;
pub const IQERCD: u64 = VTD + 0xb0;
pub const IRTA: u64 = VTD + 0xb8;
pub const PQH: u64 = VTD + 0xc0;
pub const PQT: u64 = VTD + 0xc8;
pub const PQA: u64 = VTD + 0xd0;
pub const PRS: u64 = VTD + 0xdc;
pub const PECTL: u64 = VTD + 0xe0;
