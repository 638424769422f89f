//! Rewriting of the manager's answers to `POST /vdi/desktop`.
//!
//! An answer with `status` `OK` tells the client where its desktop is. Only what the gateway has
//! to change in it is changed: all other members keep their place and their exact text.

mod error;
mod gunzip;
mod members;

use std::fmt;

use serde_json::Value;
use serde_json::error::Category;

pub use error::HijackError;
pub use gunzip::gunzip;
use members::{Members, string};

use crate::grant::Grant;
use crate::target::Target;

const STATUS: &str = "status";
const SPICE_ADDRESS: &str = "spice_address";
const SPICE_PORT: &str = "spice_port";
const SPICE_TLS_PORT: &str = "spice_tls_port";
const USE_WS: &str = "use_ws";

/// What takes the place of the host's address and port (`HijackAll`).
pub struct Replacement<'a> {
    /// The name of the gateway as the client knows it, IPv6 literals with brackets: clients put it
    /// into a URI as it is.
    pub address: &'a str,
    /// The ticket that the client gives as its token.
    pub ticket: &'a str,
}

impl fmt::Debug for Replacement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The manager's answer to `POST /vdi/desktop`.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The desktop is ready.
    Desktop(DesktopAnswer<'a>),
    /// Any status but `OK`; such an answer is passed on unchanged.
    Other,
}

/// An answer with `status` `OK`.
pub struct DesktopAnswer<'a> {
    members: Members<'a>,
}

/// Reads an answer. Of members with equal names the last one counts.
///
/// Fails when the body is not one JSON object; a byte order mark before it is skipped.
pub fn parse(body: &[u8]) -> Result<Answer<'_>, HijackError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let members: Members<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.classify() == Category::Data {
            return HijackError::NotAnObject;
        }
        HijackError::NotJson {
            line: error.line(),
            column: error.column(),
        }
    })?;
    let status = members.last(STATUS).and_then(string);
    Ok(match status.as_deref() {
        Some("OK") => Answer::Desktop(DesktopAnswer { members }),
        _ => Answer::Other,
    })
}

impl DesktopAnswer<'_> {
    /// The host and port of the desktop, or its Unix socket, which has no port.
    ///
    /// Fails when one of them is missing or unusable.
    pub fn destination(&self) -> Result<Grant, HijackError> {
        let address = self.members.last(SPICE_ADDRESS).and_then(string);
        let address = address.ok_or(HijackError::Address)?;
        if let Some(path) = Target::socket(&address) {
            let path = path.map_err(|_| HijackError::Address)?;
            return Ok(Grant::new(Target::Unix(path)));
        }
        let host = address.parse().map_err(|_| HijackError::Address)?;
        let port_of = |name| {
            let value = self.members.last(name)?;
            port(&string(value).unwrap_or_else(|| value.get().to_owned()))
        };
        let port = port_of(SPICE_PORT).ok_or(HijackError::Port)?;
        Ok(Grant {
            // No port may be written in many ways: null, "", 0, -1.
            tls_port: port_of(SPICE_TLS_PORT),
            ..Grant::new(Target::new(host, port))
        })
    }

    /// The answer for the client: it is told to use WebSockets, and given the replacement, if
    /// any, as address and port.
    pub fn rewrite(&self, replacement: Option<&Replacement<'_>>) -> Vec<u8> {
        let mut changes = vec![(USE_WS, Value::from(true))];
        if let Some(replacement) = replacement {
            changes.push((SPICE_ADDRESS, replacement.address.into()));
            changes.push((SPICE_PORT, replacement.ticket.into()));
        }
        self.members.with(&changes).into_bytes()
    }
}

impl fmt::Debug for DesktopAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DesktopAnswer").finish_non_exhaustive()
    }
}

fn port(digits: &str) -> Option<u16> {
    // `u16::from_str` would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const REPLACEMENT: Replacement<'_> = Replacement {
        address: "gateway.example.com",
        ticket: "ticket",
    };

    fn desktop(body: &str) -> DesktopAnswer<'_> {
        match parse(body.as_bytes()).unwrap() {
            Answer::Desktop(desktop) => desktop,
            Answer::Other => panic!("not a desktop: {body}"),
        }
    }

    fn rewritten(body: &str, replacement: Option<&Replacement<'_>>) -> String {
        String::from_utf8(desktop(body).rewrite(replacement)).unwrap()
    }

    fn destination(address: &str, port: &str) -> Result<Target, HijackError> {
        let body = format!(r#"{{"status":"OK","spice_address":{address},"spice_port":{port}}}"#);
        desktop(&body).destination().map(|grant| grant.target)
    }

    fn host_of(address: &str) -> Option<String> {
        match destination(&json!(address).to_string(), "1").ok()? {
            Target::Tcp { host, .. } => Some(host.to_string()),
            Target::Unix(_) => None,
        }
    }

    fn port_of(port: &str) -> Option<u16> {
        match destination("\"host\"", port).ok()? {
            Target::Tcp { port, .. } => Some(port),
            Target::Unix(_) => None,
        }
    }

    #[test]
    fn address_port_and_use_ws_change_and_nothing_else() {
        let body = r#"{ "spice_password" : "s\u00e9\/cret", "spice_port": "5900",
            "n": [1.0, 1e400, -0, 123456789012345678901234567890], "use_ws": "true",
            "o": {"b":  1, "a": {"status": "Error"}}, "status":"OK",
            "spice_address": "10.0.0.1", "inactivity_timeout": 0 }"#;
        assert_eq!(
            rewritten(body, Some(&REPLACEMENT)),
            concat!(
                r#"{"spice_password":"s\u00e9\/cret","spice_port":"ticket","#,
                r#""n":[1.0, 1e400, -0, 123456789012345678901234567890],"use_ws":true,"#,
                r#""o":{"b":  1, "a": {"status": "Error"}},"status":"OK","#,
                r#""spice_address":"gateway.example.com","inactivity_timeout":0}"#
            )
        );
        assert_eq!(
            desktop(body).destination(),
            Ok(Grant::new(Target::new("10.0.0.1".parse().unwrap(), 5900)))
        );
    }

    #[test]
    fn a_port_for_tls_is_told_and_stays() {
        for (member, tls_port) in [
            ("5901", Some(5901)),
            ("\"5901\"", Some(5901)),
            ("null", None),
            ("\"\"", None),
            ("0", None),
            ("-1", None),
            ("70000", None),
        ] {
            let body = format!(
                r#"{{"status":"OK","spice_address":"h","spice_port":1,"spice_tls_port":{member}}}"#
            );
            let found = desktop(&body).destination().unwrap();
            assert_eq!(found.tls_port, tls_port, "{member}");
            let changed = rewritten(&body, Some(&REPLACEMENT));
            assert!(changed.contains(&format!(r#""spice_tls_port":{member}"#)));
        }
    }

    #[test]
    fn without_replacement_address_and_port_stay() {
        assert_eq!(
            rewritten(
                r#"{"status":"OK","spice_address":"[::1]","spice_port":5900}"#,
                None
            ),
            r#"{"status":"OK","spice_address":"[::1]","spice_port":5900,"use_ws":true}"#
        );
        assert_eq!(
            rewritten(r#"{"status":"OK"}"#, None),
            r#"{"status":"OK","use_ws":true}"#
        );
    }

    #[test]
    fn use_ws_becomes_true_whatever_it_was() {
        for old in ["true", "false", "\"true\"", "null", "[1,{}]", "0"] {
            assert_eq!(
                rewritten(&format!(r#"{{"use_ws":{old},"status":"OK","x":1}}"#), None),
                r#"{"use_ws":true,"status":"OK","x":1}"#
            );
        }
    }

    #[test]
    fn replacements_are_escaped() {
        let replacement = Replacement {
            address: "a\"b\\\n",
            ticket: "\u{1}é",
        };
        assert_eq!(
            rewritten(
                r#"{"status":"OK","spice_address":"h","spice_port":1}"#,
                Some(&replacement)
            ),
            r#"{"status":"OK","spice_address":"a\"b\\\n","spice_port":"\u0001é","use_ws":true}"#
        );
    }

    #[test]
    fn of_duplicate_members_the_last_counts_and_all_change() {
        let body = r#"{"status":"Error","spice_address":"a","spice_port":1,"use_ws":0,"x":1,"x":2,
            "status":"OK","spice_address":"b","spice_port":"2","use_ws":1}"#;
        assert_eq!(
            desktop(body).destination(),
            Ok(Grant::new(Target::new("b".parse().unwrap(), 2)))
        );
        assert_eq!(
            rewritten(body, Some(&REPLACEMENT)),
            concat!(
                r#"{"status":"Error","spice_address":"gateway.example.com","spice_port":"ticket","#,
                r#""use_ws":true,"x":1,"x":2,"status":"OK","#,
                r#""spice_address":"gateway.example.com","spice_port":"ticket","use_ws":true}"#
            )
        );
        assert!(matches!(
            parse(br#"{"status":"OK","status":"Pending"}"#),
            Ok(Answer::Other)
        ));
    }

    #[test]
    fn escaped_names_are_the_names_they_mean() {
        assert_eq!(
            rewritten(
                r#"{"\u0073tatus":"\u004fK","spice\u005fport":"5900","\ud800":1,"é":"\ud800"}"#,
                Some(&Replacement {
                    address: "a",
                    ticket: "t"
                })
            ),
            concat!(
                r#"{"\u0073tatus":"\u004fK","spice\u005fport":"t","\ud800":1,"é":"\ud800","#,
                r#""use_ws":true,"spice_address":"a"}"#
            )
        );
    }

    #[test]
    fn other_answers_are_not_touched() {
        for body in [
            r#"{"status":"Pending"}"#,
            r#"{"status":"Error","message":"OK"}"#,
            r#"{"status":"SelectDesktop","message":"{\"key\":\"name\"}"}"#,
            r#"{"status":"ok"}"#,
            r#"{"status":"OK "}"#,
            r#"{"status":["OK"]}"#,
            r#"{"status":null}"#,
            r#"{"status":1e400}"#,
            r#"{"Status":"OK"}"#,
            r#"{"x":{"status":"OK"}}"#,
            "{}",
        ] {
            assert!(
                matches!(parse(body.as_bytes()), Ok(Answer::Other)),
                "{body}"
            );
        }
    }

    #[test]
    fn bodies_that_are_not_json_are_refused() {
        for body in [
            &b""[..],
            b"  ",
            b"{",
            b"{\"status\":\"OK\"",
            b"{\"status\":\"OK\"}x",
            b"{\"status\":\"OK\"}{}",
            b"{\"status\":\"OK\",}",
            b"{status:\"OK\"}",
            b"{1:\"OK\"}",
            b"{\"status\":\"OK\",\"x\":\"\xff\"}",
            b"{\"status\":\"OK\",\"x\":\"\x01\"}",
            b"\xff\xfe{\0}\0",
            b"<html>",
        ] {
            assert!(
                matches!(parse(body), Err(HijackError::NotJson { .. })),
                "{}",
                body.escape_ascii()
            );
        }
        for body in ["[]", "[{\"status\":\"OK\"}]", "\"OK\"", "1", "null", "true"] {
            assert_eq!(
                parse(body.as_bytes()).unwrap_err(),
                HijackError::NotAnObject,
                "{body}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(
            rewritten("\u{feff}{\"status\":\"OK\"}", None),
            r#"{"status":"OK","use_ws":true}"#
        );
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        for body in [
            format!(r#"{{"status":"OK","x":{open}"#),
            r#"{"status":"OK","x":"#.repeat(100_000),
        ] {
            assert!(matches!(
                parse(body.as_bytes()),
                Err(HijackError::NotJson { .. })
            ));
        }
        let nested = format!("{open}{close}");
        for known in ["status", "spice_address", "spice_port"] {
            let body = format!(
                r#"{{"status":"OK","spice_address":"h","spice_port":"1","{known}":{nested}}}"#
            );
            match parse(body.as_bytes()).unwrap() {
                Answer::Desktop(desktop) => assert!(desktop.destination().is_err()),
                Answer::Other => assert_eq!(known, "status"),
            }
        }
        assert_eq!(
            rewritten(&format!(r#"{{"status":"OK","x":{nested}}}"#), None),
            format!(r#"{{"status":"OK","x":{nested},"use_ws":true}}"#)
        );
    }

    #[test]
    fn hosts() {
        for (address, host) in [
            ("10.0.0.1", "10.0.0.1"),
            ("host.example.com", "host.example.com"),
            ("::1", "::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(host_of(address).as_deref(), Some(host));
        }
        for address in [
            "",
            "[]",
            "[::1",
            "::1]",
            "[[::1]]",
            "a b",
            "a\n",
            " ",
            "\0",
            "x@127.0.0.1",
            "0.0.0.0",
            "::",
            "[fe80::1%eth0]",
        ] {
            assert_eq!(host_of(address), None, "{address:?}");
        }
        for address in ["null", "1", "[\"h\"]", "\"\\ud800\""] {
            assert_eq!(destination(address, "1"), Err(HijackError::Address));
        }
        assert_eq!(
            desktop(r#"{"status":"OK","spice_port":"1"}"#).destination(),
            Err(HijackError::Address)
        );
    }

    #[test]
    fn a_unix_socket_needs_no_port() {
        let body = r#"{"status":"OK","spice_address":"unix:/run/vdi/7.sock"}"#;
        let path = "/run/vdi/7.sock".parse().unwrap();
        assert_eq!(
            desktop(body).destination(),
            Ok(Grant::new(Target::Unix(path)))
        );
        assert_eq!(
            rewritten(body, Some(&REPLACEMENT)),
            concat!(
                r#"{"status":"OK","spice_address":"gateway.example.com","#,
                r#""use_ws":true,"spice_port":"ticket"}"#
            )
        );
        for address in ["unix:", "unix:a", "unix:/a/../b", "unix:/a\n", "UNIX:/a"] {
            assert_eq!(
                destination(&json!(address).to_string(), "1"),
                Err(HijackError::Address)
            );
        }
    }

    #[test]
    fn ports() {
        for (port, number) in [
            ("\"5900\"", 5900),
            ("5900", 5900),
            ("\"1\"", 1),
            ("65535", 65_535),
            ("\"05900\"", 5900),
        ] {
            assert_eq!(port_of(port), Some(number), "{port}");
        }
        for port in [
            "\"\"",
            "\"0\"",
            "0",
            "65536",
            "\"65536\"",
            "-1",
            "\"-1\"",
            "\"+1\"",
            "5900.0",
            "59e2",
            "\" 5900\"",
            "\"5900 \"",
            "\"0x17\"",
            "\"٥\"",
            "null",
            "true",
            "[5900]",
            "\"99999999999\"",
        ] {
            assert_eq!(destination("\"h\"", port), Err(HijackError::Port), "{port}");
        }
        assert_eq!(
            desktop(r#"{"status":"OK","spice_address":"h"}"#).destination(),
            Err(HijackError::Port)
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let body = r#"{"status":"OK","spice_password":"secret","spice_port":"secret"}"#;
        let answer = parse(body.as_bytes()).unwrap();
        assert_eq!(format!("{answer:?}"), "Desktop(DesktopAnswer { .. })");
        let replacement = Replacement {
            address: "gateway",
            ticket: "secret",
        };
        assert_eq!(
            format!("{replacement:?}"),
            "Replacement { address: \"gateway\", .. }"
        );
        let errors = [
            desktop(body).destination().unwrap_err(),
            parse(b"\"secret\"").unwrap_err(),
            parse(b"{\"spice_password\":\"secret").unwrap_err(),
            parse(b"{\"secret\" 1}").unwrap_err(),
        ];
        for error in errors {
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&body);
        }

        #[test]
        fn the_meaning_of_all_other_members_stays(
            members in prop::collection::btree_map("[a-zé\"\\\\]{1,8}", ".*", 0..8)
        ) {
            let mut body = json!(members);
            body["status"] = "OK".into();
            let rewritten = rewritten(&body.to_string(), Some(&REPLACEMENT));
            body["use_ws"] = true.into();
            body["spice_address"] = REPLACEMENT.address.into();
            body["spice_port"] = REPLACEMENT.ticket.into();
            prop_assert_eq!(serde_json::from_str::<Value>(&rewritten).unwrap(), body);
        }
    }
}
