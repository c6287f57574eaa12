// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program needs of the operating system beyond the library: mapped files, children,
//! failures on demand, and what `/proc` says of pages. With the self-tests the only part of the program that needs
//! `unsafe`.

pub mod child;
pub mod files;
pub mod injection;
pub mod pages;
