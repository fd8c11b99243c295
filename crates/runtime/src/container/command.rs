//! Which file a command's name stands for.

use std::ffi::{CStr, CString};

use rustix::fs::{Access, AtFlags, FileType};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, errno_words};

/// Finds the command as Go's `exec.LookPath` does, whose words Docker passes on.
pub(super) fn find(name: &CStr, env: &[CString]) -> Result<CString, Error> {
    let shown = name.to_string_lossy();
    let error = |kind, reason: &str| Error::new(kind, format!("exec: {shown:?}: {reason}"));
    if name.to_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::NOENT) => Err(error(
                ErrorKind::CommandNotFound,
                &format!("stat {shown}: no such file or directory"),
            )),
            Err(errno @ (Errno::ACCESS | Errno::ISDIR)) => {
                Err(error(ErrorKind::CommandNotExecutable, &errno_words(errno)))
            }
            Err(errno) => Err(error(
                ErrorKind::CommandNotExecutable,
                &format!("stat {shown}: {}", errno_words(errno)),
            )),
        };
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    if !name.is_empty() {
        for directory in path.unwrap_or_default().split(|&byte| byte == b':') {
            let mut candidate = if directory.is_empty() {
                b".".to_vec()
            } else {
                directory.to_vec()
            };
            candidate.push(b'/');
            candidate.extend_from_slice(name.to_bytes());
            if let Ok(candidate) = CString::new(candidate)
                && executable(&candidate).is_ok()
            {
                return Ok(candidate);
            }
        }
    }
    Err(error(
        ErrorKind::CommandNotFound,
        "executable file not found in $PATH",
    ))
}

fn executable(path: &CStr) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::empty())
}
