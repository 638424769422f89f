//! An authority that gives certificates by ACME: Debian's pebble, with a DNS server of its own that
//! leads all names to 127.0.0.1.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cert::TestCert;
use crate::command::find_program;
use crate::http::Call;
use crate::net::{Endpoint, free_port, within};
use crate::packages::{self, Package};

/// How often a program that is starting is looked at: it tells nobody when it is ready.
const POLL: Duration = Duration::from_millis(20);

/// How pebble is to behave.
#[must_use]
#[derive(Clone, Debug)]
pub struct PebbleBuilder {
    tls_port: u16,
    http_port: u16,
    life: Duration,
    refused: Vec<String>,
}

impl PebbleBuilder {
    /// Checks names at this port of 127.0.0.1 by http-01.
    pub fn http_port(mut self, port: u16) -> Self {
        self.http_port = port;
        self
    }

    /// How long certificates live.
    pub fn life(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    /// Gives no certificates for this name.
    pub fn refused(mut self, name: &str) -> Self {
        self.refused.push(name.to_owned());
        self
    }

    /// Starts it. Fails with the command that installs it when it is missing and cannot be
    /// installed.
    pub async fn start(self) -> Result<Pebble> {
        tokio::task::spawn_blocking(|| packages::ensure(&[Package::Pebble])).await??;
        let dir = TempDir::with_prefix("testkit-pebble-")?;
        let cert = TestCert::new()?;
        let (dns_port, dns) = dns(dir.path()).await?;
        let mut pebble = Pebble {
            child: None,
            _dns: dns,
            addr: SocketAddr::from(([127, 0, 0, 1], free_port()?)),
            management: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir,
            cert,
            dns_port,
            builder: self,
        };
        pebble.begin().await?;
        Ok(pebble)
    }
}

/// A running authority; killed when dropped.
#[derive(Debug)]
pub struct Pebble {
    child: Option<Child>,
    _dns: Child,
    addr: SocketAddr,
    management: SocketAddr,
    dir: TempDir,
    cert: TestCert,
    dns_port: u16,
    builder: PebbleBuilder,
}

impl Pebble {
    /// One that checks names at this port of 127.0.0.1 by tls-alpn-01.
    pub fn builder(tls_port: u16) -> PebbleBuilder {
        PebbleBuilder {
            tls_port,
            http_port: 1,
            life: Duration::from_secs(90 * 86_400),
            refused: Vec::new(),
        }
    }

    /// What stands under `Acme` in the configuration of a gateway that gets certificates from it.
    pub fn settings(&self, names: &[&str]) -> Value {
        json!({
            "Domains": names,
            "Contact": ["mailto:admin@example.com"],
            "Directory": format!("https://{}/dir", self.addr),
            "DirectoryCAFile": self.cert.ca_path(),
            "TermsAgreed": true,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The authority that signs: it is another one each time pebble is started.
    pub async fn root(&self) -> Result<CertificateDer<'static>> {
        let management = Endpoint::tls(self.management);
        let answer = Call::get(&management, "/roots/0").send().await?;
        Ok(CertificateDer::from_pem_slice(answer.body())?)
    }

    /// What it has printed.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("pebble.log"))?)
    }

    /// How many orders were made since the first start.
    pub fn orders(&self) -> Result<usize> {
        Ok(self.log()?.matches("Added order ").count())
    }

    /// Ends it. It can be started again.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Has it stand still, or go on again.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().and_then(Child::id);
        let pid = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(pid.context("it does not run")?, signal)?)
    }

    /// Starts it after [`Pebble::stop`]. It knows no accounts and orders any more.
    pub async fn begin(&mut self) -> Result<()> {
        let management = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = json!({"pebble": {
            "listenAddress": self.addr.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": self.cert.cert_path(),
            "privateKey": self.cert.key_path(),
            "httpPort": self.builder.http_port,
            "tlsPort": self.builder.tls_port,
            "certificateValidityPeriod": self.builder.life.as_secs(),
            "domainBlocklist": self.builder.refused,
        }});
        let path = self.dir.path().join("pebble.json");
        std::fs::write(&path, config.to_string())?;
        let mut command = program("pebble")?;
        command
            .arg("-config")
            .arg(path)
            .arg("-dnsserver")
            .arg(format!("127.0.0.1:{}", self.dns_port))
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            // It would refuse some good nonces by chance.
            .env("PEBBLE_WFE_NONCEREJECT", "0");
        let mut child = spawn(command, &self.dir.path().join("pebble.log"))?;
        for addr in [self.addr, management] {
            ready(&mut child, addr).await?;
        }
        (self.child, self.management) = (Some(child), management);
        Ok(())
    }
}

/// A DNS server that leads all names to 127.0.0.1, and its port.
async fn dns(dir: &Path) -> Result<(u16, Child)> {
    let (port, management) = (free_port()?, free_port()?);
    let mut command = program("pebble-challtestsrv")?;
    let loopback = |port| format!("127.0.0.1:{port}");
    command
        .args([
            "-dns01",
            &loopback(port),
            "-management",
            &loopback(management),
        ])
        .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
    let mut child = spawn(command, &dir.join("dns.log"))?;
    ready(&mut child, SocketAddr::from(([127, 0, 0, 1], management))).await?;
    Ok((port, child))
}

fn program(name: &str) -> Result<Command> {
    let path = find_program(name).with_context(|| format!("there is no {name}"))?;
    Ok(Command::new(path))
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let printed = std::fs::File::options()
        .append(true)
        .create(true)
        .open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", command.as_std().get_program().display()))
}

async fn ready(child: &mut Child, addr: SocketAddr) -> Result<()> {
    let connected = async {
        while TcpStream::connect(addr).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("it ended at once: {status}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    within("start of pebble", connected).await?
}
