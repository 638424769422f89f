//! The messages of the log.

use anyhow::Result;

use super::read;
use super::source::sources;

/// Levels that are logged without `Debug`.
const LEVELS: [&str; 3] = ["info!(", "warn!(", "error!("];

/// The text up to the parenthesis that closes the one before it.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    let mut in_string = false;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => in_string = !in_string,
            '(' if !in_string => depth += 1,
            ')' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// The string that ends a macro's arguments: the message.
fn message(arguments: &str) -> Option<String> {
    let text = arguments.trim_end().trim_end_matches(',');
    let text = text.strip_suffix('"')?;
    let (_, text) = text.rsplit_once('"')?;
    // A string may go on in the next line.
    let parts: Vec<_> = text.split("\\\n").map(str::trim_start).collect();
    Some(parts.concat())
}

/// What a document needs to have of a message: up to its first detail.
fn known_part(message: &str) -> &str {
    let end = message.find([':', ';']).unwrap_or(message.len());
    &message[..end]
}

#[test]
fn every_message_is_documented() -> Result<()> {
    let document = read("docs/logging.md")?;
    let mut missing = Vec::new();
    let mut seen = 0;
    for (path, text) in sources()? {
        for level in LEVELS {
            for after in text.split(level).skip(1) {
                let arguments = arguments(after);
                let Some(message) = message(arguments) else {
                    missing.push(format!("{path}: no message in {arguments:?}"));
                    continue;
                };
                // Passed on from the configuration, which names its keys.
                if message.starts_with('{') {
                    continue;
                }
                seen += 1;
                if !document.contains(&format!("`{}", known_part(&message))) {
                    missing.push(format!("{path}: {message}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/logging.md: {missing:#?}");
    assert!(seen > 60, "{seen} messages");
    Ok(())
}

#[test]
fn messages_are_found_behind_their_fields() {
    let source = r#"channel = id(), reason = "x (y", "kept: a \
        long one"); other("#;
    let message = message(arguments(source)).unwrap();
    assert_eq!(message, "kept: a long one");
    assert_eq!(known_part(&message), "kept");
}
