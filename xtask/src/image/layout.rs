//! The image as files: the layout of the Open Container Initiative, and one archive of it that
//! docker takes too.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Descriptor, DescriptorBuilder, ImageIndexBuilder, ImageManifestBuilder,
    MediaType, OciLayoutBuilder, Os, PlatformBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::description::{Described, Description};
use super::tree::Tree;
use crate::digest::sha256;

/// Name of the image, before a colon and its version.
pub(super) const NAME: &str = "flexvdi-gateway";
/// Version of the layout.
const LAYOUT: &str = "1.0.0";
/// How containerd calls the name that it gives an image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A layer of the image.
pub(super) struct Layer {
    packed: Vec<u8>,
    /// Digest before it was packed.
    digest: String,
    comment: String,
}

impl Layer {
    /// Packs files that are as old as `time`.
    pub(super) fn new(
        tree: &Tree,
        time: u64,
        effort: Compression,
        comment: String,
    ) -> Result<Self> {
        let tar = tree.tar(time)?;
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), effort);
        gzip.write_all(&tar)?;
        Ok(Self {
            packed: gzip.finish()?,
            digest: format!("sha256:{}", sha256(&tar)),
            comment,
        })
    }
}

/// All files of a layout, and the digest of its manifest.
pub(super) struct Layout {
    files: Tree,
    /// Such as `sha256:...`, by which registries know the image.
    pub(super) digest: String,
}

impl Layout {
    /// Puts an image together.
    pub(super) fn new(description: &Description, layers: &[Layer]) -> Result<Self> {
        let mut files = Tree::default();
        let mut blob = |kind: MediaType, content: &[u8]| -> Result<Descriptor> {
            let digest = sha256(content);
            files.file(&path_of(&digest), 0o644, content);
            let digest: Sha256Digest = digest.parse()?;
            Ok(Descriptor::new(kind, content.len() as u64, digest))
        };

        let described: Vec<_> = layers
            .iter()
            .map(|layer| Described {
                digest: &layer.digest,
                comment: layer.comment.clone(),
            })
            .collect();
        let configuration = description.configuration(&described)?.to_string();
        let configuration = blob(MediaType::ImageConfig, configuration.as_bytes())?;
        let packed = layers
            .iter()
            .map(|layer| blob(MediaType::ImageLayerGzip, &layer.packed));
        let packed = packed.collect::<Result<Vec<_>>>()?;

        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(configuration.clone())
            .layers(packed.clone())
            .build()?;
        let manifest = blob(MediaType::ImageManifest, &sorted(&manifest)?)?;
        let digest = manifest.digest().to_string();
        let version = &description.version;
        let name = format!("{NAME}:{version}");
        let platform = PlatformBuilder::default()
            .architecture(description.architecture.of_image())
            .os(Os::Linux)
            .build()?;
        let names = [
            (ANNOTATION_REF_NAME.to_owned(), version.clone()),
            (CONTAINERD_NAME.to_owned(), name.clone()),
        ];
        let listed = DescriptorBuilder::default()
            .media_type(MediaType::ImageManifest)
            .digest(manifest.digest().clone())
            .size(manifest.size())
            .platform(platform)
            .annotations(std::collections::HashMap::from(names))
            .build()?;
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![listed])
            .build()?;
        let layout = OciLayoutBuilder::default()
            .image_layout_version(LAYOUT)
            .build()?;
        // What docker reads that does not know layouts.
        let for_docker = json!([{
            "Config": path_in_layout(&configuration),
            "RepoTags": [name],
            "Layers": packed.iter().map(path_in_layout).collect::<Vec<_>>(),
        }]);
        files.file("oci-layout", 0o644, sorted(&layout)?);
        files.file("index.json", 0o644, sorted(&index)?);
        files.file("manifest.json", 0o644, sorted(&for_docker)?);
        Ok(Self { files, digest })
    }

    /// Writes it as a folder, in place of what is there.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("replacing {}", folder.display()))?;
        }
        for (path, content) in self.files.files() {
            let path = folder.join(path);
            let parent = path.parent().context("a file lies in a folder")?;
            fs::create_dir_all(parent)?;
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes it as one archive.
    pub(super) fn write_archive(&self, path: &Path, time: u64) -> Result<()> {
        fs::write(path, self.files.tar(time)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// As JSON whose members are in order: maps of the specification's library are in none.
fn sorted(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::to_value(document)?;
    value.sort_all_objects();
    Ok(value.to_string().into_bytes())
}

fn path_in_layout(descriptor: &Descriptor) -> String {
    path_of(descriptor.digest().digest())
}

fn path_of(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}
