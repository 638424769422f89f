//! All files of a virtual machine, in one archive that the kernel unpacks into its memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testkit::vm::{MANIFEST, Manifest, Program};

use super::build::Programs;
use super::cpio::Cpio;
use super::linked::Linked;
use super::modules::Module;
use super::paths::PROBE;

const FOLDERS: [&str; 6] = ["bin", "dev", "etc", "modules", "root", "tmp"];
const GATEWAY: &str = "/bin/flexvdi-gateway";
/// Major and minor number of /dev/console, which the kernel opens for the init before anything is
/// mounted.
const CONSOLE: (u32, u32) = (5, 1);
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
/// Tests that only these kernels can pass are ignored elsewhere.
const INCLUDE_IGNORED: &str = "--include-ignored";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";

/// What is run inside, and for how long.
pub(crate) struct Plan<'a> {
    /// The programs.
    pub(crate) programs: &'a Programs,
    /// Whether the gateway is first asked which data paths this kernel carries.
    pub(crate) probe: bool,
    /// Arguments of every test.
    pub(crate) arguments: &'a [String],
    /// How long all may take together, in seconds.
    pub(crate) seconds: u64,
}

/// Writes the archive.
pub(crate) fn write(plan: &Plan, modules: &[Module]) -> Result<Vec<u8>> {
    let mut cpio = Cpio::default();
    let mut folders = BTreeSet::from(FOLDERS.map(PathBuf::from));
    let mut files = BTreeSet::new();
    for folder in FOLDERS {
        cpio.directory(folder)?;
    }
    cpio.device("dev/console", CONSOLE)?;
    cpio.file("etc/hosts", HOSTS.as_bytes())?;
    cpio.file("etc/passwd", PASSWD.as_bytes())?;
    let programs = plan.programs;
    let mut add = |path: &str, linked: &Linked| -> Result<()> {
        cpio.program(inside(path), &read(&linked.program)?)?;
        for library in &linked.libraries {
            let path = inside(library.to_str().context("no UTF-8")?);
            if files.insert(path.to_owned()) {
                folders_above(path, &mut folders, &mut cpio)?;
                cpio.program(path, &read(library)?)?;
            }
        }
        Ok(())
    };
    add("init", &programs.init)?;
    add(GATEWAY, &programs.gateway)?;
    for (name, test) in &programs.tests {
        add(&format!("bin/test-{name}"), test)?;
    }
    for other in &programs.others {
        let name = other.program.file_name().context("a program has a name")?;
        add(&Path::new("bin").join(name).to_string_lossy(), other)?;
    }
    for module in modules {
        cpio.file(&format!("modules/{}", module.name), &module.content)?;
    }
    let manifest = serde_json::to_vec_pretty(&manifest(plan, modules))?;
    cpio.file(inside(MANIFEST), &manifest)?;
    cpio.finish()
}

fn manifest(plan: &Plan, modules: &[Module]) -> Manifest {
    let environment = BTreeMap::from(
        [
            ("TESTKIT_GATEWAY_BIN", GATEWAY),
            ("HOME", "/root"),
            ("PATH", "/bin"),
            ("RUST_BACKTRACE", "1"),
            ("TERM", "dumb"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let program = |name: &str, path: String, arguments: Vec<String>| Program {
        name: name.to_owned(),
        path,
        arguments,
        environment: environment.clone(),
    };
    let probe = plan.probe.then(|| {
        let arguments = ["probe", "--json"].map(str::to_owned).to_vec();
        program(PROBE, GATEWAY.to_owned(), arguments)
    });
    let mut arguments = plan.arguments.to_vec();
    let chosen = ["--ignored", INCLUDE_IGNORED];
    if !arguments.iter().any(|one| chosen.contains(&one.as_str())) {
        arguments.push(INCLUDE_IGNORED.to_owned());
    }
    let tests = plan.programs.tests.iter().map(|(name, _)| {
        let path = format!("/bin/test-{name}");
        program(name, path, arguments.clone())
    });
    Manifest {
        modules: modules
            .iter()
            .map(|module| format!("/modules/{}", module.name))
            .collect(),
        programs: probe.into_iter().chain(tests).collect(),
        seconds: plan.seconds,
    }
}

/// Adds the folders that a file lies in and that are not there yet.
fn folders_above(file: &str, there: &mut BTreeSet<PathBuf>, cpio: &mut Cpio) -> Result<()> {
    let above: Vec<_> = Path::new(file).ancestors().skip(1).collect();
    for folder in above.into_iter().rev() {
        if folder != Path::new("") && there.insert(folder.to_owned()) {
            cpio.directory(&folder.to_string_lossy())?;
        }
    }
    Ok(())
}

/// A path as it stands in the archive.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
