//! Which data path channels use, by the configuration and by what works here.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, DataPath};
use gateway_datapath::Paths;
use gateway_datapath::ktls::{Ktls, Support};
use gateway_datapath::probe::{self, Finding};
use gateway_datapath::sockmap::Sockmap;

/// Logs what the kernel carries, and loads what the configured data path needs. Without it every
/// channel uses `relay`.
pub(super) async fn data_paths(config: &Config, connections: usize) -> (Paths, Vec<Finding>) {
    let findings = probe::run(config.data_path.tried(), &config.ebpf_dir).await;
    let paths = chosen_path(config, connections, &findings);
    (paths, findings)
}

fn chosen_path(config: &Config, connections: usize, findings: &[Finding]) -> Paths {
    let mut support = Support::default();
    for finding in findings {
        let reason = finding.reason.as_deref();
        let parts = finding.working_parts();
        info!(
            path = finding.path,
            works = finding.works,
            reason,
            parts = (!parts.is_empty()).then_some(parts),
            "data path"
        );
        if let Some(found) = &finding.support {
            support = found.clone();
        }
        if finding.path == config.data_path.name() && !finding.works {
            warn!(wanted = finding.path, "data path relay is used instead");
            return Paths::default();
        }
    }
    match config.data_path {
        DataPath::Auto | DataPath::Relay => return Paths::default(),
        DataPath::Ktls => return Paths::with_ktls(Ktls::new(support, config.splice_from)),
        DataPath::Sockmap => {}
        DataPath::KtlsSockmap => warn!(
            "DataPath ktls-sockmap is for experiments: the kernel's combination of TLS and sockmap \
             has faults that can be exploited (CVE-2026-93824) and may bring it down when the \
             gateway is killed, and newer kernels refuse it"
        ),
    }
    let wanted = config.data_path.name();
    match Sockmap::take_or_load(&config.ebpf_dir, connections, config.queue_limit) {
        Ok(sockmap) => {
            tell_of_programs(&sockmap, connections);
            with_programs(config, support, sockmap)
        }
        Err(error) => {
            warn!(wanted, reason = %error, "data path relay is used instead");
            Paths::default()
        }
    }
}

fn with_programs(config: &Config, support: Support, sockmap: Arc<Sockmap>) -> Paths {
    if config.data_path == DataPath::KtlsSockmap {
        // Nothing is spliced: the downlink does not come by here.
        Paths::with_ktls_sockmap(Ktls::new(support, None), sockmap)
    } else {
        Paths::with_sockmap(sockmap)
    }
}

fn tell_of_programs(sockmap: &Sockmap, connections: usize) {
    let set = sockmap.set().map(Path::display);
    info!(
        set = set.map(tracing::field::display),
        queue_limit = sockmap.queued(),
        "eBPF programs"
    );
    let room = sockmap.room();
    if room < connections {
        warn!(
            room,
            connections,
            "load-ebpf has loaded the eBPF programs for fewer channels; more use relay"
        );
    }
}
