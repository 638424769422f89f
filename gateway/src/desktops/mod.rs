//! A manager inside, for those who have none: desktops, users and terminals from a file, behind
//! the same API (`POST /vdi/authmode`, `POST /vdi/desktop`).

mod answer;
mod asked;
mod beside;
mod command;
mod directory;
mod file;
mod granted;
mod hardware;
mod inventory;
mod login;
mod members;
mod node;
mod password;
mod problem;
mod reader;
mod shape;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::{debug, info};

use crate::access_log::AccessLog;
use crate::assignment::Assignments;
use crate::canonical_path::CanonicalPath;
use crate::config::Config;
use crate::drain::Drain;
use crate::host::Host;
use crate::http::body::Body;
use crate::http::{Origin, reply};
use crate::limits::LoginLimit;
use crate::metrics::{DesktopRefusal, Metrics};
use crate::refusal;
use answer::AuthMode;
use asked::Asked;
pub use command::{
    check_password, check_spice_password, hash, password_in, print_hash, spice_password_in,
};
pub use directory::Directory;
pub use file::{DesktopsFile, Looked, fingerprint_of, look};
use inventory::Desktop;
pub use inventory::Inventory;
use login::LoggedIn;
pub use members::{MAX_NAME, schema};
pub use problem::{DesktopsError, Problems};
#[cfg(feature = "fuzzing")]
pub(crate) use reader::{Wrong, inventory};

/// What people are told when they choose what is not theirs, or is no longer there.
const NOT_THEIRS: &str =
    "There is no such desktop for you. Please log in again and choose another.";
/// What people are told when there is nothing to choose.
const NONE: &str = "There is no desktop for you. Please contact your administrator.";

/// Answers the manager's API from the file.
pub struct Desktops {
    directory: Arc<Directory>,
    assignments: Assignments,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    logins: Arc<LoginLimit>,
    external_name: Option<Host>,
    body_timeout: Duration,
}

/// One request, and what it is answered from.
struct Call<'a> {
    file: Arc<DesktopsFile>,
    origin: &'a Origin,
    /// Address that the client connected to.
    local: IpAddr,
}

impl Desktops {
    /// `directory` holds what stands in the file, `assignments` makes the tickets. While `drain` is
    /// on there are no new ones.
    pub fn new(
        config: &Config,
        directory: Arc<Directory>,
        assignments: Assignments,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
        logins: Arc<LoginLimit>,
    ) -> Self {
        Self {
            directory,
            assignments,
            drain,
            metrics,
            access_log,
            logins,
            external_name: config.external_name.clone(),
            body_timeout: config.header_timeout,
        }
    }

    /// Where the file's content is replaced.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What limits logins, for a configuration that takes this one's place.
    pub fn logins(&self) -> &LoginLimit {
        &self.logins
    }

    /// Whether there is a file to answer from.
    pub fn are_configured(&self) -> bool {
        self.directory.current().is_some()
    }

    /// Answers a request of the API.
    ///
    /// `local` is the address that the client connected to.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        path: &CanonicalPath,
        origin: &Origin,
        local: IpAddr,
    ) -> Response<Body> {
        let (method, shown) = (request.method(), path.as_str());
        debug!(client = %origin.client, %method, path = shown, "desktop asked for");
        if !path.is_authmode() && !path.is_desktop() {
            return no_such_page();
        }
        if method != Method::POST {
            return reply::method_not_allowed("POST");
        }
        let asked = match asked::read(request.into_body(), self.body_timeout).await {
            Ok(asked) => asked,
            Err(reason) => {
                debug!(client = %origin.client, %reason, "request for a desktop refused");
                return reason.answer(path.is_authmode());
            }
        };
        // Not before: much may have changed while the body came, for which a client can take its
        // time.
        let Some(file) = self.directory.current() else {
            return no_such_page();
        };
        if path.is_authmode() {
            return answer::auth_mode(auth_mode(&file.inventory, &asked));
        }
        let call = Call {
            file,
            origin,
            local,
        };
        // Before a password is checked in vain.
        if let Some(refusal) = self.draining(&call) {
            return refusal;
        }
        self.desktop(&call, asked).await
    }

    /// The answer while there are no new desktop sessions.
    fn draining(&self, call: &Call<'_>) -> Option<Response<Body>> {
        if !self.drain.refuses() {
            return None;
        }
        info!(client = %call.origin.client, reason = "draining", "desktop refused");
        let refused = &self.metrics.desktops_refused;
        refused.count(DesktopRefusal::Draining);
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Some(reply::error(status, refusal::NO_NEW_DESKTOPS))
    }

    async fn desktop(&self, call: &Call<'_>, asked: Asked) -> Response<Body> {
        let Asked {
            hwaddress,
            username,
            password,
            desktop: wanted,
        } = asked;
        let username = username.unwrap_or_default();
        let wanted = wanted.unwrap_or_default();
        let logged_in = if username.is_empty() {
            self.terminal(call, &hwaddress.unwrap_or_default())
        } else {
            let password = password.unwrap_or_default();
            self.user(call, &username, password).await
        };
        let theirs = match logged_in {
            Ok(LoggedIn::Terminal(desktop)) => return self.give(call, &desktop).await,
            Ok(LoggedIn::User(theirs)) => theirs,
            Err(refusal) => return *refusal,
        };
        if wanted.is_empty() {
            return match &theirs[..] {
                [] => answer::refused(NONE),
                [only] => self.give(call, only).await,
                several => answer::select(several.iter().map(|desktop| &**desktop)),
            };
        }
        match theirs.iter().find(|desktop| *desktop.id == *wanted) {
            Some(chosen) => self.give(call, chosen).await,
            None => answer::refused(NOT_THEIRS),
        }
    }

    async fn give(&self, call: &Call<'_>, desktop: &Desktop) -> Response<Body> {
        // It may have begun while the password was checked.
        if let Some(refusal) = self.draining(call) {
            return refusal;
        }
        let grant = desktop.grant.clone();
        let (client, request) = (call.origin.client, &call.origin.request_id);
        match self.assignments.assign(grant, client, request).await {
            Ok(assigned) => {
                let address = call
                    .origin
                    .own_address(self.external_name.as_ref(), call.local);
                answer::desktop(desktop, &address, &assigned.ticket)
            }
            Err(refused) => refused.answer(),
        }
    }
}

fn no_such_page() -> Response<Body> {
    reply::error(StatusCode::NOT_FOUND, "no such page on this gateway")
}

fn auth_mode(inventory: &Inventory, asked: &Asked) -> AuthMode {
    let hwaddress = asked.hwaddress.as_deref().unwrap_or_default();
    match inventory.terminal(hwaddress) {
        Some(_) => AuthMode::Kiosk,
        None => AuthMode::Password,
    }
}
