//! The process: arguments, environment, working directory, capabilities, limits.

use std::path::PathBuf;

use berth_docker::container::{Config, HostConfig, Ulimit};
use oci_spec::runtime::{
    LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
};

use super::{Inputs, invalid, security};
use crate::error::{Error, Result};

/// The search path where neither the image nor the client gives one.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container's main process.
pub fn main(inputs: &Inputs<'_>) -> Result<Process> {
    let (config, host) = (inputs.config, inputs.host);
    let mut process = base(host, inputs.default_ulimits)?;
    process.set_args(Some(command(config)?));
    process.set_terminal(Some(config.tty));
    process.set_cwd(working_dir(&config.working_dir));
    process.set_env(Some(environment(config, config.tty, &[])));
    Ok(process)
}

/// What an exec asks for.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest<'a> {
    pub args: &'a [String],
    pub env: &'a [String],
    pub working_dir: &'a str,
    pub tty: bool,
    pub privileged: bool,
}

/// A process that joins the container.
pub fn exec(
    config: &Config,
    host: &HostConfig,
    default_ulimits: &[Ulimit],
    request: &ExecRequest<'_>,
) -> Result<Process> {
    let mut process = base(host, default_ulimits)?;
    process.set_args(Some(request.args.to_vec()));
    process.set_terminal(Some(request.tty));
    let working_dir_text = match request.working_dir {
        "" => &config.working_dir,
        given => given,
    };
    process.set_cwd(working_dir(working_dir_text));
    process.set_env(Some(environment(config, request.tty, request.env)));
    if request.privileged {
        process.set_capabilities(Some(sets(&security::all_capabilities())));
    }
    Ok(process)
}

fn base(host: &HostConfig, default_ulimits: &[Ulimit]) -> Result<Process> {
    let mut process = Process::default();
    process.set_capabilities(Some(sets(&security::capabilities(host)?)));
    process.set_no_new_privileges(Some(security::no_new_privileges(host)?));
    process.set_rlimits(Some(rlimits(host, default_ulimits)?));
    process.set_oom_score_adj(Some(i32::try_from(host.oom_score_adj).unwrap_or(0)));
    Ok(process)
}

fn command(config: &Config) -> Result<Vec<String>> {
    let words = |list: &Option<berth_docker::json::StrSlice>| list.clone().unwrap_or_default().0;
    let mut args: Vec<String> = words(&config.entrypoint);
    // An entrypoint of one empty word is the way to have none.
    if args == [""] {
        args.clear();
    }
    args.extend(words(&config.cmd));
    if args.is_empty() {
        return Err(invalid("no command specified"));
    }
    Ok(args)
}

/// The command and its arguments as an inspection shows them.
pub fn path_and_args(config: &Config) -> (String, Vec<String>) {
    let mut args = command(config).unwrap_or_default();
    if args.is_empty() {
        (String::new(), args)
    } else {
        (args.remove(0), args)
    }
}

fn working_dir(text: &str) -> PathBuf {
    PathBuf::from(if text.is_empty() { "/" } else { text })
}

/// The daemon's variables first, then the container's, then the exec's; a later one replaces an
/// earlier one in place, and a bare name takes it away.
pub fn environment(config: &Config, tty: bool, more: &[String]) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if !config.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", config.hostname));
    }
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in config.env.iter().flatten().chain(more) {
        let key = entry.split('=').next().unwrap_or_default();
        let same = |other: &String| other.split('=').next() == Some(key);
        match (env.iter().position(same), entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

fn sets(capabilities: &security::CapabilitySet) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(capabilities.clone()));
    sets.set_effective(Some(capabilities.clone()));
    sets.set_permitted(Some(capabilities.clone()));
    sets.set_inheritable(None);
    sets.set_ambient(None);
    sets
}

/// The container's own limits replace the daemon's defaults of the same name.
fn rlimits(host: &HostConfig, defaults: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let own: Vec<&Ulimit> = host.ulimits.iter().flatten().collect();
    let default = defaults
        .iter()
        .filter(|d| !own.iter().any(|ulimit| ulimit.name == d.name));
    default.chain(own.iter().copied()).map(rlimit).collect()
}

/// -1 is unlimited.
pub fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit> {
    let unknown = || invalid(format!("invalid ulimit type: {}", ulimit.name));
    let name = format!("RLIMIT_{}", ulimit.name.to_uppercase());
    let kind: PosixRlimitType = serde_json::from_value(name.into()).map_err(|_| unknown())?;
    #[expect(clippy::cast_sign_loss, reason = "-1 is the kernel's RLIM_INFINITY")]
    let (soft, hard) = (ulimit.soft as u64, ulimit.hard as u64);
    if soft > hard {
        return Err(invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            ulimit.soft, ulimit.hard
        )));
    }
    PosixRlimitBuilder::default()
        .typ(kind)
        .soft(soft)
        .hard(hard)
        .build()
        .map_err(|error| Error::failed("limit a resource", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_replace_in_place_and_bare_names_remove() {
        let config = Config {
            hostname: "h".into(),
            env: Some(vec!["A=1".into(), "PATH=/mine".into()]),
            ..Config::default()
        };
        let env = environment(&config, true, &["A=2".into(), "TERM".into(), "B=".into()]);
        assert_eq!(env, ["PATH=/mine", "HOSTNAME=h", "A=2", "B="]);
    }

    #[test]
    fn limits_of_the_container_replace_the_daemons() {
        let ulimit = |name: &str, soft, hard| Ulimit {
            name: name.into(),
            soft,
            hard,
        };
        let host = HostConfig {
            ulimits: Some(vec![ulimit("nofile", 10, 20)]),
            ..HostConfig::default()
        };
        let limits = rlimits(&host, &[ulimit("nofile", 1, 1), ulimit("core", -1, -1)]).unwrap();
        let soft: Vec<u64> = limits.iter().map(PosixRlimit::soft).collect();
        assert_eq!(soft, [u64::MAX, 10]);
        assert!(rlimit(&ulimit("nofile", 2, 1)).is_err());
        assert!(
            rlimit(&ulimit("nofoo", 1, 1))
                .unwrap_err()
                .message
                .contains("invalid ulimit type: nofoo")
        );
    }

    #[test]
    fn no_command_is_refused() {
        assert_eq!(
            command(&Config::default()).unwrap_err().message,
            "no command specified"
        );
    }
}
