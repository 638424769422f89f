//! The command `load-ebpf`: what needs capabilities of the data path `sockmap` is done by root,
//! before the gateway starts without any.

use anyhow::ensure;
use gateway_datapath::sockmap::{self, Owner, Provided};
use nix::unistd::{Uid, User};

use crate::config::{Config, DataPath};
use crate::measured;
use crate::output::print_line;

/// Loads the programs for a gateway of this configuration, which runs as this user, and tells what
/// was done.
pub(crate) fn run(config: &Config, user: &str) -> anyhow::Result<()> {
    let paths = measured::data_paths(config);
    if !paths.into_iter().any(DataPath::has_programs) {
        let path = config.data_path.name();
        return print_line(&format!("DataPath {path} needs no eBPF programs"));
    }
    let owner = owner(user)?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "load-ebpf must be run as root"
    );
    let directory = &config.ebpf_dir;
    let done = sockmap::provide(directory, config.max_connections, owner)?;
    print_line(&format!("{}: {}", directory.display(), told(done)))
}

fn told(done: Provided) -> String {
    let Provided {
        made,
        free,
        used,
        removed,
    } = done;
    format!("sets of eBPF programs: {made} new, {free} free, {used} in use, {removed} removed")
}

/// The user of this name or number, with its group. A number needs no entry among the users.
fn owner(user: &str) -> anyhow::Result<Owner> {
    let number = user.parse::<u32>().ok();
    let found = match number {
        Some(number) => User::from_uid(Uid::from_raw(number)),
        None => User::from_name(user),
    };
    match (found.ok().flatten(), number) {
        (Some(found), _) => Ok(Owner {
            user: found.uid.as_raw(),
            group: found.gid.as_raw(),
        }),
        (None, Some(number)) => Ok(Owner {
            user: number,
            group: number,
        }),
        (None, None) => Err(anyhow::anyhow!(
            "there is no user {user}: name the gateway's with --user"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_name_or_number() {
        for root in ["root", "0"] {
            let owner = owner(root).unwrap();
            assert_eq!((owner.user, owner.group), (0, 0), "{root}");
        }
        // No system gives out numbers that high.
        let nobody = owner("4000000000").unwrap();
        assert_eq!((nobody.user, nobody.group), (4_000_000_000, 4_000_000_000));
        let error = owner("no-such-user-here").unwrap_err().to_string();
        assert!(error.contains("--user"), "{error}");
    }

    #[test]
    fn where_no_programs_are_needed_none_are_loaded() {
        let config = Config {
            data_path: DataPath::Relay,
            // Would be refused.
            ebpf_dir: "/proc/self/fd".into(),
            ..Config::default()
        };
        run(&config, "no-such-user-here").unwrap();
    }
}
