//! Drives the gateway's data paths inside a virtual machine whose clock counts instructions, for
//! `cargo xtask bench vm`. Arguments are values of the configuration key `DataPath`, each
//! perhaps with another key, as in `ktls:SpliceFrom=4096`, perhaps a cipher suite, and perhaps
//! `tunnels:` instead of WebSockets.
//!
//! Each load is carried twice, once with more to do; the difference is what more messages cost,
//! without what opening and ending a channel and its first messages take.

mod ciphers;
mod client;
mod idle;
mod load;
mod memory;
mod meter;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;
use testkit::gateway::Gateway;
use testkit::net::PATIENCE;
use testkit::spice::{ChannelType, link_message};
use testkit::vm::{Cost, DIRECT, Finding, Leg, MEASURED, Measured, SUITE, TUNNELS};
use tokio::runtime::Runtime;

use client::Client;
use idle::Idle;
use load::{LOADS, Load, Script};
use meter::Meter;

fn main() -> Result<()> {
    // Only what is awaited runs here: the gateway's log is read between measurements.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let idle = Idle::start()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let suite = arguments.iter().find_map(|one| one.strip_prefix(SUITE));
    let bench = Bench {
        runtime,
        idle,
        host: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        tls: client::tls(suite)?,
        tunnels: arguments.iter().any(|one| one == TUNNELS),
    };
    tell(&Finding::Ciphers(ciphers::describe()?))?;
    bench.measure(DIRECT, Leg::Plain, None)?;
    let is_path = |argument: &&String| {
        let others = [SUITE, TUNNELS, "--"];
        !others.iter().any(|other| argument.starts_with(other))
    };
    for path in arguments.iter().filter(is_path) {
        bench.measure_path(path)?;
    }
    Ok(())
}

fn tell(finding: &Finding) -> Result<()> {
    println!("{MEASURED}{}", serde_json::to_string(finding)?);
    Ok(())
}

struct Bench {
    runtime: Runtime,
    idle: Idle,
    host: TcpListener,
    tls: Arc<ClientConfig>,
    tunnels: bool,
}

impl Bench {
    /// All loads on both legs, as far as this data path carries them.
    fn measure_path(&self, argument: &str) -> Result<()> {
        let (path, setting) = match argument.split_once(':') {
            Some((path, setting)) => (path, Some(setting)),
            None => (argument, None),
        };
        let name = argument.replace(':', ", ").replace('=', " ");
        for leg in [Leg::Tls, Leg::Plain] {
            let mut gateway = Gateway::builder()
                .plain()
                .set("HijackAll", self.tunnels)
                .set("DataPath", path);
            if let Some(setting) = setting {
                let (key, value) = setting.split_once('=').context("a setting has no value")?;
                gateway = gateway.set(key, value.parse::<u64>()?);
            }
            let started = self.runtime.block_on(gateway.spawn());
            let gateway = match started {
                Ok(gateway) => gateway,
                Err(problem) => {
                    println!("data path {path}: {problem:#}");
                    return Ok(());
                }
            };
            match self.path_taken(&gateway, leg)? {
                taken if taken == path => {
                    tell(&Finding::Idle(self.measure_idle(&name, leg, &gateway)?))?;
                    self.measure(&name, leg, Some(&gateway))?;
                }
                taken => println!("data path {path}: {leg} client legs take {taken}"),
            }
        }
        Ok(())
    }

    /// The data path that a channel takes with this gateway.
    fn path_taken(&self, gateway: &Gateway, leg: Leg) -> Result<String> {
        let (client, host) = self.open(Some(gateway), leg)?;
        let is_open = |line: &str| line.contains("channel open");
        let line = self
            .runtime
            .block_on(gateway.wait_for_log(is_open, PATIENCE))?;
        drop(host);
        client.close();
        let (_, rest) = line.split_once("path=\"").context("no path in the log")?;
        Ok(rest.split('"').next().unwrap_or_default().to_owned())
    }

    fn measure(&self, path: &str, leg: Leg, gateway: Option<&Gateway>) -> Result<()> {
        for load in LOADS {
            let measured = self
                .measure_load(&load, path, leg, gateway)
                .with_context(|| format!("{path}, {leg}, {}", load.name))?;
            tell(&Finding::Load(measured))?;
        }
        Ok(())
    }

    fn measure_load(
        &self,
        load: &Load,
        path: &str,
        leg: Leg,
        gateway: Option<&Gateway>,
    ) -> Result<Measured> {
        let (short, long) = (load.script(false)?, load.script(true)?);
        let base = self.run(&short, leg, gateway)?;
        let cost = self.run(&long, leg, gateway)?;
        Ok(Measured {
            path: path.to_owned(),
            leg,
            load: load.name.to_owned(),
            messages: long.messages() - short.messages(),
            bytes: long.bytes() - short.bytes(),
            cost: Cost {
                machine: cost.machine - base.machine,
                gateway: cost.gateway - base.gateway,
                kernel: cost.kernel - base.kernel,
                wakeups: cost.wakeups - base.wakeups,
            },
        })
    }

    /// Plays a script on a channel of its own.
    fn run(&self, script: &Script, leg: Leg, gateway: Option<&Gateway>) -> Result<Cost> {
        let (mut client, host) = self.open(gateway, leg)?;
        let wires = script.prepare(&mut client)?;
        let meter = Meter::start(&self.idle, gateway.map(Gateway::pid))?;
        thread::scope(|scope| {
            let host = scope.spawn(|| script.play_host(&host));
            script.play_client(&client, &wires)?;
            match host.join() {
                Ok(played) => played,
                Err(_) => bail!("the host has panicked"),
            }
        })?;
        let cost = meter.stop()?;
        client.close();
        Ok(cost)
    }

    fn through_gateway(&self, gateway: &Gateway, leg: Leg, host: SocketAddr) -> Result<Client> {
        let (addr, tls) = match leg {
            Leg::Tls => (gateway.tls_addr(), Some(&self.tls)),
            Leg::Plain => (gateway.plain_addr(), None),
        };
        if !self.tunnels {
            return Client::web_socket(addr, tls, &host.port().to_string());
        }
        let ticket = self.runtime.block_on(gateway.ticket(host))?;
        Client::tunnel(addr, tls, &ticket)
    }

    /// Opens a channel; its link message has arrived.
    fn open(&self, gateway: Option<&Gateway>, leg: Leg) -> Result<(Client, TcpStream)> {
        let host = self.host.local_addr()?;
        let mut client = match gateway {
            None => Client::direct(host)?,
            Some(gateway) => self.through_gateway(gateway, leg, host)?,
        };
        let link = link_message(ChannelType::Display, 0);
        let wire = client.prepare(&link)?;
        client.send_prepared(&wire)?;
        let (mut stream, _) = self.host.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut received = vec![0; link.len()];
        stream.read_exact(&mut received)?;
        ensure!(received == link, "another link message arrived");
        Ok((client, stream))
    }
}
