//! A terminal of the container's own devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FsWord, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::TerminalSize;
use crate::error::{Error, errno_words};
use crate::rootfs::path;

/// From linux/magic.h.
const DEVPTS_SUPER_MAGIC: FsWord = 0x1cd1;

pub(super) struct Console {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Console {
    /// Opens a pair below `root`. Nothing is opened that the container could have put there: the
    /// multiplexer comes from a devpts, in which nobody can make or rename a thing, and from
    /// nothing mounted over it; the slave comes from the master itself (TIOCGPTPEER).
    pub fn open(root: BorrowedFd<'_>, size: Option<TerminalSize>) -> Result<Self, Error> {
        let fail = |errno| Error::internal(format!("open terminal: {}", errno_words(errno)));
        let devpts = path::locate(root, Path::new("/dev/pts")).map_err(fail)?;
        if rustix::fs::fstatfs(&devpts).map_err(fail)?.f_type != DEVPTS_SUPER_MAGIC {
            return Err(Error::invalid("open terminal: /dev/pts is no devpts"));
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master =
            path::open_same_mount(devpts.as_fd(), Path::new("ptmx"), flags).map_err(fail)?;
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
