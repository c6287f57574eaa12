// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that stay allocated when the process has lost them: a pipe has them, too. Nobody else gets
//! them meanwhile, so that a device which still writes to them does no harm, and is found out.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;

use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use svmctl::region::{PAGE, Region};

/// Pages that a pipe has without being told to have more.
pub const MOST: usize = 16;

/// Pages of a region.
#[derive(Debug)]
pub struct Held {
    from: File,
    /// Open, so that the pipe does not come to its end.
    _to: File,
    length: usize,
}

impl Held {
    /// Holds the pages that a region of at most [`MOST`] has now.
    ///
    /// # Errors
    ///
    /// Those of `pipe2` and `vmsplice`; the pipe has not taken all pages.
    pub fn new(region: &Region) -> io::Result<Held> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let (from, to) = (File::from(from), File::from(to));
        let length = region.len().min(MOST * PAGE);
        let piece = libc::iovec {
            iov_base: region.at(0).cast(),
            iov_len: length,
        };
        // SAFETY: the memory is mapped. The kernel takes references to its pages, and reads nothing
        // before the pipe is read.
        let taken = unsafe { libc::vmsplice(to.as_raw_fd(), &raw const piece, 1, 0) };
        match usize::try_from(taken) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(taken) if taken < length => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(Held {
                from,
                _to: to,
                length,
            }),
        }
    }

    /// What the pages contain now, as words. Lets go of them.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn read(mut self) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; self.length];
        self.from.read_exact(&mut bytes)?;
        let words = bytes.chunks_exact(8);
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        Ok(words.map(word).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use svmctl::region::Advice;

    use super::*;

    #[test]
    fn pages_that_are_lost_are_kept_as_they_were() {
        let region = Region::new(2 * PAGE).unwrap();
        region.words()[PAGE / 8].store(7, Ordering::Relaxed);
        let held = Held::new(&region).unwrap();
        // Still the same page.
        region.words()[PAGE / 8].store(8, Ordering::Relaxed);
        region.advise(Advice::DontNeed).unwrap();
        // Another page.
        region.words()[PAGE / 8].store(9, Ordering::Relaxed);
        let words = held.read().unwrap();
        assert_eq!((words.len(), words[PAGE / 8]), (2 * PAGE / 8, 8));
    }
}
