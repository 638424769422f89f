//! What stands behind the gateway in the demo: a virtual machine, or a recorded session.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use testkit::flexvdi::{self, FlexVdiClient};
use testkit::host::Host;
use testkit::manager::DesktopAnswer;
use testkit::net::Endpoint;
use testkit::picture::Picture;
use testkit::qemu::SpiceVm;
use testkit::replay::{Played, Recording, Speed};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::{fetch, replay};
use crate::steps::Steps;

/// A running desktop.
pub(crate) enum Desktop {
    /// QEMU, and what it shows when asked directly.
    Vm {
        vm: Box<SpiceVm>,
        password: String,
        picture: Picture,
    },
    /// A host that plays its side of a recording.
    Replay {
        recording: Arc<Recording>,
        host: Host<Played>,
    },
}

impl Desktop {
    pub(crate) async fn start_vm(steps: &mut Steps) -> Result<Self> {
        steps.begin("Desktop: QEMU with its Spice server, behind a password");
        let password = new_password().await?;
        let vm = Box::new(SpiceVm::start(Some(&password)).await?);
        steps.note(format!("listens on {}", vm.address()));
        let picture = vm
            .picture()
            .await
            .context("fetching the picture directly")?;
        steps.done(format!(
            "fetched directly, its picture has {} x {} pixels in {} colours",
            picture.width,
            picture.height,
            picture.colours()
        ));
        Ok(Self::Vm {
            vm,
            password,
            picture,
        })
    }

    pub(crate) async fn start_replay(steps: &mut Steps) -> Result<Self> {
        steps.begin("Desktop: a recorded Spice session");
        let recording = Recording::load()?;
        let host = recording.host(Speed::Unlimited).await?;
        steps.done(format!(
            "{} channels, on {}",
            recording.channels().len(),
            host.addr()
        ));
        Ok(Self::Replay { recording, host })
    }

    /// What the manager tells of it.
    pub(crate) fn answer(&self) -> DesktopAnswer {
        let (address, password) = self.place();
        let answer = DesktopAnswer::new(address);
        match self {
            Self::Vm { .. } => answer.password(password),
            Self::Replay { .. } => answer,
        }
    }

    /// Where its Spice server listens, and the password there; empty if there is none.
    pub(super) fn place(&self) -> (SocketAddr, &str) {
        match self {
            Self::Vm { vm, password, .. } => (vm.address(), password),
            Self::Replay { host, .. } => (host.addr(), ""),
        }
    }

    /// What it shows to any Spice client; a recording has only its own.
    pub(super) fn picture(&self) -> Option<&Picture> {
        match self {
            Self::Vm { picture, .. } => Some(picture),
            Self::Replay { .. } => None,
        }
    }

    /// Uses it as the client to whom it was `given` does.
    pub(crate) async fn visit(
        &self,
        steps: &mut Steps,
        client: &FlexVdiClient,
        gateway: &Endpoint,
        given: flexvdi::Desktop,
    ) -> Result<()> {
        match self {
            Self::Vm { picture, .. } => fetch::run(steps, gateway, given, picture).await,
            Self::Replay { recording, host } => {
                replay::run(steps, client, &given, recording, host).await
            }
        }
    }
}

async fn new_password() -> Result<String> {
    let mut random = [0; 16];
    let mut source = File::open("/dev/urandom")
        .await
        .context("opening /dev/urandom")?;
    source
        .read_exact(&mut random)
        .await
        .context("reading /dev/urandom")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}
