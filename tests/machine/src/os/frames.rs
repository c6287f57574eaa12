// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page allocator.

use super::board::Board;
use crate::machine::Machine;
use crate::memory::Ram;
use crate::sync::Mutex;

/// Size of a frame in bytes.
pub const FRAME: u64 = 4096;
/// The first frame that is given out: address 0 stays what no pointer is.
const FIRST: u64 = 1 << 20;

#[derive(Debug)]
struct State {
    next: u64,
    free: Vec<u64>,
}

/// The frames of guest memory.
#[derive(Debug)]
pub struct Frames<B = Machine> {
    board: B,
    state: Mutex<State>,
}

impl Frames {
    /// Guest memory.
    pub fn ram(&self) -> &Ram {
        self.board.ram()
    }
}

impl<B: Board + Clone> Frames<B> {
    /// All of a machine's memory but the first MiB.
    pub fn new(board: &B) -> Self {
        Frames {
            board: board.clone(),
            state: Mutex::new(State {
                next: FIRST,
                free: Vec::new(),
            }),
        }
    }

    /// The machine whose memory it is.
    pub fn board(&self) -> &B {
        &self.board
    }

    /// A frame of zeros.
    ///
    /// # Panics
    ///
    /// If there is none left.
    pub fn allocate(&self) -> u64 {
        let frame = self.state.lock().free.pop();
        match frame {
            Some(frame) => {
                self.clear(frame);
                frame
            }
            None => self.allocate_range(12),
        }
    }

    /// 2^`shift` bytes of zeros that were never used, aligned to their size.
    ///
    /// # Panics
    ///
    /// If there is no such range left.
    pub fn allocate_range(&self, shift: u8) -> u64 {
        let size = 1u64 << shift;
        let mut state = self.state.lock();
        let at = state.next.next_multiple_of(size);
        let bytes = self.board.memory_bytes();
        assert!(
            at + size <= bytes,
            "guest memory of {bytes:#x} bytes is used up: give the machine more"
        );
        // What the alignment leaves over is given out later.
        let mut gap = state.next;
        while gap < at {
            state.free.push(gap);
            gap += FRAME;
        }
        state.next = at + size;
        at
    }

    /// Gives a frame back.
    pub fn free(&self, frame: u64) {
        self.state.lock().free.push(frame);
    }

    fn clear(&self, frame: u64) {
        // It was given out before, so it is memory.
        let _ = self.board.memory_write(frame, &[0; FRAME as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_zero_aligned_and_each_its_owners() {
        let config = crate::MachineConfig {
            memory: 8 << 20,
            ..crate::MachineConfig::default()
        };
        let frames = Frames::new(&Machine::new(&config).unwrap());
        let first = frames.allocate();
        let large = frames.allocate_range(21);
        assert_eq!(large % (2 << 20), 0);
        frames.ram().store(first, 7).unwrap();
        frames.free(first);
        let mut seen = vec![large];
        for _ in 0..100 {
            let frame = frames.allocate();
            assert!(!seen.contains(&frame));
            assert_eq!(frames.ram().load(frame), Ok(0));
            seen.push(frame);
        }
        assert!(seen.contains(&first));
    }
}
