//! The linker of the eBPF programs, which must be built with the LLVM whose bitcode the compiler
//! writes.

use anyhow::{Context, Result, bail};
use testkit::command::find_program;
use testkit::packages::{self, Package};

use crate::cargo;
use crate::toolchain::Toolchain;

/// Its version; a newer one may ask for a newer LLVM.
const VERSION: &str = "0.13.0";
/// LLVM that it can be built with from Debian's packages.
const DEBIAN_LLVM: u32 = 22;

/// Finds bpf-linker, or builds it; `note` is told before that takes long. Blocks.
pub(super) fn ensure(toolchain: &Toolchain, note: impl Fn(&str)) -> Result<()> {
    if find_program("bpf-linker").is_some() {
        return Ok(());
    }
    let llvm = toolchain.llvm()?;
    if llvm != DEBIAN_LLVM {
        bail!(
            "bpf-linker is missing, and this compiler has LLVM {llvm}. Install that LLVM with \
             its headers, then: LLVM_PREFIX=/usr/lib/llvm-{llvm} cargo install --locked \
             bpf-linker --no-default-features --features llvm-{llvm}"
        );
    }
    note(&format!(
        "building bpf-linker {VERSION}, which takes some minutes"
    ));
    packages::ensure(&[Package::Llvm])?;
    let feature = format!("llvm-{llvm}");
    let mut install = cargo::command(&[
        "install",
        "--locked",
        "--quiet",
        "bpf-linker",
        "--version",
        VERSION,
        "--no-default-features",
        "--features",
        &feature,
    ]);
    install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    let status = install.status().context("starting cargo install")?;
    if !status.success() {
        bail!("cargo install bpf-linker: {status}");
    }
    Ok(())
}
