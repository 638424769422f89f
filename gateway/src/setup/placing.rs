//! New files, all of them or none, where nothing is yet.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::Group;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// A file to be made.
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) content: Zeroizing<String>,
    /// Whether others than root and the service must not read it.
    pub(super) is_secret: bool,
}

impl NewFile {
    /// One that everybody may read.
    pub(super) fn public(path: PathBuf, content: String) -> Self {
        Self {
            path,
            content: Zeroizing::new(content),
            is_secret: false,
        }
    }

    /// One with a key or passwords.
    pub(super) fn secret(path: PathBuf, content: String) -> Self {
        Self {
            is_secret: true,
            ..Self::public(path, content)
        }
    }

    /// What others may do with it.
    pub(super) fn mode(&self, owner: &Owner) -> u32 {
        match (self.is_secret, owner.gid) {
            (false, _) => 0o644,
            (true, Some(_)) => 0o640,
            (true, None) => 0o600,
        }
    }
}

/// Who may read secret files, besides the user that runs the setup.
pub(super) struct Owner {
    /// The group's name.
    pub(super) group: String,
    /// `None`: there is no such group, or only root could give it files.
    gid: Option<u32>,
}

impl Owner {
    /// The group of the service.
    pub(super) fn of_group(name: &str) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let group = Group::from_name(name).ok().flatten();
        Self {
            group: name.to_owned(),
            gid: group.map(|group| group.gid.as_raw()).filter(|_| is_root),
        }
    }

    /// Whether the group is given what it needs.
    pub(super) fn is_known(&self) -> bool {
        self.gid.is_some()
    }
}

/// What was made; taken away again unless it is kept.
pub(super) struct Placed {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Placed {
    /// It stays.
    pub(super) fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for file in self.files.iter().rev() {
            let _ = fs::remove_file(file);
        }
        // Not where somebody has put something there meanwhile.
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Makes the files, with the folders that they lie in. Each is complete when it appears, and takes
/// the place of nothing. If one cannot be made, there is none.
pub(super) fn place(files: &[NewFile], owner: &Owner) -> anyhow::Result<Placed> {
    let mut placed = Placed {
        files: Vec::new(),
        folders: Vec::new(),
    };
    let mut staged = Vec::new();
    for file in files {
        let folder = file.path.parent().context("a file lies in a folder")?;
        make_folder(folder, &mut placed.folders)?;
        let shown = file.path.display();
        let written = stage(file, folder, owner);
        staged.push(written.with_context(|| format!("{shown}: cannot write the file"))?);
    }
    for (file, written) in files.iter().zip(staged) {
        let shown = file.path.display();
        match written.persist_noclobber(&file.path) {
            Ok(_) => placed.files.push(file.path.clone()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{shown} exists already")
            }
            Err(error) => {
                return Err(error.error).with_context(|| format!("{shown}: cannot make the file"));
            }
        }
        if let Some(folder) = file.path.parent() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.with_context(|| format!("{shown}: cannot make the file"))?;
        }
    }
    Ok(placed)
}

fn make_folder(folder: &Path, made: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent, made)?;
    }
    let shown = folder.display();
    fs::create_dir(folder).with_context(|| format!("{shown}: cannot make the directory"))?;
    made.push(folder.to_owned());
    let mode = Permissions::from_mode(0o755);
    fs::set_permissions(folder, mode).with_context(|| format!("{shown}: cannot set its mode"))
}

/// Writes all of the file under another name, which goes by itself if nothing comes of it.
fn stage(file: &NewFile, folder: &Path, owner: &Owner) -> io::Result<NamedTempFile> {
    let mut written = tempfile::Builder::new()
        .prefix(".flexvdi-gateway-setup-")
        .tempfile_in(folder)?;
    written.write_all(file.content.as_bytes())?;
    if file.is_secret && owner.gid.is_some() {
        fchown(written.as_file(), None, owner.gid)?;
    }
    let mode = Permissions::from_mode(file.mode(owner));
    written.as_file().set_permissions(mode)?;
    written.as_file().sync_all()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone() -> Owner {
        Owner {
            group: "nobody".to_owned(),
            gid: None,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn files_have_their_content_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = [
            NewFile::public(path("new.d/a"), "one".to_owned()),
            NewFile::secret(path("b"), "two".to_owned()),
        ];
        place(&files, &alone()).unwrap().keep();
        for (file, mode) in files.iter().zip([0o644, 0o600]) {
            assert_eq!(fs::read_to_string(&file.path).unwrap(), *file.content);
            let permissions = fs::metadata(&file.path).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode);
        }
        assert_eq!(names(folder.path()), ["b", "new.d"]);
    }

    #[test]
    fn what_is_not_kept_goes_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let file = NewFile::public(folder.path().join("x/y/a"), "one".to_owned());
        let placed = place(&[file], &alone()).unwrap();
        assert!(folder.path().join("x/y/a").exists());
        drop(placed);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_that_is_there_stays_and_the_others_are_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("b"), "theirs").unwrap();
        let files = ["a", "b", "c"].map(|name| NewFile::public(path(name), "mine".to_owned()));
        let told = place(&files, &alone()).err().unwrap().to_string();
        assert!(told.ends_with("/b exists already"), "{told}");
        assert_eq!(names(folder.path()), ["b"]);
        assert_eq!(fs::read_to_string(path("b")).unwrap(), "theirs");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let file = NewFile::public(folder.path().join("a/b/c"), String::new());
        let told = format!("{:#}", place(&[file], &alone()).err().unwrap());
        assert!(told.contains("/a"), "{told}");
    }

    #[test]
    fn groups_are_found_by_name() {
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(Owner::of_group("root").gid, is_root.then_some(0));
        assert_eq!(Owner::of_group("no-such-group-here").gid, None);
    }
}
