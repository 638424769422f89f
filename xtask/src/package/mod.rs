//! `cargo xtask package`: the gateway as packages for Debian and for Red Hat's systems.

mod audit;
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

use crate::architecture::Architecture;
use crate::build_ebpf;
use crate::cargo;
use crate::steps::Steps;
pub(crate) use binary::Binary;
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
    /// Processor that they are for; that of this machine when not given.
    #[arg(long, value_name = "NAME", conflicts_with = "native")]
    arch: Option<Architecture>,
    /// Profile of cargo with which the gateway is built.
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// Link to this machine's C library instead of an old one's, without zig, and without the list
    /// of what is inside.
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
    // Before anything that takes long.
    packages::ensure(&kinds.iter().map(|kind| kind.tools()).collect::<Vec<_>>())?;
    build_ebpf::run(steps, &build_ebpf::Options::default())?;
    let binary = if options.native {
        build(steps, &options.profile)?
    } else {
        let architecture = Architecture::or_own(options.arch)?;
        build_for_older(steps, &options.profile, architecture)?
    };
    let version = match &options.package_version {
        Some(version) => version.clone(),
        None => binary.version()?,
    };
    for kind in kinds {
        kind.make(steps, &binary, &version, &folder())?;
    }
    Ok(())
}

/// Builds the gateway for systems of another processor or an older C library, and makes both of
/// its packages in a folder. Takes in the eBPF programs that are there.
pub(crate) fn for_release(
    steps: &mut Steps,
    profile: &str,
    architecture: Architecture,
    folder: &Path,
) -> Result<Binary> {
    let binary = build_for_older(steps, profile, architecture)?;
    let version = binary.version()?;
    for kind in [Kind::Debian, Kind::RedHat] {
        kind.make(steps, &binary, &version, folder)?;
    }
    Ok(binary)
}

/// What both packages are made with, besides what builds the gateway.
pub(crate) const TOOLS: [Package; 2] = [Package::Dpkg, Package::Rpm];

/// Where packages are put.
fn folder() -> PathBuf {
    target_dir().join("packages")
}

/// Makes both packages in these versions, of a gateway that is quick to build and takes in the
/// eBPF programs that are there.
pub(crate) fn for_test<const N: usize>(
    steps: &mut Steps,
    versions: [&str; N],
) -> Result<[Made; N]> {
    packages::ensure(&TOOLS)?;
    let binary = build(steps, "dev")?;
    let glibc = binary.glibc()?.to_string();
    let made = versions
        .into_iter()
        .map(|version| {
            Ok(Made {
                deb: Kind::Debian.make(steps, &binary, version, &folder())?,
                rpm: Kind::RedHat.make(steps, &binary, version, &folder())?,
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
        Source::Native(profile) => stripped(&build(steps, profile)?)?,
        Source::Built(binary) => stripped(binary)?,
        Source::Profile(profile, architecture) => {
            stripped(&build_for_older(steps, profile, *architecture)?)?
        }
    };
    Ok(Inside {
        program,
        licence: tree::copyright()?,
        third_party: tree::gzipped(&licences::third_party()?)?,
    })
}

fn stripped(binary: &Binary) -> Result<Vec<u8>> {
    let folder = TempDir::with_prefix("flexvdi-gateway-stripped-")?;
    let path = folder.path().join("flexvdi-gateway");
    binary.strip(&path)?;
    fs::read(path).context("reading the program")
}

/// Where the program of an image comes from.
pub(crate) enum Source<'a> {
    /// It is there, as it is to be.
    File(&'a Path),
    /// It was built.
    Built(&'a Binary),
    /// It is built with this profile of cargo, linked to an old C library.
    Profile(&'a str, Architecture),
    /// The same, linked to this machine's C library.
    Native(&'a str),
}

/// For systems from the oldest one on that the packages are for.
fn build_for_older(steps: &mut Steps, profile: &str, architecture: Architecture) -> Result<Binary> {
    steps.begin(format!(
        "Gateway for {}, profile {profile}, for glibc {}",
        architecture.name(),
        zig::OLDEST
    ));
    Zig::ensure(steps)?.build(steps, profile, architecture)?;
    let binary = Binary::of_target(steps, profile, architecture)?;
    let inside = audit::check(&binary)?;
    let needed = binary.glibc()?;
    ensure!(
        needed <= zig::OLDEST,
        "the gateway needs glibc {needed}, which is newer than {}",
        zig::OLDEST
    );
    steps.note(format!(
        "{inside} libraries inside, which the program lists"
    ));
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
    let binary = Binary::native(profile)?;
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
            Self::Debian => Package::Dpkg,
            Self::RedHat => Package::Rpm,
        }
    }

    fn make(
        self,
        steps: &mut Steps,
        binary: &Binary,
        version: &str,
        folder: &Path,
    ) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let package = match self {
            Self::Debian => {
                steps.begin(format!("Package for Debian, version {version}"));
                debian::build(binary, version, folder)?
            }
            Self::RedHat => {
                steps.begin(format!("Package for Red Hat's systems, version {version}"));
                rpm::build(binary, version, folder)?
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

/// flexvdi-gateway.conf(5).
pub(crate) fn manual_of_configuration() -> Result<String> {
    manual::configuration_page(&tree::read("docs/configuration.md")?)
}

/// A file of the folder `packaging`.
fn source(name: &str) -> PathBuf {
    cargo::workspace().join("packaging").join(name)
}

fn read_source(name: &str) -> Result<String> {
    let path = source(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}
