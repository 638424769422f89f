//! A certificate that the gateway gets by itself, from an authority that speaks ACME.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::options::absolute;
use crate::acme::{self, OfferError};
use crate::config::{Acme, LETS_ENCRYPT};
use crate::host::Host;

/// Longest wait for what the authority says of itself.
const LIMIT: Duration = Duration::from_secs(40);

/// The options about it.
#[derive(Debug, Args)]
pub(super) struct AcmeOptions {
    /// Have the gateway get a certificate for the DNS names of --name, and renew it, from an
    /// authority that speaks ACME: Let's Encrypt, unless --acme-directory names another one. The
    /// authority must reach the gateway at port 443 of each name, or at port 80 with
    /// --acme-http-port.
    #[arg(id = "acme", long = "acme", conflicts_with_all = ["cert", "key", "self_signed"])]
    pub(super) is_wanted: bool,
    /// You have read the authority's terms of service and agree to them. Those of Let's Encrypt:
    /// <https://letsencrypt.org/repository/>.
    #[arg(long = "acme-agree-to-terms", requires = "acme")]
    pub(super) agree_to_terms: bool,
    /// Addresses of mail by which the authority may reach you, with commas between them.
    #[arg(
        long = "acme-contact",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        requires = "acme"
    )]
    pub(super) contact: Vec<String>,
    /// The authority's directory.
    #[arg(long = "acme-directory", value_name = "URL", requires = "acme")]
    pub(super) directory: Option<String>,
    /// PEM file with the authorities that may have signed the certificate of the directory's
    /// server. Default: those that the system trusts.
    #[arg(long = "acme-directory-ca", value_name = "FILE", requires = "acme")]
    pub(super) directory_ca: Option<PathBuf>,
    /// Port at which the authority checks the names, and which it must reach as port 80. Default:
    /// it checks them at the TLS port, which it must reach as port 443.
    #[arg(long = "acme-http-port", value_name = "PORT", requires = "acme")]
    pub(super) http_port: Option<NonZeroU16>,
}

/// What a gateway needs for it.
pub(super) struct FromAuthority {
    /// As the key `Acme` has it, in which nothing stands that need not.
    pub(super) value: Value,
    /// The same.
    pub(super) acme: Acme,
    /// Names of the gateway that the certificate will not be for.
    pub(super) left_out: Vec<Host>,
    /// Why the authority could not be asked now, if it could not.
    pub(super) unreachable: Option<OfferError>,
}

/// What is known before the terms are agreed to.
pub(super) struct Wanted {
    contact: Vec<String>,
    directory: Option<String>,
    directory_ca: Option<PathBuf>,
    http_port: Option<NonZeroU16>,
}

impl Wanted {
    /// What the options say.
    pub(super) fn of_options(options: &AcmeOptions) -> anyhow::Result<Self> {
        let authorities = options.directory_ca.as_deref();
        Ok(Self {
            contact: options.contact.clone(),
            directory: options.directory.clone(),
            directory_ca: authorities.map(absolute).transpose()?,
            http_port: options.http_port,
        })
    }

    /// What somebody has answered.
    pub(super) fn new(
        contact: Vec<String>,
        directory: Option<String>,
        directory_ca: Option<PathBuf>,
        http_port: Option<NonZeroU16>,
    ) -> Self {
        Self {
            contact,
            directory: directory.filter(|directory| directory != LETS_ENCRYPT),
            directory_ca,
            http_port,
        }
    }

    /// Checks all of it, and asks the authority what its terms are, which `agree` is told. Fails
    /// where it cannot work, or where nobody agrees.
    pub(super) fn settle(
        self,
        names: &[Host],
        agree: impl FnOnce(&str) -> anyhow::Result<bool>,
    ) -> anyhow::Result<FromAuthority> {
        let (domains, left_out) = domains(names);
        if domains.is_empty() {
            bail!(
                "authorities that speak ACME give certificates for DNS names only, and there is none among the names of this gateway"
            );
        }
        let value = self.value(&domains);
        let read = Acme::read(&value).context("Acme")?;
        let acme = read.context("Acme is empty")?;
        let (terms, unreachable) = match ask(&acme)? {
            Ok(offer) => (offer.terms, None),
            Err(error @ OfferError::Unreachable(_)) => (None, Some(error)),
            Err(error) => return Err(error.into()),
        };
        let host = acme.directory.host().unwrap_or_default();
        let terms = terms.unwrap_or_else(|| format!("those of {host}"));
        if !agree(&terms)? {
            bail!("no authority gives certificates to those who do not agree to its terms");
        }
        Ok(FromAuthority {
            value,
            acme,
            left_out,
            unreachable,
        })
    }

    fn value(&self, domains: &[String]) -> Value {
        let mut members = Map::new();
        let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
        set("Domains", json!(domains));
        if !self.contact.is_empty() {
            let contact = self.contact.iter().map(|address| contact(address));
            set("Contact", contact.collect());
        }
        if let Some(directory) = &self.directory {
            set("Directory", json!(directory));
        }
        if let Some(path) = &self.directory_ca {
            set("DirectoryCAFile", json!(path));
        }
        set("TermsAgreed", json!(true));
        if let Some(port) = self.http_port {
            set("HttpPort", json!(port));
        }
        members.into()
    }
}

/// As `Contact` has it: people write addresses of mail without `mailto:`.
fn contact(address: &str) -> Value {
    let address = address.trim();
    let bare = address.strip_prefix("mailto:").unwrap_or(address);
    json!(format!("mailto:{bare}"))
}

/// Those that a certificate can be for, each once, and the others.
fn domains(names: &[Host]) -> (Vec<String>, Vec<Host>) {
    let mut domains: Vec<String> = Vec::new();
    let mut left_out = Vec::new();
    for name in names {
        if name.address().is_some() {
            left_out.push(name.clone());
            continue;
        }
        let name = name.to_string().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
        if !domains.contains(&name) {
            domains.push(name);
        }
    }
    (domains, left_out)
}

/// Asks the authority; the outer error is this system's.
fn ask(acme: &Acme) -> anyhow::Result<Result<acme::Offer, OfferError>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let asked = runtime.block_on(async { timeout(LIMIT, acme::ask(acme)).await });
    // A resolver that hangs is not waited for.
    runtime.shutdown_background();
    let late = || OfferError::Unreachable(format!("no answer within {} s", LIMIT.as_secs()));
    Ok(asked.unwrap_or_else(|_| Err(late())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<Host> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn certificates_are_for_dns_names_each_once() {
        let names = hosts(&[
            "GW.example.com",
            "192.0.2.1",
            "gw.example.com.",
            "b.example",
        ]);
        let (domains, left_out) = domains(&names);
        assert_eq!(domains, ["gw.example.com", "b.example"]);
        assert_eq!(left_out, hosts(&["192.0.2.1"]));
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_written() {
        let plain = Wanted::new(Vec::new(), Some(LETS_ENCRYPT.to_owned()), None, None);
        assert_eq!(
            plain.value(&["a.example".to_owned()]),
            json!({"Domains": ["a.example"], "TermsAgreed": true})
        );
        let full = Wanted::new(
            vec!["a@b.example".to_owned(), "mailto:c@d.example".to_owned()],
            Some("https://ca.example/dir".to_owned()),
            Some("/ca.pem".into()),
            NonZeroU16::new(80),
        );
        let value = full.value(&["a.example".to_owned()]);
        assert_eq!(
            value,
            json!({
                "Domains": ["a.example"],
                "Contact": ["mailto:a@b.example", "mailto:c@d.example"],
                "Directory": "https://ca.example/dir",
                "DirectoryCAFile": "/ca.pem",
                "TermsAgreed": true,
                "HttpPort": 80,
            })
        );
        assert!(Acme::read(&value).unwrap().is_some());
    }

    #[test]
    fn what_cannot_work_is_told_before_anybody_is_asked() {
        let told = |wanted: Wanted, names: &[&str]| {
            let settled = wanted.settle(&hosts(names), |_| unreachable!());
            format!("{:#}", settled.err().unwrap())
        };
        let with = |contact: &[&str], directory: Option<&str>| {
            let contact = contact.iter().map(|text| (*text).to_owned()).collect();
            Wanted::new(contact, directory.map(str::to_owned), None, None)
        };
        assert!(told(with(&[], None), &["192.0.2.1"]).contains("DNS names only"));
        let wrong = told(with(&["nobody"], None), &["a.example"]);
        assert!(
            wrong.contains("Contact") && wrong.contains("mailto:nobody"),
            "{wrong}"
        );
        let wrong = told(with(&[], Some("http://ca.example")), &["a.example"]);
        assert!(wrong.contains("Directory"), "{wrong}");
        let wrong = told(with(&[], None), &["a_b.example"]);
        assert!(wrong.contains("Domains"), "{wrong}");
    }
}
