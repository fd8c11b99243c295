//! From a specification to what the first process will do: pure decisions, no effect.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use berth_sys::clone::Namespaces;
use berth_sys::mount::Propagation;
use oci_spec::runtime::{
    Hooks, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, LinuxSeccomp, PosixRlimitType,
    Process as ProcessSpec, Spec,
};
use rustix::process::Resource;

use crate::caps::Caps;
use crate::error::Error;
use crate::hooks::{self, POINTS};
use crate::rootfs::options::Options;
use crate::scheduling::Scheduling;

/// All that the first process of a container does before it executes the command.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Made new by clone3.
    pub new: Namespaces,
    /// Joined by path before anything else.
    pub join: Vec<(Namespaces, PathBuf)>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub resource: Resource,
    /// The number in runc's message.
    pub number: u32,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug)]
pub(crate) struct Mount {
    pub destination: PathBuf,
    pub kind: MountKind,
    pub options: Options,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    Bind { source: PathBuf },
    Cgroup,
    FileSystem { typ: String, source: String },
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
    let mapped = |mount: &oci_spec::runtime::Mount| {
        mount.uid_mappings().is_some() || mount.gid_mappings().is_some()
    };
    let lacking = [
        (
            "idmapped mounts",
            spec.mounts().iter().flatten().any(mapped),
        ),
        (
            "time namespaces",
            linux.is_some_and(|l| l.time_offsets().is_some()),
        ),
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
        let mut new = Namespaces::empty();
        let mut join = Vec::new();
        for namespace in linux
            .and_then(|l| l.namespaces().as_ref())
            .into_iter()
            .flatten()
        {
            let flag = namespace_flag(namespace.typ());
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => join.push((flag, path.clone())),
                _ => new |= flag,
            }
        }
        if !new.contains(Namespaces::MOUNT) {
            return Err(Error::invalid(
                "a container needs a mount namespace of its own",
            ));
        }
        if linux.is_some_and(|l| l.uid_mappings().is_some()) || new.contains(Namespaces::USER) {
            return Err(refused("user namespaces"));
        }
        if spec.hostname().is_some() && !owns(Namespaces::UTS, new, &join) {
            return Err(Error::invalid(
                "unable to set hostname without a private UTS namespace",
            ));
        }
        let mounts = spec
            .mounts()
            .iter()
            .flatten()
            .map(mount)
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
        let sysctls = sysctls(linux.and_then(|l| l.sysctl().as_ref()), new, &join)?;
        Ok(Self {
            new,
            join,
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

    /// Whether /dev is a file system of the container's own, which gets the default devices.
    pub fn owns_dev(&self) -> bool {
        self.mounts
            .iter()
            .rfind(|mount| mount.destination == Path::new("/dev"))
            .is_some_and(
                |mount| matches!(&mount.kind, MountKind::FileSystem { typ, .. } if typ == "tmpfs"),
            )
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

fn owns(flag: Namespaces, new: Namespaces, join: &[(Namespaces, PathBuf)]) -> bool {
    new.contains(flag) || join.iter().any(|(joined, _)| *joined == flag)
}

fn namespace_flag(typ: LinuxNamespaceType) -> Namespaces {
    match typ {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NETWORK,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

fn mount(spec: &oci_spec::runtime::Mount) -> Result<Mount, Error> {
    let options = Options::parse(spec.options().as_deref().unwrap_or_default());
    let destination = Path::new("/").join(spec.destination());
    let typ = spec.typ().as_deref().unwrap_or("none");
    let source = spec.source().clone().unwrap_or_default();
    let kind = if options.bind.is_some() || typ == "bind" {
        if source.as_os_str().is_empty() {
            let message = format!("the bind mount at {} has no source", destination.display());
            return Err(Error::invalid(message));
        }
        MountKind::Bind { source }
    } else {
        match typ {
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            "none" => {
                let message = format!("the mount at {} has no type", destination.display());
                return Err(Error::invalid(message));
            }
            typ => MountKind::FileSystem {
                typ: typ.to_owned(),
                source: source.to_string_lossy().into_owned(),
            },
        }
    };
    Ok(Mount {
        destination,
        kind,
        options,
    })
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

/// Only what belongs to a namespace of the container's own: everything else would change the
/// host, and Docker refuses it in the same words (runc `validate.go`).
fn sysctls(
    spec: Option<&std::collections::HashMap<String, String>>,
    new: Namespaces,
    join: &[(Namespaces, PathBuf)],
) -> Result<Vec<(PathBuf, String)>, Error> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut planned = Vec::new();
    for (key, value) in spec.into_iter().flatten() {
        let dotted = key.replace('/', ".");
        let (namespace, name) =
            if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
                (Namespaces::IPC, "ipc")
            } else if dotted.starts_with("net.") {
                (Namespaces::NETWORK, "net")
            } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
                (Namespaces::UTS, "uts")
            } else {
                let message = format!("sysctl {key:?} is not in a separate kernel namespace");
                return Err(Error::invalid(message));
            };
        if !owns(namespace, new, join) {
            let message = format!("sysctl {key:?} is not allowed in the hosts {name} namespace");
            return Err(Error::invalid(message));
        }
        // With slashes given, dots are part of a name (`net/ipv4/conf/eth0.1/x`).
        let path = if key.contains('/') {
            key.clone()
        } else {
            key.replace('.', "/")
        };
        if path.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!("sysctl {key:?} is malformed")));
        }
        planned.push((Path::new("sys").join(path), value.clone()));
    }
    planned.sort();
    Ok(planned)
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
