//! Which data path channels use, by the configuration and by what works here.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, DataPath};
use crate::measured::{self, Chosen, Record, RecordError};
use gateway_datapath::Paths;
use gateway_datapath::ktls::Ktls;
use gateway_datapath::measure;
use gateway_datapath::probe::{self, Finding};
use gateway_datapath::sockmap::Sockmap;

/// The data paths of a gateway.
pub(super) struct DataPaths {
    /// Those that are loaded.
    pub(super) paths: Paths,
    /// What the kernel carries.
    pub(super) findings: Vec<Finding>,
    /// What `auto` has taken; `None`: the configuration names a path.
    pub(super) auto: Option<Chosen>,
}

/// Tells what the kernel carries, and loads what the configured data path needs. Without it every
/// channel uses `relay`.
pub(super) async fn data_paths(config: &Config, connections: usize) -> DataPaths {
    let findings = probe::run(config.data_path.tried(), &config.ebpf_dir).await;
    for finding in &findings {
        let reason = finding.reason.as_deref();
        let parts = finding.working_parts();
        info!(
            path = finding.path,
            works = finding.works,
            reason,
            parts = (!parts.is_empty()).then_some(parts),
            "data path"
        );
    }
    let auto = (config.data_path == DataPath::Auto).then(|| {
        let record = measured::kept(config);
        if let Err(error @ RecordError::Unusable { .. }) = &record {
            let reason = error.to_string();
            warn!(reason, "the measurement of data paths cannot be used");
        }
        Chosen::of(record, |path| probe::works(&findings, path.name()))
    });
    let paths = match &auto {
        Some(chosen) => cheapest(config, connections, &findings, chosen),
        None => named(config, connections, &findings),
    };
    DataPaths {
        paths,
        findings,
        auto,
    }
}

/// Descriptors of a channel, at most.
pub(super) fn descriptors_of_channels(config: &Config) -> u64 {
    let paths = measured::data_paths(config).into_iter();
    let most = paths.map(DataPath::descriptors).max();
    most.unwrap_or(DataPath::Relay.descriptors())
}

/// What `auto` has taken.
fn cheapest(config: &Config, connections: usize, findings: &[Finding], chosen: &Chosen) -> Paths {
    let (plaintext, tls) = (&chosen.plaintext, &chosen.tls);
    let measured = chosen.measurement.as_ref().map(Record::date);
    info!(
        plaintext = plaintext.path.name(),
        tls = tls.path.name(),
        measured,
        reason = chosen.told(),
        "data path auto"
    );
    let ktls = (tls.path == measure::Path::Ktls)
        .then(|| Ktls::new(probe::support(findings), config.splice_from));
    let sockmap = (plaintext.path == measure::Path::Sockmap)
        .then(|| programs(config, "sockmap", connections))
        .flatten();
    Paths::with_cheapest(ktls, sockmap)
}

/// The path that the configuration names.
fn named(config: &Config, connections: usize, findings: &[Finding]) -> Paths {
    let wanted = config.data_path.name();
    if findings
        .iter()
        .any(|finding| finding.path == wanted && !finding.works)
    {
        warn!(wanted, "data path relay is used instead");
        return Paths::default();
    }
    let support = probe::support(findings);
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
    match programs(config, wanted, connections) {
        None => Paths::default(),
        Some(sockmap) if config.data_path == DataPath::KtlsSockmap => {
            // Nothing is spliced: the downlink does not come by here.
            Paths::with_ktls_sockmap(Ktls::new(support, None), sockmap)
        }
        Some(sockmap) => Paths::with_sockmap(sockmap),
    }
}

/// The eBPF programs; `None`: they cannot be had, which is told.
fn programs(config: &Config, wanted: &str, connections: usize) -> Option<Arc<Sockmap>> {
    match Sockmap::take_or_load(&config.ebpf_dir, connections, config.queue_limit) {
        Ok(sockmap) => {
            tell_of_programs(&sockmap, connections);
            Some(sockmap)
        }
        Err(error) => {
            warn!(wanted, reason = %error, "data path relay is used instead");
            None
        }
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
