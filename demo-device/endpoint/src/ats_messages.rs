// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests: how the device forms them, and how it interprets a completion (PCIe 10.2).
//! Knows neither the cache nor the contexts.

use crate::access::Piece;
use crate::atc::Cached;
use pcie_ats::{
    AlignedRange, MAX_TRANSLATIONS, PAGE_SHIFT, Pasid, Translation, TranslationRequest,
};

/// The request for the next address of a piece, and for as much after it as one completion can
/// hold, in smallest translation units of 4 KiB << `stu` (rules 3, 4 and 14).
pub(crate) fn request(
    piece: &Piece,
    pasid: Option<Pasid>,
    privileged: bool,
    stu: u8,
) -> TranslationRequest {
    let unit = u32::from(PAGE_SHIFT + stu);
    let first = piece.focus() >> unit;
    let units = if piece.backward {
        // A completion may hold fewer translations than requested, but always the first.
        1
    } else {
        let most = MAX_TRANSLATIONS as u64;
        match (piece.last() >> unit) - first + 1 {
            needed if needed <= most => needed,
            // If the piece needs several requests, cut it where translations can be joined.
            _ => most - first % most,
        }
    };
    TranslationRequest {
        address: first << unit,
        pages: units as u16,
        pasid,
        privileged,
        execute: false,
        no_write: !piece.access.writes(),
    }
}

/// The translations of a completion, each with its untranslated range. The list ends at an invalid
/// translation: smaller than the smallest translation unit, or not aligned to its size (rules 4, 14
/// and 15).
pub(crate) fn completion<'a>(
    request: &'a TranslationRequest,
    translations: &'a [Translation],
    stu: u8,
) -> impl Iterator<Item = Cached> + 'a {
    let mut next = Some(request.address);
    let mut first = true;
    translations.iter().map_while(move |translation| {
        let address = next?;
        let shift = translation.range.shift();
        let range = AlignedRange::containing(address, shift).ok()?;
        if shift < PAGE_SHIFT + stu || !(first || range.base() == address) {
            return None;
        }
        first = false;
        next = range.last().checked_add(1);
        // Rule 20: permissions of the other mode do not apply to the requested mode.
        let asked = translation.privileged == request.privileged;
        Some(Cached {
            range,
            output: translation.range.base(),
            read: translation.read && asked,
            // Rule 18: a permission that was not requested is not granted, whatever the completion
            // says.
            write: translation.write && !request.no_write && asked,
            untranslated_only: translation.untranslated_only,
        })
    })
}

/// The same as a list, terminated by none.
pub(crate) fn answers(
    request: &TranslationRequest,
    translations: &[Translation],
    stu: u8,
) -> [Option<Cached>; MAX_TRANSLATIONS] {
    let mut list = [None; MAX_TRANSLATIONS];
    for (place, answer) in list.iter_mut().zip(completion(request, translations, stu)) {
        *place = Some(answer);
    }
    list
}

/// The number of pages of 4 KiB, from the focus of a piece on, that lack the piece's permission
/// according to a completion; at most `limit`, at least 1.
pub(crate) fn lacking(piece: &Piece, answers: impl Iterator<Item = Cached>, limit: u64) -> u64 {
    let page = |address: u64| address >> PAGE_SHIFT;
    let mut last = piece.focus();
    for answer in answers {
        if permits(&answer, piece) {
            break;
        }
        last = last.max(answer.range.last());
    }
    let last = if piece.backward {
        piece.focus()
    } else {
        last.min(piece.last())
    };
    (page(last) - page(piece.focus()) + 1).min(limit)
}

/// Whether a translation has the permission that a piece needs.
pub(crate) fn permits(answer: &Cached, piece: &Piece) -> bool {
    (answer.read || !piece.access.reads()) && (answer.write || !piece.access.writes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn pasid() -> Option<Pasid> {
        Pasid::new(1).ok()
    }

    fn answer(address: u64, shift: u8, read: bool, write: bool) -> Translation {
        Translation {
            range: AlignedRange::containing(address, shift).unwrap(),
            read,
            write,
            ..Translation::from_word(0)
        }
    }

    #[test]
    fn rule_03_requests_are_aligned_and_ask_for_the_whole_piece_up_to_a_limit() {
        let piece = Piece::forward(0x1fff, 2, Access::Read);
        let r = request(&piece, pasid(), false, 0);
        assert_eq!((r.address, r.pages, r.no_write), (0x1000, 2, true));
        let long = Piece::forward(0x1001, u64::MAX - 0x1001, Access::Write);
        let r = request(&long, pasid(), false, 0);
        assert_eq!((r.address, r.pages, r.no_write), (0x1000, 15, false));
        let aligned = Piece::forward(0x1_0000, 0x2_0000, Access::Write);
        let r = request(&aligned, pasid(), false, 0);
        assert_eq!((r.address, r.pages, r.no_write), (0x1_0000, 16, false));
        let back = Piece {
            backward: true,
            ..Piece::forward(0x1fff, 0x5000, Access::Read)
        };
        let r = request(&back, pasid(), false, 0);
        assert_eq!((r.address, r.pages), (0x6000, 1));
    }

    #[test]
    fn rule_04_requests_and_answers_respect_the_smallest_translation_unit() {
        let piece = Piece::forward(0x7000, 0xa000, Access::Read);
        let r = request(&piece, pasid(), false, 2);
        assert_eq!((r.address, r.pages), (0x4000, 4));
        let small = [answer(0xa000, 12, true, true)];
        assert_eq!(completion(&r, &small, 2).count(), 0);
        let good = [answer(0x8000, 14, true, true)];
        assert_eq!(completion(&r, &good, 2).count(), 1);
    }

    #[test]
    fn rule_14_translations_of_a_completion_follow_each_other() {
        let piece = Piece::forward(0x3000, 0x3000, Access::Write);
        let r = request(&piece, pasid(), false, 0);
        let answers = [
            answer(0xa000, 12, true, true),
            answer(0xb000, 12, true, false),
            answer(0xc000, 14, true, true),
        ];
        let got: Vec<_> = completion(&r, &answers, 0)
            .map(|c| (c.range.base(), c.output))
            .collect();
        // 16 KiB cannot begin at 0x5000.
        assert_eq!(got, [(0x3000, 0xa000), (0x4000, 0xb000)]);
    }

    #[test]
    fn rule_18_a_completion_of_a_no_write_request_permits_no_write() {
        let piece = Piece::forward(0x3000, 8, Access::Read);
        let r = request(&piece, pasid(), false, 0);
        let answers = [answer(0xa000, 12, true, true)];
        assert!(completion(&r, &answers, 0).all(|c| c.read && !c.write));
    }

    #[test]
    fn rule_20_a_completion_for_the_other_mode_permits_nothing() {
        let piece = Piece::forward(0x3000, 8, Access::Write);
        for asked in [false, true] {
            let r = request(&piece, pasid(), asked, 0);
            assert_eq!(r.privileged, asked);
            for told in [false, true] {
                let answers = [Translation {
                    privileged: told,
                    ..answer(0xa000, 12, true, true)
                }];
                let got = completion(&r, &answers, 0).next().unwrap();
                assert_eq!((got.read, got.write), (asked == told, asked == told));
            }
        }
    }

    #[test]
    fn rule_16_the_size_of_a_hole_says_how_many_pages_are_lacking() {
        let piece = Piece::forward(0x20_3000, 0x10_0000, Access::Write);
        let r = request(&piece, pasid(), false, 0);
        let hole = [answer(0, 21, false, false)];
        assert_eq!(lacking(&piece, completion(&r, &hole, 0), 16), 16);
        let short = Piece::forward(0x20_3fff, 2, Access::Write);
        assert_eq!(lacking(&short, completion(&r, &hole, 0), 16), 2);
        let mixed = [
            answer(0, 12, true, false),
            answer(0, 12, false, false),
            answer(0, 12, true, true),
        ];
        assert_eq!(lacking(&piece, completion(&r, &mixed, 0), 16), 2);
        assert_eq!(lacking(&piece, completion(&r, &mixed, 0), 1), 1);
    }
}
