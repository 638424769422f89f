//! The package for Debian, made by dpkg's own tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use testkit::command::run_bounded;

use super::binary::{Binary, Glibc};
use super::read_source;
use super::tree::{self, KEPT, Layout};

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

    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let size = output(
        Command::new("du")
            .args(["-sk", "--apparent-size"])
            .arg(&root),
    )?;
    let control = read_source("debian/control")?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", &architecture)
        .replace(
            "@INSTALLED_SIZE@",
            size.split_whitespace().next().unwrap_or("0"),
        )
        .replace(
            "@DEPENDS@",
            &with_glibc(&libraries(work.path(), &root)?, binary.glibc()?),
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
    run_bounded(build, LIMIT)?;
    Ok(package)
}

/// The packages whose libraries the binary needs, with the versions that it needs.
fn libraries(work: &Path, root: &Path) -> Result<String> {
    // dpkg-shlibdeps wants to run beside a source package.
    fs::create_dir_all(work.join("debian"))?;
    fs::write(
        work.join("debian/control"),
        "Source: flexvdi-gateway\n\nPackage: flexvdi-gateway\nArchitecture: any\n",
    )?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps
        .current_dir(work)
        .arg("-O")
        .arg(root.join("usr/sbin/flexvdi-gateway"));
    let said = run_bounded(shlibdeps, LIMIT)?;
    let depends = said
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(depends
        .context("dpkg-shlibdeps named no packages")?
        .to_owned())
}

/// The C library from the version on whose symbols are asked for: dpkg knows only those of this
/// machine, and since glibc 2.34 that is where the symbols of libpthread and libdl are.
fn with_glibc(depends: &str, needed: Glibc) -> String {
    let packages = depends.split(", ").map(|package| {
        if package.split(' ').next() == Some("libc6") {
            format!("libc6 (>= {needed})")
        } else {
            package.to_owned()
        }
    });
    packages.collect::<Vec<_>>().join(", ")
}

/// What `dpkg --verify` compares installed files with; of the configuration dpkg keeps its own.
fn checksums(root: &Path) -> Result<String> {
    let mut find = Command::new("find");
    find.current_dir(root)
        .args(["usr", "lib", "-type", "f", "-exec", "md5sum", "{}", "+"]);
    run_bounded(find, LIMIT)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_may_be_as_old_as_the_binary_bears() {
        let depends = "libc6 (>= 2.34), libgcc-s1 (>= 4.2)";
        let expected = "libc6 (>= 2.28), libgcc-s1 (>= 4.2)";
        assert_eq!(with_glibc(depends, Glibc(2, 28)), expected);
        assert_eq!(with_glibc("libc6", Glibc(2, 36)), "libc6 (>= 2.36)");
    }
}
