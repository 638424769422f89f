//! How findings are shown.

use serde::Serialize;
use std::fmt::Write as _;

use super::finding::{Finding, Severity};
use crate::admin::counted;

/// What all checks have found, in their order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Version of the program that looked.
    pub(super) version: &'static str,
    pub(super) errors: usize,
    pub(super) warnings: usize,
    pub(super) checks: Vec<Line>,
}

/// A finding and the check that has made it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(super) check: &'static str,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

impl Report {
    pub(super) fn new(checks: Vec<Line>) -> Self {
        let count = |result| {
            let lines = checks.iter();
            lines.filter(|line| line.finding.result == result).count()
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            checks,
        }
    }

    /// The worst that was found.
    pub(crate) fn worst(&self) -> Severity {
        let results = self.checks.iter().map(|line| line.finding.result);
        results.max().unwrap_or(Severity::Skipped)
    }

    /// For people: a line for each finding, and one that counts them.
    pub(super) fn text(&self) -> String {
        let names = self.checks.iter().map(|line| line.check.len());
        let width = names.max().unwrap_or_default();
        let mut text = String::new();
        for Line { check, finding } in &self.checks {
            let result = finding.result.text();
            let told = finding.told();
            let line = format!("{result:<8} {check:<width$}  {told}");
            text.push_str(&line);
            text.push('\n');
        }
        let errors = counted(self.errors, "error");
        let warnings = counted(self.warnings, "warning");
        let _ = writeln!(text, "\n{errors}, {warnings}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let line = |check, finding| Line { check, finding };
        Report::new(vec![
            line("files", Finding::ok("2 files")),
            line(
                "certificate",
                Finding::error("it has expired", "Why.", "Do"),
            ),
            line("name", Finding::skipped("it is not known")),
        ])
    }

    #[test]
    fn people_read_a_line_for_each_check() {
        let expected = "ok       files        2 files\n\
             error    certificate  it has expired. Why. Do\n\
             skipped  name         it is not known\n\
             \n\
             1 error, 0 warnings\n";
        assert_eq!(report().text(), expected);
        assert_eq!(report().worst(), Severity::Error);
    }

    #[test]
    fn programs_read_the_same() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["errors"], 1);
        assert_eq!(
            json["checks"][1],
            serde_json::json!({
                "check": "certificate",
                "result": "error",
                "found": "it has expired",
                "why": "Why.",
                "do": "Do",
            })
        );
        assert_eq!(json["checks"][0].as_object().unwrap().len(), 3);
    }
}
