//! The blocks of a PEM file (RFC 7468), read as tolerantly as OpenSSL reads them, and where files
//! are put together by hand more so.
//!
//! What is in a block is decoded by `rustls_pki_types`; that library alone would drop a block
//! whose first line follows directly on the last one of another, and cannot tell an encrypted key
//! from a broken one.

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// What editors of other systems put in front of a text in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Why a file has no readable blocks; never repeats what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// DER or PKCS#12.
    #[error("it is binary (DER or PKCS#12), not PEM")]
    Binary,
    /// With two bytes for each character.
    #[error("it is text in UTF-16; PEM is ASCII")]
    Utf16,
    /// A block begins that does not end.
    #[error("it is not well-formed: line {0}: the block that begins here does not end")]
    NoEnd(usize),
    /// The last line of a block of another kind.
    #[error("it is not well-formed: line {0}: this is not the end of the block before")]
    WrongEnd(usize),
    /// A first line without the dashes at its end.
    #[error("it is not well-formed: line {0}: the line does not end in five dashes")]
    WrongBegin(usize),
    /// What is in a block is no base64.
    #[error("it is not well-formed: line {0}: what is in the block is no base64")]
    Content(usize),
}

/// A block of a PEM file.
pub struct Block {
    /// What its first line says that it is.
    label: String,
    /// Where it begins, from 1.
    line: usize,
    /// Its headers say that it needs a passphrase (RFC 1421, section 4.6.1.1).
    has_encrypted_body: bool,
    body: Zeroizing<Vec<u8>>,
}

impl Block {
    /// All blocks of a text, of whatever kind.
    pub fn all(text: &[u8]) -> Result<Vec<Self>, PemError> {
        match text {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(PemError::Utf16),
            // The sequence of ASN.1 that all of these are.
            [0x30, 0x80..=0xff, ..] => return Err(PemError::Binary),
            _ => {}
        }
        let mut blocks = Vec::new();
        let mut open: Option<Self> = None;
        for (number, line) in lines(text) {
            let mut rest = line;
            // A last line and the first one of the next block may share a line.
            while !rest.is_empty() {
                rest = match open.take() {
                    None => {
                        open = Self::begun(number, rest)?;
                        &[]
                    }
                    Some(mut block) => {
                        if let Some(behind) = block.add(number, rest)? {
                            blocks.push(block);
                            behind
                        } else {
                            open = Some(block);
                            &[]
                        }
                    }
                };
            }
        }
        match open {
            Some(block) => Err(PemError::NoEnd(block.line)),
            None => Ok(blocks),
        }
    }

    /// What its first line says that it is.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// It is a certificate, by the names that OpenSSL knows.
    pub fn is_certificate(&self) -> bool {
        ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"].contains(&&*self.label)
    }

    /// It is a list of revoked certificates, by the name that OpenSSL knows.
    pub fn is_revocation_list(&self) -> bool {
        self.label == "X509 CRL"
    }

    /// It is a private key, whether it can be used or not.
    pub fn is_private_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    /// Nothing can be done with it without a passphrase.
    pub fn is_encrypted(&self) -> bool {
        self.has_encrypted_body || self.label == "ENCRYPTED PRIVATE KEY"
    }

    /// What is in it.
    pub fn der(&self) -> Result<Vec<u8>, PemError> {
        // The label decides nothing here but how carefully it is decoded.
        let decoded = <(SectionKind, Vec<u8>)>::from_pem_slice(&self.text("CERTIFICATE"));
        let (_, der) = decoded.map_err(|_| PemError::Content(self.line))?;
        Ok(der)
    }

    /// The private key in it; `None`: it is of a form that nobody uses for TLS.
    pub fn private_key(&self) -> Result<Option<PrivateKeyDer<'static>>, PemError> {
        if SectionKind::try_from(self.label.as_bytes()).is_err() {
            return Ok(None);
        }
        let key = PrivateKeyDer::from_pem_slice(&self.text(&self.label));
        key.map(Some).map_err(|_| PemError::Content(self.line))
    }

    /// The block alone, without what may stand around and in it.
    fn text(&self, label: &str) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len() + 4 * 64));
        text.extend_from_slice(format!("{BEGIN}{label}{DASHES}\n").as_bytes());
        text.extend_from_slice(&self.body);
        text.extend_from_slice(format!("\n{END}{label}{DASHES}\n").as_bytes());
        text
    }

    /// The block that begins with this line; `None`: the line is text between blocks.
    fn begun(line: usize, text: &[u8]) -> Result<Option<Self>, PemError> {
        let Some(label) = text.strip_prefix(BEGIN.as_bytes()) else {
            return Ok(None);
        };
        let label = label.strip_suffix(DASHES.as_bytes());
        let label = label.ok_or(PemError::WrongBegin(line))?;
        Ok(Some(Self {
            label: String::from_utf8_lossy(label).into_owned(),
            line,
            has_encrypted_body: false,
            body: Zeroizing::default(),
        }))
    }

    /// Adds a line; at its last one, what stands behind it in the same line.
    fn add<'a>(&mut self, number: usize, line: &'a [u8]) -> Result<Option<&'a [u8]>, PemError> {
        if line.starts_with(BEGIN.as_bytes()) {
            return Err(PemError::NoEnd(self.line));
        }
        if line.starts_with(END.as_bytes()) {
            let last = format!("{END}{}{DASHES}", self.label);
            let behind = line.strip_prefix(last.as_bytes());
            let behind = behind.ok_or(PemError::WrongEnd(number))?;
            return Ok(Some(behind.trim_ascii_start()));
        }
        // No character of base64: a header (RFC 1421, section 4.4).
        if line.contains(&b':') {
            self.has_encrypted_body |=
                line.starts_with(b"Proc-Type:") && contains(line, "ENCRYPTED");
        } else {
            self.body.extend_from_slice(line);
        }
        Ok(None)
    }
}

/// The lines with their numbers, without what stands around them; however they end.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut number = 0;
    // A file of old Macs ends lines in a mere carriage return.
    let feeds = text.contains(&b'\n');
    let is_end = move |byte: &u8| *byte == if feeds { b'\n' } else { b'\r' };
    text.split(is_end).map(move |line| {
        number += 1;
        let line = line.trim_ascii();
        (number, line.strip_prefix(BOM).unwrap_or(line))
    })
}

fn contains(line: &[u8], word: &str) -> bool {
    line.windows(word.len()).any(|part| part == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Result<Vec<(String, Vec<u8>)>, PemError> {
        let blocks = Block::all(text.as_bytes())?;
        let read = |block: &Block| Ok((block.label().to_owned(), block.der()?));
        blocks.iter().map(read).collect()
    }

    fn expected(blocks: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        let owned = |(label, der): &(&str, &str)| ((*label).to_owned(), der.as_bytes().to_vec());
        blocks.iter().map(owned).collect()
    }

    #[test]
    fn blocks_are_found_however_the_file_was_put_together() {
        let two = expected(&[("A B", "one"), ("C", "two")]);
        for text in [
            "-----BEGIN A B-----\nb25l\n-----END A B-----\n-----BEGIN C-----\ndHdv\n-----END C-----\n",
            // The last line feed of the first file was missing.
            "-----BEGIN A B-----\nb25l\n-----END A B----------BEGIN C-----\ndHdv\n-----END C-----",
            "-----BEGIN A B-----\nb25l\n-----END A B----- -----BEGIN C-----\ndHdv\n-----END C-----",
            "-----BEGIN A B-----\nb25l\n-----END A B-----\u{feff}\n\
             \u{feff}-----BEGIN C-----\ndHdv\n-----END C-----",
            "\u{feff}-----BEGIN A B-----\r\nb25l\r\n-----END A B-----\r\n\
             -----BEGIN C-----\r\ndHdv\r\n-----END C-----\r\n",
            "-----BEGIN A B-----\rb25l\r-----END A B-----\r-----BEGIN C-----\rdHdv\r-----END C-----",
            "Subject: x\n\n  -----BEGIN A B-----  \n  b2\n  5l\n  -----END A B-----  \n between \n\
             -----BEGIN C-----\nName: value\n\nd H d v\n-----END C-----\n behind",
        ] {
            assert_eq!(labels(text), Ok(two.clone()), "{text:?}");
        }
        // A comment is no block.
        assert_eq!(
            labels("# -----BEGIN A-----\n# b25l\n# -----END A-----\n"),
            Ok(vec![])
        );
        assert_eq!(labels(""), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, error) in [
            ("\n-----BEGIN A-----\nb25l\n", PemError::NoEnd(2)),
            (
                "-----BEGIN A-----\nb25l\n-----BEGIN A-----\nb25l\n-----END A-----",
                PemError::NoEnd(1),
            ),
            (
                "-----BEGIN A-----\nb25l\n-----END B-----",
                PemError::WrongEnd(3),
            ),
            (
                "-----BEGIN A----\nb25l\n-----END A-----",
                PemError::WrongBegin(1),
            ),
            (
                "text\n-----BEGIN A-----\nb25*\n-----END A-----",
                PemError::Content(2),
            ),
        ] {
            assert_eq!(labels(text), Err(error), "{text:?}");
        }
        let wrong = |bytes: &[u8]| Block::all(bytes).err();
        assert_eq!(wrong(b"\x30\x82\x01\x02\x30"), Some(PemError::Binary));
        assert_eq!(wrong(b"\xff\xfe-\0-\0"), Some(PemError::Utf16));
        // A text may begin with a zero.
        assert_eq!(wrong(b"0\n"), None);
    }

    #[test]
    fn keys_that_need_a_passphrase_are_told_apart() {
        let all = |text: &str| Block::all(text.as_bytes()).unwrap();
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-256-CBC,00\n\nb25l\n-----END RSA PRIVATE KEY-----\n";
        let new =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nb25l\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let plain = "-----BEGIN PRIVATE KEY-----\nb25l\n-----END PRIVATE KEY-----\n";
        for (text, encrypted) in [(old, true), (new, true), (plain, false)] {
            let block = &all(text)[0];
            assert!(block.is_private_key());
            assert_eq!(block.is_encrypted(), encrypted, "{text}");
        }
        assert!(matches!(all(plain)[0].private_key(), Ok(Some(_))));
        assert!(matches!(all(new)[0].private_key(), Ok(None)));
    }
}
