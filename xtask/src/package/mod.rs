//! `cargo xtask package`: the gateway as packages for Debian and for Red Hat's systems.

mod binary;
mod debian;
mod licences;
mod manual;
mod rpm;
mod tree;
mod zig;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;
use testkit::command::target_dir;
use testkit::packages::{self, Package};

use crate::build_ebpf;
use crate::cargo;
use crate::steps::Steps;
use binary::Binary;
use zig::Zig;

/// What is to be packaged.
#[derive(Args)]
pub(crate) struct Options {
    /// Make the package for Debian; both are made when neither is named.
    #[arg(long)]
    deb: bool,
    /// Make the package for Red Hat's systems.
    #[arg(long)]
    rpm: bool,
    /// Profile of cargo with which the gateway is built.
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// Link to this machine's C library instead of an old one's, without zig.
    #[arg(long)]
    native: bool,
    /// Version of the packages; that of the gateway when not given.
    #[arg(long, value_name = "VERSION")]
    package_version: Option<String>,
}

/// Both packages of one version.
pub(crate) struct Made {
    /// For Debian.
    pub(crate) deb: PathBuf,
    /// For Red Hat's systems.
    pub(crate) rpm: PathBuf,
    /// Version of glibc that both need, such as `2.28`.
    pub(crate) glibc: String,
}

/// Builds the gateway and makes its packages below the target folder.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    let kinds = if options.deb || options.rpm {
        [(Kind::Debian, options.deb), (Kind::RedHat, options.rpm)]
    } else {
        [(Kind::Debian, true), (Kind::RedHat, true)]
    };
    let kinds: Vec<_> = kinds
        .into_iter()
        .filter_map(|(kind, wanted)| wanted.then_some(kind))
        .collect();
    packages::ensure(&kinds.iter().map(|kind| kind.tools()).collect::<Vec<_>>())?;
    build_ebpf::run(steps, &build_ebpf::Options::default())?;
    let binary = if options.native {
        build(steps, &options.profile)?
    } else {
        build_for_older(steps, &options.profile)?
    };
    let version = match &options.package_version {
        Some(version) => version.clone(),
        None => binary.version()?,
    };
    for kind in kinds {
        kind.make(steps, &binary, &version)?;
    }
    Ok(())
}

/// Makes both packages in these versions, of a gateway that is quick to build and takes in the
/// eBPF programs that are there.
pub(crate) fn for_test<const N: usize>(
    steps: &mut Steps,
    versions: [&str; N],
) -> Result<[Made; N]> {
    packages::ensure(&[Kind::Debian.tools(), Kind::RedHat.tools()])?;
    let binary = build(steps, "dev")?;
    let glibc = binary.glibc()?.to_string();
    let made = versions
        .into_iter()
        .map(|version| {
            Ok(Made {
                deb: Kind::Debian.make(steps, &binary, version)?,
                rpm: Kind::RedHat.make(steps, &binary, version)?,
                glibc: glibc.clone(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(made.try_into().ok().expect("one for each version"))
}

/// What an image has of the gateway.
pub(crate) struct Inside {
    /// The program, without what only debuggers read.
    pub(crate) program: Vec<u8>,
    /// Its licence.
    pub(crate) licence: String,
    /// Those of the libraries inside, packed by gzip.
    pub(crate) third_party: Vec<u8>,
}

/// Builds the gateway for an image, as [`run`] and [`for_test`] build it for packages; or takes
/// a program that was built and stripped elsewhere.
pub(crate) fn for_image(steps: &mut Steps, source: &Source<'_>) -> Result<Inside> {
    let program = match source {
        Source::File(path) => {
            fs::read(path).with_context(|| format!("reading {}", path.display()))?
        }
        Source::Profile { name, native } => {
            packages::ensure(&[Package::DpkgDev])?;
            let binary = if *native {
                build(steps, name)?
            } else {
                build_for_older(steps, name)?
            };
            let stripped = TempDir::with_prefix("flexvdi-gateway-stripped-")?;
            let path = stripped.path().join("flexvdi-gateway");
            tree::strip(binary.path(), &path)?;
            fs::read(path).context("reading the program")?
        }
    };
    Ok(Inside {
        program,
        licence: tree::copyright()?,
        third_party: tree::gzipped(&licences::third_party()?)?,
    })
}

/// Where the program of an image comes from.
pub(crate) enum Source<'a> {
    /// It is there.
    File(&'a Path),
    /// It is built with this profile of cargo.
    Profile {
        /// The profile.
        name: &'a str,
        /// Linked to this machine's C library instead of an old one's.
        native: bool,
    },
}

/// For systems from the oldest one on that the packages are for.
fn build_for_older(steps: &mut Steps, profile: &str) -> Result<Binary> {
    steps.begin(format!(
        "Gateway, profile {profile}, for glibc {}",
        zig::OLDEST
    ));
    Zig::ensure(steps)?.build(profile)?;
    let binary = Binary::find(profile, Some(&zig::target()))?;
    let needed = binary.glibc()?;
    ensure!(
        needed <= zig::OLDEST,
        "the gateway needs glibc {needed}, which is newer than {}",
        zig::OLDEST
    );
    steps.done(format!("built; {}", binary.where_it_runs()?));
    Ok(binary)
}

/// For this machine and those whose C library is not older.
fn build(steps: &mut Steps, profile: &str) -> Result<Binary> {
    steps.begin(format!("Gateway, profile {profile}"));
    if profile == binary::TEST_PROFILE {
        cargo::build_for_tests()?;
    } else {
        cargo::run(&["build", "-p", "gateway", "--profile", profile])?;
    }
    let binary = Binary::find(profile, None)?;
    steps.done(format!("built; {}", binary.where_it_runs()?));
    Ok(binary)
}

#[derive(Clone, Copy)]
enum Kind {
    Debian,
    RedHat,
}

impl Kind {
    fn tools(self) -> Package {
        match self {
            Self::Debian => Package::DpkgDev,
            Self::RedHat => Package::Rpm,
        }
    }

    fn make(self, steps: &mut Steps, binary: &Binary, version: &str) -> Result<PathBuf> {
        let folder = target_dir().join("packages");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let package = match self {
            Self::Debian => {
                steps.begin(format!("Package for Debian, version {version}"));
                debian::build(binary, version, &folder)?
            }
            Self::RedHat => {
                steps.begin(format!("Package for Red Hat's systems, version {version}"));
                rpm::build(binary, version, &folder)?
            }
        };
        steps.done(described(&package)?);
        Ok(package)
    }
}

fn described(package: &Path) -> Result<String> {
    let size = fs::metadata(package)?.len();
    Ok(format!(
        "{}, {} KiB",
        package.display(),
        size.div_ceil(1024)
    ))
}

/// A file of the folder `packaging`.
fn source(name: &str) -> PathBuf {
    cargo::workspace().join("packaging").join(name)
}

fn read_source(name: &str) -> Result<String> {
    let path = source(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}
