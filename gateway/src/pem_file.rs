//! PEM files that the configuration names.

use std::borrow::Cow;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::asn1_rs::{Any, FromDer};
use zeroize::Zeroizing;

use crate::pem::Block;

/// A file as it was at one moment, readable or not.
pub struct PemFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// It may hold a private key.
    content: io::Result<Zeroizing<Vec<u8>>>,
}

/// Tells contents of files apart without keeping them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl PemFile {
    /// Reads a file; why one cannot be read is told by whoever asks for what is in it.
    pub fn read(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            content: std::fs::read(path).map(Zeroizing::new),
        }
    }

    /// What a file holds that is not written yet.
    pub(crate) fn of(path: &Path, content: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            content: Ok(Zeroizing::new(content.to_vec())),
        }
    }

    /// Whether there is no such file.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&self.content, Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// All certificates in it, at least one; else why there are none, in words that never repeat
    /// what the file holds.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(self.content()?)
    }

    /// The first private key in it that needs no passphrase; else why there is none, in words that
    /// never repeat what the file holds.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let blocks = self.blocks()?;
        let mut keys = blocks.iter().filter(|block| block.is_private_key());
        let Some(block) = keys.find(|block| !block.is_encrypted()) else {
            return Err(if blocks.iter().any(Block::is_encrypted) {
                "the key is encrypted; the gateway needs it without a passphrase".to_owned()
            } else {
                none_among(&blocks)
            });
        };
        let key = block.private_key().map_err(|error| error.to_string())?;
        key.ok_or_else(|| {
            let form = shown(block.label());
            format!("{form} is none of PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY")
        })
    }

    /// All lists of revoked certificates in it, at least one; else why there are none, in words that
    /// never repeat what the file holds.
    pub fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let blocks = self.blocks()?;
        let lists = blocks.iter().filter(|block| block.is_revocation_list());
        let lists: Result<Vec<_>, _> = lists.map(|block| block.der().map(Into::into)).collect();
        let lists = lists.map_err(|error| error.to_string())?;
        if lists.is_empty() {
            return Err(none_among(&blocks));
        }
        Ok(lists)
    }

    fn blocks(&self) -> Result<Vec<Block>, String> {
        Block::all(self.content()?).map_err(|error| error.to_string())
    }

    /// What it holds, in no certain form.
    pub(crate) fn bytes(&self) -> io::Result<&[u8]> {
        match &self.content {
            Ok(content) => Ok(content),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    fn content(&self) -> Result<&[u8], String> {
        match &self.content {
            Ok(content) => Ok(content),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The mode of a file, where it lets others do what none of `forbidden` should.
pub(crate) fn exposed(path: &Path, forbidden: u32) -> io::Result<Option<u32>> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & forbidden != 0).then_some(mode))
}

/// All certificates in a PEM text, at least one; else why there are none, in words that never repeat
/// what stands there.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let blocks = Block::all(text).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for block in blocks.iter().filter(|block| block.is_certificate()) {
        let der = block.der().map_err(|error| error.to_string())?;
        // In a "trusted" one follows what OpenSSL's own tools are told of it.
        let behind = Any::from_der(&der).map_or(0, |(behind, _)| behind.len());
        let is_trusted = block.label().starts_with("TRUSTED");
        let len = if is_trusted {
            der.len() - behind
        } else {
            der.len()
        };
        certificates.push(der[..len].to_vec().into());
    }
    if certificates.is_empty() {
        return Err(none_among(&blocks));
    }
    Ok(certificates)
}

impl Fingerprint {
    /// A number that is the same wherever the content is.
    pub(crate) fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(bytes)
    }

    /// Of several files together: of what they hold, or why they cannot be read.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a PemFile>) -> Self {
        let mut context = Context::new(&SHA256);
        for file in files {
            let (mark, bytes) = match &file.content {
                Ok(content) => (b"+", Cow::from(content.as_slice())),
                Err(error) => (b"-", Cow::from(error.to_string().into_bytes())),
            };
            context.update(mark);
            context.update(&bytes.len().to_be_bytes());
            context.update(&bytes);
        }
        Self::finished(context)
    }

    /// The same, and of settings that decide what becomes of them.
    #[must_use]
    pub fn with(self, settings: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        context.update(settings.as_bytes());
        Self::finished(context)
    }

    fn finished(context: Context) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        Self(fingerprint)
    }
}

/// What is there instead.
fn none_among(blocks: &[Block]) -> String {
    let mut labels: Vec<_> = blocks.iter().map(|block| shown(block.label())).collect();
    labels.dedup();
    if labels.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has none, but {}", labels.join(", "))
    }
}

/// The name of a block, unless it may be anything else.
fn shown(label: &str) -> &str {
    const LONGEST: usize = 40;
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    if label.len() <= LONGEST && label.bytes().all(is_name) {
        label
    } else {
        "a block of an unknown kind"
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

    #[test]
    fn what_a_file_has_instead_is_told() {
        let file = |content: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            PemFile::read(file.path())
        };
        let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        let public = file(&block("PUBLIC KEY").repeat(2));
        let expected = "it has none, but PUBLIC KEY";
        assert_eq!(public.certificates().unwrap_err(), expected);
        assert_eq!(public.private_key().unwrap_err(), expected);
        let openssh = file(&block("OPENSSH PRIVATE KEY"));
        assert_eq!(
            openssh.private_key().unwrap_err(),
            "OPENSSH PRIVATE KEY is none of PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY"
        );
        let secret = file(&block("s3cr3t"));
        let told = secret.private_key().unwrap_err();
        assert_eq!(told, "it has none, but a block of an unknown kind");
        let encrypted = file(&block("ENCRYPTED PRIVATE KEY"));
        let told = encrypted.private_key().unwrap_err();
        assert_eq!(
            told,
            "the key is encrypted; the gateway needs it without a passphrase"
        );
        let both =
            block("ENCRYPTED PRIVATE KEY") + &block("EC PARAMETERS") + &block("EC PRIVATE KEY");
        let key = file(&both).private_key().unwrap();
        assert!(matches!(key, PrivateKeyDer::Sec1(_)));
        let trusted =
            "-----BEGIN TRUSTED CERTIFICATE-----\nMAAwAA==\n-----END TRUSTED CERTIFICATE-----";
        assert_eq!(file(trusted).certificates().unwrap()[0].as_ref(), [0x30, 0]);
    }
}
