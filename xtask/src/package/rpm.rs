//! The package for Red Hat's systems, made by rpmbuild.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use testkit::command::run_bounded;

use super::binary::Binary;
use super::source;
use super::tree::{self, Layout};
use crate::git::source_time;

const LIMIT: Duration = Duration::from_mins(5);

const LAYOUT: Layout = Layout {
    units: "/usr/lib/systemd/system",
    zsh: "/usr/share/zsh/site-functions",
    licence: "/usr/share/licenses/flexvdi-gateway/copyright",
};

/// Makes it in `folder`, and gives back its path.
pub(super) fn build(binary: &Binary, version: &str, folder: &Path) -> Result<PathBuf> {
    let work = TempDir::with_prefix("flexvdi-gateway-rpm-")?;
    let staged = work.path().join("staged");
    tree::lay_out(&staged, binary, &LAYOUT)?;
    let made = work.path().join("made");
    let mut build = Command::new("rpmbuild");
    build.arg("-bb");
    // The whole triple, as rpm would otherwise take its own system's.
    let architecture = binary.architecture().of_rpm();
    build.args(["--target", &format!("{architecture}-redhat-linux")]);
    build.env("SOURCE_DATE_EPOCH", source_time()?.to_string());
    for (name, value) in [
        ("_topdir", work.path().join("top")),
        ("_rpmdir", made.clone()),
        (
            "_build_name_fmt",
            "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".into(),
        ),
        // Nothing of the machine, and of the time only that of the source.
        ("_buildhost", "localhost".into()),
        ("use_source_date_epoch_as_buildtime", "1".into()),
        ("clamp_mtime_to_source_date_epoch", "1".into()),
        ("staged", staged),
        ("gateway_version", version.into()),
        (
            "effort",
            if binary.is_for_tests() { "1" } else { "9" }.into(),
        ),
    ] {
        build
            .arg("--define")
            .arg(format!("{name} {}", value.display()));
    }
    build.arg(source("rpm/flexvdi-gateway.spec"));
    run_bounded(build, LIMIT)?;

    let entry = fs::read_dir(&made)?
        .next()
        .context("rpmbuild left no package")??;
    let package = folder.join(entry.file_name());
    fs::copy(entry.path(), &package).with_context(|| format!("writing {}", package.display()))?;
    Ok(package)
}
