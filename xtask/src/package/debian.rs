//! The package for Debian, made by dpkg's own tools.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use testkit::command::run_bounded;

use super::binary::{Binary, Glibc};
use super::read_source;
use super::tree::{self, KEPT, Layout};
use crate::git::source_time;

const LIMIT: Duration = Duration::from_mins(5);

const LAYOUT: Layout = Layout {
    units: "/lib/systemd/system",
    zsh: "/usr/share/zsh/vendor-completions",
    licence: "/usr/share/doc/flexvdi-gateway/copyright",
};

/// Makes it in `folder`, and gives back its path.
pub(super) fn build(binary: &Binary, version: &str, folder: &Path) -> Result<PathBuf> {
    let work = TempDir::with_prefix("flexvdi-gateway-deb-")?;
    let root = work.path().join("root");
    tree::lay_out(&root, binary, &LAYOUT)?;

    let architecture = binary.architecture().name();
    let size = output(
        Command::new("du")
            .args(["-sk", "--apparent-size"])
            .arg(&root),
    )?;
    let control = read_source("debian/control")?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace(
            "@INSTALLED_SIZE@",
            size.split_whitespace().next().unwrap_or("0"),
        )
        .replace(
            "@DEPENDS@",
            &depends(&binary.libraries()?, binary.glibc()?)?,
        );
    let put = |name: &str, content: &str, mode| {
        tree::put(&root, &format!("DEBIAN/{name}"), content.as_bytes(), mode)
    };
    put("md5sums", &checksums(&root)?, 0o644)?;
    put("control", &control, 0o644)?;
    put("conffiles", &format!("{}\n", KEPT.join("\n")), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        put(script, &read_source(&format!("debian/{script}"))?, 0o755)?;
    }

    let package = folder.join(format!("flexvdi-gateway_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    // What every dpkg reads; the least effort for a package that only a test installs.
    let effort = if binary.is_for_tests() { "-z0" } else { "-z6" };
    build.args(["--root-owner-group", "-Zxz", effort, "--build"]);
    build.arg(&root).arg(&package);
    build.env("SOURCE_DATE_EPOCH", source_time()?.to_string());
    run_bounded(build, LIMIT)?;
    Ok(package)
}

/// The packages whose libraries the binary needs, with the versions that it needs. dpkg-shlibdeps
/// knows only the packages of this machine, with their processor and their version.
fn depends(libraries: &[String], glibc: Glibc) -> Result<String> {
    let mut packages = BTreeSet::new();
    for library in libraries {
        packages.insert(match library.as_str() {
            "libc.so.6" | "libdl.so.2" | "libm.so.6" | "libpthread.so.0" | "librt.so.1" => {
                format!("libc6 (>= {glibc})")
            }
            name if name.starts_with("ld-linux") => format!("libc6 (>= {glibc})"),
            // The symbols that Rust uses are in every version.
            "libgcc_s.so.1" => "libgcc-s1".to_owned(),
            other => bail!("the gateway is linked to {other}, of which no package is known"),
        });
    }
    ensure!(!packages.is_empty(), "the gateway is linked to no library");
    Ok(packages.into_iter().collect::<Vec<_>>().join(", "))
}

/// What `dpkg --verify` compares installed files with; of the configuration dpkg keeps its own.
fn checksums(root: &Path) -> Result<String> {
    let mut find = Command::new("find");
    find.current_dir(root)
        .args(["usr", "lib", "-type", "f", "-exec", "md5sum", "{}", "+"]);
    let listed = run_bounded(find, LIMIT)?;
    let mut lines: Vec<_> = listed.lines().collect();
    // In an order that does not depend on the file system.
    lines.sort_by_key(|line| line.split_once("  ").map(|(_, path)| path));
    Ok(format!("{}\n", lines.join("\n")))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_has_its_package_once() {
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            depends(&names, Glibc(2, 28)).map_err(|error| error.to_string())
        };
        let linked = [
            "libgcc_s.so.1",
            "libc.so.6",
            "ld-linux-aarch64.so.1",
            "libm.so.6",
        ];
        assert_eq!(of(&linked).unwrap(), "libc6 (>= 2.28), libgcc-s1");
        assert!(of(&["libssl.so.3"]).unwrap_err().contains("libssl.so.3"));
        assert!(of(&[]).is_err());
    }
}
