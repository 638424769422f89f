//! Kernels on this machine: fetched once, unpacked, and kept below `target/vm/kernels`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::command::{run_bounded, target_dir};

use super::archive;
use super::class::{Class, KernelPackage, Source};
use super::modules::{self, Module};

const UNPACK_LIMIT: Duration = Duration::from_mins(2);

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// The package that it comes from.
    pub(crate) package: KernelPackage,
    /// What QEMU boots.
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// Its modules, in the order in which they are to be loaded.
    pub(crate) fn modules(&self) -> Result<Vec<Module>> {
        modules::load(&self.modules)
    }

    /// The kernel in this folder, into which its package was unpacked.
    fn in_folder(package: KernelPackage, folder: &Path) -> Result<Self> {
        let release = release(folder)?;
        Ok(Self {
            package,
            image: folder.join("boot").join(format!("vmlinuz-{release}")),
            modules: folder.join("lib/modules").join(release),
        })
    }
}

/// All kernels that can be had: those of the archive and those that were fetched before.
pub(crate) struct Store {
    folder: PathBuf,
    packages: Vec<KernelPackage>,
    /// Why the archive could not be asked.
    pub(crate) problem: Option<anyhow::Error>,
}

impl Store {
    /// Asks the archive, also for backports where one of these classes wants them, and looks at
    /// what is kept. An archive out of reach is no error as long as there is a kernel.
    pub(crate) fn open(classes: &[Class]) -> Result<Self> {
        let folder = target_dir().join("vm/kernels");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        // Some programs are started elsewhere.
        let folder = folder.canonicalize()?;
        let mut packages = kept(&folder)?;
        let mut asked = vec![archive::kernels()];
        if classes.iter().any(|class| class.backports) {
            asked.push(archive::backports(&lists()));
        }
        let mut problem = None;
        for answer in asked {
            match answer {
                Ok(found) => packages.extend(found),
                Err(error) => problem = Some(error),
            }
        }
        Ok(Self {
            folder,
            packages,
            problem,
        })
    }

    /// The package that stands for this class.
    pub(crate) fn resolve(&self, class: &Class) -> Option<KernelPackage> {
        class.choose(&self.packages).into_iter().next()
    }

    /// Whether it has been fetched.
    pub(crate) fn is_kept(&self, package: &KernelPackage) -> bool {
        self.place(package).is_dir()
    }

    /// The kernel that stands for this class, fetched if it is not kept. When that fails, a kept
    /// one of the class takes its place.
    pub(crate) fn kernel(&self, class: &Class) -> Result<Kernel> {
        let candidates = class.choose(&self.packages);
        let Some(newest) = candidates.first() else {
            bail!(
                "neither the archive nor target/vm has a kernel of the class {}",
                class.name
            );
        };
        if !self.is_kept(newest)
            && let Err(problem) = self.fetch(newest)
        {
            let kept = candidates.iter().find(|package| self.is_kept(package));
            let Some(kept) = kept else {
                return Err(problem);
            };
            return Kernel::in_folder(kept.clone(), &self.place(kept));
        }
        Kernel::in_folder(newest.clone(), &self.place(newest))
    }

    fn place(&self, package: &KernelPackage) -> PathBuf {
        self.folder
            .join(format!("{}_{}", package.name, package.version))
    }

    fn fetch(&self, package: &KernelPackage) -> Result<()> {
        let fresh = tempfile::Builder::new()
            .prefix("fetching-")
            .tempdir_in(&self.folder)?;
        let root = fresh.path().join("root");
        for file in archive::download(package, fresh.path(), &lists())? {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&file).arg(&root);
            run_bounded(unpack, UNPACK_LIMIT)?;
        }
        lay_out(&root)?;
        modules::index(&root, &release(&root)?)?;
        // Complete or not there at all.
        let place = self.place(package);
        fs::rename(&root, &place).with_context(|| format!("making {}", place.display()))
    }
}

/// Where apt's lists of backports are.
fn lists() -> PathBuf {
    target_dir().join("vm/backports")
}

/// The packages whose kernels are in this folder.
fn kept(folder: &Path) -> Result<Vec<KernelPackage>> {
    let mut packages = Vec::new();
    for entry in folder.read_dir()? {
        let name = entry?.file_name();
        let parts = name.to_str().and_then(|name| name.split_once('_'));
        if let Some((name, version)) = parts
            && KernelPackage::is_kernel(name)
        {
            packages.push(KernelPackage {
                name: name.to_owned(),
                version: version.to_owned(),
                source: Source::Configured,
            });
        }
    }
    Ok(packages)
}

/// Moves what newer packages have below `usr/lib/modules`, the kernel's image included, to where
/// older ones have it.
fn lay_out(root: &Path) -> Result<()> {
    let (merged, modules) = (root.join("usr/lib/modules"), root.join("lib/modules"));
    if !merged.is_dir() || modules.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(root.join("lib"))?;
    fs::rename(&merged, &modules).context("moving the modules")?;
    for entry in modules.read_dir()? {
        let folder = entry?;
        let image = folder.path().join("vmlinuz");
        if image.is_file() {
            fs::create_dir_all(root.join("boot"))?;
            let name = format!("vmlinuz-{}", folder.file_name().display());
            fs::rename(image, root.join("boot").join(name)).context("moving the kernel")?;
        }
    }
    Ok(())
}

/// What `uname -r` will say of the kernel that was unpacked into this folder.
fn release(root: &Path) -> Result<String> {
    let boot = root.join("boot");
    let entries = boot
        .read_dir()
        .with_context(|| format!("reading {}", boot.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        if let Some(release) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
            return Ok(release.to_owned());
        }
    }
    bail!("{} has no kernel", boot.display())
}
