//! From a specification to what the first process will do: pure decisions, no effect.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use berth_sys::clone::Namespaces;
use berth_sys::mount::Propagation;
use oci_spec::runtime::{
    Hooks, LinuxDevice, LinuxDeviceType, LinuxSeccomp, PosixRlimitType, Process as ProcessSpec,
    Spec,
};
use rustix::process::Resource;

use crate::caps::Caps;
use crate::error::Error;
use crate::hooks::{self, POINTS};
use crate::rootfs::options::Options;
use crate::scheduling::Scheduling;

mod mounts;
mod namespaces;
mod sysctls;

pub(crate) use mounts::{Idmap, Mount, MountKind};
use namespaces::owns;
pub(crate) use namespaces::{IdMaps, Kinds, host_id};

/// All that the first process of a container does before it executes the command.
#[derive(Debug)]
pub(crate) struct Plan {
    pub kinds: Kinds,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub read_only_root: bool,
    pub root_propagation: Option<(Propagation, bool)>,
    pub masked: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
    /// Paths below /proc/sys, and what is written there.
    pub sysctls: Vec<(PathBuf, String)>,
    /// `None` when none are to be run.
    pub hooks: Option<Hooks>,
    pub process: Process,
}

/// What a process is, in the first one and in those that join later.
#[derive(Debug)]
pub(crate) struct Process {
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
    /// `None` leaves them as they are.
    pub caps: Option<Caps>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub scheduling: Scheduling,
}

impl Process {
    /// Whether it writes to a proc file system for itself. In a user namespace (`has_user`) the
    /// caller sets its oom score.
    pub fn writes_proc(&self, has_user: bool) -> bool {
        self.oom_score_adj.is_some() && !has_user
            || self.apparmor.is_some()
            || self.selinux.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub resource: Resource,
    /// The number in runc's message.
    pub number: u32,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub path: PathBuf,
    pub kind: rustix::fs::FileType,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What this runtime lacks is refused by name, never left out in silence.
fn refused(what: &str) -> Error {
    Error::invalid(format!(
        "{what}: this runtime does not have them; use another one (--runtime)"
    ))
}

fn refuse_unknown(spec: &Spec) -> Result<(), Error> {
    let linux = spec.linux().as_ref();
    let lacking = [
        (
            "Intel RDT settings",
            linux.is_some_and(|l| l.intel_rdt().is_some()),
        ),
        (
            "network devices to move",
            linux.is_some_and(|l| l.net_devices().is_some()),
        ),
    ];
    match lacking.iter().find(|(_, present)| *present) {
        Some((what, _)) => Err(refused(what)),
        None => Ok(()),
    }
}

impl Plan {
    pub fn new(spec: &Spec) -> Result<Self, Error> {
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::invalid("the specification has no process"))?;
        let hooks = spec.hooks().clone().filter(|all| hooks::any(all, &POINTS));
        hooks.as_ref().map_or(Ok(()), hooks::check)?;
        refuse_unknown(spec)?;
        let linux = spec.linux().as_ref();
        let kinds = Kinds::new(linux)?;
        let (new, join) = (kinds.new, &kinds.join);
        if spec.hostname().is_some() && !owns(Namespaces::UTS, new, join) {
            return Err(Error::invalid(
                "unable to set hostname without a private UTS namespace",
            ));
        }
        let label = linux.and_then(|l| l.mount_label().as_deref());
        let mounts = spec
            .mounts()
            .iter()
            .flatten()
            .map(|spec| mounts::plan(spec, label, kinds.has_user()))
            .collect::<Result<_, _>>()?;
        let root_propagation = linux
            .and_then(|l| l.rootfs_propagation().as_deref())
            .filter(|word| !word.is_empty())
            .map(|word| {
                Options::parse(&[word]).propagation.ok_or_else(|| {
                    Error::invalid(format!("rootfsPropagation={word} is not supported"))
                })
            })
            .transpose()?;
        let sysctls = sysctls::plan(linux.and_then(|l| l.sysctl().as_ref()), new, join)?;
        Ok(Self {
            kinds,
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            mounts,
            devices: devices(
                linux
                    .and_then(|l| l.devices().as_deref())
                    .unwrap_or_default(),
            )?,
            read_only_root: spec
                .root()
                .as_ref()
                .and_then(|r| r.readonly())
                .unwrap_or(false),
            root_propagation,
            masked: paths(linux.and_then(|l| l.masked_paths().as_ref())),
            read_only: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
            sysctls,
            hooks,
            process: Process::new(process, Some(spec))?,
        })
    }

    /// Whether /dev gets the default devices: always, unless it is somebody else's (as in runc).
    pub fn fills_dev(&self) -> bool {
        !self.mounts.iter().any(|mount| {
            mount.destination == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. })
        })
    }

    /// Whether a user namespace gets its cgroup to rule: it has one of its own, and sees it
    /// writable (as in runc).
    pub fn owns_cgroups(&self) -> bool {
        let is_writable = |mount: &Mount| {
            let options = &mount.options;
            let set = options.set | options.recursive_set;
            mount.kind == MountKind::Cgroup && set & berth_sys::mount::attr::RDONLY == 0
        };
        self.kinds.has_user()
            && self.kinds.new.contains(Namespaces::CGROUP)
            && self.mounts.iter().any(is_writable)
    }
}

/// The seccomp profile of a specification.
pub(crate) fn seccomp(spec: &Spec) -> Option<&LinuxSeccomp> {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())
}

impl Process {
    /// `container` is the specification of the container that the process is in.
    pub fn new(spec: &ProcessSpec, container: Option<&Spec>) -> Result<Self, Error> {
        let linux = container.and_then(|spec| spec.linux().as_ref());
        let args = c_strings("args", spec.args().as_deref().unwrap_or_default())?;
        if args.is_empty() {
            return Err(Error::invalid("args must not be empty"));
        }
        if !spec.cwd().is_absolute() {
            return Err(Error::invalid(format!(
                "Cwd must be an absolute path: {:?}",
                spec.cwd()
            )));
        }
        let user = spec.user();
        Ok(Self {
            args,
            env: c_strings("env", spec.env().as_deref().unwrap_or_default())?,
            cwd: spec.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            caps: spec.capabilities().as_ref().map(Caps::new),
            rlimits: spec
                .rlimits()
                .iter()
                .flatten()
                .map(|limit| {
                    let (resource, number) = resource(limit.typ());
                    Rlimit {
                        resource,
                        number,
                        soft: limit.soft(),
                        hard: limit.hard(),
                    }
                })
                .collect(),
            no_new_privileges: spec.no_new_privileges().unwrap_or(false),
            oom_score_adj: spec.oom_score_adj(),
            apparmor: spec
                .apparmor_profile()
                .clone()
                .filter(|name| !name.is_empty()),
            selinux: spec
                .selinux_label()
                .clone()
                .filter(|label| !label.is_empty()),
            scheduling: Scheduling::plan(
                spec,
                linux.and_then(|l| l.personality().as_ref()),
                linux.and_then(|l| l.memory_policy().as_ref()),
            )?,
        })
    }
}

/// The devices that every container has (OCI runtime specification, "Default Devices"), then
/// those of the specification.
fn devices(spec: &[LinuxDevice]) -> Result<Vec<Device>, Error> {
    let default = |name: &str, minor, major| Device {
        path: Path::new("/dev").join(name),
        kind: rustix::fs::FileType::CharacterDevice,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let mut devices = vec![
        default("null", 3, 1),
        default("zero", 5, 1),
        default("full", 7, 1),
        default("random", 8, 1),
        default("urandom", 9, 1),
        default("tty", 0, 5),
    ];
    for device in spec {
        let wrong = || Error::invalid(format!("device {} is malformed", device.path().display()));
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => rustix::fs::FileType::CharacterDevice,
            LinuxDeviceType::B => rustix::fs::FileType::BlockDevice,
            LinuxDeviceType::P => rustix::fs::FileType::Fifo,
            LinuxDeviceType::A => return Err(wrong()),
        };
        devices.retain(|known| known.path != *device.path());
        devices.push(Device {
            path: device.path().clone(),
            kind,
            major: u32::try_from(device.major()).map_err(|_| wrong())?,
            minor: u32::try_from(device.minor()).map_err(|_| wrong())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    Ok(devices)
}

fn paths(spec: Option<&Vec<String>>) -> Vec<PathBuf> {
    spec.into_iter().flatten().map(PathBuf::from).collect()
}

fn c_strings(what: &str, strings: &[String]) -> Result<Vec<CString>, Error> {
    strings
        .iter()
        .map(|string| {
            CString::new(string.as_bytes())
                .map_err(|_| Error::invalid(format!("a NUL byte in {what}: {string:?}")))
        })
        .collect()
}

fn resource(typ: PosixRlimitType) -> (Resource, u32) {
    match typ {
        PosixRlimitType::RlimitCpu => (Resource::Cpu, 0),
        PosixRlimitType::RlimitFsize => (Resource::Fsize, 1),
        PosixRlimitType::RlimitData => (Resource::Data, 2),
        PosixRlimitType::RlimitStack => (Resource::Stack, 3),
        PosixRlimitType::RlimitCore => (Resource::Core, 4),
        PosixRlimitType::RlimitRss => (Resource::Rss, 5),
        PosixRlimitType::RlimitNproc => (Resource::Nproc, 6),
        PosixRlimitType::RlimitNofile => (Resource::Nofile, 7),
        PosixRlimitType::RlimitMemlock => (Resource::Memlock, 8),
        PosixRlimitType::RlimitAs => (Resource::As, 9),
        PosixRlimitType::RlimitLocks => (Resource::Locks, 10),
        PosixRlimitType::RlimitSigpending => (Resource::Sigpending, 11),
        PosixRlimitType::RlimitMsgqueue => (Resource::Msgqueue, 12),
        PosixRlimitType::RlimitNice => (Resource::Nice, 13),
        PosixRlimitType::RlimitRtprio => (Resource::Rtprio, 14),
        PosixRlimitType::RlimitRttime => (Resource::Rttime, 15),
    }
}
