//! What a check has found out.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It could not be looked at, and why not is said.
    Skipped,
    /// As it should be.
    Ok,
    /// It works, but something is odd, or will stop working.
    Warning,
    /// It does not work.
    Error,
}

impl Severity {
    /// As it begins a line.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that a check has found out. Texts are single lines without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(super) result: Severity,
    /// What was found.
    pub(super) found: String,
    /// Why that matters; empty where nothing does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    /// What is to be done about it; empty where nothing is.
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(found: impl AsRef<str>) -> Self {
        Self::new(Severity::Ok, found.as_ref(), "", "")
    }

    /// It could not be looked at.
    pub(super) fn skipped(reason: impl AsRef<str>) -> Self {
        Self::new(Severity::Skipped, reason.as_ref(), "", "")
    }

    /// What was found, why that matters, and what to do.
    pub(super) fn warning(
        found: impl AsRef<str>,
        why: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Self {
        let (found, why, remedy) = (found.as_ref(), why.as_ref(), remedy.as_ref());
        Self::new(Severity::Warning, found, why, remedy)
    }

    /// What was found, why nothing works with it, and what to do.
    pub(super) fn error(
        found: impl AsRef<str>,
        why: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Self {
        let (found, why, remedy) = (found.as_ref(), why.as_ref(), remedy.as_ref());
        Self::new(Severity::Error, found, why, remedy)
    }

    /// All of it, as sentences. A command or a path at the end has no stop behind it.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        for part in [&self.found, &self.why, &self.remedy] {
            if part.is_empty() {
                continue;
            }
            if !told.is_empty() {
                let is_ended = told.ends_with(['.', '?', '!']);
                told.push_str(if is_ended { " " } else { ". " });
            }
            told.push_str(part);
        }
        told
    }

    fn new(result: Severity, found: &str, why: &str, remedy: &str) -> Self {
        Self {
            result,
            found: one_line(found),
            why: one_line(why),
            remedy: one_line(remedy),
        }
    }
}

/// Peers and files may have any text, which must not look like other lines, nor reach a terminal.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c == ' ');
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Those that are worse than `ok`, or one that says that all is well.
pub(super) fn or_ok(troubles: Vec<Finding>, well: impl FnOnce() -> String) -> Vec<Finding> {
    if troubles.is_empty() {
        vec![Finding::ok(well())]
    } else {
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_found_stays_on_one_line() {
        let finding = Finding::warning("a\nerror  b\u{1b}[0m", "", "c\r\n d ");
        assert_eq!(finding.found, "a error b [0m");
        assert_eq!(finding.remedy, "c d");
    }
}
