//! Writes files into one, packed.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tar::{Builder, Header};
use zstd::Encoder;

/// The folder in which they are.
const FOLDER: &str = "flexvdi-gateway-doctor";

/// A file in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) text: String,
}

/// Writes all of them; gives back where to.
pub(super) fn write<W: Write>(file: W, entries: &[Entry]) -> io::Result<W> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mut archive = Builder::new(Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?);
    for Entry { name, text } in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o600);
        header.set_mtime(now);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// A disk with room for so many bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn entries() -> Vec<Entry> {
        let entry = |name: &str, text: String| Entry {
            name: name.to_owned(),
            text,
        };
        let noise = (0..100_000_u64).map(|n| format!("{:x}", n.wrapping_mul(n) ^ 0x5f35_79d1));
        vec![
            entry("a.txt", "first".to_owned()),
            entry("units/b.txt", noise.collect()),
        ]
    }

    #[test]
    fn what_is_written_is_read_by_others() {
        let disk = write(Disk(Vec::new(), usize::MAX), &entries()).unwrap();
        let unpacked = zstd::decode_all(&disk.0[..]).unwrap();
        let mut archive = tar::Archive::new(&unpacked[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let name = name
                .strip_prefix("flexvdi-gateway-doctor/")
                .unwrap()
                .to_owned();
            found.push(Entry { name, text });
        }
        assert_eq!(found, entries());
    }

    #[test]
    fn a_full_disk_is_told() {
        for room in [0, 100, 10_000] {
            let error = write(Disk(Vec::new(), room), &entries()).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
