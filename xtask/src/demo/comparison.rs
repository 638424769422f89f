//! What a client saw, beside what the desktop shows without a gateway.

use anyhow::{Result, ensure};
use testkit::command::target_dir;
use testkit::picture::Picture;

/// Saves the picture that a client saw under this name, and compares it with the one expected;
/// says so.
///
/// Fails when any pixel differs.
pub(super) fn compare(seen: &Picture, expected: &Picture, name: &str) -> Result<String> {
    let file = target_dir().join("demo").join(name);
    seen.save_png(&file)?;
    let differing = seen.differing_pixels(expected);
    let file = file.canonicalize().unwrap_or(file);
    ensure!(
        differing == 0,
        "{differing} pixels differ from the picture fetched directly; see {}",
        file.display()
    );
    let pixels = seen.rgb.len() / 3;
    Ok(format!(
        "all {pixels} pixels are those fetched directly: {}",
        file.display()
    ))
}
