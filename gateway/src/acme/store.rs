//! What is kept in `StateDirectory`: the account, the certificate with its key, and until when the
//! authority must not be asked.
//!
//! All files are for the gateway's user alone.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Uri;
use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::progress::seconds;
use crate::kept_file::{self, WRITABLE_BY_OTHERS, write_fresh};
use crate::pem_file::exposed;

/// The file that is locked by the gateway that renews.
const LOCK: &str = "lock";
/// The file with the time before which the authority must not be asked.
const PAUSE: &str = "retry-after";
/// Longest part of a file's name that is made of the directory's address, in bytes.
const MAX_NAME: usize = 200;
/// More than an account, or a certificate with its chain and key, needs, in bytes.
const ROOM: usize = 64 * 1024;
/// The mode of the files.
const MODE: u32 = 0o600;

/// Why something is not kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}", path = .path.display())]
pub(super) struct StoreError {
    path: PathBuf,
    reason: String,
}

/// The directory `acme` in `StateDirectory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store(PathBuf);

/// This process is the one that renews, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "holds the lock")] File);

/// An account, as it is kept.
#[derive(Deserialize, Serialize)]
pub(super) struct Account {
    /// The directory of the authority that has given it.
    pub(super) directory: String,
    /// What the authority was told last.
    pub(super) contact: Vec<String>,
    /// The key and the account's address.
    pub(super) credentials: AccountCredentials,
}

/// What there is of an account.
pub(super) enum Found {
    None,
    Good(Box<Account>),
    /// What is wrong with it.
    Damaged(StoreError),
}

impl Store {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Makes the directory if it is missing, and has it for this process; `None`: another one has.
    pub(super) fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0);
        made.map_err(|error| self.error("", &error))?;
        let mode = exposed(&self.0, WRITABLE_BY_OTHERS).map_err(|error| self.error("", &error))?;
        if let Some(mode) = mode {
            let reason = format!(
                "expected a directory that its owner alone may write to (chmod go-w), found mode \
                 {mode:04o}"
            );
            return Err(self.error("", &reason));
        }
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.0.join(LOCK));
        let file = opened.map_err(|error| self.error(LOCK, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(self.error(LOCK, &error)),
        }
    }

    /// Fails where there is no room for what an order brings: what the authority has given could
    /// not be kept, and it gives only so much.
    pub(super) fn prove_room(&self) -> Result<(), StoreError> {
        let path = self.0.join("room");
        let proved = write_fresh(&path, &vec![b'.'; ROOM], MODE);
        let removed = fs::remove_file(&path);
        proved
            .and(removed)
            .map_err(|error| self.error("room", &error))
    }

    /// The account at this authority.
    pub(super) fn account(&self, directory: &Uri) -> Result<Found, StoreError> {
        let name = account_name(directory);
        let text = match kept_file::read(&self.0.join(&name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::None),
            Err(error) => return Err(self.error(&name, &error)),
        };
        // What the reader says may repeat what is there.
        Ok(match serde_json::from_slice::<Box<Account>>(&text) {
            Ok(account) if *directory == account.directory.as_str() => Found::Good(account),
            Ok(_) => Found::Damaged(self.error(&name, &"it is that of another authority")),
            Err(_) => Found::Damaged(self.error(&name, &"it holds no account")),
        })
    }

    /// Keeps an account in the place of the one that there may be, which stays beside it.
    pub(super) fn keep_account(
        &self,
        directory: &Uri,
        account: &Account,
    ) -> Result<(), StoreError> {
        let name = account_name(directory);
        let text = serde_json::to_vec(account).map(Zeroizing::new);
        let text = text.map_err(|error| self.error(&name, &error))?;
        self.replace(&name, &text)
    }

    /// Takes an account that is of no use out of the way, and keeps it for whoever looks for it.
    pub(super) fn set_account_aside(&self, directory: &Uri) -> Result<(), StoreError> {
        let name = account_name(directory);
        let aside = self.0.join(format!("{name}.old"));
        fs::rename(self.0.join(&name), aside).map_err(|error| self.error(&name, &error))
    }

    /// Keeps a certificate; `path` is where the configuration has it, in this directory.
    pub(super) fn keep_certificate(&self, path: &Path, text: &[u8]) -> Result<(), StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.replace(&name, text)
    }

    /// Until when this authority must not be asked; `None`: it may be.
    pub(super) fn pause(&self, directory: &Uri) -> Option<SystemTime> {
        let text = fs::read_to_string(self.0.join(PAUSE)).ok()?;
        let (seconds, of) = text.trim().split_once(' ')?;
        let seconds = Duration::from_secs(seconds.parse().ok()?);
        (*directory == *of).then(|| UNIX_EPOCH.checked_add(seconds))?
    }

    /// Keeps until when this authority must not be asked.
    pub(super) fn keep_pause(&self, directory: &Uri, until: SystemTime) -> Result<(), StoreError> {
        let seconds = seconds(until);
        self.replace(PAUSE, format!("{seconds} {directory}\n").as_bytes())
    }

    /// Puts a file in the place of the one that there may be.
    fn replace(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let replaced = kept_file::replace(&self.0.join(name), content, MODE);
        replaced.map_err(|error| self.error(name, &error))
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    fn error(&self, name: &str, reason: &impl ToString) -> StoreError {
        StoreError {
            path: if name.is_empty() {
                self.0.clone()
            } else {
                self.0.join(name)
            },
            reason: reason.to_string(),
        }
    }
}

/// The name of the file for the account at an authority, made of its directory's address.
fn account_name(directory: &Uri) -> String {
    let address = directory.to_string();
    let address = address.trim_start_matches("https://");
    let mut name = String::from("account-");
    name.extend(address.chars().take(MAX_NAME).map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => c,
        _ => '_',
    }));
    name + ".json"
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let parent = tempfile::tempdir().unwrap();
        let store = Store::new(parent.path().join("state/acme"));
        (parent, store)
    }

    #[test]
    fn one_process_has_it_at_a_time() {
        let (_parent, store) = store();
        let lock = store.lock().unwrap().unwrap();
        assert!(store.lock().unwrap().is_none());
        drop(lock);
        assert!(store.lock().unwrap().is_some());
        fs::set_permissions(&store.0, fs::Permissions::from_mode(0o770)).unwrap();
        let error = store.lock().unwrap_err().to_string();
        assert!(error.ends_with("(chmod go-w), found mode 0770"), "{error}");
    }

    #[test]
    fn what_a_crash_has_left_is_not_in_the_way() {
        let (_parent, store) = store();
        let _lock = store.lock().unwrap();
        let path = store.0.join("certificate.pem");
        store.keep_certificate(&path, b"old").unwrap();
        // Half of a new one, which nobody takes for it.
        let fresh = store.0.join("certificate.pem.fresh");
        fs::write(&fresh, b"ha").unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(*kept_file::read(&path).unwrap(), b"old");
        store.keep_certificate(&path, b"new").unwrap();
        assert_eq!(*kept_file::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!fresh.exists());
        store.prove_room().unwrap();
        assert!(!store.0.join("room").exists());
    }

    #[test]
    fn a_pause_is_one_of_an_authority() {
        let (_parent, store) = store();
        let _lock = store.lock().unwrap();
        let one = Uri::from_static("https://one.example/dir");
        let until = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        assert_eq!(store.pause(&one), None);
        store.keep_pause(&one, until).unwrap();
        assert_eq!(store.pause(&one), Some(until));
        assert_eq!(
            store.pause(&Uri::from_static("https://two.example/dir")),
            None
        );
        for damage in [
            "",
            "x",
            "1",
            "x https://one.example/dir",
            "18446744073709551615 https://one.example/dir",
        ] {
            fs::write(store.0.join(PAUSE), damage).unwrap();
            assert_eq!(store.pause(&one), None, "{damage}");
        }
    }

    #[test]
    fn names_of_accounts_stay_in_the_directory() {
        for (address, name) in [
            (
                "https://acme-v02.api.letsencrypt.org/directory",
                "account-acme-v02.api.letsencrypt.org_directory.json",
            ),
            (
                "https://[::1]:14000/../dir",
                "account-___1__14000_.._dir.json",
            ),
        ] {
            assert_eq!(account_name(&address.parse().unwrap()), name);
        }
        let long = format!("https://a.example/{}", "x".repeat(5_000));
        assert!(account_name(&long.parse().unwrap()).len() < 255);
    }
}
