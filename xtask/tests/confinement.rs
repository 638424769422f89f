//! The profile and the policy module in `packaging`: what the tools of `AppArmor` and `SELinux` make
//! of them.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::command::{find_program, run_bounded};
use testkit::packages::{self, Package};

const LIMIT: Duration = Duration::from_mins(1);

#[test]
#[cfg_attr(unprivileged, ignore = "apparmor_parser may have to be installed")]
fn the_apparmor_profile_is_one_and_only_complains() {
    packages::ensure(&[Package::Apparmor]).unwrap();
    let profile = packaging("apparmor/usr.sbin.flexvdi-gateway");
    parse(&profile).unwrap();

    let text = std::fs::read_to_string(&profile).unwrap();
    assert!(text.contains("flags=(complain)"), "it would refuse");

    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, text.replace("network inet stream,", "network inet")).unwrap();
    assert!(parse(&wrong).is_err());
}

/// Compiles a profile, and does not give it to the kernel.
fn parse(profile: &Path) -> anyhow::Result<String> {
    let mut parser = Command::new(find_program("apparmor_parser").unwrap());
    parser.args(["--skip-kernel-load", "--skip-cache"]);
    parser.arg(profile);
    run_bounded(parser, LIMIT)
}

/// With the commands of docs/operations.md.
#[test]
#[cfg_attr(unprivileged, ignore = "checkmodule may have to be installed")]
fn the_selinux_module_can_be_compiled() {
    packages::ensure(&[Package::Checkpolicy]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["flexvdi_gateway.te", "flexvdi_gateway.fc"] {
        let from = packaging("selinux").join(name);
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    let document = std::fs::read_to_string(packaging("../docs/operations.md")).unwrap();
    let commands: Vec<_> = document
        .lines()
        .filter(|line| line.starts_with("checkmodule ") || line.starts_with("semodule_package "))
        .collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let mut shell = Command::new("sh");
    shell.args(["-ec", &commands.join("\n")]);
    shell.current_dir(folder.path());
    run_bounded(shell, LIMIT).unwrap();
    assert!(folder.path().join("flexvdi_gateway.pp").is_file());
    let module = std::fs::read_to_string(packaging("selinux/flexvdi_gateway.te")).unwrap();
    assert!(
        module.contains("\npermissive flexvdi_gateway_t;"),
        "it would refuse"
    );
}

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name)
}
