//! What lies in the maps of a running gateway.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData, MapInfo, SockHash};

/// Maps that have an entry for each channel or several, by name, with the number of entries.
///
/// Only root may look into them.
pub(crate) fn entries(pid: u32) -> Result<BTreeMap<String, usize>> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root may look into the maps of another process: run the tests as root"
    );
    let mut entries = BTreeMap::new();
    for id in map_ids(pid)? {
        let info = MapInfo::from_id(id).context("asking for a map")?;
        let name = info.name_as_str().context("a map's name")?.to_owned();
        let data = || MapData::from_id(id).with_context(|| format!("opening the map {name}"));
        let count = match name.as_str() {
            "HOSTS" | "BRIDGES" | "INJECTORS" | "TARGETS" => {
                let map = SockHash::<_, u64>::try_from(Map::SockHash(data()?))?;
                map.keys().collect::<Result<Vec<_>, _>>()?.len()
            }
            "ROUTES" => {
                let map = HashMap::<_, u64, [u64; 2]>::try_from(Map::HashMap(data()?))?;
                map.keys().collect::<Result<Vec<_>, _>>()?.len()
            }
            _ => continue,
        };
        entries.insert(name, count);
    }
    ensure!(
        entries.len() == 5,
        "a gateway has five such maps: {entries:?}"
    );
    Ok(entries)
}

/// Numbers of the maps that a process has open (`bpf_map_show_fdinfo`, kernel/bpf/syscall.c).
fn map_ids(pid: u32) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that was closed meanwhile is no map.
        let text = fs::read_to_string(descriptor?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        ids.extend(id.map(|id| id.trim().parse::<u32>()).transpose()?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
