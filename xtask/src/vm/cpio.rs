//! Archives that the kernel unpacks at its start: cpio in the format "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
const TRAILER: &str = "TRAILER!!!";
/// Names and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

/// An archive that is being written. Folders come before what is in them.
#[derive(Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// Adds a folder.
    pub(crate) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, FILE, (0, 0), content)
    }

    /// Adds a file that can be run.
    pub(crate) fn program(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, PROGRAM, (0, 0), content)
    }

    /// Adds a character device with its major and minor number.
    pub(crate) fn device(&mut self, name: &str, numbers: (u32, u32)) -> Result<()> {
        self.entry(name, CHARACTER_DEVICE, numbers, &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let too_large = || format!("{name} is too large for an initramfs");
        let size = u32::try_from(content.len()).with_context(too_large)?;
        let name_size = u32::try_from(name.len() + 1).with_context(too_large)?;
        self.entries += 1;
        let fields = [
            self.entries, // inode; equal ones are links of each other
            mode,
            0, // user
            0, // group
            1, // links
            0, // modification time
            size,
            0, // device that it is on: major, minor
            0,
            device.0,
            device.1,
            name_size,
            0, // checksum, unused in this format
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device numbers and content of each entry.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    fn parse(mut bytes: &[u8]) -> Vec<Entry> {
        let total = bytes.len();
        let mut entries = Vec::new();
        let mut take = |length: usize| {
            let (head, tail) = bytes.split_at(length);
            bytes = tail;
            head.to_vec()
        };
        let mut at = 0;
        while at < total {
            let header = String::from_utf8(take(110)).unwrap();
            assert!(header.starts_with("070701"));
            let field = |n: usize| u32::from_str_radix(&header[6 + 8 * n..14 + 8 * n], 16).unwrap();
            let name_size = field(11) as usize;
            let mut name = take((110 + name_size).next_multiple_of(4) - 110);
            name.truncate(name_size - 1);
            let size = field(6) as usize;
            let mut content = take(size.next_multiple_of(4));
            content.truncate(size);
            at += (110 + name_size).next_multiple_of(4) + size.next_multiple_of(4);
            let name = String::from_utf8(name).unwrap();
            entries.push((name, field(1), (field(9), field(10)), content));
        }
        entries
    }

    #[test]
    fn archives_hold_what_was_added() {
        let mut cpio = Cpio::default();
        cpio.directory("dev").unwrap();
        cpio.device("dev/console", (5, 1)).unwrap();
        cpio.program("init", b"12345").unwrap();
        cpio.file("empty", b"").unwrap();
        let entries = parse(&cpio.finish().unwrap());
        let expected = [
            ("dev", 0o040_755, (0, 0), &b""[..]),
            ("dev/console", 0o020_600, (5, 1), b""),
            ("init", 0o100_755, (0, 0), b"12345"),
            ("empty", 0o100_644, (0, 0), b""),
            ("TRAILER!!!", 0, (0, 0), b""),
        ];
        let expected = expected
            .map(|(name, mode, device, content)| (name.to_owned(), mode, device, content.to_vec()));
        assert_eq!(entries, expected);
    }
}
