// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a test fails. A mutant counts as caught only if an assertion of its test fails; a panic
//! anywhere else, for instance during set-up, proves nothing. The tests of other crates include
//! this file by its path.
#![allow(
    dead_code,
    reason = "not everybody who includes the file uses all of it"
)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, Once, PoisonError};

/// A file, and a line of it.
pub type SourceLine = (String, u32);

/// The first failure of a test that is expected to fail, in any of its threads.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Option<SourceLine>>>);

thread_local! {
    /// The watch of the test that this thread works for, if the test is expected to fail.
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

impl Watch {
    /// The watch of this thread, for a thread that it starts.
    pub fn current() -> Option<Watch> {
        WATCH.with_borrow(Clone::clone)
    }

    /// From now on this thread works for the test of this watch.
    pub fn join(watch: Option<Watch>) {
        WATCH.set(watch);
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<SourceLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a test fails first, if it fails. Does not print its message.
pub fn place_of_failure(test: impl FnOnce()) -> Option<SourceLine> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| match Watch::current() {
            Some(watch) => {
                let here = info.location().map(|l| (l.file().to_owned(), l.line()));
                let mut place = watch.place();
                *place = place.take().or(here);
            }
            None => before(info),
        }));
    });
    let watch = Watch::default();
    Watch::join(Some(watch.clone()));
    let failed = catch_unwind(AssertUnwindSafe(test)).is_err();
    Watch::join(None);
    let place = watch.place().take();
    failed.then(|| place.unwrap_or_default())
}

/// Whether a test fails first in one of these functions of these files. A file is given by the end
/// of its path and its text. Otherwise the error says where the test fails, or that it succeeds.
pub fn caught(
    test: impl FnOnce(),
    sources: &[(&str, &str)],
    functions: &[&str],
) -> Result<(), Option<SourceLine>> {
    let place = place_of_failure(test);
    let within = |(file, line): &SourceLine| {
        let source = sources.iter().find(|(end, _)| file.ends_with(end));
        source.is_some_and(|(_, text)| {
            let around = functions_at(text, *line);
            around.iter().any(|name| functions.contains(name))
        })
    };
    match place {
        Some(place) if within(&place) => Ok(()),
        other => Err(other),
    }
}

/// Requires of each mutant that its test, named by its path, succeeds without it, and with it fails
/// first in an assertion of its own. `set` sets a mutant, or none.
///
/// # Panics
///
/// A test fails without its mutant, or a mutant survives.
pub fn all_caught<M: Copy + std::fmt::Debug>(
    mutants: &[M],
    test: impl Fn(M) -> (&'static str, fn()),
    set: impl Fn(Option<M>),
    sources: &[(&str, &str)],
) {
    let mut survived = Vec::new();
    for mutant in mutants {
        let (path, test) = test(*mutant);
        let name = path.rsplit("::").next().unwrap_or(path).trim();
        assert_eq!(place_of_failure(test), None, "{mutant:?}: without it");
        set(Some(*mutant));
        let result = caught(test, sources, &[name]);
        set(None);
        if let Err(place) = result {
            survived.push((mutant, place));
        }
    }
    assert!(survived.is_empty(), "survived: {survived:#?}");
    println!("mutants: {} caught, 0 survived", mutants.len());
}

/// The functions that contain a line of a source file, the innermost first. It relies on the
/// indentation of rustfmt.
fn functions_at(source: &str, line: u32) -> Vec<&str> {
    let lines: Vec<&str> = source.lines().take(line as usize).collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut functions = Vec::new();
    let Some((last, before)) = lines.split_last() else {
        return functions;
    };
    let mut outermost = indent(last);
    // The end of a construct of several lines has the same indentation as its beginning.
    let mut continued = false;
    for line in before.iter().rev().filter(|line| !line.trim().is_empty()) {
        let (text, column) = (line.trim_start(), indent(line));
        if column < outermost || column == outermost && continued {
            outermost = column;
            continued = text.starts_with([')', '}', '{']) || text.starts_with("where");
            functions.extend(function_in(text));
        }
    }
    functions
}

/// The name of the function that begins in a line.
fn function_in(text: &str) -> Option<&str> {
    let rest = match text.strip_prefix("fn ") {
        Some(rest) => rest,
        None => {
            let (before, rest) = text.split_once(" fn ")?;
            let word = |word: &str| word.starts_with("pub") || word == "const";
            before.split(' ').all(word).then_some(rest)?
        }
    };
    rest.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
pub(super) fn outer<T>(
    first: T,
) -> bool
where
    T: Copy,
{
    fn inner() {
        work();
    }
    match first {
        one => two(|| {

            fails();
        }),
        _ => {
            inner();
        }
    }
}

impl World {
    const fn method(&self) {
        if true {
            work();
        } else {
            fails();
        }
    }
}
";

    #[test]
    fn a_line_is_in_its_function_and_in_those_around() {
        let at = |text: &str| {
            let number = SOURCE.lines().position(|line| line == text).unwrap();
            functions_at(SOURCE, number as u32 + 1)
        };
        assert_eq!(at("        work();"), ["inner", "outer"]);
        assert_eq!(at("            fails();"), ["outer"]);
        assert_eq!(at("            inner();"), ["outer"]);
        assert_eq!(at("            work();"), ["method"]);
        assert_eq!(at("        if true {"), ["method"]);
        assert_eq!(at("impl World {"), [""; 0]);
        assert_eq!(functions_at(SOURCE, 26), ["method"]);
    }

    fn fails(wrong: bool) {
        assert!(!wrong);
    }

    #[test]
    fn caught_is_what_fails_in_a_function_of_a_file() {
        let sources = [("/testing/failure.rs", include_str!("failure.rs"))];
        let here = |test: fn(), names: &[&str]| caught(test, &sources, names);
        assert_eq!(here(|| fails(true), &["other", "fails"]), Ok(()));
        assert_eq!(here(|| fails(false), &["fails"]), Err(None));
        let (file, _) = here(|| fails(true), &["other"]).unwrap_err().unwrap();
        assert!(file.ends_with("/testing/failure.rs"), "{file}");
        // The first failure, in any thread.
        let threads = || {
            let watch = Watch::current();
            let other = std::thread::spawn(|| {
                Watch::join(watch);
                fails(true);
            });
            other.join().unwrap();
        };
        assert_eq!(here(threads, &["fails"]), Ok(()));
    }
}
