//! What `ps` shows as the command line of a process that was forked and executed no program: without
//! this, all of them show their parent's.
//!
//! The kernel shows the memory where it once put arguments and environment (proc(5),
//! `/proc/pid/cmdline`): it is written over.

use std::ffi::CStr;
use std::io;
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy)]
struct Area {
    start: usize,
    length: usize,
}

static AREA: OnceLock<Area> = OnceLock::new();

/// Takes the memory of the arguments and of the environment, which is kept elsewhere from now on;
/// arguments must have been read. Call it while the process has one thread.
pub fn claim() -> io::Result<()> {
    let area = find()?;
    keep_environment();
    AREA.get_or_init(|| area);
    Ok(())
}

/// Copies the strings of the environment elsewhere, where they stay for good.
fn keep_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: read by value; the caller has one thread, so nobody changes it.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: the array ends with a null pointer, which `entry` is not past.
        let old = unsafe { *entry };
        if old.is_null() {
            return;
        }
        // SAFETY: what is not null is a string that ends with a zero.
        let text = unsafe { CStr::from_ptr(old) };
        let copy = text.to_owned().into_raw();
        // SAFETY: a pointer to a string takes the place of one to an equal string.
        unsafe { *entry = copy };
        // SAFETY: it was not the last.
        entry = unsafe { entry.add(1) };
    }
}

/// Fields 48 to 51 of /proc/self/stat (proc(5)).
fn find() -> io::Result<Area> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    let field = |number: usize| {
        let text = fields.split(' ').nth(number - 3);
        text.and_then(|text| text.trim().parse::<usize>().ok())
    };
    let unknown = || io::Error::other("the kernel does not tell where the arguments are");
    let bounds = (field(48), field(49), field(50), field(51));
    let (Some(start), Some(end), Some(env_start), Some(env_end)) = bounds else {
        return Err(unknown());
    };
    let whole = match end == env_start && env_end > env_start {
        true => env_end,
        false => end,
    };
    match start != 0 && whole > start {
        true => Ok(Area {
            start,
            length: whole - start,
        }),
        false => Err(unknown()),
    }
}

/// Shows these words, as far as there is room. Without [`claim`] nothing changes.
pub fn set(words: &[&[u8]]) {
    let Some(area) = AREA.get() else { return };
    let mut text = words.join(&0);
    // The last byte stays zero.
    text.truncate(area.length - 1);
    text.resize(area.length, 0);
    let start = std::ptr::with_exposed_provenance_mut::<u8>(area.start);
    // SAFETY: the kernel has put arguments and environment into this part of the stack, which is
    // writable, `length` bytes long, and there as long as the process. `claim` has moved the
    // environment, and nothing refers to the arguments but `std::env::args`, which finds other
    // bytes that end with a zero.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start, text.len()) };
}
