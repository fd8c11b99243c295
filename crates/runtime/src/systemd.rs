//! Cgroups that systemd hands out: scopes, which it makes on request, counts as units of its own,
//! and (`Delegate=yes`) leaves alone below their top (systemd's CGROUP_DELEGATION.md).
//!
//! A scope begins with a process in it and ends with its last one. So one is started around a
//! [`Holder`], a child that does nothing, and the holder goes when somebody lives there.

use std::fs;
use std::io;
use std::path::Path;

use berth_base::Chain;
use berth_sys::dbus::Value;
use berth_sys::fork::{self, Fork};
use oci_spec::runtime::{LinuxResources, Spec};
use rustix::process::{Pid, Signal};

use crate::cgroup::{Cgroup, Layout};
use crate::error::{Error, io_words};

mod bus;
mod properties;
mod unit;

use bus::Bus;
use properties::Property;
pub use unit::Unit;

/// There exactly when systemd is process 1 (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// The daemons of all instances are below it.
const SLICE: &str = "berth.slice";
/// Below an instance's scope: the launcher and the keepers.
const KEEPERS: &str = "/keepers";
/// How long processes are given between SIGTERM and SIGKILL when the machine goes down: as much
/// as Docker gives.
const STOP_TIMEOUT_US: u64 = 15_000_000;
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Whether systemd runs this system.
pub fn is_running() -> bool {
    Path::new(BOOTED).is_dir()
}

/// Keeps a scope alive until it has a process of its own; dropping it ends that.
#[derive(Debug)]
pub struct Holder {
    pid: Pid,
}

impl Holder {
    /// The process must have a single thread.
    fn fork() -> Result<Self, Error> {
        let fail = |error: io::Error| Error::internal(format!("fork: {}", io_words(&error)));
        match fork::fork().map_err(fail)? {
            Fork::Parent { child } => Pid::from_raw(child)
                .map(|pid| Self { pid })
                .ok_or_else(|| Error::internal("fork: no process")),
            Fork::Child => {
                berth_sys::signal::reset();
                // Without it, it would stay behind a parent that is killed just now.
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                loop {
                    rustix::event::pause();
                }
            }
        }
    }

    fn pids(&self) -> Value {
        let pid = self.pid.as_raw_nonzero().get().unsigned_abs();
        Value::array("u", vec![Value::Uint32(pid)])
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is a child that has not been waited for, so both concern it and no other.
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
    }
}

/// A container's scope (`runtime --systemd-cgroup`), with its limits as the unit's properties:
/// systemd writes these again whenever it likes (`daemon-reload`), and what it does not know is
/// lost then. Hold it until the container's process is in the cgroup.
pub fn start_scope(unit: &Unit, id: &str, spec: &Spec) -> Result<Holder, Error> {
    let holder = Holder::fork()?;
    let linux = spec.linux().as_ref();
    let is_v2 = matches!(Layout::host()?, Layout::V2 { .. });
    let mut all = properties::of_container(unit, id, is_v2);
    all.push(("PIDs", holder.pids()));
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        all.extend(properties::of_limits(resources, is_v2)?);
    }
    let mut all: Vec<Value> = all.into_iter().map(pair).collect();
    all.extend(properties::of_annotations(spec.annotations().as_ref())?);
    Bus::connect()
        .and_then(|mut bus| start(&mut bus, unit, all))
        .map_err(|error| refused(unit, &error))?;
    Ok(holder)
}

/// Changes the limits of a container's scope, besides those of its cgroup.
pub fn update_scope(unit: &Unit, resources: &LinuxResources) -> Result<(), Error> {
    let is_v2 = matches!(Layout::host()?, Layout::V2 { .. });
    let limits = properties::of_limits(resources, is_v2)?;
    let limits = limits.into_iter().map(pair).collect();
    let args = [
        unit.name().into(),
        // Not beyond the next boot.
        Value::Bool(true),
        Value::array("(sv)", limits),
    ];
    Bus::connect()
        .and_then(|mut bus| bus.manager("SetUnitProperties", &args).map(drop))
        .map_err(|error| refused(unit, &error))
}

/// Ends a container's scope, if its end did not end it. Idempotent.
pub fn stop_scope(unit: &Unit) -> Result<(), Error> {
    let args = [unit.name().into(), "replace".into()];
    let stopped = Bus::connect().and_then(|mut bus| bus.job(unit.name(), "StopUnit", &args));
    match stopped {
        Err(error) if error.is(NO_SUCH_UNIT) => Ok(()),
        other => other.map_err(|error| refused(unit, &error)),
    }
}

fn start(bus: &mut Bus, unit: &Unit, properties: Vec<Value>) -> Result<(), bus::Error> {
    let args = [
        unit.name().into(),
        "replace".into(),
        Value::array("(sv)", properties),
        Value::array("(sa(sv))", Vec::new()),
    ];
    bus.job(unit.name(), "StartTransientUnit", &args)
}

fn pair((name, value): Property) -> Value {
    Value::Struct(vec![name.into(), value.variant()])
}

fn refused(unit: &Unit, error: &bus::Error) -> Error {
    Error::internal(format!(
        "unable to apply cgroup configuration: unable to start unit {:?}: {}",
        unit.name(),
        Chain(error)
    ))
}

/// Where an instance's keepers and containers live.
#[derive(Debug)]
pub struct Place {
    /// Below each hierarchy's root, for example `/berth.slice/berth.scope`.
    pub cgroup: String,
    /// systemd's: it removes the cgroup when nobody lives there any more.
    pub is_scope: bool,
    /// Why it is no scope although systemd runs.
    pub warning: Option<String>,
    /// To be held until the launcher is in it.
    holder: Option<Holder>,
}

impl Place {
    /// Finds the place, and with cgroup version 2 under systemd obtains it: a delegated scope of
    /// the instance's name. The process must have a single thread.
    ///
    /// Not the cgroup of the daemon's own service, although that can be delegated, too: it must
    /// be empty when the service starts again (no processes in inner nodes: otherwise the start fails
    /// with 219/CGROUP), and containers outlive the service. With version 1 systemd
    /// keeps to units of its own in its own hierarchy, and there is no rule to break.
    pub fn obtain(instance: &str) -> Result<Self, Error> {
        let own = format!("/{instance}");
        let direct = |warning| Self {
            cgroup: own.clone(),
            is_scope: false,
            warning,
            holder: None,
        };
        let Layout::V2 { mount } = Layout::host()? else {
            return Ok(direct(None));
        };
        // Containers of a daemon that found no systemd stay where they are, and so do we.
        if !is_running() || is_populated(&mount.join(instance)) {
            return Ok(direct(None));
        }
        let unit = Unit::new(SLICE, &format!("{instance}.scope"))?;
        match delegated(&unit, mount) {
            Ok(holder) => Ok(Self {
                cgroup: unit.cgroup(),
                is_scope: true,
                warning: None,
                holder: Some(holder),
            }),
            Err(error) if is_populated(&mount.join(unit.cgroup().trim_start_matches('/'))) => {
                Ok(Self {
                    cgroup: unit.cgroup(),
                    is_scope: true,
                    warning: Some(error.message),
                    holder: None,
                })
            }
            Err(error) => Ok(direct(Some(error.message))),
        }
    }

    /// Where the launcher and the keepers live.
    pub fn keepers(&self) -> String {
        format!("{}{KEEPERS}", self.cgroup)
    }

    /// Puts the launcher into a scope that was obtained. (Elsewhere it goes by itself.)
    pub fn settle(&mut self, launcher: Pid) -> Result<(), Error> {
        let Some(_holder) = self.holder.take() else {
            return Ok(());
        };
        let cgroup = Cgroup::new(&self.keepers())?;
        for directory in cgroup.directories() {
            fs::write(
                directory.join("cgroup.procs"),
                launcher.as_raw_nonzero().to_string(),
            )
            .map_err(|error| {
                Error::internal(format!(
                    "enter {}: {}",
                    directory.display(),
                    io_words(&error)
                ))
            })?;
        }
        Ok(())
    }
}

/// Starts the scope, or enters the one that containers of an earlier daemon live in.
fn delegated(unit: &Unit, mount: &Path) -> Result<Holder, Error> {
    let holder = Holder::fork()?;
    let mut bus = Bus::connect().map_err(|error| refused(unit, &error))?;
    // By systemd itself, which so sees that the scope is not empty: a launcher that ends just now
    // may have been its last process.
    let args = [unit.name().into(), KEEPERS.into(), holder.pids()];
    if bus.manager("AttachProcessesToUnit", &args).is_ok() {
        return Ok(holder);
    }
    let mut all = vec![
        (
            "Description",
            "Containers of Berth and their keepers".into(),
        ),
        ("Slice", unit.slice().into()),
        ("Delegate", Value::Bool(true)),
        ("CollectMode", "inactive-or-failed".into()),
        ("TasksMax", Value::Uint64(u64::MAX)),
        ("TimeoutStopUSec", Value::Uint64(STOP_TIMEOUT_US)),
        ("PIDs", holder.pids()),
    ];
    if let Some(service) = own_service() {
        // When the machine goes down, the daemon first: it must not start again what ends.
        all.push(("Before", Value::array("s", vec![service.as_str().into()])));
    }
    start(&mut bus, unit, all.into_iter().map(pair).collect())
        .map_err(|error| refused(unit, &error))?;
    // The scope's own cgroup will have controllers for those below, and then takes no processes.
    let keepers = mount.join(format!(
        "{}{KEEPERS}",
        unit.cgroup().trim_start_matches('/')
    ));
    let pid = holder.pid.as_raw_nonzero().to_string();
    let moved = match fs::create_dir(&keepers) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::write(keepers.join("cgroup.procs"), pid),
    };
    moved.map_err(|error| {
        Error::internal(format!("enter {}: {}", keepers.display(), io_words(&error)))
    })?;
    Ok(holder)
}

/// The unit that this process is the service of.
fn own_service() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.rsplit('/')
        .find(|name| name.ends_with(".service"))
        .map(str::to_owned)
}

/// Whether a version 2 cgroup has a living process in it or below.
fn is_populated(directory: &Path) -> bool {
    fs::read_to_string(directory.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}
