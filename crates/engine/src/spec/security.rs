//! Security options: capabilities, seccomp, no-new-privileges.

use std::collections::HashSet;

use berth_docker::container::HostConfig;
use berth_runtime::caps::ALL;
use oci_spec::runtime::{Capability, LinuxSeccomp};

use super::invalid;
use super::seccomp::{self, Machine};
use crate::error::Result;

pub type CapabilitySet = HashSet<Capability>;

/// What the running kernel or this process lacks is clamped by the runtime.
pub fn all_capabilities() -> CapabilitySet {
    ALL.into_iter().collect()
}

/// The capabilities in force: the defaults with `--cap-add` and `--cap-drop`, either of which
/// may say `ALL`.
pub fn capabilities(host: &HostConfig) -> Result<CapabilitySet> {
    if host.privileged {
        return Ok(all_capabilities());
    }
    let add = Request::parse("CapAdd", host.cap_add.as_deref().unwrap_or(&Vec::new()))?;
    let drop = Request::parse("CapDrop", host.cap_drop.as_deref().unwrap_or(&Vec::new()))?;
    let base = match (add.all, drop.all) {
        (_, true) => CapabilitySet::new(),
        (true, false) => all_capabilities(),
        (false, false) => berth_runtime::defaults::CAPABILITIES
            .iter()
            .copied()
            .collect(),
    };
    let kept = base
        .into_iter()
        .filter(|capability| !drop.named.contains(capability));
    Ok(kept.chain(add.named.iter().copied()).collect())
}

struct Request {
    all: bool,
    named: CapabilitySet,
}

impl Request {
    fn parse(field: &str, names: &[String]) -> Result<Self> {
        let mut request = Self {
            all: false,
            named: CapabilitySet::new(),
        };
        for name in names {
            let upper = name.to_uppercase();
            if upper == "ALL" || upper == "CAP_ALL" {
                request.all = true;
                continue;
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            let known: std::result::Result<Capability, _> =
                serde_json::from_value(full.as_str().into());
            match known {
                Ok(capability) => request.named.insert(capability),
                Err(_) => {
                    return Err(invalid(format!(
                        "invalid {field}: unknown capability: {full:?}"
                    )));
                }
            };
        }
        Ok(request)
    }
}

/// The filter: the default one, one from the profile whose text the client has sent, or none for
/// a privileged or `seccomp=unconfined` container. A privileged one is filtered if it says by
/// what, as in Docker.
pub fn seccomp(host: &HostConfig) -> Result<Option<LinuxSeccomp>> {
    let capabilities = capabilities(host)?;
    match option(host, "seccomp") {
        None if host.privileged => Ok(None),
        Some("unconfined") => Ok(None),
        None | Some("builtin") => Ok(Some(berth_runtime::seccomp::default_profile(&capabilities))),
        Some(profile) => seccomp::filter(
            profile,
            &Machine {
                architecture: &berth_oci::Platform::host().architecture,
                kernel: seccomp::kernel(&rustix::system::uname().release().to_string_lossy()),
                capabilities: &capabilities,
            },
        ),
    }
}

/// Whether the filter is the one that every container has by default, with the default
/// capabilities: [`berth_runtime::seccomp::Filter::built_in`].
pub fn has_default_seccomp(host: &HostConfig) -> Result<bool> {
    let is_built_in = match option(host, "seccomp") {
        None => !host.privileged,
        Some(word) => word == "builtin",
    };
    let capabilities = capabilities(host)?;
    let defaults = berth_runtime::defaults::CAPABILITIES;
    Ok(is_built_in
        && capabilities.len() == defaults.len()
        && defaults.iter().all(|it| capabilities.contains(it)))
}

pub fn no_new_privileges(host: &HostConfig) -> Result<bool> {
    let bare = host
        .security_opt
        .iter()
        .flatten()
        .any(|option| option == "no-new-privileges");
    match option(host, "no-new-privileges") {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(invalid(
            "invalid --security-opt 2: \"no-new-privileges\" is true or false",
        )),
        None => Ok(bare),
    }
}

/// Every option is known by name; a wrong one is refused at create.
pub fn check_options(host: &HostConfig) -> Result<()> {
    const KNOWN: &[&str] = &[
        "seccomp",
        "no-new-privileges",
        "apparmor",
        "label",
        "systempaths",
    ];
    for text in host.security_opt.iter().flatten() {
        let name = text.split(['=', ':']).next().unwrap_or_default();
        let complete =
            text.len() > name.len() || matches!(text.as_str(), "no-new-privileges" | "disable");
        if !complete || !(KNOWN.contains(&name) || text == "disable") {
            return Err(invalid(format!("invalid --security-opt 2: {text:?}")));
        }
    }
    no_new_privileges(host)?;
    seccomp(host)?;
    Ok(())
}

fn option<'a>(host: &'a HostConfig, name: &str) -> Option<&'a str> {
    host.security_opt
        .iter()
        .flatten()
        .find_map(|text| text.strip_prefix(name)?.strip_prefix(['=', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_docker::json::StrSlice;

    fn check(add: &[&str], drop: &[&str]) -> Result<CapabilitySet> {
        let words = |list: &[&str]| {
            Some(
                list.iter()
                    .map(|&word| word.to_owned())
                    .collect::<StrSlice>(),
            )
        };
        capabilities(&HostConfig {
            cap_add: words(add),
            cap_drop: words(drop),
            ..HostConfig::default()
        })
    }

    #[test]
    fn all_and_names_combine_as_in_docker() {
        assert_eq!(check(&[], &["ALL"]).unwrap(), CapabilitySet::new());
        assert_eq!(
            check(&["NET_ADMIN"], &["all"]).unwrap(),
            [Capability::NetAdmin].into()
        );
        assert_eq!(
            check(&["ALL"], &["cap_sys_admin"]).unwrap().len(),
            ALL.len() - 1
        );
        assert!(
            check(&["net_admin"], &["CHOWN"])
                .unwrap()
                .contains(&Capability::NetAdmin)
        );
    }

    #[test]
    fn other_capabilities_are_another_filter() {
        let check = |host: HostConfig| has_default_seccomp(&host).unwrap();
        let words = |word: &str| Some([word.to_owned()].into_iter().collect::<StrSlice>());
        assert!(check(HostConfig::default()));
        assert!(!check(HostConfig {
            cap_add: words("SYS_ADMIN"),
            ..HostConfig::default()
        }));
        assert!(!check(HostConfig {
            cap_drop: words("CHOWN"),
            ..HostConfig::default()
        }));
        assert!(!check(HostConfig {
            privileged: true,
            ..HostConfig::default()
        }));
        assert!(!check(HostConfig {
            security_opt: Some(vec!["seccomp=unconfined".to_owned()]),
            ..HostConfig::default()
        }));
    }

    #[test]
    fn unknown_capabilities_are_refused_by_name() {
        let error = check(&["FLY"], &[]).unwrap_err();
        assert_eq!(
            error.message,
            "invalid CapAdd: unknown capability: \"CAP_FLY\""
        );
    }
}
