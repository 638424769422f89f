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
