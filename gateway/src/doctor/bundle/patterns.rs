//! Secrets that are known by what stands around them.

use regex_lite::Regex;

use super::random::{REMOVED, RandomWords};

/// What takes secrets out of any text, whoever has written it.
#[derive(Debug)]
pub(super) struct Patterns {
    known: Vec<(Regex, &'static str)>,
    random: RandomWords,
}

/// A secret's form, and what is left of it. `$1` is what stands before it, and stays.
const KNOWN: &[(&str, &str)] = &[
    // Private keys in PEM, whole and cut off.
    (
        r"(?s)(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----).*?-----END [A-Z0-9 ]*PRIVATE KEY-----",
        "$1[removed]",
    ),
    (
        r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----)(?:[A-Za-z0-9+/=]+|\s+[A-Za-z0-9+/=]{20,})(?:\s+[A-Za-z0-9+/=]{20,})*",
        "$1[removed]",
    ),
    // User and password in a URL.
    (r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@]+@", "$1[removed]@"),
    // Headers that prove who somebody is, to their ends.
    (
        r#"(?i)(\b(?:proxy-)?authorization["']?\s*[:=]\s*|\b(?:set-)?cookie["']?\s*[:=]\s*)[^\r\n]+"#,
        "$1[removed]",
    ),
    (
        r"\b([Bb]earer|BEARER|[Bb]asic|BASIC)\s+[a-z._~-]*[A-Z0-9+/=][A-Za-z0-9._~+/=-]*",
        "$1 [removed]",
    ),
    // Fields, parameters and members that are named as secrets are.
    (
        r#"(?i)(\b[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|ticket|api[_-]?key|private[_-]?key|credentials?)["']?\s*[:=]\s*)"(?:[^"\\]|\\.)*"?"#,
        "$1\"[removed]\"",
    ),
    (
        r#"(?i)(\b[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|ticket|api[_-]?key|private[_-]?key|credentials?)["']?\s*[:=]\s*)[^\s"',;&}]+"#,
        "$1[removed]",
    ),
    // Hashes of passwords (crypt(5), and the form of argon2).
    (r#"\$[a-z0-9-]{1,12}\$[^\s"']+"#, "[removed]"),
    // JSON Web Tokens.
    (
        r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}",
        "[removed]",
    ),
];

impl Default for Patterns {
    fn default() -> Self {
        let compile = |(pattern, left): &(&str, &'static str)| {
            let regex = Regex::new(pattern);
            (
                regex.unwrap_or_else(|_| unreachable!("a test compiles them")),
                *left,
            )
        };
        Self {
            known: KNOWN.iter().map(compile).collect(),
            random: RandomWords::default(),
        }
    }
}

impl Patterns {
    /// The text without secrets.
    pub(super) fn remove(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (regex, left) in &self.known {
            text = regex.replace_all(&text, *left).into_owned();
        }
        self.random.remove(&text)
    }
}

/// The value of a setting such as `Environment=NAME=VALUE` or `SetCredential=NAME:VALUE` without
/// VALUE.
pub(super) fn without_value(setting: &str) -> String {
    match setting.split_inclusive(['=', ':']).next() {
        Some(name) if name.ends_with(['=', ':']) => format!("{name}{REMOVED}"),
        _ => REMOVED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_every_form_are_removed() {
        let patterns = Patterns::default();
        for (text, expected) in [
            ("https://user:pa55@host/x", "https://[removed]@host/x"),
            (
                "Authorization: Basic dTpw and more",
                "Authorization: [removed]",
            ),
            ("cookie=\"a=b; c=d\"", "cookie=[removed]"),
            (
                "GET /?ver=2&token=abc HTTP",
                "GET /?ver=2&token=[removed] HTTP",
            ),
            (
                "{\"password\": \"a \\\" b\", \"x\": 1}",
                "{\"password\": \"[removed]\", \"x\": 1}",
            ),
            (
                "spice_password=geheim next",
                "spice_password=[removed] next",
            ),
            ("\"ticket\":\"kurz\"", "\"ticket\":\"[removed]\""),
            ("Bearer abC1", "Bearer [removed]"),
            (
                "hash $argon2id$v=19$m=256,t=2,p=1$c29t$nf65 end",
                "hash [removed] end",
            ),
            ("$6$salt$hash.of/it", "[removed]"),
            ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIi.c2ln", "[removed]"),
            (
                "-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----\nrest",
                "-----BEGIN EC PRIVATE KEY-----[removed]\nrest",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nabcdefghijklmnopqrstuvwxyz\n2026 next",
                "-----BEGIN PRIVATE KEY-----[removed]\n2026 next",
            ),
        ] {
            assert_eq!(patterns.remove(text), expected);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let patterns = Patterns::default();
        for text in [
            "tickets=3 TicketTimeout: 120",
            "reason=\"wrong or expired token\"",
            "flexvdi_gateway_channels_refused_total{reason=\"token\"} 4",
            "https://portal.example/tickets",
            "a user@host",
            "costs $5 and $6",
            "CONNECT without Basic credentials",
        ] {
            assert_eq!(patterns.remove(text), text);
        }
    }

    #[test]
    fn values_of_the_environment_go() {
        assert_eq!(without_value("A=b=c"), "A=[removed]");
        assert_eq!(without_value("/run/secret"), "[removed]");
    }
}
