//! Words that look as if a machine had made them up: tokens, keys and hashes.

use std::collections::HashSet;

use super::super::unit::{SHIPPED, Settings};
use crate::config::{Config, effective_json};

/// What takes the place of a secret.
pub(super) const REMOVED: &str = "[removed]";

/// Shortest word that may be one: a ticket has 16 characters.
const SHORTEST: usize = 16;
/// The same for words without small or without capital letters, as the ids of kernels and versions
/// are.
const SHORTEST_OF_ONE_CASE: usize = 24;

/// Finds such words.
#[derive(Debug)]
pub(super) struct RandomWords {
    /// Words of the product that have capitals and small letters as random ones do.
    known: HashSet<String>,
}

impl Default for RandomWords {
    fn default() -> Self {
        let keys = effective_json(&Config::default());
        let keys = keys
            .as_object()
            .into_iter()
            .flat_map(|keys| keys.keys().cloned());
        let settings = Settings::parse(SHIPPED);
        let settings = settings.keys().map(ToOwned::to_owned);
        Self {
            known: keys.chain(settings).collect(),
        }
    }
}

impl RandomWords {
    /// The text without them.
    pub(super) fn remove(&self, text: &str) -> String {
        let mut kept = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(begin) = rest.find(is_part) {
            let (before, behind) = rest.split_at(begin);
            kept.push_str(before);
            let end = behind.find(|c| !is_part(c)).unwrap_or(behind.len());
            let (word, behind) = behind.split_at(end);
            rest = behind;
            if is_path(word) {
                let shown = |name| if self.is_random(name) { REMOVED } else { name };
                let names = word.split('/').map(shown);
                kept.push_str(&names.collect::<Vec<_>>().join("/"));
            } else if self.is_random(&word.replace('/', ""))
                || word.split('/').any(|name| self.is_random(name))
            {
                kept.push_str(REMOVED);
                // The filling at the end of base64.
                rest = behind.trim_start_matches('=');
            } else {
                kept.push_str(word);
            }
        }
        kept.push_str(rest);
        kept
    }

    /// Whether a word, or a name in a path, is random.
    fn is_random(&self, name: &str) -> bool {
        let count = |is: fn(&char) -> bool| name.chars().filter(is).count();
        let capitals = count(char::is_ascii_uppercase);
        let small = count(char::is_ascii_lowercase);
        let digits = count(char::is_ascii_digit);
        if name.len() < SHORTEST || self.known.contains(name) {
            return false;
        }
        match (capitals, small, digits) {
            (0, 0, _) => false,
            (1.., 1.., 1..) => true,
            (1.., 1.., 0) => !is_in_words(name),
            // Of 36 characters ten are digits, of those of base32 six of 32.
            _ => name.len() >= SHORTEST_OF_ONE_CASE && digits * 8 > name.len() + 8,
        }
    }
}

/// What tokens, keys and hashes are written with: base64 in both forms, hexadecimal.
fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/')
}

/// Whether this is a path, and not base64 that happens to begin with a slash.
fn is_path(word: &str) -> bool {
    let first = word
        .strip_prefix('/')
        .and_then(|rest| rest.split('/').next());
    let is_folder =
        |name: &str| name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_lowercase());
    first.is_some_and(is_folder)
}

/// Whether it is made of words that begin with capitals, as in `StartLimitBurst` and
/// `Content-Type`: each has three letters or more, and a vowel among them.
fn is_in_words(name: &str) -> bool {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c.is_ascii_uppercase() || matches!(c, '-' | '_') {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut()
            && c.is_ascii_alphabetic()
        {
            word.push(c.to_ascii_lowercase());
        }
    }
    // A capital behind a dash begins one word, not two.
    words.retain(|word| !word.is_empty());
    words
        .iter()
        .all(|word| word.len() >= 3 && word.contains(['a', 'e', 'i', 'o', 'u', 'y']))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn what_machines_make_up_is_removed() {
        let words = RandomWords::default();
        let mut missed = 0;
        for round in 0..2_000_u32 {
            // The same in every run.
            let bytes = digest(&SHA256, &round.to_le_bytes());
            let bytes = bytes.as_ref();
            let ticket = URL_SAFE_NO_PAD.encode(&bytes[..12]);
            let key = STANDARD.encode(bytes);
            let hex = crate::certificate_subject::hexadecimal(bytes).to_lowercase();
            for secret in [key, hex] {
                let text = words.remove(&format!("x {secret} y"));
                assert_eq!(text, "x [removed] y", "{round}: {secret}");
            }
            // One without capitals looks like the number of a request, which is of use.
            missed += usize::from(words.remove(&ticket) != REMOVED);
        }
        assert!(missed <= 4, "{missed} tickets");
    }

    #[test]
    fn words_of_people_stay() {
        let words = RandomWords::default();
        let text = "2026-03-01T09:15:02.118Z gateway flexvdi-gateway[12]: WARN host not reached \
                    session=s12 client=192.0.2.7 request=\"5f3a9c0b17e4-17\" CAP_NET_BIND_SERVICE \
                    /usr/lib/systemd/system/flexvdi-gateway.service x86_64-unknown-linux-gnu \
                    flexvdi_gateway_connections_accepted_total RuntimeDirectoryPreserve=restart \
                    MaxConnectionsPerAddress TicketURLCAFile Sec-WebSocket-Protocol 6.12.48+deb13-amd64 \
                    p0123456789ab https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt";
        assert_eq!(words.remove(text), text);
        let path = words.remove("/tmp/dir-Abc3Def6Ghi9Jkl2/run");
        assert_eq!(path, "/tmp/[removed]/run");
        let shipped = words.remove(SHIPPED);
        assert_eq!(shipped, SHIPPED);
    }
}
