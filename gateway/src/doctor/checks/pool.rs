//! What a gateway shares with the others of its pool.

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::{Check, NOT_TAKEN};
use crate::admin::counted;
use crate::pool::{KeyFileError, PoolKeys};

pub(super) const CHECK: Check = Check::blocking("pool", look);

fn look(scene: &Scene) -> Vec<Finding> {
    let Some(path) = &scene.config.pool_key_file else {
        return vec![Finding::ok("none; tickets are good for this gateway alone")];
    };
    let keys = match PoolKeys::load(path) {
        Ok(keys) => keys,
        Err(error @ KeyFileError::File { .. }) => return vec![Finding::skipped(error.to_string())],
        Err(error) => {
            return vec![Finding::error(
                error.to_string(),
                NOT_TAKEN,
                "Copy the file from another gateway of the pool",
            )];
        }
    };
    let exposed = keys.warning().map(|warning| {
        let path = path.display();
        let group = scene.account.group();
        Finding::warning(
            warning,
            "They can get to every desktop",
            format!("chown root:{group} {path} && chmod 640 {path}, then change the key"),
        )
    });
    or_ok(exposed.into_iter().collect(), || {
        format!(
            "{} in {}. Gateways of a pool do not know of each other: compare the file's SHA-256 on \
             all of them, and keep their clocks alike",
            counted(keys.count(), "key"),
            path.display()
        )
    })
}
