//! What a setup has to know: from the options, and from whoever answers.

#![expect(
    clippy::single_match_else,
    reason = "what an option says stands beside what is asked without it"
)]

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::asking::Terminal;
use super::certificate::{Certificate, Files};
use super::first_desktop::{FirstDesktop, user_name};
use super::from_authority::Wanted;
use super::options::{Options, absolute};
use super::placing::NewFile;
use crate::authority::Authority;
use crate::config::LETS_ENCRYPT;
use crate::desktops::{self, DesktopsFile};
use crate::host::Host;
use crate::pem_file::PemFile;
use crate::prepared::ManagerTls;
use crate::secret::Secret;
use crate::target::Target;

/// Where Debian's package has spice-html5.
const SPICE_HTML5: &str = "/usr/share/spice-html5";

/// What a configuration is made of.
pub(super) struct Answers {
    /// At least one.
    pub(super) names: Vec<Host>,
    pub(super) desktops: Source,
    pub(super) certificate: Certificate,
    pub(super) web_client: Option<PathBuf>,
}

/// Who knows the desktops.
pub(super) enum Source {
    /// A manager, and the file with its authorities.
    Manager(Authority, Option<PathBuf>),
    /// A file, and what is to be written into it if it is missing.
    File(PathBuf, Option<FirstDesktop>),
}

impl Source {
    /// Adds what is to be written.
    pub(super) fn add_files(&self, files: &mut Vec<NewFile>) -> anyhow::Result<()> {
        if let Self::File(path, Some(first)) = self {
            files.push(NewFile::secret(path.clone(), first.text()?));
        }
        Ok(())
    }
}

/// Options that are needed where nobody can be asked.
#[derive(Debug, thiserror::Error)]
#[error("nobody can be asked, as standard input is no terminal or --yes is given; missing: {}", .0.join("; "))]
pub(crate) struct Missing(Vec<&'static str>);

impl Answers {
    /// Takes what the options say, and asks for the rest. New files lie in `folder` if nothing else
    /// is said.
    pub(super) fn collect(
        options: Options,
        terminal: Option<Terminal>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let missing = missing(&options);
        if terminal.is_none() && !missing.is_empty() {
            return Err(Missing(missing).into());
        }
        if let Some(terminal) = &terminal
            && !missing.is_empty()
        {
            terminal.say(
                "Nothing is written before the last answer; Ctrl-C ends this at any time.\n\
                 An empty answer is the one in brackets.",
            )?;
        }
        let mut asked = Asked {
            options,
            terminal,
            folder,
        };
        let names = asked.names()?;
        let desktops = asked.desktops()?;
        let certificate = asked.certificate(&names)?;
        let web_client = asked.web_client(!missing.is_empty())?;
        Ok(Self {
            names,
            desktops,
            certificate,
            web_client,
        })
    }
}

/// Which options are needed besides these.
fn missing(options: &Options) -> Vec<&'static str> {
    let is_new = |path: &PathBuf| path.symlink_metadata().is_err();
    let makes_file = options.desktops.as_ref().is_some_and(is_new);
    let needed = [
        (options.name.is_empty(), "--name NAMES"),
        (
            options.manager.is_none() && options.desktops.is_none(),
            "--manager HOST or --desktops FILE",
        ),
        (
            makes_file && options.desktop.is_none(),
            "--desktop HOST:PORT for the new file of desktops",
        ),
        (
            makes_file && options.user.is_none(),
            "--user NAME for the new file of desktops",
        ),
        (
            makes_file && options.password_file.is_none(),
            "--password-file FILE for the new file of desktops",
        ),
        (
            options.cert.is_none() && !options.self_signed && !options.acme.is_wanted,
            "--cert FILE with --key FILE, --acme, or --self-signed",
        ),
        (
            options.acme.is_wanted && !options.acme.agree_to_terms,
            "--acme-agree-to-terms, once you have read the authority's terms of service",
        ),
    ];
    let needed = needed.into_iter().filter(|(is_missing, _)| *is_missing);
    needed.map(|(_, option)| option).collect()
}

struct Asked<'a> {
    options: Options,
    terminal: Option<Terminal>,
    folder: &'a Path,
}

impl Asked<'_> {
    /// Whoever answers; only called for what [`missing`] names.
    fn terminal(&self) -> anyhow::Result<&Terminal> {
        self.terminal.as_ref().context("nobody can be asked")
    }

    fn default(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn names(&mut self) -> anyhow::Result<Vec<Host>> {
        if !self.options.name.is_empty() {
            return Ok(std::mem::take(&mut self.options.name));
        }
        let question = "\nNames and addresses by which clients reach this gateway, with commas \
                        between them";
        self.terminal()?.ask(question, None, names)
    }

    fn desktops(&mut self) -> anyhow::Result<Source> {
        if let Some(manager) = self.options.manager.take() {
            let authorities = self.options.manager_ca.take();
            let authorities = authorities.map(|path| authorities_in(&path)).transpose()?;
            return Ok(Source::Manager(manager, authorities));
        }
        let path = match self.options.desktops.take() {
            Some(path) => absolute(&path)?,
            None => {
                let choices = ["a file of desktops and users", "a flexVDI manager"];
                let question = "\nWho knows which desktop belongs to whom?";
                if self.terminal()?.choose(question, &choices)? == 1 {
                    return self.manager();
                }
                let default = self.default("desktops.json");
                let question = "File of desktops, which is made if it is missing";
                self.terminal()?
                    .ask(question, Some(&default), desktops_file)?
            }
        };
        if path.symlink_metadata().is_ok() {
            DesktopsFile::read(&path, false)?;
            return Ok(Source::File(path, None));
        }
        let first = self.first_desktop()?;
        Ok(Source::File(path, Some(first)))
    }

    fn manager(&self) -> anyhow::Result<Source> {
        let terminal = self.terminal()?;
        let manager = terminal.ask("The manager, HOST or HOST:PORT", None, |answer| {
            Ok(answer.parse::<Authority>()?)
        })?;
        let question = "PEM file with the authority of its certificate; with none, any certificate \
                        is accepted";
        let authorities = terminal.ask(question, Some("none"), |answer| match answer {
            "none" => Ok(None),
            path => authorities_in(Path::new(path)).map(Some),
        })?;
        Ok(Source::Manager(manager, authorities))
    }

    fn first_desktop(&mut self) -> anyhow::Result<FirstDesktop> {
        let is_asked = self.options.desktop.is_none();
        let address = match self.options.desktop.take() {
            Some(address) => address,
            None => {
                let question = "\nThe first desktop's Spice server, HOST:PORT";
                self.terminal()?
                    .ask(question, Some("127.0.0.1:5900"), |answer| {
                        Ok(answer.parse::<Target>()?)
                    })?
            }
        };
        let spice_password = match &self.options.spice_password_file {
            Some(path) => desktops::spice_password_in(path)?,
            None if is_asked => {
                let question = "Password of that Spice server; empty: it wants none";
                let check = desktops::check_spice_password;
                self.terminal()?.password(question, false, check)?
            }
            None => Secret::default(),
        };
        let user = match self.options.user.take() {
            Some(name) => user_name(&name)?,
            None => {
                let question = "\nName of the first user";
                self.terminal()?.ask(question, None, user_name)?
            }
        };
        let password = match &self.options.password_file {
            Some(path) => desktops::password_in(path)?,
            None => {
                let question = format!("Password for {user}");
                let check = desktops::check_password;
                self.terminal()?.password(&question, true, check)?
            }
        };
        Ok(FirstDesktop {
            address,
            spice_password,
            user,
            password,
        })
    }

    fn certificate(&mut self, names: &[Host]) -> anyhow::Result<Certificate> {
        if self.options.self_signed {
            return Files::to_make(self.folder).map(Certificate::Files);
        }
        if let (Some(cert), Some(key)) = (&self.options.cert, &self.options.key) {
            let files = Files::existing(absolute(cert)?, absolute(key)?, names);
            return files.map(Certificate::Files);
        }
        if self.options.acme.is_wanted {
            let wanted = Wanted::of_options(&self.options.acme)?;
            let is_agreed = self.options.acme.agree_to_terms;
            let settled = wanted.settle(names, |terms| {
                if is_agreed {
                    return Ok(true);
                }
                self.terminal()?.consent(&agreement(terms))
            });
            return settled.map(|authority| Certificate::Authority(Box::new(authority)));
        }
        let terminal = self.terminal()?;
        let choices = [
            "files that are there",
            "make one that signs itself, for trying: browsers warn of it, and remote-viewer \
             refuses it unless its machine trusts it",
            "have the gateway get one from Let's Encrypt or another authority that speaks ACME, \
             which must reach it under these names",
        ];
        loop {
            let taken = match terminal.choose("\nWhich certificate?", &choices)? {
                0 => self.existing_files(terminal, names),
                1 => Files::to_make(self.folder).map(Certificate::Files),
                _ => from_authority(terminal, names),
            };
            match taken {
                Ok(certificate) => return Ok(certificate),
                Err(error) => terminal.say(&format!("  {error:#}"))?,
            }
        }
    }

    fn existing_files(&self, terminal: &Terminal, names: &[Host]) -> anyhow::Result<Certificate> {
        let path = |question, name| terminal.ask(question, Some(&self.default(name)), readable);
        let cert = path("PEM file with the certificate and its chain", "gateway.pem")?;
        let key = path("PEM file with its key", "gateway.key")?;
        Files::existing(cert, key, names).map(Certificate::Files)
    }

    fn web_client(&mut self, may_ask: bool) -> anyhow::Result<Option<PathBuf>> {
        if let Some(path) = self.options.web_client.take() {
            return absolute(&path).map(Some);
        }
        let usual = Path::new(SPICE_HTML5);
        match &self.terminal {
            Some(terminal) if may_ask && usual.is_dir() => {
                let question = "\nShow browsers a page that logs in and opens the desktop, with \
                                spice-html5?";
                let is_wanted = terminal.agree(question)?;
                Ok(is_wanted.then(|| usual.to_owned()))
            }
            _ => Ok(None),
        }
    }
}

fn from_authority(terminal: &Terminal, names: &[Host]) -> anyhow::Result<Certificate> {
    let directory = terminal.ask("Directory of the authority", Some(LETS_ENCRYPT), |answer| {
        Ok(answer.to_owned())
    })?;
    let authorities = if directory == LETS_ENCRYPT {
        None
    } else {
        let question = "PEM file with who has signed the certificate of that server; with none, \
                        whom the system trusts";
        terminal.ask(question, Some("none"), |answer| match answer {
            "none" => Ok(None),
            path => readable(path).map(Some),
        })?
    };
    let question = "Address of mail by which the authority may reach you";
    let contact = terminal.ask(question, Some("none"), |answer| match answer {
        "none" => Ok(Vec::new()),
        address => Ok(vec![address.to_owned()]),
    })?;
    let ways = [
        "at port 443 of the names, which leads to this gateway and nothing else",
        "at port 80 of the names: the gateway opens it while the authority checks",
    ];
    let way = terminal.choose(
        "Where can the authority check that the names lead here?",
        &ways,
    )?;
    let http_port = NonZeroU16::new(80).filter(|_| way == 1);
    let wanted = Wanted::new(contact, Some(directory), authorities, http_port);
    let settled = wanted.settle(names, |terms| terminal.consent(&agreement(terms)));
    settled.map(|authority| Certificate::Authority(Box::new(authority)))
}

/// The question whether somebody agrees.
fn agreement(terms: &str) -> String {
    format!("Have you read the authority's terms of service ({terms}), and do you agree? yes or no")
}

/// A file that can be opened.
fn readable(answer: &str) -> anyhow::Result<PathBuf> {
    let path = absolute(Path::new(answer))?;
    std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn names(answer: &str) -> anyhow::Result<Vec<Host>> {
    let texts = answer.split(',').map(str::trim);
    let texts = texts.filter(|text| !text.is_empty());
    let hosts = texts.map(|text| {
        let host = text.parse::<Host>();
        host.with_context(|| format!("{text:?}"))
    });
    let hosts = hosts.collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        !hosts.is_empty(),
        "expected at least one, such as vdi.example.com"
    );
    Ok(hosts)
}

fn desktops_file(answer: &str) -> anyhow::Result<PathBuf> {
    let path = absolute(Path::new(answer))?;
    if path.symlink_metadata().is_ok() {
        DesktopsFile::read(&path, false)?;
    } else if let Some(folder) = path.parent()
        && folder.symlink_metadata().is_ok_and(|found| found.is_file())
    {
        bail!("{} is no directory", folder.display());
    }
    Ok(path)
}

fn authorities_in(path: &Path) -> anyhow::Result<PathBuf> {
    let path = absolute(path)?;
    ManagerTls::from_file(Some(&PemFile::read(&path)))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn options(line: &str) -> Options {
        let command = Options::augment_args(Command::new("setup"));
        let words = ["setup"].into_iter().chain(line.split_whitespace());
        Options::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    fn collected(line: &str, folder: &Path) -> anyhow::Result<Answers> {
        Answers::collect(options(line), None, folder)
    }

    #[test]
    fn everything_that_is_missing_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let told = |line: &str| {
            let error = collected(line, folder.path()).err().unwrap();
            error.downcast::<Missing>().unwrap().0
        };
        assert_eq!(
            told("--yes"),
            [
                "--name NAMES",
                "--manager HOST or --desktops FILE",
                "--cert FILE with --key FILE, --acme, or --self-signed"
            ]
        );
        assert_eq!(
            told("--name vdi --desktops /nonexistent/d.json --self-signed"),
            [
                "--desktop HOST:PORT for the new file of desktops",
                "--user NAME for the new file of desktops",
                "--password-file FILE for the new file of desktops",
            ]
        );
        assert_eq!(
            told("--manager m:8443 --name a,b"),
            ["--cert FILE with --key FILE, --acme, or --self-signed"]
        );
        assert_eq!(
            told("--manager m:8443 --name a,b --acme"),
            ["--acme-agree-to-terms, once you have read the authority's terms of service"]
        );
    }

    #[test]
    fn options_are_enough() {
        let folder = tempfile::tempdir().unwrap();
        let line = "--name vdi.example.com,192.0.2.10 --manager m.example:8443 --self-signed";
        let answers = collected(line, folder.path()).unwrap();
        assert_eq!(answers.names.len(), 2);
        assert!(
            matches!(&answers.desktops, Source::Manager(manager, None) if manager.port == Some(8443))
        );
        assert!(answers.certificate.is_self_signed());
        assert_eq!(answers.web_client, None);
    }

    #[test]
    fn answers_that_are_no_names_are_told() {
        assert_eq!(names(" vdi.example.com, 192.0.2.10,").unwrap().len(), 2);
        for (answer, expected) in [
            ("", "expected at least one"),
            (" , ", "expected at least one"),
            ("https://vdi", "\"https://vdi\": neither"),
            ("a b", "\"a b\": neither"),
        ] {
            let told = format!("{:#}", names(answer).unwrap_err());
            assert!(told.starts_with(expected), "{told}");
        }
    }
}
