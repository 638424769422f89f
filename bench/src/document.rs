//! The measured part of the benchmarks' document.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::results::Results;
use super::table;
use xtask::cargo;

/// The document, from the workspace's folder on.
const DOCUMENT: &str = "docs/benchmarks.md";
const DAY: u64 = 86_400;

/// Writes the tables between the document's markers, and links charts that lie beside it; what
/// people wrote around the markers stays.
pub(crate) fn update(results: &Results, charts: &[(String, PathBuf)]) -> Result<PathBuf> {
    let path = cargo::workspace().join(DOCUMENT);
    let measured = measured(results, charts, path.parent().unwrap_or(Path::new("")));
    put(DOCUMENT, &results.comparison, &measured)?;
    Ok(PathBuf::from(DOCUMENT))
}

/// Writes `text` between the markers of a comparison in this document.
pub(crate) fn put(document: &str, comparison: &str, text: &str) -> Result<()> {
    let path = cargo::workspace().join(document);
    let old = fs::read_to_string(&path).with_context(|| format!("reading {document}"))?;
    let new = replace(&old, comparison, text).with_context(|| document.to_owned())?;
    fs::write(&path, new).with_context(|| format!("writing {document}"))
}

/// Replaces what stands between the markers of a comparison.
fn replace(document: &str, comparison: &str, measured: &str) -> Result<String> {
    let (begin, end) = (
        format!("<!-- bench {comparison}: begin -->"),
        format!("<!-- bench {comparison}: end -->"),
    );
    let parts = document.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = parts.with_context(|| format!("there are no lines {begin} and {end}"))?;
    ensure!(!after.contains(&begin), "{begin} stands there twice");
    Ok(format!("{before}{begin}\n{measured}\n{end}{after}"))
}

fn measured(results: &Results, charts: &[(String, PathBuf)], beside: &Path) -> String {
    let mut text = circumstances(results);
    for figure in &results.figures {
        let Some(table) = table::markdown(results, figure) else {
            continue;
        };
        let _ = write!(text, "\n### {} (`{}`)\n\n{table}", figure.title, figure.id);
        let chart = charts.iter().find(|(id, _)| *id == figure.id);
        let link = chart.and_then(|(_, path)| relative(path, beside));
        if let Some(link) = link {
            let _ = write!(text, "\n![{}]({link})\n", figure.title);
        }
    }
    let notes = table::notes(results);
    if !notes.is_empty() {
        text.push_str("\n### Notes\n\n");
        for note in notes {
            let _ = writeln!(text, "- {}", note.replace('\n', " "));
        }
    }
    text
}

fn circumstances(results: &Results) -> String {
    let machine = &results.machine;
    let kind = if machine.is_virtual {
        "virtual machine"
    } else {
        "machine"
    };
    let mut text = format!(
        "\nMeasured on {} with `{}` ({} rounds, {}) on a {kind} with {} cores ({}), {} MiB of \
         memory, {}, Linux {}; {}. Ratios (\u{d7}) refer to `{}`.\n\n\
         | peer | version | what it does |\n| --- | --- | --- |\n",
        date(results.began),
        results.command,
        results.rounds(),
        table::duration(results.seconds),
        machine.cores,
        machine.cpu,
        machine.memory_mib,
        machine.system,
        machine.kernel,
        results.tls,
        results.reference,
    );
    for peer in &results.peers {
        let version = if peer.version.is_empty() {
            "-"
        } else {
            &peer.version
        };
        let _ = writeln!(text, "| {} | {version} | {} |", peer.name, peer.role);
    }
    text
}

/// The way to a file from a folder that it lies below.
fn relative(path: &Path, folder: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let folder = fs::canonicalize(folder).ok()?;
    Some(path.strip_prefix(folder).ok()?.display().to_string())
}

/// The day (UTC) of a time in seconds since 1970, as in 2026-01-31.
fn date(seconds: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut day = seconds / DAY;
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let old = "# Title\n<!-- bench peers: begin -->\nold\n<!-- bench peers: end -->\nend\n";
        let new = replace(old, "peers", "new").unwrap();
        assert_eq!(
            new,
            "# Title\n<!-- bench peers: begin -->\nnew\n<!-- bench peers: end -->\nend\n"
        );
        assert_eq!(replace(&new, "peers", "new").unwrap(), new);
        assert!(replace(old, "paths", "new").is_err());
    }

    #[test]
    fn the_measured_part_names_the_circumstances() {
        let text = measured(&sample(), &[], Path::new("."));
        assert!(text.contains("cargo xtask bench peers") && text.contains("2 rounds"));
        assert!(text.contains("### Downlink (`down-1k`)"), "{text}");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [0, 951_782_400, 951_868_800, 1_767_225_599, 1_767_225_600].map(date);
        assert_eq!(
            days,
            [
                "1970-01-01",
                "2000-02-29",
                "2000-03-01",
                "2025-12-31",
                "2026-01-01"
            ]
        );
    }
}
