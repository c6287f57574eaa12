// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results of a run as a document: what `suite.json` and `mutants.json` have, what the page is
//! made of, and what a later run is compared with. `docs/suite.schema.json` describes it.

use super::change::Comparison;
use super::origin::{self, Commit};
use crate::deviations::Deviation;
use crate::rules;
use crate::run::{ClauseResult, MutantResult, RuleResult, Verdict};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The version of the document. A field that is added does not change it.
pub const SCHEMA: u64 = 1;

/// What a run found.
///
/// Fields with a default are not in the documents of older versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Version of the document: [`SCHEMA`].
    pub schema: u64,
    /// Version of the suite.
    #[serde(default)]
    pub version: String,
    /// When the run ended: RFC 3339, in UTC.
    #[serde(default)]
    pub date: String,
    /// The commit of the suite, if it ran in its checkout.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// How to run the same again.
    #[serde(default)]
    pub command: String,
    /// How many rules the suite has, whether they were run or not.
    #[serde(default)]
    pub rules: usize,
    /// What came of each bench.
    pub benches: Vec<Bench>,
    /// What has changed since an earlier run, if one was named.
    #[serde(default)]
    pub comparison: Option<Comparison>,
}

/// What came of a bench.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Bench {
    /// Its name.
    pub bench: String,
    /// What was tested, with its version.
    pub subject: String,
    /// Rules that were run.
    pub rules: Vec<Rule>,
    /// Mutants that were run.
    pub mutants: Vec<Mutant>,
}

/// What came of a rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its number.
    pub number: u8,
    /// What it demands, in a line.
    pub title: String,
    /// The same with what follows from it, in some sentences.
    #[serde(default)]
    pub says: String,
    /// Where the demand comes from.
    pub section: String,
    /// The worst verdict of its clauses.
    pub verdict: Verdict,
    /// What there is to say of it as a whole.
    pub text: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Its clauses; none if no bench can judge it.
    pub clauses: Vec<Clause>,
}

/// What came of a clause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clause {
    /// Its name, unique within the rule.
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen, or why not.
    pub text: String,
    /// The last requests of the device, oldest first.
    pub requests: Vec<String>,
    /// The deviation that is known of it.
    pub deviation: Option<Known>,
}

/// A known deviation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Number of its report in docs/deviations; none if it is on a list of its user's.
    pub report: Option<u8>,
    /// Title of the report, or what the list says.
    #[serde(default)]
    pub title: String,
    /// Where the reason is in the source of the unit.
    pub place: String,
}

/// What came of a mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutant {
    /// Number of the rule.
    pub rule: u8,
    /// Name of the clause.
    pub clause: String,
    /// Its name.
    pub mutant: String,
    /// What it does wrong.
    pub violation: String,
    /// Whether the clause noticed.
    pub caught: bool,
    /// What the clause said.
    pub text: String,
}

impl Results {
    /// The results of a run that ends now. `command` runs the same again.
    pub fn new(command: String, benches: Vec<Bench>) -> Self {
        Results {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: origin::now(),
            commit: origin::commit(),
            command,
            rules: rules::all().len(),
            benches,
            comparison: None,
        }
    }

    /// Reads what an earlier run wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no such document, or is of another version: a sentence that says
    /// so.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Self::parse(&text).map_err(|sentence| format!("{} {sentence}", path.display()))
    }

    /// The same from its text. An error lacks the name of the file.
    fn parse(text: &str) -> Result<Self, String> {
        let advice = "name a suite.json that make suite wrote";
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| format!("is not JSON ({error}): {advice}"))?;
        match value.get("schema").map(serde_json::Value::as_u64) {
            None => return Err(format!("has no field `schema`: {advice}")),
            Some(Some(SCHEMA)) => {}
            Some(_) => {
                return Err(format!(
                    "has schema {}, and this program reads schema {SCHEMA}: make it anew with this \
                     version of the suite",
                    value["schema"]
                ));
            }
        }
        serde_json::from_value(value)
            .map_err(|error| format!("is no result of the suite ({error}): {advice}"))
    }
}

impl Bench {
    /// The results of a bench.
    pub fn new(
        name: &str,
        subject: String,
        rules: &[RuleResult],
        mutants: &[MutantResult],
    ) -> Self {
        Bench {
            bench: name.to_owned(),
            subject,
            rules: rules.iter().map(Rule::from).collect(),
            mutants: mutants.iter().map(Mutant::from).collect(),
        }
    }
}

impl From<&RuleResult> for Rule {
    fn from(result: &RuleResult) -> Self {
        Rule {
            number: result.rule.number,
            title: result.rule.title.to_owned(),
            says: rules::says(result.rule.number).to_owned(),
            section: result.rule.section.to_owned(),
            verdict: result.verdict,
            text: result.text.clone(),
            seconds: result.time.as_secs_f64(),
            clauses: result.clauses.iter().map(Clause::from).collect(),
        }
    }
}

impl From<&ClauseResult> for Clause {
    fn from(result: &ClauseResult) -> Self {
        Clause {
            name: result.name.to_owned(),
            verdict: result.verdict,
            text: result.text.clone(),
            requests: result.requests.clone(),
            deviation: result.deviation.map(Known::from),
        }
    }
}

impl From<&Deviation> for Known {
    fn from(known: &Deviation) -> Self {
        Known {
            report: known.report.number(),
            title: known.report.title().to_owned(),
            place: known.place.to_owned(),
        }
    }
}

impl From<&MutantResult> for Mutant {
    fn from(result: &MutantResult) -> Self {
        Mutant {
            rule: result.rule,
            clause: result.clause.to_owned(),
            mutant: result.mutant.to_string(),
            violation: result.mutant.doc().to_owned(),
            caught: result.caught,
            text: result.text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::*;
    use crate::bench::{Bench as _, InProcess};
    use crate::run;
    use serde_json::{Value, json};

    fn of_the_bench() -> Value {
        let some: Vec<_> = rules::all()
            .into_iter()
            .filter(|rule| matches!(rule.number, 1 | 2 | 8 | 37))
            .collect();
        let mut benches = vec![Bench::new(
            InProcess.name(),
            InProcess.subject(),
            &run::rules(&InProcess, &some, &[]),
            &run::mutants(&InProcess, &some, &[]),
        )];
        // What only QEMU's unit has, as text.
        benches[0].rules[0].clauses[0].deviation =
            Some(Known::from(&crate::deviations::INTEL_IOMMU[0]));
        let before = Results::new("run-suite".to_owned(), benches);
        let mut now = before.clone();
        now.benches[0].rules[0].verdict = Verdict::Failed;
        now.benches[0].rules[0].clauses[0].verdict = Verdict::Failed;
        now.benches[0].rules.remove(1);
        now.commit = Some(Commit {
            id: "0".repeat(40),
            changed: true,
        });
        now.comparison = Some(compare("old.json", &before, &now));
        serde_json::to_value(now).unwrap()
    }

    /// The published schema, as strict as a test wants it: a field that it does not name is an
    /// error.
    fn strict_schema() -> Value {
        fn close(value: &mut Value) {
            if let Value::Object(object) = value {
                if object.contains_key("properties") {
                    object.insert("additionalProperties".to_owned(), false.into());
                }
                object.values_mut().for_each(close);
            } else if let Value::Array(array) = value {
                array.iter_mut().for_each(close);
            }
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/suite.schema.json");
        let text = std::fs::read_to_string(path).unwrap();
        let mut schema = serde_json::from_str(&text).unwrap();
        assert!(jsonschema::draft202012::meta::is_valid(&schema));
        close(&mut schema);
        schema
    }

    fn errors(document: &Value) -> Vec<String> {
        let schema = jsonschema::draft202012::new(&strict_schema()).unwrap();
        let tell = |error: jsonschema::ValidationError<'_>| {
            format!("{} at {}", error, error.instance_path())
        };
        schema.iter_errors(document).map(tell).collect()
    }

    /// Every object within a document, as a pointer to it.
    fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.push(at.to_owned());
                for (name, value) in object {
                    objects(value, &format!("{at}/{name}"), found);
                }
            }
            Value::Array(array) => {
                for (n, value) in array.iter().enumerate() {
                    objects(value, &format!("{at}/{n}"), found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn a_real_result_is_as_the_schema_says_and_no_field_may_be_missing_or_unknown() {
        let document = of_the_bench();
        assert_eq!(errors(&document), Vec::<String>::new());
        let mut pointers = Vec::new();
        objects(&document, "", &mut pointers);
        for pointer in pointers {
            let object = document.pointer(&pointer).unwrap().as_object().unwrap();
            for name in object.keys() {
                let mut without = document.clone();
                let place = without.pointer_mut(&pointer).unwrap();
                place.as_object_mut().unwrap().remove(name);
                assert_ne!(errors(&without), Vec::<String>::new(), "{pointer}/{name}");
            }
            let mut with = document.clone();
            let place = with.pointer_mut(&pointer).unwrap();
            place["unknown"] = json!(1);
            assert_ne!(errors(&with), Vec::<String>::new(), "{pointer}/unknown");
        }
    }

    #[test]
    fn a_result_is_read_again_and_so_is_one_of_the_first_version() {
        let document = of_the_bench();
        let again = Results::parse(&document.to_string()).unwrap();
        assert_eq!(serde_json::to_value(again).unwrap(), document);
        let first = json!({"schema": 1, "benches": [{
            "bench": "in-process", "subject": "s", "mutants": [],
            "rules": [{
                "number": 1, "title": "t", "section": "s", "verdict": "expected deviation",
                "text": "", "seconds": 0.5, "clauses": [{
                    "name": "n", "verdict": "expected deviation", "text": "", "requests": [],
                    "deviation": {"report": 1, "place": "p"},
                }],
            }],
        }]});
        let read = Results::parse(&first.to_string()).unwrap();
        assert_eq!(read.benches[0].rules[0].verdict, Verdict::Deviates);
    }

    #[test]
    fn what_is_no_result_is_refused_in_a_sentence() {
        for (text, sentence) in [
            ("{", "is not JSON"),
            ("[]", "has no field `schema`"),
            (
                r#"{"schema": 2}"#,
                "has schema 2, and this program reads schema 1",
            ),
            (r#"{"schema": "1"}"#, r#"has schema "1", and this"#),
            (r#"{"schema": 1}"#, "missing field `benches`"),
        ] {
            let error = Results::parse(text).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
        let error = Results::read(Path::new("/nowhere/old.json")).unwrap_err();
        assert!(
            error.starts_with("/nowhere/old.json cannot be read"),
            "{error}"
        );
    }
}
