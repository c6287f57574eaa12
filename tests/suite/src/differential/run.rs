// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was seen of a case.

use super::apply::Seen;
use std::fmt::{self, Display};

/// What a subject did with a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was seen, step by step.
    pub seen: Vec<Seen>,
    /// Why it ended before the last step, if it did.
    pub end: Option<String>,
}

/// What two units differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The answer to the function's request.
    Answer,
    /// The faults that are recorded.
    Faults,
    /// The entry that maps the page.
    Leaf,
    /// What is in the page.
    Data,
    /// What comes into the page request queue.
    PageRequests,
    /// Whether the invalidation queue stops.
    Queue,
    /// Whether the machine goes on.
    End,
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Answer => "the answer",
            Field::Faults => "the faults that are recorded",
            Field::Leaf => "the entry that maps the page",
            Field::Data => "what the page begins with",
            Field::PageRequests => "the page request queue",
            Field::Queue => "the invalidation queue",
            Field::End => "the machine",
        })
    }
}
