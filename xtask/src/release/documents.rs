//! What programs and people read of a version without installing it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::package::{self, Binary};
use crate::steps::Steps;

/// Writes manual pages and JSON schemas.
pub(super) fn write(steps: &mut Steps, binary: &Binary, to: &Path) -> Result<()> {
    steps.begin("Manual pages and JSON schemas");
    let texts = [
        ("flexvdi-gateway.8", binary.document("man")?),
        (
            "flexvdi-gateway.conf.5",
            package::manual_of_configuration()?,
        ),
        (
            "flexvdi-gateway.schema.json",
            binary.run(&["schema", "configuration"])?,
        ),
        ("desktops.schema.json", binary.run(&["schema", "desktops"])?),
    ];
    for (name, text) in &texts {
        let path = to.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    steps.done(texts.map(|(name, _)| name).join(", "));
    Ok(())
}
