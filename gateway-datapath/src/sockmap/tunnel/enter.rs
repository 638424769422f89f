//! The way of a tunnel's legs into the maps.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;

use gateway_common::layout;
use rustix::net::sockopt;
use tokio::io::Interest;

use super::flow::Flow;
use super::{Tunnel, set_unsent};
use crate::sockmap::link::{Legs, LinkError, set_send_buffer};
use crate::sockmap::maps::{Direction, EnterError};
use crate::sockmap::registered::register;
use crate::sockmap::{Sockmap, first_queue};
use crate::{bounds, tcp_info};

/// Bytes of a leg that may be written and not acknowledged.
const MOST_UNACKNOWLEDGED: usize = layout::MOST_UNACKNOWLEDGED as usize;

/// Makes both legs known to the maps, where no program runs on them yet; gives them back as they
/// were when it cannot.
pub(super) fn enter(
    sockmap: &Arc<Sockmap>,
    client: tokio::net::TcpStream,
    host: tokio::net::TcpStream,
) -> Result<Tunnel, (LinkError, io::Result<Legs>)> {
    let (client, host) = match (client.into_std(), host.into_std()) {
        (Ok(client), Ok(host)) => (client, host),
        (Err(error), _) | (_, Err(error)) => {
            let lost = io::Error::new(error.kind(), error.to_string());
            return Err((error.into(), Err(lost)));
        }
    };
    let follows = bounds::is_near(&host);
    let flows = match insert(sockmap, &client, &host, follows) {
        Ok(flows) => flows,
        Err(refusal) => return Err((refusal, back(client, host))),
    };
    let leave = |client: &TcpStream, host: &TcpStream| {
        for (flow, leg) in flows.iter().zip([client, host]) {
            sockmap.watch.remove_leg(flow.direction.cookie, leg);
            sockmap.maps.remove_direction(flow.direction);
        }
    };
    let room = room(sockmap.most_queued);
    if let Err(error) = prepare(&client, room).and_then(|()| prepare(&host, room)) {
        leave(&client, &host);
        return Err((error.into(), back(client, host)));
    }
    let client = match register(client, Interest::WRITABLE) {
        Ok(client) => client,
        Err((client, error)) => {
            leave(&client, &host);
            return Err((error.into(), back(client, host)));
        }
    };
    let host = match register(host, Interest::WRITABLE) {
        Ok(host) => host,
        Err((host, error)) => {
            leave(client.get_ref(), &host);
            return Err((error.into(), back(client.into_inner(), host)));
        }
    };
    Ok(Tunnel {
        sockmap: Arc::clone(sockmap),
        legs: [client, host],
        flows,
        follows,
    })
}

/// How many bytes a leg's send buffer must have room for, where so many may be unsent.
pub(in crate::sockmap) fn room(most_queued: usize) -> usize {
    MOST_UNACKNOWLEDGED + most_queued
}

/// Gives a leg's send buffer room for so many bytes that the kernel redirects, and for what it needs
/// itself, so that its worker is not held up: the kernel takes twice the size.
fn prepare(leg: &TcpStream, room: usize) -> io::Result<()> {
    set_send_buffer(leg, room)?;
    // A bound for all connections (`net.ipv4.tcp_notsent_lowat`) would hold the worker up.
    set_unsent(leg, None)
}

/// Places in the maps, given back when dropped.
struct Places<'a> {
    sockmap: &'a Sockmap,
    taken: Vec<Direction>,
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        for direction in &self.taken {
            self.sockmap.maps.remove_direction(*direction);
        }
    }
}

fn insert(
    sockmap: &Sockmap,
    client: &TcpStream,
    host: &TcpStream,
    follows: bool,
) -> Result<[Flow; 2], LinkError> {
    if let Some(reason) = sockmap.no_tunnels.get() {
        return Err(LinkError::Tunnel(reason.clone()));
    }
    let (to_client, to_host) = (
        tcp_info::bytes_written(client)?,
        tcp_info::bytes_written(host)?,
    );
    let mut places = Places {
        sockmap,
        taken: Vec::with_capacity(2),
    };
    let mut take = |leg: &TcpStream| -> Result<Direction, LinkError> {
        let cookie = sockopt::socket_cookie(leg).map_err(io::Error::from)?;
        let slot = sockmap.maps.reserve().map_err(|error| refused(&error))?;
        let direction = Direction { cookie, slot };
        places.taken.push(direction);
        Ok(direction)
    };
    let (uplink, downlink) = (take(client)?, take(host)?);
    let directions = [(uplink, host.as_fd()), (downlink, client.as_fd())];
    let inserted = sockmap.maps.insert_tunnel(directions);
    inserted.map_err(|error| refused(&error))?;
    let from_client = sockmap.watch.add_leg(uplink.cookie, client)?;
    let from_host = match sockmap.watch.add_leg(downlink.cookie, host) {
        Ok(signal) => signal,
        Err(error) => {
            sockmap.watch.remove_leg(uplink.cookie, client);
            return Err(error.into());
        }
    };
    places.taken.clear();
    Ok([
        Flow::new(uplink, from_client, to_host, sockmap.most_queued),
        Flow::new(
            downlink,
            from_host,
            to_client,
            first_queue(sockmap, follows),
        ),
    ])
}

fn refused(error: &EnterError) -> LinkError {
    LinkError::Maps(error.to_string())
}

fn back(client: TcpStream, host: TcpStream) -> io::Result<Legs> {
    Ok((client.try_into()?, host.try_into()?))
}
