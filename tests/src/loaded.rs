//! eBPF programs that root loads for gateways that may not (`load-ebpf`).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::run_bounded;
use crate::gateway::{GatewayBuilder, gateway_binary};
use crate::net::PATIENCE;

/// A directory of loaded programs, and the user whose they are. It is gone when dropped, with the
/// programs.
pub struct Loaded {
    folder: TempDir,
    user: u32,
    channels: u32,
}

impl Loaded {
    /// A place for programs of this user, with room for so many channels.
    pub fn new(user: u32, channels: u32) -> Result<Self> {
        let folder = TempDir::with_prefix("testkit-ebpf-")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Self {
            folder,
            user,
            channels,
        })
    }

    /// Number of the user.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// In which the directory lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where they are.
    pub fn directory(&self) -> PathBuf {
        self.folder.path().join("ebpf")
    }

    /// Runs `load-ebpf`, and returns what it tells.
    pub fn load(&self) -> Result<String> {
        self.load_with(&json!({}), &self.user.to_string())
    }

    /// The same with further keys of the configuration, and another user.
    pub fn load_with(&self, keys: &Value, user: &str) -> Result<String> {
        let mut config = json!({
            "DataPath": "sockmap",
            "MaxConnections": self.channels,
            "EbpfDir": self.directory(),
        });
        let object = config.as_object_mut().context("an object")?;
        object.extend(keys.as_object().context("an object")?.clone());
        let path = self.folder.path().join("load.conf");
        fs::write(&path, config.to_string())?;
        let mut command = Command::new(gateway_binary()?);
        command.arg("load-ebpf").arg("--user").arg(user);
        command.arg("--config").arg(&path);
        run_bounded(command, PATIENCE)
    }

    /// The sets that lie there.
    pub fn sets(&self) -> Result<Vec<PathBuf>> {
        let mut sets = Vec::new();
        for entry in self.directory().read_dir()? {
            let path = entry?.path();
            // The kernel may have files of its own there.
            if path.is_dir() {
                sets.push(path);
            }
        }
        sets.sort();
        Ok(sets)
    }

    /// Has a gateway run as the user and use the programs.
    pub fn for_gateway(&self, gateway: GatewayBuilder) -> GatewayBuilder {
        let directory = self.directory();
        gateway
            .user(self.user)
            .set("EbpfDir", directory.to_string_lossy().into_owned())
            .set("MaxConnections", self.channels)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // There may be none.
        let _ = unmount(self.directory(), UnmountFlags::DETACH);
    }
}
