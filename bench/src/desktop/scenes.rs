//! What is on the screen, and the line to it.

use testkit::network::CONGESTION_CONTROL;

use super::animation::Load;
use crate::wan::lines::{self, WanLine};

/// A load on a line.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// Its name in options and files.
    pub(super) id: String,
    /// What it is.
    pub(super) title: String,
    pub(super) line: WanLine,
    /// What TCP does about congestion on client, gateway and host.
    pub(super) congestion_control: &'static str,
    pub(super) load: Load,
    /// Part of a quick run.
    pub(super) is_quick: bool,
}

const IDLE: (Load, &str, &str) = (Load::Idle, "idle", "nothing moves");
const TILES: (Load, &str, &str) = (Load::Tiles, "tiles", "16 moving pictures of 42 x 42");
const SMALL: (Load, &str, &str) = (
    Load::Picture(128, 128),
    "128x128",
    "a moving picture of 128 x 128",
);
const MIDDLE: (Load, &str, &str) = (
    Load::Picture(320, 240),
    "320x240",
    "a moving picture of 320 x 240",
);
const LARGE: (Load, &str, &str) = (
    Load::Picture(512, 384),
    "512x384",
    "a moving picture of 512 x 384",
);

/// All scenes, in the order in which they are measured and shown.
pub(super) fn all() -> Vec<Scene> {
    let known = lines::all();
    let scene = |line: &str, congestion_control, (load, name, what), is_quick| {
        let line = known.iter().copied().find(|known| known.id == line);
        let line = line.expect("scenes are on lines of `bench wan`");
        let suffix = if congestion_control == CONGESTION_CONTROL {
            String::new()
        } else {
            format!("-{congestion_control}")
        };
        Scene {
            id: format!("{}-{name}{suffix}", line.id),
            title: format!("{}, {what} ({congestion_control})", line.title),
            line,
            congestion_control,
            load,
            is_quick,
        }
    };
    vec![
        scene("80ms-10m", "cubic", IDLE, true),
        scene("80ms-10m", "cubic", TILES, false),
        scene("80ms-10m", "cubic", SMALL, true),
        scene("80ms-10m", "cubic", MIDDLE, true),
        scene("80ms-10m", "cubic", LARGE, false),
        scene("80ms-10m", "bbr", MIDDLE, false),
        scene("80ms-10m", "bbr", LARGE, false),
        scene("20ms-50m", "cubic", LARGE, false),
        scene("300ms-5m", "cubic", SMALL, false),
        scene("300ms-5m", "cubic", MIDDLE, false),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_some_scenes_quick() {
        let scenes = all();
        let ids: BTreeSet<_> = scenes.iter().map(|scene| scene.id.as_str()).collect();
        assert_eq!(ids.len(), scenes.len());
        assert!(ids.contains("80ms-10m-320x240-bbr") && ids.contains("80ms-10m-idle"));
        assert!(scenes.iter().any(|scene| scene.is_quick));
    }
}
