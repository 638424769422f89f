//! The files of the image, in two layers: Debian's, which change rarely, and the gateway's.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::command::run_bounded;

use super::tree::Tree;
use crate::architecture::Architecture;
use crate::package::Inside;

/// User and group that the gateway runs as: by convention nobody's, in images without a system.
pub(super) const USER: u64 = 65532;
/// Where the program is.
pub(super) const PROGRAM: &str = "/usr/sbin/flexvdi-gateway";

const OBJDUMP_LIMIT: Duration = Duration::from_mins(1);

/// What programs look up by name; those of the network in files first, then with DNS.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
/// For runtimes that show none of their own there.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// Adds to Debian's files what makes a system of them.
pub(super) fn complete(system: &mut Tree) {
    system.file("etc/nsswitch.conf", 0o644, NSSWITCH);
    system.file("etc/hosts", 0o644, HOSTS);
    // Runtimes show theirs there.
    system.file("etc/resolv.conf", 0o644, "");
    let passwd = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         flexvdi-gateway:x:{USER}:{USER}:flexVDI Gateway:/nonexistent:/usr/sbin/nologin\n"
    );
    system.file("etc/passwd", 0o644, passwd);
    let group = format!("root:x:0:\nflexvdi-gateway:x:{USER}:\n");
    system.file("etc/group", 0o644, group);
    for folder in ["dev", "proc", "run", "sys"] {
        system.folder(folder, 0o755, 0);
    }
    system.folder("tmp", 0o1777, 0);
}

/// The gateway's own files.
pub(super) fn gateway(inside: Inside) -> Tree {
    let mut tree = Tree::default();
    tree.file(PROGRAM.trim_start_matches('/'), 0o755, inside.program);
    tree.folder("etc/flexvdi", 0o755, 0);
    // Where nothing is mounted over /run.
    tree.folder("run/flexvdi-gateway", 0o700, USER);
    let documents = "usr/share/doc/flexvdi-gateway";
    tree.file(
        &format!("{documents}/copyright"),
        0o644,
        inside.licence.into_bytes(),
    );
    tree.file(
        &format!("{documents}/third-party.txt.gz"),
        0o644,
        inside.third_party,
    );
    tree
}

/// Fails unless the system has every library that the program links to, and a C library that is
/// new enough.
pub(super) fn check_libraries(
    program: &[u8],
    architecture: Architecture,
    system: &Tree,
    glibc: &str,
) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(program)?;
    let mut objdump = architecture.binutils("objdump")?;
    objdump.arg("-p").arg(file.path());
    let headers = run_bounded(objdump, OBJDUMP_LIMIT)?;
    let mut names = 0;
    for name in needed(&headers) {
        let is_it = |(path, _): (&str, _)| path.rsplit('/').next() == Some(name);
        ensure!(
            system.files().any(is_it),
            "the program needs {name}, which the image does not have"
        );
        names += 1;
    }
    ensure!(names > 0, "the program is not linked to any library");
    let newest = headers.split_whitespace().filter_map(version).max();
    let newest = newest.context("the program does not say which glibc it needs")?;
    let has = numbers(glibc).with_context(|| format!("glibc {glibc}"))?;
    ensure!(
        newest <= has,
        "the program needs glibc {}.{}, the image has {glibc}",
        newest.0,
        newest.1
    );
    Ok(())
}

/// The libraries in what `objdump -p` prints.
fn needed(headers: &str) -> impl Iterator<Item = &str> {
    headers.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("NEEDED")).then(|| words.next())?
    })
}

/// The version in a symbol's name such as `GLIBC_2.34`.
fn version(word: &str) -> Option<(u32, u32)> {
    numbers(word.strip_prefix("GLIBC_")?)
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(libraries: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for name in libraries {
            tree.file(&format!("usr/lib/{name}"), 0o644, "");
        }
        tree
    }

    #[test]
    fn a_library_that_is_missing_or_too_old_is_told() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let own = Architecture::own().unwrap();
        let all = [
            "libc.so.6",
            "libm.so.6",
            "libgcc_s.so.1",
            "ld-linux-x86-64.so.2",
            "ld-linux-aarch64.so.1",
        ];
        check_libraries(&program, own, &system(&all), "2.99").unwrap();
        let error = check_libraries(&program, own, &system(&all[1..]), "2.99").unwrap_err();
        assert!(error.to_string().contains("libc.so.6"), "{error}");
        let error = check_libraries(&program, own, &system(&all), "2.3").unwrap_err();
        assert!(error.to_string().contains("the image has 2.3"), "{error}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("GLIBC_2.34"), Some((2, 34)));
        assert!(version("GLIBC_2.9") < version("GLIBC_2.34"));
        assert_eq!(version("GCC_3.0"), None);
        assert_eq!(version("GLIBC_PRIVATE"), None);
    }
}
