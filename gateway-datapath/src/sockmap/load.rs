//! Loading the programs into the kernel.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, SockHash};
use aya::programs::{ProgramError, SkSkb};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use gateway_common::layout;
use tracing::{debug, warn};

use super::kernel;
use super::logger;
use super::maps::Maps;
use super::object;
use super::pins::{self, NoSet};
use super::set::{MAPS, Set};
use super::type_info::Offsets;

/// The object cannot be used on this kernel, or by this process.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The gateway was built without the object.
    #[error("no eBPF object built in: cargo xtask build-ebpf, then build the gateway again")]
    NoObject,
    /// The kernel is older than any on which this was tried.
    #[error("kernel {0}: 6.1 or later is needed")]
    OldKernel(String),
    /// The process lacks a capability.
    #[error("not permitted: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed")]
    NotPermitted,
    /// It lacks a capability, and nobody has loaded the programs for it.
    #[error(
        "{0}; run \"flexvdi-gateway load-ebpf\" as root, or give the gateway CAP_BPF, \
         CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NoSet(NoSet),
    /// The kernel refused a map or the object's types.
    #[error("kernel refused the object: {0}")]
    Object(String),
    /// The kernel's verifier, or another part of it, refused a program.
    #[error("kernel refused program {program}: {reason}")]
    Program {
        /// The program.
        program: &'static str,
        /// In short; the verifier's own words are in the log at level debug.
        reason: String,
    },
    /// The maps are not those that the gateway expects.
    #[error("object of another version: {0}")]
    Maps(String),
    /// Another resource of the system is missing.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What stays in the kernel as long as this lives.
pub(super) struct Loaded {
    pub(super) set: Set,
    pub(super) logger: Option<logger::Logger>,
    /// Keeps the programs on the maps, and others away from them.
    pub(super) held: Held,
    /// How many channels there is room for.
    pub(super) room: u32,
    /// Hosts on Unix sockets can be moved.
    pub(super) moves_unix_hosts: bool,
}

/// Where the programs came from; they are this process's as long as this lives.
pub(super) enum Held {
    /// This process has loaded them. Unloaded when dropped.
    Programs(Mutex<Option<Ebpf>>),
    /// Somebody else has.
    Set { folder: PathBuf, lock: File },
    /// A process before has, or somebody else for it, who then holds the lock.
    Inherited { lock: Option<File> },
}

impl Held {
    /// Another process goes on with channels of these programs, which stay where they are when
    /// this is dropped.
    pub(super) fn share(&self) {
        if let Self::Programs(ebpf) = self {
            let ebpf = ebpf.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Dropping it would take the programs off the maps.
            std::mem::forget(ebpf);
        }
    }

    /// The lock that keeps other processes away, if there is one.
    pub(super) fn lock(&self) -> Option<&File> {
        match self {
            Self::Programs(_) => None,
            Self::Set { lock, .. } => Some(lock),
            Self::Inherited { lock } => lock.as_ref(),
        }
    }
}

/// Why no programs of somebody else are used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeSetError {
    #[error(transparent)]
    NoSet(#[from] NoSet),
    #[error(transparent)]
    Broken(#[from] LoadError),
}

/// Loads the programs, with room for `channels`.
pub(super) fn load(channels: u32) -> Result<Loaded, LoadError> {
    let mut ebpf = programs(channels)?;
    let logger = logger::Logger::new(&mut ebpf);
    let set = Set::of(|name| ebpf.map(name)).map_err(|e| wrong_maps(&e))?;
    for name in MAPS {
        // The set has descriptors of its own.
        drop(ebpf.take_map(name));
    }
    let moves_unix_hosts = moves_unix_hosts(&set)?;
    Ok(Loaded {
        set,
        logger,
        held: Held::Programs(Mutex::new(Some(ebpf))),
        room: channels,
        moves_unix_hosts,
    })
}

/// Takes programs that were loaded for this process, with room for `channels` or fewer.
pub(super) fn take(directory: &Path, channels: u32) -> Result<Loaded, TakeSetError> {
    let taken = pins::take(&pins::key()?, directory, channels)?;
    let maps = Maps::open(&taken.set).map_err(|e| wrong_maps(&e))?;
    maps.clear().map_err(|e| wrong_maps(&e))?;
    let moves_unix_hosts = moves_unix_hosts(&taken.set)?;
    Ok(Loaded {
        set: taken.set,
        // aya-log finds the ring of its own programs only; what it tells is counted, too.
        logger: None,
        room: taken.channels,
        moves_unix_hosts,
        held: Held::Set {
            folder: taken.folder,
            lock: taken.lock,
        },
    })
}

/// What whoever loaded the programs has found out.
fn moves_unix_hosts(set: &Set) -> Result<bool, LoadError> {
    let map = set.open(layout::ABILITIES).map_err(|e| wrong_maps(&e))?;
    let abilities = Array::<_, u64>::try_from(map).map_err(|e| wrong_maps(&e))?;
    let abilities = abilities.get(&0, 0).map_err(|e| wrong_maps(&e))?;
    Ok(abilities & layout::MOVES_UNIX_HOSTS != 0)
}

/// Loads the programs and attaches them to their maps, with room for `channels`.
pub(super) fn programs(channels: u32) -> Result<Ebpf, LoadError> {
    let object = object::bytes().ok_or(LoadError::NoObject)?;
    let segment_limit = kernel::segment_limit()?;
    let offsets = kernel::unix_offsets(segment_limit);
    let offset = |of: fn(&Offsets) -> u64| offsets.as_ref().map_or(layout::UNKNOWN_OFFSET, of);
    let (peer, cookie, charged) = (
        offset(|o| o.peer),
        offset(|o| o.cookie),
        offset(|o| o.charged),
    );
    // Slots rest for a while after their channel.
    let slots = channels.saturating_mul(2);
    let level = aya_log::Level::Warn as u8;
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS)
        .override_global(layout::SEGMENT_LIMIT, &segment_limit, true)
        .override_global(layout::LINEAR_LIMIT, &kernel::linear_limit(), true)
        .override_global(layout::PEER_OFFSET, &peer, true)
        .override_global(layout::COOKIE_OFFSET, &cookie, true)
        .override_global(layout::CHARGED_OFFSET, &charged, true)
        .override_global(aya_log::LEVEL, &level, false)
        .map_max_entries(layout::HOSTS, channels)
        .map_max_entries(layout::UNIX_HOSTS, channels)
        .map_max_entries(layout::BRIDGES, channels)
        .map_max_entries(layout::INJECTORS, channels)
        .map_max_entries(layout::TARGETS, channels.saturating_mul(3))
        .map_max_entries(layout::ROUTES, channels.saturating_mul(3))
        .map_max_entries(layout::STATES, slots)
        .map_max_entries(layout::GATES, slots)
        .load(object)
        .map_err(|error| refused_object(&error))?;
    for (program, map) in [
        ("host_verdict", layout::HOSTS),
        ("bridge_verdict", layout::BRIDGES),
        ("injector_verdict", layout::INJECTORS),
    ] {
        attach(&mut ebpf, program, map)?;
    }
    if offsets.is_some() {
        match attach(&mut ebpf, "unix_host_verdict", layout::UNIX_HOSTS) {
            Ok(()) => tell_abilities(&mut ebpf, layout::MOVES_UNIX_HOSTS)?,
            // Hosts on TCP can be moved all the same.
            Err(error) => warn!(%error, "hosts on Unix sockets are moved by relay only"),
        }
    }
    Ok(ebpf)
}

/// Leaves a note for those who use the programs.
fn tell_abilities(ebpf: &mut Ebpf, abilities: u64) -> Result<(), LoadError> {
    let map = ebpf
        .map_mut(layout::ABILITIES)
        .ok_or_else(|| LoadError::Maps(format!("no map {}", layout::ABILITIES)))?;
    let mut map = Array::<_, u64>::try_from(map).map_err(|e| wrong_maps(&e))?;
    map.set(0, abilities, 0).map_err(|e| wrong_maps(&e))
}

fn attach(ebpf: &mut Ebpf, name: &'static str, map: &'static str) -> Result<(), LoadError> {
    let sources = ebpf
        .map(map)
        .ok_or_else(|| LoadError::Maps(format!("no map {map}")))?;
    let sources = SockHash::<_, u64>::try_from(sources).map_err(|e| wrong_maps(&e))?;
    let sources = sources.fd().try_clone()?;
    let program: &mut SkSkb = ebpf
        .program_mut(name)
        .ok_or_else(|| LoadError::Maps(format!("no program {name}")))?
        .try_into()
        .map_err(|e| refused_program(name, &e))?;
    program.load().map_err(|e| refused_program(name, &e))?;
    program
        .attach(&sources)
        .map_err(|e| refused_program(name, &e))?;
    Ok(())
}

pub(super) fn wrong_maps(error: &impl ToString) -> LoadError {
    LoadError::Maps(error.to_string())
}

fn refused_object(error: &EbpfError) -> LoadError {
    if is_permission(error) {
        return LoadError::NotPermitted;
    }
    LoadError::Object(chain(error))
}

fn refused_program(program: &'static str, error: &ProgramError) -> LoadError {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        debug!(program, %verifier_log, "verifier");
        if io_error.kind() == io::ErrorKind::PermissionDenied {
            return LoadError::NotPermitted;
        }
        return LoadError::Program {
            program,
            reason: io_error.to_string(),
        };
    }
    if is_permission(error) {
        return LoadError::NotPermitted;
    }
    LoadError::Program {
        program,
        reason: chain(error),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace('\n', " ")
}

fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        next = error.source();
    }
    false
}
