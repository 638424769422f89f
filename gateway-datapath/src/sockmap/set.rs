//! The maps of one load of the programs, as descriptors: to be opened here, and to be passed on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData, MapError};
use gateway_common::layout;

/// The maps that a gateway opens, by their names in the object.
pub(super) const MAPS: [&str; 10] = [
    layout::ABILITIES,
    layout::HOSTS,
    layout::UNIX_HOSTS,
    layout::BRIDGES,
    layout::INJECTORS,
    layout::TARGETS,
    layout::ROUTES,
    layout::STATES,
    layout::GATES,
    layout::EVENTS,
];

/// The maps of a set, in the order of [`MAPS`]. The programs stay on them as long as these exist.
pub(super) struct Set(Vec<OwnedFd>);

/// Why a set cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    #[error("no map {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Set {
    /// Of the maps that `find` knows by their names.
    pub(super) fn of<'a>(find: impl Fn(&'static str) -> Option<&'a Map>) -> Result<Self, SetError> {
        let descriptors = MAPS.iter().map(|&name| {
            let map = find(name).and_then(data).ok_or(SetError::Missing(name))?;
            let descriptor = map.fd().as_fd().try_clone_to_owned();
            Ok(descriptor.map_err(MapError::from)?)
        });
        Ok(Self(descriptors.collect::<Result<_, SetError>>()?))
    }

    /// Of descriptors in the order of [`MAPS`].
    pub(super) fn received(descriptors: Vec<OwnedFd>) -> Result<Self, SetError> {
        match MAPS.get(descriptors.len()) {
            Some(missing) => Err(SetError::Missing(missing)),
            None => Ok(Self(descriptors)),
        }
    }

    /// Opens a map.
    pub(super) fn open(&self, name: &'static str) -> Result<Map, SetError> {
        Ok(Map::from_map_data(MapData::from_fd(
            self.descriptor(name)?,
        )?)?)
    }

    /// One more descriptor of a map.
    pub(super) fn descriptor(&self, name: &'static str) -> Result<OwnedFd, SetError> {
        let place = MAPS.iter().position(|map| *map == name);
        let descriptor = place.and_then(|place| self.0.get(place));
        let descriptor = descriptor.ok_or(SetError::Missing(name))?;
        Ok(descriptor.try_clone().map_err(MapError::from)?)
    }

    /// The kernel's number of the hosts' map, which no other set has while this exists.
    pub(super) fn number(&self) -> Result<u32, SetError> {
        let hosts = MapData::from_fd(self.descriptor(layout::HOSTS)?)?;
        Ok(hosts.info()?.id())
    }

    /// All of it.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }
}

/// `None`: none of the kinds that a set has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::RingBuf(data) | Map::SockHash(data) => {
            Some(data)
        }
        _ => None,
    }
}
