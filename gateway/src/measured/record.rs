//! What is kept of a measurement.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use gateway_datapath::measure::{Link, Measurement};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use crate::config::Config;
use crate::kept_file::{self, WRITABLE_BY_OTHERS};

/// The file in `StateDirectory`.
const FILE: &str = "data-paths.json";
/// Of the file's form. A gateway ignores other versions.
const VERSION: u32 = 2;
/// Anybody may read it: it holds nothing but figures.
const MODE: u32 = 0o644;

/// A measurement, and what it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Of this form.
    pub version: u32,
    /// Version of the gateway that has measured.
    pub gateway: String,
    /// When, in seconds since the Unix epoch.
    pub measured_at: u64,
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// What it has found.
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// Why there is no measurement that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nobody has measured.
    #[error("not measured (flexvdi-gateway probe --measure)")]
    None,
    /// Something else than a measurement is there, or it cannot be trusted or read.
    #[error("{path} is ignored: {reason}", path = .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is about another machine than this one is now.
    #[error("measured with {0}: measure again (flexvdi-gateway probe --measure)")]
    OtherMachine(String),
    /// Nothing tells whether it is about this machine.
    #[error("this machine cannot be told from others: {0}")]
    UnknownMachine(String),
}

impl Record {
    /// Of a measurement that was made just now.
    pub fn new(machine: Machine, measurement: Measurement) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            version: VERSION,
            gateway: env!("CARGO_PKG_VERSION").to_owned(),
            measured_at: now.map_or(0, |now| now.as_secs()),
            machine,
            measurement,
        }
    }

    /// Where it is kept.
    pub fn path(config: &Config) -> PathBuf {
        config.state_directory.join(FILE)
    }

    /// What is kept, of whichever machine.
    pub fn read(config: &Config) -> Result<Self, RecordError> {
        let path = Self::path(config);
        let unusable = |reason: String| RecordError::Unusable {
            path: path.clone(),
            reason,
        };
        let content = match read(&path) {
            Ok(content) => content.map_err(unusable)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecordError::None);
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        parse(&content).map_err(unusable)
    }

    /// Keeps it in the place of an earlier one, unless that says more. The directory must be there:
    /// made by root, it would not be the gateway's.
    pub fn keep(&self, config: &Config) -> anyhow::Result<()> {
        if let (Link::Loopback { .. }, Ok(kept)) = (&self.measurement.link, Self::read(config)) {
            ensure!(
                kept.measurement.link != Link::Ethernet || !kept.is_current(),
                "what was measured over Ethernet devices stays"
            );
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        kept_file::replace(&Self::path(config), text.as_bytes(), MODE)?;
        Ok(())
    }

    /// Whether it is about this machine as it is now, and was made by this version of the gateway.
    pub fn is_current(&self) -> bool {
        let is_here = Machine::this().is_ok_and(|machine| machine == self.machine);
        is_here && self.gateway == env!("CARGO_PKG_VERSION")
    }

    /// When it was measured, as in `2026-11-30T12:00:00Z`.
    pub fn date(&self) -> String {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(self.measured_at));
        // No later year can be written.
        let time = time.filter(|_| self.measured_at < 253_402_300_800);
        time.map_or_else(
            || self.measured_at.to_string(),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
    }
}

/// What is kept about this machine as it is now.
pub(crate) fn of_this_machine(config: &Config) -> Result<Record, RecordError> {
    let record = Record::read(config)?;
    let machine =
        Machine::this().map_err(|error| RecordError::UnknownMachine(format!("{error:#}")))?;
    match machine.difference(&record.machine) {
        Some(difference) => Err(RecordError::OtherMachine(difference)),
        None => Ok(record),
    }
}

/// The content of a file that root or this user has written, and nobody else could have.
fn read(path: &Path) -> io::Result<Result<Vec<u8>, String>> {
    let file = OpenOptions::new()
        .read(true)
        // A pipe has nobody who writes into it.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    Ok(if !found.is_file() {
        Err("expected a file".to_owned())
    } else if found.uid() != 0 && found.uid() != own {
        Err(format!(
            "expected a file of root or of user {own}, found one of user {}",
            found.uid()
        ))
    } else if found.mode() & WRITABLE_BY_OTHERS != 0 {
        Err("expected a file that its owner alone may write to (chmod go-w)".to_owned())
    } else {
        Ok(kept_file::content(file)?.to_vec())
    })
}

fn parse(content: &[u8]) -> Result<Record, String> {
    /// What files of all versions begin with.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let not_one = |error: serde_json::Error| format!("it holds no measurement: {error}");
    let Versioned { version } = serde_json::from_slice(content).map_err(not_one)?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, and this gateway knows {VERSION}"
        ));
    }
    serde_json::from_slice(content).map_err(not_one)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use gateway_datapath::measure::Counted;

    use super::*;

    /// With nothing measured.
    pub(in crate::measured) fn record() -> Record {
        let measurement = Measurement {
            link: Link::Ethernet,
            counted: Counted::Threads,
            seconds: 1.5,
            channels: 16,
            others: 0.25,
            legs: Vec::new(),
        };
        Record::new(Machine::this().unwrap(), measurement)
    }

    fn config() -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            state_directory: directory.path().to_owned(),
            ..Config::default()
        };
        (directory, config)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (_directory, config) = config();
        assert_eq!(of_this_machine(&config), Err(RecordError::None));
        let record = record();
        record.keep(&config).unwrap();
        record.keep(&config).unwrap();
        assert_eq!(of_this_machine(&config), Ok(record));
    }

    #[test]
    fn figures_of_loopback_do_not_take_the_place_of_better_ones() {
        let (_directory, config) = config();
        let mut loopback = record();
        loopback.measurement.link = Link::Loopback {
            reason: "no network namespace".to_owned(),
        };
        loopback.keep(&config).unwrap();
        let mut better = record();
        better.keep(&config).unwrap();
        let error = loopback.keep(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "what was measured over Ethernet devices stays"
        );
        assert_eq!(Record::read(&config), Ok(better.clone()));
        // Those of another kernel are worth nothing here.
        better.machine.kernel = "5.0.0-other".to_owned();
        better.keep(&config).unwrap();
        loopback.keep(&config).unwrap();
    }

    #[test]
    fn another_kernel_makes_a_measurement_void() {
        let (_directory, config) = config();
        let mut record = record();
        record.machine.kernel = "5.0.0-other".to_owned();
        record.keep(&config).unwrap();
        let error = of_this_machine(&config).unwrap_err().to_string();
        assert!(
            error.starts_with("measured with kernel 5.0.0-other, now "),
            "{error}"
        );
        assert_eq!(Record::read(&config), Ok(record));
    }

    #[test]
    fn damaged_and_foreign_files_are_told_and_ignored() {
        let (directory, config) = config();
        let path = Record::path(&config);
        let reason = || of_this_machine(&config).unwrap_err().to_string();
        for (content, expected) in [
            ("", "it holds no measurement"),
            ("{\"version\": 2}", "it holds no measurement: missing field"),
            (
                "{\"version\": 7, \"legs\": 5}",
                "it has version 7, and this gateway knows 2",
            ),
            ("[2]", "it holds no measurement"),
        ] {
            fs::write(&path, content).unwrap();
            let reason = reason();
            assert!(
                reason.contains(&format!("data-paths.json is ignored: {expected}")),
                "{reason}"
            );
        }
        record().keep(&config).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(reason().contains("its owner alone"), "{}", reason());
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(reason().contains("is ignored"), "{}", reason());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(reason().contains("expected a file"), "{}", reason());
    }

    #[test]
    fn a_directory_that_is_missing_is_not_made() {
        let (directory, mut config) = config();
        config.state_directory = directory.path().join("missing");
        record().keep(&config).unwrap_err();
        assert!(!config.state_directory.exists());
    }

    #[test]
    fn dates_are_told_whatever_the_file_says() {
        let mut record = record();
        record.measured_at = 1_796_040_000;
        assert_eq!(record.date(), "2026-11-30T12:00:00Z");
        record.measured_at = u64::MAX;
        assert_eq!(record.date(), u64::MAX.to_string());
    }
}
