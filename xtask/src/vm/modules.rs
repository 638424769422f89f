//! Which modules of a kernel are loaded, and in which order.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::command::run_bounded;

const DEPMOD_LIMIT: Duration = Duration::from_mins(1);
const XZ_LIMIT: Duration = Duration::from_secs(30);

/// What kTLS and its ciphers are made of, the devices by which tests play a network, and the
/// congestion control that clients get; there is no modprobe in the virtual machine that could
/// load them when they are asked for. Not every kernel has all of them.
const WANTED: [&str; 15] = [
    "tls",
    "gcm",
    "ghash-generic",
    "ghash-clmulni-intel",
    "ctr",
    "aesni-intel",
    "chacha20poly1305",
    "chacha",
    "chacha_generic",
    "chacha-x86_64",
    "poly1305_generic",
    "poly1305-x86_64",
    "tun",
    "veth",
    "tcp_bbr",
];

/// A kernel module, ready to be loaded.
pub(crate) struct Module {
    /// File name, as in `tls.ko`.
    pub(crate) name: String,
    /// The uncompressed file.
    pub(crate) content: Vec<u8>,
}

/// Writes `modules.dep` and its like, which Debian's packages leave to the machine that installs
/// them. `root` is where the package was unpacked.
pub(crate) fn index(root: &Path, release: &str) -> Result<()> {
    let mut depmod = Command::new("depmod");
    // Where an ordinary user's PATH may not lead.
    if let Some(program) = testkit::command::find_program("depmod") {
        depmod = Command::new(program);
    }
    depmod.arg("--basedir").arg(root).arg(release);
    run_bounded(depmod, DEPMOD_LIMIT)?;
    Ok(())
}

/// The wanted modules and what they need, in the order in which they are to be loaded. `folder`
/// is the kernel's folder of modules.
pub(crate) fn load(folder: &Path) -> Result<Vec<Module>> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let has_tls = builtin.lines().any(|path| stem(path) == "tls");
    let paths = order(&dependencies, &WANTED)?;
    ensure!(
        has_tls || paths.iter().any(|path| stem(path) == "tls"),
        "this kernel has no module tls"
    );
    paths.iter().map(|path| read_module(folder, path)).collect()
}

/// Paths of `wanted` modules as far as they are listed in this `modules.dep`, each after those
/// that it needs (man modules.dep: what is needed stands after the colon, innermost last).
fn order<'a>(text: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let (path, needs) = line
            .split_once(':')
            .with_context(|| format!("modules.dep has a line {line:?}"))?;
        entries.push((path, needs));
    }
    let mut seen = BTreeSet::new();
    let mut ordered = Vec::new();
    for name in wanted {
        let entry = entries
            .iter()
            .find(|(path, _)| stem(path) == canonical(name));
        let Some((path, needs)) = entry else {
            continue;
        };
        for path in needs.split_whitespace().rev().chain([*path]) {
            if seen.insert(path) {
                ordered.push(path);
            }
        }
    }
    Ok(ordered)
}

/// A module's name: that of its file up to the first dot.
fn stem(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split('.').next().unwrap_or(file))
}

/// The kernel makes no difference between both signs.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn read_module(folder: &Path, path: &str) -> Result<Module> {
    let file: PathBuf = folder.join(path);
    let extension = file.extension().and_then(|extension| extension.to_str());
    let content = match extension {
        Some("ko") => fs::read(&file).map_err(Into::into),
        Some("xz") => decompress(&file),
        _ => bail!("{} is compressed in an unknown way", file.display()),
    };
    let content = content.with_context(|| format!("reading {}", file.display()))?;
    Ok(Module {
        name: format!("{}.ko", stem(path)),
        content,
    })
}

fn decompress(file: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("module.xz");
    fs::copy(file, &copy)?;
    let mut xz = Command::new("xz");
    xz.arg("--decompress").arg(&copy);
    run_bounded(xz, XZ_LIMIT)?;
    Ok(fs::read(copy.with_extension(""))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
kernel/arch/x86/crypto/aesni-intel.ko.xz: kernel/crypto/crypto_simd.ko.xz kernel/crypto/cryptd.ko.xz
kernel/drivers/net/bonding/bonding.ko.xz: kernel/net/tls/tls.ko.xz
kernel/arch/x86/crypto/ghash-clmulni-intel.ko.xz: kernel/crypto/cryptd.ko.xz
kernel/crypto/cryptd.ko.xz:
kernel/net/tls/tls.ko.xz:
";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let wanted = ["tls", "absent", "aesni_intel", "ghash-clmulni-intel"];
        let stems: Vec<_> = order(TEXT, &wanted)
            .unwrap()
            .iter()
            .map(|path| stem(path))
            .collect();
        let expected = [
            "tls",
            "cryptd",
            "crypto_simd",
            "aesni_intel",
            "ghash_clmulni_intel",
        ];
        assert_eq!(stems, expected);
    }

    #[test]
    fn a_damaged_list_is_refused() {
        assert!(order("kernel/net/tls/tls.ko", &["tls"]).is_err());
        assert!(order("", &["tls"]).unwrap().is_empty());
    }
}
