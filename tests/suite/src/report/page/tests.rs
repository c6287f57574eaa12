// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page's structure: well-formed, each link with its target, nothing from outside, and all text
//! as text.

use super::super::compare::compare;
use super::super::results::{Bench, Clause, Known, Mutant, Results, Rule};
use super::inputs::{Axis, Coverage, CoveredFile, Dated, Figure, Measured, Point, Row, Series};
use super::{Inputs, document};
use crate::bench::{Bench as _, InProcess};
use crate::run::{self, Verdict};
use scraper::{ElementRef, Html, Selector};
use std::collections::{BTreeMap, BTreeSet};

/// A text that breaks out of whatever does not escape it.
const HOSTILE: &str = "\"'><script>alert(1)</script><!-- & <img src=https://example.org/x.png>";

fn clause(name: &str, verdict: Verdict) -> Clause {
    let known = (verdict == Verdict::Deviates).then(|| Known {
        report: Some(8),
        title: format!("title of {name}"),
        place: format!("place of {name}"),
    });
    Clause {
        name: name.to_owned(),
        verdict,
        text: format!("{name}: expected one of {name}, found another of {name}"),
        requests: vec![format!("request of {name}")],
        deviation: known,
    }
}

fn rule(number: u8, clauses: Vec<Clause>) -> Rule {
    Rule {
        number,
        title: format!("title {number}"),
        says: format!("says {number}"),
        section: format!("section {number}"),
        verdict: clauses
            .iter()
            .map(|c| c.verdict)
            .min()
            .unwrap_or(Verdict::NotApplicable),
        text: format!("text {number}"),
        seconds: 0.25,
        clauses,
    }
}

fn bench(name: &str, rules: Vec<Rule>) -> Bench {
    Bench {
        bench: name.to_owned(),
        subject: format!("subject of {name}"),
        rules,
        mutants: Vec::new(),
    }
}

/// A page with all that there can be, in which `word` is part of every text.
fn everything(word: &str) -> Inputs {
    let name = |n: u8| format!("{word} {n}");
    let rules = |verdict| {
        vec![
            rule(1, vec![clause(&name(1), Verdict::Passed)]),
            rule(
                2,
                vec![
                    clause(&name(2), verdict),
                    clause(&name(3), Verdict::Deviates),
                ],
            ),
            rule(8, Vec::new()),
        ]
    };
    let before = Results::new(
        name(4),
        vec![
            bench(word, rules(Verdict::Passed)),
            bench("other", rules(Verdict::Passed)),
        ],
    );
    let mut suite = Results::new(
        name(4),
        vec![
            bench(word, rules(Verdict::Failed)),
            bench("other", rules(Verdict::Passed)),
            bench("new", vec![rule(1, vec![clause(word, Verdict::Passed)])]),
        ],
    );
    suite.comparison = Some(compare(word, &before, &suite));
    let mutant = |rule, caught| Mutant {
        rule,
        clause: name(2),
        mutant: format!("mutant {word}"),
        violation: format!("violation {word}"),
        caught,
        text: format!("said {word}"),
    };
    let mut mutants = Results::new(word.to_owned(), vec![bench(word, Vec::new())]);
    mutants.benches[0].mutants = vec![mutant(1, true), mutant(2, false), mutant(2, true)];
    let axis = |bytes| Axis {
        label: word.to_owned(),
        logarithmic: bytes,
        bytes,
    };
    let point = |x: f64| Point {
        x,
        median: x * 2.0,
        p10: x,
        p90: x * 3.0,
    };
    let series = |n: u8| Series {
        name: name(n),
        points: [1.0, 64.0, 4096.0].map(point).into(),
    };
    let figure = Figure {
        title: word.to_owned(),
        x: axis(true),
        y: axis(false),
        series: (0..7).map(series).collect(),
    };
    Inputs {
        suite: Some(suite),
        mutants: Some(mutants),
        coverage: Some(Dated {
            date: word.to_owned(),
            of: Coverage {
                goal: 95.0,
                percent: 50.0,
                files: vec![CoveredFile {
                    file: word.to_owned(),
                    lines: 2,
                    covered: 1,
                    missing: word.to_owned(),
                }],
            },
        }),
        rows: Some(Dated {
            date: word.to_owned(),
            of: vec![Row {
                name: word.to_owned(),
                against: Some(word.to_owned()),
                value: 1.0,
                unit: word.to_owned(),
                baseline: Some(1.0),
                ratio: Some(1.0),
                goal: Some(word.to_owned()),
                met: Some(false),
            }],
        }),
        curves: vec![(
            word.to_owned(),
            Dated {
                date: word.to_owned(),
                of: Measured {
                    figures: vec![figure],
                },
            },
        )],
        reports: Some("../../docs/deviations"),
        unreadable: vec![word.to_owned()],
    }
}

fn all<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

fn text(element: ElementRef<'_>) -> String {
    let words: Vec<&str> = element.text().flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// A page by a parser that tells what is wrong with it.
fn parsed(inputs: &Inputs) -> Html {
    let page = Html::parse_document(&document(inputs));
    assert_eq!(page.errors, Vec::<String>::new());
    page
}

/// What every page has to keep.
fn is_well_made(page: &Html) {
    let ids: Vec<&str> = all(page, "[id]")
        .iter()
        .filter_map(|e| e.attr("id"))
        .collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    for link in all(page, "a[href]") {
        let to = link.attr("href").unwrap();
        match to.strip_prefix('#') {
            Some(id) => assert!(unique.contains(id), "{to} leads nowhere"),
            None => assert!(to.starts_with("../../docs/"), "{to} is outside"),
        }
        assert_ne!(text(link), "", "{to} has no text");
    }
    for table in all(page, "table") {
        assert!(
            table
                .select(&Selector::parse("caption").unwrap())
                .next()
                .is_some()
        );
    }
    for heading in all(page, "th") {
        assert!(heading.attr("scope").is_some(), "{}", heading.html());
    }
    for reference in ["aria-labelledby", "for"] {
        for element in all(page, &format!("[{reference}]")) {
            let id = element.attr(reference).unwrap();
            assert!(unique.contains(id), "{reference} {id}");
        }
    }
    let loads = "script, img, link, iframe, object, embed, audio, video, source, base, form, \
                 [src], [srcset], [style], [background], [poster]";
    assert!(all(page, loads).is_empty());
    for element in all(page, "*") {
        let events = element
            .value()
            .attrs()
            .filter(|(name, _)| name.starts_with("on"));
        assert_eq!(events.count(), 0, "{}", element.html());
    }
    for style in all(page, "style") {
        let style = style.text().collect::<String>();
        assert!(!style.contains("url(") && !style.contains("@import"));
    }
    assert_eq!(all(page, "h1").len(), 1);
    assert_eq!(all(page, "html[lang]").len(), 1);
    // A heading is at most one level below the one before it.
    let level = |heading: &ElementRef<'_>| heading.value().name().as_bytes()[1];
    let levels: Vec<u8> = all(page, "h1, h2, h3, h4").iter().map(level).collect();
    assert!(
        levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "{levels:?}"
    );
}

#[test]
fn a_page_with_everything_is_well_made() {
    is_well_made(&parsed(&everything("word")));
}

#[test]
fn hostile_text_stays_text() {
    let inputs = everything(HOSTILE);
    let page = parsed(&inputs);
    is_well_made(&page);
    let plain = HOSTILE.split_whitespace().collect::<Vec<_>>().join(" ");
    for selector in [
        "caption, figcaption",
        "dd",
        "svg text",
        ".clause",
        ".failure",
        "#mutants ~ details td",
        "p.warning",
    ] {
        let found = all(&page, selector)
            .into_iter()
            .any(|e| text(e).contains(&plain));
        assert!(found, "{selector}");
    }
}

#[test]
fn an_empty_folder_has_a_page_and_so_has_each_part_alone() {
    is_well_made(&parsed(&Inputs::default()));
    let take: [fn(Inputs) -> Inputs; 4] = [
        |all| Inputs {
            suite: all.suite,
            ..Inputs::default()
        },
        |all| Inputs {
            mutants: all.mutants,
            ..Inputs::default()
        },
        |all| Inputs {
            coverage: all.coverage,
            ..Inputs::default()
        },
        |all| Inputs {
            rows: all.rows,
            curves: all.curves,
            ..Inputs::default()
        },
    ];
    for take in take {
        is_well_made(&parsed(&take(everything("word"))));
    }
}

#[test]
fn each_cell_of_the_matrix_leads_to_its_rule_on_its_bench() {
    let page = parsed(&everything("word"));
    let cells = all(&page, ".matrix tbody td");
    assert_eq!(cells.len(), 3 * 3);
    let links = all(&page, ".matrix tbody td a");
    // The bench “new” ran one rule.
    assert_eq!(links.len(), 3 + 3 + 1);
    for link in links {
        let to = link.attr("href").unwrap();
        let target = all(&page, to);
        let under = text(target[0]);
        let (rule, bench) = to.strip_prefix("#rule-").unwrap().split_once('-').unwrap();
        let heading = format!("Rule {rule} on {bench}");
        assert!(under.starts_with(&heading), "{to}: {under}");
        let article = ElementRef::wrap(target[0].parent().unwrap().parent().unwrap()).unwrap();
        let said = text(article);
        assert!(said.contains(&format!("says {rule}")), "{to}: {said}");
        assert!(
            said.contains(&format!("Source: section {rule}")),
            "{to}: {said}"
        );
    }
    for cell in cells {
        let word = text(cell);
        let words = ["passed", "failed", "deviation", "n/a", "not run"];
        assert!(words.iter().any(|known| word.contains(known)), "{word}");
    }
}

#[test]
fn what_failed_comes_first_with_what_the_rule_says_and_what_was_sent_and_seen() {
    let page = parsed(&everything("word"));
    let first = all(&page, "main > section")[0];
    let said = text(first);
    for part in [
        "Failures",
        "Rule 2 on word: title 2",
        "says 2",
        "section 2",
        "“word 2”",
        "expected one of word 2 , found another of word 2",
        "request of word 2",
        "make suite RULE=2 BENCH=word",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(text(all(&page, ".overall")[0]).starts_with("1 rule failed, on word."));
    let good = Inputs {
        suite: Some(Results::new(
            String::new(),
            vec![bench(
                "b",
                vec![rule(1, vec![clause("c", Verdict::Passed)])],
            )],
        )),
        ..Inputs::default()
    };
    let page = parsed(&good);
    assert!(all(&page, "#failures").is_empty());
    assert_eq!(
        text(all(&page, ".overall")[0]),
        "No rule failed: 1 rule on 1 bench."
    );
}

#[test]
fn all_that_a_run_found_is_on_its_page() {
    let rules = crate::rules::all();
    let results = run::rules(&InProcess, &rules, &[]);
    let mutants = run::mutants(&InProcess, &rules[..3], &[]);
    let of = |rules: &[_], mutants: &[_]| {
        let bench = Bench::new(InProcess.name(), InProcess.subject(), rules, mutants);
        Some(Results::new(String::new(), vec![bench]))
    };
    let page = parsed(&Inputs {
        suite: of(&results, &[]),
        mutants: of(&[], &mutants),
        ..Inputs::default()
    });
    is_well_made(&page);
    let said = text(all(&page, "main")[0]);
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for result in &results {
        assert!(said.contains(&flat(crate::rules::says(result.rule.number))));
        for clause in &result.clauses {
            assert!(said.contains(&flat(&clause.text)), "{clause:?}");
            for request in &clause.requests {
                assert!(said.contains(request), "{request}");
            }
        }
    }
    let sent = results.iter().flat_map(|result| &result.clauses);
    assert!(sent.clone().any(|clause| !clause.requests.is_empty()));
    for mutant in &mutants {
        assert!(said.contains(mutant.mutant.doc()), "{mutant:?}");
    }
}

#[test]
fn a_report_of_a_deviation_is_on_the_page() {
    let page = parsed(&everything("word"));
    let report = text(all(&page, "#deviation-08")[0]);
    let body = "make suite BENCH=qtest-intel-iommu RULE=13";
    assert!(report.contains(body), "{report}");
    assert!(!report.contains("SPDX"), "{report}");
}

#[test]
fn a_file_that_is_no_result_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("suite.json"), "{}").unwrap();
    std::fs::write(folder.path().join("curves.json"), "[1]").unwrap();
    let inputs = Inputs::read(folder.path());
    assert!(inputs.suite.is_none() && inputs.curves.is_empty());
    let page = parsed(&inputs);
    let told: Vec<String> = all(&page, "p.warning").into_iter().map(text).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("suite.json has no field `schema`"),
        "{told:?}"
    );
    assert!(
        told[1].contains("curves.json is not as expected"),
        "{told:?}"
    );
}

/// The colours of a part of the style, by their names.
fn colours(style: &str) -> BTreeMap<&str, [f64; 3]> {
    let colour = |declaration: &'_ str| -> Option<(usize, [f64; 3])> {
        let at = declaration.find(": #")?;
        let value = u32::from_str_radix(declaration.get(at + 3..at + 9)?, 16).ok()?;
        let part = |shift: u32| f64::from(value >> shift & 0xff) / 255.0;
        Some((at, [part(16), part(8), part(0)]))
    };
    let declarations = style.split("--").skip(1);
    declarations
        .filter_map(|text| colour(text).map(|(at, value)| (&text[..at], value)))
        .collect()
}

/// Contrast by WCAG 2.2.
fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let linear = |part: f64| match part <= 0.04045 {
        true => part / 12.92,
        false => ((part + 0.055) / 1.055).powf(2.4),
    };
    let luminance =
        |c: [f64; 3]| 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
    let (a, b) = (luminance(one), luminance(other));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn every_text_has_contrast_in_light_in_dark_and_in_print() {
    let (light, rest) = super::STYLE
        .split_once("prefers-color-scheme: dark")
        .unwrap();
    let (dark, print) = rest.split_once("@media print").unwrap();
    for (name, style) in [("light", light), ("dark", dark), ("print", print)] {
        let colours = colours(style);
        let of = |text: &str, on: &str, least: f64| {
            let contrast = contrast(colours[text], colours[on]);
            assert!(contrast >= least, "{name}: {text} on {on} is {contrast:.2}");
        };
        for text in ["ink", "soft", "link"] {
            of(text, "paper", 4.5);
            of(text, "raised", 4.5);
        }
        for verdict in ["failed", "passed", "deviates", "none"] {
            of(verdict, &format!("{verdict}-paper"), 4.5);
        }
        for curve in 0..super::plot::CURVES {
            of(&format!("curve-{curve}"), "paper", 3.0);
        }
    }
}
