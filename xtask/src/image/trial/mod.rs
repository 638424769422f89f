//! The image in use: as the user that it names, on a root that cannot be written to, from the
//! login to the end of the last channel.

mod container;
mod unpacked;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use testkit::cert::TestCert;
use testkit::flexvdi::FlexVdiClient;
use testkit::host::Host;
use testkit::http::Call;
use testkit::namespace::Namespace;
use testkit::net::Endpoint;
use testkit::spice::{ChannelType, link_message};
use testkit::ws::Channel;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Made;
use super::contents::{PROGRAM, USER};
use super::description::PORT;
use crate::steps::Steps;
use container::{Container, Mounts};
use unpacked::Unpacked;

const GATEWAY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT));
/// Who logs in.
const NAME: &str = "ana";
const PASSWORD: &str = "password in the container";
/// A file of spice-html5, as the gateway serves it.
const PAGE: &str = "/webclient/spice-html5/main.js";
/// What stands behind the image's name where it is started.
const ARGUMENTS: [&str; 2] = ["--set", "DrainOnStop=true"];
/// A name of the desktop's host, which only the container's own `/etc/hosts` knows.
const HOST: &str = "desktop.internal";

/// Makes an image and lives through its life.
pub(crate) fn run(steps: &mut Steps) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the namespaces of a container need root"
    );
    let made = super::for_test(steps)?;
    steps.begin("Container: the image's files, its user, and a root that cannot be written to");
    let image = Unpacked::new(&made.folder)?;
    check_archive(&made)?;
    let network = Namespace::new()?;
    // A thread of its own, since there is no way back from the container's network; the runtime's
    // threads, and so all peers, come after it and live there too.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            network.settle()?;
            let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
            runtime.block_on(use_it(&image))
        });
        inside
            .join()
            .map_err(|_| anyhow!("the scenario panicked"))?
    })?;
    steps.done(
        "health, a login, a channel to a host found by name, and an end that waited for the channel",
    );
    Ok(())
}

/// Fails unless the archive has what the folder has.
fn check_archive(made: &Made) -> Result<()> {
    let archive = fs::File::open(&made.archive)?;
    let mut files = 0;
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = made.folder.join(entry.path()?);
        let mut content = Vec::new();
        std::io::copy(&mut entry, &mut content)?;
        ensure!(content == fs::read(&path)?, "{} differs", path.display());
        files += 1;
    }
    // Two layers, configuration, manifest, and three files that say where they are.
    ensure!(files == 7, "{files} files in the archive");
    Ok(())
}

async fn use_it(image: &Unpacked) -> Result<()> {
    let host = Host::echo().await?;
    let folder = Folder::new(image, host.addr().port()).await?;
    let mut container = Container::start(image, &folder.mounts(), &ARGUMENTS).await?;
    match live(&mut container).await {
        Err(error) => {
            let log = container.end().await;
            Err(anyhow!("{error:#}\nthe container's log:\n{log}"))
        }
        lived => lived,
    }
}

async fn live(container: &mut Container<'_>) -> Result<()> {
    container.logs("ready").await?;
    restricted(container).await?;
    container.check_health().await?;
    let healthy = container.output(&[PROGRAM, "health"]).await?;
    ensure!(healthy == "ok\n", "health: {healthy}");
    let url = format!("https://localhost:{PORT}/healthz");
    container
        .output(&[PROGRAM, "health", "--url", &url])
        .await?;

    let endpoint = Endpoint::tls(GATEWAY);
    let page = Call::get(&endpoint, PAGE).send().await?;
    ensure!(
        page.status() == StatusCode::OK,
        "the client for browsers: {}",
        page.status()
    );
    let client = FlexVdiClient::new(&endpoint).login(NAME, PASSWORD);
    let given = client.desktop().await?;
    let mut channel = client.open(&given).await?;
    channel.echo(&link_message(ChannelType::Main, 0)).await?;
    carries(&mut channel).await?;
    let status = container.output(&[PROGRAM, "status"]).await?;
    ensure!(status.contains("1 desktop session, 1 channel"), "{status}");

    container.stop()?;
    container.logs("told to stop").await?;
    carries(&mut channel).await?;
    let ready = container.run(&[PROGRAM, "health"]).await?;
    ensure!(ready.status.code() == Some(1), "health: {}", ready.status);
    container.check_health().await?;
    let refused = Call::post(&endpoint, "/vdi/desktop", r#"{"username":"ana"}"#);
    let refused = refused.send().await?.status();
    ensure!(
        refused == StatusCode::SERVICE_UNAVAILABLE,
        "a login while it drains: {refused}"
    );
    drop(channel);
    let ended = container.wait().await?;
    ensure!(ended.success(), "the container ended with {ended}");
    Ok(())
}

/// Fails unless the process has no rights, and cannot write where it should not.
async fn restricted(container: &Container<'_>) -> Result<()> {
    const NONE: &str = "0000000000000000";
    let user = [USER; 4].map(|id| id.to_string()).join(" ");
    for (name, wanted) in [
        ("Uid", user.as_str()),
        ("Gid", user.as_str()),
        ("CapPrm", NONE),
        ("CapEff", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
    ] {
        let is = container.status(name)?;
        ensure!(is == wanted, "{name} is {is}, not {wanted}");
    }
    for path in ["/etc/flexvdi/pool.keys", "/pool.keys"] {
        let written = container.run(&[PROGRAM, "pool-key", path]).await?;
        let said = String::from_utf8_lossy(&written.stderr);
        ensure!(said.contains("Read-only file system"), "{path}: {said}");
    }
    Ok(())
}

async fn carries(channel: &mut Channel) -> Result<()> {
    let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
    // In pieces, so that the echo is read before the sockets on its way are full.
    for piece in bytes.chunks(10_000) {
        channel.echo(piece).await?;
    }
    Ok(())
}

/// What is mounted into the container.
struct Folder(TempDir);

impl Folder {
    async fn new(image: &Unpacked, port: u16) -> Result<Self> {
        let folder = Self(TempDir::with_prefix("flexvdi-gateway-mounted-")?);
        let base = folder.0.path();
        fs::set_permissions(base, PermissionsExt::from_mode(0o755))?;
        let configuration = base.join("flexvdi");
        fs::create_dir(&configuration)?;
        fs::set_permissions(&configuration, PermissionsExt::from_mode(0o755))?;
        let certificate = TestCert::new()?;
        put(
            &configuration.join("gateway.pem"),
            &fs::read(certificate.cert_path())?,
        )?;
        put(
            &configuration.join("gateway.key"),
            &fs::read(certificate.key_path())?,
        )?;
        let hash = hash(image).await?;
        let desktops = json!({
            "desktops": [{"id": "a", "name": "A", "address": format!("{HOST}:{port}")}],
            "users": [{"name": NAME, "password": hash, "desktops": ["a"]}],
        });
        put(
            &configuration.join("desktops.json"),
            desktops.to_string().as_bytes(),
        )?;
        let keys = json!({
            "CertFile": "/etc/flexvdi/gateway.pem",
            "KeyFile": "/etc/flexvdi/gateway.key",
            "Desktops": "/etc/flexvdi/desktops.json",
            "WebClient": "/usr/share/spice-html5",
            // The image has another one, by a variable, which wins.
            "SslPort": 443,
            "FirstSpicePort": 1,
            "LastSpicePort": 65535,
            // Reads the authorities that come with the image.
            "TicketURL": "https://portal.example.com/tickets",
        });
        put(
            &configuration.join("flexvdi-gateway.conf"),
            keys.to_string().as_bytes(),
        )?;
        fs::write(
            base.join("hosts"),
            format!("127.0.0.1 localhost\n127.0.0.1 {HOST}\n"),
        )?;
        fs::write(base.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        for name in ["hosts", "resolv.conf"] {
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o644))?;
        }
        Ok(folder)
    }

    fn mounts(&self) -> Mounts {
        let base = self.0.path();
        Mounts {
            configuration: base.join("flexvdi"),
            hosts: base.join("hosts"),
            resolver: base.join("resolv.conf"),
        }
    }
}

/// A file that only the gateway's user may read.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o400))?;
    let owner = u32::try_from(USER)?;
    std::os::unix::fs::chown(path, Some(owner), Some(owner))?;
    Ok(())
}

/// Has the image's own program make the hash, as administrators do.
async fn hash(image: &Unpacked) -> Result<String> {
    let mut command = Command::new("chroot");
    command
        .arg(image.root())
        .args([PROGRAM, "password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("starting chroot")?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    stdin.write_all(PASSWORD.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "flexvdi-gateway password: {}",
        output.status
    );
    let hash = String::from_utf8(output.stdout).context("the hash of a password")?;
    Ok(hash.trim().to_owned())
}
