//! A measurement as a table for people.

use std::fmt::Write;

use gateway_datapath::measure::{Leg, Link, Measurement, Outcome, PathFigures, Spread};

use super::record::Record;

/// The figures, and what they are about.
pub(crate) fn table(record: &Record) -> String {
    let Measurement {
        link,
        counted,
        seconds,
        channels,
        others,
        legs,
    } = &record.measurement;
    let mut text = String::new();
    // Writing into a string cannot fail.
    let headings = [
        "client leg",
        "path",
        "us/message",
        "middle half",
        "less than relay (spread)",
    ];
    let [leg, path, cost, half, saving] = headings;
    let _ = writeln!(
        text,
        "{leg:<11} {path:<12} {cost:>10}  {half:<15} {saving:<26} result"
    );
    for figures in legs {
        let leg = match figures.leg {
            Leg::Plaintext => "plaintext",
            Leg::Tls => "TLS",
        };
        for path in &figures.paths {
            let line = format!("{leg:<11} {}", row(path));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    let machine = &record.machine;
    let link = match link {
        Link::Ethernet => "Ethernet devices".to_owned(),
        Link::Loopback { reason } => format!("loopback ({reason})"),
    };
    let _ = writeln!(
        text,
        "Measured {} by {} over {link} in {seconds:.1} s, with {channels} channels at a time.\n\
         Processor time: {}. Other programs took {:.0} % of the processors.\n\
         Kernel {}, processor {}, processors {}.",
        record.date(),
        record.gateway,
        counted.text(),
        100.0 * others,
        machine.kernel,
        machine.processor,
        machine.processors,
    );
    text
}

fn row(figures: &PathFigures) -> String {
    let (cost, half) = match figures.microseconds {
        Some(Spread {
            median,
            lower,
            upper,
        }) => (format!("{median:.1}"), format!("{lower:.1} to {upper:.1}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let saving = figures.saving.map_or_else(
        || "-".to_owned(),
        |saving| {
            let percent = |share: f64| format!("{:.0}", 100.0 * share);
            format!(
                "{} % ({} to {})",
                percent(saving.median),
                percent(saving.lower),
                percent(saving.upper)
            )
        },
    );
    let result = match figures.outcome {
        Outcome::Reference => "",
        Outcome::Cheaper => "cheaper",
        Outcome::Dearer => "costs more",
        Outcome::NoDifference => "no difference found",
        Outcome::Failed => figures.reason.as_deref().unwrap_or("failed"),
    };
    let name = figures.path.name();
    format!("{name:<12} {cost:>10}  {half:<15} {saving:<26} {result}")
}

#[cfg(test)]
mod tests {
    use gateway_datapath::measure::{LegFigures, Path};

    use super::*;
    use crate::measured::record::tests::record;

    #[test]
    fn each_path_has_a_line() {
        let mut record = record();
        let spread = |median: f64| Spread {
            median,
            lower: median - 0.02,
            upper: median + 0.02,
        };
        let relay = PathFigures {
            path: Path::Relay,
            outcome: Outcome::Reference,
            reason: None,
            turns: 8,
            messages: 10,
            bytes: 1_000,
            microseconds: Some(spread(60.0)),
            saving: None,
        };
        let sockmap = PathFigures {
            path: Path::Sockmap,
            outcome: Outcome::Dearer,
            microseconds: Some(spread(90.0)),
            saving: Some(spread(-0.5)),
            ..relay.clone()
        };
        record.measurement.legs = vec![LegFigures {
            leg: Leg::Plaintext,
            paths: vec![relay, sockmap],
        }];
        let text = table(&record);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "plaintext   relay              60.0  60.0 to 60.0    -"
        );
        assert_eq!(
            lines[2],
            "plaintext   sockmap            90.0  90.0 to 90.0    -50 % (-52 to -48)         costs more"
        );
        assert!(
            lines[4].ends_with("Other programs took 25 % of the processors."),
            "{text}"
        );
    }
}
