//! Files with authorities and keys of others, and the pages for browsers: can they be used?

use std::error::Error;
use std::path::Path;

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::{Check, NOT_TAKEN};
use crate::manager::acme_config;
use crate::pem_file::PemFile;
use crate::prepared::{HostCa, ManagerTls, PortalTls, Signers};
use crate::web_client::Pages;

pub(super) const CHECK: Check = Check::blocking("authorities", look);

fn look(scene: &Scene) -> Vec<Finding> {
    let config = &scene.config;
    let mut troubles = Vec::new();
    let mut used = Vec::new();
    let mut take =
        |key, file: Option<PemFile>, read: fn(&PemFile) -> Result<Option<String>, String>| {
            let Some(file) = file else {
                return;
            };
            if let Err(error) = file.bytes() {
                // What keeps the gateway from it is reported with the other files.
                troubles.push(skipped(key, &file.path, &error));
                return;
            }
            used.push(key);
            match read(&file) {
                Ok(None) => {}
                Ok(Some(warning)) => troubles.push(Finding::warning(
                    warning,
                    "Whoever changes it decides what the gateway trusts",
                    "Correct it",
                )),
                Err(error) => troubles.push(Finding::error(error, NOT_TAKEN, "Correct the file")),
            }
        };
    take("ManagerCAFile", ManagerTls::file(config), |file| {
        told(ManagerTls::from_file(Some(file))).map(|_| None)
    });
    take("HostCAFile", HostCa::file(config), |file| {
        told(HostCa::from_file(Some(file))).map(|_| None)
    });
    take("TicketURLCAFile", PortalTls::file(config), |file| {
        told(PortalTls::from_file(Some(file))).map(|_| None)
    });
    let of_acme = config.acme.as_ref();
    let of_acme = of_acme.map(|acme| PemFile::read(&acme.directory_ca_file));
    take("DirectoryCAFile of Acme", of_acme, |file| {
        told(acme_config(file)).map(|_| None)
    });
    take("TicketPublicKeys", Signers::file(config), |file| {
        let signers = told(Signers::from_file(Some(file)))?;
        Ok(signers.warning().map(ToOwned::to_owned))
    });
    // One that is not there is reported with the other files.
    if config
        .web_client
        .as_ref()
        .is_some_and(|folder| folder.is_dir())
        && let Some(pages) = Pages::read(config)
        && let Some(warning) = pages.warning()
    {
        troubles.push(Finding::error(
            warning,
            "There is no page for browsers",
            "Install spice-html5, or set WebClient to \"\"",
        ));
    }
    or_ok(troubles, || {
        if used.is_empty() {
            "none are configured".to_owned()
        } else {
            format!("{} can be used", used.join(", "))
        }
    })
}

fn told<T>(read: Result<T, impl Error>) -> Result<T, String> {
    read.map_err(|error| error.to_string())
}

fn skipped(key: &str, path: &Path, error: &std::io::Error) -> Finding {
    Finding::skipped(format!("{key}: {}: {error}", path.display()))
}
