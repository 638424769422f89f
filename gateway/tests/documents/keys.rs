//! The keys of the configuration.

use std::io::Write;

use anyhow::{Context, Result};
use gateway::config::{Config, effective_json, load, schema};
use gateway::desktops::DesktopsFile;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{blocks, files, read, repository, rows};

#[test]
fn every_key_has_a_row_with_its_default() -> Result<()> {
    let text = read("docs/configuration.md")?;
    let mut documented = Vec::new();
    for row in rows(&text) {
        let [key, default, unit, meaning] = row[..] else {
            panic!("four cells, not: {row:?}");
        };
        assert!(!unit.is_empty() && meaning.len() > 2, "{row:?}");
        let default: Value = serde_json::from_str(default.trim_matches('`'))
            .with_context(|| format!("the default of {key}"))?;
        documented.push((key.trim_matches('`').to_owned(), default));
    }
    let effective = effective_json(&Config::default());
    let keys = effective.as_object().context("an object")?;
    let real: Vec<_> = keys.clone().into_iter().collect();
    assert_eq!(documented, real);
    Ok(())
}

#[test]
fn every_example_is_a_good_configuration() -> Result<()> {
    let mut examples = 0;
    let schema = jsonschema::draft202012::new(&schema())?;
    let mut documents = files(&repository().join("docs"), "md")?;
    documents.push(repository().join("README.md"));
    for document in documents {
        let text = std::fs::read_to_string(&document)?;
        for example in blocks(&text, "json") {
            // The lines of the access log are JSON, too.
            if example.contains("\"event\"") {
                continue;
            }
            examples += 1;
            let mut file = NamedTempFile::new()?;
            file.write_all(example.as_bytes())?;
            if example.contains("\"desktops\"") {
                DesktopsFile::read(file.path(), false)?;
                continue;
            }
            let loaded = load(file.path()).with_context(|| document.display().to_string())?;
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            let value = serde_json::from_str(&example)?;
            assert!(schema.is_valid(&value), "{example}");
        }
    }
    assert!(examples > 7, "{examples} examples");
    Ok(())
}
