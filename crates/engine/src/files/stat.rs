//! What Docker's clients are told of a path.

use std::os::fd::BorrowedFd;
use std::path::Path;

use berth_base::Timestamp;
use berth_docker::container::PathStat;
use berth_runtime::error::io_words;
use berth_runtime::rootfs::path;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Bits of Go's `fs.FileMode`, above the nine of permissions.
mod mode {
    pub const DIRECTORY: u32 = 1 << 31;
    pub const SYMLINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const NAMED_PIPE: u32 = 1 << 25;
    pub const SOCKET: u32 = 1 << 24;
    pub const SETUID: u32 = 1 << 23;
    pub const SETGID: u32 = 1 << 22;
    pub const CHARACTER_DEVICE: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
    pub const IRREGULAR: u32 = 1 << 19;
}

/// `asked` and `name`: how the path and the container were referred to.
pub fn stat(root: BorrowedFd<'_>, wanted: &str, asked: &str, name: &str) -> Result<PathStat> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let place =
        path::open(root, Path::new(wanted), flags).map_err(|errno| failed(errno, asked, name))?;
    let stat = rustix::fs::fstat(&place).context(format!("look at {wanted}"))?;
    let link_target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => path::follow(root, Path::new(wanted))
            .map_err(|errno| failed(errno, asked, name))?
            .to_string_lossy()
            .into_owned(),
        _ => String::new(),
    };
    Ok(PathStat {
        name: base(wanted).to_owned(),
        size: stat.st_size,
        mode: go_mode(&stat),
        mtime: mtime(&stat).to_string(),
        link_target,
    })
}

pub fn is_directory(stat: &PathStat) -> bool {
    stat.mode & mode::DIRECTORY != 0
}

/// Why a path could not be reached.
pub fn failed(errno: Errno, wanted: &str, name: &str) -> Error {
    match errno {
        Errno::NOENT => Error::not_found(format!(
            "Could not find the file {wanted} in container {name}"
        )),
        errno => Error::internal(format!("lstat {wanted}: {}", io_words(&errno.into()))),
    }
}

/// The last name of a path, as Go's `filepath.Base` has it.
fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// The path from the root, cleaned; a slash or dot at its end, which ask for what a link leads to,
/// stays.
pub fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = match (base(path), parts.is_empty()) {
        (".", true) => ".",
        (".", false) => "/.",
        (_, false) if path.ends_with('/') => "/",
        _ => "",
    };
    format!("/{}{end}", parts.join("/"))
}

fn mtime(stat: &Stat) -> Timestamp {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp(
        stat.st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(nanos),
    )
}

fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => 0,
        FileType::Directory => mode::DIRECTORY,
        FileType::Symlink => mode::SYMLINK,
        FileType::BlockDevice => mode::DEVICE,
        FileType::CharacterDevice => mode::DEVICE | mode::CHARACTER_DEVICE,
        FileType::Fifo => mode::NAMED_PIPE,
        FileType::Socket => mode::SOCKET,
        FileType::Unknown => mode::IRREGULAR,
    };
    let special = [
        (0o4000, mode::SETUID),
        (0o2000, mode::SETGID),
        (0o1000, mode::STICKY),
    ];
    let special = special
        .iter()
        .filter(|(bit, _)| stat.st_mode & bit != 0)
        .fold(0, |all, (_, bit)| all | bit);
    kind | special | (stat.st_mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_docker_cleans_them() {
        for (path, expect, name) in [
            ("etc/hosts", "/etc/hosts", "hosts"),
            ("/etc/", "/etc/", "etc"),
            ("/etc/.", "/etc/.", "."),
            ("/", "/", "/"),
            ("/.", "/.", "."),
            (".", "/.", "."),
            ("../../x/../y//", "/y/", "y"),
        ] {
            assert_eq!(absolute(path), expect, "{path}");
            assert_eq!(base(&absolute(path)), name, "{path}");
        }
    }
}
