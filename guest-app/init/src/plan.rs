// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest does: `svm-vm` writes the plan and `svm-init` reads it.

use serde::{Deserialize, Serialize};

/// What a guest does between its start and its power-off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Kernel modules to load, in this order.
    #[serde(default)]
    pub modules: Vec<Module>,
    /// Size of the compressed swap area in memory, in MiB; if absent, there is none.
    #[serde(default)]
    pub swap_mib: Option<u32>,
    /// Whether an interactive shell runs on the console before the steps.
    #[serde(default)]
    pub shell: bool,
    /// The steps, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What is copied out of the guest after the steps, if anything.
    #[serde(default)]
    pub fetch: Option<Fetch>,
    /// Which events of the kernel are traced, if any. Programs of steps find the trace's marker by
    /// [`crate::marks`].
    #[serde(default)]
    pub trace: Vec<TraceEvent>,
}

/// An event of the kernel that is traced, in time stamps of the processor (`x86-tsc`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceEvent {
    /// `SYSTEM/EVENT`, or `SYSTEM` for all of its events.
    pub name: String,
    /// A condition on its fields, in the kernel's form.
    #[serde(default)]
    pub filter: Option<String>,
    /// It belongs to a module that may not be loaded yet, or to a part that the kernel may lack.
    #[serde(default)]
    pub optional: bool,
}

/// Files and directories that are copied out of the guest at its end, as one tar archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Their absolute paths.
    pub paths: Vec<String>,
    /// How they leave.
    pub by: Exit,
}

/// How fetched files leave the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// The disk whose serial number is [`crate::paths::FETCH_DISK`].
    Disk,
    /// The serial port [`crate::paths::FETCH_PORT`], which every kernel can drive, but which is
    /// slow.
    Port,
}

/// A kernel module and its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Name of its file in [`crate::paths::MODULES`], without `.ko`.
    pub name: String,
    /// Parameters as `insmod` takes them: `name=value`, separated by spaces.
    #[serde(default)]
    pub parameters: String,
}

/// One program to run, and the conditions under which it passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name in reports.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Time limit in seconds: after it, the program is killed and the step fails.
    #[serde(default = "default_timeout")]
    pub timeout_s: u32,
    /// Exit status with which it must end.
    #[serde(default)]
    pub expect_exit: i32,
    /// Text that one of its lines of output must contain.
    #[serde(default)]
    pub expect_output: Option<String>,
    /// Messages about the device and the IOMMU, and warnings, that the kernel may log meanwhile, in
    /// the form of [`kernel`](crate::kernel); the step fails on any other. `None`: the kernel's log
    /// is not checked, or the program checks it itself.
    #[serde(default)]
    pub kernel_says: Option<Vec<String>>,
}

/// Default time limit of a step, in seconds.
const DEFAULT_TIMEOUT_S: u32 = 120;

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_S
}

impl Module {
    /// A module without parameters.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            parameters: String::new(),
        }
    }
}

impl Step {
    /// A step that passes when its program ends with exit status 0.
    pub fn new(name: &str, argv: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            timeout_s: DEFAULT_TIMEOUT_S,
            expect_exit: 0,
            expect_output: None,
            kernel_says: None,
        }
    }

    /// A step that runs a line of shell.
    pub fn shell(name: &str, line: &str) -> Self {
        Self::new(name, &["sh", "-c", line])
    }

    /// Sets the exit status with which it must end.
    #[must_use]
    pub fn expecting_exit(mut self, status: i32) -> Self {
        self.expect_exit = status;
        self
    }

    /// Sets the text that one of its lines of output must contain.
    #[must_use]
    pub fn expecting_output(mut self, text: &str) -> Self {
        self.expect_output = Some(text.to_owned());
        self
    }

    /// Sets the time limit in seconds: after it, the program is killed and the step fails.
    #[must_use]
    pub fn within(mut self, seconds: u32) -> Self {
        self.timeout_s = seconds;
        self
    }

    /// Lets the step fail on unexpected messages of the kernel. Messages that begin with one of
    /// `texts` are expected.
    #[must_use]
    pub fn hearing(mut self, texts: &[&str]) -> Self {
        self.kernel_says = Some(texts.iter().map(|&text| text.to_owned()).collect());
        self
    }

    /// Whether a line of output is the expected one.
    pub fn expects(&self, line: &str) -> bool {
        self.expect_output
            .as_ref()
            .is_some_and(|text| line.contains(text.as_str()))
    }

    /// Judges how the step's program ended. `Err` says what differs from the expected end.
    ///
    /// `exit` is the exit status; `found` tells whether [the expected line](Self::expects) was
    /// printed. The other output is not quoted: only a reader can tell which lines relate to the
    /// failure.
    ///
    /// # Errors
    ///
    /// One sentence: what was expected and what happened.
    pub fn judge(&self, exit: i32, found: bool) -> Result<(), String> {
        if exit != self.expect_exit {
            return Err(format!("exit status {exit}, expected {}", self.expect_exit));
        }
        match &self.expect_output {
            Some(text) if !found => Err(format!("no line of its output contains {text:?}")),
            _ => Ok(()),
        }
    }
}

impl Plan {
    /// Reads a plan from its JSON text.
    ///
    /// # Errors
    ///
    /// The text is not the JSON text of a plan.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_journey() {
        let plan = Plan {
            modules: vec![Module::new("zram")],
            swap_mib: Some(64),
            shell: false,
            steps: vec![
                Step::new("demo", &["svmctl", "demo"])
                    .expecting_exit(1)
                    .hearing(&["svm_demo *: interface "])
                    .within(5),
            ],
            fetch: Some(Fetch {
                paths: vec!["/root/a".into()],
                by: Exit::Disk,
            }),
            trace: vec![TraceEvent {
                name: "intel_iommu/qi_submit".into(),
                filter: Some("qw0 & 8".into()),
                optional: false,
            }],
        };
        assert_eq!(
            Plan::parse(&serde_json::to_string(&plan).unwrap()).unwrap(),
            plan
        );
    }

    #[test]
    fn a_step_needs_only_name_and_program() {
        let plan = Plan::parse(r#"{"steps":[{"name":"a","argv":["true"]}]}"#).unwrap();
        assert_eq!(plan.steps[0].timeout_s, DEFAULT_TIMEOUT_S);
        assert_eq!(plan.steps[0].expect_exit, 0);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = Plan::parse(r#"{"step":[]}"#).unwrap_err().to_string();
        assert!(error.contains("`step`"), "{error}");
    }

    #[test]
    fn a_step_is_judged_by_status_and_output() {
        let step = Step::new("busy", &["rmmod", "x"])
            .expecting_exit(1)
            .expecting_output("in use");
        assert!(step.expects("rmmod: module is in use") && !step.expects("rmmod"));
        assert_eq!(step.judge(1, true), Ok(()));
        assert_eq!(
            step.judge(0, true),
            Err("exit status 0, expected 1".to_owned())
        );
        assert!(step.judge(1, false).unwrap_err().contains("\"in use\""));
    }
}
