//! What the process may do beyond what its user may (capabilities(7)).
//!
//! A gateway that root starts by hand or in a container could do everything, and needs next to
//! nothing of it. It gives up the rest for good before it reads a stranger's first byte.

use std::fs;

use anyhow::{Context, ensure};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::config::{Config, DataPath};
use crate::measured;

/// What a gateway with this configuration needs while it runs; with `take_over`, from the one that
/// runs already.
pub(crate) fn needed(config: &Config, take_over: bool) -> CapabilitySet {
    // Renewed keys and certificates may belong to another user, as those that are there now.
    let mut needed = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::DAC_READ_SEARCH;
    // The log may lie where another user writes, and so may the running gateway's sockets.
    if config.access_log.is_some() || take_over {
        needed |= CapabilitySet::DAC_OVERRIDE;
    }
    // Programs that somebody else has loaded can be used without any of these.
    let has_loaded = || gateway_datapath::sockmap::is_ready(&config.ebpf_dir);
    let paths = measured::data_paths(config);
    if paths.into_iter().any(DataPath::has_programs) && !has_loaded() {
        needed |= CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    }
    needed
}

/// What is of use to a process that finds out why a gateway with this configuration does not work:
/// it reads files and asks processes of other users, and tries data paths that are configured. With
/// more, a mere try could load modules into the kernel.
pub(crate) fn of_doctor(config: &Config) -> CapabilitySet {
    needed(config, true) | CapabilitySet::SYS_PTRACE
}

/// Gives up all but these, for this process and those that it starts; none are gained. Must be
/// called while the process has a single thread, as each has its own.
pub(crate) fn keep_only(needed: CapabilitySet) -> anyhow::Result<()> {
    // Where nothing tells, no thread was started yet.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    ensure!(threads == 1, "there are {threads} threads already");
    // Programs that are started may not gain what is given up, even where the bounding set stays.
    set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    leave_bounding_set(needed)?;
    let held = capabilities(None).context("capget")?;
    // The ambient set follows: it never has more than the permitted and inheritable ones.
    let kept = CapabilitySets {
        effective: held.effective & needed,
        permitted: held.permitted & needed,
        inheritable: held.inheritable & needed,
    };
    if kept != held {
        set_capabilities(None, kept).context("capset")?;
    }
    Ok(())
}

fn leave_bounding_set(needed: CapabilitySet) -> anyhow::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // Fails behind the last one that the kernel knows.
        let Ok(is_in) = capability_is_in_bounding_set(capability) else {
            break;
        };
        if is_in && !needed.contains(capability) {
            match remove_capability_from_bounding_set(capability) {
                // Without CAP_SETPCAP nobody may, and the set is of no use.
                Err(Errno::PERM) => break,
                removed => removed.context("prctl(PR_CAPBSET_DROP)")?,
            }
        }
    }
    Ok(())
}

/// The names of those that this thread has, as in `CAP_NET_BIND_SERVICE`.
pub(crate) fn held() -> Vec<String> {
    let permitted = capabilities(None).map_or(CapabilitySet::empty(), |held| held.permitted);
    let names = permitted.iter_names();
    names.map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_depends_on_the_data_path_and_on_what_is_written() {
        let least = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::DAC_READ_SEARCH;
        let bpf = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
        let mut config = Config {
            ebpf_dir: "/nowhere".into(),
            state_directory: "/nowhere".into(),
            ..Config::default()
        };
        for (path, more) in [
            (DataPath::Auto, CapabilitySet::empty()),
            (DataPath::Relay, CapabilitySet::empty()),
            (DataPath::Ktls, CapabilitySet::empty()),
            (DataPath::Sockmap, bpf),
            (DataPath::KtlsSockmap, bpf),
        ] {
            config.data_path = path;
            assert_eq!(needed(&config, false), least | more, "{path:?}");
        }
        let config = Config::default();
        let writes = least | CapabilitySet::DAC_OVERRIDE;
        assert_eq!(needed(&config, true), writes);
        let config = Config {
            access_log: Some("/var/log/x".into()),
            ..config
        };
        assert_eq!(needed(&config, false), writes);
    }

    #[test]
    fn a_process_with_threads_is_refused() {
        // Tests run on threads of their own.
        let error = keep_only(CapabilitySet::all()).unwrap_err().to_string();
        assert!(error.contains("threads already"), "{error}");
    }
}
