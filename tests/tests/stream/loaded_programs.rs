//! Programs that root has loaded (`load-ebpf`), for gateways that may not.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::gateway::{GatewayBuilder, Signal, unused_user};
use testkit::loaded::Loaded;
use testkit::prelude::*;

use crate::channel::Channel;
use crate::setup::{SOCKMAP, SOCKMAP_UNIX_HOST};
use crate::stage::Stage;

// linux/capability.h
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
/// Any of these permits more with eBPF than to use a map.
const PRIVILEGES: u64 = NET_ADMIN | SYS_ADMIN | PERFMON | BPF;

/// For so many there is room.
const CHANNELS: u32 = 8;

fn loaded_for(user: u32) -> Result<Loaded> {
    Loaded::new(user, CHANNELS)
}

/// A gateway that runs as the user and may use the programs.
async fn start(loaded: &Loaded) -> Result<Stage> {
    start_with(loaded, |gateway| gateway).await
}

async fn start_with(
    loaded: &Loaded,
    more: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
) -> Result<Stage> {
    SOCKMAP
        .start_with(|gateway| more(loaded.for_gateway(gateway)))
        .await
}

/// What the gateway of a stage may do beyond its user.
fn capabilities(stage: &Stage) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", stage.gateway.pid()))?;
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    Ok(u64::from_str_radix(
        effective.context("CapEff")?.trim(),
        16,
    )?)
}

/// Moves bytes both ways, which are compared.
async fn move_some(channel: &mut Channel) -> Result<()> {
    for _ in 0..20 {
        channel.downlink(85).await?;
        channel.uplink(33).await?;
    }
    channel.downlink(1_000_000).await
}

/// The set that the gateway of a stage uses.
async fn set_of(stage: &Stage) -> Result<PathBuf> {
    let line = stage.wait_for_log("INFO eBPF programs").await?;
    let (_, set) = line.split_once("set=").context("no set")?;
    let set = set.split_whitespace().next().context("no set")?;
    Ok(PathBuf::from(set))
}

/// A gateway that finds no programs says this, and its channels are moved nevertheless.
async fn expect_relay(stage: &Stage, reason: &str) -> Result<()> {
    let refused = |line: &str| line.contains("path=\"sockmap\" works=false");
    let line = stage.gateway.wait_for_log(refused, PATIENCE).await?;
    ensure!(line.contains(reason), "{line} tells nothing of {reason:?}");
    ensure!(line.contains("load-ebpf"), "{line} names no way out");
    let target = crate::channel::target(&stage.host);
    let mut channel = crate::channel::open(&stage.endpoint, &stage.host, &target).await?;
    move_some(&mut channel).await?;
    let line = stage.wait_for_log("channel open").await?;
    ensure!(line.contains("path=\"relay\""), "{line}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_gateway_without_capabilities_uses_them() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    let told = loaded.load()?;
    ensure!(
        told.contains("2 new, 0 free, 0 in use, 0 removed"),
        "{told}"
    );
    let stage = start(&loaded).await?;
    let mut channel = stage.open().await?;
    move_some(&mut channel).await?;
    let held = capabilities(&stage)?;
    ensure!(held & PRIVILEGES == 0, "CapEff is {held:x}");
    let set = set_of(&stage).await?;
    ensure!(
        loaded.sets()?.contains(&set),
        "{} is not there",
        set.display()
    );
    // A second time nothing is changed.
    let told = loaded.load()?;
    ensure!(
        told.contains("1 new, 1 free, 1 in use, 0 removed"),
        "{told}"
    );
    move_some(&mut channel).await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn a_gateway_without_capabilities_moves_hosts_on_unix_sockets_with_them() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    loaded.load()?;
    let stage = SOCKMAP_UNIX_HOST
        .start_with(|gateway| loaded.for_gateway(gateway))
        .await?;
    ensure!(capabilities(&stage)? & PRIVILEGES == 0);
    let mut channel = stage.open().await?;
    move_some(&mut channel).await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn root_gives_up_capabilities_that_it_does_not_need_with_them() -> Result<()> {
    let loaded = loaded_for(0)?;
    loaded.load()?;
    let directory = loaded.directory();
    let directory = directory.to_str().context("a path")?;
    let stage = SOCKMAP
        .start_with(|gateway| gateway.set("EbpfDir", directory))
        .await?;
    let mut channel = stage.open().await?;
    move_some(&mut channel).await?;
    let held = capabilities(&stage)?;
    ensure!(held & PRIVILEGES == 0, "CapEff is {held:x}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn without_them_a_gateway_says_how_to_get_them() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    let stage = start(&loaded).await?;
    expect_relay(&stage, "No such file or directory").await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn those_of_another_user_are_not_used() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    let other = unused_user().to_string();
    loaded.load_with(&json!({}), &other)?;
    let stage = start(&loaded).await?;
    expect_relay(&stage, "Permission denied").await?;
    // They are given to whom they are loaded for next.
    loaded.load()?;
    let stage = start(&loaded).await?;
    move_some(&mut stage.open().await?).await
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn those_of_another_version_are_replaced() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    loaded.load()?;
    for (number, set) in loaded.sets()?.iter().enumerate() {
        let other = format!("0123456789abcdef-{CHANNELS}-{number}");
        fs::rename(set, set.with_file_name(other))?;
    }
    let stage = start(&loaded).await?;
    expect_relay(&stage, "no eBPF programs of this version").await?;
    // One may be used by a gateway that runs.
    let used = File::open(&loaded.sets()?[0])?;
    used.try_lock()?;
    let told = loaded.load()?;
    ensure!(
        told.contains("2 new, 0 free, 1 in use, 1 removed"),
        "{told}"
    );
    let stage = start(&loaded).await?;
    move_some(&mut stage.open().await?).await?;
    drop(used);
    // A size of its own, too.
    let told = loaded.load_with(&json!({"MaxConnections": 20}), &loaded.user().to_string())?;
    ensure!(
        told.contains("2 new, 0 free, 1 in use, 2 removed"),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn when_all_are_in_use_somebody_says_so() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    loaded.load()?;
    let lock = || -> Result<Vec<File>> {
        let locked = loaded.sets()?.into_iter().map(|set| {
            let set = File::open(set)?;
            // Those of before are locked already.
            let _ = set.try_lock();
            anyhow::Ok(set)
        });
        locked.collect()
    };
    let _two = lock()?;
    let stage = start(&loaded).await?;
    expect_relay(&stage, "all 2 sets of eBPF programs are in use").await?;
    let mut more = Vec::new();
    for used in [2, 4, 6] {
        let told = loaded.load()?;
        let expected = format!("2 new, 0 free, {used} in use");
        ensure!(told.contains(&expected), "{told}");
        more.push(lock()?);
    }
    let refused = loaded.load().unwrap_err().to_string();
    ensure!(refused.contains("all 8 sets"), "{refused}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn what_a_killed_gateway_has_left_is_cleared() -> Result<()> {
    const OPEN: usize = 6;
    let loaded = loaded_for(unused_user())?;
    loaded.load()?;
    // The first process has the set to itself, and so has the second.
    fs::remove_dir_all(&loaded.sets()?[1])?;
    for _ in 0..3 {
        let mut stage = start(&loaded).await?;
        let mut channels = Vec::new();
        for _ in 0..OPEN {
            let mut channel = stage.open().await?;
            move_some(&mut channel).await?;
            channels.push(channel);
        }
        let open = "path=\"sockmap\"";
        let lines = stage.gateway.log().await;
        let opened = |line: &&String| line.contains("channel open") && line.contains(open);
        let opened = lines.iter().filter(opened).count();
        ensure!(opened == OPEN, "{opened} of {OPEN} channels use sockmap");
        stage.gateway.signal(Signal::KILL)?;
        within("the end", stage.gateway.wait()).await??;
    }
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn two_gateways_of_a_take_over_have_sets_of_their_own() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    loaded.load()?;
    let before = start(&loaded).await?;
    let mut old = before.open().await?;
    move_some(&mut old).await?;
    let port = before.gateway.plain_addr().port();
    let runtime_dir = before.gateway.runtime_dir();
    let runtime_dir = runtime_dir.to_str().context("a path")?;
    let after = start_with(&loaded, |gateway| {
        let gateway = gateway.set("RuntimeDir", runtime_dir);
        let gateway = gateway.set("PlainPort", port);
        gateway.arg("run").arg("--take-over")
    })
    .await?;
    ensure!(set_of(&before).await? != set_of(&after).await?);
    let mut new = after.open().await?;
    // Each one's channels are moved by its own programs.
    tokio::try_join!(move_some(&mut old), move_some(&mut new))?;
    let told = loaded.load()?;
    ensure!(told.contains("2 new, 0 free, 2 in use"), "{told}");
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn nothing_is_loaded_where_others_may_write() -> Result<()> {
    let loaded = loaded_for(unused_user())?;
    fs::set_permissions(loaded.folder(), Permissions::from_mode(0o777))?;
    let refused = loaded.load().unwrap_err().to_string();
    ensure!(refused.contains("nobody else may write to"), "{refused}");
    fs::set_permissions(loaded.folder(), Permissions::from_mode(0o755))?;
    fs::create_dir_all(loaded.directory())?;
    fs::write(loaded.directory().join("file"), "")?;
    let refused = loaded.load().unwrap_err().to_string();
    ensure!(refused.contains("there are files in it"), "{refused}");
    fs::remove_file(loaded.directory().join("file"))?;
    loaded.load()?;
    ensure!(mode(&loaded.directory())? == 0o750);
    for set in loaded.sets()? {
        ensure!(mode(&set)? == 0o750 && mode(&set.join("HOSTS"))? == 0o600);
    }
    let unknown = loaded.load_with(&json!({}), "no-such-user-here");
    let unknown = unknown.unwrap_err().to_string();
    ensure!(unknown.contains("--user"), "{unknown}");
    let told = loaded.load_with(&json!({"DataPath": "relay"}), "no-such-user-here")?;
    ensure!(told.contains("needs no eBPF programs"), "{told}");
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}
