// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces that several sections of the page have.

use super::super::results::Results;
use crate::run::Verdict;
use maud::{Markup, html};

/// A verdict as a word with its colour.
pub fn badge(verdict: Verdict) -> Markup {
    html! { span class={ "verdict " (class(verdict)) } { (sign(verdict)) (verdict) } }
}

/// The class of a verdict in the style.
pub fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Failed => "failed",
        Verdict::Deviates => "deviates",
        Verdict::Passed => "passed",
        Verdict::NotApplicable => "not-applicable",
    }
}

/// A sign before the word of a verdict, so that it is found without its colour.
pub fn sign(verdict: Verdict) -> Markup {
    let sign = match verdict {
        Verdict::Failed => "✗",
        Verdict::Deviates => "≠",
        Verdict::Passed => "✓",
        Verdict::NotApplicable => "–",
    };
    html! { span.sign aria-hidden="true" { (sign) " " } }
}

/// The id of a rule on a bench, or of a rule.
pub fn anchor(results: &Results, rule: u8, bench: Option<usize>) -> String {
    let Some(at) = bench else {
        return format!("rule-{rule}");
    };
    let slugs: Vec<String> = results.benches.iter().map(|b| slug(&b.bench)).collect();
    let unique = slugs.iter().filter(|slug| **slug == slugs[at]).count() == 1;
    match unique {
        true => format!("rule-{rule}-{}", slugs[at]),
        false => format!("rule-{rule}-{}-{at}", slugs[at]),
    }
}

/// A name as part of an id.
pub fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(plain).collect()
}

/// A number with its noun.
pub fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// A time for people: without its `T`, and to the minute.
pub fn time(date: &str) -> Markup {
    match date.get(..16) {
        Some(minute) => html! {
            time datetime=(date) { (minute.replace('T', " ")) " UTC" }
        },
        None => html! { (if date.is_empty() { "an unknown time" } else { date }) },
    }
}

/// A table that can be scrolled sideways, by keyboard, too.
pub fn scrolled(label: &str, table: Markup) -> Markup {
    html! { div.scrolled role="region" aria-label={ "Table: " (label) } tabindex="0" { (table) } }
}
