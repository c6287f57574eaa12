// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the recipes for continuous integration in `docs/ci`: that they are YAML, that they have
//! what the two systems need, and that a run's results are kept where they are written. The page
//! `docs/ci.md` shows the same text.

use anyhow::{Context, Result, bail, ensure};
use yaml_rust2::{Yaml, YamlLoader};

/// Checks the text of a recipe.
pub type Check = fn(&str) -> Result<()>;

/// The recipes, and what checks them.
pub const RECIPES: &[(&str, Check)] = &[
    ("docs/ci/github.yml", github),
    ("docs/ci/gitlab.yml", gitlab),
];

/// The page that shows them.
pub const PAGE: &str = "docs/ci.md";

/// Whether the page shows a recipe as it is, but for the line of its licence.
///
/// # Errors
///
/// It does not.
pub fn shown(page: &str, path: &str, recipe: &str) -> Result<()> {
    let text = recipe.split_once('\n').map_or("", |(_, rest)| rest);
    let block = format!("```yaml\n{text}```\n");
    ensure!(
        page.contains(&block),
        "{PAGE} does not show {path} as it is: copy the file into its block of code, without the \
         first line"
    );
    Ok(())
}

/// A workflow of GitHub Actions.
fn github(text: &str) -> Result<()> {
    let workflow = document(text)?;
    string(&workflow, "name")?;
    let on = value(&workflow, "on")?;
    ensure!(!on.is_badvalue(), "`on` is empty");
    let jobs = hash(&workflow, "jobs")?;
    ensure!(!jobs.is_empty(), "there is no job");
    for (name, job) in jobs {
        let name = name.as_str().context("the name of a job is no text")?;
        github_job(job).with_context(|| format!("in the job {name}"))?;
    }
    Ok(())
}

fn github_job(job: &Yaml) -> Result<()> {
    string(job, "runs-on")?;
    let steps = list(job, "steps")?;
    let (mut keys, mut kept, mut written) = (Vec::new(), String::new(), Vec::new());
    for step in steps {
        match (step["uses"].as_str(), step["run"].as_str()) {
            (Some(action), None) => {
                ensure!(
                    action
                        .rsplit_once('@')
                        .is_some_and(|(_, version)| !version.is_empty()),
                    "{action} is used in no version: write {action}@v4"
                );
                if action.starts_with("actions/cache@") {
                    string(&step["with"], "path")?;
                    keys.push(string(&step["with"], "key")?);
                }
                if action.starts_with("actions/upload-artifact@") {
                    kept += &string(&step["with"], "path")?;
                    ensure!(
                        step["if"].as_str() == Some("always()"),
                        "results are kept only where all passed: the step lacks `if: always()`"
                    );
                }
            }
            (None, Some(line)) => written.extend(junit_files(line)),
            _ => bail!("a step has to have either `uses` or `run`: {step:?}"),
        }
    }
    ensure!(
        keys.iter().any(|key| key.contains("outputs.key")),
        "no cache has the key that svm-vm cache-key prints"
    );
    kept_as_written(&written, |file| kept.lines().any(|line| line == file))
}

/// A part of GitLab's `.gitlab-ci.yml`.
fn gitlab(text: &str) -> Result<()> {
    let document = document(text)?;
    let stages = strings(&document, "stages")?;
    let Yaml::Hash(entries) = &document else {
        bail!("the document is no mapping");
    };
    let mut jobs = 0;
    for (name, job) in entries {
        let name = name.as_str().context("a key is no text")?;
        if name != "stages" {
            gitlab_job(job, &stages).with_context(|| format!("in the job {name}"))?;
            jobs += 1;
        }
    }
    ensure!(jobs > 0, "there is no job");
    Ok(())
}

fn gitlab_job(job: &Yaml, stages: &[String]) -> Result<()> {
    let stage = string(job, "stage")?;
    ensure!(stages.contains(&stage), "{stage} is none of the stages");
    string(job, "image")?;
    let cache = value(job, "cache")?;
    string(cache, "key")?;
    strings(cache, "paths")?;
    let mut lines = strings(job, "script")?;
    lines.extend(strings(job, "before_script")?);
    let written: Vec<_> = lines.iter().flat_map(|line| junit_files(line)).collect();
    let artifacts = value(job, "artifacts")?;
    ensure!(
        string(artifacts, "when")? == "always",
        "results are kept only where all passed: `artifacts` lacks `when: always`"
    );
    let kept = strings(artifacts, "paths")?;
    let report = string(&artifacts["reports"], "junit")?;
    kept_as_written(&written, |file| *file == report && kept.contains(&report))
}

/// The results are written somewhere, and kept from there.
fn kept_as_written(written: &[String], is_kept: impl Fn(&String) -> bool) -> Result<()> {
    ensure!(
        !written.is_empty(),
        "no command writes results: `--junit FILE`"
    );
    for file in written {
        ensure!(is_kept(file), "{file} is written and not kept");
    }
    Ok(())
}

/// The files that commands are given by `--junit`.
fn junit_files(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "--junit");
    pairs.map(|pair| pair[1].to_owned()).collect()
}

fn document(text: &str) -> Result<Yaml> {
    let mut documents = YamlLoader::load_from_str(text).context("it is no YAML")?;
    ensure!(
        documents.len() == 1,
        "{} documents, not one",
        documents.len()
    );
    Ok(documents.remove(0))
}

fn value<'a>(yaml: &'a Yaml, key: &str) -> Result<&'a Yaml> {
    let value = &yaml[key];
    ensure!(!value.is_badvalue(), "`{key}` is missing");
    Ok(value)
}

fn string(yaml: &Yaml, key: &str) -> Result<String> {
    let text = value(yaml, key)?.as_str();
    let text = text.with_context(|| format!("`{key}` is no text"))?;
    ensure!(!text.is_empty(), "`{key}` is empty");
    Ok(text.to_owned())
}

fn list<'a>(yaml: &'a Yaml, key: &str) -> Result<&'a Vec<Yaml>> {
    let list = value(yaml, key)?.as_vec();
    let list = list.with_context(|| format!("`{key}` is no list"))?;
    ensure!(!list.is_empty(), "`{key}` is empty");
    Ok(list)
}

fn strings(yaml: &Yaml, key: &str) -> Result<Vec<String>> {
    let texts = list(yaml, key)?.iter().map(Yaml::as_str);
    let texts: Option<Vec<&str>> = texts.collect();
    let texts = texts.with_context(|| format!("`{key}` has an entry that is no text"))?;
    Ok(texts.into_iter().map(str::to_owned).collect())
}

fn hash<'a>(yaml: &'a Yaml, key: &str) -> Result<&'a yaml_rust2::yaml::Hash> {
    let hash = value(yaml, key)?.as_hash();
    hash.with_context(|| format!("`{key}` is no mapping"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GITHUB: &str = include_str!("../../docs/ci/github.yml");
    const GITLAB: &str = include_str!("../../docs/ci/gitlab.yml");

    /// That each change of a recipe is noticed, by a word of what is said of it.
    fn noticed(check: fn(&str) -> Result<()>, recipe: &str, changes: &[(&str, &str, &str)]) {
        check(recipe).unwrap();
        for (right, wrong, word) in changes {
            assert!(recipe.contains(right), "{right:?} is not there");
            let error = format!(
                "{:#}",
                check(&recipe.replacen(right, wrong, 1)).unwrap_err()
            );
            assert!(error.contains(word), "{right:?} -> {wrong:?}: {error}");
        }
    }

    #[test]
    fn a_wrong_workflow_is_refused() {
        let changes = [
            ("jobs:\n", "jobs: [\n", "no YAML"),
            ("runs-on:", "runs_on:", "`runs-on` is missing"),
            ("actions/cache@v4", "actions/cache", "no version"),
            ("outputs.key", "outputs.kei", "cache-key"),
            (
                "--junit junit.xml",
                "--junit other.xml",
                "other.xml is written",
            ),
            ("--junit junit.xml", "", "no command writes"),
            ("if: always()", "if: success()", "always()"),
            (
                "        run: svm-vm prepare\n",
                "",
                "either `uses` or `run`",
            ),
        ];
        noticed(github, GITHUB, &changes);
    }

    #[test]
    fn a_wrong_part_of_gitlab_is_refused() {
        let changes = [
            ("stage: test", "stage: tests", "none of the stages"),
            ("  script:\n", "  scripts:\n", "`script` is missing"),
            ("    key:", "    kei:", "`key` is missing"),
            ("when: always", "when: on_success", "when: always"),
            (
                "junit: junit.xml",
                "junit: other.xml",
                "written and not kept",
            ),
            ("  image:", "\timage:", "YAML"),
        ];
        noticed(gitlab, GITLAB, &changes);
    }

    #[test]
    fn the_page_shows_what_the_files_are() {
        let page = "# CI\n\n```yaml\na: 1\n```\n";
        shown(page, "a.yml", "# licence\na: 1\n").unwrap();
        assert!(shown(page, "a.yml", "# licence\na: 2\n").is_err());
    }
}
