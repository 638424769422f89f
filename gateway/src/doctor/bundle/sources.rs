//! What goes into the report, and where it comes from.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::super::report::Report;
use super::super::scene::Scene;
use super::super::unit::USUAL_NAME;
use crate::background::OWN;
use crate::config::effective_json;

/// Most lines of the journal.
const JOURNAL_LINES: &str = "2000";
/// Most bytes of each text of others: the end of it counts.
const MOST: u64 = 4 << 20;
/// Longest wait for a program, and for a disk.
const LIMIT: Duration = Duration::from_secs(15);

/// How a text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Lines for people.
    Text,
    /// One value.
    Json,
    /// One value in each line.
    JsonLines,
    /// A unit of systemd.
    Unit,
}

/// A part of the report before anything is taken out of it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) text: String,
    /// It speaks of the installation alone, so all addresses in it are the installation's.
    pub(super) is_own: bool,
}

impl Source {
    fn new(name: impl Into<String>, form: Form, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            form,
            text: text.into(),
            is_own: false,
        }
    }
}

/// What whoever opens the report reads first.
const README: &str = "\
A report of `flexvdi-gateway doctor --bundle`. Passwords, hashes, tickets, tokens, keys, cookies and
credentials in URLs are replaced by [removed]. Addresses of clients are replaced by client-1,
client-2 and so on, names of users and terminals by user-1 and terminal-1, always the same for the
same, unless it was made with --with-addresses. Addresses and names of the gateway, the manager and
the hosts are in it. Please look through it before you pass it on.
";

/// Gathers everything. What cannot be had is told in its place.
pub(super) async fn gather(scene: &Scene, report: &Report) -> Vec<Source> {
    let mut sources = vec![Source::new("README.txt", Form::Text, README)];
    let own = Source {
        is_own: true,
        ..Source::new("doctor.txt", Form::Text, report.text())
    };
    sources.push(own);
    let json = serde_json::to_string(report).unwrap_or_default();
    sources.push(Source::new("doctor.json", Form::Json, json));
    if scene.is_configured() {
        let values = effective_json(&scene.config).to_string();
        sources.push(Source::new("configuration.json", Form::Json, values));
    }
    if let Ok(running) = &scene.running {
        sources.push(Source::new(
            "status.json",
            Form::Json,
            running.status.to_string(),
        ));
        sources.push(Source::new(
            "metrics.txt",
            Form::Text,
            running.metrics.as_str(),
        ));
        if let Some(values) = &running.configuration {
            let name = "configuration-in-effect.json";
            sources.push(Source::new(name, Form::Json, values.to_string()));
        }
    }
    let findings = serde_json::to_string(scene.data_paths().await).unwrap_or_default();
    sources.push(Source::new("probe.json", Form::Json, findings));
    sources.push(Source::new("versions.txt", Form::Text, versions().await));
    sources.extend(units(scene).await);
    sources.push(journal(scene).await);
    sources.extend(access_log(scene).await);
    sources
}

/// Of the gateway, the kernel, the distribution, the C library and systemd.
async fn versions() -> String {
    let uname = rustix::system::uname();
    let mut text = format!(
        "flexvdi-gateway {}\nkernel {} {} {}\n",
        env!("CARGO_PKG_VERSION"),
        uname.release().to_string_lossy(),
        uname.version().to_string_lossy(),
        uname.machine().to_string_lossy(),
    );
    for (program, arguments) in [
        ("getconf", ["GNU_LIBC_VERSION"]),
        ("systemctl", ["--version"]),
    ] {
        let told = output(program, &arguments).await;
        text.push_str(told.unwrap_or_else(|reason| reason).trim());
        text.push('\n');
    }
    let release = on_disk(|| fs::read_to_string("/etc/os-release")).await;
    text.push_str(&release);
    text
}

async fn units(scene: &Scene) -> Vec<Source> {
    let Some(unit) = &scene.unit else {
        return Vec::new();
    };
    let mut sources = Vec::new();
    for (at, path) in unit.files().enumerate() {
        let file = path.to_owned();
        let text = on_disk(move || tail(&file)).await;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("units/{at}-{name}");
        let text = format!("# {}\n{text}", path.display());
        sources.push(Source::new(name, Form::Unit, text));
    }
    let state = output(
        "systemctl",
        &["status", "--no-pager", "--lines", "0", &unit.name],
    )
    .await;
    let state = state.unwrap_or_else(|reason| reason);
    sources.push(Source::new("units/status.txt", Form::Text, state));
    sources
}

async fn journal(scene: &Scene) -> Source {
    let unit = scene
        .unit
        .as_ref()
        .map_or(USUAL_NAME, |unit| unit.name.as_str());
    let arguments = [
        "--unit",
        unit,
        "--lines",
        JOURNAL_LINES,
        "--no-pager",
        "--output",
        "short-iso",
    ];
    let text = output("journalctl", &arguments).await;
    Source::new(
        "journal.txt",
        Form::Text,
        text.unwrap_or_else(|reason| reason),
    )
}

async fn access_log(scene: &Scene) -> Option<Source> {
    let path = scene.config.access_log.clone()?;
    let text = on_disk(move || tail(&path)).await;
    Some(Source::new("access-log.txt", Form::JsonLines, text))
}

/// What a program prints, or why it prints nothing.
async fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let run = async {
        let mut child = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_end(&mut printed).await?;
        }
        io::Result::Ok(String::from_utf8_lossy(&printed).into_owned())
    };
    match timeout(LIMIT, run).await {
        Ok(Ok(text)) if text.trim().is_empty() => Err(format!("{program} has printed nothing\n")),
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(format!("{program}: {error}\n")),
        Err(_) => Err(format!(
            "{program}: not finished within {} s\n",
            LIMIT.as_secs()
        )),
    }
}

async fn on_disk(work: impl FnOnce() -> io::Result<String> + Send + 'static) -> String {
    match timeout(LIMIT, OWN.run(LIMIT, work)).await {
        Ok(Ok(Ok(text))) => text,
        Ok(Ok(Err(error))) => format!("cannot be read: {error}\n"),
        Ok(Err(error)) => format!("cannot be read: {error}\n"),
        Err(_) => format!("cannot be read within {} s\n", LIMIT.as_secs()),
    }
}

/// The end of a file.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    // Whoever reads a FIFO takes what others wait for.
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
