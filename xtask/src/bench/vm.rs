//! `cargo xtask bench vm`: what the data paths cost in instructions of the whole machine, with
//! the kernel's part, counted inside a virtual machine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use testkit::vm::{Cost, DIRECT, Leg, Measured};

use super::document;
use crate::steps::Steps;
use crate::vm::{Bench, bench};

const DOCUMENT: &str = "docs/datapaths.md";
const MIB: f64 = 1_048_576.0;

/// What is measured inside the virtual machine.
#[derive(Args)]
pub(crate) struct VmOptions {
    /// Class of kernels, as `cargo xtask vm-test --list` names it.
    #[arg(long, value_name = "CLASS", default_value = "6.12")]
    kernel: String,
    /// A value of the configuration key `DataPath`; may be given several times. Default: all that
    /// the gateway's probe names.
    #[arg(long = "path", value_name = "NAME")]
    paths: Vec<String>,
    /// How often the machine is started; each start measures everything once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    /// How long one start may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1_200)]
    time_limit: u64,
    /// Put the table into docs/datapaths.md, between its markers.
    #[arg(long)]
    write_docs: bool,
}

/// Measures and shows the table.
pub(crate) fn run(steps: &mut Steps, options: &VmOptions) -> Result<()> {
    let (kernel, starts) = bench(
        steps,
        &Bench {
            class: &options.kernel,
            paths: &options.paths,
            starts: usize::from(options.starts),
            limit: Duration::from_secs(options.time_limit),
        },
    )?;
    let rows = rows(&starts)?;
    let text = format!(
        "Measured with `{}` on {kernel}; {} starts of the machine.\n\n{}",
        super::options::command_line(),
        starts.len(),
        table(&rows)
    );
    println!("\n{text}");
    if options.write_docs {
        document::put(DOCUMENT, "vm", text.trim_end())?;
        println!("table: {DOCUMENT}");
    }
    Ok(())
}

/// What one path costs for one load, in instructions for a message.
struct Row {
    load: String,
    leg: Leg,
    path: String,
    /// Mean of the starts.
    machine: f64,
    /// Least and most of the starts.
    range: (f64, f64),
    gateway: f64,
    kernel: f64,
    /// Length of a message in bytes, on average.
    message: f64,
}

/// One row for each path and load, in the order in which they were measured, loads together.
fn rows(starts: &[Vec<Measured>]) -> Result<Vec<Row>> {
    let mut found: BTreeMap<(usize, usize), Vec<&Measured>> = BTreeMap::new();
    let mut loads: Vec<&str> = Vec::new();
    let mut paths: Vec<(&str, Leg)> = Vec::new();
    for measured in starts.iter().flatten() {
        let load = place(&mut loads, measured.load.as_str());
        let path = place(&mut paths, (measured.path.as_str(), measured.leg));
        found.entry((load, path)).or_default().push(measured);
    }
    ensure!(
        found.values().all(|group| group.len() == starts.len()),
        "the starts have measured different things"
    );
    Ok(found.values().map(|group| row(group)).collect())
}

/// The index of an item, which is added if it is new.
fn place<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    if let Some(index) = items.iter().position(|other| *other == item) {
        return index;
    }
    items.push(item);
    items.len() - 1
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn row(group: &[&Measured]) -> Row {
    let first = group[0];
    let (starts, messages) = (group.len() as f64, first.messages as f64);
    let each = |part: fn(&Cost) -> f64| {
        let costs = group.iter().map(move |measured| part(&measured.cost));
        costs.map(move |cost| cost / messages)
    };
    let mean = |part| each(part).sum::<f64>() / starts;
    let machine = |cost: &Cost| cost.machine;
    Row {
        load: first.load.clone(),
        leg: first.leg,
        path: first.path.clone(),
        machine: mean(machine),
        range: (
            each(machine).fold(f64::INFINITY, f64::min),
            each(machine).fold(0.0, f64::max),
        ),
        gateway: mean(|cost| cost.gateway),
        kernel: mean(|cost| cost.kernel),
        message: first.bytes as f64 / messages,
    }
}

/// The rows as Markdown.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| Load | Client leg | Path | machine, k/message | spread | more than direct | \
         gateway's threads | kernel's threads | machine, M/MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let is_direct = |other: &&Row| other.path == DIRECT && other.load == row.load;
        let more = match rows.iter().find(is_direct) {
            Some(direct) if row.path != DIRECT => thousands(row.machine - direct.machine),
            _ => "-".to_owned(),
        };
        let share = |cost: f64| {
            if row.path == DIRECT {
                "-".to_owned()
            } else {
                thousands(cost)
            }
        };
        let (least, most) = row.range;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} % | {more} | {} | {} | {:.2} |",
            row.load,
            row.leg,
            row.path,
            thousands(row.machine),
            (most - least) / row.machine * 100.0,
            share(row.gateway),
            thousands(row.kernel),
            row.machine / row.message * MIB / 1e6,
        );
    }
    text
}

fn thousands(instructions: f64) -> String {
    format!("{:.1}", instructions / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(path: &str, load: &str, machine: f64) -> Measured {
        Measured {
            path: path.to_owned(),
            leg: Leg::Plain,
            load: load.to_owned(),
            messages: 10,
            bytes: 10_240,
            cost: Cost {
                machine,
                gateway: machine / 2.0,
                kernel: 0.0,
            },
        }
    }

    #[test]
    fn starts_become_one_row_for_each_path_and_load() {
        let start = |extra| {
            vec![
                measured(DIRECT, "down", 100_000.0),
                measured(DIRECT, "up", 50_000.0),
                measured("relay", "down", 300_000.0 + extra),
                measured("relay", "up", 90_000.0),
            ]
        };
        let rows = rows(&[start(0.0), start(6_000.0)]).unwrap();
        let text = table(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 4);
        assert_eq!(
            lines[3],
            "| down | plaintext | relay | 30.3 | 2.0 % | 20.3 | 15.2 | 0.0 | 31.03 |"
        );
        assert!(lines[4].starts_with("| up | plaintext | direct | 5.0 | 0.0 % | - | - |"));
    }

    #[test]
    fn starts_that_differ_are_refused() {
        let one = vec![measured("relay", "down", 1.0)];
        assert!(rows(&[one, Vec::new()]).is_err());
    }
}
