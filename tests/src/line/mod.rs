//! A line as people have them, between two network namespaces: it delays packets, sends them at
//! its rate, loses some, and now and then is dead.
//!
//! Its ends are TUN devices, so it works on any kernel that has those, in containers too. Rate
//! and queue count IP packets; what the layers below add is left out.

mod carrier;
mod course;
mod priority;
mod quality;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

pub use course::{LATE, Stats};
pub use quality::{JITTER_PERIOD, LEAST_QUEUE, LONGEST_ROW, Quality};

use crate::namespace::Namespace;
use crate::tun::open_device;
use carrier::Carrier;

/// The longest packet of an Ethernet, in bytes.
pub const MTU: u16 = 1500;

/// Where an end of a line is.
#[derive(Clone, Debug)]
pub struct End {
    /// The namespace.
    pub namespace: Namespace,
    /// The device that is made there.
    pub device: &'static str,
    /// Its address; both ends are in one network of 256.
    pub address: Ipv4Addr,
}

/// A direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From its first end to the second.
    There = 0,
    /// From its second end to the first.
    Back = 1,
}

/// An emulated line; it is gone with this, its devices too.
#[derive(Debug)]
pub struct Line {
    carrier: Carrier,
}

impl Line {
    /// Connects two ends by a line that is equally good in both directions; `mtu` is the length
    /// of the longest packet, in bytes. `seed` decides which packets are lost, doubled and held
    /// up.
    pub fn open(first: &End, second: &End, quality: Quality, mtu: u16, seed: u64) -> Result<Self> {
        let open = |end: &End| {
            let device = || open_device(end.device, end.address, mtu);
            end.namespace.enter(device)?
        };
        let devices = [open(first)?, open(second)?];
        Ok(Self {
            carrier: Carrier::start(devices, quality, seed)?,
        })
    }

    /// Changes both directions, from the next packet on.
    pub fn set(&self, quality: Quality) {
        self.set_direction(Direction::There, quality);
        self.set_direction(Direction::Back, quality);
    }

    /// Changes one direction, from the next packet on.
    pub fn set_direction(&self, direction: Direction, quality: Quality) {
        self.carrier.change(|courses| {
            courses[direction as usize].quality = quality;
        });
    }

    /// Lets nothing through any more, as when a cable is pulled: nobody is told.
    pub fn cut(&self) {
        self.set_dead(true);
    }

    /// Lets packets through again.
    pub fn mend(&self) {
        self.set_dead(false);
    }

    /// Cuts the line for this long.
    pub async fn interrupt(&self, time: Duration) {
        self.cut();
        tokio::time::sleep(time).await;
        self.mend();
    }

    /// What became of the packets of this direction so far.
    pub fn stats(&self, direction: Direction) -> Stats {
        self.carrier
            .change(|courses| courses[direction as usize].stats)
    }

    fn set_dead(&self, is_dead: bool) {
        self.carrier.change(|courses| {
            for course in courses {
                course.is_dead = is_dead;
            }
        });
    }
}
