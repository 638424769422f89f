//! What an authority says of itself, before anything is ordered (RFC 8555, section 7.1.1).

use http::{Request, StatusCode, Uri};
use instant_acme::BodyWrapper;
use serde::Deserialize;
use tokio::time::timeout;

use super::authorities;
use super::authority::{Authority, LIMIT, RequestError};
use crate::config::Acme;
use crate::manager::ManagerTlsError;

/// Longest address of terms of service that is shown, in bytes.
const MAX_ADDRESS: usize = 500;

/// What an authority asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where its terms of service are; `None`: it does not say.
    pub terms: Option<String>,
}

/// Why an authority makes no offer.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// `DirectoryCAFile` cannot be used.
    #[error(transparent)]
    Authorities(#[from] ManagerTlsError),
    /// It may answer later.
    #[error("the authority cannot be reached: {0}")]
    Unreachable(String),
    /// What answers is no authority.
    #[error("{0} is no directory of an authority that speaks ACME: {1}")]
    NoDirectory(Uri, String),
    /// It knows its clients from elsewhere.
    #[error(
        "the authority of {0} gives certificates only to accounts of its own \
         (externalAccountRequired), which the gateway does not support"
    )]
    Account(Uri),
}

/// What is read of a directory; an answer without these is none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    #[serde(rename = "newNonce")]
    _new_nonce: String,
    #[serde(rename = "newAccount")]
    _new_account: String,
    #[serde(rename = "newOrder")]
    _new_order: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    terms_of_service: Option<String>,
    external_account_required: bool,
}

/// Asks for the directory.
pub async fn ask(acme: &Acme) -> Result<Offer, OfferError> {
    let authority = Authority::new(authorities(acme)?);
    let request = Request::get(acme.directory.clone()).body(BodyWrapper::default());
    let no_directory = |why: String| OfferError::NoDirectory(acme.directory.clone(), why);
    let request = request.map_err(|error| no_directory(error.to_string()))?;
    let answer = timeout(LIMIT, authority.exchange(request)).await;
    let answer = answer.unwrap_or(Err(RequestError::Timeout));
    let answer = answer.map_err(|error| match error {
        RequestError::Timeout | RequestError::Unreachable(_) => {
            OfferError::Unreachable(error.to_string())
        }
        RequestError::Status(status) if status.is_server_error() => {
            OfferError::Unreachable(error.to_string())
        }
        RequestError::TooLong | RequestError::Status(_) => no_directory(error.to_string()),
    })?;
    if answer.status() != StatusCode::OK {
        return Err(no_directory(format!(
            "its answer has status {}",
            answer.status()
        )));
    }
    offer(&acme.directory, answer.body())
}

fn offer(address: &Uri, body: &[u8]) -> Result<Offer, OfferError> {
    let directory: Directory = serde_json::from_slice(body)
        .map_err(|error| OfferError::NoDirectory(address.clone(), error.to_string()))?;
    if directory.meta.external_account_required {
        return Err(OfferError::Account(address.clone()));
    }
    // It is shown on a terminal, where other characters may mean anything.
    let is_address = |text: &String| {
        let is_page = |uri: Uri| uri.scheme().is_some() && uri.host().is_some();
        text.len() <= MAX_ADDRESS
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && text.parse().is_ok_and(is_page)
    };
    Ok(Offer {
        terms: directory.meta.terms_of_service.filter(is_address),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(meta: &Value) -> Result<Offer, OfferError> {
        let directory = json!({
            "newNonce": "https://ca.example/nonce",
            "newAccount": "https://ca.example/account",
            "newOrder": "https://ca.example/order",
            "meta": meta,
        });
        offer(
            &Uri::from_static("https://ca.example/dir"),
            directory.to_string().as_bytes(),
        )
    }

    #[test]
    fn terms_are_taken_only_if_they_can_be_shown() {
        for (terms, taken) in [
            (json!("https://ca.example/terms"), true),
            (json!("https://ca.example/\u{1b}[2J"), false),
            (json!("terms"), false),
            (
                json!(format!("https://ca.example/{}", "a".repeat(600))),
                false,
            ),
            (json!(null), false),
        ] {
            let offer = read(&json!({"termsOfService": terms})).unwrap();
            assert_eq!(offer.terms.is_some(), taken, "{terms}");
        }
    }

    #[test]
    fn what_is_no_authority_for_everybody_is_told() {
        let told = read(&json!({"externalAccountRequired": true}));
        assert!(matches!(told, Err(OfferError::Account(_))), "{told:?}");
        let told = offer(&Uri::from_static("https://www.example/"), b"{\"a\": 1}");
        let told = told.unwrap_err().to_string();
        assert!(
            told.starts_with("https://www.example/ is no directory of an authority"),
            "{told}"
        );
    }
}
