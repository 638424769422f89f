//! What can be asked of `cargo xtask bench`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use testkit::command::target_dir;
use testkit::network::CONGESTION_CONTROL;

use super::command_line::command_line;
use super::desktop::DesktopPlan;
use super::figures::{FIGURES, Figure};
use super::peers::Kind;
use super::runner::{Link, Plan};
use super::vm::VmOptions;
use super::wan::WanPlan;

/// Rounds of a run, and of a quick one.
const ROUNDS: (usize, usize) = (5, 3);
/// Seconds of a measurement, and of a quick one.
const SECONDS: (f64, f64) = (0.5, 0.3);

/// Measure the gateway beside similar programs, or its data paths.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure the gateway side by side with others that do a like job.
    Peers {
        /// Only these: gateway, haproxy, nginx, websockify, websocat, direct.
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
        /// What connects client, peer and host.
        #[arg(long, value_enum, default_value_t = Link::Loopback)]
        link: Link,
        #[command(flatten)]
        run: RunOptions,
    },
    /// Measure the gateway's data paths side by side.
    Paths {
        /// Only these: gateway, gateway-plain, gateway-plain-unix, gateway-sockmap,
        /// gateway-sockmap-unix.
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
        /// What connects client, gateway and host, unless that is on a Unix socket.
        #[arg(long, value_enum, default_value_t = Link::Loopback)]
        link: Link,
        #[command(flatten)]
        run: RunOptions,
    },
    /// Measure tunnels of native clients side by side with others that pass bytes on.
    Tunnels(RunOptions),
    /// Measure new channels with and without a certificate that is exchanged all the time.
    Reload(RunOptions),
    /// Measure how much a desktop lags over lines with delay and losses; needs root.
    Wan(WanOptions),
    /// Measure from key to pixel with Xorg's Spice driver over lines with delay; needs root.
    Desktop(DesktopOptions),
    /// Count the instructions that codec and relay take for a message; the same on any machine,
    /// however busy.
    Instructions {
        /// Keep the counts as those that later ones are compared with.
        #[arg(long)]
        write_baseline: bool,
    },
    /// Count the instructions that the data paths take, kernel included, inside a virtual machine.
    Vm(VmOptions),
    /// Show again what was measured.
    Report {
        /// Where all values are.
        #[arg(long, default_value_os_t = default_file("peers.json"))]
        json: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

/// What `bench wan` can be asked.
#[derive(Args)]
struct WanOptions {
    /// Fewer lines, shorter, once, and only what shows lag.
    #[arg(long)]
    quick: bool,
    /// How often everything is measured.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only these lines, as in 80ms-10m.
    #[arg(long, value_delimiter = ',')]
    lines: Vec<String>,
    /// Only these: direct, haproxy, nginx, gateway, gateway-plain, gateway-sockmap, gateway-ktls.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// What TCP does about congestion on client, gateway and host, as in bbr.
    #[arg(long, default_value = CONGESTION_CONTROL)]
    congestion_control: String,
    /// A key of the gateway's configuration and its value in JSON, as in KeepAlive=30; may be
    /// given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key)]
    set: Vec<(String, Value)>,
    /// The gateway's program, instead of a release build; nothing is built then.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Where to put all values.
    #[arg(long, default_value_os_t = default_file("wan.json"))]
    json: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What `bench desktop` can be asked.
#[derive(Args)]
struct DesktopOptions {
    /// Fewer scenes, shorter, once.
    #[arg(long)]
    quick: bool,
    /// How often everything is measured.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only these scenes, as in 80ms-10m-320x240.
    #[arg(long, value_delimiter = ',')]
    scenes: Vec<String>,
    /// Only these: direct, haproxy, gateway, gateway-plain, gateway-sockmap, gateway-ktls.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// A key of the gateway's configuration and its value in JSON, as in KeepAlive=30; may be
    /// given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key)]
    set: Vec<(String, Value)>,
    /// The gateway's program, instead of a release build; nothing is built then.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Where to put all values.
    #[arg(long, default_value_os_t = default_file("desktop.json"))]
    json: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What to make of what was measured, besides tables in the terminal.
#[derive(Args)]
pub(crate) struct Output {
    /// Folder for the charts; those below docs are shown in docs/benchmarks.md.
    #[arg(long, default_value_os_t = default_file(""))]
    pub(crate) charts: PathBuf,
    /// Put the tables into docs/benchmarks.md, between its markers.
    #[arg(long)]
    pub(crate) write_docs: bool,
}

/// What is to be done.
pub(crate) enum Task<'a> {
    /// Measure, keep the values in this file and show them.
    Measure(Box<Plan>, PathBuf, &'a Output),
    /// Measure lag on lines, keep the values in this file and show them.
    Wan(Box<WanPlan>, &'a Path, &'a Output),
    /// Measure from key to pixel, keep the values in this file and show them.
    Desktop(Box<DesktopPlan>, &'a Path, &'a Output),
    /// Count instructions.
    Instructions {
        /// And keep them as the baseline.
        write_baseline: bool,
    },
    /// Count instructions inside a virtual machine.
    Vm(&'a VmOptions),
    /// Show the values of this file.
    Report(&'a Path, &'a Output),
}

#[derive(Args)]
struct RunOptions {
    /// Fewer figures, smaller totals, three rounds.
    #[arg(long)]
    quick: bool,
    /// How often everything is measured.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only these figures; `down` means all whose names begin so.
    #[arg(long, value_delimiter = ',')]
    figures: Vec<String>,
    /// The gateway's program, instead of a release build; it is not built then.
    #[arg(long, value_name = "PROGRAM")]
    gateway: Option<PathBuf>,
    /// Where to put all values [default: target/bench/peers.json, named after what is compared].
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Options {
    /// What they ask for.
    pub(crate) fn task(&self) -> Result<Task<'_>> {
        match &self.what {
            What::Peers { peers, link, run } => {
                let kinds = chosen_kinds(&Kind::PEERS, peers)?;
                let reference = if kinds.contains(&Kind::Haproxy) {
                    Kind::Haproxy
                } else {
                    kinds[0]
                };
                let comparison = match link {
                    Link::Loopback => "peers",
                    Link::Veth => "peers-veth",
                };
                run.task(comparison, *link, kinds, reference)
            }
            What::Paths { peers, link, run } => {
                let kinds = chosen_kinds(&Kind::PATHS, peers)?;
                let reference = kinds[0];
                let comparison = match link {
                    Link::Loopback => "paths",
                    Link::Veth => "paths-veth",
                };
                run.task(comparison, *link, kinds, reference)
            }
            What::Tunnels(run) => {
                let kinds = Kind::TUNNELS.to_vec();
                run.task("tunnels", Link::Loopback, kinds, Kind::TUNNELS[0])
            }
            What::Reload(run) => {
                let kinds = Kind::RELOAD.to_vec();
                run.task("reload", Link::Loopback, kinds, Kind::RELOAD[0])
            }
            What::Wan(options) => options.task(),
            What::Desktop(options) => options.task(),
            What::Instructions { write_baseline } => Ok(Task::Instructions {
                write_baseline: *write_baseline,
            }),
            What::Vm(options) => Ok(Task::Vm(options)),
            What::Report { json, output } => Ok(Task::Report(json, output)),
        }
    }
}

impl WanOptions {
    fn task(&self) -> Result<Task<'_>> {
        const ROUNDS: u16 = 3;
        let rounds = if self.quick { 1 } else { ROUNDS };
        let mut plan = WanPlan::new(&self.lines, self.quick)?;
        plan.command = command_line();
        plan.kinds = chosen_kinds(&Kind::WAN, &self.peers)?;
        plan.rounds = self.rounds.unwrap_or(rounds).into();
        plan.congestion_control.clone_from(&self.congestion_control);
        plan.keys.clone_from(&self.set);
        plan.gateway.clone_from(&self.gateway);
        Ok(Task::Wan(Box::new(plan), &self.json, &self.output))
    }
}

impl DesktopOptions {
    fn task(&self) -> Result<Task<'_>> {
        const ROUNDS: u16 = 3;
        let rounds = if self.quick { 1 } else { ROUNDS };
        let mut plan = DesktopPlan::new(&self.scenes, self.quick)?;
        plan.command = command_line();
        plan.kinds = chosen_kinds(&Kind::DESKTOP, &self.peers)?;
        plan.rounds = self.rounds.unwrap_or(rounds).into();
        plan.keys.clone_from(&self.set);
        plan.gateway.clone_from(&self.gateway);
        Ok(Task::Desktop(Box::new(plan), &self.json, &self.output))
    }
}

/// A key and its value, which is text where it is no JSON.
fn parse_key(text: &str) -> Result<(String, Value)> {
    let (key, value) = text.split_once('=').context("KEY=VALUE is wanted")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((key.to_owned(), value))
}

impl RunOptions {
    fn task(
        &self,
        comparison: &'static str,
        link: Link,
        kinds: Vec<Kind>,
        reference: Kind,
    ) -> Result<Task<'_>> {
        let pick = |(full, quick)| if self.quick { quick } else { full };
        let plan = Plan {
            comparison,
            link,
            command: command_line(),
            kinds,
            reference,
            figures: self.chosen_figures(comparison)?,
            rounds: self.rounds.map_or_else(|| pick(ROUNDS), usize::from),
            seconds: if self.quick { SECONDS.1 } else { SECONDS.0 },
            gateway: self.gateway.clone(),
        };
        let default = || default_file(&format!("{comparison}.json"));
        let json = self.json.clone().unwrap_or_else(default);
        Ok(Task::Measure(Box::new(plan), json, &self.output))
    }

    fn chosen_figures(&self, comparison: &str) -> Result<Vec<Figure>> {
        // A reload is about new connections.
        let of_reload = || (comparison == "reload").then(|| "sessions".to_owned());
        let names: Vec<String> = if self.figures.is_empty() {
            of_reload().into_iter().collect()
        } else {
            self.figures.clone()
        };
        if names.is_empty() {
            let all = FIGURES.into_iter();
            return Ok(all
                .filter(|figure| figure.is_quick || !self.quick)
                .collect());
        }
        for name in &names {
            let known: Vec<_> = FIGURES.iter().map(|figure| figure.id).collect();
            ensure!(
                known.iter().any(|id| is_meant(id, name)),
                "there is no figure {name}; there are: {}",
                known.join(", ")
            );
        }
        let meant = |figure: &Figure| names.iter().any(|name| is_meant(figure.id, name));
        Ok(FIGURES.into_iter().filter(meant).collect())
    }
}

/// Whether a name on the command line means this figure: it is its id or the part before the
/// dash.
fn is_meant(id: &str, name: &str) -> bool {
    id.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Those of these names, in their own order, each once; all when there is no name.
fn chosen_kinds(known: &[Kind], names: &[String]) -> Result<Vec<Kind>> {
    for name in names {
        let is_known = known.iter().any(|kind| kind.name() == name);
        ensure!(
            is_known,
            "there is no peer {name}; there are: {}",
            known
                .iter()
                .map(|kind| kind.name())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let is_chosen = |kind: &Kind| names.is_empty() || names.iter().any(|name| kind.name() == name);
    Ok(known.iter().copied().filter(is_chosen).collect())
}

/// A file of the target directory's folder for this.
fn default_file(name: &str) -> PathBuf {
    let target = target_dir();
    // Shown to people, so without the detour over a crate's folder.
    let target = target.canonicalize().unwrap_or(target);
    target.join("bench").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_meant_by_id_or_family() {
        assert!(is_meant("down-1k", "down") && is_meant("down-1k", "down-1k"));
        assert!(is_meant("rtt", "rtt"));
        assert!(!is_meant("scale-1000", "scale-100") && !is_meant("down-1k", "do"));
    }

    #[test]
    fn peers_are_chosen_by_name() {
        let names = ["haproxy", "gateway", "haproxy"].map(String::from);
        assert_eq!(
            chosen_kinds(&Kind::PEERS, &names).unwrap(),
            [Kind::Gateway, Kind::Haproxy]
        );
        assert!(chosen_kinds(&Kind::PEERS, &["squid".to_owned()]).is_err());
        assert_eq!(chosen_kinds(&Kind::PEERS, &[]).unwrap(), Kind::PEERS);
    }

    #[test]
    fn keys_have_values_of_any_type() {
        assert_eq!(parse_key("KeepAlive=30").unwrap().1, 30);
        assert_eq!(parse_key("DataPath=relay").unwrap().1, "relay");
        assert!(parse_key("KeepAlive").is_err());
    }
}
