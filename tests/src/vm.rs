//! What the host of a virtual machine and the init inside it agree on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the init finds its [`Manifest`], as JSON.
pub const MANIFEST: &str = "/manifest.json";
/// Where the init and its programs write; the kernel writes to the first serial port.
pub const CONSOLE: &str = "/dev/ttyS1";
/// How the lines begin that the init itself writes.
pub const PREFIX: &str = "init: ";
/// The init's last line when every program has succeeded.
pub const SUCCESS: &str = "init: success";
/// The init's last line otherwise.
pub const FAILURE: &str = "init: failure";

/// What the init does after it has mounted what programs expect.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Manifest {
    /// Paths of uncompressed kernel modules, in the order in which they are loaded.
    pub modules: Vec<String>,
    /// Run one after the other, also after one has failed.
    pub programs: Vec<Program>,
    /// How long the programs may take together, in seconds.
    pub seconds: u64,
}

/// A program that must end with exit code 0.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Program {
    /// How it is called in the output.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
}

/// How a line begins that holds a [`Finding`] as JSON.
pub const MEASURED: &str = "measured: ";
/// The path of a [`Measured`] where client and host are connected without a gateway.
pub const DIRECT: &str = "direct";

/// How an argument begins that names the cipher suite of all TLS legs.
pub const SUITE: &str = "suite:";

/// The argument that makes all channels tunnels, opened by CONNECT.
pub const TUNNELS: &str = "tunnels:";

/// What was found out inside the virtual machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Finding {
    /// What one data path costs for one class of traffic.
    Load(Measured),
    /// What channels cost that carry nothing.
    Idle(IdleChannels),
    /// What carries out the ciphers, in one line for people.
    Ciphers(String),
}

/// What one data path costs for one class of traffic.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Measured {
    /// A value of the configuration key `DataPath`, with another key and its value where that was
    /// set; or [`DIRECT`].
    pub path: String,
    /// How the client is connected.
    pub leg: Leg,
    /// Name of the traffic.
    pub load: String,
    /// How many messages client and host sent.
    pub messages: usize,
    /// How many bytes they had.
    pub bytes: usize,
    /// What that took.
    pub cost: Cost,
}

/// Memory of channels over which nothing is sent any more.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct IdleChannels {
    /// As in [`Measured`].
    pub path: String,
    /// How the clients are connected.
    pub leg: Leg,
    /// How many channels there were.
    pub channels: usize,
    /// By how much the gateway's process has grown for all of them, in bytes (proportional set
    /// size).
    pub process: i64,
    /// By how much the kernel's slabs have grown meanwhile, in bytes: for the gateway's sockets
    /// and for those of clients and hosts.
    pub slabs: i64,
}

/// How a client is connected to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Leg {
    /// By TLS.
    Tls,
    /// By plain TCP, as a reverse proxy is.
    Plain,
}

impl std::fmt::Display for Leg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS",
            Self::Plain => "plaintext",
        })
    }
}

/// What the processor has spent, in nanoseconds of its clock, which counts instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Cost {
    /// All but idleness: client and host, gateway and kernel.
    pub machine: f64,
    /// On the gateway's threads, system calls and what interrupts did meanwhile included.
    pub gateway: f64,
    /// On the kernel's own threads.
    pub kernel: f64,
    /// How often a thread of the gateway was woken after it had waited; a count, no time.
    pub wakeups: f64,
}
