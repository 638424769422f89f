//! The file in effect.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::file::DesktopsFile;

/// What stands in the file; a reload puts another content in its place. Empty without `Desktops`.
#[derive(Default)]
pub struct Directory(ArcSwapOption<DesktopsFile>);

impl Directory {
    /// The content in effect; takes no lock.
    pub fn current(&self) -> Option<Arc<DesktopsFile>> {
        self.0.load_full()
    }

    /// Puts another one in its place, for whoever asks from now on.
    pub fn replace(&self, file: Option<DesktopsFile>) {
        self.0.store(file.map(Arc::new));
    }
}
