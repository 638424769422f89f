//! Who is it? Users by their passwords, terminals by their hardware addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use tracing::{info, warn};

use super::hardware::HardwareAddress;
use super::inventory::Desktop;
use super::{Call, Desktops, answer};
use crate::access_log::Event;
use crate::background::PASSWORDS;
use crate::http::body::Body;
use crate::http::{Client, reply};
use crate::metrics::LoginResult;
use crate::secret::Secret;
use gateway_datapath::label::Label;

/// Longest wait for a thread that checks a password: the flexVDI client gives up after five seconds
/// in all.
const WAIT: Duration = Duration::from_secs(3);
/// Most characters of a user's name in logs.
const MAX_SHOWN: usize = 64;

/// What people are told who have not shown who they are. It does not say what of it was wrong.
const WRONG: &str = "Wrong user or password.";
const UNKNOWN_TERMINAL: &str = "This terminal has no desktop. Please contact your administrator.";
const GUESSED: &str = "There were too many wrong passwords.";
const TOO_OFTEN: &str = "This terminal has asked for its desktop too often.";
const BUSY: &str = "Too many people log in at the moment. Please try again later.";

/// As which user unknown terminals are counted; no user can have this name.
const NO_USER: &str = "";

/// Whose desktops may be asked for.
pub(super) enum LoggedIn {
    /// A terminal's, which has one.
    Terminal(Arc<Desktop>),
    /// A user's, in the order of the file.
    User(Vec<Arc<Desktop>>),
}

impl Desktops {
    /// A terminal whose desktop nobody logs in for; the error is the answer.
    pub(super) fn terminal(
        &self,
        call: &Call<'_>,
        hwaddress: &str,
    ) -> Result<LoggedIn, Box<Response<Body>>> {
        let Some((terminal, desktop)) = call.file.inventory.terminal(hwaddress) else {
            let result = LoginResult::UnknownTerminal;
            let (client, terminal) = (call.origin.client, shown(hwaddress));
            // Nothing limits these but what the log is told of them.
            let now = Instant::now();
            if let Ok(attempt) = self.logins.begin(known(client), NO_USER, now) {
                info!(%client, terminal, reason = result.text(), "login refused");
                attempt.failed(now);
            }
            self.record(call, None, Some(terminal), result);
            return Err(Box::new(answer::refused(UNKNOWN_TERMINAL)));
        };
        let name = terminal
            .name
            .as_deref()
            .map_or_else(|| shown(hwaddress), shown);
        // However it is written.
        let address = HardwareAddress::parse(hwaddress);
        let may = self
            .logins
            .terminal(known(call.origin.client), &address, Instant::now());
        if let Err(wait) = may {
            // A line of the log for each would let whoever asks all the time write it.
            self.record(call, None, Some(name), LoginResult::TooOften);
            return Err(Box::new(answer::wait(TOO_OFTEN, seconds(wait))));
        }
        info!(client = %call.origin.client, terminal = name, desktop = &*desktop.id, "terminal known");
        self.record(call, None, Some(name), LoginResult::Terminal);
        Ok(LoggedIn::Terminal(Arc::clone(desktop)))
    }

    /// A user with this password; the error is the answer, which is the same and takes as long
    /// whether there is such a user or not.
    pub(super) async fn user(
        &self,
        call: &Call<'_>,
        username: &str,
        password: Secret,
    ) -> Result<LoggedIn, Box<Response<Body>>> {
        let client = call.origin.client;
        let name = shown(username);
        let refuse = |result: LoginResult, answer: Response<Body>| {
            self.record(call, Some(name.clone()), None, result);
            Err(Box::new(answer))
        };
        let attempt = self.logins.begin(known(client), username, Instant::now());
        let attempt = match attempt {
            Ok(attempt) => attempt,
            // A line of the log for each would let whoever guesses write it.
            Err(wait) => return refuse(LoginResult::TooMany, answer::wait(GUESSED, seconds(wait))),
        };
        let user = call.file.inventory.user(username);
        let stored = Arc::clone(user.map_or(&call.file.inventory.decoy, |user| &user.password));
        // The attempt goes with the check: it is counted until that is over, also when whoever made
        // it has left.
        let checked = PASSWORDS.run(WAIT, move || {
            let mut attempt = attempt;
            // Others may have failed while this one waited for the thread.
            attempt.check(Instant::now())?;
            Ok((attempt, stored.is_of(password.expose())))
        });
        let (attempt, is_right) = match checked.await {
            Ok(Ok((attempt, Ok(is_right)))) => (attempt, is_right),
            Ok(Err(wait)) => {
                return refuse(LoginResult::TooMany, answer::wait(GUESSED, seconds(wait)));
            }
            Ok(Ok((_, Err(error)))) => {
                warn!(%client, user = name, %error, "a password cannot be checked");
                return refuse(LoginResult::Busy, busy());
            }
            Err(error) => {
                warn!(%client, user = name, %error, "a password cannot be checked");
                return refuse(LoginResult::Busy, busy());
            }
        };
        let Some(user) = user.filter(|_| is_right) else {
            let result = LoginResult::Wrong;
            info!(%client, user = name, reason = result.text(), "login refused");
            if let Some(wait) = attempt.failed(Instant::now()) {
                let seconds = seconds(wait);
                warn!(%client, user = name, seconds, "too many wrong passwords: the next one has to wait");
            }
            return refuse(result, answer::refused(WRONG));
        };
        attempt.succeeded();
        info!(%client, user = name, "user logged in");
        self.record(call, Some(name), None, LoginResult::User);
        let theirs = call
            .file
            .inventory
            .desktops_of(user)
            .map(Arc::clone)
            .collect();
        Ok(LoggedIn::User(theirs))
    }

    /// Counts a login and writes it into the access log.
    fn record(
        &self,
        call: &Call<'_>,
        user: Option<String>,
        terminal: Option<String>,
        result: LoginResult,
    ) {
        self.metrics.logins.count(result);
        self.access_log.write(|| Event::Login {
            request: call.origin.request_id.clone(),
            client: call.origin.client.address(),
            user,
            terminal,
            result: result.text(),
        });
    }
}

/// The client's address; `None`: a proxy has named nobody, and those whom it speaks for cannot be
/// told apart.
fn known(client: Client) -> Option<IpAddr> {
    match client {
        Client::At(address) => Some(address),
        Client::Unnamed => None,
    }
}

fn busy() -> Response<Body> {
    reply::error(StatusCode::SERVICE_UNAVAILABLE, BUSY)
}

/// What is left, in whole seconds, so that whoever waits for so long has waited enough.
fn seconds(wait: Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1_000)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// The beginning of what a client has sent, control characters escaped.
fn shown(text: &str) -> String {
    let (cut, more) = match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => (&text[..end], "..."),
        None => (text, ""),
    };
    format!("{}{more}", cut.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_logs_are_short_and_on_one_line() {
        assert_eq!(shown("ana"), "ana");
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"ä".repeat(65)), "ä".repeat(64) + "...");
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(1_001)), 2);
    }
}
