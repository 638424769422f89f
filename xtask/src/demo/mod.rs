//! `cargo xtask demo`: from a file with desktops to the desktop, as each kind of client goes that
//! way.

mod comparison;
mod desktop;
mod fetch;
pub(crate) mod installed;
mod native;
mod programs;
mod replay;
mod site;
mod web;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use testkit::command::target_dir;

use crate::cargo;
use crate::steps::Steps;
pub(crate) use desktop::Desktop;
use programs::Programs;
use site::{PASSWORD, Site, USER};

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
    if options.installed {
        let with_qemu = !options.no_qemu && programs::has_qemu(steps);
        return installed::run(steps, with_qemu);
    }
    let programs = if options.no_qemu {
        Programs::NONE
    } else {
        Programs::ensure(steps)
    };
    let binary = build(steps)?;
    show(steps, &programs, binary, options.keep)
}

/// Shows it with the gateway that the tests use, and with all clients.
pub(crate) fn run_quick(steps: &mut Steps) -> Result<()> {
    let programs = Programs::ensure(steps);
    ensure!(
        programs.qemu && programs.proxy_tls && programs.browser,
        "the demo lacks programs; see above"
    );
    show(
        steps,
        &programs,
        target_dir().join("debug/flexvdi-gateway"),
        false,
    )
}

fn build(steps: &mut Steps) -> Result<PathBuf> {
    steps.begin("Gateway: cargo build --release -p gateway");
    cargo::run(&["build", "--release", "--package", "gateway"])?;
    steps.done("built");
    Ok(target_dir().join("release/flexvdi-gateway"))
}

fn show(steps: &mut Steps, programs: &Programs, binary: PathBuf, keep: bool) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let desktop = if programs.qemu {
            Desktop::start_vm(steps).await?
        } else {
            Desktop::start_replay(steps).await?
        };
        let site = Site::start(steps, &desktop, programs, binary).await?;
        visit(steps, &site, &desktop, programs).await?;

        steps.begin("Gateway: still in good order");
        let complaints = site.complaints().await;
        ensure!(
            complaints.is_empty(),
            "it logged:\n{}",
            complaints.join("\n")
        );
        steps.done("it logged neither a warning nor an error");

        if keep && desktop.picture().is_some() {
            println!("\n{}", invitation(&site, programs));
            tokio::signal::ctrl_c()
                .await
                .context("waiting for Ctrl-C")?;
        }
        Ok(())
    })
}

/// Goes to the desktop as each kind of client does.
async fn visit(
    steps: &mut Steps,
    site: &Site,
    desktop: &Desktop,
    programs: &Programs,
) -> Result<()> {
    steps.begin("flexVDI client: POST /vdi/authmode, then /vdi/desktop");
    let client = site.client();
    let mode = client.auth_mode().await?;
    let given = client.desktop().await?;
    steps.note(format!("auth_mode is {mode}"));
    steps.note(in_public(&Value::Object(given.answer.clone())));
    site.check(&given)?;
    steps.done("the client knows the gateway's name and a ticket, not the host");
    desktop
        .visit(steps, &client, &site.gateway.tls(), given)
        .await?;
    if let Some(picture) = desktop.picture() {
        native::run(steps, site, programs.proxy_tls, picture).await?;
        if programs.browser {
            web::run(steps, site, picture).await?;
        }
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

fn invitation(site: &Site, programs: &Programs) -> String {
    let address = site.address();
    let browser = if programs.page {
        format!("https://{address}/ (accept the certificate)")
    } else {
        "install the package spice-html5 and start the demo again".to_owned()
    };
    format!(
        "Everything keeps running; Ctrl-C ends it. Log in as {USER} with the password {PASSWORD}:\n\
         \x20 browser:         {browser}\n\
         \x20 flexVDI client:  host and port {address}"
    )
}
