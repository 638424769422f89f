//! The licences of the libraries that are inside the binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo;

/// How files that hold a licence begin, in lower case.
const LICENCE_FILES: [&str; 4] = ["license", "licence", "copying", "notice"];

/// Names, versions and licences, then each text once with those that it belongs to.
pub(super) fn third_party() -> Result<String> {
    let metadata: Value = serde_json::from_str(&output(&["metadata", "--format-version", "1"])?)?;
    let inside = inside_the_binary()?;
    let mut overview = String::new();
    let mut texts = BTreeMap::<String, BTreeSet<String>>::new();
    let packages = metadata["packages"]
        .as_array()
        .context("a list of packages")?;
    for package in packages {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", field("name"), field("version"));
        if package["source"].is_null() || !inside.contains(&name) {
            continue;
        }
        writeln!(overview, "{name}: {}", field("license"))?;
        let folder = Path::new(field("manifest_path")).parent();
        for text in licence_texts(folder.context("a manifest lies in a folder")?)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    let mut all = format!("Libraries inside flexvdi-gateway, and their licences.\n\n{overview}");
    for (text, names) in texts {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        write!(
            all,
            "\n{}\n{}\n\n{}\n",
            "-".repeat(72),
            names.join(", "),
            text.trim()
        )?;
    }
    Ok(all)
}

/// `name version` of every library that is linked into the gateway.
fn inside_the_binary() -> Result<BTreeSet<String>> {
    let tree = output(&[
        "tree", "-p", "gateway", "-e", "normal", "--prefix", "none", "--format", "{p}",
    ])?;
    let names = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let version = words.next()?.strip_prefix('v')?;
        Some(format!("{name} {version}"))
    });
    Ok(names.collect())
}

fn licence_texts(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let holds = LICENCE_FILES.iter().any(|begin| name.starts_with(begin));
        if holds && entry.file_type()?.is_file() {
            texts.push(String::from_utf8_lossy(&fs::read(entry.path())?).into_owned());
        }
    }
    Ok(texts)
}

fn output(arguments: &[&str]) -> Result<String> {
    let output = cargo::command(arguments)
        .output()
        .context("starting cargo")?;
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).context("cargo writes UTF-8")
}
