//! The values in effect with where they come from, for people.

use std::fmt::Write;

use super::keys::KEYS;
use super::load::Loaded;

/// Longest value that others are lined up with, in characters.
const WIDEST_VALUE: usize = 40;

/// One line for each key: its name, its value as JSON, and what gave it.
pub fn table(loaded: &Loaded) -> String {
    let values = KEYS
        .iter()
        .map(|key| (key.write)(&loaded.config).to_string());
    let values: Vec<_> = values.collect();
    let key_width = KEYS.iter().map(|key| key.name.len()).max().unwrap_or(0);
    let widths = values.iter().map(|value| value.chars().count());
    let value_width = widths.filter(|width| *width <= WIDEST_VALUE).max();
    let value_width = value_width.unwrap_or(0);
    let mut table = format!("{:key_width$}  {:value_width$}  SOURCE\n", "KEY", "VALUE");
    for (key, value) in KEYS.iter().zip(values) {
        let (name, origin) = (key.name, loaded.origin(key.name));
        // A string takes anything that is written to it.
        let _ = writeln!(table, "{name:key_width$}  {value:value_width$}  {origin}");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    #[test]
    fn every_key_has_a_line_with_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.conf");
        let long = "x".repeat(60);
        let text = format!(r#"{{"CertFile": "/{long}", "ManagerIP": "manager"}}"#);
        std::fs::write(&path, text).unwrap();
        let variables = [("FLEXVDI_GATEWAY_BAN_TIME".into(), "7".into())];
        let arguments = vec!["SslPort=8443".parse().unwrap()];
        let sources = Sources::new(path.clone(), variables, arguments);
        let table = table(&sources.load().unwrap());
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), KEYS.len() + 1, "{table}");
        let shown = path.display().to_string();
        let quoted = format!("\"/{long}\"");
        for (key, value, source) in [
            ("ManagerIP", "\"manager\"", &*shown),
            ("CertFile", &*quoted, &*shown),
            ("BanTime", "7", "FLEXVDI_GATEWAY_BAN_TIME"),
            ("SslPort", "8443", "--set"),
            ("CloseTimeout", "5", "default"),
        ] {
            let line = lines
                .iter()
                .find(|line| line.starts_with(&format!("{key} ")));
            let words: Vec<_> = line.unwrap().split_whitespace().collect();
            assert_eq!(words, [key, value, source]);
        }
    }
}
