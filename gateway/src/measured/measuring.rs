//! Measuring, with TLS as the gateway offers it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use gateway_datapath::measure::{self, Options};
use gateway_datapath::probe::Finding;
use gateway_datapath::tls::{client_config, server_config};
use rcgen::CertificateParams;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;

use super::machine::Machine;
use super::record::Record;
use crate::config::Config;
use crate::tls::{profile, self_signed};

/// Measures the data paths that were found to work, for so long. Must be called in a runtime like
/// the gateway's.
pub(crate) async fn measure(
    config: &Config,
    findings: &[Finding],
    time: Duration,
) -> anyhow::Result<Record> {
    let machine = Machine::this()?;
    let options = options(config, time)?;
    let measurement = measure::run(&options, findings).await?;
    Ok(Record::new(machine, measurement))
}

fn options(config: &Config, time: Duration) -> anyhow::Result<Options> {
    let parameters = CertificateParams::new(vec!["localhost".to_owned()])?;
    let certified = self_signed(&parameters).map_err(|reason| anyhow!(reason))?;
    let mut roots = RootCertStore::empty();
    roots.add(certified.end_entity_cert()?.clone())?;
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .context("cannot make a client's settings")?;
    let server = server_config(
        profile(config),
        WebPkiClientVerifier::no_client_auth(),
        Arc::new(SingleCertAndKey::from(certified)),
    );
    Ok(Options {
        time,
        programs: config.ebpf_dir.clone(),
        queue_limit: config.queue_limit,
        splice_from: config.splice_from,
        server: Arc::new(server),
        client: Arc::new(client_config(verifier)),
    })
}
