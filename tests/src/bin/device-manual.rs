// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints the device's reference manual.
fn main() {
    print!("{}", svm_tests::manual::text());
}
