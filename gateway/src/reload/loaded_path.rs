//! The data path that a gateway began with, whatever its configuration says later.

use std::sync::Arc;

use crate::config::{Config, DataPath};
use gateway_datapath::Paths;

/// The data path that was loaded at the start.
pub struct LoadedPath {
    /// Its name in the configuration.
    pub(super) choice: DataPath,
    /// How many a channel takes at most.
    pub(super) descriptors: u64,
    /// What channels take it through.
    paths: Arc<Paths>,
}

impl LoadedPath {
    /// `paths` were loaded as this configuration says, for channels of so many descriptors.
    pub fn new(config: &Config, descriptors: u64, paths: Arc<Paths>) -> Self {
        Self {
            choice: config.data_path,
            descriptors,
            paths,
        }
    }

    /// What channels are to take under this configuration.
    pub(super) fn paths_for(&self, config: &Config) -> Arc<Paths> {
        if config.data_path == self.choice {
            Arc::clone(&self.paths)
        } else {
            Arc::new(self.paths.relay_instead())
        }
    }
}
