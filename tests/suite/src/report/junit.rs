// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results as JUnit XML, for CI: a suite for each bench, a case for each rule.

use crate::run::{Count, RuleResult, Verdict};
use std::fmt::Write;

/// The document.
pub fn document(benches: &[(&str, &[RuleResult])]) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for (name, results) in benches {
        text += &suite(name, results);
    }
    text += "</testsuites>\n";
    text
}

fn suite(name: &str, results: &[RuleResult]) -> String {
    let count = Count::of(results);
    let seconds: f64 = results.iter().map(|r| r.time.as_secs_f64()).sum();
    let mut text = format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\">\n",
        escape(name),
        results.len(),
        count.failed,
        count.not_applicable
    );
    for result in results {
        let _ = write!(
            text,
            "    <testcase classname=\"{}\" name=\"{:02} {}\" time=\"{:.3}\">",
            escape(name),
            result.rule.number,
            escape(result.rule.title),
            result.time.as_secs_f64()
        );
        let said = escape(&said(result));
        let _ = match result.verdict {
            Verdict::Failed => write!(text, "<failure message=\"{said}\"/>"),
            Verdict::NotApplicable => write!(text, "<skipped message=\"{said}\"/>"),
            Verdict::Deviates => {
                write!(text, "<system-out>expected deviation: {said}</system-out>")
            }
            Verdict::Passed => Ok(()),
        };
        text += "</testcase>\n";
    }
    text += "  </testsuite>\n";
    text
}

/// What the clauses that were not kept say.
fn said(result: &RuleResult) -> String {
    let worst = |clause: &&crate::run::ClauseResult| clause.verdict == result.verdict;
    let mut said: Vec<String> = result
        .clauses
        .iter()
        .filter(worst)
        .map(|clause| format!("{}: {}", clause.name, clause.text))
        .collect();
    if !result.text.is_empty() {
        said.push(result.text.clone());
    }
    said.join("; ")
}

/// A text in XML. Characters that XML has none for are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped += "&#10;",
            '\t' => escaped.push('\t'),
            other if other < ' ' => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_attribute() {
        assert_eq!(
            escape("a<b & \"c\"\u{1}\n"),
            "a&lt;b &amp; &quot;c&quot;&#10;"
        );
    }
}
