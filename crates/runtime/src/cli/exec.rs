//! `exec`: another process in a running container.

use std::os::fd::AsFd;

use oci_spec::runtime::{Capabilities, Capability, Process as ProcessSpec, Spec};

use super::console::{Relay, Signals, hand_over};
use super::document::{check_process, load_process};
use super::life::{check_terminal, preserved, send_pidfd, stdio, write_pid};
use super::state::{State, Status};
use super::{Args, Call};
use crate::container::{self, ExecRequest};
use crate::error::{Error, ErrorKind};

pub(super) fn exec(call: &Call<'_>) -> Result<i32, Error> {
    let args = call.args;
    let state = State::load(&call.root, args.id()?)?;
    match state.status() {
        Status::Stopped => {
            return Err(Error::new(
                ErrorKind::NotRunning,
                "cannot exec in a stopped container",
            ));
        }
        Status::Paused if !args.is_set("ignore-paused") => {
            return Err(Error::invalid(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        _ => {}
    }
    let spec = state.spec()?;
    let process = match args.value("process") {
        Some(path) => load_process(path, call.log)?,
        None => changed(&spec, args)?,
    };
    let terminal = process.terminal().unwrap_or(false);
    let detach = args.is_set("detach");
    check_terminal(args, terminal, detach)?;
    let preserved = preserved(args, 0)?;
    let cgroups = sub_cgroups(args)?;
    let filter = container::filter(&spec)?;
    let signals = (!detach).then(Signals::hold);
    let agent = (filter.as_ref()).and_then(|filter| filter.agent(&state.subject(), "running"));
    let mut joined = state.container()?.exec(ExecRequest {
        process: &process,
        stdio: stdio(terminal, &process),
        filter: filter.as_ref(),
        agent: agent.as_ref(),
        spec: Some(&spec),
        preserved,
        keyring: state.has_keyring.then_some(state.id.as_str()),
        cgroups: &cgroups,
    })?;
    for warning in &joined.warnings {
        call.log.warning(warning);
    }
    let told = send_pidfd(args, joined.pidfd.as_fd())
        .and_then(|()| write_pid(args, joined.pid.as_raw_nonzero().get()));
    let told = match (joined.console.take(), args.value("console-socket")) {
        (Some(console), Some(path)) => told
            .and_then(|()| hand_over(path, console.as_fd(), b"/dev/ptmx"))
            .map(|()| None),
        (console, _) => told.and_then(|()| console.map(Relay::start).transpose()),
    };
    let relay = told.inspect_err(|_| {
        // Nobody would know of it.
        let _ = berth_sys::pidfd::send_signal(joined.pidfd.as_fd(), libc::SIGKILL);
    })?;
    let Some(signals) = signals else {
        return Ok(0);
    };
    Ok(signals.forward(joined.pid, relay.as_ref()).code())
}

/// The container's process with the command line's changes.
fn changed(spec: &Spec, args: &Args) -> Result<ProcessSpec, Error> {
    let mut process = spec.process().clone().unwrap_or_default();
    let command = args.operands().get(1..).unwrap_or_default();
    if command.is_empty() {
        return Err(Error::invalid("exec args cannot be empty"));
    }
    process.set_args(Some(command.to_vec()));
    process.set_terminal(Some(args.is_set("tty")));
    if let Some(cwd) = args.value("cwd") {
        process.set_cwd(cwd.into());
    }
    if let Some(profile) = args.value("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = args.value("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if args.is_given("no-new-privs") {
        process.set_no_new_privileges(Some(args.is_set("no-new-privs")));
    }
    add_capabilities(&mut process, args)?;
    let env = process.env_mut().get_or_insert_default();
    env.extend(args.values("env").map(str::to_owned));
    if let Some(user) = args.value("user") {
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (user, None),
        };
        let number = |what: &str, text: &str| {
            text.parse()
                .map_err(|_| Error::invalid(format!("bad {what}: {text:?} is no number")))
        };
        if let Some(gid) = gid {
            let gid = number("gid", gid)?;
            process.user_mut().set_gid(gid);
        }
        let uid = number("uid", uid)?;
        process.user_mut().set_uid(uid);
    }
    for text in args.values("additional-gids") {
        let gid = text.parse().map_err(|_| {
            Error::invalid(format!("additional-gids must be a positive number {text}"))
        })?;
        let groups = process.user_mut().additional_gids_mut();
        groups.get_or_insert_default().push(gid);
    }
    check_process(&process)?;
    Ok(process)
}

/// `--cap` adds to the bounding, effective and permitted sets; and to the ambient one where
/// something is inheritable, without which it could not be.
fn add_capabilities(process: &mut ProcessSpec, args: &Args) -> Result<(), Error> {
    let mut added = Capabilities::new();
    for name in args.values("cap") {
        let capability: Capability = serde_json::from_value(name.into())
            .map_err(|_| Error::invalid(format!("unknown capability {name:?}")))?;
        added.insert(capability);
    }
    if added.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective) = (with(sets.bounding()), with(sets.effective()));
    let permitted = with(sets.permitted());
    let ambient = match sets.inheritable() {
        Some(_) => with(sets.ambient()),
        None => sets.ambient().clone(),
    };
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted)
        .set_ambient(ambient);
    process.set_capabilities(Some(sets));
    Ok(())
}

/// `--cgroup`: cgroups below the container's, by controller; without one, of them all.
fn sub_cgroups(args: &Args) -> Result<Vec<(String, String)>, Error> {
    let mut paths: Vec<(String, String)> = Vec::new();
    let given: Vec<&str> = args.values("cgroup").collect();
    for &text in &given {
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() > 1 {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument: {text} (missing <controller>: prefix)"
                )));
            }
            return Ok(vec![(String::new(), text.to_owned())]);
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument: {text} (empty <controller> prefix)"
                )));
            }
            if paths.iter().any(|(known, _)| known == controller) {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
            paths.push((controller.to_owned(), path.to_owned()));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::parsed;

    fn process(line: &str) -> Result<ProcessSpec, Error> {
        let spec = super::super::spec::example(false).unwrap();
        changed(&spec, &parsed(line))
    }

    #[test]
    fn options_change_the_containers_process() {
        let process = process(
            "exec -t --cwd /x -e A=b -u 5:6 -g 7 --additional-gids 8 --cap CAP_SYS_ADMIN \
             --no-new-privs=false --apparmor p --process-label l c1 ls -l",
        )
        .unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["ls", "-l"]);
        assert_eq!(process.terminal(), Some(true));
        assert_eq!(process.cwd().to_str(), Some("/x"));
        assert!(process.env().as_ref().unwrap().contains(&"A=b".to_owned()));
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.user().additional_gids(), &Some(vec![7, 8]));
        assert_eq!(process.no_new_privileges(), Some(false));
        assert_eq!(process.apparmor_profile().as_deref(), Some("p"));
        assert_eq!(process.selinux_label().as_deref(), Some("l"));
        let sets = process.capabilities().as_ref().unwrap();
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert!(set.as_ref().unwrap().contains(&Capability::SysAdmin));
        }
        assert_eq!(sets.ambient(), &None);
    }

    #[test]
    fn a_user_without_a_group_keeps_the_containers_group() {
        assert_eq!(process("exec -u 5 c1 ls").unwrap().user().gid(), 0);
    }

    #[test]
    fn refusals_have_runcs_words() {
        for (line, words) in [
            ("exec c1", "exec args cannot be empty"),
            (
                "exec -g -1 c1 ls",
                "additional-gids must be a positive number -1",
            ),
        ] {
            assert_eq!(process(line).unwrap_err().message, words);
        }
    }

    #[test]
    fn cgroups_are_given_by_controller_or_for_all() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let of = |line| sub_cgroups(&parsed(line));
        assert_eq!(of("exec --cgroup x c1 ls").unwrap(), [pair("", "x")]);
        assert_eq!(
            of("exec --cgroup cpu,memory:x --cgroup pids:y c1 ls").unwrap(),
            [pair("cpu", "x"), pair("memory", "x"), pair("pids", "y")]
        );
        for line in [
            "exec --cgroup x --cgroup y c1 ls",
            "exec --cgroup cpu:x --cgroup cpu:y c1 ls",
            "exec --cgroup :x c1 ls",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
