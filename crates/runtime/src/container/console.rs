//! A terminal of the container's own devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, makedev};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::TerminalSize;
use crate::error::{Error, errno_words};
use crate::rootfs::path;

pub(super) struct Console {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Console {
    /// Opens a pair below `root`. The slave comes from the master itself (TIOCGPTPEER) and not
    /// from a path, which the container could have replaced.
    pub fn open(root: BorrowedFd<'_>, size: Option<TerminalSize>) -> Result<Self, Error> {
        let fail = |errno| Error::internal(format!("open terminal: {}", errno_words(errno)));
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = path::open(root, Path::new("/dev/pts/ptmx"), flags).map_err(fail)?;
        let stat = rustix::fs::fstat(&master).map_err(fail)?;
        let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == makedev(5, 2);
        if !is_ptmx {
            return Err(Error::invalid(
                "open terminal: /dev/pts/ptmx is no terminal multiplexer",
            ));
        }
        rustix::pty::unlockpt(&master).map_err(fail)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(fail)?;
        if let Some(size) = size {
            resize(master.as_fd(), size).map_err(fail)?;
        }
        Ok(Self { master, slave })
    }
}

/// Tells a terminal, by its master, how large its window is.
pub fn resize(master: BorrowedFd<'_>, size: TerminalSize) -> rustix::io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size)
}
