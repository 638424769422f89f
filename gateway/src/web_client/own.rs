//! The page's own files, which are part of the program.

use bytes::Bytes;

use super::{File, PAGE};
use crate::config::WEB_CLIENT_PATHS;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Name below [`WEB_CLIENT_PATHS`], content type and text of each file.
const FILES: [(&str, &str, &str); 6] = [
    ("login.js", SCRIPT, include_str!("../../web/login.js")),
    ("manager.js", SCRIPT, include_str!("../../web/manager.js")),
    ("desktop.js", SCRIPT, include_str!("../../web/desktop.js")),
    ("viewer.js", SCRIPT, include_str!("../../web/viewer.js")),
    ("texts.js", SCRIPT, include_str!("../../web/texts.js")),
    ("style.css", STYLE, include_str!("../../web/style.css")),
];

/// Each file with its path.
pub(super) fn files() -> impl Iterator<Item = (String, File)> {
    let file = |kind, text: &'static str| File::new(kind, Bytes::from_static(text.as_bytes()));
    let page = file(HTML, include_str!("../../web/index.html"));
    let others = FILES
        .into_iter()
        .map(move |(name, kind, text)| (format!("{WEB_CLIENT_PATHS}{name}"), file(kind, text)));
    std::iter::once((PAGE.to_owned(), page)).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_name_is_there() {
        let files: Vec<_> = files().collect();
        let mut named = 0;
        for (_, file) in &files {
            let text = std::str::from_utf8(&file.bytes).unwrap();
            for quoted in text.split('"').skip(1).step_by(2) {
                let path = quoted.strip_prefix("./").map_or(quoted.to_owned(), |name| {
                    format!("{WEB_CLIENT_PATHS}{name}")
                });
                if !path.starts_with(WEB_CLIENT_PATHS) || path.contains("spice-html5/") {
                    continue;
                }
                named += 1;
                assert!(files.iter().any(|(known, _)| *known == path), "{path}");
            }
        }
        assert!(named >= 6, "{named}");
    }

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids() {
        let page = include_str!("../../web/index.html");
        for forbidden in [
            "style=",
            "<style",
            "onclick",
            "onsubmit",
            "http://",
            "https://",
            "innerHTML",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
            for (name, _, text) in FILES {
                let is_script = forbidden == "innerHTML" || forbidden == "style=";
                assert!(
                    !is_script || !text.contains(forbidden),
                    "{name}: {forbidden}"
                );
            }
        }
        assert_eq!(page.matches("<script").count(), 1);
    }
}
