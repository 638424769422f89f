//! Which data paths a kernel has carried, by the gateway's probe and by the tests of streams.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testkit::vm::PREFIX;

/// The program that says which data paths there are, in JSON.
pub(crate) const PROBE: &str = "probe";
/// The program whose tests are run on each data path, in modules that are named after it.
const TESTS: &str = "stream";
/// Such modules, and their data paths.
pub(crate) const MODULES: [(&str, &str); 5] = [
    ("relay_tls", "relay"),
    ("relay_plain", "relay"),
    ("sockmap", "sockmap"),
    ("ktls", "ktls"),
    ("ktls_sockmap", "ktls-sockmap"),
];

/// What a virtual machine has said about its data paths.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// The program that runs.
    program: String,
    /// All that the probe has said.
    probe: String,
    tests: BTreeMap<&'static str, Tests>,
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u32,
    failed: u32,
}

/// What the probe says about a data path, or a part of one.
#[derive(Debug, Deserialize)]
struct Finding {
    #[serde(alias = "name")]
    path: String,
    works: bool,
    reason: Option<String>,
    #[serde(default)]
    parts: Vec<Finding>,
}

impl Paths {
    /// A line of the init or of a program that it runs.
    pub(crate) fn init_said(&mut self, line: &str) {
        if let Some(said) = line.strip_prefix(PREFIX) {
            let begins = said.strip_suffix(" begins");
            begins.unwrap_or_default().clone_into(&mut self.program);
        } else if self.program == PROBE {
            self.probe.push_str(line);
        } else if self.program == TESTS
            && let Some((path, passed)) = ended_test(line)
        {
            let tests = self.tests.entry(path).or_default();
            let count = if passed {
                &mut tests.passed
            } else {
                &mut tests.failed
            };
            *count += 1;
        }
    }

    fn findings(&self) -> Result<Vec<Finding>> {
        serde_json::from_str(&self.probe).context("the probe's findings")
    }

    /// A line for each data path.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |finding: &Finding| {
            let tests = self.tests.get(finding.path.as_str());
            format!("{:<13} {}", finding.path, describe(finding, tests.copied()))
        };
        match self.findings() {
            Ok(findings) => findings.iter().map(line).collect(),
            Err(problem) => vec![format!("unknown: {problem:#}")],
        }
    }

    /// Fails when one of these data paths was refused or, with `tested`, when no test of it was
    /// run.
    pub(crate) fn check(&self, expected: &[&str], tested: bool) -> Result<()> {
        let findings = self.findings()?;
        for path in expected {
            let finding = findings.iter().find(|finding| finding.path == *path);
            let finding = finding.with_context(|| format!("the probe does not know {path}"))?;
            let reason = finding.reason.as_deref().unwrap_or_default();
            ensure!(finding.works, "{path} was refused: {reason}");
            let passed = self.tests.get(path).is_some_and(|tests| tests.passed > 0);
            ensure!(passed || !tested, "no test of {path} has passed");
        }
        Ok(())
    }
}

/// The data path of a test and whether it has passed, of a line as
/// `test endings::ktls::a_host_that_ends ... ok`.
fn ended_test(line: &str) -> Option<(&'static str, bool)> {
    let (name, end) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let passed = match end.split(',').next()? {
        "ok" => true,
        "FAILED" => false,
        _ => return None,
    };
    let is_part = |module: &str| name.split("::").any(|part| part == module);
    let found = MODULES.iter().find(|(module, _)| is_part(module))?;
    Some((found.1, passed))
}

fn describe(finding: &Finding, tests: Option<Tests>) -> String {
    if !finding.works {
        let reason = finding.reason.as_deref().unwrap_or("no reason given");
        return format!("refused: {reason}");
    }
    let mut text = match tests {
        None => "carried; no test was run".to_owned(),
        Some(Tests { passed, failed: 0 }) => format!("carried; {passed} tests passed"),
        Some(Tests { passed, failed }) => {
            format!("carried; {passed} tests passed, {failed} FAILED")
        }
    };
    let without = finding.parts.iter().filter(|part| !part.works);
    text.extend(without.map(|part| {
        let reason = part.reason.as_deref().unwrap_or("no reason given");
        format!("; without {}: {reason}", part.path)
    }));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &str) -> Paths {
        let mut paths = Paths::default();
        lines.lines().for_each(|line| paths.init_said(line));
        paths
    }

    const SAID: &str = r#"init: started
init: probe begins
[
  {"path": "relay", "works": true, "microseconds": 1},
  {"path": "ktls", "works": true, "microseconds": 2, "parts": [
    {"name": "splice", "works": true},
    {"name": "new keys", "works": false, "reason": "one key only"}
  ]},
  {"path": "ktls-sockmap", "works": false, "reason": "EINVAL", "microseconds": 3}
]
init: probe: exit status: 0, 0.5 s
test conformance::ktls::before ... ok
init: stream begins
running 6 tests
test conformance::ktls::one ... ok
test conformance::relay_tls::one ... ok
test conformance::relay_plain::one ... ok
test endings::relay_plain::two ... FAILED
test endings::ktls_sockmap::two ... ignored, needs a kernel
init: stream: exit status: 101, 3.0 s
"#;

    #[test]
    fn each_data_path_has_a_line() {
        let expected = [
            "relay         carried; 2 tests passed, 1 FAILED",
            "ktls          carried; 1 tests passed; without new keys: one key only",
            "ktls-sockmap  refused: EINVAL",
        ];
        assert_eq!(heard(SAID).lines(), expected);
    }

    #[test]
    fn what_is_expected_must_be_carried_and_tested() {
        let paths = heard(SAID);
        paths.check(&["relay", "ktls"], true).unwrap();
        let refused = paths.check(&["ktls-sockmap"], false).unwrap_err();
        assert!(refused.to_string().contains("EINVAL"), "{refused}");
        assert!(paths.check(&["sockmap"], false).is_err());
        let untested = heard(&SAID.replace("test conformance::ktls::one", "test other"));
        untested.check(&["ktls"], false).unwrap();
        assert!(untested.check(&["ktls"], true).is_err());
    }

    #[test]
    fn without_findings_nothing_is_carried() {
        let paths = heard("init: probe begins\nkilled\n");
        assert!(paths.lines()[0].starts_with("unknown"));
        assert!(paths.check(&[], false).is_err());
    }
}
