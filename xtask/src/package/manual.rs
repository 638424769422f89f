//! flexvdi-gateway.conf(5), from the tables of keys in docs/configuration.md.

use std::fmt::Write;

use anyhow::{Result, bail, ensure};

/// What stands above each table of keys.
const HEAD: &str = "| Key | Default | Unit | Meaning |";

/// The page, as the document describes the keys.
pub(super) fn configuration_page(document: &str) -> Result<String> {
    let mut page = String::from(
        r#".TH "flexvdi-gateway.conf" 5
.SH NAME
flexvdi\-gateway.conf \- configuration of flexvdi\-gateway(8)
.SH SYNOPSIS
/etc/flexvdi/flexvdi\-gateway.conf
.br
/etc/flexvdi/flexvdi\-gateway.conf.d/*.conf
.SH DESCRIPTION
One JSON object. Every key is optional. Keys are case\-sensitive. Times are whole seconds. A value of
the wrong type or out of range prevents the start, and the message names the key. An unknown key, or
one that occurs twice, causes a warning.
.PP
.B flexvdi\-gateway check
reports every mistake at once, and prints the value of each key.
.SH PLACES
Each of these overrides keys of those before it: the default; flexvdi\-gateway.conf; the files *.conf
in flexvdi\-gateway.conf.d, in the byte order of their names (with
.BR "\-\-config FILE" :
FILE.d); environment variables such as
.BR FLEXVDI_GATEWAY_MANAGER_CA_FILE ,
with the words of the key in upper case; and
.B \-\-set KEY=VALUE
on the command line. Lists are overridden whole. Values of variables and of \-\-set are JSON; strings
may stand there without quotation marks. The file may be missing if another place says anything.
.PP
.B flexvdi\-gateway check \-\-sources
prints where each value comes from.
.SH KEYS
"#,
    );
    let mut keys = 0;
    let mut heading = "";
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("### ") {
            heading = text;
        }
        if line != HEAD {
            continue;
        }
        if !heading.is_empty() {
            writeln!(page, ".SS {}", text(heading))?;
        }
        let rows = lines.by_ref().skip(1);
        for row in rows.take_while(|line| line.starts_with('|')) {
            key(&mut page, row)?;
            keys += 1;
        }
    }
    ensure!(keys > 0, "docs/configuration.md has no table of keys");
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

/// Writes what a row says of its key.
fn key(page: &mut String, row: &str) -> Result<()> {
    let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
    let [key, default, unit, meaning] = cells[..] else {
        bail!("docs/configuration.md: a row of keys has not four cells: {row}");
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
    Ok(())
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
    fn the_document_gives_a_page_with_all_its_tables() {
        let page = configuration_page(include_str!("../../../docs/configuration.md")).unwrap();
        for part in [
            ".SS Manager\n.TP\n\\fBManagerIP\\fR, default",
            ".SS Process\n.TP\n\\fBWorkerThreads\\fR, default",
            "\\fBDebug\\fR, default",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("]("), "a link is left in {page}");
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
