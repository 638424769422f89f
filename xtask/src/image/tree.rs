//! Files as they will lie in the image, in memory: the same bytes in make the same bytes out.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail};
use tar::{Archive, Builder, EntryType, Header};

/// Files by their path, without a slash at the begin. A folder comes before what is in it.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    mode: u32,
    /// User and group, which have the same number.
    owner: u64,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Folder,
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    /// The files that an archive has and `wanted` accepts, by their path, all of root.
    ///
    /// Fails for hard links and devices among them.
    pub(super) fn from_tar(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let mut tree = Self::default();
        for entry in Archive::new(bytes).entries()? {
            let mut entry = entry?;
            let path = String::from_utf8(entry.path_bytes().into_owned())?;
            let path = path.trim_start_matches("./").trim_end_matches('/');
            if !wanted(path) {
                continue;
            }
            match entry.header().entry_type() {
                EntryType::Directory => {}
                EntryType::Regular => {
                    let mode = entry.header().mode()? & 0o755;
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    tree.file(path, mode, content);
                }
                EntryType::Symlink => {
                    let target = entry.link_name_bytes().context("a link without a target")?;
                    tree.link(path, std::str::from_utf8(&target)?);
                }
                other => bail!("{path}: neither file nor link: {other:?}"),
            }
        }
        Ok(tree)
    }

    /// A folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u64) {
        self.put(path, mode, owner, Content::Folder);
    }

    /// A file of root.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, mode, 0, Content::File(content.into()));
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.put(path, 0o777, 0, Content::Link(target.to_owned()));
    }

    /// Takes in what another one has, which replaces what is there.
    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Paths and contents of all files.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .filter_map(|(path, node)| match &node.content {
                Content::File(content) => Some((path.as_str(), content.as_slice())),
                _ => None,
            })
    }

    /// Bytes of all files.
    pub(super) fn size(&self) -> usize {
        self.files().map(|(_, content)| content.len()).sum()
    }

    /// As an archive, in which everything is as old as `time`, in seconds since the Unix epoch.
    pub(super) fn tar(&self, time: u64) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, node) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.owner);
            header.set_gid(node.owner);
            header.set_mtime(time);
            header.set_size(0);
            match &node.content {
                Content::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    tar.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Content::File(content) => {
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_slice())?;
                }
                Content::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(tar.into_inner()?)
    }

    fn put(&mut self, path: &str, mode: u32, owner: u64, content: Content) {
        // Folders on the way are there before; one that is there stays as it is.
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node {
                mode: 0o755,
                owner: 0,
                content: Content::Folder,
            });
        }
        let node = Node {
            mode,
            owner,
            content,
        };
        self.0.insert(path.to_owned(), node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Tree {
        let mut tree = Tree::default();
        tree.file("usr/lib/b", 0o755, "content");
        tree.link("lib", "usr/lib");
        tree.folder("run/own", 0o700, 65532);
        tree
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = some().tar(1_700_000_000).unwrap();
        let read = Tree::from_tar(&bytes, |path| path != "run/own").unwrap();
        let files: Vec<_> = read.files().collect();
        assert_eq!(files, [("usr/lib/b", &b"content"[..])]);
        assert_eq!(read.0["lib"], some().0["lib"]);
        assert!(!read.0.contains_key("run"));
        for entry in Archive::new(&bytes[..]).entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_order_does_not_matter() {
        let tree = some();
        let paths: Vec<_> = tree.0.keys().collect();
        assert_eq!(
            paths,
            ["lib", "run", "run/own", "usr", "usr/lib", "usr/lib/b"]
        );
        let mut other = Tree::default();
        other.folder("run/own", 0o700, 65532);
        other.link("lib", "usr/lib");
        other.file("usr/lib/b", 0o755, "content");
        assert_eq!(tree.tar(7).unwrap(), other.tar(7).unwrap());
    }

    #[test]
    fn what_is_neither_file_nor_link_is_refused() {
        let mut tar = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_size(0);
        tar.append_data(&mut header, "dev/null", &[][..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let error = Tree::from_tar(&bytes, |_| true).unwrap_err();
        assert!(error.to_string().contains("dev/null"), "{error}");
    }
}
