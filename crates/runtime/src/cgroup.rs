//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! Version 2 is the main road. With version 1, and with the hybrid layout of systemd, whose
//! controllers are all in version 1, a container has a directory in every hierarchy. What is
//! written is planned by [`v1::plan`] and [`v2::plan`] as pure data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use oci_spec::runtime::LinuxResources;

use crate::error::{Error, io_words};

mod alarm;
mod below;
mod devices;
mod setting;
mod stats;
mod v1;
mod v2;

pub use alarm::Alarm;
use setting::{Now, Setting};
pub use stats::Stats;
pub(crate) use v2::weight;

/// How often [`Cgroup::remove`] tries again while dying processes are still in the way, and how
/// long it waits in between.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE_MS: u64 = 2;

/// What is mounted on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    V1(Vec<Hierarchy>),
    V2 { mount: PathBuf },
}

/// One version 1 mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// `memory`, or `cpu` and `cpuacct`, or `name=systemd`.
    pub controllers: Vec<String>,
}

/// A container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    layout: &'static Layout,
    /// Below each mount, without a leading slash.
    path: PathBuf,
}

impl Layout {
    /// The host's layout, looked up once for each process (and inherited by what it forks).
    pub fn host() -> Result<&'static Self, Error> {
        static HOST: OnceLock<Layout> = OnceLock::new();
        if let Some(layout) = HOST.get() {
            return Ok(layout);
        }
        let text = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| Error::internal(format!("read mountinfo: {}", io_words(&e))))?;
        let layout = Self::parse(&text)
            .ok_or_else(|| Error::internal("no cgroup file system is mounted"))?;
        Ok(HOST.get_or_init(|| layout))
    }

    /// From the text of `/proc/PID/mountinfo`.
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = mount.split(' ').nth(4) else {
                continue;
            };
            let mut fields = filesystem.split(' ');
            match fields.next() {
                Some("cgroup2") => {
                    unified.get_or_insert_with(|| PathBuf::from(point));
                }
                Some("cgroup") => {
                    let options = fields.nth(1).unwrap_or("");
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|word| word.starts_with("name=") || V1_CONTROLLERS.contains(word))
                        .map(str::to_owned)
                        .collect();
                    let known = hierarchies.iter().any(|h| h.controllers == controllers);
                    if !controllers.is_empty() && !known {
                        hierarchies.push(Hierarchy {
                            mount: point.into(),
                            controllers,
                        });
                    }
                }
                _ => {}
            }
        }
        let controls = |h: &Hierarchy| h.controllers.iter().any(|c| !c.starts_with("name="));
        match unified {
            Some(mount) if !hierarchies.iter().any(controls) => Some(Self::V2 { mount }),
            _ if hierarchies.is_empty() => None,
            _ => Some(Self::V1(hierarchies)),
        }
    }

    fn mounts(&self) -> Vec<&Path> {
        match self {
            Self::V1(hierarchies) => hierarchies.iter().map(|h| h.mount.as_path()).collect(),
            Self::V2 { mount } => vec![mount],
        }
    }
}

const V1_CONTROLLERS: [&str; 15] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "debug",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

impl Cgroup {
    /// Names a cgroup, which need not exist.
    pub fn new(path: &str) -> Result<Self, Error> {
        let path = Path::new(path.trim_start_matches('/'));
        let plain = path
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
        if path.as_os_str().is_empty() || !plain {
            return Err(Error::invalid(format!("cgroup path {path:?} is malformed")));
        }
        Ok(Self {
            layout: Layout::host()?,
            path: path.to_owned(),
        })
    }

    /// The same, on other mounts than the host's; for tests on directories of plain files.
    #[cfg(test)]
    fn at(layout: Layout, path: &str) -> Self {
        Self {
            layout: Box::leak(Box::new(layout)),
            path: path.into(),
        }
    }

    /// Its directory in each hierarchy.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.layout
            .mounts()
            .into_iter()
            .map(|mount| mount.join(&self.path))
            .collect()
    }

    /// Where `controller` has its files.
    pub fn directory(&self, controller: &str) -> Option<PathBuf> {
        let mount = match self.layout {
            Layout::V2 { mount } => mount,
            Layout::V1(hierarchies) => {
                &hierarchies
                    .iter()
                    .find(|h| h.controllers.iter().any(|c| c == controller))?
                    .mount
            }
        };
        Some(mount.join(&self.path))
    }

    /// Makes the directories, parents included; existing ones are fine.
    pub fn make(&self) -> Result<(), Error> {
        let made = match self.layout {
            Layout::V2 { mount } => v2::make(mount, &self.path),
            Layout::V1(hierarchies) => hierarchies
                .iter()
                .try_for_each(|hierarchy| v1::make(hierarchy, &self.path)),
        };
        made.map_err(|e| {
            Error::internal(format!(
                "unable to apply cgroup configuration: mkdir {}: {}",
                self.path.display(),
                io_words(&e)
            ))
        })
    }

    /// Writes the limits. Also for changing them later.
    pub fn set(&self, resources: &LinuxResources) -> Result<(), Error> {
        let settings = match self.layout {
            Layout::V1(_) => v1::plan(resources, &self.now(resources, v1::FILES))?,
            Layout::V2 { .. } => v2::plan(resources, &self.now(resources, v2::FILES))?,
        };
        let mut again = Vec::new();
        for setting in &settings {
            match self.write(setting) {
                Err(_) if setting.again => again.push(setting),
                result => result?,
            }
        }
        again
            .into_iter()
            .try_for_each(|setting| self.write(setting))
    }

    /// Looks at what the plan for these limits depends on, and at nothing else: a container's start
    /// mostly has none of them.
    fn now(&self, resources: &LinuxResources, files: setting::Files) -> Now {
        let read = |file: &str| {
            let text = fs::read_to_string(self.directory("memory")?.join(file)).ok()?;
            text.trim().parse().ok()
        };
        let memory = resources.memory().as_ref();
        let has_bfq = |directory: PathBuf| directory.join(files.bfq_weight).exists();
        Now {
            memory_limit: memory.and_then(|_| read(files.memory_limit)),
            memory_usage: memory.and_then(|_| read(files.memory_usage)),
            has_bfq: resources.block_io().is_some() && self.directory("blkio").is_some_and(has_bfq),
        }
    }

    /// Version 2: gives it to the root of a user namespace. In version 1 that is not safe.
    pub fn delegate(&self, uid: u32) -> Result<(), Error> {
        let Layout::V2 { mount } = self.layout else {
            return Ok(());
        };
        // Before Linux 4.15 there was no list.
        let files = fs::read_to_string("/sys/kernel/cgroup/delegate")
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        v2::delegate(&mount.join(&self.path), uid, &files)
            .map_err(|e| Error::internal(format!("delegate the cgroup: {}", io_words(&e))))
    }

    /// What of these limits the host's version cannot do and leaves out, in words.
    pub fn lacking(&self, resources: &LinuxResources) -> Vec<&'static str> {
        match self.layout {
            Layout::V1(_) => Vec::new(),
            Layout::V2 { .. } => v2::lacking(resources),
        }
    }

    /// Puts the device rules in force; once, before any process of the container runs.
    pub fn confine_devices(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(rules) = resources
            .devices()
            .as_ref()
            .filter(|rules| !rules.is_empty())
        else {
            return Ok(());
        };
        match self.layout {
            Layout::V1(_) => v1::device_rules(rules)
                .chunk_by(|a, b| a.file == b.file)
                .try_for_each(|settings| self.write_in_turn(settings)),
            Layout::V2 { mount } => devices::attach(&mount.join(&self.path), rules).map_err(|e| {
                Error::internal(format!(
                    "error setting cgroup config for procHooks process: load device program: {}",
                    io_words(&e)
                ))
            }),
        }
    }

    /// Writes values to one file, which is opened once; each write is a command to the kernel.
    fn write_in_turn(&self, settings: &[Setting]) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        let Some(first) = settings.first() else {
            return Ok(());
        };
        let file = self.directory(first.controller).and_then(|directory| {
            fs::File::options()
                .write(true)
                .open(directory.join(&first.file))
                .ok()
        });
        match file {
            Some(file) => settings.iter().try_for_each(|setting| {
                let written = file.write_all_at(setting.value.as_bytes(), 0);
                written.map_err(|error| refused(setting, &io_words(&error)))
            }),
            // In the words of a single one that fails.
            None => settings.iter().try_for_each(|setting| self.write(setting)),
        }
    }

    fn write(&self, setting: &Setting) -> Result<(), Error> {
        let (file, value) = (&setting.file, &setting.value);
        let Some(directory) = self.directory(setting.controller) else {
            let reason = format!("the {} controller is not available", setting.controller);
            return if setting.optional {
                Ok(())
            } else {
                Err(refused(setting, &reason))
            };
        };
        match fs::write(directory.join(file), value) {
            Ok(()) => Ok(()),
            Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
            // cgroupfs refuses to create files, so a missing controller shows as a denied open.
            Err(error) if setting.optional && !directory.join(file).exists() => {
                drop(error);
                Ok(())
            }
            Err(error) => Err(refused(setting, &io_words(&error))),
        }
    }

    /// Every process in it and below it.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        let Some(directory) = self.directories().into_iter().next() else {
            return Ok(Vec::new());
        };
        let mut pids = Vec::new();
        let mut todo = vec![directory];
        while let Some(directory) = todo.pop() {
            let text = match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // A process of a pid namespace that we cannot see is listed as 0.
            pids.extend(
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .filter(|&pid: &i32| pid > 0),
            );
            for entry in fs::read_dir(&directory)?.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push(entry.path());
                }
            }
        }
        Ok(pids)
    }

    /// Signals every process.
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        if signal == libc::SIGKILL
            && let Layout::V2 { mount } = self.layout
            && fs::write(mount.join(&self.path).join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        let mut result = Ok(());
        for pid in self.pids()? {
            match berth_sys::signal::kill(pid, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => result = Err(error),
                _ => {}
            }
        }
        result
    }

    /// Freezes (`true`) or thaws every process, and returns when that is done.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        let directory = self
            .directory("freezer")
            .ok_or_else(|| io::Error::other("the freezer controller is not available"))?;
        match self.layout {
            Layout::V1(_) => v1::freeze(&directory, frozen),
            Layout::V2 { .. } => v2::freeze(&directory, frozen),
        }
    }

    /// Whether its processes are frozen, or are about to be.
    pub fn is_frozen(&self) -> bool {
        let (file, frozen) = match self.layout {
            Layout::V1(_) => ("freezer.state", ["FROZEN", "FREEZING"].as_slice()),
            Layout::V2 { .. } => ("cgroup.freeze", ["1"].as_slice()),
        };
        self.directory("freezer")
            .and_then(|directory| fs::read_to_string(directory.join(file)).ok())
            .is_some_and(|state| frozen.contains(&state.trim()))
    }

    /// How many processes the kernel killed for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = match self.layout {
            Layout::V1(_) => "memory.oom_control",
            Layout::V2 { .. } => "memory.events",
        };
        self.directory("memory")
            .and_then(|directory| fs::read_to_string(directory.join(file)).ok())
            .and_then(|text| flat_key(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// Removes it if nothing is in it, without waiting.
    pub fn try_remove(&self) -> io::Result<()> {
        self.directories()
            .iter()
            .try_for_each(|directory| match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
    }

    /// Removes it and what the container made below it. Idempotent. Waits shortly for processes
    /// that are dying; goes on past failures and returns the first.
    pub fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for directory in self.directories() {
            let mut tries = 0;
            let removed = loop {
                match remove_tree(&directory) {
                    Err(error)
                        if error.raw_os_error() == Some(libc::EBUSY) && tries < REMOVE_TRIES =>
                    {
                        tries += 1;
                        let pause = std::time::Duration::from_millis(REMOVE_PAUSE_MS);
                        std::thread::sleep(pause);
                    }
                    other => break other,
                }
            };
            if result.is_ok() {
                result = removed;
            }
        }
        result
    }
}

/// In the words of runc.
fn refused(setting: &Setting, reason: &str) -> Error {
    let (file, value) = (&setting.file, &setting.value);
    Error::invalid(format!(
        "error setting cgroup config for procHooks process: failed to write {value:?} to {file}: \
         {reason}"
    ))
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// A value of a file of `key value` lines.
fn flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests;
