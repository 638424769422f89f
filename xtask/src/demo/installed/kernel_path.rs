//! The data path `sockmap`, set up as docs/operations.md says.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};
use testkit::net::Endpoint;

use super::machine::Machine;
use super::service::{Service, UNIT};
use super::session::Session;
use crate::steps::Steps;

/// Where a reverse proxy would reach the gateway: only plaintext client legs are moved.
const PLAIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80));
const RESTARTS: usize = 3;
const FOLDER: &str = "/etc/systemd/system/flexvdi-gateway.service.d";

/// Fails unless a channel on `sockmap` goes on through restarts of a service without privileges.
pub(super) async fn restart(
    steps: &mut Steps,
    machine: &Machine,
    service: &Service<'_>,
    session: &Session,
) -> Result<()> {
    steps.begin("Kernel data path: sockmap.conf, and restarts while a channel is on it");
    // Not from the package's documents: images of containers often leave those out.
    machine.run(&["mkdir", FOLDER])?;
    let shipped = include_bytes!("../../../../packaging/systemd/sockmap.conf");
    machine.write(&format!("{FOLDER}/sockmap.conf"), shipped)?;
    machine.run(&["systemctl", "daemon-reload"])?;
    let configuration = service.configuration()?;
    let mut changed: Map<String, Value> = serde_json::from_str(&configuration)?;
    changed.insert("DataPath".to_owned(), json!("sockmap"));
    changed.insert("PlainPort".to_owned(), json!(PLAIN.port()));
    service.write(&serde_json::to_string_pretty(&changed)?)?;
    machine.run(&["systemctl", "restart", UNIT])?;
    service.expect_few_capabilities()?;

    let mut channel = session.open_at(&Endpoint::plain(PLAIN)).await?;
    channel.survives().await?;
    for _ in 0..RESTARTS {
        let before = service.main_pid()?;
        machine.run(&["systemctl", "restart", UNIT])?;
        ensure!(service.main_pid()? != before, "the old process still runs");
        channel.survives().await?;
    }
    service.expect_few_capabilities()?;
    let paths = service.paths_in_use()?;
    ensure!(
        paths.iter().any(|path| path == "sockmap"),
        "the channels are on {paths:?}"
    );
    drop(channel);
    steps.done(format!(
        "a channel was on sockmap through {RESTARTS} restarts"
    ));

    machine.run(&["rm", "-r", FOLDER])?;
    machine.run(&["systemctl", "daemon-reload"])?;
    service.write(&configuration)?;
    machine.run(&["systemctl", "restart", UNIT])?;
    Ok(())
}
