//! Files that the file names: passwords and authorities of single desktops.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::exposed;
use crate::host_tls::Authorities;
use crate::pem_file::PemFile;
use crate::secret::Secret;

/// Most bytes of certificates for one desktop. Each of its tickets holds them, and goes with them
/// to another process.
const MAX_AUTHORITIES: usize = 16 * 1_024;

/// Files beside the one with desktops. Each is read once: what is looked at later is compared with
/// just what was taken.
pub(super) struct Beside<'a> {
    folder: &'a Path,
    files: BTreeMap<PathBuf, PemFile>,
    /// Of files with passwords: a warning where others may read one.
    exposed: BTreeMap<PathBuf, Option<String>>,
    /// Taken apart once for all desktops that name the same file.
    authorities: BTreeMap<PathBuf, Result<Authorities, String>>,
}

impl<'a> Beside<'a> {
    /// None so far; names are relative to `folder`.
    pub(super) fn new(folder: &'a Path) -> Self {
        Self {
            folder,
            files: BTreeMap::new(),
            exposed: BTreeMap::new(),
            authorities: BTreeMap::new(),
        }
    }

    /// The only line of a file; the error says what is wrong with it.
    pub(super) fn password(&mut self, name: &str) -> Result<Secret, String> {
        let path = self.folder.join(name);
        let told = |what: &dyn fmt::Display| format!("{}: {what}", path.display());
        let file = self.file(&path)?;
        let bytes = file.bytes().map_err(|error| told(&error))?;
        let text = std::str::from_utf8(bytes).map_err(|_| told(&"it is not UTF-8"))?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(told(&"there is no password in it"));
        }
        let password = Secret::from(line.to_owned());
        let warning = self.exposed.entry(path);
        warning.or_insert_with_key(|path| exposed(path));
        Ok(password)
    }

    /// The certificates in a PEM file; the error says what is wrong with it.
    pub(super) fn authorities(&mut self, name: &str) -> Result<Authorities, String> {
        let path = self.folder.join(name);
        if let Some(known) = self.authorities.get(&path) {
            return known.clone();
        }
        let found = self.file(&path).and_then(|file| {
            let certificates = file.certificates();
            let found = certificates.and_then(|certificates| {
                let size: usize = certificates.iter().map(|der| der.len()).sum();
                if size > MAX_AUTHORITIES {
                    let most = "a desktop can have at most 16 KiB of them, in binary form";
                    return Err(format!("it has {size} bytes of certificates; {most}"));
                }
                Authorities::new(certificates)
            });
            let expected = "expected a PEM file with certificates";
            found.map_err(|reason| format!("{}: {expected}: {reason}", path.display()))
        });
        self.authorities.entry(path).or_insert(found).clone()
    }

    fn file(&mut self, path: &Path) -> Result<&PemFile, String> {
        // A device may have no end, and a pipe nobody who writes.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(format!("{}: it is no regular file", path.display()));
        }
        let file = self.files.entry(path.to_owned());
        Ok(file.or_insert_with_key(|path| PemFile::read(path)))
    }

    /// Warnings, and the files with their paths.
    pub(super) fn done(self) -> (Vec<String>, BTreeMap<PathBuf, PemFile>) {
        let warnings = self.exposed.into_values().flatten();
        (warnings.collect(), self.files)
    }
}
