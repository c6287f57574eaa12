// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sums a linked list on the device: the program builds the list with plain pointers, and the
//! device follows them.
//!
//! Run it on a machine with the device: `cargo run --example sum /dev/svm0`.

use std::mem::offset_of;
use std::ptr;

use svmctl::{Context, Error};

#[repr(C)]
struct Node {
    value: u64,
    next: *const Node,
}

fn main() -> Result<(), Error> {
    let path = std::env::args().nth(1).unwrap_or("/dev/svm0".into());
    let mut queue = Context::open(path)?.start(16)?;

    let mut head = ptr::null();
    let mut nodes = Vec::new();
    for value in 1..=1000 {
        let node = Box::new(Node { value, next: head });
        head = &raw const *node;
        nodes.push(node);
    }
    // SAFETY: the nodes are alive until the end of `main`, and nothing changes them.
    let (sum, count) =
        unsafe { queue.chase(head, offset_of!(Node, next), offset_of!(Node, value), 1000) }?;
    println!("{count} nodes, sum {sum}");
    assert_eq!(sum, nodes.iter().map(|node| node.value).sum());
    Ok(())
}
