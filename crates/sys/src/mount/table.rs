//! What is mounted where: `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Reading it asks no file
//! system anything, so one that hangs does no harm.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Propagation;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub point: PathBuf,
    pub propagation: Propagation,
}

/// All mounts of this process's namespace, in the order in which they were made: of several on
/// one point the last is on top.
///
/// # Errors
/// Where there is no /proc.
pub fn table() -> io::Result<Vec<Mounted>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|&byte| byte == b'\n')
        .filter_map(mounted)
        .collect()
}

fn mounted(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&byte| byte == b' ').skip(4);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let optional = || fields.clone().skip(1).take_while(|&field| field != b"-");
    let has = |prefix: &[u8]| optional().any(|field| field.starts_with(prefix));
    let propagation = match () {
        () if has(b"shared:") => Propagation::Shared,
        () if has(b"master:") => Propagation::Slave,
        () if has(b"unbindable") => Propagation::Unbindable,
        () => Propagation::Private,
    };
    Some(Mounted { point, propagation })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let value = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(value, 8).ok()
        };
        match (byte, after.get(..3).and_then(octal)) {
            (b'\\', Some(value)) => {
                out.push(value);
                rest = &after[3..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

impl Mounted {
    /// The mount of the table that a path is on: the last of those with the longest point.
    pub fn of<'a>(table: &'a [Self], path: &Path) -> Option<&'a Self> {
        table
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_propagation_are_read() {
        let text = b"25 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n\
            30 25 0:20 / /a\\040b rw,nosuid shared:2 master:1 - tmpfs t rw\n\
            31 25 0:21 /x /a\\040b/c rw master:7 - tmpfs - rw\n\
            32 25 0:22 / /p rw - tmpfs - rw\n";
        let table = parse(text);
        let found: Vec<_> = table
            .iter()
            .map(|mount| (mount.point.to_str().unwrap(), mount.propagation))
            .collect();
        assert_eq!(
            found,
            [
                ("/", Propagation::Shared),
                ("/a b", Propagation::Shared),
                ("/a b/c", Propagation::Slave),
                ("/p", Propagation::Private),
            ]
        );
        let of = |path: &str| Mounted::of(&table, Path::new(path)).unwrap().point.clone();
        assert_eq!(of("/a b/c/d"), Path::new("/a b/c"));
        assert_eq!(of("/a bc"), Path::new("/"));
    }
}
