//! Files for virt-viewer (`[virt-viewer]`, remote-viewer(1)), which bring a native Spice client to
//! a desktop through the gateway's port.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::output::print;

/// Longest password of a Spice server, in bytes (`SPICE_MAX_PASSWORD_LENGTH`).
const MAX_PASSWORD: usize = 60;
/// The port of the scheme `https`.
const HTTPS: u16 = 443;

/// What stands in a file besides the ticket.
pub struct ViewerFile {
    /// The desktop's host and Spice port.
    pub desktop: Authority,
    /// The gateway, as clients know it.
    pub gateway: Authority,
    /// The desktop's Spice password.
    pub password: Option<Zeroizing<String>>,
}

impl ViewerFile {
    /// The file's text, which is secret: it holds the ticket and the password.
    pub fn text(&self, ticket: &str) -> Zeroizing<String> {
        let host = escaped(&self.desktop.host.to_string());
        let port = self.desktop.port.unwrap_or_default();
        let gateway = self.gateway.host.for_uri();
        let gateway_port = self.gateway.port.unwrap_or(HTTPS);
        let password = self.password.as_ref();
        let password = password.map_or_else(Zeroizing::default, |password| {
            Zeroizing::new(format!("password={}\n", *escaped(password)))
        });
        Zeroizing::new(format!(
            "[virt-viewer]\n\
             type=spice\n\
             host={}\n\
             port={port}\n\
             {}\
             proxy=https://{ticket}:x@{gateway}:{gateway_port}\n\
             title={}\n\
             delete-this-file=1\n",
            *host, *password, self.desktop,
        ))
    }
}

/// A value as `GLib` reads it (Desktop Entry Specification, "Values").
fn escaped(value: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * value.len()));
    for (at, c) in value.char_indices() {
        match c {
            ' ' if at == 0 => text.push_str("\\s"),
            '\\' => text.push_str("\\\\"),
            c => text.push(c),
        }
    }
    text
}

/// The password in a file, less the end of its line.
pub fn password(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let shown = path.display();
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 3));
    let limit = MAX_PASSWORD as u64 + 3;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .with_context(|| format!("{shown}: cannot read the password"))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| anyhow::anyhow!("{shown}: the password is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    ensure!(!text.is_empty(), "{shown}: there is no password in it");
    ensure!(
        text.len() <= MAX_PASSWORD,
        "{shown}: the password is longer than {MAX_PASSWORD} bytes, which no Spice server takes"
    );
    ensure!(
        !text.chars().any(char::is_control),
        "{shown}: expected one line with the password"
    );
    Ok(Zeroizing::new(text.to_owned()))
}

/// Where a file is written to.
pub enum Destination {
    /// Standard output.
    Output,
    /// A new file that only its owner may read; removed unless it was written.
    New {
        /// Where it is.
        path: PathBuf,
        /// `None` once it is complete.
        file: Option<File>,
    },
}

impl Destination {
    /// Opens it; `-` is standard output. A file that exists is left as it is: others may be able to
    /// read it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Output);
        }
        let shown = path.display();
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        match created {
            Ok(file) => Ok(Self::New {
                path: path.to_owned(),
                file: Some(file),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{shown}: the file exists already; remove it, or choose another name")
            }
            Err(error) => Err(error).with_context(|| format!("{shown}: cannot create the file")),
        }
    }

    /// The file's name, unless it is standard output.
    pub fn told(&self) -> Option<String> {
        match self {
            Self::Output => None,
            Self::New { path, .. } => Some(path.display().to_string()),
        }
    }

    /// Writes the text.
    pub fn write(mut self, text: &str) -> anyhow::Result<()> {
        match &mut self {
            Self::Output => print(text),
            Self::New { path, file } => {
                let shown = path.display();
                if let Some(open) = file {
                    open.write_all(text.as_bytes())
                        .with_context(|| format!("{shown}: cannot write the file"))?;
                }
                *file = None;
                Ok(())
            }
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Self::New {
            path,
            file: Some(_),
        } = self
        {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(password: Option<&str>) -> ViewerFile {
        ViewerFile {
            desktop: "[2001:db8::21]:5901".parse().unwrap(),
            gateway: "vdi.example.com".parse().unwrap(),
            password: password.map(|text| Zeroizing::new(text.to_owned())),
        }
    }

    #[test]
    fn has_what_a_viewer_needs() {
        assert_eq!(
            *file(Some(" a\\b")).text("TICKET"),
            "[virt-viewer]\ntype=spice\nhost=2001:db8::21\nport=5901\npassword=\\sa\\\\b\n\
             proxy=https://TICKET:x@vdi.example.com:443\ntitle=[2001:db8::21]:5901\n\
             delete-this-file=1\n"
        );
        assert!(!file(None).text("TICKET").contains("password"));
    }

    #[test]
    fn a_password_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (content, expected) in [
            ("secret", Some("secret")),
            ("secret\n", Some("secret")),
            (" two words \r\n", Some(" two words ")),
            ("", None),
            ("\n", None),
            ("one\ntwo\n", None),
        ] {
            fs::write(&path, content).unwrap();
            let read = password(&path);
            assert_eq!(read.as_ref().ok().map(|text| text.as_str()), expected);
            let told = read.err().map(|error| format!("{error:#}"));
            assert!(told.is_none_or(|told| !told.contains("two")));
        }
        fs::write(&path, "x".repeat(MAX_PASSWORD)).unwrap();
        assert!(password(&path).is_ok());
        fs::write(&path, "x".repeat(1 << 20)).unwrap();
        assert!(password(&path).is_err());
        fs::write(&path, [0xff]).unwrap();
        assert!(password(&path).is_err());
    }

    #[test]
    fn is_its_owners_alone_and_never_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desktop.vv");
        drop(Destination::open(&path).unwrap());
        assert!(!path.exists());
        Destination::open(&path).unwrap().write("text").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What somebody else has put there is not written to.
        assert!(Destination::open(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
