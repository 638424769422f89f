//! Whether the gateway's user may read the files that the configuration names, and nobody else may
//! what only that user should.

use std::io;
use std::path::Path;

use super::super::account::{Access, Account};
use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::Check;
use crate::config::Config;
use crate::pem_file;
use crate::runtime_dir::{Owner, RuntimeDir};

pub(super) const CHECK: Check = Check::blocking("files", look);

/// A file or folder that the gateway reads.
pub(super) struct Named<'a> {
    key: &'static str,
    pub(super) path: &'a Path,
    /// Bits of its mode that let others do what they should not; those of `Desktops` and of keys
    /// for tickets are looked at by their readers.
    forbidden: u32,
}

fn look(scene: &Scene) -> Vec<Finding> {
    let config = &scene.config;
    let mut troubles = Vec::new();
    let named = named(scene);
    for file in &named {
        troubles.extend(file.trouble(&scene.account));
    }
    troubles.extend(access_log(scene, config));
    troubles.extend(runtime_dir(scene, config));
    troubles.extend(state_directory(scene, config));
    or_ok(troubles, || {
        let count = named.len();
        let name = &scene.account.name;
        format!("{count} files can be used by the user {name}")
    })
}

/// The configuration file, and all that it names for the gateway to read. What `Acme` keeps is not
/// among them: the gateway makes it.
pub(super) fn named(scene: &Scene) -> Vec<Named<'_>> {
    let config = &scene.config;
    let acme = config.acme.as_ref();
    let of_acme = acme.map(|acme| acme.directory_ca_file.as_path());
    let own = |path| acme.is_none().then_some(path);
    let certificate = own(config.cert_file.as_path()).filter(|path| *path != config.key_file);
    let portal_ca = config
        .ticket_url
        .is_some()
        .then_some(&config.ticket_url_ca_file);
    let keys = [
        ("the configuration", Some(scene.path.as_path()), 0o002),
        ("CertFile", certificate, 0o002),
        ("KeyFile", own(&config.key_file), 0o027),
        ("DirectoryCAFile of Acme", of_acme, 0o002),
        ("ClientCAFile", config.client_ca_file.as_deref(), 0o002),
        ("ClientCRLFile", config.client_crl_file.as_deref(), 0o002),
        ("ManagerCAFile", config.manager_ca_file.as_deref(), 0o002),
        ("HostCAFile", config.host_ca_file.as_deref(), 0o002),
        ("TicketURLCAFile", portal_ca.map(AsRef::as_ref), 0o002),
        ("PoolKeyFile", config.pool_key_file.as_deref(), 0),
        ("TicketPublicKeys", config.ticket_public_keys.as_deref(), 0),
        ("Desktops", config.desktops.as_deref(), 0),
        ("WebClient", config.web_client.as_deref(), 0o002),
    ];
    let named = keys.into_iter().filter_map(|(key, path, forbidden)| {
        let path = path?;
        Some(Named {
            key,
            path,
            forbidden,
        })
    });
    named.collect()
}

impl Named<'_> {
    fn trouble(&self, account: &Account) -> Option<Finding> {
        let Self { key, path, .. } = self;
        match account.obstacle(path, Access::Read) {
            Err(error) => Some(self.unreachable(&error)),
            Ok(Some(obstacle)) => Some(Finding::error(
                format!(
                    "{key}: the user {} may not read {}: {obstacle}",
                    account.name,
                    path.display()
                ),
                consequence(key),
                obstacle.remedy(account),
            )),
            Ok(None) => self.exposed(account),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Finding {
        let found = format!("{}: {}: {error}", self.key, self.path.display());
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Finding::skipped(format!("{found}; run this as root to see more"));
        }
        Finding::error(
            found,
            consequence(self.key),
            "Put the file there, or correct the key",
        )
    }

    fn exposed(&self, account: &Account) -> Option<Finding> {
        let mode = pem_file::exposed(self.path, self.forbidden).ok()??;
        let path = self.path.display();
        let key = self.key;
        Some(if self.forbidden & 0o004 != 0 {
            Finding::warning(
                format!("{key}: {path} has mode {mode:03o}, so others may read or change it"),
                "Whoever has the private key can stand in for the gateway",
                format!("chown root:{} {path} && chmod 640 {path}", account.group()),
            )
        } else {
            Finding::warning(
                format!("{key}: {path} has mode {mode:03o}, so everybody may change it"),
                "Every user of this machine can decide what the gateway does or trusts",
                format!("chmod o-w {path}"),
            )
        })
    }
}

fn consequence(key: &str) -> &'static str {
    match key {
        "WebClient" => "Browsers get an error instead of the page; other clients are served",
        _ => "The gateway does not start without it",
    }
}

/// The file need not be there yet.
fn access_log(scene: &Scene, config: &Config) -> Option<Finding> {
    let path = config.access_log.as_deref()?;
    let folder = path.parent()?;
    let account = &scene.account;
    let made_by_unit = scene.unit.as_ref().is_some_and(|unit| {
        let folders = unit.settings.words("LogsDirectory");
        let mut folders = folders.iter().map(|name| Path::new("/var/log").join(name));
        folders.any(|made| folder.starts_with(made))
    });
    if made_by_unit {
        return None;
    }
    let (target, what) = if path.exists() {
        (path, "write to it")
    } else {
        (folder, "make it there")
    };
    let found = match account.obstacle(target, Access::Write) {
        Ok(None) => return None,
        Ok(Some(obstacle)) => {
            let path = path.display();
            let found = format!(
                "AccessLog: {path}: the user {} may not {what}: {obstacle}",
                account.name
            );
            (found, obstacle.remedy(account))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let path = path.display();
            return Some(Finding::skipped(format!("AccessLog: {path}: {error}")));
        }
        Err(error) => {
            let folder = folder.display();
            let remedy = format!("install -d -m 750 -o {} {folder}", account.name);
            (format!("AccessLog: {folder}: {error}"), remedy)
        }
    };
    let why = "The gateway does not start when it cannot open its access log";
    Some(Finding::error(found.0, why, found.1))
}

fn runtime_dir(scene: &Scene, config: &Config) -> Option<Finding> {
    let path = &config.runtime_dir;
    let owner = Owner::OwnOr(scene.account.uid);
    let shown = path.display();
    if let Err(error) = RuntimeDir::new(path, owner).check() {
        return Some(Finding::error(
            error.to_string(),
            "Others could put sockets of their own there, so the gateway does not start",
            format!("chown {} {shown} && chmod 700 {shown}", scene.account.name),
        ));
    }
    let made_by_unit = scene.unit.as_ref().is_some_and(|unit| {
        let names = unit.settings.words("RuntimeDirectory");
        names
            .iter()
            .any(|name| Path::new("/run").join(name) == *path)
    });
    if made_by_unit || scene.running.is_ok() {
        return None;
    }
    let reason = why_unusable(path, &scene.account)?;
    Some(Finding::warning(
        format!(
            "RuntimeDir: {shown} cannot be made or used by the user {}: {reason}",
            scene.account.name
        ),
        "The gateway runs without the commands status, kick, drain and ticket, and no other can \
         take over from it",
        format!(
            "install -d -m 700 -o {} {shown}, or RuntimeDirectory= in the unit",
            scene.account.name
        ),
    ))
}

/// Where certificates are kept that the gateway gets by itself.
fn state_directory(scene: &Scene, config: &Config) -> Option<Finding> {
    config.acme.as_ref()?;
    let path = &config.state_directory;
    let made_by_unit = scene.unit.as_ref().is_some_and(|unit| {
        let names = unit.settings.words("StateDirectory");
        let mut made = names.iter().map(|name| Path::new("/var/lib").join(name));
        made.any(|made| path.starts_with(made))
    });
    if made_by_unit {
        return None;
    }
    let reason = why_unusable(path, &scene.account)?;
    let (shown, name) = (path.display(), &scene.account.name);
    Some(Finding::error(
        format!("StateDirectory: {shown} cannot be made or used by the user {name}: {reason}"),
        "Acme cannot keep a certificate there, so none is ordered",
        format!("install -d -m 700 -o {name} {shown}, or StateDirectory= in the unit"),
    ))
}

/// What keeps a user from making a folder or writing into it; `None`: nothing that is known.
fn why_unusable(folder: &Path, account: &Account) -> Option<String> {
    let target = if folder.exists() {
        folder
    } else {
        folder.parent()?
    };
    match account.obstacle(target, Access::Write) {
        Ok(obstacle) => obstacle.map(|obstacle| obstacle.to_string()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => Some(format!("{}: {error}", target.display())),
    }
}
