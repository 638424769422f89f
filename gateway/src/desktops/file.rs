//! The file, and whether it has changed.

use std::path::{Path, PathBuf};

use super::inventory::Inventory;
use super::problem::DesktopsError;
use super::reader::{Read, Wrong, read};
use crate::pem_file::{self, Fingerprint, PemFile};

/// A file that was read, and what tells whether it has changed.
#[derive(Debug)]
pub struct DesktopsFile {
    /// What stands in it.
    pub inventory: Inventory,
    /// Of the file and the files that it names.
    pub fingerprint: Fingerprint,
}

impl DesktopsFile {
    /// Reads the file and those that it names; the error tells everything that is wrong. With
    /// `is_pool` tickets are those of a pool, which do not hold everything.
    pub fn read(path: &Path, is_pool: bool) -> Result<Self, DesktopsError> {
        let file = PemFile::read(path);
        let (mut inventory, beside) = parse(path, &file, is_pool)?;
        inventory.warnings.extend(exposed(path));
        let all = [file].into_iter().chain(beside);
        let fingerprint = Fingerprint::of(&all.collect::<Vec<_>>());
        Ok(Self {
            inventory,
            fingerprint,
        })
    }
}

/// What tells a content from others; also from there being none.
pub fn fingerprint_of(file: Option<&DesktopsFile>) -> Fingerprint {
    file.map_or_else(|| Fingerprint::of([]), |file| file.fingerprint)
}

/// What was found in the place of a content, and what was made of it if it is another one.
pub type Looked = (
    Fingerprint,
    Option<Result<Option<DesktopsFile>, DesktopsError>>,
);

/// Looks whether the file at `path`, or one that it names, is other than `taken`. It is parsed only
/// then, as [`DesktopsFile::read`] does.
pub fn look(path: Option<&Path>, taken: Option<&DesktopsFile>, is_pool: bool) -> Looked {
    let beside = taken.map_or(&[][..], |file| &file.inventory.files_beside);
    let all = path.map(PemFile::read).into_iter();
    let all: Vec<_> = all.chain(read_all(beside)).collect();
    let found = Fingerprint::of(&all);
    if found == fingerprint_of(taken) {
        return (found, None);
    }
    let parsed = path
        .map(|path| DesktopsFile::read(path, is_pool))
        .transpose();
    let found = parsed
        .as_ref()
        .map_or(found, |file| fingerprint_of(file.as_ref()));
    (found, Some(parsed))
}

fn read_all(paths: &[PathBuf]) -> impl Iterator<Item = PemFile> {
    paths.iter().map(|path| PemFile::read(path))
}

fn parse(path: &Path, file: &PemFile, is_pool: bool) -> Result<Read, DesktopsError> {
    let content = file.bytes().map_err(|reason| DesktopsError::Read {
        path: path.to_owned(),
        reason,
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read(content, folder, is_pool).map_err(|wrong| match wrong {
        Wrong::Syntax(error) => syntax_error(path, &error),
        Wrong::Values(problems) => DesktopsError::Values {
            path: path.to_owned(),
            problems,
        },
    })
}

fn syntax_error(path: &Path, error: &serde_json::Error) -> DesktopsError {
    let message = error.to_string();
    let reason = message.rsplit_once(" at line ");
    DesktopsError::Syntax {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: reason
            .map_or(message.as_str(), |(reason, _)| reason)
            .to_owned(),
    }
}

/// A warning when others may read a file with secrets, or change it.
pub(super) fn exposed(path: &Path) -> Option<String> {
    // The group may read: the file is root's, and the gateway's user in its group.
    let mode = pem_file::exposed(path, 0o027).ok()??;
    Some(format!(
        "Desktops: {} has mode {mode:03o}: others may read or change it, and it holds passwords; expected 640 or less",
        path.display(),
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_of_the_file_or_of_a_password_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desktops.json");
        let write = |name: &str, content: &str| {
            fs::write(folder.path().join(name), content).unwrap();
        };
        let one = r#"{"desktops": [{"id": "a", "address": "h:5900", "password_file": "p"}]}"#;
        write("p", "one");
        write("desktops.json", one);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let taken = DesktopsFile::read(&path, false).unwrap();
        assert!(look(Some(&path), Some(&taken), false).1.is_none());

        write("p", "two");
        let (found, parsed) = look(Some(&path), Some(&taken), false);
        let taken = parsed.unwrap().unwrap().unwrap();
        assert_eq!(found, taken.fingerprint);
        assert!(look(Some(&path), Some(&taken), false).1.is_none());

        // In the middle of a change, as often as it is looked at.
        write("desktops.json", &one[..40]);
        let (first, parsed) = look(Some(&path), Some(&taken), false);
        let told = parsed.unwrap().unwrap_err().to_string();
        assert!(
            told.contains("desktops.json: line 1, column 40: EOF"),
            "{told}"
        );
        let (second, _) = look(Some(&path), Some(&taken), false);
        assert_eq!(first, second);

        fs::remove_file(&path).unwrap();
        let told = look(Some(&path), Some(&taken), false)
            .1
            .unwrap()
            .unwrap_err();
        assert!(told.to_string().contains("No such file"), "{told}");

        let (found, parsed) = look(None, Some(&taken), false);
        assert!(parsed.unwrap().unwrap().is_none());
        assert_eq!(found, look(None, None, false).0);
        assert!(look(None, None, false).1.is_none());
    }

    #[test]
    fn a_file_that_others_may_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desktops.json");
        fs::write(&path, r#"{"desktops": []}"#).unwrap();
        for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o660, 1)] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let file = DesktopsFile::read(&path, false).unwrap();
            assert_eq!(file.inventory.warnings().len(), warnings, "{mode:o}");
        }
    }
}
