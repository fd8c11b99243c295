//! A seccomp profile of the user, in Docker's format, for one container on one machine.
//!
//! The format is the OCI specification's with conditions: a rule holds on some architectures,
//! with some capabilities, from some kernel on. Here they are decided, and what is left is the
//! runtime's (moby `profiles/seccomp`, whose words the refusals have).

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::invalid;
use super::security::CapabilitySet;
use crate::error::Result;

/// What the conditions are decided by.
pub struct Machine<'a> {
    /// Go's name of the architecture.
    pub architecture: &'a str,
    /// Version and patch level of the kernel.
    pub kernel: (u32, u32),
    /// The container's bounding set.
    pub capabilities: &'a CapabilitySet,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<Family>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The form of before Docker 1.12.
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    arches: Option<Vec<String>>,
    caps: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The filter that a profile's text means; none if it is empty.
///
/// # Errors
/// What is not JSON of that format, and what contradicts itself.
pub fn filter(text: &str, machine: &Machine<'_>) -> Result<Option<LinuxSeccomp>> {
    let profile: Profile = decode(serde_json::from_str(text))?;
    let rules = profile.syscalls.unwrap_or_default();
    if profile.default_action.is_empty() && rules.is_empty() {
        return Ok(None);
    }
    let families = profile.arch_map.unwrap_or_default();
    let listed = profile.architectures.filter(|list| !list.is_empty());
    if listed.is_some() && !families.is_empty() {
        return Err(invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ));
    }
    let native = native(machine.architecture);
    let family = families
        .into_iter()
        .find(|family| Some(family.architecture) == native)
        .map(|family| {
            let mut all = vec![family.architecture];
            all.extend(family.sub_architectures.unwrap_or_default());
            all
        });
    let mut syscalls = Vec::new();
    for rule in rules {
        if rule.holds(machine)? {
            syscalls.push(rule.into_syscall()?);
        }
    }
    let mut filter = LinuxSeccomp::default();
    filter.set_default_action(word(&profile.default_action)?);
    filter.set_default_errno_ret(profile.default_errno_ret);
    filter.set_architectures(listed.or(family));
    filter.set_flags(profile.flags.filter(|flags| !flags.is_empty()));
    filter.set_listener_path(profile.listener_path.filter(|p| !p.as_os_str().is_empty()));
    filter.set_listener_metadata(profile.listener_metadata.filter(|text| !text.is_empty()));
    filter.set_syscalls(Some(syscalls));
    Ok(Some(filter))
}

impl Rule {
    fn holds(&self, machine: &Machine<'_>) -> Result<bool> {
        if let Some(excluded) = &self.excludes
            && (excluded.names_architecture(machine)
                || excluded.capabilities().any(|cap| machine.has(cap))
                || excluded.kernel_reached(machine)?.unwrap_or(false))
        {
            return Ok(false);
        }
        let Some(included) = &self.includes else {
            return Ok(true);
        };
        let any_architecture = included.arches.iter().flatten().next().is_none();
        Ok((any_architecture || included.names_architecture(machine))
            && included.capabilities().all(|cap| machine.has(cap))
            && included.kernel_reached(machine)?.unwrap_or(true))
    }

    fn into_syscall(self) -> Result<LinuxSyscall> {
        let mut names = self.names.unwrap_or_default();
        if !self.name.is_empty() {
            if !names.is_empty() {
                return Err(invalid(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            names.push(self.name);
        }
        let mut syscall = LinuxSyscall::default();
        syscall.set_names(names);
        syscall.set_action(self.action);
        syscall.set_errno_ret(self.errno_ret);
        syscall.set_args(self.args.filter(|args| !args.is_empty()));
        Ok(syscall)
    }
}

impl Condition {
    fn names_architecture(&self, machine: &Machine<'_>) -> bool {
        let mut listed = self.arches.iter().flatten();
        listed.any(|name| name == machine.architecture)
    }

    fn capabilities(&self) -> impl Iterator<Item = &str> {
        self.caps.iter().flatten().map(String::as_str)
    }

    /// `None` without a condition on the kernel.
    fn kernel_reached(&self, machine: &Machine<'_>) -> Result<Option<bool>> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let wanted = text
            .split_once('.')
            .and_then(|(version, level)| Some((version.parse().ok()?, level.parse().ok()?)))
            .ok_or_else(|| {
                invalid(format!(
                    "Decoding seccomp profile failed: invalid kernel version: {text:?}"
                ))
            })?;
        Ok(Some(machine.kernel >= wanted))
    }
}

impl Machine<'_> {
    fn has(&self, name: &str) -> bool {
        let mut held = self.capabilities.iter();
        held.any(|capability| format!("CAP_{capability}") == name)
    }
}

/// Version and patch level from a kernel's release, `6.1.0-49-amd64`.
pub fn kernel(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn native(architecture: &str) -> Option<Arch> {
    match architecture {
        "amd64" => Some(Arch::ScmpArchX86_64),
        "arm64" => Some(Arch::ScmpArchAarch64),
        _ => None,
    }
}

fn word<T: DeserializeOwned>(text: &str) -> Result<T> {
    decode(serde_json::from_value(text.into()))
}

fn decode<T>(decoded: serde_json::Result<T>) -> Result<T> {
    decoded.map_err(|error| invalid(format!("Decoding seccomp profile failed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    fn on(
        text: &str,
        architecture: &str,
        capabilities: &[Capability],
    ) -> Result<Option<LinuxSeccomp>> {
        filter(
            text,
            &Machine {
                architecture,
                kernel: kernel("5.15.0-9-amd64"),
                capabilities: &capabilities.iter().copied().collect(),
            },
        )
    }

    /// The names of the rules that hold.
    fn names(text: &str, architecture: &str, capabilities: &[Capability]) -> Vec<String> {
        let filter = on(text, architecture, capabilities).unwrap().unwrap();
        let rules = filter.syscalls().iter().flatten();
        rules.flat_map(|rule| rule.names().clone()).collect()
    }

    const CONDITIONS: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
                   {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
        "syscalls":[
            {"names":["always"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"","includes":{},"excludes":{}},
            {"name":"old","action":"SCMP_ACT_ALLOW","args":null},
            {"names":["amd"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x32"]}},
            {"names":["arm"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}},
            {"names":["admin"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["plain"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}},
            {"names":["now"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5.15"}},
            {"names":["later"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.1"}},
            {"names":["before"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"5.8"}}]}"#;

    #[test]
    fn conditions_choose_the_rules() {
        assert_eq!(
            names(CONDITIONS, "amd64", &[]),
            ["always", "old", "amd", "plain", "now"]
        );
        assert_eq!(
            names(CONDITIONS, "arm64", &[Capability::SysAdmin]),
            ["always", "old", "arm", "admin", "now"]
        );
    }

    #[test]
    fn the_map_gives_the_architectures() {
        let amd = on(CONDITIONS, "amd64", &[]).unwrap().unwrap();
        assert_eq!(
            amd.architectures().as_deref().unwrap(),
            [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
        );
        assert_eq!(amd.default_errno_ret(), Some(38));
        let arm = on(CONDITIONS, "arm64", &[]).unwrap().unwrap();
        assert_eq!(
            arm.architectures().as_deref().unwrap(),
            [Arch::ScmpArchAarch64]
        );
    }

    #[test]
    fn an_empty_profile_is_no_filter() {
        assert!(on("{}", "amd64", &[]).unwrap().is_none());
    }

    #[test]
    fn contradictions_are_refused_in_dockers_words() {
        for (text, expect) in [
            ("x", "Decoding seccomp profile failed: "),
            (
                r#"{"defaultAction":"SCMP_ACT_FLY"}"#,
                "Decoding seccomp profile failed: ",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
                "both 'architectures' and 'archMap' are specified",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_KILL"}]}"#,
                "both 'name' and 'names' are specified",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_KILL","includes":{"minKernel":"new"}}]}"#,
                "Decoding seccomp profile failed: invalid kernel version",
            ),
        ] {
            let error = on(text, "amd64", &[]).unwrap_err();
            assert!(error.message.starts_with(expect), "{}", error.message);
        }
    }
}
