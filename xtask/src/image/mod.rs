//! `cargo xtask image`: the gateway as an image for containers, made without a daemon and
//! without an image of others.

mod contents;
mod debian;
mod description;
mod layout;
mod tree;
pub(crate) mod trial;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use flate2::Compression;
use testkit::command::target_dir;

use crate::architecture::Architecture;
use crate::build_ebpf;
use crate::package::{self, Binary, Inside, Source};
use crate::steps::Steps;
use debian::Debian;
use description::Description;
use layout::{Layer, Layout, NAME};

/// Longest archive, in KiB: one that is longer has something in it that nobody wants.
const MOST: u64 = 40 * 1024;

/// What the image is made of.
#[derive(Args)]
pub(crate) struct Options {
    /// Processor that it is for; that of this machine when not given.
    #[arg(long, value_name = "NAME", conflicts_with = "native")]
    arch: Option<Architecture>,
    /// Take this program instead of building one. It is taken as it is, so strip it before.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["profile", "native"])]
    binary: Option<PathBuf>,
    /// Profile of cargo with which the gateway is built.
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// Link to this machine's C library instead of an old one's, without zig.
    #[arg(long)]
    native: bool,
    /// Version of the image; that of the gateway when not given.
    #[arg(long, value_name = "VERSION")]
    image_version: Option<String>,
    /// Make one of a gateway that is quick to build, and use it, as `cargo xtask test` does.
    #[arg(long, conflicts_with_all = ["arch", "binary", "profile", "native", "image_version"])]
    test: bool,
}

/// An image.
struct Made {
    /// Its layout, a folder.
    folder: PathBuf,
    /// The same as one archive.
    archive: PathBuf,
}

/// Builds the gateway and makes its image below the target folder; or tries one.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    if options.test {
        return trial::run(steps);
    }
    let architecture = Architecture::or_own(options.arch)?;
    let source = match &options.binary {
        Some(path) => Source::File(path),
        None if options.native => Source::Native(&options.profile),
        None => Source::Profile(&options.profile, architecture),
    };
    if options.binary.is_none() {
        build_ebpf::run(steps, &build_ebpf::Options::default())?;
    }
    let inside = package::for_image(steps, &source)?;
    let version = options.image_version.clone();
    let version = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let (folder, effort) = (folder(), Compression::best());
    make(steps, architecture, inside, version, effort, &folder)?;
    Ok(())
}

/// Makes the archive of one, of a gateway that was built, in a folder.
pub(crate) fn for_release(steps: &mut Steps, binary: &Binary, to: &Path) -> Result<()> {
    let inside = package::for_image(steps, &Source::Built(binary))?;
    let (architecture, version) = (binary.architecture(), binary.version()?);
    let made = make(
        steps,
        architecture,
        inside,
        version,
        Compression::best(),
        to,
    )?;
    fs::remove_dir_all(&made.folder).context("removing the layout, which the archive has too")
}

/// Where images are put.
fn folder() -> PathBuf {
    target_dir().join("image")
}

/// Makes one of a gateway that is quick to build and takes in the eBPF programs that are there.
fn for_test(steps: &mut Steps) -> Result<Made> {
    let architecture = Architecture::or_own(None)?;
    let inside = package::for_image(steps, &Source::Native("dev"))?;
    let version = "test".to_owned();
    let effort = Compression::fast();
    make(steps, architecture, inside, version, effort, &folder())
}

fn make(
    steps: &mut Steps,
    architecture: Architecture,
    inside: Inside,
    version: String,
    effort: Compression,
    folder: &Path,
) -> Result<Made> {
    steps.begin(format!(
        "Image for {}, version {version}",
        architecture.name()
    ));
    architecture.check(&inside.program)?;
    let mut debian = Debian::fetch(steps, architecture)?;
    let glibc = debian.glibc()?.to_owned();
    contents::check_libraries(&inside.program, architecture, &debian.tree, &glibc)?;
    contents::complete(&mut debian.tree);
    let gateway = contents::gateway(inside);
    let size = debian.tree.size() + gateway.size();

    let description = Description::new(version, architecture)?;
    let time = description.time;
    let packages: Vec<_> = debian
        .packages
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let packages = packages.join(", ");
    let layers = [
        Layer::new(&debian.tree, time, effort, format!("Debian: {packages}"))?,
        Layer::new(&gateway, time, effort, "the gateway".to_owned())?,
    ];
    let layout = Layout::new(&description, &layers)?;

    let name = format!(
        "{NAME}-{}-linux-{}",
        description.version,
        architecture.name()
    );
    let made = Made {
        archive: folder.join(format!("{name}.tar")),
        folder: folder.join(name),
    };
    layout.write(&made.folder)?;
    layout.write_archive(&made.archive, time)?;
    ensure!(
        kib(&made.archive)? < MOST,
        "{} has more than {MOST} KiB: is the program stripped?",
        made.archive.display()
    );
    steps.note(packages);
    steps.note(format!("layout {}", made.folder.display()));
    steps.note(format!("digest {}", layout.digest));
    steps.done(format!(
        "{}, {} KiB; {} KiB when unpacked",
        made.archive.display(),
        kib(&made.archive)?,
        size.div_ceil(1024)
    ));
    Ok(made)
}

fn kib(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len().div_ceil(1024))
}
