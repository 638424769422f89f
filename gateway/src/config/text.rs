//! The forms of value that are strings in the file.

use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;
use serde_json::{Value, json};

use super::value::{Form, Mismatch};
use crate::authority::Authority;
use crate::canonical_path::CanonicalPath;
use crate::certificate_subject::Subject;
use crate::socket_path::SocketPath;
use crate::web_origin::WebOrigin;

/// The path of a file. Whether it can be read shows when it is.
pub(super) enum FilePath {}

impl Form for FilePath {
    type Field = PathBuf;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<PathBuf, Mismatch> {
        read_text(value, "the path of a file", |text| {
            (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
        })
    }

    fn write(field: &PathBuf) -> Value {
        Value::from(field.to_string_lossy())
    }

    fn schema() -> Value {
        matching("^[^\\u0000]+$")
    }
}

/// The address of a page of an HTTPS server.
pub(super) enum HttpsUrl {}

impl Form for HttpsUrl {
    type Field = Uri;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<Uri, Mismatch> {
        let expected =
            "an address such as \"https://portal.example.com/tickets\", without user name";
        read_text(value, expected, |text| {
            let uri: Uri = text.parse().ok()?;
            // Without user information, which would get into logs.
            uri.authority()?.as_str().parse::<Authority>().ok()?;
            let is_https = uri.scheme() == Some(&Scheme::HTTPS) && !text.contains('#');
            is_https.then_some(uri)
        })
    }

    fn write(field: &Uri) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching("^[Hh][Tt][Tt][Pp][Ss]://[^/?#@]+([/?][^#]*)?$")
    }
}

/// A name that is only compared.
pub(super) enum Name {}

impl Form for Name {
    type Field = String;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<String, Mismatch> {
        read_text(value, "a name of up to 256 characters", |text| {
            let is_name = !text.is_empty() && text.chars().count() <= 256;
            (is_name && !text.chars().any(char::is_control)).then(|| text.to_owned())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }

    fn schema() -> Value {
        matching("^[^\\u0000-\\u001f\\u007f-\\u009f]{1,256}$")
    }
}

/// The path of a directory, from the root on: it is the same wherever the gateway was started.
pub(super) enum Directory {}

impl Form for Directory {
    type Field = PathBuf;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<PathBuf, Mismatch> {
        read_text(value, "the path of a directory, from \"/\" on", |text| {
            (text.starts_with('/') && !text.contains('\0')).then(|| PathBuf::from(text))
        })
    }

    fn write(field: &PathBuf) -> Value {
        Value::from(field.to_string_lossy())
    }

    fn schema() -> Value {
        matching("^/[^\\u0000]*$")
    }
}

/// A prefix of URI paths, made of whole segments.
pub(super) enum PathPrefix {}

impl Form for PathPrefix {
    type Field = String;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<String, Mismatch> {
        let is_prefix = |text: &str| text.starts_with('/') && text.ends_with('/');
        let is_canonical = |text: &str| {
            CanonicalPath::parse(text).is_ok_and(|canonical| canonical.as_str() == text)
        };
        let expected = match value.as_str() {
            Some(text) if is_prefix(text) && !is_canonical(text) => {
                "a path that is read in one way only, without \"//\", \";\" and dot segments"
            }
            _ => "a path that begins and ends with \"/\"",
        };
        read_text(value, expected, |text| {
            (is_prefix(text) && is_canonical(text)).then(|| text.to_owned())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }

    fn schema() -> Value {
        matching("^/([^/;]+/)*$")
    }
}

/// The path of a page, as it stands in a request.
pub(super) enum UriPath {}

impl Form for UriPath {
    type Field = String;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<String, Mismatch> {
        let expected = "a path that begins with \"/\", of visible ASCII without \"?\" and \"#\"";
        read_text(value, expected, |text| {
            let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
            (text.len() > 1 && text.starts_with('/') && text.bytes().all(fits))
                .then(|| text.to_owned())
        })
    }

    fn write(field: &String) -> Value {
        Value::from(field.as_str())
    }

    fn schema() -> Value {
        matching("^/[!\"$->@-~]+$")
    }
}

/// Where web pages come from.
pub(super) enum Origin {}

impl Form for Origin {
    type Field = WebOrigin;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<WebOrigin, Mismatch> {
        let expected = "an origin such as \"https://portal.example.com\" or \
                        \"https://10.0.0.1:8443\", without a path";
        read_text(value, expected, |text| text.parse().ok())
    }

    fn write(field: &WebOrigin) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching("^[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\\s]+$")
    }
}

/// A subject of certificates.
pub(super) enum CertificateSubject {}

impl Form for CertificateSubject {
    type Field = Subject;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<Subject, Mismatch> {
        let expected = "a certificate's subject such as \"C=IL,O=Example,CN=host 7\"";
        let Some(Err(error)) = value.as_str().map(str::parse::<Subject>) else {
            return read_text(value, expected, |text| text.parse().ok());
        };
        Err(Mismatch::new(format!("{expected} ({error})"), value))
    }

    fn write(field: &Subject) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching("=")
    }
}

/// A directory with Unix sockets.
pub(super) enum SocketDirectory {}

impl Form for SocketDirectory {
    type Field = SocketPath;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<SocketPath, Mismatch> {
        let expected = "an absolute path without \".\", \"..\", \"//\" and a slash at its end, \
                        such as \"/run/spice\"";
        read_text(value, expected, |text| text.parse().ok())
    }

    fn write(field: &SocketPath) -> Value {
        Value::from(field.to_string())
    }

    fn schema() -> Value {
        matching("^(/[^/]+)+$")
    }
}

/// The schema of a string in which this pattern is found (ECMA-262).
pub(super) fn matching(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

pub(super) fn read_text<T>(
    value: &Value,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Mismatch> {
    value
        .as_str()
        .and_then(parse)
        .ok_or_else(|| Mismatch::new(expected, value))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a value of this form should have been.
    pub(in crate::config) fn expected<F: Form>(value: &Value) -> String {
        F::read(value)
            .err()
            .expect("wrong value")
            .expected
            .into_owned()
    }

    #[test]
    fn directories_are_named_from_the_root_on() {
        let directory = Directory::read(&json!("/usr/share/x")).ok().unwrap();
        assert_eq!(directory, PathBuf::from("/usr/share/x"));
        for wrong in [json!("usr/share"), json!("./x"), json!("/a\0b"), json!(1)] {
            let expected = expected::<Directory>(&wrong);
            assert_eq!(
                expected, "the path of a directory, from \"/\" on",
                "{wrong}"
            );
        }
    }

    #[test]
    fn prefixes_that_no_request_can_have_are_refused() {
        for text in ["//", "/a//b/", "/a/../", "/a;b/", "/%61/", "/a b/"] {
            assert_eq!(
                expected::<PathPrefix>(&json!(text)),
                "a path that is read in one way only, without \"//\", \";\" and dot segments"
            );
        }
    }

    #[test]
    fn origins_have_no_path() {
        let read = Origin::read(&json!("HTTPS://portal.example:8443")).unwrap();
        assert_eq!(Origin::write(&read), json!("https://portal.example:8443"));
        for text in ["", "portal.example", "https://portal.example/", "null", "*"] {
            assert!(Origin::read(&json!(text)).is_err(), "{text}");
        }
    }
}
