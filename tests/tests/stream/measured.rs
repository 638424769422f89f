//! `"DataPath": "auto"`: what `probe --measure` finds out, and what gateways make of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::setup::{AUTO_ON_SOCKMAP, RELAY_PLAIN, Setup};
use crate::stage::Stage;

/// The file that a measurement is kept in.
fn kept(state: &TempDir) -> PathBuf {
    state.path().join("data-paths.json")
}

async fn start(setup: Setup, state: &Path) -> Result<Stage> {
    let state = state.to_str().context("a path")?.to_owned();
    setup
        .start_with(|gateway| gateway.set("StateDirectory", state))
        .await
}

/// What `auto` has taken, as `status` shows it.
async fn auto(stage: &Stage) -> Result<Value> {
    let status = stage.gateway.output(&["status", "--json"]).await?;
    let status: Value = serde_json::from_str(&status)?;
    Ok(status["auto"].clone())
}

async fn measure(stage: &Stage) -> Result<Value> {
    let report = stage
        .gateway
        .output(&["probe", "--measure", "--json"])
        .await?;
    Ok(serde_json::from_str(&report)?)
}

fn read(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Makes a file say that `sockmap` costs a fifth less on plaintext legs, over Ethernet.
fn let_sockmap_win(path: &Path) -> Result<()> {
    let mut record = read(path)?;
    record["link"] = json!({"kind": "ethernet"});
    record["legs"] = json!([{"leg": "plaintext", "paths": [
        {"path": "relay", "outcome": "reference", "turns": 8, "messages": 100, "bytes": 400_000,
         "microseconds": {"median": 50.0, "lower": 49.0, "upper": 51.0}},
        {"path": "sockmap", "outcome": "cheaper", "turns": 8, "messages": 100, "bytes": 400_000,
         "microseconds": {"median": 40.0, "lower": 39.0, "upper": 41.0},
         "saving": {"median": 0.2, "lower": 0.19, "upper": 0.21}},
    ]}]);
    fs::write(path, record.to_string())?;
    Ok(())
}

#[tokio::test]
async fn what_is_measured_is_kept_and_counts_from_the_next_start_on() -> Result<()> {
    let state = TempDir::new()?;
    let stage = start(RELAY_PLAIN, state.path()).await?;
    let told = stage.wait_for_log("data path auto").await?;
    ensure!(told.contains("not measured"), "{told}");
    let report = measure(&stage).await?;
    let record = &report["measurement"];
    assert_eq!(read(&kept(&state))?, *record);
    let legs = record["legs"].as_array().context("legs")?;
    if cfg!(unprivileged) {
        assert_eq!(record["link"]["kind"], "loopback");
        let chosen = report["auto"]["plaintext"].to_string();
        ensure!(chosen.contains("over loopback only"), "{chosen}");
    } else {
        assert_eq!(record["link"], json!({"kind": "ethernet"}));
    }
    assert_eq!([&legs[0]["leg"], &legs[1]["leg"]], ["plaintext", "tls"]);
    for leg in legs {
        for path in leg["paths"].as_array().context("paths")? {
            ensure!(path["outcome"] != "failed", "{path}");
            let cost = path["microseconds"]["median"].as_f64();
            ensure!(cost.is_some_and(|cost| cost > 0.0), "{path}");
        }
        assert_eq!(leg["paths"][0]["path"], "relay");
    }
    // The running gateway goes on as it has begun.
    assert_eq!(auto(&stage).await?["measurement"], Value::Null);
    let table = stage.gateway.output(&["probe"]).await?;
    ensure!(table.contains("us/message"), "{table}");
    // What this machine says, for whoever asks with --nocapture.
    println!("{table}");
    // It was measured a moment ago.
    let again = ["probe", "--measure", "--if-changed"];
    assert_eq!(stage.gateway.output(&again).await?, "");
    assert_eq!(read(&kept(&state))?, *record);
    if !cfg!(unprivileged) {
        // Root can do better than this.
        let mut loopback = record.clone();
        loopback["link"] = json!({"kind": "loopback", "reason": "no network namespace"});
        fs::write(kept(&state), loopback.to_string())?;
        ensure!(
            stage
                .gateway
                .output(&again)
                .await?
                .contains("over Ethernet devices")
        );
        assert_eq!(read(&kept(&state))?["link"], record["link"]);
        fs::write(kept(&state), record.to_string())?;
    }

    let next = start(RELAY_PLAIN, state.path()).await?;
    let auto = auto(&next).await?;
    assert_eq!(auto["measurement"], *record);
    assert_eq!(auto["tls"], report["auto"]["tls"]);
    let status = next.gateway.output(&["status"]).await?;
    ensure!(
        status.contains("data path: auto: plaintext client legs: "),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "needs root: cargo xtask test")]
async fn auto_follows_the_measurement_of_this_kernel_and_no_other() -> Result<()> {
    let state = TempDir::new()?;
    let stage = start(RELAY_PLAIN, state.path()).await?;
    measure(&stage).await?;
    let_sockmap_win(&kept(&state))?;

    let stage = start(AUTO_ON_SOCKMAP, state.path()).await?;
    let mut channel = stage.open().await?;
    channel.downlink(300_000).await?;
    channel.uplink(1_000).await?;
    let taken = auto(&stage).await?;
    assert_eq!(taken["plaintext"]["path"], "sockmap");
    assert_eq!(taken["plaintext"]["reason"], "20 % cheaper than relay");
    assert_eq!(taken["tls"]["path"], "relay");

    let mut record = read(&kept(&state))?;
    record["kernel"] = "5.0.0-other".into();
    fs::write(kept(&state), record.to_string())?;
    let stage = start(RELAY_PLAIN, state.path()).await?;
    stage.open().await?.downlink(300_000).await?;
    let reason = auto(&stage).await?["plaintext"]["reason"].to_string();
    ensure!(
        reason.contains("measured with kernel 5.0.0-other"),
        "{reason}"
    );
    Ok(())
}

#[tokio::test]
async fn a_damaged_measurement_is_told_and_ignored() -> Result<()> {
    let state = TempDir::new()?;
    fs::write(kept(&state), "{\"version\": 2, \"legs\": \"ha")?;
    let stage = start(RELAY_PLAIN, state.path()).await?;
    let told = stage
        .wait_for_log("the measurement of data paths cannot be used")
        .await?;
    ensure!(told.contains("data-paths.json is ignored"), "{told}");
    stage.open().await?.downlink(1_000).await?;
    let told = stage.gateway.output(&["probe"]).await?;
    ensure!(told.contains("data-paths.json is ignored"), "{told}");
    Ok(())
}

#[tokio::test]
async fn where_nothing_can_be_kept_the_figures_are_shown_and_it_fails() -> Result<()> {
    let state = TempDir::new()?;
    let stage = start(RELAY_PLAIN, &state.path().join("missing")).await?;
    let measured = stage.gateway.run(&["probe", "--measure"]).await?;
    assert_eq!(measured.status.code(), Some(1));
    let (shown, told) = (
        String::from_utf8(measured.stdout)?,
        String::from_utf8(measured.stderr)?,
    );
    ensure!(shown.contains("us/message"), "{shown}");
    ensure!(told.contains("data-paths.json is not kept"), "{told}");
    Ok(())
}
