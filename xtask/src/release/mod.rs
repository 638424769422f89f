//! `cargo xtask release`: everything that is published of a version, from the commit that is
//! tagged with it.

mod bill;
mod checksums;
mod documents;
mod source;
mod twice;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use testkit::command::target_dir;
use testkit::packages;

use crate::architecture::Architecture;
use crate::build_ebpf;
use crate::image;
use crate::package;
use crate::repository::{self, Key};
use crate::steps::Steps;
use source::{Source, VERSION};

/// What is released, and how.
#[derive(Args)]
pub(crate) struct Options {
    /// Sign packages, repositories and checksums with this key of gpg; without it nothing is
    /// signed.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Release what is checked out, for trying: no tag, no date in the changelog, and changes that
    /// are not committed.
    #[arg(long)]
    allow_untagged: bool,
    /// Make everything a second time, from a copy of the commit in another folder, and fail unless
    /// each file has the same bytes. What is signed is compared before.
    #[arg(long)]
    verify: bool,
    /// Only for this processor, for trying; may be given several times.
    #[arg(long, value_name = "NAME", requires = "allow_untagged")]
    arch: Vec<Architecture>,
    /// Profile of cargo with which the gateway is built, for trying.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "release",
        requires = "allow_untagged"
    )]
    profile: String,
    /// Folder that gets everything, without anything in it. Default: `releases/VERSION` in the
    /// target folder, which is emptied.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// What a release is built of, wherever that is done.
struct Build<'a> {
    profile: &'a str,
    architectures: &'a [Architecture],
}

/// Makes it, and signs it.
pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<()> {
    steps.begin(format!("Source of version {VERSION}"));
    let source = Source::read()?;
    if !options.allow_untagged {
        source.check()?;
    }
    ensure!(
        !options.verify || source.is_clean(),
        "--verify compares builds of what is committed, and there are changes that are not"
    );
    let key = options.key.as_deref().map(Key::find).transpose()?;
    // Before anything that takes long.
    packages::ensure(&[package::TOOLS, repository::TOOLS].concat())?;
    steps.done(&source);

    let build = Build {
        profile: &options.profile,
        architectures: if options.arch.is_empty() {
            &Architecture::ALL
        } else {
            &options.arch
        },
    };
    let to = if let Some(folder) = &options.to {
        new_folder(folder)?
    } else {
        let folder = target_dir().join("releases").join(VERSION);
        if folder.exists() {
            fs::remove_dir_all(&folder).context("removing what an earlier command has made")?;
        }
        new_folder(&folder)?
    };
    make(steps, &build, &to)?;
    if options.verify {
        twice::verify(steps, &build, source.commit(), &to)?;
    }
    if let Some(key) = &key {
        steps.begin("Signatures");
        key.sign_rpms(&to)?;
        steps.done(format!("packages for Red Hat's systems, by {key}"));
        repository::make(steps, &to, &to, Some(key))?;
    }
    steps.begin("Checksums");
    let list = checksums::write(&to)?;
    if let Some(key) = &key {
        key.sign(&list)?;
        key.write_public(&to.join(repository::PUBLIC_KEY))?;
    }
    let signed = key.map_or_else(|| "UNSIGNED".to_owned(), |key| format!("signed by {key}"));
    steps.done(format!("{}, {signed}", list.display()));
    steps.summary();
    Ok(())
}

/// Makes all files in a folder, none of them signed.
fn make(steps: &mut Steps, build: &Build<'_>, to: &Path) -> Result<()> {
    build_ebpf::run(steps, &build_ebpf::Options::default())?;
    for (number, architecture) in build.architectures.iter().enumerate() {
        let binary = package::for_release(steps, build.profile, *architecture, to)?;
        ensure!(
            binary.version()? == VERSION,
            "the gateway says that it is {}, not {VERSION}",
            binary.version()?
        );
        image::for_release(steps, &binary, to)?;
        if number == 0 {
            // The same for all.
            documents::write(steps, &binary, to)?;
        }
    }
    bill::write(steps, build.architectures, to)?;
    repository::make(steps, to, to, None)
}

/// The second of two builds that are compared, in a process of its own: see [`twice`].
pub(crate) fn make_again(steps: &mut Steps, options: &Again) -> Result<()> {
    let build = Build {
        profile: &options.profile,
        architectures: &options.arch,
    };
    make(steps, &build, &new_folder(&options.to)?)
}

/// What the second build is told.
#[derive(Args)]
pub(crate) struct Again {
    #[arg(long)]
    profile: String,
    #[arg(long)]
    arch: Vec<Architecture>,
    #[arg(long)]
    to: PathBuf,
}

/// A folder that holds nothing.
fn new_folder(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut entries = fs::read_dir(folder)?;
    ensure!(
        entries.next().is_none(),
        "{} holds something already",
        folder.display()
    );
    Ok(folder.canonicalize()?)
}
