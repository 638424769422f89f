//! `cargo xtask build-ebpf`: the eBPF programs as one object, which the gateway's build then
//! takes into its binary.

mod linker;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::command::target_dir;

use crate::cargo;
use crate::steps::Steps;
use crate::toolchain::{self, Toolchain};

/// The target: eBPF, little endian.
const TARGET: &str = "bpfel-unknown-none";

/// What can be asked for.
#[derive(Default, clap::Args)]
pub struct Options {
    /// Build twice, in two folders, and fail unless both objects have the same bytes.
    #[arg(long)]
    verify: bool,
}

/// Builds the object, and puts it where gateway/build.rs looks for it.
pub fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    steps.begin("Compiler and linker for eBPF");
    let toolchain = Toolchain::ensure(|text| steps.note(text))?;
    linker::ensure(&toolchain, |text| steps.note(text))?;
    steps.done(format!("{toolchain}, bpf-linker"));

    steps.begin("eBPF programs");
    let object = build(&toolchain, &target_dir().join("ebpf"))?;
    if options.verify {
        let folder = tempfile::tempdir().context("a folder for the second build")?;
        let second = build(&toolchain, folder.path())?;
        ensure!(
            object == second,
            "two builds differ: {} and {} bytes",
            object.len(),
            second.len()
        );
        steps.note("a second build in another folder has the same bytes");
    }
    let path = place(&object)?;
    steps.done(format!("{} ({} bytes)", path.display(), object.len()));
    Ok(())
}

/// The bytes of an object that was built in this folder.
fn build(toolchain: &Toolchain, folder: &Path) -> Result<Vec<u8>> {
    let manifest = source().join("Cargo.toml");
    let mut command = toolchain.cargo();
    command
        .args(["build", "--release", "--quiet", "--locked"])
        .args(["-Z", "build-std=core", "--target", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\x1f"))
        // Flags for the gateway's own target make no sense for this one.
        .env_remove("RUSTFLAGS");
    let status = command
        .status()
        .context("starting cargo for the eBPF programs")?;
    ensure!(status.success(), "building the eBPF programs: {status}");
    let object = folder.join(TARGET).join("release/gateway-ebpf");
    fs::read(&object).with_context(|| format!("reading {}", object.display()))
}

fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags: Vec<String> = ["-Clinker=bpf-linker", "-Clink-arg=--btf"]
        .map(str::to_owned)
        .into();
    flags.extend(toolchain::remapped(Some(toolchain.library()))?);
    Ok(flags)
}

/// Replaces the object only when it differs: the gateway is built anew when it changes.
fn place(object: &[u8]) -> Result<PathBuf> {
    let path = object_path();
    if fs::read(&path).is_ok_and(|present| present == object) {
        return Ok(path);
    }
    let folder = path.parent().context("the object's folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    // Put there as a whole: another build may be reading, or the old file have other names.
    let fresh = path.with_extension("o.fresh");
    fs::write(&fresh, object).with_context(|| format!("writing {}", fresh.display()))?;
    fs::rename(&fresh, &path).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn source() -> PathBuf {
    cargo::workspace().join("gateway-ebpf")
}

fn object_path() -> PathBuf {
    target_dir().join("bpf/gateway-ebpf.o")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo would name it by its folder, and the object tell where it was built.
    #[test]
    fn no_crate_lies_outside_of_the_workspace() {
        let manifest = fs::read_to_string(source().join("Cargo.toml")).unwrap();
        let leads_out = |line: &&str| {
            ["path = \"..", "path = \"/"]
                .iter()
                .any(|path| line.contains(path))
        };
        assert_eq!(manifest.lines().find(leads_out), None);
    }
}
