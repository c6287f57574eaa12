// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second implementation of the specification, independent of the unit's: it takes a request,
//! checks bits by their numbers, and returns the expected result. It is slow, caches nothing and
//! uses none of the unit's types except those of its interface.

use std::collections::BTreeMap;
use vtd::memory::Memory;

/// The properties of a unit that the reference needs.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub cap: u64,
    pub ecap: u64,
    pub haw: u32,
    pub rtaddr: u64,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    ZeroLengthRead,
    Write,
    Atomic,
    /// A translation request, with its NW flag.
    Ats(bool),
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub sid: u16,
    pub pasid: Option<u32>,
    pub address: u64,
    pub kind: Kind,
    pub execute: bool,
    pub privileged: bool,
}

/// The expected result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub address: u64,
    /// Log2 of the page.
    pub shift: u32,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub snoop: bool,
    /// U of a translation.
    pub untranslated_only: bool,
    /// Bits that are set in memory.
    pub flags: BTreeMap<u64, u64>,
}

/// The code of a fault, and whether it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: u8,
    pub suppressed: bool,
}

/// Bits `high` to `low` of a structure.
fn bits(words: &[u64], high: u32, low: u32) -> u64 {
    let mut value = 0;
    for n in (low..=high).rev() {
        value = value << 1 | words[(n / 64) as usize] >> (n % 64) & 1;
    }
    value
}

/// Whether any bit from `low` to `high` is set; there may be none.
fn set(words: &[u64], high: u32, low: u32) -> bool {
    (low..=high).any(|n| words[(n / 64) as usize] >> (n % 64) & 1 != 0)
}

/// One reading of one request.
struct Reading<'a> {
    ram: &'a dyn Memory,
    facts: Facts,
    flags: BTreeMap<u64, u64>,
    /// A first-stage flag has to be set; a second-stage flag has to be set.
    sets: (bool, bool),
    /// Fault Processing Disable of an entry seen.
    fpd: bool,
}

/// A second stage: table, levels, width, SSADE, SSEE.
#[derive(Clone, Copy)]
struct Second {
    table: u64,
    levels: u32,
    width: u32,
    ad: bool,
    see: bool,
    scalable: bool,
}

struct Page {
    address: u64,
    shift: u32,
    read: bool,
    write: bool,
    execute: bool,
    snoop: bool,
    /// The entry that maps it, and its value.
    leaf: (u64, u64),
}

/// Evaluates a request. Codes that table 30 does not qualify are never suppressed.
pub fn read(ram: &dyn Memory, facts: &Facts, ask: &Ask) -> Result<Granted, Fault> {
    let mut reading = Reading {
        ram,
        facts: *facts,
        flags: BTreeMap::new(),
        sets: (false, false),
        fpd: false,
    };
    reading.request(ask).map_err(|code| {
        let never = [
            1, 8, 9, 0xa, 0x30, 0x31, 0x33, 0x38, 0x39, 0x3a, 0x40, 0x50, 0x58,
        ];
        Fault {
            code,
            suppressed: reading.fpd && !never.contains(&code),
        }
    })
}

impl Reading<'_> {
    fn cap(&self, n: u32) -> bool {
        self.facts.cap >> n & 1 != 0
    }

    fn ecap(&self, n: u32) -> bool {
        self.facts.ecap >> n & 1 != 0
    }

    fn words<const N: usize>(&self, at: u64, code: u8) -> Result<[u64; N], u8> {
        let mut words = [0; N];
        for (n, word) in words.iter_mut().enumerate() {
            *word = self.ram.read_u64(at + 8 * n as u64).map_err(|_| code)?;
        }
        Ok(words)
    }

    /// Levels and width for an AW value.
    fn width(&self, aw: u64) -> Option<(u32, u32)> {
        let levels = match aw {
            1 => 3,
            2 => 4,
            3 => 5,
            _ => return None,
        };
        if !self.cap(8 + aw as u32) {
            return None;
        }
        let mgaw = bits(&[self.facts.cap], 21, 16) as u32 + 1;
        Some((levels, (12 + 9 * levels).min(mgaw)))
    }

    fn request(&mut self, ask: &Ask) -> Result<Granted, u8> {
        let ttm = bits(&[self.facts.rtaddr], 11, 10);
        let ats = matches!(ask.kind, Kind::Ats(_));
        match ttm {
            0 if ask.pasid.is_some() => return Err(0x31),
            0 => {}
            1 if self.ecap(43) => {}
            3 if self.ecap(52) => return Err(0x33),
            _ => return Err(0x30),
        }
        let interrupt = ask.address >> 20 == 0xfee;
        if interrupt && ask.pasid.is_none() && !ats {
            // The entries determine whether it is reported, and are not changed.
            let before = (self.flags.clone(), self.sets);
            let _ = if ttm == 0 {
                self.legacy(ask)
            } else {
                self.scalable(ask)
            };
            (self.flags, self.sets) = before;
            return Err(if ttm == 0 { 0x0e } else { 0x87 });
        }
        if ttm == 0 {
            self.legacy(ask)
        } else {
            self.scalable(ask)
        }
    }

    /// Special conditions S.1 and S.2.
    fn interrupt_translation(&self, nw: bool) -> Granted {
        let nw = nw && self.ecap(33);
        Granted {
            address: 0,
            shift: 12,
            read: false,
            write: !nw,
            execute: false,
            snoop: false,
            untranslated_only: !nw,
            flags: BTreeMap::new(),
        }
    }

    fn legacy(&mut self, ask: &Ask) -> Result<Granted, u8> {
        let haw = self.facts.haw;
        let root_table = self.facts.rtaddr & !0xfff;
        let root: [u64; 2] = self.words(root_table + u64::from(ask.sid >> 8) * 16, 8)?;
        if !set(&root, 0, 0) {
            return Err(1);
        }
        if set(&root, 11, 1) || set(&root, 63, haw) || set(&root, 127, 64) {
            return Err(0xa);
        }
        let contexts = bits(&root, 63, 12) << 12;
        let entry: [u64; 2] = self.words(contexts + u64::from(ask.sid & 255) * 16, 9)?;
        self.fpd |= set(&entry, 1, 1);
        if !set(&entry, 0, 0) {
            return Err(2);
        }
        let tt = bits(&entry, 3, 2);
        let did_width = 4 + 2 * bits(&[self.facts.cap], 2, 0) as u32;
        if set(&entry, 11, 4)
            || tt != 2 && set(&entry, 63, haw)
            || set(&entry, 71, 71)
            || set(&entry, 127, 88)
            || set(&entry, 87, 72 + did_width)
        {
            return Err(0xb);
        }
        let Some((levels, width)) = self.width(bits(&entry, 66, 64)) else {
            return Err(3);
        };
        match tt {
            0 => {}
            1 if self.ecap(2) => {}
            2 if self.ecap(6) => {}
            _ => return Err(3),
        }
        if let Kind::Ats(nw) = ask.kind {
            if tt != 1 {
                return Err(0xd);
            }
            if ask.address >> 20 == 0xfee {
                return Ok(self.interrupt_translation(nw));
            }
        }
        if tt == 2 {
            return self.pass_through(ask, false, false);
        }
        let second = Second {
            table: bits(&entry, 63, 12) << 12,
            levels,
            width,
            ad: false,
            see: false,
            scalable: false,
        };
        self.second_only(&second, ask, false, false)
    }

    fn scalable(&mut self, ask: &Ask) -> Result<Granted, u8> {
        let haw = self.facts.haw;
        let (bus, devfn) = (u64::from(ask.sid >> 8), u64::from(ask.sid & 255));
        let at = (self.facts.rtaddr & !0xfff) + bus * 16 + if devfn > 127 { 8 } else { 0 };
        let root: [u64; 1] = self.words(at, 0x38)?;
        if !set(&root, 0, 0) {
            return Err(0x39);
        }
        if set(&root, 11, 1) || set(&root, 63, haw) {
            return Err(0x3a);
        }
        let contexts = bits(&root, 63, 12) << 12;
        let context: [u64; 4] = self.words(contexts + (devfn % 128) * 32, 0x40)?;
        self.fpd |= set(&context, 1, 1);
        if !set(&context, 0, 0) {
            return Err(0x41);
        }
        if set(&context, 255, 85)
            || !self.ecap(53) && set(&context, 84, 84)
            || !self.ecap(49) && set(&context, 83, 64)
            || set(&context, 63, haw)
            || set(&context, 8, 5)
            || !self.ecap(29) && set(&context, 4, 4)
            || !self.ecap(40) && set(&context, 3, 3)
            || !self.ecap(2) && set(&context, 2, 2)
        {
            return Err(0x42);
        }
        let limit = 64u64 << (bits(&context, 11, 9) + 7);
        let rid_pasid = bits(&context, 83, 64);
        let dte = set(&context, 2, 2);
        if set(&context, 4, 4) && !dte || rid_pasid >= limit {
            return Err(0x43);
        }
        if matches!(ask.kind, Kind::Ats(_)) && !dte {
            return Err(0x44);
        }
        if let (Kind::Ats(nw), None) = (ask.kind, ask.pasid) {
            if ask.address >> 20 == 0xfee {
                return Ok(self.interrupt_translation(nw));
            }
        }
        let (pasid, privileged, execute) = match ask.pasid {
            None => (rid_pasid, set(&context, 84, 84), false),
            Some(pasid) => {
                let pasid = u64::from(pasid);
                if !set(&context, 3, 3) {
                    return Err(0x45);
                }
                if pasid >= 2 << bits(&[self.facts.ecap], 39, 35) {
                    return Err(0x89);
                }
                if pasid >= limit {
                    return Err(0x46);
                }
                if pasid == rid_pasid {
                    return Err(0x48);
                }
                (pasid, ask.privileged, ask.execute)
            }
        };
        let directory = bits(&context, 63, 12) << 12;
        let pde: [u64; 1] = self.words(directory + pasid / 64 * 8, 0x50)?;
        self.fpd |= set(&pde, 1, 1);
        if !set(&pde, 0, 0) {
            return Err(0x51);
        }
        if set(&pde, 11, 2) || set(&pde, 63, haw) {
            return Err(0x52);
        }
        let table = bits(&pde, 63, 12) << 12;
        let e: [u64; 8] = self.words(table + pasid % 64 * 64, 0x58)?;
        self.fpd |= set(&e, 1, 1);
        if !set(&e, 0, 0) {
            return Err(0x59);
        }
        self.check_pasid_entry(&e)?;
        let pgtt = bits(&e, 8, 6);
        let has = match pgtt {
            1 => self.ecap(47),
            2 => self.ecap(46),
            3 => self.ecap(26),
            4 => self.ecap(6),
            _ => false,
        };
        if !has {
            return Err(0x5b);
        }
        let ers = self.ecap(30);
        let mut second = None;
        if pgtt == 2 || pgtt == 3 {
            let Some((levels, width)) = self.width(bits(&e, 4, 2)) else {
                return Err(0x5b);
            };
            second = Some(Second {
                table: bits(&e, 63, 12) << 12,
                levels,
                width,
                ad: set(&e, 9, 9),
                see: ers && set(&e, 5, 5),
                scalable: true,
            });
        }
        if pgtt == 1 || pgtt == 3 {
            let mode = bits(&e, 131, 130);
            if mode > 1 || mode == 1 && !self.cap(60) {
                return Err(0x5b);
            }
            if let Some(second) = &second {
                if bits(&e, 191, 140) << 12 >> second.width != 0 {
                    return Err(0x5b);
                }
            }
        }
        if execute && !(ers && set(&e, 129, 129)) {
            return Err(0x5c);
        }
        if privileged && !set(&e, 128, 128) {
            return Err(0x5d);
        }
        let snoop = set(&e, 88, 88);
        let ask = &Ask {
            privileged,
            execute,
            ..*ask
        };
        let granted = match (pgtt, second) {
            (4, _) => {
                if matches!(ask.kind, Kind::Ats(_)) && ask.address >> 20 == 0xfee {
                    return Ok(Granted {
                        write: false,
                        untranslated_only: false,
                        ..self.interrupt_translation(true)
                    });
                }
                self.pass_through(ask, true, snoop)?
            }
            (2, Some(second)) => self.second_only(&second, ask, true, snoop)?,
            (_, second) => self.first(&e, second.as_ref(), ask, snoop)?,
        };
        // Flags cannot be set in tables that are not snooped.
        if !set(&e, 87, 87) {
            match self.sets {
                (true, _) => return Err(0x90),
                (_, true) => return Err(0x7c),
                _ => {}
            }
        }
        Ok(granted)
    }

    fn check_pasid_entry(&self, e: &[u64; 8]) -> Result<(), u8> {
        let haw = self.facts.haw;
        let did_width = 4 + 2 * bits(&[self.facts.cap], 2, 0) as u32;
        let (first, second) = (self.ecap(47), self.ecap(46));
        let ers = self.ecap(30);
        let bad = set(e, 511, 192)
            || set(e, 191, 128 + haw)
            || !first && set(e, 191, 140)
            || set(e, 139, 136)
            || !self.ecap(34) && set(e, 135, 135)
            || !first && set(e, 132, 130)
            || !ers && set(e, 129, 129)
            || !self.ecap(31) && set(e, 128, 128)
            || set(e, 127, 89)
            || !self.ecap(7) && set(e, 88, 88)
            || !self.ecap(48) && set(e, 87, 87)
            || set(e, 86, 80)
            || set(e, 79, 64 + did_width)
            || set(e, 63, haw)
            || !second && set(e, 63, 12)
            || set(e, 11, 10)
            || (!second || !self.ecap(45)) && set(e, 9, 9)
            || !ers && set(e, 5, 5);
        // AW is accepted without a second stage: Linux writes it to every entry.
        if bad { Err(0x5a) } else { Ok(()) }
    }

    fn pass_through(&mut self, ask: &Ask, scalable: bool, snoop: bool) -> Result<Granted, u8> {
        if ask.address >> self.facts.haw != 0 {
            return Err(if scalable { 0x83 } else { 4 });
        }
        if ask.address >> 20 == 0xfee {
            return Err(if scalable { 0x87 } else { 0xe });
        }
        // The largest page that does not overlap the interrupt range.
        let reaches = |shift: u32| {
            let first = ask.address >> shift << shift;
            first <= 0xfeef_ffff && first + (1 << shift) > 0xfee0_0000
        };
        let shift = if !reaches(30) {
            30
        } else if !reaches(21) {
            21
        } else {
            12
        };
        Ok(Granted {
            address: ask.address,
            shift,
            read: true,
            write: !matches!(ask.kind, Kind::Ats(nw) if nw && self.ecap(33)),
            execute: true,
            snoop,
            untranslated_only: false,
            flags: BTreeMap::new(),
        })
    }

    /// Whether the request sets D if W is granted.
    fn writes(&self, ask: &Ask) -> bool {
        match ask.kind {
            Kind::Write | Kind::Atomic => true,
            Kind::Ats(nw) => !(nw && self.ecap(33)),
            _ => false,
        }
    }

    /// Checks the permissions of a page.
    fn allow(&self, page: &Page, ask: &Ask, scalable: bool) -> Result<(), u8> {
        let (read, write) = if scalable { (0x86, 0x85) } else { (6, 5) };
        match ask.kind {
            Kind::Write | Kind::Atomic if !page.write => return Err(write),
            Kind::Read | Kind::Atomic if !page.read => return Err(read),
            Kind::ZeroLengthRead if !(page.read || self.cap(22) && page.write) => {
                return Err(read);
            }
            _ => {}
        }
        if ask.execute && !page.execute && !matches!(ask.kind, Kind::Ats(_)) {
            return Err(0x82);
        }
        let reaches = if matches!(ask.kind, Kind::Ats(_)) {
            let first = page.address >> page.shift << page.shift;
            first <= 0xfeef_ffff && first + ((1 << page.shift) - 1) >= 0xfee0_0000
        } else {
            page.address >> 20 == 0xfee
        };
        if reaches {
            return Err(if scalable { 0x87 } else { 0xe });
        }
        Ok(())
    }

    fn granted(&self, page: &Page, ask: &Ask, snoop: bool) -> Granted {
        let nw = matches!(ask.kind, Kind::Ats(nw) if nw && self.ecap(33));
        Granted {
            address: page.address,
            shift: page.shift,
            read: page.read,
            write: page.write && !nw,
            execute: page.execute,
            snoop: page.snoop || snoop,
            untranslated_only: false,
            flags: self.flags.clone(),
        }
    }

    fn second_only(
        &mut self,
        second: &Second,
        ask: &Ask,
        scalable: bool,
        snoop: bool,
    ) -> Result<Granted, u8> {
        let writes = matches!(ask.kind, Kind::Write | Kind::Atomic);
        let page = self.second(second, ask.address, writes)?;
        self.allow(&page, ask, scalable)?;
        if second.ad && page.write && self.writes(ask) {
            self.flag_second(page.leaf, 1 << 9);
        }
        Ok(self.granted(&page, ask, snoop))
    }

    fn flag_second(&mut self, (at, value): (u64, u64), flag: u64) {
        if value & flag == 0 {
            *self.flags.entry(at).or_default() |= flag;
            self.sets.1 = true;
        }
    }

    /// The second stage.
    fn second(&mut self, second: &Second, address: u64, writes: bool) -> Result<Page, u8> {
        let scalable = second.scalable;
        let code = |legacy: u8, other: u8| if scalable { other } else { legacy };
        let nothing = code(if writes { 5 } else { 6 }, 0x79);
        if address >> second.width != 0 {
            return Err(code(4, 0x84));
        }
        let mut table = second.table;
        let (mut read, mut write, mut execute) = (true, true, true);
        for level in (1..=second.levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let at = table + (address >> shift) % 512 * 8;
            let access = if level == second.levels {
                code(3, 0x7b)
            } else {
                code(7, 0x78)
            };
            let [e] = self.words::<1>(at, access)?;
            let e = [e];
            let present = set(&e, 1, 0) || second.see && set(&e, 2, 2);
            if !present {
                return Err(nothing);
            }
            let leaf = level == 1 || level < 4 && set(&e, 7, 7);
            let bad = set(&e, 51, self.facts.haw)
                || set(&e, 62, 62)
                || level > 3 && set(&e, 7, 7)
                || level == 3 && set(&e, 7, 7) && !self.cap(35)
                || level == 2 && set(&e, 7, 7) && !self.cap(34)
                || leaf && level > 1 && set(&e, shift - 1, 12)
                || set(&e, 11, 11) && (!leaf || !self.ecap(7));
            if bad {
                return Err(code(0xc, 0x7a));
            }
            read &= set(&e, 0, 0);
            write &= set(&e, 1, 1);
            execute &= set(&e, 2, 2) || !second.see;
            if !read && !write {
                return Err(nothing);
            }
            if second.ad {
                self.flag_second((at, e[0]), 1 << 8);
            }
            table = bits(&e, 51, 12) << 12;
            if leaf {
                return Ok(Page {
                    address: (table >> shift << shift) + address % (1 << shift),
                    shift,
                    read,
                    write,
                    execute,
                    snoop: set(&e, 11, 11),
                    leaf: (at, e[0]),
                });
            }
        }
        unreachable!("level 1 is a leaf")
    }

    /// The first stage, alone or nested.
    fn first(
        &mut self,
        e: &[u64; 8],
        second: Option<&Second>,
        ask: &Ask,
        snoop: bool,
    ) -> Result<Granted, u8> {
        let levels = 4 + bits(e, 131, 130) as u32;
        let top_bits = ask.address >> (12 + 9 * levels - 1);
        if top_bits != 0 && top_bits != u64::MAX >> (12 + 9 * levels - 1) {
            return Err(0x80);
        }
        let ers = self.ecap(30);
        let (nxe, smep) = (ers && set(e, 133, 133), ers && set(e, 134, 134));
        let (wpe, eafe) = (set(e, 132, 132), set(e, 135, 135));
        let mut table = bits(e, 191, 140) << 12;
        let (mut user, mut rw, mut xd) = (true, true, false);
        let mut unwritable = false;
        for level in (1..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let top = level == levels;
            let mut at = table + (ask.address >> shift) % 512 * 8;
            let mut writable = true;
            if let Some(second) = second {
                let page = self.second(second, at, false)?;
                if !page.read || second.ad && !page.write {
                    return Err(if top { 0x75 } else { 0x76 });
                }
                if second.ad {
                    self.flag_second(page.leaf, 1 << 9);
                }
                (at, writable) = (page.address, page.write);
            }
            let [entry] = self.words::<1>(at, if top { 0x73 } else { 0x70 })?;
            let p = [entry];
            if !set(&p, 0, 0) {
                return Err(0x71);
            }
            let leaf = level == 1 || level < 4 && set(&p, 7, 7);
            let bad = set(&p, 51, self.facts.haw)
                || level > 3 && set(&p, 7, 7)
                || level == 3 && set(&p, 7, 7) && !self.cap(56)
                || leaf && level > 1 && set(&p, shift - 1, 13);
            if bad {
                return Err(0x72);
            }
            if second.is_some_and(|s| bits(&p, 51, 12) << 12 >> s.width != 0) {
                return Err(0x74);
            }
            user &= set(&p, 2, 2);
            rw &= set(&p, 1, 1);
            xd |= nxe && set(&p, 63, 63);
            if !user && !ask.privileged {
                return Err(0x81);
            }
            let used = 1 << 5 | if eafe { 1 << 10 } else { 0 };
            table = bits(&p, 51, 12) << 12;
            if !leaf {
                unwritable |= self.flag_first(at, entry, used) && !writable;
                continue;
            }
            let mut page = Page {
                address: (table >> shift << shift) + ask.address % (1 << shift),
                shift,
                read: true,
                write: rw || ask.privileged && !wpe,
                execute: !(xd || ask.privileged && smep && user),
                snoop: false,
                leaf: (0, 0),
            };
            if let Some(second) = second {
                let writes = matches!(ask.kind, Kind::Write | Kind::Atomic);
                let inner = self.second(second, page.address, writes)?;
                page.address = inner.address;
                page.shift = page.shift.min(inner.shift);
                page.read &= inner.read;
                page.write &= inner.write;
                page.execute &= inner.execute;
                page.snoop = inner.snoop;
                page.leaf = inner.leaf;
            }
            // The interrupt range is checked last, after the permissions.
            let interrupt = self.allow(&page, ask, true);
            if let Err(code) = interrupt {
                if code != 0x87 {
                    return Err(code);
                }
            }
            let mut flags = used;
            if page.write && self.writes(ask) {
                flags |= 1 << 6;
                if second.is_some_and(|s| s.ad) {
                    self.flag_second(page.leaf, 1 << 9);
                }
            }
            unwritable |= self.flag_first(at, entry, flags) && !writable;
            if unwritable {
                return Err(0x77);
            }
            interrupt?;
            return Ok(self.granted(&page, ask, snoop));
        }
        unreachable!("level 1 is a leaf")
    }

    /// Records flags of a first-stage entry; returns whether any was missing.
    fn flag_first(&mut self, at: u64, value: u64, flags: u64) -> bool {
        let missing = flags & !value;
        if missing != 0 {
            *self.flags.entry(at).or_default() |= missing;
            self.sets.0 = true;
        }
        missing != 0
    }
}
