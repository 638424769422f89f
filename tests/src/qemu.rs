//! QEMU with its Spice server: a virtual machine that paints one colourful picture, and another one
//! for each key.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::fs;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};

use crate::picture::Picture;
use crate::{net, screenshot};

/// How long QEMU may take to listen, and the guest to paint, on a busy machine without KVM.
const LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
/// Another process may take the port between its choice and QEMU's start.
const ATTEMPTS: usize = 5;
/// The guest's picture has more; any text screen before it has 2.
const COLOURS_OF_TEXT: usize = 16;

/// QEMU's folder holds what it and the guest said in these files.
const MESSAGES: &str = "messages";
const PAINTED: &str = "painted";

/// What the guest boots: graphics of 320 x 200 in 256 colours, every pixel its x XOR its y. Each
/// key paints it again, XOR the key's character.
///
/// It has no text cursor, which would blink, and is too colourful to be confused with another.
const BOOT_CODE: &[u8] = &[
    0xb8, 0x13, 0x00, // mov ax, 13h     320 x 200, 256 colours
    0xcd, 0x10, //       int 10h
    0x68, 0x00, 0xa0, // push a000h      video memory
    0x07, //             pop es
    0x31, 0xc9, //       xor cx, cx
    0x31, 0xff, //       xor di, di      <- paint
    0x89, 0xf8, //       mov ax, di      <- next pixel
    0x31, 0xd2, //       xor dx, dx
    0xbb, 0x40, 0x01, // mov bx, 320
    0xf7, 0xf3, //       div bx          ax = y, dx = x
    0x30, 0xd0, //       xor al, dl
    0x30, 0xc8, //       xor al, cl
    0xaa, //             stosb
    0x81, 0xff, 0x00, 0xfa, // cmp di, 64000
    0x75, 0xec, //       jne next pixel
    0xb0, 0x50, //       mov al, 'P'     painted: say so on the debug port
    0xe6, 0xe9, //       out e9h, al
    0x31, 0xc0, //       xor ax, ax
    0xcd, 0x16, //       int 16h         wait for a key
    0x88, 0xc1, //       mov cl, al
    0xeb, 0xde, //       jmp paint
];

/// Where a Spice server listens.
#[derive(Clone, Debug)]
enum Place {
    Port(SocketAddr),
    /// With TLS on another port, by the files in a folder.
    Tls(SocketAddr, u16, PathBuf),
    Socket(PathBuf),
}

/// A running QEMU with a Spice server on a port or socket of its own; ends when dropped.
pub struct SpiceVm {
    place: Place,
    password: Option<String>,
    folder: TempDir,
    child: Child,
}

impl SpiceVm {
    /// Starts one, behind `password` if there is one, and waits until it listens.
    ///
    /// Fails with what QEMU said when it ends or does not listen in a minute.
    pub async fn start(password: Option<&str>) -> Result<Self> {
        let mut problem = None;
        for _ in 0..ATTEMPTS {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, net::free_port()?));
            let folder = tempfile::tempdir().context("a folder for QEMU")?;
            match Self::start_once(folder, Place::Port(address), password).await {
                Ok(vm) => return Ok(vm),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.context("no attempt was made")?)
    }

    /// The same with a TLS port beside, whose certificate is `server-cert.pem` of a folder with the
    /// files that QEMU wants.
    pub async fn start_with_tls(password: Option<&str>, files: &Path) -> Result<Self> {
        let mut problem = None;
        for _ in 0..ATTEMPTS {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, net::free_port()?));
            // One that nobody listens on now, and that is not given twice.
            let holder = std::net::TcpListener::bind(address)?;
            let tls = net::free_port()?;
            drop(holder);
            let folder = tempfile::tempdir().context("a folder for QEMU")?;
            let place = Place::Tls(address, tls, files.to_owned());
            match Self::start_once(folder, place, password).await {
                Ok(vm) => return Ok(vm),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.context("no attempt was made")?)
    }

    /// The TLS port, if it has one.
    pub fn tls_port(&self) -> Option<u16> {
        match &self.place {
            Place::Tls(_, port, _) => Some(*port),
            Place::Port(_) | Place::Socket(_) => None,
        }
    }

    /// The same with a Unix socket.
    pub async fn start_on_socket(password: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for QEMU")?;
        let socket = folder.path().join("spice.sock");
        Self::start_once(folder, Place::Socket(socket), password).await
    }

    async fn start_once(folder: TempDir, place: Place, password: Option<&str>) -> Result<Self> {
        let child = launch(folder.path(), &place, password).await?;
        let mut vm = Self {
            place,
            password: password.map(str::to_owned),
            folder,
            child,
        };
        vm.await_listening().await?;
        Ok(vm)
    }

    /// Where the Spice server listens, on 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If it listens on a socket.
    pub fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Port(address) | Place::Tls(address, ..) => *address,
            Place::Socket(path) => panic!("it listens at {}", path.display()),
        }
    }

    /// Where the Spice server listens that was started on a socket.
    pub fn socket(&self) -> Option<&Path> {
        match &self.place {
            Place::Port(_) | Place::Tls(..) => None,
            Place::Socket(path) => Some(path),
        }
    }

    /// What the guest shows once it has painted, fetched from QEMU without anything in between.
    ///
    /// Every later picture is equal to it. Fetching ends the desktop session of any other client.
    pub async fn picture(&self) -> Result<Picture> {
        let deadline = Instant::now() + LIMIT;
        self.await_painted(deadline).await?;
        let mut last = None;
        while Instant::now() < deadline {
            let picture = match &self.place {
                Place::Port(address) | Place::Tls(address, ..) => {
                    screenshot::take(*address, self.password.as_deref()).await?
                }
                Place::Socket(path) => {
                    screenshot::take_at_socket(path, self.password.as_deref()).await?
                }
            };
            if picture.colours() > COLOURS_OF_TEXT && last.as_ref() == Some(&picture) {
                return Ok(picture);
            }
            last = Some(picture);
        }
        bail!("the guest's picture did not settle in {LIMIT:?}: {last:?}")
    }

    async fn await_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("QEMU: {status}: {}", self.said().await);
            }
            let connected = timeout_at(deadline, async {
                match &self.place {
                    Place::Port(address) | Place::Tls(address, ..) => {
                        TcpStream::connect(address).await.map(drop)
                    }
                    Place::Socket(path) => UnixStream::connect(path).await.map(drop),
                }
            });
            if let Ok(Ok(())) = connected.await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "QEMU does not listen after {LIMIT:?}: {}",
                    self.said().await
                );
            }
            sleep(POLL).await;
        }
    }

    async fn await_painted(&self, deadline: Instant) -> Result<()> {
        let marker = self.folder.path().join(PAINTED);
        while fs::metadata(&marker).await.map_or(0, |file| file.len()) == 0 {
            if Instant::now() >= deadline {
                bail!(
                    "the guest painted nothing in {LIMIT:?}: {}",
                    self.said().await
                );
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join(MESSAGES))
            .await
            .unwrap_or_default()
    }
}

async fn launch(folder: &Path, place: &Place, password: Option<&str>) -> Result<Child> {
    let disk = folder.join("disk");
    fs::write(&disk, boot_sector())
        .await
        .context("writing the guest's disk")?;
    let messages = std::fs::File::create(folder.join(MESSAGES)).context("a file for messages")?;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-accel", "tcg", "-m", "128", "-display", "none", "-vga", "qxl", "-nic", "none",
        ])
        .args([
            "-drive",
            &format!("file={},format=raw,if=ide", disk.display()),
        ])
        .args([
            "-chardev",
            &format!("file,id=painted,path={}", folder.join(PAINTED).display()),
        ])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=painted"]);
    let spice = match place {
        Place::Port(address) => format!("port={},addr={}", address.port(), address.ip()),
        Place::Tls(address, tls, files) => format!(
            "port={},addr={},tls-port={tls},x509-dir={}",
            address.port(),
            address.ip(),
            files.display()
        ),
        Place::Socket(path) => format!("unix=on,addr={}", path.display()),
    };
    match password {
        // In a file of its own it stays out of the process list.
        Some(password) => {
            let file = folder.join("password");
            fs::write(&file, password)
                .await
                .context("writing the Spice password")?;
            command
                .args(["-object", &format!("secret,id=s0,file={}", file.display())])
                .args(["-spice", &format!("{spice},password-secret=s0")]);
        }
        None => {
            command.args(["-spice", &format!("{spice},disable-ticketing=on")]);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(messages.try_clone()?)
        .stderr(messages)
        .kill_on_drop(true)
        .spawn()
        .context("starting qemu-system-x86_64")
}

fn boot_sector() -> [u8; 512] {
    const SIGNATURE: [u8; 2] = [0x55, 0xaa];
    let mut sector = [0; 512];
    sector[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
    sector[510..].copy_from_slice(&SIGNATURE);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::{self, Package};

    #[tokio::test]
    async fn the_picture_stays() {
        packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]).unwrap();
        let vm = SpiceVm::start(Some("a password")).await.unwrap();
        let first = vm.picture().await.unwrap();
        assert_eq!(first.differing_pixels(&vm.picture().await.unwrap()), 0);
    }

    #[tokio::test]
    async fn a_wrong_password_gets_no_picture() {
        packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]).unwrap();
        let vm = SpiceVm::start(Some("right")).await.unwrap();
        assert!(screenshot::take(vm.address(), Some("wrong")).await.is_err());
    }
}
