// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results as a page for people: one file that asks for nothing outside of it, and that works
//! without scripts.

mod benchmarks;
mod deviations;
mod inputs;
mod judged;
mod markdown;
mod matrix;
mod mutants;
mod numbers;
mod overview;
mod parts;
mod plot;
#[cfg(test)]
mod tests;

pub use inputs::Inputs;

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The page's style. Nothing in it may name another file.
const STYLE: &str = include_str!("style.css");

/// A section of the page.
struct Section {
    /// Its id.
    id: &'static str,
    /// Its heading.
    title: &'static str,
    /// What is in it.
    content: Markup,
}

/// The page.
pub fn document(inputs: &Inputs) -> String {
    let sections: Vec<Section> = [
        section("failures", "Failures", judged::failures(inputs)),
        section("comparison", "Comparison", overview::comparison(inputs)),
        section("summary", "Summary", overview::summary(inputs)),
        section("matrix", "Rules by bench", matrix::matrix(inputs)),
        section("mutants", "Mutants", mutants::mutants(inputs)),
        section("deviations", "Deviations", deviations::deviations(inputs)),
        section("coverage", "Coverage", overview::coverage(inputs)),
        section("benchmarks", "Benchmarks", benchmarks::benchmarks(inputs)),
        section("rules", "The rules one by one", judged::rules(inputs)),
        section("words", "What the words mean", Some(overview::words())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { (overview::title(inputs)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the results" }
                header {
                    h1 { "Correctness suite: the rules of ATS, PRI and PASID" }
                    (overview::verdict(inputs))
                    (overview::origin(inputs))
                }
                nav aria-label="Sections" {
                    ul {
                        @for section in &sections {
                            li { a href={ "#" (section.id) } { (section.title) } }
                        }
                    }
                }
                main #main tabindex="-1" {
                    @for section in &sections {
                        section aria-labelledby=(section.id) {
                            h2 #(section.id) { (section.title) }
                            (section.content)
                        }
                    }
                }
                footer {
                    p { "Written by run-suite " (env!("CARGO_PKG_VERSION")) ". The page is one file \
                         without scripts, and asks for nothing outside of it." }
                }
            }
        }
    };
    page.into_string()
}

fn section(id: &'static str, title: &'static str, content: Option<Markup>) -> Option<Section> {
    content.map(|content| Section { id, title, content })
}
