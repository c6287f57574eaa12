// SPDX-License-Identifier: MIT OR Apache-2.0
//! Benches with an operating system: Linux in a guest, and in a guest of a guest. `svm-vm` boots
//! them, cases of `svmctl` run there, and a table says which rule each case judges.

mod bench;
mod judge;
mod results;
mod table;

pub use bench::Guest;
pub use judge::judge;
pub use results::Cases;
pub use table::Level;
