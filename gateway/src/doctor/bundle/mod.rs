//! A report for those who help: everything that is known of an installation in one file, without
//! secrets.

mod archive;
mod patterns;
mod pseudonyms;
mod random;
mod redactor;
mod sources;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::report::Report;
use super::scene::Scene;
use crate::background::OWN;
use redactor::Redactor;

/// What the file's name must end in, so that everybody knows how to open it.
const ENDING: &str = ".tar.zst";
/// Longest wait for a thread that writes.
const WAIT: Duration = Duration::from_secs(10);

/// A file that is being written; removed again unless it becomes whole.
pub(super) struct Bundle {
    file: File,
    place: Place,
}

/// Where it is; the file is removed when this is dropped, unless it stays.
struct Place {
    path: PathBuf,
    stays: bool,
}

impl Bundle {
    /// Makes the file, for its owner only. Fails when there is one.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if !path.as_os_str().to_string_lossy().ends_with(ENDING) {
            bail!("{shown}: the name of a report ends in {ENDING}");
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("{shown}: cannot make the report"))?;
        Ok(Self {
            file,
            place: Place {
                path: path.to_owned(),
                stays: false,
            },
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Gathers everything, takes secrets out, and writes it.
    pub(super) async fn fill(
        self,
        scene: &Scene,
        report: &Report,
        with_addresses: bool,
    ) -> anyhow::Result<()> {
        let sources = sources::gather(scene, report).await;
        let redactor = Redactor::new(&scene.config, with_addresses);
        let Self { file, mut place } = self;
        let write = move || {
            let entries = redactor.all(sources);
            archive::write(file, &entries)?.sync_all()
        };
        let written = OWN.run(WAIT, write).await?;
        let shown = place.path.display();
        written.with_context(|| format!("{shown}: cannot write the report, so it was removed"))?;
        place.stays = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.stays {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar.zst");
        fs::write(&path, "mine").unwrap();
        let error = Bundle::create(&path).err().unwrap();
        assert!(format!("{error:#}").contains("File exists"), "{error:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert!(Bundle::create(&folder.path().join("x.zip")).is_err());
    }

    #[test]
    fn one_that_does_not_become_whole_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar.zst");
        let bundle = Bundle::create(&path).unwrap();
        assert!(path.exists());
        drop(bundle);
        assert!(!path.exists());
    }
}
