//! The bill of materials: every library that is inside the gateway, with its licence and origin,
//! as `CycloneDX` has it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::command::run_bounded;

use super::source::VERSION;
use crate::architecture::Architecture;
use crate::cargo::workspace;
use crate::git::source_time;
use crate::steps::Steps;
use crate::tools::CYCLONEDX;

const LIMIT: Duration = Duration::from_mins(5);
/// The form of the document; what most programs read.
const FORM: &str = "1.5";

/// Writes one for each processor: their libraries are not the same.
pub(super) fn write(steps: &mut Steps, architectures: &[Architecture], to: &Path) -> Result<()> {
    steps.begin("Bills of materials");
    let programs = CYCLONEDX.ensure(steps)?;
    let mut sizes = Vec::new();
    for architecture in architectures {
        let bill = make(&programs.join(CYCLONEDX.name), *architecture)?;
        let components = bill["components"].as_array().map_or(0, Vec::len);
        ensure!(components > 0, "the bill of materials is empty");
        let name = format!("flexvdi-gateway-{VERSION}-{}.cdx.json", architecture.name());
        let path = to.join(&name);
        fs::write(&path, format!("{bill:#}\n"))
            .with_context(|| format!("writing {}", path.display()))?;
        sizes.push(format!("{name}: {components} libraries"));
    }
    steps.done(sizes.join(", "));
    Ok(())
}

fn make(program: &Path, architecture: Architecture) -> Result<Value> {
    let workspace = workspace().canonicalize()?;
    let name = format!("bill-of-materials-{}", architecture.name());
    let mut command = Command::new(program);
    command
        .args(["cyclonedx", "--format", "json", "--spec-version", FORM])
        .args(["--no-build-deps", "--target", &architecture.target()])
        .args(["--override-filename", &name, "--manifest-path"])
        .arg(workspace.join("gateway/Cargo.toml"))
        .current_dir(&workspace)
        .env("SOURCE_DATE_EPOCH", source_time()?.to_string());
    let made = run_bounded(command, LIMIT);
    let name = format!("{name}.json");
    let text = fs::read_to_string(workspace.join("gateway").join(&name));
    // The program writes one beside the manifest of each crate.
    for entry in fs::read_dir(&workspace)? {
        let _ = fs::remove_file(entry?.path().join(&name));
    }
    made?;
    let text = text.context("cargo-cyclonedx left no bill of materials")?;
    let workspace = workspace.to_str().context("a path that is not UTF-8")?;
    // It must not tell where it was made.
    let text = text.replace(workspace, "/flexvdi-gateway");
    serde_json::from_str(&text).context("the bill of materials")
}
