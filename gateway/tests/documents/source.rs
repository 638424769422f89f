//! Sources of the gateway's crates as text, without their tests.

use anyhow::Result;

use super::{files, repository};

/// Crates whose code runs in the gateway's process.
fn crates() -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repository())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The programs inside the kernel log by other means.
        if name.starts_with("gateway") && name != "gateway-ebpf" {
            found.push(path.join("src"));
        }
    }
    Ok(found)
}

/// Path and text of each source file.
pub(super) fn sources() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for folder in crates()? {
        for path in files(&folder, "rs")? {
            let text = std::fs::read_to_string(&path)?;
            let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
            found.push((path.display().to_string(), text[..end].to_owned()));
        }
    }
    Ok(found)
}
