//! The bench host: a server on a TCP port and a Unix socket that does the jobs that come over its
//! channels, on threads of its own so that it does not compete with the clients for theirs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::net::listen_in;
use testkit::network::{self, Network};
use testkit::replay::Direction;
use testkit::spice::read_link;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::block::{self, DOWNLINK, UPLINK};
use super::excerpt::{End, Excerpt};
use super::job::{self, Job};
use super::show::Shows;

/// How much is read at once, in bytes.
const READ: usize = 65_536;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;
/// How long the peers may take to pass on that channels ended.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// A running host; stopped when dropped.
pub(crate) struct BenchHost {
    addr: SocketAddr,
    /// Has its Unix socket, whose name is the port.
    folder: TempDir,
    open: watch::Receiver<usize>,
    problems: Problems,
    shows: Shows,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Problems = Arc<Mutex<Vec<String>>>;

impl BenchHost {
    /// Starts a host on a free port of 127.0.0.1.
    pub(crate) fn start(excerpt: Arc<Excerpt>) -> Result<Self> {
        Self::start_with(excerpt, || {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            socket.listen(BACKLOG).context("the port of the bench host")
        })
    }

    /// Starts a host where a network has its own.
    pub(crate) fn start_in(network: &Network, excerpt: Arc<Excerpt>) -> Result<Self> {
        Self::start_with(excerpt, || {
            listen_in(&network.host, (network::HOST, 0).into())
        })
    }

    fn start_with(
        excerpt: Arc<Excerpt>,
        listen: impl FnOnce() -> Result<TcpListener>,
    ) -> Result<Self> {
        let threads = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("bench-host")
            .enable_all()
            .build()
            .context("threads of the bench host")?;
        let folder = TempDir::with_prefix("bench-host-")?;
        let (tcp, unix) = {
            let _inside = runtime.enter();
            let tcp = listen()?;
            let name = tcp.local_addr()?.port().to_string();
            let unix = UnixListener::bind(folder.path().join(name));
            (tcp, unix.context("the Unix socket of the bench host")?)
        };
        let addr = tcp.local_addr()?;
        let (open_sender, open) = watch::channel(0);
        let problems = Problems::default();
        let shows = Shows::default();
        let (stop, stopped) = oneshot::channel();
        let service = Service {
            excerpt,
            open: Arc::new(open_sender),
            problems: Arc::clone(&problems),
            shows: shows.clone(),
        };
        let thread = thread::Builder::new()
            .name("bench-host".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = service.accept(async || Ok(tcp.accept().await?.0)) => {}
                        () = service.accept(async || Ok(unix.accept().await?.0)) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_background();
            })
            .context("the thread of the bench host")?;
        Ok(Self {
            addr,
            folder,
            open,
            problems,
            shows,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens on this machine, as `SpiceHost` names it.
    pub(crate) fn socket(&self) -> String {
        format!("unix:{}/%p", self.folder.path().display())
    }

    /// How many bytes of a show its socket has taken so far.
    pub(crate) fn shown(&self, key: u64) -> u64 {
        self.shows.bytes(key)
    }

    /// Waits until no channel is open any more.
    pub(crate) async fn idle(&self) -> Result<()> {
        self.wait_for_open(|open| open == 0)
            .await
            .context("channels were closed, but the host was not told")
    }

    /// What went wrong since the last call.
    pub(crate) fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut *self.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn wait_for_open(&self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let mut open = self.open.clone();
        let found = timeout(IDLE_LIMIT, open.wait_for(|open| wanted(*open))).await;
        match found {
            Ok(seen) => seen.map(drop).context("the bench host ended"),
            Err(_) => anyhow::bail!("{} channels after {IDLE_LIMIT:?}", *self.open.borrow()),
        }
    }
}

impl Drop for BenchHost {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
    }
}

/// What connections are served with.
struct Service {
    excerpt: Arc<Excerpt>,
    open: Arc<watch::Sender<usize>>,
    problems: Problems,
    shows: Shows,
}

impl Service {
    async fn accept<S: Accepted>(&self, accept: impl AsyncFn() -> io::Result<S>) {
        loop {
            // The peer may be gone again, or descriptors short for a moment.
            let Ok(stream) = accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            let count = Count::new(&self.open);
            let excerpt = Arc::clone(&self.excerpt);
            let problems = Arc::clone(&self.problems);
            let shows = self.shows.clone();
            tokio::spawn(async move {
                if let Err(problem) = serve(stream, &excerpt, &shows).await {
                    let mut problems = problems.lock().unwrap_or_else(PoisonError::into_inner);
                    problems.push(format!("{problem:#}"));
                }
                drop(count);
            });
        }
    }
}

/// A connection to the host.
trait Accepted: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The same as a TCP connection, if it is one.
    fn tcp(&mut self) -> Option<&mut TcpStream>;
}

impl Accepted for TcpStream {
    fn tcp(&mut self) -> Option<&mut TcpStream> {
        Some(self)
    }
}

impl Accepted for UnixStream {
    fn tcp(&mut self) -> Option<&mut TcpStream> {
        None
    }
}

/// Counts a connection as long as it is open.
struct Count(Arc<watch::Sender<usize>>);

impl Count {
    fn new(open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(Arc::clone(open))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Does all jobs of a channel.
async fn serve(mut stream: impl Accepted, excerpt: &Excerpt, shows: &Shows) -> Result<()> {
    if let Some(tcp) = stream.tcp() {
        tcp.set_nodelay(true)?;
    }
    let mut first = [0];
    if stream.read(&mut first).await? == 0 {
        // Somebody looked whether a peer listens.
        return Ok(());
    }
    let mut link = first.chain(&mut stream);
    read_link(&mut link).await.context("link message")?;
    let mut host_end = HostEnd {
        stream,
        input: vec![0; READ],
    };
    while let Some(job) = host_end.next_job().await? {
        host_end
            .run(job, excerpt, shows)
            .await
            .with_context(|| format!("{job:?}"))?;
    }
    Ok(())
}

struct HostEnd<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: Accepted> HostEnd<S> {
    async fn next_job(&mut self) -> Result<Option<Job>> {
        let mut bytes = [0; job::LENGTH];
        // Clients end channels between jobs, in order or not.
        if self.stream.read_exact(&mut bytes).await.is_err() {
            return Ok(None);
        }
        Job::decode(bytes).map(Some)
    }

    async fn run(&mut self, job: Job, excerpt: &Excerpt, shows: &Shows) -> Result<()> {
        match job {
            Job::Downlink { write, total } => self.downlink(write as usize, total).await,
            Job::Uplink { total } => self.uplink(total).await,
            Job::Echo { total } => self.echo(total).await,
            Job::Replay { channel, from } => {
                excerpt.play(self, Direction::Downlink, channel, from).await
            }
            Job::Show { message, key } => {
                let tcp = self.stream.tcp().context("shows are given on TCP only")?;
                shows.run(tcp, message as usize, key).await
            }
        }
    }

    async fn downlink(&mut self, write: usize, total: u64) -> Result<()> {
        ensure!(
            (1..=block::LONGEST).contains(&write),
            "writes of {write} bytes"
        );
        let mut sent = 0;
        while sent < total {
            let length = usize::try_from(total - sent).map_or(write, |rest| rest.min(write));
            self.send(DOWNLINK.piece(sent, length)).await?;
            sent += length as u64;
        }
        Ok(())
    }

    async fn uplink(&mut self, total: u64) -> Result<()> {
        let mut received = 0;
        while received < total {
            let check = |bytes: &[u8]| {
                UPLINK.check(received, bytes)?;
                received += bytes.len() as u64;
                Ok(())
            };
            self.receive(check).await?;
        }
        ensure!(
            received == total,
            "{received} bytes came, {total} were sent"
        );
        self.send(&[1]).await
    }

    async fn echo(&mut self, total: u64) -> Result<()> {
        let mut sent = 0;
        while sent < total {
            let length = self.stream.read(&mut self.input).await?;
            ensure!(length > 0, "the channel ended within an echo");
            self.stream.write_all(&self.input[..length]).await?;
            sent += length as u64;
        }
        Ok(())
    }
}

impl<S: Accepted> End for HostEnd<S> {
    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("sending")
    }

    async fn receive(&mut self, mut consume: impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let length = self.stream.read(&mut self.input).await;
        let length = length.context("receiving")?;
        ensure!(length > 0, "the channel ended within a job");
        consume(&self.input[..length])?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use testkit::spice::ChannelType;

    use super::super::client::{Channel, Target, Tls};
    use super::*;

    #[tokio::test]
    async fn every_job_is_done_on_one_channel() {
        let excerpt = Excerpt::load().unwrap();
        let host = BenchHost::start(Arc::clone(&excerpt)).unwrap();
        let target = Target {
            addr: host.addr(),
            tls: None,
            opening: None,
        };
        let tls = Tls::new(false).unwrap();
        let mut channel = Channel::open(&target, &tls, ChannelType::Inputs)
            .await
            .unwrap();
        channel.downlink(1000, 1_000_001).await.unwrap();
        channel.uplink(64, 100_001).await.unwrap();
        channel.begin_echo(64, 3).await.unwrap();
        for index in 0..3 {
            channel.echo(64, index).await.unwrap();
        }
        let from = Duration::from_millis(3_500);
        channel
            .replay(&excerpt, ChannelType::Inputs, from)
            .await
            .unwrap();
        assert!(!channel.is_resumed());
        channel.close().await.unwrap();
        host.idle().await.unwrap();
        assert_eq!(host.take_problems(), [""; 0]);
    }

    #[tokio::test]
    async fn what_is_no_job_is_reported() {
        let host = BenchHost::start(Excerpt::load().unwrap()).unwrap();
        let mut stream = TcpStream::connect(host.addr()).await.unwrap();
        stream.write_all(&[b'x'; 64]).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        host.idle().await.unwrap();
        assert_eq!(host.take_problems().len(), 1);
    }
}
