//! What the image says of itself: how it is run, and what is inside.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use oci_spec::image::{
    ANNOTATION_CREATED, ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION,
    ANNOTATION_TITLE, ANNOTATION_VERSION, ConfigBuilder, History, HistoryBuilder,
    ImageConfigurationBuilder, Os, RootFsBuilder,
};
use serde_json::{Value, json};

use super::contents::{PROGRAM, USER};
use crate::architecture::Architecture;
use crate::git;

/// The TLS port inside: one that every user may open, whatever the runtime permits.
pub(super) const PORT: u16 = 8443;

/// Which image it is.
pub(super) struct Description {
    pub(super) version: String,
    pub(super) architecture: Architecture,
    /// When it counts as made, in seconds since the Unix epoch.
    pub(super) time: u64,
    /// Commit that it was made of, if there is one.
    pub(super) revision: Option<String>,
}

/// A layer, as the description knows it.
pub(super) struct Described<'a> {
    /// Digest of the archive, not packed.
    pub(super) digest: &'a str,
    /// What is in it.
    pub(super) comment: String,
}

impl Description {
    /// `SOURCE_DATE_EPOCH`, or the time of the last commit.
    pub(super) fn new(version: String, architecture: Architecture) -> Result<Self> {
        Ok(Self {
            version,
            architecture,
            time: git::source_time()?,
            revision: git::revision().ok(),
        })
    }

    /// The image's configuration, as JSON with its members in order.
    pub(super) fn configuration(&self, layers: &[Described<'_>]) -> Result<Value> {
        let time = UNIX_EPOCH + Duration::from_secs(self.time);
        let created = humantime::format_rfc3339_seconds(time).to_string();
        let mut labels = vec![
            (ANNOTATION_TITLE, "flexvdi-gateway".to_owned()),
            (
                ANNOTATION_DESCRIPTION,
                "Gateway for virtual desktops: one TLS port in front of all Spice hosts".to_owned(),
            ),
            (ANNOTATION_VERSION, self.version.clone()),
            (ANNOTATION_LICENSES, "MIT OR Apache-2.0".to_owned()),
            (ANNOTATION_CREATED, created.clone()),
        ];
        if let Some(revision) = &self.revision {
            labels.push((ANNOTATION_REVISION, revision.clone()));
        }
        let labels = labels
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text));
        let run = ConfigBuilder::default()
            .user(format!("{USER}:{USER}"))
            .entrypoint(vec![PROGRAM.to_owned()])
            .env(vec![
                "PATH=/usr/sbin:/usr/bin".to_owned(),
                format!("FLEXVDI_GATEWAY_SSL_PORT={PORT}"),
            ])
            .exposed_ports(vec![format!("{PORT}/tcp")])
            .working_dir("/")
            .stop_signal("SIGTERM")
            .labels(labels.collect::<std::collections::HashMap<_, _>>())
            .build()?;
        let history = |layer: &Described<'_>| -> Result<History> {
            let history = HistoryBuilder::default();
            let history = history
                .created(created.clone())
                .created_by("cargo xtask image")
                .comment(layer.comment.clone());
            Ok(history.build()?)
        };
        let digests: Vec<_> = layers.iter().map(|layer| layer.digest.to_owned()).collect();
        let root = RootFsBuilder::default().diff_ids(digests).build()?;
        let configuration = ImageConfigurationBuilder::default()
            .created(created.clone())
            .architecture(self.architecture.of_image())
            .os(Os::Linux)
            .config(run)
            .rootfs(root)
            .history(layers.iter().map(history).collect::<Result<Vec<_>>>()?)
            .build()?;
        let mut value = serde_json::to_value(configuration)?;
        // Docker's addition to the specification; others ignore it. Whatever restarts what is not
        // healthy must not end the sessions that draining waits for.
        value["config"]["Healthcheck"] = json!({
            "Test": ["CMD", PROGRAM, "health", "--live"],
            "Interval": nanoseconds(30),
            "Timeout": nanoseconds(10),
            "StartPeriod": nanoseconds(10),
            "Retries": 3,
        });
        value.sort_all_objects();
        Ok(value)
    }
}

fn nanoseconds(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use oci_spec::image::ImageConfiguration;

    use super::*;

    #[test]
    fn the_description_is_the_same_each_time() {
        let description = || Description {
            version: "1.2.3".to_owned(),
            architecture: Architecture::Arm64,
            time: 1_700_000_000,
            revision: Some("abc".to_owned()),
        };
        let layer = Described {
            digest: "sha256:00",
            comment: "files".to_owned(),
        };
        let layers = [layer];
        let text = description().configuration(&layers).unwrap().to_string();
        for _ in 0..8 {
            let again = description().configuration(&layers).unwrap();
            assert_eq!(again.to_string(), text);
        }
        let read: ImageConfiguration = serde_json::from_str(&text).unwrap();
        assert_eq!(read.created().as_deref(), Some("2023-11-14T22:13:20Z"));
        let run = read.config().as_ref().unwrap();
        assert_eq!(run.user().as_deref(), Some("65532:65532"));
        assert_eq!(run.labels().as_ref().unwrap()[ANNOTATION_VERSION], "1.2.3");
        assert!(text.contains("\"architecture\":\"arm64\""), "{text}");
    }
}
