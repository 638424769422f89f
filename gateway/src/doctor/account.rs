//! The user as whom the gateway runs, and what that user may do with files.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The user of the package's unit.
const USUAL: &str = "flexvdi-gateway";
/// Where the kernel keeps an access control list (acl(5)).
const ACL: &str = "system.posix_acl_access";

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    /// Its own group first.
    pub(super) groups: Vec<u32>,
    /// It may read everything (`CAP_DAC_READ_SEARCH`).
    pub(super) reads_all: bool,
}

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To read it.
    Read,
    /// To write to it; in a folder, to make files there.
    Write,
    /// To reach what is in a folder.
    Enter,
}

/// What keeps a user from a file: the file itself, or a folder on the way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    path: PathBuf,
    mode: u32,
    owner: String,
    group: String,
    wanted: Access,
    is_folder: bool,
}

/// Nobody has this name or number.
#[derive(Debug, thiserror::Error)]
#[error("there is no user {0:?} on this machine")]
pub(crate) struct NoSuchUser(String);

impl Account {
    /// The one of this name or number.
    pub(super) fn named(name: &str) -> Result<Self, NoSuchUser> {
        let by_name = User::from_name(name).ok().flatten();
        match (by_name, name.parse()) {
            (Some(user), _) => Ok(Self::of_user(&user)),
            (None, Ok(uid)) => Ok(Self::numbered(uid)),
            (None, Err(_)) => Err(NoSuchUser(name.to_owned())),
        }
    }

    /// The one of this number, which need have no name.
    pub(super) fn numbered(uid: u32) -> Self {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Self::of_user(&user),
            _ => Self {
                name: uid.to_string(),
                uid,
                groups: vec![uid],
                reads_all: uid == 0,
            },
        }
    }

    /// That of the packages, or else of this process.
    pub(super) fn usual() -> Self {
        Self::named(USUAL).unwrap_or_else(|_| Self::own())
    }

    /// That of this process.
    pub(super) fn own() -> Self {
        Self::numbered(rustix::process::geteuid().as_raw())
    }

    fn of_user(user: &User) -> Self {
        let name = CString::new(user.name.as_str()).unwrap_or_default();
        let groups = getgrouplist(&name, user.gid).unwrap_or_default();
        let others = groups.into_iter().filter(|group| *group != user.gid);
        Self {
            name: user.name.clone(),
            uid: user.uid.as_raw(),
            groups: [user.gid]
                .into_iter()
                .chain(others)
                .map(Gid::as_raw)
                .collect(),
            reads_all: user.uid.is_root(),
        }
    }

    /// The name of its own group.
    pub(super) fn group(&self) -> String {
        self.groups
            .first()
            .map_or_else(String::new, |group| group_name(*group))
    }

    /// What keeps it from this; `None`: nothing, as far as modes tell. Files with an access control
    /// list are not judged. Fails where this process may not look, or there is nothing.
    pub(super) fn obstacle(&self, path: &Path, wanted: Access) -> io::Result<Option<Obstacle>> {
        let named = std::path::absolute(path)?;
        let real = fs::canonicalize(&named)?;
        if self.uid == 0 {
            return Ok(None);
        }
        for end in [&named, &real] {
            for folder in end.ancestors().skip(1) {
                let found = self.refused(folder, Access::Enter)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        self.refused(&real, wanted)
    }

    fn refused(&self, path: &Path, wanted: Access) -> io::Result<Option<Obstacle>> {
        let metadata = fs::metadata(path)?;
        if self.has(&metadata, wanted) || has_acl(path) {
            return Ok(None);
        }
        Ok(Some(Obstacle {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
            owner: user_name(metadata.uid()),
            group: group_name(metadata.gid()),
            wanted,
            is_folder: metadata.is_dir(),
        }))
    }

    fn has(&self, metadata: &Metadata, wanted: Access) -> bool {
        if self.reads_all && wanted != Access::Write {
            return true;
        }
        let bit = match wanted {
            Access::Read => 4,
            Access::Write => 2,
            Access::Enter => 1,
        };
        let shift = if metadata.uid() == self.uid {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        metadata.mode() >> shift & bit != 0
    }
}

impl Obstacle {
    /// A command that removes it.
    pub(super) fn remedy(&self, account: &Account) -> String {
        let path = self.path.display();
        match (self.wanted, self.is_folder) {
            (Access::Enter, _) => format!(
                "chmod o+x {path}, or let this user alone in: setfacl -m u:{}:x {path}",
                account.name
            ),
            (Access::Read, _) => {
                let group = account.group();
                let bits = if self.is_folder { "rx" } else { "r" };
                format!("chgrp {group} {path} && chmod g+{bits} {path}")
            }
            (Access::Write, _) => format!("chown {} {path}", account.name),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode, owner, group, ..
        } = self;
        let path = self.path.display();
        write!(
            f,
            "{path} has mode {mode:03o}, owner {owner}, group {group}"
        )
    }
}

/// The name of a user, or the number of one who has none.
pub(super) fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

fn has_acl(path: &Path) -> bool {
    let mut nothing: [u8; 0] = [];
    rustix::fs::getxattr(path, ACL, &mut nothing[..]).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stranger to every file of the test.
    fn stranger(groups: Vec<u32>) -> Account {
        Account {
            name: "stranger".to_owned(),
            uid: 54_321,
            groups,
            reads_all: false,
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn modes_of_a_file_and_of_the_folders_above_it_count() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "").unwrap();
        let stranger = stranger(vec![54_321]);
        let told = |wanted| {
            let obstacle = stranger.obstacle(&file, wanted).unwrap();
            obstacle.map(|obstacle| obstacle.path)
        };
        set_mode(folder.path(), 0o755);
        for (mode, access, may) in [
            (0o644, Access::Read, true),
            (0o640, Access::Read, false),
            (0o644, Access::Write, false),
            (0o646, Access::Write, true),
        ] {
            set_mode(&file, mode);
            assert_eq!(told(access).is_none(), may, "{mode:o} {access:?}");
        }
        set_mode(folder.path(), 0o700);
        assert_eq!(told(Access::Read).unwrap(), folder.path());
    }

    #[test]
    fn a_group_goes_before_others_and_an_owner_before_both() {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o755);
        let file = folder.path().join("key");
        fs::write(&file, "").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let member = stranger(vec![54_321, metadata.gid()]);
        set_mode(&file, 0o604);
        assert!(member.obstacle(&file, Access::Read).unwrap().is_some());
        set_mode(&file, 0o640);
        assert!(member.obstacle(&file, Access::Read).unwrap().is_none());
        let owner = Account {
            uid: metadata.uid().max(1),
            ..member
        };
        set_mode(&file, 0o044);
        // Root, whose file this may be, is never refused.
        if metadata.uid() != 0 {
            assert!(owner.obstacle(&file, Access::Read).unwrap().is_some());
        }
    }

    #[test]
    fn who_reads_all_needs_no_mode() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o600);
        set_mode(folder.path(), 0o700);
        let reader = Account {
            reads_all: true,
            ..stranger(vec![])
        };
        assert!(reader.obstacle(&file, Access::Read).unwrap().is_none());
        assert!(reader.obstacle(&file, Access::Write).unwrap().is_some());
        let root = Account::numbered(0);
        assert!(root.obstacle(&file, Access::Write).unwrap().is_none());
        assert!(
            root.obstacle(&folder.path().join("x"), Access::Read)
                .is_err()
        );
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(Account::named("root").unwrap(), Account::numbered(0));
        assert_eq!(Account::named("54321").unwrap().uid, 54_321);
        let error = Account::named("no-such-user").unwrap_err().to_string();
        assert_eq!(error, "there is no user \"no-such-user\" on this machine");
    }
}
