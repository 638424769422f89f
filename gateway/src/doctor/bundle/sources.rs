//! What goes into the report, and where it comes from.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
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
const MOST: usize = 4 << 20;
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

/// Gathers everything. Where something cannot be had, its place says why.
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
        match child.stdout.take() {
            Some(stdout) => end_of(stdout, MOST).await,
            None => Ok(String::new()),
        }
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

/// The last lines of what is read, no more than `most` bytes of them.
async fn end_of(mut source: impl AsyncRead + Unpin, most: usize) -> io::Result<String> {
    let mut read = Vec::new();
    let mut is_cut = false;
    while source.read_buf(&mut read).await? > 0 {
        // Not at each turn, as the rest is moved.
        if read.len() > 2 * most {
            read.drain(..read.len() - most);
            is_cut = true;
        }
    }
    if read.len() > most {
        read.drain(..read.len() - most);
        is_cut = true;
    }
    Ok(whole_lines(&read, is_cut))
}

/// The text; of one that was cut without its first line: half a line may hold a secret without the
/// words by which it is known as one.
fn whole_lines(text: &[u8], is_cut: bool) -> String {
    let begin = text.iter().position(|byte| *byte == b'\n' && is_cut);
    let text = match begin {
        Some(end) => &text[end + 1..],
        None if is_cut => &[],
        None => text,
    };
    String::from_utf8_lossy(text).into_owned()
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
    let most = MOST as u64;
    let skipped = metadata.len().saturating_sub(most);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(whole_lines(&bytes, skipped > 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn of_a_long_text_the_last_whole_lines_are_kept() {
        let lines: Vec<_> = (0..100)
            .map(|number| format!("line {number:02}\n"))
            .collect();
        let lines = lines.concat();
        for most in [20, 24, 31] {
            let end = end_of(lines.as_bytes(), most).await.unwrap();
            assert!(end.len() <= most && lines.ends_with(&end), "{end:?}");
            assert!(end.starts_with("line 9"), "{most}: {end:?}");
        }
        assert_eq!(end_of(lines.as_bytes(), 1_000).await.unwrap(), lines);
        assert_eq!(end_of(&b"without an end"[..], 5).await.unwrap(), "");
    }

    #[tokio::test]
    async fn of_what_a_program_prints_the_end_is_kept() {
        let last = 700_000;
        let printed = output("seq", &[&last.to_string()]).await.unwrap();
        assert!(printed.len() <= MOST && printed.ends_with('\n'));
        let numbers: Vec<u32> = printed.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.len() > 500_000 && numbers[0] > 1);
        assert!(numbers.iter().copied().eq(numbers[0]..=last));
    }

    #[test]
    fn of_a_long_file_the_end_is_kept_without_half_a_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"password=").unwrap();
        file.write_all(&vec![b'x'; MOST]).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        assert_eq!(tail(file.path()).unwrap(), "last\n");
    }
}
