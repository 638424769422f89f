//! Runs one virtual machine and listens to it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::verdict::Verdict;

/// `oops=panic panic=-1`: a kernel that is in trouble ends the machine. `loglevel=5`: warnings
/// and worse are printed. The stall and lockup detectors are made patient, for without KVM a
/// busy host may stop a processor for many seconds.
const KERNEL_ARGUMENTS: &str = "console=ttyS0,115200 loglevel=5 oops=panic panic=-1 \
                                mitigations=off rcupdate.rcu_cpu_stall_timeout=120";
/// The clock is the processor's own, also where the kernel would not trust it.
const COUNTING_ARGUMENTS: &str = " tsc=reliable clocksource=tsc";
const MEMORY_MIB: &str = "3072";
const PROCESSORS: &str = "2";
/// 2^shift nanoseconds for an instruction. What the host does has no part in it (docs of QEMU:
/// "TCG Instruction Counting").
const ICOUNT: &str = "shift=1,sleep=off";
/// The same in nanoseconds.
pub(crate) const INSTRUCTION: f64 = 2.0;
/// Without the features by which the kernel copies with `rep movsb`, an instruction for each
/// byte to the translator.
const COUNTED_PROCESSOR: &str = "max,-erms,-fsrm";
/// How long QEMU may take to connect its serial ports.
const START_LIMIT: Duration = Duration::from_secs(30);
/// What booting may take besides the limit of the programs inside.
const BOOT_LIMIT: Duration = Duration::from_mins(1);
/// A kernel that runs with KVM has come to its init long before.
const KVM_SILENCE: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(20);

/// Who said a line.
#[derive(Clone, Copy)]
enum Speaker {
    Kernel,
    Init,
}

/// What carries out the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    /// QEMU's translator: always there, many times slower.
    Tcg,
    /// The same with one processor, whose clock counts its instructions.
    CountingTcg,
}

/// Runs virtual machines, with KVM until it shows that it does not work.
pub(crate) struct Qemu {
    accelerator: Accelerator,
}

/// How a virtual machine came to its end.
struct Run {
    verdict: Verdict,
    end: End,
}

enum End {
    /// By itself, with this outcome of QEMU.
    Exit(Result<()>),
    /// It said nothing in time.
    Silent,
    /// It did not end in time.
    Late,
}

impl Qemu {
    /// Chooses KVM when this user may use it.
    pub(crate) fn new() -> Self {
        let kvm = File::options().read(true).write(true).open("/dev/kvm");
        let accelerator = match kvm {
            Ok(_) => Accelerator::Kvm,
            Err(_) => Accelerator::Tcg,
        };
        Self { accelerator }
    }

    /// Machines with one processor, whose clock counts its instructions.
    pub(crate) fn counting() -> Self {
        Self {
            accelerator: Accelerator::CountingTcg,
        }
    }

    /// What is used now, for a person.
    pub(crate) fn accelerator(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "no KVM, so slow",
            Accelerator::CountingTcg => "instructions counted",
        }
    }

    /// Boots `image` with `initramfs`; prints what is said after `prefix`, and gives it back with
    /// whether all went well. The programs inside have `limit`, after which the machine ends by
    /// itself.
    pub(crate) fn run(
        &mut self,
        image: &Path,
        initramfs: &[u8],
        prefix: &str,
        limit: Duration,
    ) -> Result<(Verdict, Result<()>)> {
        let limit = limit + BOOT_LIMIT;
        let mut run = attempt(self.accelerator, image, initramfs, prefix, limit)?;
        // Where a machine is itself a virtual one, KVM may be there and still not work.
        let is_silent = run.verdict.is_silent() && !matches!(run.end, End::Late);
        if self.accelerator == Accelerator::Kvm && is_silent {
            println!("{prefix} | KVM does not work here; again without it");
            self.accelerator = Accelerator::Tcg;
            run = attempt(self.accelerator, image, initramfs, prefix, limit)?;
        }
        let outcome = match run.end {
            End::Exit(outcome) => outcome.and_then(|()| run.verdict.judge(true, limit)),
            End::Silent | End::Late => run.verdict.judge(false, limit),
        };
        Ok((run.verdict, outcome))
    }
}

fn attempt(
    accelerator: Accelerator,
    image: &Path,
    initramfs: &[u8],
    prefix: &str,
    limit: Duration,
) -> Result<Run> {
    let mut vm = Vm::start(accelerator, image, initramfs)?;
    let began = Instant::now();
    let (sender, lines) = mpsc::channel();
    listen(vm.kernel.try_clone()?, Speaker::Kernel, sender.clone());
    listen(vm.init.try_clone()?, Speaker::Init, sender);
    let mut verdict = Verdict::default();
    let end = loop {
        let is_silent = accelerator == Accelerator::Kvm && verdict.is_silent();
        let most = if is_silent { KVM_SILENCE } else { limit };
        match lines.recv_timeout((began + most).saturating_duration_since(Instant::now())) {
            Ok((Speaker::Kernel, line)) => {
                println!("{prefix} kernel | {line}");
                verdict.kernel_said(&line);
            }
            Ok((Speaker::Init, line)) => {
                println!("{prefix} | {line}");
                verdict.init_said(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break End::Exit(vm.wait()),
            Err(RecvTimeoutError::Timeout) if is_silent => break End::Silent,
            Err(RecvTimeoutError::Timeout) => break End::Late,
        }
    };
    Ok(Run { verdict, end })
}

/// Sends each line until the machine ends.
fn listen(port: UnixStream, speaker: Speaker, sender: Sender<(Speaker, String)>) {
    thread::spawn(move || {
        let mut port = BufReader::new(port);
        let mut bytes = Vec::new();
        while matches!(port.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if sender.send((speaker, line)).is_err() {
                return;
            }
        }
    });
}

/// A running virtual machine; ends when dropped.
struct Vm {
    child: Child,
    /// The first serial port.
    kernel: UnixStream,
    /// The second one.
    init: UnixStream,
    messages: PathBuf,
    _folder: tempfile::TempDir,
}

impl Vm {
    fn start(accelerator: Accelerator, image: &Path, initramfs: &[u8]) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for QEMU")?;
        let place = |name: &str| folder.path().join(name);
        let archive = place("initramfs");
        fs::write(&archive, initramfs).context("writing the initramfs")?;
        let kernel = UnixListener::bind(place("kernel")).context("a socket for the kernel")?;
        let init = UnixListener::bind(place("init")).context("a socket for the init")?;
        let messages = place("messages");
        let file = File::create(&messages).context("a file for messages")?;
        let mut child = command(accelerator, image, &archive, folder.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("starting qemu-system-x86_64")?;
        let connected =
            accept(&kernel, &mut child).and_then(|kernel| Ok((kernel, accept(&init, &mut child)?)));
        let (kernel, init) = match connected {
            Ok(ports) => ports,
            Err(problem) => {
                child.kill()?;
                child.wait()?;
                let said = fs::read_to_string(&messages).unwrap_or_default();
                return Err(problem.context(said.trim().to_owned()));
            }
        };
        Ok(Self {
            child,
            kernel,
            init,
            messages,
            _folder: folder,
        })
    }

    /// Waits for its end, which its closed serial ports have announced.
    fn wait(&mut self) -> Result<()> {
        let status = self.child.wait().context("waiting for QEMU")?;
        ensure!(status.success(), "QEMU: {status}: {}", self.messages());
        Ok(())
    }

    /// What QEMU said.
    fn messages(&self) -> String {
        let mut text = String::new();
        let read = File::open(&self.messages).and_then(|mut file| file.read_to_string(&mut text));
        match read {
            Ok(_) => text.trim().to_owned(),
            Err(problem) => problem.to_string(),
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(accelerator: Accelerator, image: &Path, archive: &Path, folder: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let mut kernel_arguments = KERNEL_ARGUMENTS.to_owned();
    match accelerator {
        Accelerator::Kvm | Accelerator::Tcg => {
            let name = if accelerator == Accelerator::Kvm {
                "kvm"
            } else {
                "tcg"
            };
            command.args(["-accel", name, "-cpu", "max", "-smp", PROCESSORS]);
        }
        Accelerator::CountingTcg => {
            command
                .args(["-accel", "tcg,thread=single", "-icount", ICOUNT])
                .args(["-cpu", COUNTED_PROCESSOR, "-smp", "1", "-rtc", "clock=vm"]);
            kernel_arguments.push_str(COUNTING_ARGUMENTS);
        }
    }
    command
        .args(["-m", MEMORY_MIB])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-nic", "none"]);
    for name in ["kernel", "init"] {
        let path = folder.join(name);
        command
            .arg("-chardev")
            .arg(format!("socket,id={name},path={}", path.display()))
            .args(["-serial", &format!("chardev:{name}")]);
    }
    command
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", &kernel_arguments]);
    command
}

/// Waits until QEMU connects, or has ended.
fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(problem) if problem.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(problem) => return Err(problem).context("a serial port"),
        }
        if let Some(status) = child.try_wait()? {
            bail!("QEMU ended at once: {status}");
        }
        ensure!(
            Instant::now() < deadline,
            "QEMU did not start in {START_LIMIT:?}"
        );
        thread::sleep(POLL);
    }
}
