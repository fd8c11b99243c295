//! The options of the local driver (moby, `volume/local/local_unix.go`): with `type`, `device` and
//! `o` a volume is a file system, which is mounted as mount(2) would be told to.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use berth_runtime::error::io_words;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::error::{Error, Result};

const KNOWN: [&str; 4] = ["type", "o", "device", "size"];
/// What an option is nothing without.
const NEEDS: [(&str, &[&str]); 3] = [
    ("device", &["type"]),
    ("type", &["device"]),
    ("o", &["device", "type"]),
];

/// What a volume with options has mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    typ: String,
    device: String,
    options: String,
}

/// Refuses, in Docker's words, options that no volume can have.
pub fn check(options: &BTreeMap<String, String>) -> Result<()> {
    if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Error::invalid(format!("invalid option: {unknown:?}")));
    }
    if let Some(size) = options.get("size") {
        let bytes = berth_base::size::parse_binary(size)
            .map_err(|_| Error::invalid(format!("invalid size: '{size}'")))?;
        if bytes > 0 {
            return Err(Error::invalid("quota size requested but no quota support"));
        }
    }
    for (option, needed) in NEEDS {
        let missing = needed.iter().find(|needed| !options.contains_key(**needed));
        if let (true, Some(missing)) = (options.contains_key(option), missing) {
            return Err(Error::invalid(format!(
                "missing required option: {missing:?}"
            )));
        }
    }
    Ok(())
}

impl FileSystem {
    /// What these options mount; `None` for a plain directory.
    pub fn of(options: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| options.get(key).cloned().unwrap_or_default();
        let (typ, device) = (get("type"), get("device"));
        (!typ.is_empty() || !device.is_empty()).then(|| Self {
            typ,
            device,
            options: get("o"),
        })
    }

    /// Mounts it on a directory, in the daemon's own mount namespace. Blocks, for as long as a
    /// server of files does not answer.
    ///
    /// # Errors
    /// The sentence of Docker; a password among the options is not repeated.
    pub fn mount(&self, target: &Path) -> Result<()> {
        if self.device.is_empty() {
            return Err(Error::internal("missing device in volume options"));
        }
        let (device, options) = self.resolved(&address_of).map_err(|reason| {
            let what = "error resolving passed in network volume address";
            Error::internal(format!("{what}: {reason}"))
        })?;
        self.try_mount(target, &device, &options).map_err(|reason| {
            let reason = match password(&self.options) {
                Some(password) => {
                    reason.replacen(&format!("password={password}"), "password=********", 1)
                }
                None => reason,
            };
            Error::internal(format!("failed to mount local volume: {reason}"))
        })
    }

    fn try_mount(
        &self,
        target: &Path,
        device: &str,
        options: &str,
    ) -> std::result::Result<(), String> {
        let words = Words::parse(options);
        let failed = |operation: &str, flags: u32, errno: Errno| {
            let mut text = format!("{operation} ");
            if operation == "mount" {
                text.push_str(&format!("{device}:"));
            }
            text.push_str(&target.display().to_string());
            if flags != 0 {
                text.push_str(&format!(", flags: {flags:#x}"));
            }
            if operation == "mount" && !words.data.is_empty() {
                text.push_str(&format!(", data: {}", words.data));
            }
            format!("{text}: {}", io_words(&errno.into()))
        };
        let data = CString::new(words.data.as_str()).map_err(|_| "a NUL byte".to_owned())?;
        let flags = MountFlags::from_bits_retain(words.flags);
        rustix::mount::mount(device, target, &self.typ, flags, data.as_c_str())
            .map_err(|errno| failed("mount", words.flags, errno))?;
        self.finish(target, &words, &failed).inspect_err(|_| {
            rustix::mount::unmount(target, UnmountFlags::DETACH).ok();
        })
    }

    /// What takes further calls: propagation, and a bind that is read-only.
    fn finish(
        &self,
        target: &Path,
        words: &Words,
        failed: &dyn Fn(&str, u32, Errno) -> String,
    ) -> std::result::Result<(), String> {
        if words.propagation != 0 {
            let flags = MountPropagationFlags::from_bits_retain(words.propagation);
            rustix::mount::mount_change(target, flags)
                .map_err(|errno| failed("remount", words.propagation, errno))?;
        }
        let bind_and_read_only = flag::BIND | flag::RDONLY;
        if words.flags & bind_and_read_only == bind_and_read_only {
            let flags = MountFlags::from_bits_retain(words.flags);
            rustix::mount::mount_remount(target, flags, c"")
                .map_err(|errno| failed("remount-ro", words.flags | flag::REMOUNT, errno))?;
        }
        Ok(())
    }

    /// Device and options with addresses for names, which the kernel does not know: that in `addr=`,
    /// or else the server's in the device of a CIFS share.
    fn resolved(
        &self,
        resolve: &dyn Fn(&str) -> std::result::Result<IpAddr, String>,
    ) -> std::result::Result<(String, String), String> {
        let (mut device, mut options) = (self.device.clone(), self.options.clone());
        let is_name = |name: &str| !name.is_empty() && name.parse::<IpAddr>().is_err();
        let is_network = matches!(self.typ.as_str(), "nfs" | "cifs");
        let mut words = options.split(',');
        let address = words.find_map(|word| word.strip_prefix("addr="));
        match address.filter(|address| !address.is_empty()) {
            Some(name) if is_network && is_name(name) => {
                let (from, to) = (format!("addr={name}"), format!("addr={}", resolve(name)?));
                options = options.replacen(&from, &to, 1);
            }
            None if self.typ == "cifs" => {
                if let Some(rest) = device.strip_prefix("//") {
                    let (server, share) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    if is_name(server) {
                        device = format!("//{}{share}", resolve(server)?);
                    }
                }
            }
            _ => {}
        }
        Ok((device, options))
    }
}

/// Blocks.
fn address_of(name: &str) -> std::result::Result<IpAddr, String> {
    // The library's own words differ between libraries.
    let found = (name, 0).to_socket_addrs().ok();
    let mut found = found.into_iter().flatten().map(|address| address.ip());
    found
        .next()
        .ok_or_else(|| format!("lookup {name}: no such host"))
}

fn password(options: &str) -> Option<&str> {
    options
        .split(',')
        .find_map(|word| word.strip_prefix("password="))
        .filter(|password| !password.is_empty())
}

/// The flags of mount(2).
mod flag {
    pub const RDONLY: u32 = 1;
    pub const NOSUID: u32 = 2;
    pub const NODEV: u32 = 4;
    pub const NOEXEC: u32 = 8;
    pub const SYNCHRONOUS: u32 = 16;
    pub const REMOUNT: u32 = 32;
    pub const MANDLOCK: u32 = 64;
    pub const DIRSYNC: u32 = 128;
    pub const NOATIME: u32 = 1 << 10;
    pub const NODIRATIME: u32 = 1 << 11;
    pub const BIND: u32 = 1 << 12;
    pub const REC: u32 = 1 << 14;
    pub const UNBINDABLE: u32 = 1 << 17;
    pub const PRIVATE: u32 = 1 << 18;
    pub const SLAVE: u32 = 1 << 19;
    pub const SHARED: u32 = 1 << 20;
    pub const RELATIME: u32 = 1 << 21;
    pub const STRICTATIME: u32 = 1 << 24;
}

/// An option list, told apart as mount(8) does (moby/sys, `mount/flags_unix.go`).
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    flags: u32,
    propagation: u32,
    data: String,
}

impl Words {
    fn parse(options: &str) -> Self {
        let mut words = Self::default();
        let mut data = Vec::new();
        for word in options.split(',').filter(|word| !word.is_empty()) {
            if let Some(bits) = propagation(word) {
                words.propagation = bits;
            } else if let Some((set, clear)) = flags(word) {
                words.flags = words.flags & !clear | set;
            } else {
                data.push(word);
            }
        }
        words.data = data.join(",");
        words
    }
}

fn propagation(word: &str) -> Option<u32> {
    Some(match word {
        "private" => flag::PRIVATE,
        "rprivate" => flag::PRIVATE | flag::REC,
        "shared" => flag::SHARED,
        "rshared" => flag::SHARED | flag::REC,
        "slave" => flag::SLAVE,
        "rslave" => flag::SLAVE | flag::REC,
        "unbindable" => flag::UNBINDABLE,
        "runbindable" => flag::UNBINDABLE | flag::REC,
        _ => return None,
    })
}

/// What a word sets and clears.
fn flags(word: &str) -> Option<(u32, u32)> {
    Some(match word {
        "defaults" => (0, 0),
        "ro" => (flag::RDONLY, 0),
        "rw" => (0, flag::RDONLY),
        "nosuid" => (flag::NOSUID, 0),
        "suid" => (0, flag::NOSUID),
        "nodev" => (flag::NODEV, 0),
        "dev" => (0, flag::NODEV),
        "noexec" => (flag::NOEXEC, 0),
        "exec" => (0, flag::NOEXEC),
        "sync" => (flag::SYNCHRONOUS, 0),
        "async" => (0, flag::SYNCHRONOUS),
        "dirsync" => (flag::DIRSYNC, 0),
        "remount" => (flag::REMOUNT, 0),
        "mand" => (flag::MANDLOCK, 0),
        "nomand" => (0, flag::MANDLOCK),
        "noatime" => (flag::NOATIME, 0),
        "atime" => (0, flag::NOATIME),
        "nodiratime" => (flag::NODIRATIME, 0),
        "diratime" => (0, flag::NODIRATIME),
        "relatime" => (flag::RELATIME, 0),
        "norelatime" => (0, flag::RELATIME),
        "strictatime" => (flag::STRICTATIME, 0),
        "nostrictatime" => (0, flag::STRICTATIME),
        "bind" => (flag::BIND, 0),
        "rbind" => (flag::BIND | flag::REC, 0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        text.split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn what_no_volume_can_be_is_refused_in_dockers_words() {
        let refusal = |text: &str| check(&options(text)).unwrap_err().message;
        assert_eq!(refusal("foo=bar"), "invalid option: \"foo\"");
        assert_eq!(refusal("type=tmpfs"), "missing required option: \"device\"");
        assert_eq!(refusal("device=/x"), "missing required option: \"type\"");
        assert_eq!(refusal("o=bind"), "missing required option: \"device\"");
        assert_eq!(
            refusal("size=1g"),
            "quota size requested but no quota support"
        );
        assert_eq!(refusal("size=x"), "invalid size: 'x'");
        check(&options("type=none device=/srv o=bind")).unwrap();
        check(&options("type= device=tmpfs")).unwrap();
    }

    #[test]
    fn options_are_told_apart() {
        let words = Words::parse("rbind,ro,size=1m,rslave,,rw,uid=7");
        assert_eq!(words.flags, flag::BIND | flag::REC);
        assert_eq!(words.propagation, flag::SLAVE | flag::REC);
        assert_eq!(words.data, "size=1m,uid=7");
    }

    #[test]
    fn names_of_servers_become_addresses() {
        let check = |typ: &str, device: &str, o: &str, expect: Option<(&str, &str)>| {
            let file_system = FileSystem {
                typ: typ.to_owned(),
                device: device.to_owned(),
                options: o.to_owned(),
            };
            let resolved = file_system.resolved(&|name| match name {
                "files" => Ok(IpAddr::from([10, 0, 0, 1])),
                _ => Err(format!("lookup {name}: no such host")),
            });
            let expect = expect.map(|(device, o)| (device.to_owned(), o.to_owned()));
            assert_eq!(resolved.ok(), expect, "{typ} {device} {o}");
        };
        let same = |typ, device, o| check(typ, device, o, Some((device, o)));
        check(
            "nfs",
            ":/x",
            "addr=files,rw",
            Some((":/x", "addr=10.0.0.1,rw")),
        );
        same("nfs", ":/x", "addr=10.1.1.1");
        same("nfs", "files:/x", "rw");
        check("nfs", ":/x", "addr=none", None);
        check("cifs", "//files/a/b", "ro", Some(("//10.0.0.1/a/b", "ro")));
        check("cifs", "//files", "", Some(("//10.0.0.1", "")));
        same("cifs", "//files/a", "addr=10.1.1.1");
        same("cifs", "//10.1.1.1/a", "");
        check("cifs", "//none/a", "", None);
        same("tmpfs", "//none/a", "addr=none");
    }

    #[test]
    fn a_password_is_not_repeated() {
        let file_system = FileSystem {
            typ: "no-such-type".to_owned(),
            device: "//server/share".to_owned(),
            options: "username=u,password=secret".to_owned(),
        };
        let message = file_system
            .mount(Path::new("/nonexistent"))
            .unwrap_err()
            .message;
        assert!(message.contains("password=********"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
