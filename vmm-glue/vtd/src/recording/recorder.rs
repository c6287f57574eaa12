// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines of a recording go to a sink; calls that repeat are counted. Not of the specification.

/// Receives the text of a recording: whole lines, one call with its consequences at a time.
pub type Sink = Box<dyn FnMut(&str) + Send>;

/// The recorder of calls.
pub struct Recorder {
    sink: Sink,
    /// The last call with its consequences.
    last: String,
    /// Number of its repetitions.
    again: u64,
}

impl Recorder {
    /// A recorder, with the first lines written.
    pub fn new(mut sink: Sink, first: &str) -> Self {
        sink(first);
        Recorder {
            sink,
            last: String::new(),
            again: 0,
        }
    }

    /// Records a call. It only counts a repetition: interrupts come by the thousand.
    pub fn record(&mut self, event: String) {
        if event == self.last {
            self.again += 1;
            return;
        }
        self.flush();
        (self.sink)(&event);
        self.last = event;
    }

    /// Writes the counted repetitions.
    fn flush(&mut self) {
        if self.again != 0 {
            (self.sink)(&format!("again {}\n", self.again));
            self.again = 0;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}
