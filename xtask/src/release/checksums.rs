//! The digests of all files of a release, as `sha256sum --check` reads them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::digest::sha256;

/// The file's name.
pub(super) const LIST: &str = "SHA256SUMS";

/// Writes the list into the folder that it is of.
pub(super) fn write(folder: &Path) -> Result<PathBuf> {
    let mut list = String::new();
    for name in names(folder)? {
        let content = fs::read(folder.join(&name)).with_context(|| format!("reading {name}"))?;
        writeln!(list, "{}  {name}", sha256(&content))?;
    }
    let path = folder.join(LIST);
    fs::write(&path, list).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// All files below a folder, by their paths from there, in order.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(open_folder) = open.pop() {
        let entries = fs::read_dir(&open_folder);
        for entry in entries.with_context(|| format!("reading {}", open_folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(folder)?.to_str();
            names.push(name.context("a name that is not UTF-8")?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_list_but_the_list() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/b"), "").unwrap();
        fs::write(folder.path().join("c"), "abc").unwrap();
        let list = fs::read_to_string(write(folder.path()).unwrap()).unwrap();
        // Of "abc": FIPS 180-4's example.
        assert_eq!(
            list,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  c\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  d/b\n"
        );
    }
}
