// SPDX-License-Identifier: MIT OR Apache-2.0
//! A miniature operating system for tests: it boots the units, keeps the tables, invalidates,
//! handles page faults, and drives the endpoint, the way Linux does.
//!
//! It runs on any [`Board`]; [`crate::Machine`] is one.
//!
//! Everything takes shared references, so that several threads can be software. Waiting means to
//! step the machine, or to wait for its engines if it has some; page requests are handled by
//! the thread that waits.
//!
//! What cannot happen unless a test is wrong (memory used up, a page that is not mapped) panics
//! with a sentence that says so.

mod board;
mod descriptors;
mod domain;
mod driver;

mod frames;
mod in_process;
mod kernel;
mod page_request_queue;
mod page_requests;
mod process;
mod queue;
mod stage;

pub use board::Board;
pub use descriptors::{
    CONTEXT_GLOBAL, INTERRUPTS_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL, Words, context_device,
    device_tlb, device_tlb_pasid, fence, iotlb_domain, iotlb_domain_pages, iotlb_pasid,
    iotlb_pasid_pages, page_group_response, pasid_entry, wait,
};
pub use domain::Domain;
pub use driver::{
    App, Driver, Ticket, chase, compare, copy, crc32c, fetch_add, fill, nop, unblocked,
};
pub use frames::{FRAME, Frames};
pub use kernel::{Mode, Os};
pub use page_request_queue::Behaviour;
pub use process::migration::Migration;
pub use process::{Layout, Nesting, Process};
pub use queue::{Queue, QueueFault, Wait};
pub use stage::{A, D, Leaf, P, PS, R, RW, Stage, US, W, shift};
