//! The client for browsers (`WebClient`): a page that logs in and shows the desktop with
//! spice-html5.
//!
//! The page is part of the program. spice-html5 has another licence, so it comes from a directory
//! of the system. Everything is read when the configuration is, and served from memory: no request
//! touches a disk.

mod answer;
mod cross_site;
mod directory;
mod own;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use tracing::{info, warn};

use crate::canonical_path::CanonicalPath;
use crate::config::{Config, WEB_CLIENT_PATHS};
use crate::http::Origin;
use crate::http::body::Body;
pub use cross_site::is_foreign_login;
use directory::{ENTRY, MAX_BYTES, MAX_ENTRIES};

/// The path of the page itself.
const PAGE: &str = "/";
/// Below [`WEB_CLIENT_PATHS`]: the files of spice-html5.
const SPICE_HTML5: &str = "spice-html5/";

/// What is shown to browsers at this moment.
#[derive(Default)]
pub struct WebClient(ArcSwapOption<Pages>);

impl WebClient {
    /// Shows this from now on; `None`: nothing, as without the client.
    pub fn set(&self, pages: Option<Pages>) {
        self.0.store(pages.map(Arc::new));
    }

    /// Whether there is a client for browsers.
    pub fn is_on(&self) -> bool {
        self.0.load().is_some()
    }

    /// Whether it shows just this, or as little.
    pub fn shows(&self, pages: Option<&Pages>) -> bool {
        self.0.load().as_deref() == pages
    }

    /// Whether a path is one of its own.
    pub fn has(&self, path: &CanonicalPath) -> bool {
        let path = path.as_str();
        self.is_on() && (path == PAGE || path.starts_with(WEB_CLIENT_PATHS))
    }

    /// Answers a request for such a path; `None`: the client was turned off meanwhile.
    pub fn answer(
        &self,
        method: &Method,
        path: &CanonicalPath,
        headers: &HeaderMap,
        origin: &Origin,
    ) -> Option<Response<Body>> {
        let pages = self.0.load_full()?;
        let mut response = answer::answer(&pages, method, path.as_str(), headers);
        answer::protect(&mut response, origin.authority(), origin.is_https());
        Some(response)
    }
}

/// The page and all that it loads, or why it cannot be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Pages {
    directory: PathBuf,
    /// By their paths.
    content: Result<HashMap<String, File>, Unusable>,
}

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    /// The page opens channels with tickets, which are for this gateway.
    #[error("it needs HijackAll")]
    NoTickets,
    /// The system does not let the directory be read; the text names the file.
    #[error("{0}")]
    Unreadable(String),
    /// There is no spice-html5, or one before 0.2, which has no modules.
    #[error(
        "it has no spice-html5 of version 0.2 or later (no {ENTRY} that is a module); Debian's \
         package spice-html5 puts one into /usr/share/spice-html5"
    )]
    NotThere,
    /// It is another directory, most likely.
    #[error("it has more than {MAX_ENTRIES} files or {} MiB", MAX_BYTES >> 20)]
    TooLarge,
}

/// A file as browsers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// The value of `Content-Type`.
    kind: &'static str,
    /// The value of `ETag` (RFC 9110, section 8.8.3), which tells contents apart.
    tag: HeaderValue,
    bytes: Bytes,
}

impl File {
    fn new(kind: &'static str, bytes: Bytes) -> Self {
        /// Enough that no two contents have the same, in bytes.
        const LEN: usize = 12;
        let hash = digest(&SHA256, &bytes);
        let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..LEN]));
        Self {
            kind,
            tag: HeaderValue::try_from(tag).unwrap_or_else(|_| unreachable!("base64url in quotes")),
            bytes,
        }
    }
}

impl Pages {
    /// Reads the directory that the configuration names; `None`: it names none. A directory that
    /// cannot be used is told by [`Pages::tell`] and [`Pages::warning`], and its client is answered
    /// for with an error; other clients do not need it.
    pub fn read(config: &Config) -> Option<Self> {
        let directory = config.web_client.clone()?;
        let content = if config.hijack_all {
            Self::content(&directory)
        } else {
            Err(Unusable::NoTickets)
        };
        Some(Self { directory, content })
    }

    fn content(directory: &Path) -> Result<HashMap<String, File>, Unusable> {
        let spice = directory::read(directory)?.into_iter().map(|(path, file)| {
            let path = format!("{WEB_CLIENT_PATHS}{SPICE_HTML5}{path}");
            (path, file)
        });
        Ok(own::files().chain(spice).collect())
    }

    /// What an administrator should know, in one line.
    pub fn warning(&self) -> Option<String> {
        let reason = self.content.as_ref().err()?;
        let directory = self.directory.display();
        Some(format!(
            "{directory}: WebClient: {reason}; browsers get an error, other clients are served"
        ))
    }

    /// Tells the log what browsers get from now on.
    pub fn tell(&self) {
        let directory = self.directory.display();
        match &self.content {
            Ok(files) => {
                let bytes: usize = files.values().map(|file| file.bytes.len()).sum();
                info!(%directory, files = files.len(), bytes, "client for browsers");
            }
            Err(reason) => warn!(%directory, %reason, "no client for browsers: they get an error"),
        }
    }
}
