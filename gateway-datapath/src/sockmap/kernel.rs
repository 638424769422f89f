//! What a kernel does not survive, known without doing it: trying could bring it down.

use anyhow::ensure;
use gateway_common::layout::{ANY_SEGMENT, SMALL_SEGMENT};
use tracing::debug;

use super::LoadError;
use super::type_info::Offsets;
use crate::kernel_release::{parse, running};

/// The oldest series that this was tried with.
const FIRST: (u32, u32) = (6, 1);
/// The first series whose `sk_skb_adjust_room` knows `AF_UNIX` sockets in all its releases (commit
/// 44d0469f79bd). Nothing but the version tells; earlier series that have taken the commit over
/// are not told apart.
const REPAIRED: (u32, u32) = (6, 12);

/// The first series that sends header and payload of a piece as one segment, however they lie
/// in memory (commit 76d727ae02b5).
const JOINS_PARTS: (u32, u32) = (6, 17);
/// Longest piece that is copied to make one segment of it on other kernels, in bytes.
const LINEAR: u64 = 16 * 1024;

/// The first series that is tried with kernel TLS on a client's socket.
///
/// When a process ends while one of its clients takes nothing, its socket loses the TLS context
/// while the kernel's worker is about to send to it. That brings 6.1 down each time
/// (`tls_sw_do_sendpage`), and no process can prevent it that is killed. 6.12, which has another
/// way there (`tls_sw_sendmsg_locked`), was not seen to end like that.
const TRIED_WITH_TLS: (u32, u32) = (6, 12);

/// Whether a client's socket in a map may get kernel TLS; the error says why not.
pub(crate) fn may_have_tls() -> anyhow::Result<()> {
    tls_for(&running())
}

fn tls_for(release: &str) -> anyhow::Result<()> {
    ensure!(
        series(release).is_some_and(|series| series >= TRIED_WITH_TLS),
        "a kernel before Linux 6.12 may not survive the end of a process whose client takes nothing"
    );
    Ok(())
}

/// How long a segment may be that is redirected on this kernel, see [`SEGMENT_LIMIT`].
///
/// [`SEGMENT_LIMIT`]: gateway_common::layout::SEGMENT_LIMIT
pub(super) fn segment_limit() -> Result<u64, LoadError> {
    limit_of(&running())
}

/// What `unix_host_verdict` has to know of this kernel; `None`: hosts on Unix sockets cannot be
/// moved.
///
/// What such a host sends cannot pass through userspace, so there must be no piece for which no
/// header can be made.
pub(super) fn unix_offsets(segment_limit: u64) -> Option<Offsets> {
    if segment_limit != ANY_SEGMENT {
        return None;
    }
    let offsets = Offsets::of_kernel();
    offsets
        .inspect_err(|error| debug!(%error, "hosts on Unix sockets are moved by relay only"))
        .ok()
}

fn limit_of(release: &str) -> Result<u64, LoadError> {
    match series(release) {
        Some(series) if series >= REPAIRED => Ok(ANY_SEGMENT),
        Some(series) if series >= FIRST => Ok(SMALL_SEGMENT),
        _ => Err(LoadError::OldKernel(release.to_owned())),
    }
}

/// How long a piece may be that is copied together on this kernel, see [`LINEAR_LIMIT`].
///
/// [`LINEAR_LIMIT`]: gateway_common::layout::LINEAR_LIMIT
pub(super) fn linear_limit() -> u64 {
    linear_limit_of(&running())
}

fn linear_limit_of(release: &str) -> u64 {
    match series(release) {
        Some(series) if series >= JOINS_PARTS => 0,
        _ => LINEAR,
    }
}

/// The first two numbers of a release.
fn series(release: &str) -> Option<(u32, u32)> {
    parse(release).map(|(major, minor, _)| (major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repaired_kernels_may_adjust_room() {
        for (release, limit) in [
            ("6.1.0-56-cloud-amd64", SMALL_SEGMENT),
            ("6.8.0-31-generic", SMALL_SEGMENT),
            ("6.12.117+deb12-cloud-amd64", ANY_SEGMENT),
            ("7.0-rc1", ANY_SEGMENT),
        ] {
            assert_eq!(limit_of(release).unwrap(), limit, "{release}");
        }
    }

    #[test]
    fn only_kernels_that_split_frames_copy_them_together() {
        for (release, limit) in [
            ("6.1.0-56-cloud-amd64", LINEAR),
            ("6.12.117+deb12-cloud-amd64", LINEAR),
            ("6.17.0", 0),
            ("7.3.4+deb13-cloud-amd64", 0),
        ] {
            assert_eq!(linear_limit_of(release), limit, "{release}");
        }
    }

    #[test]
    fn tls_is_for_kernels_that_survive_it() {
        assert!(tls_for("6.12.107+deb12-cloud-amd64").is_ok());
        assert!(tls_for("6.18.1").is_ok());
        assert!(tls_for("6.1.0-53-cloud-amd64").is_err());
        assert!(tls_for("next").is_err());
    }

    #[test]
    fn older_kernels_and_unknown_ones_are_refused() {
        for release in ["5.15.0", "6.0.9", "6", "", "next"] {
            let refused = limit_of(release);
            assert!(matches!(refused, Err(LoadError::OldKernel(_))), "{release}");
        }
    }
}
