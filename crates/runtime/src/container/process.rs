//! From a process in its namespaces to the command: what the first process and those that join
//! later have in common.
//!
//! Runs inside the container's root. [`prepare`] does all that may fail for the user's fault;
//! [`execute`] is what is left after the order to start, and is kept short because the seccomp
//! filter may be in force for most of it.

use berth_sys::fork::exit_now;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::caps::{self, CapSet, Sets};
use berth_sys::exec::{self, CStrings};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, Rlimit};

use super::channel::{Channel, Order};
use super::command;
use super::spawn::Hooked;
use crate::caps::Caps;
use crate::error::{Error, ErrorKind, errno_words, io_words};
use crate::hooks::{self, Point};
use crate::plan::Process;
use crate::rootfs::devices;
use crate::rootfs::path::{self, Leaf};
use crate::seccomp::Filter;

/// A process that is ready to execute its command.
pub(super) struct Prepared {
    path: CString,
    args: CStrings,
    env: CStrings,
    caps: Option<Caps>,
    no_new_privileges: bool,
    die_with_parent: bool,
}

impl Prepared {
    /// The command and its arguments.
    pub(super) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.args.get().iter().map(|word| word.as_bytes())
    }
}

/// What the last steps need.
pub(super) struct Final<'a> {
    pub process: &'a Process,
    pub filter: Option<&'a Filter>,
    pub die_with_parent: bool,
    /// A proc file system that nothing of the container covers, if something is to be written.
    pub proc: Option<BorrowedFd<'a>>,
    /// Process 1 is the reaper.
    pub init: bool,
    /// A descriptor to keep open until the command is executed.
    pub hold: Option<BorrowedFd<'a>>,
    /// How many descriptors from 3 on the command gets.
    pub preserved: u32,
    /// The container's id, unless the process stays in the caller's session keyring.
    pub keyring: Option<&'a str>,
    pub hooked: Option<Hooked<'a>>,
    /// In a user namespace the caller sets what needs the host's root.
    pub has_user: bool,
}

/// From the container's root to the command. Never returns, and so drops nothing: every
/// descriptor but 0, 1, 2 and the channel is closed under its owner, before anything that the
/// container's files decide. A directory or a program named `/proc/self/fd/N` cannot be the
/// host's.
pub(super) fn finish(last: &Final<'_>, channel: &Channel) -> ! {
    let keep: Vec<BorrowedFd<'_>> = [Some(channel.as_fd()), last.proc, last.hold]
        .into_iter()
        .flatten()
        .collect();
    let closed = exec::close_all_but(3 + last.preserved, &keep)
        .and_then(|()| exec::pass_on_first(last.preserved))
        .map_err(|e| Error::internal(format!("close descriptors: {}", io_words(&e))));
    let prepared = match closed.and_then(|()| prepare(last, channel)) {
        Ok(prepared) => prepared,
        Err(error) => give_up(&error, channel),
    };
    if let Err(error) = channel.report_ready() {
        give_up(
            &Error::internal(format!("sync ready: {}", io_words(&error))),
            channel,
        );
    }
    match channel.order() {
        Ok(Order::Start) => {}
        // Nobody wants this process any more.
        _ => exit_now(1),
    }
    if let Err(error) = start_hooks(last) {
        give_up(&error, channel);
    }
    if let Err(error) = prepared.confine(last.filter, channel) {
        give_up(&error, channel);
    }
    if last.init {
        super::reaper::run(&prepared)
    } else {
        prepared.execute()
    }
}

/// The container's own hooks of its start, as root and with what the container may do at most.
fn start_hooks(last: &Final<'_>) -> Result<(), Error> {
    let Some(hooked) = &last.hooked else {
        return Ok(());
    };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let env = Some(last.process.env.as_slice());
    hooks::run(
        hooked.hooks,
        Point::StartContainer,
        &hooked.subject,
        pid,
        env,
    )
}

/// Reports why the command is not executed, and ends the process.
pub(super) fn give_up(error: &Error, channel: &Channel) -> ! {
    // If nobody listens any more, the exit code is all that is left to say.
    let _ = channel.report_failure(error);
    exit_now(1)
}

/// Sets everything but the filter and the capabilities, and finds the command.
///
/// Capabilities stay full until [`Prepared::confine`]: loading the filter without `no_new_privs`
/// needs CAP_SYS_ADMIN, and the filter comes last, so that it need not allow what we do before.
fn prepare(last: &Final<'_>, channel: &Channel) -> Result<Prepared, Error> {
    let (process, proc, die_with_parent) = (last.process, last.proc, last.die_with_parent);
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::internal(format!("open /: {}", errno_words(e))))?;
    let root = root.as_fd();
    if let Some(id) = last.keyring {
        keyring(id)?;
    }
    process.scheduling.apply()?;
    labels(process, proc)?;
    let caps = clamp(process, channel);
    if !last.has_user {
        limits(process, None)?;
        oom_score(process, proc, channel)?;
    }
    working_directory(root, &process.cwd)?;
    let env = switch_user(process, root, caps.as_ref())?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    let name = process
        .args
        .first()
        .ok_or_else(|| Error::invalid("args must not be empty"))?;
    let path = command::find(name, &env)?;
    Ok(Prepared {
        path,
        args: CStrings::new(process.args.clone()),
        env: CStrings::new(env),
        caps,
        no_new_privileges: process.no_new_privileges,
        die_with_parent,
    })
}

impl Prepared {
    /// Drops the last privileges and loads the filter.
    fn confine(&self, filter: Option<&Filter>, channel: &Channel) -> Result<(), Error> {
        let internal =
            |what: &str, e: &std::io::Error| Error::internal(format!("{what}: {}", io_words(e)));
        if self.die_with_parent {
            // After the change of ids, which clears it.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .map_err(|e| internal("set parent death signal", &e.into()))?;
        }
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|e| internal("set no_new_privs", &e.into()))?;
        }
        if let Some(filter) = filter {
            if !self.no_new_privileges {
                raise(CapSet::one(caps::CAP_SYS_ADMIN))
                    .map_err(|e| internal("raise CAP_SYS_ADMIN", &e))?;
            }
            let listener = filter
                .load()
                .map_err(|e| internal("error loading seccomp filter into kernel", &e))?;
            if let Some(listener) = listener
                && !channel
                    .report_listener(listener.as_raw_fd())
                    .map_err(|e| internal("report the seccomp listener", &e))?
            {
                // Nobody wants this process any more.
                exit_now(1);
            }
        }
        if let Some(caps) = &self.caps {
            caps::set(Sets {
                effective: caps.effective,
                permitted: caps.permitted,
                inheritable: caps.inheritable,
            })
            .map_err(|e| internal("unable to apply caps", &e))?;
            for ambient in caps.ambient.iter() {
                caps::raise_ambient(ambient).map_err(|e| internal("unable to apply caps", &e))?;
            }
        }
        Ok(())
    }

    /// Executes the command. When the kernel refuses it, the process ends as runc's does: the
    /// container has started, says why on its stderr, and exits with 255.
    pub fn execute(&self) -> ! {
        let error = exec::execve(&self.path, &self.args, &self.env);
        let path = self.path.to_string_lossy();
        let line = format!("exec {path}: {}\n", io_words(&error));
        // Nobody is left to tell if stderr is closed.
        let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
        exit_now(255)
    }
}

/// Refuses a label that nothing on this host enforces. (A profile of AppArmor is refused by the
/// kernel.)
pub(super) fn check_label(process: &Process) -> Result<(), Error> {
    /// From linux/magic.h.
    const SELINUX_MAGIC: rustix::fs::FsWord = 0xf97c_ff8c;
    let is_enabled =
        || rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|stat| stat.f_type == SELINUX_MAGIC);
    match &process.selinux {
        Some(_) if !is_enabled() => Err(Error::invalid(
            "selinux label is specified in config, but selinux is disabled or not supported",
        )),
        _ => Ok(()),
    }
}

fn labels(process: &Process, proc: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let write = |file: &str, what: &str, text: String| {
        write_proc(proc, file, &text)
            .map_err(|e| Error::internal(format!("unable to apply {what}: {}", io_words(&e))))
    };
    if let Some(profile) = &process.apparmor {
        write(
            "thread-self/attr/apparmor/exec",
            "apparmor profile",
            format!("exec {profile}"),
        )
        .or_else(|_| {
            write(
                "thread-self/attr/exec",
                "apparmor profile",
                format!("exec {profile}"),
            )
        })?;
    }
    if let Some(label) = &process.selinux {
        write("thread-self/attr/exec", "selinux label", label.clone())?;
    }
    Ok(())
}

/// Writes below a proc file system that nothing of the container covers: the container's own
/// /proc might have a mount of the user over the file, and the write would go astray.
pub(super) fn write_proc(
    proc: Option<BorrowedFd<'_>>,
    file: &str,
    text: &str,
) -> std::io::Result<()> {
    // There is one whenever something is to be written.
    let proc = proc.ok_or(std::io::ErrorKind::NotFound)?;
    // thread-self is a link of proc itself.
    let file = match file.strip_prefix("thread-self/") {
        Some(rest) => {
            let link = rustix::fs::readlinkat(proc, "thread-self", Vec::new())?;
            Path::new(OsStr::from_bytes(link.as_bytes())).join(rest)
        }
        None => Path::new(file).to_owned(),
    };
    let fd = path::open_same_mount(proc, &file, OFlags::WRONLY)?;
    rustix::io::write(&fd, text.as_bytes())?;
    Ok(())
}

/// A session keyring that all processes of the container share and nobody else has. A kernel
/// without keyrings has none to share.
fn keyring(id: &str) -> Result<(), Error> {
    let name = CString::new(format!("_ses.{id}"))
        .map_err(|_| Error::invalid("a NUL byte in the container's id"))?;
    match berth_sys::keyring::join_session(&name) {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => Err(Error::internal(format!(
            "unable to join session keyring: {}",
            io_words(&error)
        ))),
        _ => Ok(()),
    }
}

fn clamp(process: &Process, channel: &Channel) -> Option<Caps> {
    let caps = process.caps?;
    let available = caps::get()
        .map(|sets| sets.permitted)
        .unwrap_or_default()
        .and(caps::bounding());
    let (clamped, missing) = caps.clamp(available);
    let (settled, unraised) = clamped.settle_ambient();
    for (what, set) in [
        ("ignoring unavailable capabilities", missing),
        (
            "can't raise ambient capabilities that are not inheritable",
            unraised,
        ),
    ] {
        if set != CapSet::default() {
            let names = crate::caps::names(set);
            // A warning that does not arrive changes nothing.
            let _ = channel.report_warning(&format!("{what}: {names}"));
        }
    }
    Some(settled)
}

/// Sets the limits of this process, or of another one.
pub(super) fn limits(process: &Process, pid: Option<Pid>) -> Result<(), Error> {
    for limit in &process.rlimits {
        let value = |value: u64| (value != u64::MAX).then_some(value);
        let new = Rlimit {
            current: value(limit.soft),
            maximum: value(limit.hard),
        };
        rustix::process::prlimit(pid, limit.resource, new).map_err(|errno| {
            let (number, reason) = (limit.number, errno_words(errno));
            Error::invalid(format!("error setting rlimits for ready process: error setting rlimit type {number}: {reason}"))
        })?;
    }
    Ok(())
}

fn oom_score(
    process: &Process,
    proc: Option<BorrowedFd<'_>>,
    channel: &Channel,
) -> Result<(), Error> {
    let Some(score) = process.oom_score_adj else {
        return Ok(());
    };
    match write_proc(proc, "thread-self/oom_score_adj", &score.to_string()) {
        Ok(()) => Ok(()),
        // Lower than our own needs CAP_SYS_RESOURCE, which a nested root lacks.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let _ = channel.report_warning(&format!("cannot set oom_score_adj to {score}"));
            Ok(())
        }
        Err(error) => Err(Error::internal(format!(
            "unable to set oom_score_adj: {}",
            io_words(&error)
        ))),
    }
}

/// As [`oom_score`], of a process in a user namespace, which may not touch the file itself.
pub(super) fn oom_score_of(pid: Pid, score: i32) -> Result<(), Error> {
    let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    match std::fs::write(file, score.to_string()) {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => Err(Error::internal(
            format!("unable to set oom_score_adj: {}", io_words(&error)),
        )),
        // Lower than our own needs CAP_SYS_RESOURCE, which a nested root lacks.
        _ => Ok(()),
    }
}

/// Enters the directory, made when missing (as root, before the user is switched, as runc does).
fn working_directory(root: BorrowedFd<'_>, cwd: &Path) -> Result<(), Error> {
    let fail = |errno| {
        let kind = match errno {
            Errno::ACCESS | Errno::NOTDIR => ErrorKind::CommandNotExecutable,
            _ => ErrorKind::InvalidRequest,
        };
        Error::new(
            kind,
            format!(
                "chdir to cwd ({:?}) set in config.json failed: {}",
                cwd.display(),
                errno_words(errno)
            ),
        )
    };
    // The descriptor is one below the root, and magic links are not followed: a cwd of
    // /proc/self/fd/N cannot lead to what a descriptor of ours stands on.
    let place = path::locate_or_make(root, cwd, Leaf::Directory).map_err(fail)?;
    rustix::process::fchdir(&place).map_err(fail)
}

/// Takes on the ids, keeping the permitted capabilities, and returns the environment with HOME.
fn switch_user(
    process: &Process,
    root: BorrowedFd<'_>,
    caps: Option<&Caps>,
) -> Result<Vec<CString>, Error> {
    let mut env = process.env.clone();
    let uid = process.uid;
    // Whoever looked the user up has set it; a plain specification has not.
    if !env
        .iter()
        .any(|entry| entry.as_bytes().starts_with(b"HOME="))
        && let Ok(home) = CString::new(format!("HOME={}", crate::user::home(root, uid)?))
    {
        env.push(home);
    }
    own_stdio(
        [
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
        ],
        uid,
    );
    let fail = |what: &str, errno| {
        Error::internal(format!(
            "unable to setup user: {what}: {}",
            errno_words(errno)
        ))
    };
    if let Some(caps) = caps {
        for capability in caps::bounding().minus(caps.bounding).iter() {
            caps::drop_bounding(capability).map_err(|e| {
                Error::internal(format!("unable to apply bounding set: {}", io_words(&e)))
            })?;
        }
        caps::clear_ambient()
            .map_err(|e| Error::internal(format!("unable to apply caps: {}", io_words(&e))))?;
    }
    let groups: Vec<Gid> = process.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).map_err(|e| fail("setgroups", e))?;
    let gid = Gid::from_raw(process.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| fail("setgid", e))?;
    if uid != 0 {
        rustix::thread::set_keep_capabilities(true).map_err(|e| fail("keepcaps", e))?;
    }
    let id = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(id, id, id).map_err(|e| fail("setuid", e))?;
    if uid != 0 && caps.is_none() {
        // No sets were asked for: a user has none, as after a plain setuid.
        caps::set(Sets::default()).map_err(|e| fail("capset", errno(&e)))?;
    }
    Ok(env)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Gives the standard descriptors to the user, so that /dev/stdout can be opened again.
pub(super) fn own_stdio(descriptors: [BorrowedFd<'_>; 3], uid: u32) {
    for fd in descriptors {
        if let Ok(stat) = rustix::fs::fstat(fd)
            && stat.st_uid != uid
            && !devices::is_null(fd)
            && FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            // A socket or a read-only place refuses; the descriptor itself works all the same.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
}

fn raise(capabilities: CapSet) -> std::io::Result<()> {
    let sets = caps::get()?;
    let effective = sets.effective.or(capabilities.and(sets.permitted));
    if effective == sets.effective {
        return Ok(());
    }
    caps::set(Sets { effective, ..sets })
}

/// Installs descriptors as 0, 1 and 2.
pub(super) fn install_stdio(fds: [&OwnedFd; 3]) -> std::io::Result<()> {
    for (target, fd) in (0..).zip(fds) {
        exec::install_stdio(fd.as_fd(), target)?;
    }
    Ok(())
}
