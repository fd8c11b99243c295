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

    /// Takes away what the kernel would not raise in the ambient set, and says what that was: it
    /// has to be permitted and inheritable (capabilities(7)). runc goes on without, too; the
    /// example that its 1.1 makes (`runc spec`) has such a set.
    pub fn settle_ambient(self) -> (Self, CapSet) {
        let ambient = self.ambient.and(self.permitted).and(self.inheritable);
        (Self { ambient, ..self }, self.ambient.minus(ambient))
    }
}

/// The kernel's number (include/uapi/linux/capability.h).
pub fn number(capability: Capability) -> u32 {
    let position = ALL.iter().position(|&known| known == capability);
    position
        .and_then(|index| u32::try_from(index).ok())
        .expect("the list holds every variant, which its test shows")
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
    fn all_is_in_the_kernels_order_and_complete() {
        assert_eq!(number(Capability::Chown), 0);
        assert_eq!(number(Capability::SysAdmin), 21);
        assert_eq!(number(Capability::Mknod), 27);
        assert_eq!(number(Capability::CheckpointRestore), 40);
        let distinct: std::collections::HashSet<_> = ALL.into_iter().collect();
        assert_eq!(distinct.len(), ALL.len());
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
