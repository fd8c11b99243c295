//! Capabilities: names and numbers, and the five sets of a process.

use berth_sys::caps::CapSet;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// The five sets that a process is executed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    pub bounding: CapSet,
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub ambient: CapSet,
}

impl Caps {
    pub fn new(spec: &LinuxCapabilities) -> Self {
        let set = |capabilities: &Option<Capabilities>| {
            capabilities
                .iter()
                .flatten()
                .fold(CapSet::default(), |set, &c| set.or(CapSet::one(number(c))))
        };
        Self {
            bounding: set(spec.bounding()),
            effective: set(spec.effective()),
            permitted: set(spec.permitted()),
            inheritable: set(spec.inheritable()),
            ambient: set(spec.ambient()),
        }
    }

    /// Takes away what the host does not have, and says what that was.
    pub fn clamp(self, available: CapSet) -> (Self, CapSet) {
        let all = self
            .bounding
            .or(self.effective)
            .or(self.permitted)
            .or(self.inheritable);
        let clamped = Self {
            bounding: self.bounding.and(available),
            effective: self.effective.and(available),
            permitted: self.permitted.and(available),
            inheritable: self.inheritable.and(available),
            ambient: self.ambient.and(available),
        };
        (clamped, all.or(self.ambient).minus(available))
    }
}

/// The kernel's number (include/uapi/linux/capability.h).
pub fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

/// Every capability that this program knows, in the kernel's order.
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The set's names as Docker writes them, `CAP_CHOWN, CAP_KILL`.
pub fn names(set: CapSet) -> String {
    let names: Vec<String> = ALL
        .iter()
        .filter(|&&capability| set.contains(number(capability)))
        .map(|capability| format!("CAP_{capability}"))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_kernels_order() {
        for (index, &capability) in ALL.iter().enumerate() {
            assert_eq!(number(capability) as usize, index, "{capability}");
        }
    }

    #[test]
    fn clamping_reports_what_was_taken() {
        let spec = Caps {
            bounding: CapSet(0b111),
            effective: CapSet(0b110),
            ..Caps::default()
        };
        let (clamped, missing) = spec.clamp(CapSet(0b011));
        assert_eq!(
            (clamped.bounding, clamped.effective),
            (CapSet(0b011), CapSet(0b010))
        );
        assert_eq!(names(missing), "CAP_DAC_READ_SEARCH");
    }
}
