//! PEM files that the configuration names.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A file as it was at one moment, readable or not.
pub struct PemFile {
    /// Where it was read from.
    pub path: PathBuf,
    content: io::Result<Vec<u8>>,
}

/// Tells contents of files apart without keeping them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl PemFile {
    /// Reads a file; why one cannot be read is told by whoever asks for what is in it.
    pub fn read(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            content: std::fs::read(path),
        }
    }

    /// All certificates in it, at least one; else why there are none, in words that never repeat
    /// what the file holds.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let certificates = CertificateDer::pem_slice_iter(self.content()?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(explain)?;
        if certificates.is_empty() {
            return Err(explain(pem::Error::NoItemsFound));
        }
        Ok(certificates)
    }

    /// The first private key in it; else why there is none, in words that never repeat what the
    /// file holds.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(self.content()?).map_err(explain)
    }

    /// What it holds, in no certain form.
    pub(crate) fn bytes(&self) -> io::Result<&[u8]> {
        let content = self.content.as_deref();
        content.map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    fn content(&self) -> Result<&[u8], String> {
        self.content.as_deref().map_err(ToString::to_string)
    }
}

impl Fingerprint {
    /// Of several files together: of what they hold, or why they cannot be read.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a PemFile>) -> Self {
        let mut context = Context::new(&SHA256);
        for file in files {
            let (mark, bytes) = match &file.content {
                Ok(content) => (b"+", Cow::from(content)),
                Err(error) => (b"-", Cow::from(error.to_string().into_bytes())),
            };
            context.update(mark);
            context.update(&bytes.len().to_be_bytes());
            context.update(&bytes);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        Self(fingerprint)
    }
}

fn explain(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it has none".to_owned(),
        _ => "it is not well-formed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_contents_and_their_order_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            PemFile::read(&path)
        };
        let (ab, c, a, bc) = (
            file("1", "ab"),
            file("2", "c"),
            file("3", "a"),
            file("4", "bc"),
        );
        assert_ne!(Fingerprint::of([&ab, &c]), Fingerprint::of([&a, &bc]));
        assert_ne!(Fingerprint::of([&ab, &c]), Fingerprint::of([&c, &ab]));
        assert_eq!(Fingerprint::of([&ab]), Fingerprint::of([&file("5", "ab")]));
        let missing = PemFile::read(&dir.path().join("missing"));
        assert_ne!(
            Fingerprint::of([&missing]),
            Fingerprint::of([&file("6", "")])
        );
        assert!(missing.certificates().unwrap_err().contains("No such file"));
    }
}
