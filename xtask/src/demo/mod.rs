//! `cargo xtask demo`: the whole way of a client to its desktop, through a real gateway.

mod desktop;
mod fetch;
pub(crate) mod installed;
mod replay;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use testkit::browser;
use testkit::command::target_dir;
use testkit::flexvdi::{self, FlexVdiClient};
use testkit::gateway::Gateway;
use testkit::manager::{DesktopAnswer, Manager};
use testkit::packages::{self, Package, SPICE_HTML5};

use crate::cargo;

use crate::steps::Steps;
pub(crate) use desktop::Desktop;

const USER: &str = "demo";
const PASSWORD: &str = "demo";
/// The name by which the client knows the gateway; the manager only speaks of 127.0.0.1.
const GATEWAY_NAME: &str = "localhost";

/// What the demo shall do.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave everything running until Ctrl-C, for a client of your own.
    #[arg(long, conflicts_with = "no_qemu")]
    keep: bool,
    /// Play a recorded session instead of starting QEMU.
    #[arg(long)]
    no_qemu: bool,
    /// Show the packages instead: installed on a copy of this system, upgraded while a desktop
    /// is in use, and removed.
    #[arg(long, conflicts_with = "keep")]
    installed: bool,
}

/// Shows the way step by step; fails unless everything arrived as it was sent.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    let with_qemu = !options.no_qemu && has_qemu(steps);
    if options.installed {
        return installed::run(steps, with_qemu);
    }
    let binary = build(steps)?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let desktop = if with_qemu {
            Desktop::start_vm(steps).await?
        } else {
            Desktop::start_replay(steps).await?
        };
        show(steps, &desktop, binary, options.keep).await
    })
}

fn has_qemu(steps: &mut Steps) -> bool {
    steps.begin("Programs: QEMU with a Spice server, and the Spice client spicy-screenshot");
    match packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]) {
        Ok(()) => {
            steps.done("installed");
            true
        }
        Err(problem) => {
            steps.done(format!(
                "not to be had, so a recorded session is played: {problem:#}"
            ));
            false
        }
    }
}

fn build(steps: &mut Steps) -> Result<PathBuf> {
    steps.begin("Gateway: cargo build --release -p gateway");
    cargo::run(&["build", "--release", "--package", "gateway"])?;
    steps.done("built");
    Ok(target_dir().join("release/flexvdi-gateway"))
}

async fn show(steps: &mut Steps, desktop: &Desktop, binary: PathBuf, keep: bool) -> Result<()> {
    steps.begin("Manager: a stand-in with a certificate of its own");
    let files = browser::manager_files()?;
    let manager = Manager::builder().files(files.path()).spawn().await?;
    let told = desktop.answer();
    manager.set_desktop(told.clone());
    manager.require_password(USER, PASSWORD);
    steps.done(format!("listens for TLS on {}", manager.addr()));

    steps.begin("Gateway: HijackAll, with a certificate of its own");
    let gateway = Gateway::builder()
        .manager(&manager)
        .set("ManagerCAFile", manager.cert().ca_path().to_string_lossy())
        .set("HijackAll", true)
        .set("MaxConnections", 100)
        .binary(binary)
        .spawn()
        .await?;
    let address = format!("{GATEWAY_NAME}:{}", gateway.tls_addr().port());
    steps.done(format!("listens for TLS on {}", gateway.tls_addr()));

    let client = FlexVdiClient::new(&gateway.tls())
        .host(&address)
        .login(USER, PASSWORD);
    steps.begin("Client: POST /vdi/authmode through the gateway");
    let mode = client.auth_mode().await?;
    steps.done(format!("auth_mode is {mode}"));

    steps.begin("Client: POST /vdi/desktop through the gateway");
    let given = client.desktop().await?;
    steps.note(format!("the manager said: {}", in_public(&told.to_json())));
    steps.note(format!(
        "the client got:   {}",
        in_public(&Value::Object(given.answer.clone()))
    ));
    check_hijacked(&told, &given)?;
    steps.done("hijacked: the client knows the gateway's name and a ticket, not the host");

    desktop.visit(steps, &client, &gateway.tls(), given).await?;

    steps.begin("Gateway: still in good order");
    let complaints = complaints(&gateway).await;
    ensure!(
        complaints.is_empty(),
        "it logged:\n{}",
        complaints.join("\n")
    );
    steps.done("it logged neither a warning nor an error");

    if keep && desktop.is_for_anyone() {
        println!("\n{}", invitation(&address));
        tokio::signal::ctrl_c()
            .await
            .context("waiting for Ctrl-C")?;
    }
    Ok(())
}

/// The members that the demo is about, the secret ones hidden.
fn in_public(answer: &Value) -> String {
    let shown = ["spice_address", "spice_port", "spice_password", "use_ws"].map(|name| {
        let value = match &answer[name] {
            Value::Null => "absent".to_owned(),
            _ if name == "spice_password" => "(hidden)".to_owned(),
            Value::String(text) if name == "spice_port" && text.parse::<u16>().is_err() => {
                format!("(a ticket of {} characters)", text.len())
            }
            value => value.to_string(),
        };
        format!("{name} {value}")
    });
    shown.join(", ")
}

/// What the gateway may change in an answer.
const CHANGED: [&str; 3] = ["spice_address", "spice_port", "use_ws"];

fn check_hijacked(told: &DesktopAnswer, given: &flexvdi::Desktop) -> Result<()> {
    ensure!(
        given.address == GATEWAY_NAME,
        "spice_address is {:?}",
        given.address
    );
    ensure!(given.use_ws, "use_ws is not true");
    ensure!(
        given.token.parse::<u16>().is_err(),
        "spice_port is still a port"
    );
    let told = told.to_json();
    for (name, value) in told.as_object().into_iter().flatten() {
        if !CHANGED.contains(&name.as_str()) && given.answer.get(name) != Some(value) {
            bail!("{name} did not come through as it was sent");
        }
    }
    Ok(())
}

async fn complaints(gateway: &Gateway) -> Vec<String> {
    let is_complaint = |line: &String| {
        line.split_whitespace()
            .any(|word| matches!(word, "WARN" | "ERROR"))
    };
    let lines = gateway.log().await;
    lines.into_iter().filter(is_complaint).collect()
}

fn invitation(address: &str) -> String {
    let browser = if std::path::Path::new(SPICE_HTML5).is_dir() {
        format!("  browser:         https://{address}/vdi/ (accept the certificate)")
    } else {
        "  browser:         install the package spice-html5 and start the demo again".to_owned()
    };
    format!(
        "Everything keeps running; Ctrl-C ends it. Log in as {USER} with the password {PASSWORD}:\n\
         \x20 flexVDI client:  host and port {address}\n{browser}"
    )
}
