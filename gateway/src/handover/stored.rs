//! Handing everything over to the next process of the same service, through the service manager's
//! store of file descriptors (`FileDescriptorStoreMax=` in systemd.service(5)).
//!
//! The store has places for few descriptors, so channels take none of their own: a memfd holds
//! what is written down, and their sockets wait in the queue of a Unix socket (unix(7),
//! `SCM_RIGHTS`), both of whose ends are stored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::connection::{MAX_DESCRIPTORS, receive_with, send_with};
use super::listeners::Listeners;
use super::message::{EstateState, VERSION};
use super::predecessor::{Estate, Thaw};
use super::standstill::collect;
use super::successor::{Successor, arrive, take_over, take_set};
use crate::channel::{ChannelState, Offer};
use gateway_datapath::sockmap::{InheritedSets, SetState};

/// Names in the store, of what is written down and of both ends of the queue.
const STATE: &str = "flexvdi-state";
const QUEUE: &str = "flexvdi-queue";
const QUEUE_END: &str = "flexvdi-queue-end";
/// Buffer of the queue in bytes, of which the system grants what is allowed (`net.core.wmem_max`).
const QUEUE_BUFFER: usize = 16 << 20;
/// Longest time in which the sockets are taken out of the queue.
const EMPTYING: Duration = Duration::from_secs(3);
/// Longest wait until the service manager has taken everything.
const TAKING: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Written behind one line with [`VERSION`].
#[derive(Serialize, Deserialize)]
pub(super) struct StoredState {
    pub(super) estate: EstateState,
    /// How many of the sockets listen; they come before those of the channels.
    listeners: usize,
    /// eBPF programs of the channels, whose descriptors come between the two.
    sets: Vec<SetState>,
    pub(super) channels: Vec<ChannelState>,
    /// When the channels were told to stand still, in milliseconds of the Unix epoch.
    frozen: u64,
}

/// What became of the channels.
pub struct Kept {
    /// How many wait for the next process.
    pub channels: usize,
    /// How many are left here, and end with this process.
    pub left: usize,
}

/// Has the service manager keep everything for the next process. No connections must be taken any
/// more. When this fails all channels go on here; so do those of eBPF programs, unless `programs`
/// says that the next process goes on with these.
pub async fn store(estate: &Estate<'_>, programs: Result<()>) -> Result<Kept> {
    let frozen = now();
    let (sender, receiver) = mpsc::unbounded_channel();
    estate.channels.freeze_all(sender);
    let _thaw = Thaw(estate.channels);
    let mut offers = collect(|| estate.channels.count_movable(), receiver).await;
    if let Err(error) = programs {
        let all = offers.len();
        offers.retain(|offer| offer.sockets.set().is_none());
        if offers.len() < all {
            let (reason, channels) = (format!("{error:#}"), all - offers.len());
            warn!(
                reason,
                channels, "channels on sockmap end with this process"
            );
        }
    }
    let sets = offers.iter().filter_map(|offer| offer.sockets.set());
    let sets: BTreeMap<_, _> = sets.map(|set| (set.number(), set)).collect();
    let sets = sets.into_values().filter_map(|set| set.share());
    let (sets, shared): (Vec<_>, Vec<_>) = sets.unzip();
    let state = StoredState {
        estate: estate.written(),
        listeners: estate.sockets.len(),
        sets,
        channels: offers.iter().map(|offer| offer.state.clone()).collect(),
        frozen,
    };
    let state = memfd(&state).context("cannot serialise the channels")?;
    let mut sockets: Vec<_> = estate.sockets.iter().map(AsFd::as_fd).collect();
    sockets.extend(shared.into_iter().flatten());
    sockets.extend(offers.iter().flat_map(|offer| offer.sockets.descriptors()));
    let (queue, end) = queued(&sockets).context("cannot queue the sockets")?;
    let kept = || keep(&Systemd, &state, &queue, &end);
    tokio::task::block_in_place(kept)?;
    let channels = offers.len();
    let left = estate.channels.count().saturating_sub(channels);
    offers.into_iter().for_each(Offer::taken);
    Ok(Kept { channels, left })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Memory that is never on disk, holds the secrets of the connections, and cannot be changed.
fn memfd(state: &StoredState) -> Result<OwnedFd> {
    let mut text = Zeroizing::new(format!("{VERSION}\n").into_bytes());
    text.extend_from_slice(&Zeroizing::new(serde_json::to_vec(state)?));
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(STATE, flags)?);
    file.write_all(&text)?;
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, all)?;
    Ok(file.into())
}

/// A socket in whose queue these descriptors wait, and its other end.
fn queued(sockets: &[BorrowedFd<'_>]) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (queue, end) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The kernel counts its own structures for each message.
    sockopt::set_socket_send_buffer_size(&end, QUEUE_BUFFER)?;
    for batch in sockets.chunks(MAX_DESCRIPTORS) {
        send_with(&end, &[0], batch)?;
    }
    Ok((queue, end))
}

/// Who keeps descriptors, by name.
trait Store {
    fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Comes back once all that was put is kept.
    fn settle(&self) -> Result<()>;
}

/// The service manager.
struct Systemd;

impl Store for Systemd {
    fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let message = [NotifyState::FdStore, NotifyState::FdName(name)];
        sd_notify::notify_with_fds(&message, &[descriptor])
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
    }

    /// Only what the service manager has read before this process ends is known to be its own
    /// (`sd_notify_barrier(3)`).
    fn settle(&self) -> Result<()> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let barrier = [NotifyState::Custom("BARRIER=1")];
        sd_notify::notify_with_fds(&barrier, &[theirs.as_fd()])?;
        drop(theirs);
        let mut polled = [PollFd::new(&ours, PollFlags::HUP)];
        let ready = poll(&mut polled, Some(&TAKING))?;
        ensure!(ready > 0, "the service manager does not answer");
        Ok(())
    }
}

/// Puts everything into the store; when that fails, nothing in there is good for anything.
fn keep(store: &impl Store, state: &OwnedFd, queue: &OwnedFd, end: &OwnedFd) -> Result<()> {
    let put = || {
        for (name, descriptor) in [(STATE, state), (QUEUE, queue), (QUEUE_END, end)] {
            let put = store.put(name, descriptor.as_fd());
            put.context("the service manager is not reached")?;
        }
        store.settle()
    };
    put().inspect_err(|_| {
        // The channels go on here, so no other process may: were it to find state and sockets,
        // both would use the same keys. A store that fails may fail to forget as well, so the
        // queue is emptied, of which it holds the same two ends.
        drop(received(queue));
        forget(store);
    })
}

/// Has the store keep nothing any more.
fn forget(store: &impl Store) {
    for name in [STATE, QUEUE, QUEUE_END] {
        if let Err(error) = store.remove(name) {
            warn!(%error, "the service manager is not reached");
        }
    }
}

/// What the process before has left in the store.
pub struct Stored {
    state: StoredState,
    listeners: Listeners,
    /// Descriptors of the sets, then those of the channels.
    moving: Vec<OwnedFd>,
}

impl Stored {
    /// Whether a descriptor of this name belongs to it.
    pub fn is_name(name: &str) -> bool {
        [STATE, QUEUE, QUEUE_END].contains(&name)
    }

    /// Takes it out of the store, where nothing is left for another start. `None`: nothing was
    /// stored, or it cannot be gone on with, which is logged; then the channels end with this
    /// call.
    pub fn take(descriptors: Vec<(String, OwnedFd)>) -> Option<Self> {
        if descriptors.is_empty() {
            return None;
        }
        let read = Self::read(descriptors);
        forget(&Systemd);
        read.inspect_err(|error| {
            let reason = format!("{error:#}");
            warn!(reason, "the channels of the previous process are lost");
        })
        .ok()
    }

    fn read(descriptors: Vec<(String, OwnedFd)>) -> Result<Self> {
        let (mut state, mut queue) = (None, None);
        for (name, descriptor) in descriptors {
            match name.as_str() {
                STATE => state = Some(File::from(descriptor)),
                QUEUE => queue = Some(descriptor),
                _ => {}
            }
        }
        let (Some(mut file), Some(queue)) = (state, queue) else {
            bail!("the store of file descriptors holds a part only");
        };
        let mut text = Zeroizing::new(Vec::new());
        file.rewind()?;
        file.read_to_end(&mut text)?;
        let state = parse(&text)?;
        let mut sockets = received(&queue)?;
        state.estate.check()?;
        let sets = state.sets.iter().map(SetState::descriptors);
        let channels = state.channels.iter().map(ChannelState::sockets);
        let expected = sets.chain(channels).sum();
        let moving = sockets.len().checked_sub(state.listeners);
        ensure!(moving == Some(expected), "sockets are missing");
        let moving = sockets.split_off(state.listeners);
        Ok(Self {
            state,
            listeners: Listeners::new(sockets)?,
            moving,
        })
    }

    /// The listening sockets of the process before.
    pub fn listeners(&mut self) -> &mut Listeners {
        &mut self.listeners
    }

    /// Goes on with everything.
    pub fn go_on(self, successor: &Successor) {
        if let Err(error) = take_over(self.state.estate, successor) {
            let reason = format!("{error:#}");
            warn!(reason, "the tickets of the previous process are lost");
        }
        let mut sets = InheritedSets::default();
        let mut moving = self.moving;
        for set in &self.state.sets {
            // There are as many as the state says.
            let behind = moving.split_off(set.descriptors());
            let descriptors = std::mem::replace(&mut moving, behind);
            take_set(&mut sets, set, descriptors, successor);
        }
        let arrived = arrive(self.state.channels, moving, &sets, successor);
        let milliseconds = now().saturating_sub(self.state.frozen);
        info!(
            channels = arrived.len(),
            milliseconds, "channels taken over"
        );
        let gateway = &successor.live.current().gateway;
        for channel in arrived {
            channel.start(gateway.channel_limits, &gateway.channels);
        }
    }
}

fn parse(text: &[u8]) -> Result<StoredState> {
    let end = text.iter().position(|byte| *byte == b'\n');
    let (version, state) = text.split_at(end.context("no version")?);
    let version = String::from_utf8_lossy(version);
    ensure!(
        version == VERSION.to_string(),
        "hand-over version {VERSION} is needed, not {version}"
    );
    // The text is not repeated: it holds secrets.
    serde_json::from_slice(state).map_err(|_| anyhow::anyhow!("it cannot be understood"))
}

fn received(queue: &OwnedFd) -> Result<Vec<OwnedFd>> {
    let mut descriptors = std::collections::VecDeque::new();
    let began = Instant::now();
    // One byte at a time, which comes with the descriptors of one message.
    while began.elapsed() < EMPTYING {
        match receive_with(queue, &mut [0], &mut descriptors) {
            Ok(1) => {}
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(descriptors.into())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::ticket::Tickets;

    fn low(number: usize) -> u8 {
        number.to_le_bytes()[0]
    }

    #[test]
    fn sockets_come_out_of_the_queue_in_order() {
        let count = 2 * MAX_DESCRIPTORS + 1;
        let pipes: Vec<_> = (0..8)
            .map(|_| pipe_with(PipeFlags::CLOEXEC).unwrap())
            .collect();
        let sent: Vec<_> = (0..count).map(|at| pipes[at % 8].1.as_fd()).collect();
        let (queue, end) = queued(&sent).unwrap();
        drop(end);
        let received = received(&queue).unwrap();
        assert_eq!(received.len(), count);
        for (at, descriptor) in received.into_iter().enumerate() {
            File::from(descriptor).write_all(&[low(at)]).unwrap();
        }
        for (at, (read, write)) in pipes.into_iter().enumerate() {
            drop(write);
            let mut bytes = Vec::new();
            File::from(read).read_to_end(&mut bytes).unwrap();
            let expected: Vec<_> = (at..count).step_by(8).map(low).collect();
            assert_eq!(bytes, expected);
        }
    }

    /// Keeps what it is given, but fails at the last of it.
    #[derive(Default)]
    struct Failing {
        kept: RefCell<Vec<(String, OwnedFd)>>,
        forgotten: RefCell<Vec<String>>,
        forgets: bool,
    }

    impl Store for Failing {
        fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
            let descriptor = descriptor.try_clone_to_owned()?;
            let mut kept = self.kept.borrow_mut();
            kept.push((name.to_owned(), descriptor));
            match kept.len() {
                3 => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(()),
            }
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.forgotten.borrow_mut().push(name.to_owned());
            if self.forgets {
                Ok(())
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }

        fn settle(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_stored_in_part_is_forgotten_and_good_for_nothing() {
        for forgets in [true, false] {
            let store = Failing {
                forgets,
                ..Failing::default()
            };
            let state = StoredState {
                estate: EstateState {
                    upcoming: [1, 1],
                    tickets: Tickets::new(Duration::ZERO, Duration::ZERO)
                        .unwrap()
                        .state(Instant::now()),
                    banned: Vec::new(),
                },
                listeners: 1,
                sets: Vec::new(),
                channels: Vec::new(),
                frozen: 0,
            };
            let state = memfd(&state).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let (queue, end) = queued(&[listener.as_fd()]).unwrap();
            let failed = keep(&store, &state, &queue, &end).unwrap_err();
            assert!(failed.to_string().contains("not reached"), "{failed}");
            assert_eq!(store.forgotten.take(), [STATE, QUEUE, QUEUE_END]);
            drop((queue, end));
            // What a next process would find, were nothing forgotten.
            let error = Stored::read(store.kept.take()).err().unwrap();
            assert_eq!(error.to_string(), "sockets are missing");
        }
    }

    #[test]
    fn another_version_is_refused() {
        let error = parse(b"0\n{}").err().unwrap();
        assert!(error.to_string().contains("not 0"), "{error}");
        assert!(parse(b"").is_err());
        assert!(parse(format!("{VERSION}\n{{}}").as_bytes()).is_err());
    }
}
