//! flexvdi-gateway.conf(5), from the table of keys in the README.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};

/// The row under which the keys stand.
const HEAD: &str = "| Key | Default | Unit | Meaning |";

/// The page, as the README describes the keys.
pub(super) fn configuration_page(readme: &str) -> Result<String> {
    let (_, table) = readme
        .split_once(HEAD)
        .context("README.md has no table of keys")?;
    let rows = table
        .trim_start()
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let mut page = String::from(
        r#".TH "flexvdi-gateway.conf" 5
.SH NAME
flexvdi\-gateway.conf \- configuration of flexvdi\-gateway(8)
.SH SYNOPSIS
/etc/flexvdi/flexvdi\-gateway.conf
.SH DESCRIPTION
One JSON object. Every key is optional. Keys are case\-sensitive. A wrong type or a value out of
range prevents the start, with a message for each wrong key; unknown keys and keys that occur twice
are warnings. Times are whole seconds.
.PP
.B flexvdi\-gateway check
tells what is wrong, and prints the value of every key.
.SH KEYS
"#,
    );
    let mut keys = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, default, unit, meaning] = cells[..] else {
            anyhow::bail!("README.md: a row of keys has not four cells: {row}");
        };
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!(" ({unit})")
        };
        writeln!(
            page,
            ".TP\n{}, default {}{}",
            text(key),
            text(default),
            text(&unit)
        )?;
        writeln!(page, "{}", text(meaning))?;
        keys += 1;
    }
    ensure!(keys > 0, "README.md has no keys in its table");
    page.push_str(
        r#".SH EXAMPLE
.nf
{
  "ManagerIP": "manager.example.com",
  "CertFile": "/etc/flexvdi/gateway.pem",
  "KeyFile": "/etc/flexvdi/gateway.key"
}
.fi
.SH SEE ALSO
.BR flexvdi\-gateway (8)
"#,
    );
    Ok(page)
}

/// Markdown of one line as roff: code is bold, of links the text stays.
fn text(markdown: &str) -> String {
    let mut roff = String::new();
    let mut in_code = false;
    let mut rest = markdown;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '`' => {
                in_code = !in_code;
                roff.push_str(if in_code { r"\fB" } else { r"\fR" });
            }
            '[' if !in_code && let Some((label, target)) = link(rest) => {
                roff.push_str(&text(label));
                rest = target;
            }
            '\\' => roff.push_str(r"\e"),
            '-' => roff.push_str(r"\-"),
            '\'' => roff.push_str(r"\(aq"),
            _ => roff.push(c),
        }
    }
    if roff.starts_with('.') {
        roff.insert_str(0, r"\&");
    }
    roff
}

/// The text of a link, and what follows it.
fn link(rest: &str) -> Option<(&str, &str)> {
    let (label, rest) = rest.split_once("](")?;
    let (_, rest) = rest.split_once(')')?;
    (!label.contains('[')).then_some((label, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_gives_a_page_with_its_first_and_last_key() {
        let page = configuration_page(include_str!("../../../README.md")).unwrap();
        for key in [".TP\n\\fBManagerIP\\fR, default", "\\fBDebug\\fR, default"] {
            assert!(page.contains(key), "{key} is missing in {page}");
        }
        assert!(!page.contains("](#"), "a link is left in {page}");
    }

    #[test]
    fn markdown_becomes_roff() {
        assert_eq!(
            text("`a-b` is; see [Data paths](#data-paths)."),
            r"\fBa\-b\fR is; see Data paths."
        );
        assert_eq!(text(r".x\[y"), r"\&.x\e[y");
        assert_eq!(text("`[]`"), r"\fB[]\fR");
    }

    #[test]
    fn a_document_without_keys_is_refused() {
        assert!(configuration_page("nothing").is_err());
        assert!(configuration_page(&format!("{HEAD}\n| --- |\n")).is_err());
    }
}
