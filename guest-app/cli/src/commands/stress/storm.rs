// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is taken away while the device fills it: dropped, unmapped, copied by fork, swapped
//! out. Afterwards each word is one that the fill or the change can have left, and another fill
//! reaches every word, and no page that the process has lost. Pages that it drops or unmaps are held
//! until then: a device that still had them would write to memory of others.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, anyhow, ensure};
use svmctl::abi::completion::{self, Completion};
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Descriptor, Failure};

use svm_cases::harness::random::Random;
use svm_cases::system::held::{Held, MOST};
use svm_cases::system::onlooker::Onlooker;

/// Pages that are filled.
const PAGES: usize = MOST;

/// What happens to the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Change {
    /// `MADV_DONTNEED`: the pages are freed, and read as zero.
    Dropped,
    /// The pages are unmapped, and new ones are mapped in their place.
    Unmapped,
    /// A child has the pages, too: a page is copied when one of the two writes.
    Forked,
    /// The pages are written to swap.
    SwappedOut,
}

impl Change {
    /// All of them.
    pub const ALL: [Change; 4] = [
        Change::Dropped,
        Change::Unmapped,
        Change::Forked,
        Change::SwappedOut,
    ];

    /// Name in reports.
    pub fn key(self) -> &'static str {
        match self {
            Change::Dropped => "dropped",
            Change::Unmapped => "unmapped",
            Change::Forked => "forked",
            Change::SwappedOut => "swapped_out",
        }
    }

    /// Index in [`Change::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The memory, and the value of each of its words while nothing is in flight.
pub struct Prey {
    region: Region,
    value: u64,
}

/// A fill of the memory, and the change that comes meanwhile.
pub struct Storm {
    prey: Prey,
    /// The change.
    pub change: Change,
    pattern: u64,
    onlooker: Option<Onlooker>,
    lost: Option<Held>,
}

/// A storm that is over, and the fill after it.
pub struct Calm {
    prey: Prey,
    value: u64,
    /// What the process has lost, and the values that its words can have.
    lost: Option<(Held, [u64; 2])>,
}

impl Prey {
    /// Zeros.
    pub fn new() -> anyhow::Result<Prey> {
        Ok(Prey {
            region: Region::new(PAGES * PAGE)?,
            value: 0,
        })
    }

    /// Chooses a change.
    pub fn into_storm(self, changes: &[Change], random: &mut Random) -> Storm {
        Storm {
            prey: self,
            change: random.of(changes),
            // Never zero, which is what new pages have.
            pattern: random.next_u64() | 1,
            onlooker: None,
            lost: None,
        }
    }

    fn fill(&self, pattern: u64) -> Descriptor {
        Descriptor::fill(self.region.at(0), self.region.len() as u64, pattern)
    }

    /// Checks that each word has one of the values.
    fn expect(&self, values: &[u64]) -> anyhow::Result<()> {
        for (n, word) in self.region.words().iter().enumerate() {
            let found = word.load(Ordering::Relaxed);
            ensure!(
                values.contains(&found),
                "offset {:#x}, address {:#x}: {found:#x} found, expected one of {values:x?}",
                n * 8,
                self.region.address(n * 8)
            );
        }
        Ok(())
    }
}

impl Storm {
    /// The fill.
    pub fn descriptor(&self) -> Descriptor {
        self.prey.fill(self.pattern)
    }

    /// Changes the memory, while the fill is in flight.
    pub fn strike(mut self) -> anyhow::Result<Storm> {
        let region = self.prey.region;
        if matches!(self.change, Change::Dropped | Change::Unmapped) {
            self.lost = Some(Held::new(&region)?);
        }
        self.prey.region = match self.change {
            Change::Unmapped => region.map_anew()?,
            Change::Forked => {
                let values = [self.prey.value, self.pattern];
                self.onlooker = Some(Onlooker::fork(region.words(), values)?);
                region
            }
            Change::Dropped | Change::SwappedOut => {
                region.advise(match self.change {
                    Change::Dropped => Advice::DontNeed,
                    _ => Advice::PageOut,
                })?;
                region
            }
        };
        Ok(self)
    }

    /// Checks what the fill has done.
    pub fn judge(self, record: &Completion) -> anyhow::Result<Calm> {
        let change = self.change.key();
        self.check(record).with_context(|| change.to_owned())?;
        // Any value that is neither there nor the one of new pages.
        let value = self.pattern ^ 2;
        if let Some(onlooker) = self.onlooker {
            onlooker.finish()?;
        }
        let values = [self.prey.value, self.pattern];
        Ok(Calm {
            prey: self.prey,
            value,
            lost: self.lost.map(|lost| (lost, values)),
        })
    }

    fn check(&self, record: &Completion) -> anyhow::Result<()> {
        if let Some(failure) = Failure::of(record) {
            let pages = self.prey.region.address(0)..self.prey.region.address(PAGES * PAGE);
            // In the moment in which nothing is mapped.
            let unmapped = self.change == Change::Unmapped
                && failure.error() == Some(completion::Error::PageFault)
                && failure.write
                && pages.contains(&failure.address);
            ensure!(unmapped, anyhow!(failure));
        }
        match self.change {
            Change::Dropped | Change::Unmapped => self.prey.expect(&[0, self.pattern]),
            Change::Forked | Change::SwappedOut => self.prey.expect(&[self.pattern]),
        }
    }
}

impl Calm {
    /// The fill.
    pub fn descriptor(&self) -> Descriptor {
        self.prey.fill(self.value)
    }

    /// Checks the fill: nothing has interfered.
    pub fn settle(self, record: &Completion) -> anyhow::Result<Prey> {
        let Calm {
            mut prey,
            value,
            lost,
        } = self;
        if let Some(failure) = Failure::of(record) {
            return Err(anyhow!(failure));
        }
        prey.expect(&[value])?;
        if let Some((lost, values)) = lost {
            for (n, found) in lost.read()?.into_iter().enumerate() {
                // A page that was never there is one of zeros.
                ensure!(
                    found == 0 || values.contains(&found),
                    "offset {:#x} of the pages that were taken away: {found:#x} found, expected \
                     one of {values:x?}",
                    n * 8
                );
            }
        }
        prey.value = value;
        Ok(prey)
    }
}

#[cfg(test)]
mod tests {
    use svmctl::abi::completion::{access, status};

    use super::*;

    fn storm(change: Change) -> Storm {
        Storm {
            prey: Prey::new().unwrap(),
            change,
            pattern: 0x77,
            onlooker: None,
            lost: None,
        }
    }

    /// What a device does that works, before or after the change.
    fn fill(storm: &Storm) {
        let words = storm.prey.region.words().iter();
        words.for_each(|word| word.store(storm.pattern, Ordering::Relaxed));
    }

    const DONE: Completion = Completion {
        status: status::SUCCESS,
        error: 0,
        access: 0,
        bytes_done: 0,
        fault_address: 0,
        result: 0,
    };

    #[test]
    fn before_or_after_the_change_is_right() {
        for change in Change::ALL {
            let before = storm(change);
            fill(&before);
            before.strike().unwrap().judge(&DONE).unwrap();
            let after = storm(change).strike().unwrap();
            fill(&after);
            after.judge(&DONE).unwrap();
        }
    }

    #[test]
    fn a_word_that_is_neither_is_noticed() {
        for (change, word) in [
            (Change::Dropped, 0x78),
            (Change::Unmapped, 0x78),
            // The fill has not reached it.
            (Change::Forked, 0),
            (Change::SwappedOut, 0),
        ] {
            let storm = storm(change).strike().unwrap();
            fill(&storm);
            storm.prey.region.words()[513].store(word, Ordering::Relaxed);
            let error = storm.judge(&DONE).err().expect("it was not noticed");
            assert!(format!("{error:#}").contains("offset 0x1008"), "{error:#}");
        }
    }

    #[test]
    fn only_memory_that_is_unmapped_may_fail_and_nowhere_else() {
        let failure = |storm: &Storm, offset: usize| Completion {
            status: status::FAILURE,
            error: completion::Error::PageFault as u8,
            access: access::WRITE,
            fault_address: storm.prey.region.address(0) + offset as u64,
            ..DONE
        };
        for change in Change::ALL {
            let storm = storm(change).strike().unwrap();
            fill(&storm);
            let record = failure(&storm, PAGE);
            assert_eq!(storm.judge(&record).is_ok(), change == Change::Unmapped);
        }
        let storm = storm(Change::Unmapped).strike().unwrap();
        let record = failure(&storm, PAGES * PAGE);
        assert!(storm.judge(&record).is_err());
    }

    #[test]
    fn a_fill_that_goes_to_pages_which_were_taken_away_is_noticed() {
        let storm = storm(Change::Dropped).strike().unwrap();
        fill(&storm);
        let calm = storm.judge(&DONE).unwrap();
        let error = calm.settle(&DONE).err().expect("it was not noticed");
        assert!(error.to_string().contains("expected one of"), "{error}");
    }

    #[test]
    fn a_write_to_pages_that_were_taken_away_is_noticed() {
        for wrong in [false, true] {
            let storm = storm(Change::Dropped);
            fill(&storm);
            let storm = storm.strike().unwrap();
            fill(&storm);
            let mut calm = storm.judge(&DONE).unwrap();
            let words = calm.prey.region.words().iter();
            words.for_each(|word| word.store(calm.value, Ordering::Relaxed));
            if let (true, Some((_, values))) = (wrong, &mut calm.lost) {
                *values = [1, 2];
            }
            assert_eq!(calm.settle(&DONE).is_err(), wrong);
        }
    }
}
