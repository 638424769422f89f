//! Answers of the manager's API, as clients expect them.

use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::inventory::Desktop;
use crate::http::body::Body;
use crate::http::reply;

/// How a terminal's people log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthMode {
    /// They do not: the terminal's desktop is asked for at once, without user and password.
    Kiosk,
    /// With user and password. The flexVDI client asks for them only at this very word, though no
    /// Active Directory is needed for it.
    Password,
}

impl AuthMode {
    fn name(self) -> &'static str {
        match self {
            Self::Kiosk => "kiosk",
            Self::Password => "active_directory",
        }
    }
}

/// The answer to `POST /vdi/authmode`.
pub(super) fn auth_mode(mode: AuthMode) -> Response<Body> {
    ok(&json!({"status": "OK", "auth_mode": mode.name()}))
}

/// The desktop is there: where its channels are opened, and with what.
///
/// `address` goes into URIs as it is, so IPv6 addresses have brackets.
pub(super) fn desktop(desktop: &Desktop, address: &str, ticket: &str) -> Response<Body> {
    let mut answer = json!({
        "status": "OK",
        "spice_address": address,
        "spice_port": ticket,
        "spice_password": desktop.password.expose(),
        "use_ws": true,
    });
    if let Some(port) = desktop.grant.tls_port {
        // Says that the ticket is good for it too, as a manager would.
        answer["spice_tls_port"] = port.into();
    }
    for (name, value) in &desktop.options {
        answer[name] = value.clone();
    }
    ok(&answer)
}

/// Which desktop is it to be? The client asks again with the id of one.
pub(super) fn select<'a>(desktops: impl Iterator<Item = &'a Desktop>) -> Response<Body> {
    let choice: Map<_, _> = desktops
        .map(|desktop| (desktop.id.to_string(), Value::from(&*desktop.name)))
        .collect();
    // An object in a string, which clients take apart in a second step.
    let choice = Value::Object(choice).to_string();
    ok(&json!({"status": "SelectDesktop", "message": choice}))
}

/// Why there is no desktop. Clients for mobile devices look into answers with status 200 only, and
/// show the message then.
pub(super) fn refused(message: &str) -> Response<Body> {
    ok(&json!({"status": "Error", "message": message}))
}

/// The same, where trying again makes sense only after `seconds`. `reason` is a sentence.
pub(super) fn wait(reason: &str, seconds: u64) -> Response<Body> {
    let message = format!("{reason} Please try again in {seconds} seconds.");
    let mut response = reply::error(StatusCode::TOO_MANY_REQUESTS, &message);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn ok(answer: &Value) -> Response<Body> {
    let mut response = reply::of_type(reply::JSON, StatusCode::OK, answer.to_string());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}
