//! What a kernel must not have, found out without doing it: trying would bring it down.

use std::fs;
use std::io;
use std::path::Path;

use super::LoadError;

/// The kernel's own types and functions, by name.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// What the kernel's worker sends pages on `AF_UNIX` with, up to Linux 6.4. A verdict that ran
/// from within it ended in a page fault in `sk_skb_adjust_room` (seen in 6.1.187). Later kernels
/// send pages with `sendmsg`.
const FAULTY: &[u8] = b"unix_stream_sendpage";

/// Refuses a kernel whose `AF_UNIX` does not stand a verdict, and one that does not tell.
pub(super) fn check() -> Result<(), LoadError> {
    check_names(Path::new(BTF))
}

fn check_names(btf: &Path) -> Result<(), LoadError> {
    let types = fs::read(btf).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::NoBtf,
        _ => LoadError::System(error),
    })?;
    // Names stand in one section, each with a zero behind it.
    if types.split(|byte| *byte == 0).any(|name| name == FAULTY) {
        return Err(LoadError::FaultyKernel);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(content: &[u8]) -> Result<(), LoadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        check_names(file.path())
    }

    #[test]
    fn kernels_that_would_fault_are_refused() {
        let faulty = check_of(b"\0unix_bind\0unix_stream_sendpage\0unix_poll\0");
        assert!(matches!(faulty, Err(LoadError::FaultyKernel)));
        assert!(check_of(b"\0unix_bind\0unix_stream_sendmsg\0unix_poll\0").is_ok());
        assert!(check_of(b"\0not_unix_stream_sendpage\0").is_ok());
    }

    #[test]
    fn kernels_that_do_not_tell_are_refused() {
        let nothing = check_names(Path::new("/nonexistent/btf"));
        assert!(matches!(nothing, Err(LoadError::NoBtf)));
    }
}
