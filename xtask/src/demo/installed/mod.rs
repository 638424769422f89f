//! The packages in use, on a machine with systemd: installed, started, upgraded while a desktop
//! is in use, removed.

mod kernel_path;
mod logrotate;
mod machine;
mod rpm;
mod service;
mod session;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use testkit::command::target_dir;
use testkit::manager::Manager;
use testkit::net::Endpoint;
use testkit::packages::{self, Package};

use super::Desktop;
use crate::package::{self, Made};
use crate::steps::Steps;
use service::Service;
use session::Session;

pub(crate) use machine::Machine;

/// Version of the package that is installed first, and of the one that takes its place.
const VERSIONS: [&str; 2] = ["0.1.0~first", "0.1.0~next"];

/// Runs the whole life of both packages; with a real desktop, or a recorded one.
pub(crate) fn run(steps: &mut Steps, with_qemu: bool) -> Result<()> {
    packages::ensure(&[Package::Systemd, Package::Logrotate])?;
    let [first, next] = package::for_test(steps, VERSIONS)?;

    steps.begin("Machine: systemd in namespaces of its own, on a copy of this system");
    let machine = Machine::boot(&target_dir().join("packages"))?;
    let version = machine.run(&["systemctl", "--version"])?;
    steps.done(format!(
        "booted {}",
        version.lines().next().unwrap_or_default()
    ));

    // A thread of its own, since there is no way back from the machine's network; the runtime's
    // threads, and so all peers, come after it and live there too.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            machine.enter_network()?;
            let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
            runtime.block_on(async {
                debian(steps, &machine, [&first, &next], with_qemu).await?;
                red_hat(steps, &machine, [&first, &next])
            })
        });
        inside
            .join()
            .map_err(|_| anyhow!("the scenario panicked"))?
    })
}

async fn debian(
    steps: &mut Steps,
    machine: &Machine,
    [first, next]: [&Made; 2],
    with_qemu: bool,
) -> Result<()> {
    let service = Service(machine);
    let [first, next] = [seen(&first.deb)?, seen(&next.deb)?];

    steps.begin("Installation: dpkg --install");
    machine.run(&["dpkg", "--install", &first])?;
    service.expect("is-enabled", "disabled")?;
    service.expect("is-active", "inactive")?;
    machine.run(&["dpkg", "--verify", "flexvdi-gateway"])?;
    steps.done("installed; nothing was started or enabled");

    steps.begin("Start: the configuration as it was shipped, and a certificate");
    service.write_certificate()?;
    service.check()?;
    machine.run(&["systemctl", "enable", "--now", service::UNIT])?;
    service.expect("is-active", "active")?;
    Endpoint::tls(session::GATEWAY).connect().await?;
    service.expect_few_capabilities()?;
    for line in service.data_paths()? {
        steps.note(line);
    }
    steps.done("serves on port 443, and may do no more than that");

    let desktop = if with_qemu {
        Desktop::start_vm(steps).await?
    } else {
        Desktop::start_replay(steps).await?
    };
    let manager = Manager::builder().spawn().await?;
    steps.begin("Configuration: the manager is named, and the service restarted");
    let configuration = service.configure(&manager)?;
    machine.run(&["systemctl", "restart", service::UNIT])?;
    steps.done("active");

    let session = Session::new(manager, desktop).await?;
    session.visit(steps).await?;
    logrotate::rotate(steps, machine)?;

    steps.begin("Upgrade: dpkg --install of a newer version while sessions are open");
    let before = service.main_pid()?;
    let mut channel = session.open().await?;
    let mut playing = session.play().await?;
    machine.run(&["systemctl", "restart", service::UNIT])?;
    channel.survives().await?;
    playing.goes_on()?;
    ensure!(service.main_pid()? != before, "the old process still runs");
    let before = service.main_pid()?;
    machine.run(&["dpkg", "--install", &next])?;
    service.expect("is-active", "active")?;
    ensure!(service.main_pid()? != before, "the old process still runs");
    ensure!(
        service.configuration()? == configuration,
        "the configuration was changed"
    );
    channel.survives().await?;
    playing.goes_on()?;
    let verified = playing.finish().await?;
    steps.done(format!(
        "a new process serves, with the configuration as it was; a recorded session went on through \
         it and a restart before, all of its {verified} bytes verified"
    ));
    session.visit(steps).await?;
    kernel_path::restart(steps, machine, &service, &session).await?;

    steps.begin("Upgrade of a service that is stopped");
    machine.run(&["systemctl", "stop", service::UNIT])?;
    channel.is_closed().await?;
    machine.run(&["dpkg", "--install", &first])?;
    service.expect("is-active", "inactive")?;
    steps.done("it stays stopped");

    steps.begin("Removal: dpkg --remove");
    machine.run(&["systemctl", "start", service::UNIT])?;
    machine.run(&["dpkg", "--remove", "flexvdi-gateway"])?;
    service.expect("is-active", "inactive")?;
    ensure!(
        service.configuration()? == configuration,
        "the configuration is gone"
    );
    steps.done("stopped; the configuration is kept");

    steps.begin("Purge: dpkg --purge");
    machine.shell("rm /etc/flexvdi/gateway.*")?;
    machine.run(&["dpkg", "--purge", "flexvdi-gateway"])?;
    nothing_left(machine)?;
    steps.done("no file, no user and no unit is left");
    Ok(())
}

fn red_hat(steps: &mut Steps, machine: &Machine, [first, next]: [&Made; 2]) -> Result<()> {
    let service = Service(machine);
    rpm::look_into(steps, machine, &seen(&next.rpm)?, &next.glibc)?;
    let [first, next] = [seen(&first.rpm)?, seen(&next.rpm)?];
    steps.begin("Package for Red Hat's systems: rpm --install, --upgrade, --erase");
    // Debian has what it needs, but rpm does not know that.
    machine.run(&["rpm", "--install", "--nodeps", &first])?;
    service.expect("is-active", "inactive")?;
    service.write_certificate()?;
    machine.run(&["systemctl", "start", service::UNIT])?;
    let before = service.main_pid()?;
    machine.shell("echo '{\"KeepAlive\": 20, \"CertFile\": \"/etc/flexvdi/gateway.pem\", \"KeyFile\": \"/etc/flexvdi/gateway.key\"}' > /etc/flexvdi/flexvdi-gateway.conf")?;
    machine.run(&["rpm", "--upgrade", "--nodeps", &next])?;
    service.expect("is-active", "active")?;
    ensure!(service.main_pid()? != before, "the old process still runs");
    ensure!(
        service.configuration()?.contains("20"),
        "the configuration was changed"
    );
    machine.run(&["rpm", "--erase", "flexvdi-gateway"])?;
    service.expect("is-active", "inactive")?;
    steps.done("starts nothing, restarts what runs, keeps the configuration, stops at the end");
    Ok(())
}

/// A package's path on the machine.
fn seen(package: &Path) -> Result<String> {
    let name = package.file_name().context("a package")?;
    Ok(format!("/mnt/{}", name.to_string_lossy()))
}

fn nothing_left(machine: &Machine) -> Result<()> {
    let left = machine.shell(
        "find /etc /usr /lib/systemd /var /run -xdev \\( -name '*flexvdi-gateway*' -o -path /etc/flexvdi \\)",
    )?;
    ensure!(left.is_empty(), "left behind: {left}");
    let user = machine.run(&["getent", "passwd", "flexvdi-gateway"]);
    ensure!(user.is_err(), "the user is left behind");
    Ok(())
}
