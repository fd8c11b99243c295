//! Session keyrings (keyrings(7)).

use std::ffi::CStr;
use std::io;

const JOIN_SESSION_KEYRING: i32 = 1;
const SETPERM: i32 = 5;
/// All for who possesses it; view, read, link and search for its user, so that another process
/// of the user can join it by name.
const PERMISSIONS: u32 = 0x3f1b_0000;

/// Leaves the session keyring for the one of this name, which is made if there is none.
pub fn join_session(name: &CStr) -> io::Result<()> {
    // SAFETY: the name ends with a nul and lives through the call, which only reads it.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if serial < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, PERMISSIONS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
