//! Who a process runs as: `--user` and `--group-add` looked up in the container's own
//! `/etc/passwd` and `/etc/group`.
//!
//! The look-up happens where the root file system is at hand (the keeper), through a descriptor
//! of the root, and never leaves it: `openat2` with `RESOLVE_IN_ROOT`. A user named by number
//! need not exist. The rules and the sentences are those of Docker (moby `oci_linux.go`,
//! `moby/sys/user`).

use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Larger account files are not read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A user as the caller names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// `""`, `name`, `uid`, or either with `:group` or `:gid`.
    pub user: String,
    /// Further groups by name or number.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, in order of appearance.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks the request up in the account files below `root` and writes the outcome into the
/// process: ids, groups, and `HOME` unless the environment has it.
///
/// # Errors
/// [`crate::error::ErrorKind::InvalidRequest`] for a name that the files do not have.
pub fn apply(
    process: &mut Process,
    root: BorrowedFd<'_>,
    request: &UserRequest,
) -> Result<(), Error> {
    let user = find(root, request)?;
    let ids = process.user_mut();
    ids.set_uid(user.uid);
    ids.set_gid(user.gid);
    // Docker lists the primary group among the supplementary ones too (CVE-2022-36109).
    let mut groups = vec![user.gid];
    groups.extend(user.groups.into_iter().filter(|gid| *gid != user.gid));
    ids.set_additional_gids(Some(groups));
    let env = process.env_mut().get_or_insert_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    Ok(())
}

/// Looks the request up in the account files below `root`.
///
/// # Errors
/// As [`apply`].
pub fn find(root: BorrowedFd<'_>, request: &UserRequest) -> Result<User, Error> {
    resolve(
        request,
        &read(root, "etc/passwd")?,
        &read(root, "etc/group")?,
    )
}

/// The look-up itself, on the texts of the two files.
pub fn resolve(request: &UserRequest, passwd: &str, group: &str) -> Result<User, Error> {
    let (name, group_name) = match request.user.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name).filter(|name| !name.is_empty())),
        None => (request.user.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let account = find_account(passwd, name)?;
    let mut user = match (&account, name.parse::<u32>()) {
        (Some(account), _) => User {
            uid: account.uid,
            gid: account.gid,
            groups: Vec::new(),
            home: account.home.to_owned(),
        },
        (None, Ok(uid)) if uid <= i32::MAX as u32 => User {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: "/".to_owned(),
        },
        (None, Ok(_)) => {
            return Err(Error::invalid(
                "uids and gids must be in range 0-2147483647",
            ));
        }
        (None, Err(_)) => {
            return Err(Error::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    match group_name {
        Some(group_name) => user.gid = find_group(group, group_name)?,
        // Naming a group drops the memberships, as in Docker.
        None => {
            if let Some(account) = &account {
                user.groups.extend(memberships(group, account.name));
            }
        }
    }
    for extra in &request.groups {
        let gid = find_group(group, extra)?;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(user)
}

/// The home directory of a uid by the account files below `root`; `/` if none is known.
pub(crate) fn home(root: BorrowedFd<'_>, uid: u32) -> Result<String, Error> {
    let passwd = read(root, "etc/passwd")?;
    let home = entries(&passwd)
        .filter_map(|fields| parse_account(&fields))
        .find(|account| account.uid == uid)
        .map_or("/", |account| account.home);
    Ok(home.to_owned())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn find_account<'a>(passwd: &'a str, wanted: &str) -> Result<Option<Account<'a>>, Error> {
    let number = wanted.parse::<u32>().ok();
    Ok(entries(passwd)
        .filter_map(|fields| parse_account(&fields))
        .find(|account| account.name == wanted || number == Some(account.uid)))
}

fn parse_account<'a>(fields: &[&'a str]) -> Option<Account<'a>> {
    Some(Account {
        name: fields.first()?,
        uid: fields.get(2)?.parse().ok()?,
        gid: fields.get(3)?.parse().ok()?,
        home: fields
            .get(5)
            .copied()
            .filter(|home| !home.is_empty())
            .unwrap_or("/"),
    })
}

fn find_group(group: &str, wanted: &str) -> Result<u32, Error> {
    let by_name = entries(group).find(|fields| fields.first() == Some(&wanted));
    let gid = by_name.and_then(|fields| fields.get(2)?.parse::<u32>().ok());
    match (gid, wanted.parse::<u32>()) {
        (Some(gid), _) => Ok(gid),
        (None, Ok(gid)) if gid <= i32::MAX as u32 => Ok(gid),
        (None, Ok(_)) => Err(Error::invalid(
            "uids and gids must be in range 0-2147483647",
        )),
        (None, Err(_)) => Err(Error::invalid(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))),
    }
}

fn memberships<'a>(group: &'a str, name: &'a str) -> impl Iterator<Item = u32> + 'a {
    entries(group)
        .filter(move |fields| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|member| member == name))
        })
        .filter_map(|fields| fields.get(2)?.parse().ok())
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

/// A file's text below the root; empty if there is none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, Error> {
    let open = |flags| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map(std::fs::File::from)
    };
    let is_file =
        |file: &std::fs::File| file.metadata().is_ok_and(|meta| meta.file_type().is_file());
    // Looked at before it is opened: a fifo would hang, and to open a device is to use it, which
    // here no cgroup forbids (a watchdog begins to count).
    let Some(place) = open(OFlags::PATH).ok().filter(is_file) else {
        return Ok(String::new());
    };
    let by_descriptor = std::fs::File::open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    // Without a /proc this is a process in the container, whose devices are limited.
    let file = by_descriptor.or_else(|_| open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY));
    let Some(file) = file.ok().filter(is_file) else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::internal(format!("read /{path} of the container: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nredis:x:101:102::/var/lib/redis:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root\nredis:x:102:\nssl:x:103:redis,root\n";

    fn check(user: &str, groups: &[&str]) -> Result<(u32, u32, Vec<u32>, String), String> {
        let request = UserRequest {
            user: user.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        resolve(&request, PASSWD, GROUP)
            .map(|user| (user.uid, user.gid, user.groups, user.home))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn root_has_its_groups_and_home() {
        assert_eq!(
            check("", &[]),
            Ok((0, 0, vec![10, 103], "/root".to_owned()))
        );
    }

    #[test]
    fn names_and_numbers_find_the_same_account() {
        let redis = Ok((101, 102, vec![103], "/var/lib/redis".to_owned()));
        assert_eq!(check("redis", &[]), redis);
        assert_eq!(check("101", &[]), redis);
    }

    #[test]
    fn unknown_numbers_are_taken_as_they_are() {
        assert_eq!(check("4711", &[]), Ok((4711, 0, vec![], "/".to_owned())));
        assert_eq!(
            check("4711:4712", &[]),
            Ok((4711, 4712, vec![], "/".to_owned()))
        );
    }

    #[test]
    fn a_named_group_replaces_the_memberships() {
        assert_eq!(
            check("redis:wheel", &["ssl"]),
            Ok((101, 10, vec![103], "/var/lib/redis".to_owned()))
        );
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        assert!(
            check("nobody", &[])
                .unwrap_err()
                .contains("unable to find user nobody: no matching entries in passwd file")
        );
        assert!(
            check("redis:none", &[])
                .unwrap_err()
                .contains("no matching entries in group file")
        );
        assert!(
            check("", &["none"])
                .unwrap_err()
                .contains("unable to find group none")
        );
    }
}
