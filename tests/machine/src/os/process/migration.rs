// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that move to another frame while functions use them: away, invalidated, copied, back.

use super::super::board::Board;
use super::super::frames::FRAME;
use super::super::queue::{QueueFault, Wait};
use super::{Process, covering};
use crate::machine::Machine;

impl<B: Board + Clone> Process<B> {
    /// Takes a page away to be moved, unless it is on the move already: from now on it is neither
    /// accessed nor made present, as soon as its range has been invalidated.
    fn take_away(&self, address: u64) -> bool {
        let (_, before) = self.change(address, |page| {
            page.present = false;
            page.busy = true;
        });
        assert_eq!(before.shift, 12, "only small pages migrate");
        !before.busy
    }

    /// Puts a page that was taken away back: into another frame, or where it was. Returns the frame
    /// where it was.
    fn put_back(&self, address: u64, elsewhere: Option<u64>) -> u64 {
        let old = self.frame(address);
        let frame = elsewhere.unwrap_or(old);
        if frame != old {
            let mut contents = [0; FRAME as usize];
            let board = self.0.os.machine();
            let _ = board.memory_read(old, &mut contents);
            let _ = board.memory_write(frame, &contents);
        }
        self.change(address, |page| {
            page.frame = frame;
            page.present = true;
            page.busy = false;
        });
        old
    }

    /// Puts another frame, a copy, behind a page and invalidates. Returns the frame that was there.
    ///
    /// # Panics
    ///
    /// If the page is on the move already.
    pub fn migrate(&self, address: u64) -> Result<u64, QueueFault> {
        self.migrate_to(address, self.0.os.0.frames.allocate())
    }

    /// As [`Process::migrate`], into a frame of the caller's choice.
    ///
    /// # Panics
    ///
    /// If the page is on the move already.
    pub fn migrate_to(&self, address: u64, frame: u64) -> Result<u64, QueueFault> {
        assert!(
            self.take_away(address),
            "{address:#x} is on the move already"
        );
        self.0.invalidate(covering(address, FRAME))?;
        Ok(self.put_back(address, Some(frame)))
    }

    /// Begins to move pages, which one invalidation covers, and waits for nothing. None if one of
    /// them is on the move already, or if the invalidation queue has no room.
    pub fn begin_migration(&self, address: u64, length: u64) -> Option<Migration<B>> {
        let mut migration = Migration {
            process: self.clone(),
            pages: Vec::new(),
            waits: Vec::new(),
        };
        for page in (address..address + length).step_by(FRAME as usize) {
            if !self.take_away(page) {
                migration.cancel();
                return None;
            }
            migration.pages.push(page);
        }
        let bound = self.0.bound.lock().clone();
        for (unit, words) in self.0.invalidations(&bound, covering(address, length)) {
            let Some(wait) = self.0.os.queue(unit).try_submit(&words) else {
                migration.cancel();
                return None;
            };
            migration.waits.push((unit, wait));
        }
        Some(migration)
    }
}

/// Pages on the move. Software must end it: until then nobody can have them.
#[derive(Debug)]
#[must_use = "the pages are away until the migration ends"]
pub struct Migration<B: Board + Clone = Machine> {
    process: Process<B>,
    pages: Vec<u64>,
    /// The wait descriptors behind its invalidations, by unit.
    waits: Vec<(usize, Wait)>,
}

impl<B: Board + Clone> Migration<B> {
    /// Whether the invalidation is complete, and nobody uses the old frames any more.
    pub fn is_ready(&self) -> bool {
        let os = &self.process.0.os;
        self.waits
            .iter()
            .all(|(unit, wait)| os.queue(*unit).is_done(*wait))
    }

    /// Puts copies of the pages behind their addresses. Returns the frames that were there.
    ///
    /// # Panics
    ///
    /// If it is not ready.
    pub fn end(self) -> Vec<u64> {
        assert!(self.is_ready(), "the invalidation is not complete yet");
        let frames = &self.process.0.os.0.frames;
        let put = |page: &u64| self.process.put_back(*page, Some(frames.allocate()));
        self.pages.iter().map(put).collect()
    }

    /// Leaves the pages where they are.
    fn cancel(self) {
        for page in &self.pages {
            self.process.put_back(*page, None);
        }
    }
}
