//! Xorg with its Spice driver: a real Spice server that shows real X programs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::network::{self, Network};
use testkit::packages::XORG;

use super::animation::{Animation, Load};
use crate::peers::program::{Place, Program};

/// Its port, in a network that nobody else has ports in.
const PORT: u16 = 5930;
/// How long it may take from its port's opening until X programs can come.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// What the driver is set up with, besides its defaults: one screen, and buffers as large as the
/// pictures need.
const CONFIG: &str = r#"
Section "Device"
    Identifier "spice"
    Driver "spiceqxl"
    Option "SpiceDisableTicketing" "True"
    Option "SpiceAddr" "ADDRESS"
    Option "SpicePort" "PORT"
    Option "NumHeads" "1"
    Option "SurfaceBufferSize" "128"
    Option "CommandBufferSize" "128"
    Option "FrameBufferSize" "16"
EndSection
Section "InputDevice"
    Identifier "pointer"
    Driver "xspice pointer"
EndSection
Section "InputDevice"
    Identifier "keyboard"
    Driver "xspice keyboard"
EndSection
Section "Monitor"
    Identifier "monitor"
EndSection
Section "Screen"
    Identifier "screen"
    Monitor "monitor"
    Device "spice"
    DefaultDepth 24
EndSection
Section "ServerLayout"
    Identifier "layout"
    Screen "screen"
    InputDevice "keyboard"
    InputDevice "pointer"
EndSection
Section "ServerFlags"
    Option "AutoAddDevices" "False"
EndSection
"#;

/// A running server with an animation on its screen; both end when this is dropped.
pub(super) struct Xorg {
    // Goes first: without it, the animation waits for nothing any more.
    server: Program,
    _animation: Animation,
}

impl Xorg {
    /// Starts it where a network has its host, with this load; waits until both can be used.
    pub(super) async fn start(network: &Network, load: Load) -> Result<(Self, SocketAddr)> {
        let addr = SocketAddr::from((network::HOST, PORT));
        let place = Place::at(&network.host, addr)?;
        let config = CONFIG
            .replace("ADDRESS", &addr.ip().to_string())
            .replace("PORT", &addr.port().to_string());
        let config = place.write("xorg.conf", &config)?;
        let display = display_number();
        // Xorg closes the descriptor that it has written its display's number to. That of standard
        // output would go to its first client, which then gets what the driver prints.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$0" "$@" 3>&1"#, XORG])
            .arg(format!(":{display}"))
            .args(["-displayfd", "3", "-nolisten", "tcp", "-noreset"])
            // It draws into memory, not on a console of this machine.
            .args(["-novtswitch", "-sharevts"])
            .arg("-logfile")
            .arg(place.path("Xorg.log"))
            .arg("-config")
            .arg(config);
        let server = Program::start(command, place).await?;
        await_programs(server.log(), display).await?;
        let animation = network.host.enter(|| Animation::start(display, load))??;
        let xorg = Self {
            server,
            _animation: animation,
        };
        Ok((xorg, addr))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }
}

impl Drop for Xorg {
    fn drop(&mut self) {
        // Killed, it would leave its socket and lock behind.
        self.server.terminate(END_LIMIT);
    }
}

/// A display that no other process takes. Left to choose, a server takes the first one that is
/// free in its network, and with it the path of the socket of a server in another network.
fn display_number() -> u32 {
    const FIRST: u32 = 1_000;
    const COUNT: u32 = 50_000;
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    FIRST + (std::process::id() + started) % COUNT
}

/// Waits until programs can come: then the server writes its display's number.
async fn await_programs(output: &Path, display: u32) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let number = display.to_string();
    loop {
        let text = fs::read_to_string(output).context("reading what Xorg says")?;
        if text.lines().any(|line| line == number) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "Xorg does not take programs after {LIMIT:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}
