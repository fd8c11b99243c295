//! The calling thread's capability sets (capget(2), capset(2), prctl(2)).

use std::io;

/// A set of capabilities, one bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

pub const CAP_SETPCAP: u32 = 8;
pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_SYS_RESOURCE: u32 = 24;

impl CapSet {
    pub const fn one(capability: u32) -> Self {
        Self(1 << capability)
    }

    pub const fn contains(self, capability: u32) -> bool {
        self.0 & (1 << capability) != 0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The numbers in it, ascending.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |&number| self.contains(number))
    }
}

/// The three sets that capset(2) knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3
const VERSION_3: u32 = 0x2008_0522;

pub fn get() -> io::Result<Sets> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 makes the kernel write exactly two halves, which `halves` has room for.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let join =
        |f: fn(&Half) -> u32| CapSet(u64::from(f(&halves[0])) | u64::from(f(&halves[1])) << 32);
    Ok(Sets {
        effective: join(|h| h.effective),
        permitted: join(|h| h.permitted),
        inheritable: join(|h| h.inheritable),
    })
}

pub fn set(sets: Sets) -> io::Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| Half {
        effective: low(sets.effective.0 >> shift),
        permitted: low(sets.permitted.0 >> shift),
        inheritable: low(sets.inheritable.0 >> shift),
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 makes the kernel read exactly two halves.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn low(bits: u64) -> u32 {
    (bits & u64::from(u32::MAX)) as u32
}

/// The capabilities that the kernel knows and that are in the bounding set.
pub fn bounding() -> CapSet {
    let mut set = CapSet::default();
    for number in 0..64 {
        match prctl(libc::PR_CAPBSET_READ, u64::from(number), 0) {
            Ok(1) => set = set.or(CapSet::one(number)),
            Ok(_) => {}
            // The kernel knows no higher one.
            Err(_) => break,
        }
    }
    set
}

pub fn drop_bounding(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map(drop)
}

pub fn raise_ambient(capability: u32) -> io::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as u64,
        u64::from(capability),
    )
    .map(drop)
}

pub fn clear_ambient() -> io::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as u64,
        0,
    )
    .map(drop)
}

fn prctl(option: i32, arg2: u64, arg3: u64) -> io::Result<i32> {
    // SAFETY: the four options above take integers only.
    let result = unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
