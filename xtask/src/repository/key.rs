//! Signatures, made by gpg with a key that it has.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use testkit::command::{find_program, run_bounded};

use super::files;

/// How long a signature may take; a person may have to enter the key's passphrase.
const LIMIT: Duration = Duration::from_mins(5);

/// A key that can sign.
pub(crate) struct Key {
    fingerprint: String,
    /// Where gpg keeps it, if not where it usually keeps keys.
    home: Option<TempDir>,
}

impl Key {
    /// Finds the secret key that gpg knows by an identifier.
    pub(crate) fn find(id: &str) -> Result<Self> {
        Self::in_home(None, id)
    }

    /// Makes a key that is gone when dropped.
    pub(crate) fn for_test() -> Result<Self> {
        let home = TempDir::with_prefix("gpg-")?;
        let mut generate = gpg(Some(&home));
        generate.args(["--passphrase", "", "--quick-generate-key"]);
        // RSA is what rpm of RHEL 8 knows.
        generate.args(["test@flexvdi-gateway.invalid", "rsa3072", "sign", "never"]);
        run_bounded(generate, LIMIT).context("making a key")?;
        Self::in_home(Some(home), "test@flexvdi-gateway.invalid")
    }

    fn in_home(home: Option<TempDir>, id: &str) -> Result<Self> {
        let mut list = gpg(home.as_ref());
        list.args(["--with-colons", "--list-secret-keys", "--", id]);
        let list =
            run_bounded(list, LIMIT).with_context(|| format!("gpg has no secret key {id}"))?;
        let fingerprint = fingerprint(&list).context("gpg tells no fingerprint")?;
        Ok(Self { fingerprint, home })
    }

    /// Signs a file; the signature lies beside it, with `.asc` behind its name.
    pub(crate) fn sign(&self, file: &Path) -> Result<PathBuf> {
        let mut name = file.as_os_str().to_owned();
        name.push(".asc");
        let signature = PathBuf::from(name);
        self.sign_to(file, &signature)?;
        Ok(signature)
    }

    /// Signs a file; the signature lies where it is wanted.
    pub(super) fn sign_to(&self, file: &Path, signature: &Path) -> Result<()> {
        self.gpg("--detach-sign", file, signature)
    }

    /// Makes a file with the text and its signature.
    pub(super) fn sign_inside(&self, file: &Path, signed: &Path) -> Result<()> {
        self.gpg("--clear-sign", file, signed)
    }

    /// Puts signatures into all rpms of a folder.
    pub(crate) fn sign_rpms(&self, folder: &Path) -> Result<()> {
        let gpg = find_program("gpg").context("gpg is missing: apt-get install -y gnupg")?;
        let mut sign = Command::new("rpmsign");
        sign.arg("--define")
            .arg(format!("_gpg_name {}", self.fingerprint));
        // Debian's rpm looks for gpg2, a name that Debian has no longer.
        sign.arg("--define").arg(format!("__gpg {}", gpg.display()));
        if let Some(home) = &self.home {
            sign.arg("--define")
                .arg(format!("_gpg_path {}", home.path().display()));
        }
        // What rpm of RHEL 8 checks.
        sign.args(["--define", "_gpg_digest_algo sha256", "--addsign"]);
        sign.args(files(folder, "rpm")?);
        run_bounded(sign, LIMIT).map(drop)
    }

    /// Writes the public key.
    pub(crate) fn write_public(&self, file: &Path) -> Result<()> {
        let mut export = gpg(self.home.as_ref());
        export.args(["--armor", "--export", "--", &self.fingerprint]);
        fs::write(file, run_bounded(export, LIMIT)?)
            .with_context(|| format!("writing {}", file.display()))
    }

    fn gpg(&self, how: &str, file: &Path, output: &Path) -> Result<()> {
        let mut gpg = gpg(self.home.as_ref());
        gpg.args(["--yes", "--armor", "--digest-algo", "SHA256"])
            .args(["--local-user", &self.fingerprint, "--output"])
            .arg(output)
            .arg(how)
            .arg(file);
        run_bounded(gpg, LIMIT).with_context(|| format!("signing {}", file.display()))?;
        Ok(())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            // The agent would look for its folder for a while.
            let mut end = Command::new("gpgconf");
            end.arg("--homedir")
                .arg(home.path())
                .args(["--kill", "all"]);
            let _ = run_bounded(end, LIMIT);
        }
    }
}

fn gpg(home: Option<&TempDir>) -> Command {
    let mut gpg = Command::new("gpg");
    gpg.arg("--batch");
    if let Some(home) = home {
        gpg.arg("--homedir").arg(home.path());
    }
    gpg
}

/// The first one in gpg's list with colons.
fn fingerprint(list: &str) -> Option<String> {
    let line = list.lines().find_map(|line| line.strip_prefix("fpr:"))?;
    let fingerprint = line.split(':').find(|field| !field.is_empty())?;
    Some(fingerprint.to_owned())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fingerprint_is_that_of_the_key() {
        let list = "sec:u:3072:1:89ABCDEF89ABCDEF:1:::u:::sc:::+:::23::0:\n\
                    fpr:::::::::0123456789ABCDEF0123456789ABCDEF01234567:\n\
                    fpr:::::::::FFFF:\n";
        let expected = "0123456789ABCDEF0123456789ABCDEF01234567";
        assert_eq!(fingerprint(list).as_deref(), Some(expected));
        assert_eq!(fingerprint("sec:u:"), None);
    }
}
