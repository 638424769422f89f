//! `cargo xtask bench vm`: what the data paths cost in instructions of the whole machine, with
//! the kernel's part, counted inside a virtual machine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use testkit::vm::{Cost, DIRECT, Finding, IdleChannels, Leg, Measured};

use super::document;
use xtask::steps::Steps;
use xtask::vm::{Bench, bench};

const DOCUMENT: &str = "docs/data-paths.md";
const MIB: f64 = 1_048_576.0;

/// What is measured inside the virtual machine.
#[derive(Args)]
pub(crate) struct VmOptions {
    /// Class of kernels, as `cargo xtask vm-test --list` names it.
    #[arg(long, value_name = "CLASS", default_value = "6.12")]
    kernel: String,
    /// A value of the configuration key `DataPath`, perhaps with a number for another key, as in
    /// `ktls:SpliceFrom=4096`; may be given several times. Default: all that the gateway's probe
    /// names.
    #[arg(long = "path", value_name = "NAME")]
    paths: Vec<String>,
    /// Cipher suite of the TLS legs. With another one than the usual, the table of the documents
    /// that has its name is meant.
    #[arg(long, value_name = "NAME", value_parser = ["TLS13_AES_256_GCM_SHA384", "TLS13_CHACHA20_POLY1305_SHA256"])]
    suite: Option<String>,
    /// Measure tunnels instead of WebSockets; the documents have a table of their own for them.
    #[arg(long)]
    tunnels: bool,
    /// How often the machine is started; each start measures everything once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    /// How long one start may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_000)]
    time_limit: u64,
    /// Put the table into docs/data-paths.md, between its markers.
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
            suite: options.suite.as_deref(),
            tunnels: options.tunnels,
            starts: usize::from(options.starts),
            limit: Duration::from_secs(options.time_limit),
        },
    )?;
    let mut text = format!(
        "Measured with `{}` on {kernel}; starts of the machine: {}",
        super::command_line::command_line(),
        starts.len(),
    );
    if let Some(ciphers) = ciphers(&starts) {
        let _ = write!(text, "; {ciphers}");
    }
    let _ = write!(text, ".\n\n{}", table(&rows(&loads(&starts))?));
    let idle = idle(&starts);
    if !idle.is_empty() {
        let _ = write!(text, "\n{}", idle_table(&idle));
    }
    println!("\n{text}");
    if options.write_docs {
        let tunnels = options.tunnels.then_some("tunnels");
        let parts = ["vm"]
            .into_iter()
            .chain(tunnels)
            .chain(options.suite.as_deref());
        let name = parts.collect::<Vec<_>>().join(" ");
        document::put(DOCUMENT, &name, text.trim_end())?;
        println!("table: {DOCUMENT}");
    }
    Ok(())
}

/// What carried out the ciphers; the same in all starts.
fn ciphers(starts: &[Vec<Finding>]) -> Option<&str> {
    starts.iter().flatten().find_map(|finding| match finding {
        Finding::Ciphers(text) => Some(text.as_str()),
        Finding::Load(_) | Finding::Idle(_) => None,
    })
}

fn loads(starts: &[Vec<Finding>]) -> Vec<Vec<&Measured>> {
    starts
        .iter()
        .map(|findings| findings.iter().filter_map(load).collect())
        .collect()
}

fn load(finding: &Finding) -> Option<&Measured> {
    match finding {
        Finding::Load(measured) => Some(measured),
        Finding::Idle(_) | Finding::Ciphers(_) => None,
    }
}

/// Idle channels of one path, with the same of other starts.
fn idle(starts: &[Vec<Finding>]) -> Vec<Vec<&IdleChannels>> {
    let mut paths = Vec::new();
    let mut found: Vec<Vec<&IdleChannels>> = Vec::new();
    for finding in starts.iter().flatten() {
        if let Finding::Idle(idle) = finding {
            let index = place(&mut paths, (idle.path.as_str(), idle.leg));
            if index == found.len() {
                found.push(Vec::new());
            }
            found[index].push(idle);
        }
    }
    found
}

/// Memory of idle channels as Markdown, in bytes for each.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn idle_table(groups: &[Vec<&IdleChannels>]) -> String {
    let mut text = String::from(
        "| Client leg | Path | process, B/idle channel | kernel's slabs, B/idle channel |\n\
         | --- | --- | --- | --- |\n",
    );
    for group in groups {
        let each = |part: fn(&IdleChannels) -> i64| {
            let values = group
                .iter()
                .map(|idle| part(idle) as f64 / idle.channels as f64);
            values.sum::<f64>() / group.len() as f64
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} |",
            group[0].leg,
            group[0].path,
            each(|idle| idle.process),
            each(|idle| idle.slabs),
        );
    }
    text
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
    wakeups: f64,
    /// Length of a message in bytes, on average.
    message: f64,
}

/// One row for each path and load, in the order in which they were measured, loads together.
fn rows(starts: &[Vec<&Measured>]) -> Result<Vec<Row>> {
    let mut found: BTreeMap<(usize, usize), Vec<&Measured>> = BTreeMap::new();
    let mut loads: Vec<&str> = Vec::new();
    let mut paths: Vec<(&str, Leg)> = Vec::new();
    for measured in starts.iter().flatten().copied() {
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
        wakeups: mean(|cost| cost.wakeups),
        message: first.bytes as f64 / messages,
    }
}

/// The rows as Markdown.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| Load | Client leg | Path | machine, k/message | spread | more than direct | \
         gateway's threads | kernel's threads | wakeups | machine, M/MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
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
        let wakeups = if row.path == DIRECT {
            "-".to_owned()
        } else {
            format!("{:.2}", row.wakeups)
        };
        let (least, most) = row.range;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} % | {more} | {} | {} | {wakeups} | {:.2} |",
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
                wakeups: 5.0,
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
        let starts = [start(0.0), start(6_000.0)];
        let starts: Vec<Vec<&Measured>> = starts.iter().map(|one| one.iter().collect()).collect();
        let rows = rows(&starts).unwrap();
        let text = table(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 4);
        assert_eq!(
            lines[3],
            "| down | plaintext | relay | 30.3 | 2.0 % | 20.3 | 15.2 | 0.0 | 0.50 | 31.03 |"
        );
        assert!(lines[4].starts_with("| up | plaintext | direct | 5.0 | 0.0 % | - | - |"));
    }

    #[test]
    fn starts_that_differ_are_refused() {
        let one = measured("relay", "down", 1.0);
        assert!(rows(&[vec![&one], Vec::new()]).is_err());
    }

    #[test]
    fn memory_of_idle_channels_is_the_mean_of_the_starts() {
        let start = |process| {
            vec![
                Finding::Ciphers("by hand".to_owned()),
                Finding::Idle(IdleChannels {
                    path: "ktls".to_owned(),
                    leg: Leg::Tls,
                    channels: 10,
                    process,
                    slabs: -100,
                }),
            ]
        };
        let starts = [start(1_000), start(3_000)];
        assert_eq!(ciphers(&starts), Some("by hand"));
        assert!(loads(&starts).iter().all(Vec::is_empty));
        let text = idle_table(&idle(&starts));
        assert!(text.ends_with("| TLS | ktls | 200 | -10 |\n"), "{text}");
    }
}
