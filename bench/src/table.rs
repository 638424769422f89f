//! Results as tables, for the terminal and for documents.

use std::fmt::Write;

use super::metric::MetricInfo;
use super::results::{FigureInfo, Results};
use super::statistics::{Summary, count};

/// From this share of the machine on, work of others spoils a measurement.
const DISTURBED: f64 = 0.1;

/// All figures, problems and warnings as plain text.
pub(crate) fn plain(results: &Results) -> String {
    let mut text = String::new();
    for figure in &results.figures {
        let rows = rows(results, figure, "");
        if rows.len() > 1 {
            let _ = write!(
                text,
                "\n{}: {}\n{}",
                figure.id,
                figure.title,
                aligned(&rows)
            );
        }
    }
    for note in notes(results) {
        let _ = write!(text, "\n{note}");
    }
    text.push('\n');
    text
}

/// One figure as a table in Markdown; `None` when nobody was measured.
pub(crate) fn markdown(results: &Results, figure: &FigureInfo) -> Option<String> {
    let rows = rows(results, figure, "\\");
    let (head, body) = rows.split_first().filter(|(_, body)| !body.is_empty())?;
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---".to_owned(); head.len()];
    let body = body.iter().map(|row| line(row));
    Some([line(head), line(&rule)].into_iter().chain(body).collect())
}

/// What a reader must know of the figures: problems, and how much others disturbed.
pub(crate) fn notes(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    for problems in results
        .problems
        .chunk_by(|a, b| a.peer == b.peer && a.reason == b.reason)
    {
        let figures = problems.iter().map(|one| one.figure.as_deref());
        let figures: Vec<_> = figures.map(|id| id.unwrap_or("all figures")).collect();
        let (peer, reason) = (&problems[0].peer, &problems[0].reason);
        notes.push(format!(
            "not measured: {peer}, {}: {reason}",
            figures.join(", ")
        ));
    }
    let all = &results.measurements;
    let disturbed = all.iter().filter(|one| one.elsewhere > DISTURBED);
    let worst = disturbed
        .clone()
        .map(|one| one.elsewhere)
        .fold(0.0, f64::max);
    let number = disturbed.count();
    if number > 0 {
        notes.push(format!(
            "disturbed: in {number} of {} measurements something else kept more than {:.0} % \
             of the machine busy (up to {:.0} %); such peers have a ! behind their name",
            all.len(),
            DISTURBED * 100.0,
            worst * 100.0
        ));
    }
    notes
}

/// The head and a row for each peer that was measured.
fn rows(results: &Results, figure: &FigureInfo, escape: &str) -> Vec<Vec<String>> {
    let measured = results.peers.iter().map(|peer| peer.name.as_str());
    let measured = measured.filter(|peer| results.was_measured(&figure.id, peer));
    let known: Vec<&MetricInfo> = figure
        .metrics
        .iter()
        .filter(|metric| results.has_values(&figure.id, &metric.id))
        .collect();
    let mut head = vec!["peer".to_owned()];
    head.extend(known.iter().map(|metric| metric.label.clone()));
    let mut rows = vec![head];
    for peer in measured {
        let mark = if is_disturbed(results, &figure.id, peer) {
            " !"
        } else {
            ""
        };
        let mut row = vec![format!("{peer}{mark}")];
        let cells = known.iter();
        row.extend(cells.map(|metric| cell(results, figure, peer, metric, escape)));
        rows.push(row);
    }
    rows
}

fn is_disturbed(results: &Results, figure: &str, peer: &str) -> bool {
    let own = results.measurements.iter();
    let own = own.filter(|one| one.figure == figure && one.peer == peer);
    let share = Summary::of(own.map(|one| one.elsewhere));
    share.is_some_and(|share| share.median > DISTURBED)
}

/// Median, range and ratio, as in `1.20 [1.10-1.30] x0.95`.
fn cell(
    results: &Results,
    figure: &FigureInfo,
    peer: &str,
    metric: &MetricInfo,
    escape: &str,
) -> String {
    let Some(summary) = results.summary(&figure.id, peer, &metric.id) else {
        return "-".to_owned();
    };
    let (median, min, max) = (
        number(summary.median),
        number(summary.min),
        number(summary.max),
    );
    let ratio = results
        .ratio(&figure.id, peer, &metric.id)
        .map(|ratio| format!(" \u{d7}{:.2}", ratio.median))
        .unwrap_or_default();
    format!("{median} {escape}[{min}\u{2013}{max}{escape}]{ratio}")
}

/// A number with as many digits as are worth reading.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        let _ = writeln!(text, "  {}", cells.join("   ").trim_end());
    }
    text
}

/// How many minutes and seconds these are.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = count(seconds);
    format!("{} min {} s", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::super::results::Problem;
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn tables_hold_medians_ranges_and_ratios() {
        let results = sample();
        let text = plain(&results);
        assert!(
            text.contains("1.50 [1.00\u{2013}2.00] \u{d7}0.50\n"),
            "{text}"
        );
        assert!(
            text.contains("haproxy   3.00 [2.00\u{2013}4.00]\n"),
            "{text}"
        );
        let table = markdown(&results, &results.figures[0]).unwrap();
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("| gateway | 1.50 \\[1.00"), "{table}");
    }

    #[test]
    fn what_was_not_measured_is_told() {
        let mut results = sample();
        results.problems.push(Problem {
            peer: "nginx".to_owned(),
            figure: None,
            reason: "it does not start".to_owned(),
        });
        results.measurements[0].elsewhere = 0.4;
        let notes = notes(&results);
        assert!(notes[0].contains("nginx, all figures: it does not start"));
        assert!(notes[1].contains("1 of 4") && notes[1].contains("40 %"));
        results.measurements.clear();
        assert_eq!(markdown(&results, &results.figures[0]), None);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.1234, 1.234, 12.34, 1234.5, -2.5].map(number);
        assert_eq!(shown, ["0", "0.123", "1.23", "12.3", "1234", "-2.50"]);
    }
}
