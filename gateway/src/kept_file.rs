//! Files that the gateway keeps in `StateDirectory`: replaced at once, so that each holds the old or
//! the new content after a crash at any point.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Bits of a mode that let others than the owner write.
pub(crate) const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A longer file is none of the gateway's, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The content of a file that is kept, at most 1 MiB of it.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    content(File::open(path)?)
}

/// The content of a file that is open, at most 1 MiB of it.
pub(crate) fn content(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_FILE).read_to_end(&mut content)?;
    Ok(content)
}

/// Puts a file of this mode in the place of the one that there may be.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".fresh");
    let fresh = Path::new(&fresh);
    write_fresh(fresh, content, mode)?;
    fs::rename(fresh, path)?;
    // Only then is the name itself on the disk.
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Makes a file anew, and waits until it is on the disk. What lies in its place is not followed.
pub(crate) fn write_fresh(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Whatever the umask takes away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_a_link_beside_it_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept.json");
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "other").unwrap();
        symlink(&elsewhere, directory.path().join("kept.json.fresh")).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(*read(&path).unwrap(), b"new");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"other");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
