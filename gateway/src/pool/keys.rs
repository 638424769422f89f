//! The file with the keys of a pool.
//!
//! It is text: a line with the format's name and version, then a line for each key. Empty lines
//! and lines that begin with `#` say nothing.
//!
//! ```text
//! flexvdi-gateway-pool-keys 1
//! key 0dpJqGm3cTz0Xo2nkH5fJ2zv1Qw8sYb4uR7eLxNcVaM
//! ```
//!
//! The first key seals, all open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::pem_file::{PemFile, exposed};

const HEADER: &str = "flexvdi-gateway-pool-keys 1";
const FORMAT: &str = "flexvdi-gateway-pool-keys ";
const KEY_BYTES: usize = 32;
/// Rotation needs two or three; more would only make guessing cheaper.
const MAX_KEYS: usize = 16;

/// What is wrong with a file of keys. Never repeats what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("{}: PoolKeyFile: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The content is not in the format.
    #[error("{}: PoolKeyFile: {wrong}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        wrong: FormatError,
    },
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Random,
}

/// Why text is no file of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The first line is another one.
    #[error("expected a first line \"{HEADER}\", as `flexvdi-gateway pool-key` writes it")]
    Header,
    /// The format has another version.
    #[error("the file has another version of the format than 1, which this gateway reads")]
    Version,
    /// A line is no key.
    #[error("line {0}: expected \"key \" and 43 characters of base64url")]
    Line(usize),
    /// A key occurs twice.
    #[error("line {0}: this key stands in the file already")]
    Duplicate(usize),
    /// There is no key.
    #[error("there is no key in the file")]
    NoKey,
    /// There are too many.
    #[error("there are more than {MAX_KEYS} keys in the file")]
    TooMany,
}

/// The keys of a pool, ready for use. The first one seals.
pub struct PoolKeys {
    keys: Vec<PoolKey>,
    /// Where to look, when anybody may read the file.
    exposed: Option<String>,
}

/// One key.
pub(super) struct PoolKey {
    /// Tells which key sealed a ticket; keys may share one, as it is short.
    pub(super) id: u8,
    pub(super) aead: LessSafeKey,
}

impl PoolKeys {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Self::from_file(&PemFile::read(path))
    }

    /// Of a file that was read already.
    pub fn from_file(file: &PemFile) -> Result<Self, KeyFileError> {
        let path = &file.path;
        let of_file = |reason| KeyFileError::File {
            path: path.clone(),
            reason,
        };
        let text = String::from_utf8_lossy(file.bytes().map_err(of_file)?);
        // The group may read: the file is root's, and the gateway's user in its group.
        let exposed = exposed(path, 0o027).map_err(of_file)?;
        let mut keys = Self::parse(&text).map_err(|wrong| KeyFileError::Format {
            path: path.to_owned(),
            wrong,
        })?;
        keys.exposed = exposed.map(|mode| {
            format!(
                "PoolKeyFile: {} has mode {mode:03o}: others may read or change it, and whoever has a key can make tickets; expected 640 or less",
                path.display(),
            )
        });
        Ok(keys)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, FormatError> {
        let mut lines = text
            .lines()
            .zip(1..)
            .map(|(line, number)| (line.trim(), number))
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some((HEADER, _)) => {}
            Some((line, _)) if line.starts_with(FORMAT) => return Err(FormatError::Version),
            _ => return Err(FormatError::Header),
        }
        let mut seen: Vec<[u8; KEY_BYTES]> = Vec::new();
        for (line, number) in lines {
            let bytes = line
                .strip_prefix("key ")
                .and_then(|text| URL_SAFE_NO_PAD.decode(text.trim()).ok())
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(FormatError::Line(number))?;
            if seen.contains(&bytes) {
                return Err(FormatError::Duplicate(number));
            }
            seen.push(bytes);
        }
        match seen.len() {
            0 => Err(FormatError::NoKey),
            1..=MAX_KEYS => Ok(Self {
                keys: seen.iter().map(PoolKey::new).collect(),
                exposed: None,
            }),
            _ => Err(FormatError::TooMany),
        }
    }

    /// What the administrator should know about the file.
    pub fn warning(&self) -> Option<&str> {
        self.exposed.as_deref()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn sealing(&self) -> &PoolKey {
        &self.keys[0]
    }

    pub(super) fn of_id(&self, id: u8) -> impl Iterator<Item = &PoolKey> {
        self.keys.iter().filter(move |key| key.id == id)
    }
}

impl PoolKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(b"flexvdi-gateway pool key id");
        digest.update(bytes);
        let key = UnboundKey::new(&AES_256_GCM_SIV, bytes)
            .unwrap_or_else(|_| unreachable!("the length is right"));
        Self {
            id: digest.finish().as_ref()[0],
            aead: LessSafeKey::new(key),
        }
    }
}

/// The content of a file with one new key.
pub fn new_file() -> Result<String, KeyFileError> {
    Ok(format!(
        "# Keys of a pool of gateways: the first one seals tickets, all open them. Secret.\n{HEADER}\n{}",
        new_line()?
    ))
}

/// Writes a new key to the end of a file, where it opens but does not seal; makes the file, for
/// its owner only, when there is none. Says whether there was one.
///
/// Fails when the file is not in the format, which is then left as it is.
pub fn append_key(path: &Path) -> Result<bool, KeyFileError> {
    let of_file = |reason| KeyFileError::File {
        path: path.to_owned(),
        reason,
    };
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let (mut file, text, existed) = match created {
        Ok(file) => (file, new_file()?, false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let keys = PoolKeys::load(path)?;
            if keys.count() == MAX_KEYS {
                return Err(KeyFileError::Format {
                    path: path.to_owned(),
                    wrong: FormatError::TooMany,
                });
            }
            let text = fs::read_to_string(path).map_err(of_file)?;
            let gap = if text.ends_with('\n') { "" } else { "\n" };
            let file = File::options().append(true).open(path).map_err(of_file)?;
            (file, format!("{gap}{}", new_line()?), true)
        }
        Err(error) => return Err(of_file(error)),
    };
    file.write_all(text.as_bytes()).map_err(of_file)?;
    file.sync_all().map_err(of_file)?;
    Ok(existed)
}

fn new_line() -> Result<String, KeyFileError> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyFileError::Random)?;
    Ok(format!("key {}\n", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Keys whose bytes are all the same, one for each of `fill`.
#[cfg(test)]
pub(crate) fn key_for_test(fill: &[u8]) -> PoolKeys {
    PoolKeys {
        keys: fill
            .iter()
            .map(|&f| PoolKey::new(&[f; KEY_BYTES]))
            .collect(),
        exposed: None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn wrong(text: &str) -> FormatError {
        PoolKeys::parse(text).err().expect("a wrong file")
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        assert!(!append_key(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = PoolKeys::load(&path).unwrap();
        assert_eq!((first.count(), first.warning()), (1, None));
        // An editor may have left the last line without its end.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end()).unwrap();
        assert!(append_key(&path).unwrap());
        let both = PoolKeys::load(&path).unwrap();
        assert_eq!(both.count(), 2);
        assert_eq!(both.sealing().id, first.sealing().id);
    }

    #[test]
    fn a_file_that_others_may_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        append_key(&path).unwrap();
        for (mode, exposed) in [
            (0o600, false),
            (0o640, false),
            (0o644, true),
            (0o660, true),
            (0o602, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let keys = PoolKeys::load(&path).unwrap();
            assert_eq!(keys.warning().is_some(), exposed, "{mode:o}");
        }
    }

    #[test]
    fn other_files_are_refused_without_repeating_them() {
        let key = new_line().unwrap();
        assert_eq!(wrong(""), FormatError::Header);
        assert_eq!(wrong(&key), FormatError::Header);
        assert_eq!(wrong(&format!("{FORMAT}2\n{key}")), FormatError::Version);
        assert_eq!(wrong(HEADER), FormatError::NoKey);
        assert_eq!(
            wrong(&format!("{HEADER}\n{key}{key}")),
            FormatError::Duplicate(3)
        );
        for line in [
            "key",
            "key AAAA",
            &key[4..],
            &key.replace("key", "kez"),
            &format!("{}A", key.trim()),
        ] {
            let text = format!("# a\n{HEADER}\n\n{line}\n");
            assert_eq!(wrong(&text), FormatError::Line(4), "{line}");
            assert!(line.len() < 8 || !wrong(&text).to_string().contains(line));
        }
        let many: String = (0..=MAX_KEYS).map(|_| new_line().unwrap()).collect();
        assert_eq!(wrong(&format!("{HEADER}\n{many}")), FormatError::TooMany);
    }

    #[test]
    fn a_full_or_strange_file_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "something else").unwrap();
        assert!(append_key(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
    }
}
