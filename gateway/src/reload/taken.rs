//! Parts of the configuration that take effect by themselves.

use std::sync::Arc;

use tracing::warn;

use crate::congestion::Congestion;
use crate::desktops::DesktopsFile;
use crate::pool::PoolKeys;
use crate::serving::Serving;
use crate::web_client::Pages;

/// Asks the kernel again, which may have more modules by now.
pub(super) fn take_congestion(next: &mut Serving) {
    let congestion = Congestion::new(next.config.congestion_control.clone());
    let is_other = !congestion.is_like(&next.congestion);
    if is_other || congestion.is_refused() {
        congestion.tell();
    }
    if is_other {
        next.congestion = Arc::new(congestion);
    }
}

/// Browsers are shown this from now on; says what the log tells of it, unless it is the same.
pub(super) fn take_web_client(next: &Serving, pages: Option<Pages>) -> Option<String> {
    if next.gateway.web_client.shows(pages.as_ref()) {
        return None;
    }
    if let Some(pages) = &pages {
        pages.tell();
    }
    next.gateway.web_client.set(pages);
    Some("client for browsers".to_owned())
}

/// Tickets are made and taken with these keys from now on; says what the log tells of it.
pub(super) fn take_pool(next: &Serving, keys: Option<PoolKeys>) -> String {
    let told = match &keys {
        Some(keys) => {
            if let Some(warning) = keys.warning() {
                warn!("{warning}");
            }
            format!("keys of the pool, {} of them", keys.count())
        }
        None => "keys of the pool, none".to_owned(),
    };
    next.gateway.admissions.tickets().set_pool(keys);
    told
}

/// The file with desktops in effect.
pub(super) fn desktops_of(serving: &Serving) -> Option<Arc<DesktopsFile>> {
    serving.gateway.desktops.directory().current()
}

/// Desktops come from this file from now on; says what the log tells of it.
pub(super) fn take_desktops(next: &Serving, file: Option<DesktopsFile>) -> String {
    let told = match &file {
        Some(file) => {
            for warning in file.inventory.warnings() {
                warn!("{warning}");
            }
            format!("desktops of the file, {}", file.inventory.summary())
        }
        None => "desktops of the file, none".to_owned(),
    };
    next.gateway.desktops.directory().replace(file);
    told
}
