//! The file of desktops: is everything in it right?

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::{Check, NOT_TAKEN};
use crate::desktops::{DesktopsError, DesktopsFile};

pub(super) const CHECK: Check = Check::blocking("desktops", look);

fn look(scene: &Scene) -> Vec<Finding> {
    let config = &scene.config;
    let Some(path) = &config.desktops else {
        return vec![Finding::ok("not from a file")];
    };
    let file = match DesktopsFile::read(path, config.pool_key_file.is_some()) {
        Ok(file) => file,
        Err(error @ DesktopsError::Read { .. }) => {
            return vec![Finding::skipped(error.to_string())];
        }
        Err(error) => {
            let mistakes = error.to_string();
            let mistake = |line: &str| {
                Finding::error(
                    line,
                    NOT_TAKEN,
                    "docs/desktops.md describes the file; `flexvdi-gateway schema desktops` prints \
                     a schema for editors",
                )
            };
            return mistakes.lines().map(mistake).collect();
        }
    };
    let warnings = file.inventory.warnings().iter().map(|warning| {
        Finding::warning(
            warning,
            "Somebody may get what is not theirs, or nothing",
            "Correct it",
        )
    });
    or_ok(warnings.collect(), || file.inventory.summary())
}
