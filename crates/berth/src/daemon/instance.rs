//! What an instance is called and where it lives. Many run side by side: every name of a kernel
//! object derives from the data root, and locks keep two daemons off the same directories.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::settings::Settings;

pub const DATA_ROOT: &str = "/var/lib/berth";
pub const EXEC_ROOT: &str = "/run/berth";
/// A container's root leaves setuid programs in volumes, which no user of the host may reach.
const DATA_ROOT_MODE: u32 = 0o710;
/// Clients that name no daemon ask here.
pub const SOCKET: &str = "/run/berth/berth.sock";

/// One daemon's directories and names. The locks last as long as this value.
#[derive(Debug)]
pub struct Instance {
    /// `berth`, or `berth-` and six digits.
    pub name: String,
    /// `berth0`, or `br-` and the same digits.
    pub bridge: String,
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    pub pidfile: PathBuf,
    _locks: [File; 2],
}

impl Instance {
    /// Makes the directories and takes their locks.
    pub fn claim(settings: &Settings) -> Result<Self> {
        let data_root = directory(
            settings
                .data_root
                .as_deref()
                .unwrap_or(Path::new(DATA_ROOT)),
            DATA_ROOT_MODE,
        )?;
        // Also where somebody else has made it.
        std::fs::set_permissions(&data_root, Permissions::from_mode(DATA_ROOT_MODE))
            .with_context(|| format!("protect {}", data_root.display()))?;
        let exec_root = directory(
            settings
                .exec_root
                .as_deref()
                .unwrap_or(Path::new(EXEC_ROOT)),
            0o711,
        )?;
        let locks = [lock(&data_root)?, lock(&exec_root)?];
        let (name, bridge) = names(&data_root);
        let pidfile = settings
            .pidfile
            .clone()
            .unwrap_or_else(|| exec_root.join("berth.pid"));
        write_pidfile(&pidfile)?;
        Ok(Self {
            name,
            bridge,
            data_root,
            exec_root,
            pidfile,
            _locks: locks,
        })
    }

    /// The lock of what this instance's launchers have on its way.
    pub fn births(&self) -> PathBuf {
        self.exec_root.join("launcher.lock")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A missing file is what we want; anything else is told by the next start.
        let _ = std::fs::remove_file(&self.pidfile);
    }
}

fn names(data_root: &Path) -> (String, String) {
    if data_root == Path::new(DATA_ROOT) {
        return ("berth".to_owned(), "berth0".to_owned());
    }
    let digest = berth_oci::Digest::of(data_root.as_os_str().as_encoded_bytes());
    let digits = &digest.hex()[..6];
    (format!("berth-{digits}"), format!("br-{digits}"))
}

fn directory(path: &Path, mode: u32) -> Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("create {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("resolve {}", path.display()))
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("daemon.lock");
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // The holder's number is for the message only.
        let _ = file.read_to_string(&mut holder);
        bail!(
            "{} is in use by another daemon (process {}); stop it, or give this one its own --data-root and --exec-root",
            root.display(),
            holder.trim()
        );
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .with_context(|| format!("write {}", path.display()))?;
    write!(file, "{}", std::process::id()).with_context(|| format!("write {}", path.display()))?;
    Ok(file)
}

fn write_pidfile(path: &Path) -> Result<()> {
    if let Ok(text) = std::fs::read_to_string(path)
        && let Ok(pid) = text.trim().parse::<u32>()
        && pid != std::process::id()
        && is_daemon(pid)
    {
        bail!(
            "process with PID {pid} is still running (pidfile {})",
            path.display()
        );
    }
    std::fs::write(path, std::process::id().to_string())
        .with_context(|| format!("write {}", path.display()))
}

/// Whether the process runs the same program as we do; another one may have taken its number.
fn is_daemon(pid: u32) -> bool {
    let program = |path: String| std::fs::read_link(path).ok();
    let other = program(format!("/proc/{pid}/exe"));
    other.is_some() && other == program("/proc/self/exe".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_derive_from_the_data_root() {
        assert_eq!(
            names(Path::new(DATA_ROOT)),
            ("berth".into(), "berth0".into())
        );
        let (name, bridge) = names(Path::new("/tmp/other"));
        assert_eq!((name.len(), bridge.len()), (12, 9));
        assert_ne!(names(Path::new("/tmp/another")).0, name);
    }

    #[test]
    fn two_daemons_cannot_share_a_root() {
        let root = std::env::temp_dir().join(format!("berth-instance-{}", std::process::id()));
        let settings = Settings {
            data_root: Some(root.join("data")),
            exec_root: Some(root.join("exec")),
            ..Settings::default()
        };
        let first = Instance::claim(&settings).unwrap();
        let other = Settings {
            exec_root: Some(root.join("other")),
            ..settings
        };
        let message = Instance::claim(&other).unwrap_err().to_string();
        assert!(
            message.contains(&format!(
                "in use by another daemon (process {})",
                std::process::id()
            )),
            "{message}"
        );
        drop(first);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
