//! The events of the access log, and their members.

use anyhow::{Context, Result};

use super::{read, rows};

/// A variant's name as serde writes it in `kebab-case`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase());
    }
    kebab
}

#[test]
fn every_event_and_every_member_is_documented() -> Result<()> {
    let source = read("gateway/src/access_log/event.rs")?;
    let (source, _) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
    let document = read("docs/access-log.md")?;
    let rows = rows(&document);
    let events = rows.iter().map(|row| row[0].trim_matches('`'));
    let events: Vec<_> = events.collect();

    let (_, variants) = source
        .split_once("pub enum Event {\n")
        .context("the events")?;
    let (variants, _) = variants.split_once("\n}\n").context("their end")?;
    let mut seen = 0;
    for line in variants.lines() {
        let name = line.trim_start();
        if line.len() - name.len() == 4 && name.starts_with(char::is_uppercase) {
            seen += 1;
            let end = name.find(|c: char| !c.is_alphanumeric());
            let event = kebab(&name[..end.unwrap_or(name.len())]);
            assert!(events.contains(&&*event), "{event} in {events:?}");
        }
    }
    assert!(seen > 5, "{seen} events");

    let mut members = 0;
    for line in source.lines().map(str::trim_start) {
        let member = line.strip_prefix("pub ").unwrap_or(line);
        if let Some((name, kind)) = member.split_once(": ")
            && kind.ends_with(',')
            && name.chars().all(|c| c.is_lowercase() || c == '_')
            // Their members stand beside those of the event.
            && !["channel", "end"].contains(&name)
        {
            members += 1;
            let named = document.contains(&format!("`{name}`"));
            assert!(named, "{name} in docs/access-log.md");
        }
    }
    assert!(members > 15, "{members} members");
    Ok(())
}
