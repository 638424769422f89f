//! An image as a runtime sees it: checked against its digests, and unpacked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use oci_spec::image::{Config, Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde_json::Value;
use tar::Archive;
use tempfile::TempDir;

use crate::digest::sha256;

/// An image that can be started.
pub(super) struct Unpacked {
    root: TempDir,
    /// How it is run.
    pub(super) run: Config,
    /// Command of its health check, for docker.
    pub(super) health_check: Vec<String>,
}

impl Unpacked {
    /// Unpacks the layout in a folder, which needs root.
    pub(super) fn new(layout: &Path) -> Result<Self> {
        let index: ImageIndex = read(&layout.join("index.json"))?;
        let manifest = index.manifests().first().context("a manifest")?;
        let manifest: ImageManifest = serde_json::from_slice(&blob(layout, manifest)?)?;
        let text = blob(layout, manifest.config())?;
        let configuration: ImageConfiguration = serde_json::from_slice(&text)?;
        let digests = configuration.rootfs().diff_ids();
        ensure!(
            digests.len() == manifest.layers().len(),
            "not every layer has a digest"
        );

        let root = TempDir::with_prefix("flexvdi-gateway-container-")?;
        // Others than root must get in.
        fs::set_permissions(
            root.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        for (layer, digest) in manifest.layers().iter().zip(digests) {
            let packed = blob(layout, layer)?;
            let mut tar = Vec::new();
            std::io::copy(&mut GzDecoder::new(&packed[..]), &mut tar)?;
            let is = format!("sha256:{}", sha256(&tar));
            ensure!(is == *digest, "a layer has another digest than it says");
            let mut archive = Archive::new(&tar[..]);
            archive.set_preserve_permissions(true);
            archive.set_preserve_ownerships(true);
            archive.unpack(root.path()).context("unpacking a layer")?;
        }

        let raw: Value = serde_json::from_slice(&text)?;
        let test = raw["config"]["Healthcheck"]["Test"].as_array();
        let test = test.context("a health check")?.iter().skip(1);
        Ok(Self {
            root,
            run: configuration.config().clone().context("how it is run")?,
            health_check: test
                .filter_map(|word| Some(word.as_str()?.to_owned()))
                .collect(),
        })
    }

    /// Where its files are.
    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }
}

/// A file of the layout; fails unless it has the size and digest that are said of it.
fn blob(layout: &Path, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let digest = descriptor.digest().digest();
    let content = fs::read(layout.join("blobs/sha256").join(digest))?;
    ensure!(
        content.len() as u64 == descriptor.size() && sha256(&content) == digest,
        "{digest} is something else"
    );
    Ok(content)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}
