//! The init of the virtual machines that `cargo xtask vm-test` starts: prepares what programs
//! expect of a system, runs those that the manifest names, says how they ended, and powers off.

mod modules;
mod mounts;
mod programs;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot, uname};
use testkit::vm::{CONSOLE, FAILURE, MANIFEST, Manifest, PREFIX, SUCCESS};

/// What systemd gives to services: few descriptors at first, and the right to many.
const OPEN_FILES: Rlimit = Rlimit {
    current: Some(1_024),
    maximum: Some(524_288),
};
/// Bits of `/proc/sys/kernel/tainted` (Documentation/admin-guide/tainted-kernels.rst).
const TAINTS: [(u32, &str); 4] = [
    (5, "a bad page"),
    (7, "an oops or a BUG"),
    (9, "a warning"),
    (14, "a soft lockup"),
];

fn main() -> Result<()> {
    // Anywhere else it would mount over the system's folders and switch the machine off.
    ensure!(
        std::process::id() == 1,
        "this is the first process of a virtual machine; run `cargo xtask vm-test`"
    );
    mounts::mount_all()?;
    let mut console = OpenOptions::new()
        .write(true)
        .open(CONSOLE)
        .with_context(|| format!("opening {CONSOLE}"))?;
    // The host waits for a sign of life.
    writeln!(console, "{PREFIX}started")?;
    let verdict = match run(&mut console) {
        Ok(true) => SUCCESS,
        Ok(false) => FAILURE,
        Err(problem) => {
            writeln!(console, "{PREFIX}{problem:#}")?;
            FAILURE
        }
    };
    writeln!(console, "{verdict}")?;
    rustix::termios::tcdrain(console.as_fd()).context("waiting for the console")?;
    reboot(RebootCommand::PowerOff).context("powering off")
}

/// Gives back whether all programs and the kernel did well.
fn run(console: &mut File) -> Result<bool> {
    let text = fs::read(MANIFEST).with_context(|| format!("reading {MANIFEST}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("reading {MANIFEST}"))?;
    setrlimit(Resource::Nofile, OPEN_FILES).context("setting the limit on open files")?;
    testkit::netlink::bring_up_loopback()?;
    modules::load_all(console, &manifest.modules)?;
    show_facts(console)?;
    let succeeded = programs::run_all(console, &manifest)?;
    let taints = taints()?;
    for taint in &taints {
        writeln!(console, "{PREFIX}the kernel remembers {taint}")?;
    }
    Ok(succeeded && taints.is_empty())
}

fn show_facts(console: &mut File) -> Result<()> {
    let release = uname().release().to_string_lossy().into_owned();
    let btf = if Path::new("/sys/kernel/btf/vmlinux").is_file() {
        "present"
    } else {
        "absent"
    };
    let ulps = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    let tls = if ulps.split_whitespace().any(|ulp| ulp == "tls") {
        "available"
    } else {
        "NOT available"
    };
    writeln!(
        console,
        "{PREFIX}kernel {release}; /sys/kernel/btf/vmlinux {btf}; TCP ULP tls {tls}"
    )?;
    Ok(())
}

fn taints() -> Result<Vec<&'static str>> {
    const PATH: &str = "/proc/sys/kernel/tainted";
    let text = fs::read_to_string(PATH).with_context(|| format!("reading {PATH}"))?;
    let bits: u64 = text
        .trim()
        .parse()
        .with_context(|| format!("{PATH} is {text:?}"))?;
    let set = TAINTS.iter().filter(|(bit, _)| bits & (1 << bit) != 0);
    Ok(set.map(|(_, meaning)| *meaning).collect())
}
