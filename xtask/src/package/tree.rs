//! The files of a package, laid out as they will lie on the system.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::binary::Binary;
use super::{licences, manual_of_configuration, read_source};
use crate::cargo::workspace;

/// The configuration, for both kinds of package.
const CONFIGURATION: &str = "/etc/flexvdi/flexvdi-gateway.conf";

/// Empty, for files that override keys of the configuration.
const DROP_INS: &str = "/etc/flexvdi/flexvdi-gateway.conf.d";

/// What makes logrotate rotate the access log.
const LOGROTATE: &str = "/etc/logrotate.d/flexvdi-gateway";

/// Files that administrators change, and that an upgrade leaves as they are.
pub(super) const KEPT: [&str; 2] = [CONFIGURATION, LOGROTATE];

/// Where a kind of system looks for files.
pub(super) struct Layout {
    /// Units of systemd.
    pub(super) units: &'static str,
    /// Completions of zsh.
    pub(super) zsh: &'static str,
    /// Licence and its file's name.
    pub(super) licence: &'static str,
}

/// Lays out everything below `root`.
pub(super) fn lay_out(root: &Path, binary: &Binary, layout: &Layout) -> Result<()> {
    let put = |path: &str, content: &[u8]| put(root, path, content, 0o644);
    let packed = |path: &str, content: &str| put(path, &gzipped(content)?);

    install_binary(root, binary)?;
    put(
        CONFIGURATION,
        read_source("flexvdi-gateway.conf")?.as_bytes(),
    )?;
    fs::create_dir_all(root.join(DROP_INS.trim_start_matches('/')))?;
    let unit = format!("{}/flexvdi-gateway.service", layout.units);
    for (path, name) in [
        (unit.as_str(), "systemd/flexvdi-gateway.service"),
        (LOGROTATE, "flexvdi-gateway.logrotate"),
        (
            "/usr/lib/sysusers.d/flexvdi-gateway.conf",
            "systemd/sysusers.conf",
        ),
        (
            "/usr/lib/modules-load.d/flexvdi-gateway.conf",
            "systemd/modules-load.conf",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/sockmap.conf",
            "systemd/sockmap.conf",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/desktops.json",
            "desktops.json",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/desktops.schema.json",
            "desktops.schema.json",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/apparmor/usr.sbin.flexvdi-gateway",
            "apparmor/usr.sbin.flexvdi-gateway",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/selinux/flexvdi_gateway.te",
            "selinux/flexvdi_gateway.te",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/selinux/flexvdi_gateway.fc",
            "selinux/flexvdi_gateway.fc",
        ),
        (
            "/usr/share/doc/flexvdi-gateway/flexvdi-gateway.schema.json",
            "flexvdi-gateway.schema.json",
        ),
        (
            "/usr/lib/firewalld/services/flexvdi-gateway.xml",
            "firewalld/flexvdi-gateway.xml",
        ),
    ] {
        put(path, read_source(name)?.as_bytes())?;
    }

    let zsh = format!("{}/_flexvdi-gateway", layout.zsh);
    for (path, shell) in [
        (
            "/usr/share/bash-completion/completions/flexvdi-gateway",
            "bash",
        ),
        (
            "/usr/share/fish/vendor_completions.d/flexvdi-gateway.fish",
            "fish",
        ),
        (zsh.as_str(), "zsh"),
    ] {
        put(path, binary.document(shell)?.as_bytes())?;
    }

    packed(
        "/usr/share/man/man8/flexvdi-gateway.8.gz",
        &binary.document("man")?,
    )?;
    packed(
        "/usr/share/man/man5/flexvdi-gateway.conf.5.gz",
        &manual_of_configuration()?,
    )?;
    for name in ["README.md", "CHANGELOG.md"] {
        let path = format!("/usr/share/doc/flexvdi-gateway/{name}.gz");
        packed(&path, &read(name)?)?;
    }
    for entry in fs::read_dir(workspace().join("docs"))? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str()
            && name.strip_suffix(".md").is_some()
        {
            let path = format!("/usr/share/doc/flexvdi-gateway/docs/{name}.gz");
            packed(&path, &read(&format!("docs/{name}"))?)?;
        }
    }
    let third_party = format!("{}/third-party.txt.gz", folder_of(layout.licence));
    packed(&third_party, &licences::third_party()?)?;
    put(layout.licence, copyright()?.as_bytes())
}

/// Puts a file below `root`, with the folders that it lies in.
pub(super) fn put(root: &Path, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let target = root.join(path.trim_start_matches('/'));
    let folder = target.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(&target, content).with_context(|| format!("writing {}", target.display()))?;
    fs::set_permissions(&target, Permissions::from_mode(mode))?;
    Ok(())
}

fn install_binary(root: &Path, binary: &Binary) -> Result<()> {
    let path = "usr/sbin/flexvdi-gateway";
    put(root, path, &[], 0o755)?;
    binary.strip(&root.join(path))?;
    fs::set_permissions(root.join(path), Permissions::from_mode(0o755))?;
    Ok(())
}

/// A text packed by gzip, without the time of that.
pub(super) fn gzipped(content: &str) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(content.as_bytes())?;
    Ok(gzip.finish()?)
}

/// In the format that Debian reads, and people too.
pub(super) fn copyright() -> Result<String> {
    let mut text = read_source("debian/copyright")?;
    text.push_str("License: MIT\n");
    for line in read("LICENSE-MIT")?.lines() {
        text.push(' ');
        text.push_str(if line.is_empty() { "." } else { line });
        text.push('\n');
    }
    Ok(text)
}

/// A file of the workspace.
pub(super) fn read(name: &str) -> Result<String> {
    let path = workspace().join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
