//! Files for virt-viewer (`[virt-viewer]`, remote-viewer(1)), which bring a native Spice client to
//! a desktop through the gateway's port.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::certificate_subject::Subject;
use crate::output::print;
use crate::pem_file::PemFile;
use crate::target::Target;
use crate::ticket::Form;

/// Longest password of a Spice server, in bytes (`SPICE_MAX_PASSWORD_LENGTH`).
const MAX_PASSWORD: usize = 60;
/// A port that Spice servers often have.
const SPICE: u16 = 5_900;
/// Characters in a line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;
/// The port of the scheme `https`.
const HTTPS: u16 = 443;

/// What stands in a file besides the ticket.
pub struct ViewerFile {
    /// The desktop's host and Spice port, or its socket.
    pub desktop: Target,
    /// How the ticket is written, and so where the client shows it.
    pub form: Form,
    /// How the client speaks TLS with the host; `None`: it does not.
    pub tls: Option<ViewerTls>,
    /// The gateway, as clients know it.
    pub gateway: Authority,
    /// The desktop's Spice password.
    pub password: Option<Zeroizing<String>>,
}

/// What a client needs to speak TLS with the host itself.
pub struct ViewerTls {
    /// The host's port for it.
    pub port: u16,
    /// Certificates in PEM of those who may have signed the host's; `None`: the client knows them.
    pub authorities: Option<String>,
    /// The subject that the host's certificate must have; `None`: the client goes by its name.
    pub subject: Option<Subject>,
}

impl ViewerTls {
    fn text(&self) -> String {
        // Every channel uses the port for TLS, so no other is named.
        let port = Some(format!("tls-port={}\nsecure-channels=all\n", self.port));
        let authorities = self.authorities.as_ref();
        let authorities = authorities.map(|pem| format!("ca={}\n", *escaped(pem)));
        let subject = self.subject.as_ref().map(ToString::to_string);
        let subject = subject.map(|subject| format!("host-subject={}\n", *escaped(&subject)));
        let lines = [port, authorities, subject].into_iter().flatten();
        lines.collect()
    }
}

impl ViewerFile {
    /// The file's text, which is secret: it holds the ticket and the password.
    pub fn text(&self, ticket: &str) -> Zeroizing<String> {
        // The ticket alone says where it leads; the file must have something.
        let (host, port) = match &self.desktop {
            Target::Tcp { host, port } => (host.to_string(), *port),
            Target::Unix(_) => ("desktop".to_owned(), SPICE),
        };
        let port = match &self.tls {
            Some(tls) => tls.text(),
            None => format!("port={port}\n"),
        };
        let (host, user) = match self.form {
            Form::Short => (host, format!("{ticket}:x@")),
            Form::HostName => (ticket.to_owned(), String::new()),
        };
        let (host, user) = (Zeroizing::new(host), Zeroizing::new(user));
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
             {}\
             {}\
             proxy=https://{}{gateway}:{gateway_port}\n\
             title={}\n\
             delete-this-file=1\n",
            *escaped(&host),
            port,
            *password,
            *user,
            *escaped(&self.desktop.to_string()),
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
            '\n' => text.push_str("\\n"),
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

/// The certificates in a PEM file, and nothing else of it: there may be a private key beside them.
pub fn authorities(path: &Path) -> anyhow::Result<String> {
    let found = PemFile::read(path).certificates();
    let found = found.map_err(|reason| {
        let shown = path.display();
        anyhow::anyhow!("{shown}: expected a PEM file with certificates: {reason}")
    })?;
    Ok(found.iter().map(pem).collect())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let body = STANDARD.encode(certificate);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        text += line;
        text += "\n";
        rest = behind;
    }
    text + "-----END CERTIFICATE-----\n"
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
            form: Form::Short,
            tls: None,
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
    fn a_ticket_may_be_the_host_and_no_user() {
        let file = ViewerFile {
            form: Form::HostName,
            ..file(None)
        };
        assert_eq!(
            *file.text("ticket-0123"),
            "[virt-viewer]\ntype=spice\nhost=ticket-0123\nport=5901\n\
             proxy=https://vdi.example.com:443\ntitle=[2001:db8::21]:5901\n\
             delete-this-file=1\n"
        );
    }

    #[test]
    fn a_socket_has_a_host_and_a_port_that_mean_nothing() {
        let socket = ViewerFile {
            desktop: "unix:/run/a b\\.sock".parse().unwrap(),
            ..file(None)
        };
        let text = socket.text("TICKET");
        assert!(
            text.contains("\nhost=desktop\nport=5900\nproxy="),
            "{}",
            *text
        );
        assert!(
            text.contains("\ntitle=unix:/run/a b\\\\.sock\n"),
            "{}",
            *text
        );
    }

    #[test]
    fn a_client_that_speaks_tls_with_the_host_knows_whom_to_trust() {
        let own = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let key = own.signing_key.serialize_pem();
        fs::write(&path, key.clone() + &own.cert.pem().repeat(2)).unwrap();
        let authorities = authorities(&path).unwrap();
        let read = crate::pem_file::certificates(authorities.as_bytes()).unwrap();
        assert_eq!(read, [own.cert.der().clone(), own.cert.der().clone()]);
        assert!(!authorities.contains("PRIVATE"), "{authorities}");
        let tls = |authorities, subject| ViewerFile {
            tls: Some(ViewerTls {
                port: 5902,
                authorities,
                subject,
            }),
            ..file(None)
        };
        let text = tls(Some(authorities), Some("O=A\\, B,CN=h".parse().unwrap())).text("T");
        let begin = "\nhost=2001:db8::21\ntls-port=5902\nsecure-channels=all\n\
                     ca=-----BEGIN CERTIFICATE-----\\nMII";
        assert!(text.contains(begin), "{}", *text);
        let end = "-----END CERTIFICATE-----\\n\nhost-subject=O=A\\\\, B,CN=h\nproxy=";
        assert!(text.contains(end), "{}", *text);
        assert!(!text.contains("\nport="), "{}", *text);
        let text = tls(None, None).text("T");
        assert!(
            !text.contains("ca=") && !text.contains("host-subject="),
            "{}",
            *text
        );

        fs::write(&path, key).unwrap();
        let told = super::authorities(&path).unwrap_err().to_string();
        assert!(told.ends_with("it has none, but PRIVATE KEY"), "{told}");
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
