//! Memory that goes back to the system.
//!
//! The C library's allocator keeps what is freed for the next who asks: of memory between blocks
//! that are in use nothing goes back by itself, so that a wave of connections that has passed
//! would leave the process as large as it was at its height.

use std::sync::Arc;
use std::time::Duration;

use gateway_datapath::os::give_back_memory;
use tracing::debug;

use crate::background::{self, NoThreads};
use crate::limits::ConnectionLimits;

/// How often it is asked whether so many connections were closed that giving back is worthwhile.
const INTERVAL: Duration = Duration::from_secs(5);
/// Connections that were closed meanwhile; fewer are left to those that come next.
const WAVE: u64 = 200;

/// Starts a thread that gives memory back after connections were closed in numbers. It is there
/// for as long as the process: threads may be short just when many clients come.
pub(crate) fn give_back_after_waves(connections: Arc<ConnectionLimits>) -> Result<(), NoThreads> {
    let watch = |connections: &mut Arc<ConnectionLimits>| {
        let mut seen = connections.closed();
        loop {
            std::thread::sleep(INTERVAL);
            let closed = connections.closed();
            if closed - seen >= WAVE {
                seen = closed;
                let gave_back = give_back_memory();
                debug!(gave_back, "memory of connections that were closed");
            }
        }
    };
    background::thread("memory", connections, watch)?;
    Ok(())
}
