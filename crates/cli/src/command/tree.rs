//! All commands, and the help of the program itself.

use std::fmt::Write;

use super::Command;
use crate::commands::{
    attach, changes, completion, context, cp, create, events, exec, image, images, info, inspect,
    lifecycle, load, login, logs, network, port, ports, ps, pull, run, start, system, update,
    version, volume, volume_copy,
};
use crate::flags::Flag;
use crate::help;

/// The flags before the command.
pub const GLOBAL: &[Flag] = &[
    Flag::text("config", "Where the configuration of clients is"),
    Flag::text(
        "context",
        "The context to use, in place of DOCKER_HOST and of the one that \"context use\" set",
    )
    .short('c'),
    Flag::switch("debug", "Show more, to find out what is wrong").short('D'),
    Flag::list("host", "The daemon's address").short('H'),
    Flag::text(
        "log-level",
        "What is logged (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")",
    )
    .short('l')
    .default("info"),
    Flag::switch("tls", "Use TLS; --tlsverify does too"),
    Flag::text("tlscacert", "Believe only certificates of this authority"),
    Flag::text("tlscert", "The certificate to show"),
    Flag::text("tlskey", "Its key"),
    Flag::switch("tlsverify", "Use TLS, and verify the daemon"),
    Flag::switch("version", "Show the version").short('v'),
];

/// What most people need most of the time.
const COMMON: &[&str] = &["run", "exec", "ps", "pull", "images", "version", "info"];

pub const ROOT: &[Command] = &[
    attach::ATTACH,
    changes::COMMIT,
    completion::COMPLETION,
    Command::group("container", "Manage containers", CONTAINER),
    Command::group("context", "Manage contexts", CONTEXT),
    cp::CP,
    create::CREATE,
    changes::DIFF,
    events::EVENTS,
    exec::EXEC,
    changes::EXPORT,
    image::HISTORY,
    Command::group("image", "Manage images", IMAGE),
    images::IMAGES,
    load::IMPORT,
    info::INFO,
    inspect::INSPECT,
    lifecycle::KILL,
    load::LOAD,
    login::LOGIN,
    login::LOGOUT,
    logs::LOGS,
    Command::group("network", "Manage networks", NETWORK),
    lifecycle::PAUSE,
    port::PORT,
    ports::PORTS,
    ps::PS,
    pull::PULL,
    lifecycle::RENAME,
    lifecycle::RESTART,
    lifecycle::RM,
    image::RMI,
    run::RUN,
    load::SAVE,
    start::START,
    lifecycle::STOP,
    Command::group("system", "Manage Docker", SYSTEM),
    image::TAG,
    port::TOP,
    lifecycle::UNPAUSE,
    update::UPDATE,
    version::VERSION,
    Command::group("volume", "Manage volumes", VOLUME),
    lifecycle::WAIT,
];

const CONTAINER: &[Command] = &[
    attach::ATTACH,
    changes::COMMIT,
    cp::CP,
    create::CREATE,
    changes::DIFF,
    exec::EXEC,
    changes::EXPORT,
    inspect::CONTAINER,
    lifecycle::KILL,
    logs::LOGS,
    ps::PS.named("ls", &["ps", "list"]),
    lifecycle::PAUSE,
    port::PORT,
    lifecycle::PRUNE,
    lifecycle::RENAME,
    lifecycle::RESTART,
    lifecycle::RM.named("rm", &["remove"]),
    run::RUN,
    start::START,
    lifecycle::STOP,
    port::TOP,
    lifecycle::UNPAUSE,
    update::UPDATE,
    lifecycle::WAIT,
];

const IMAGE: &[Command] = &[
    image::HISTORY,
    load::IMPORT,
    inspect::IMAGE,
    load::LOAD,
    images::IMAGES.named("ls", &["list"]),
    image::PRUNE,
    pull::PULL,
    image::RMI.named("rm", &["remove"]),
    load::SAVE,
    image::TAG,
];

const CONTEXT: &[Command] = &[
    context::CREATE,
    context::INSPECT,
    context::LS,
    context::RM,
    context::SHOW,
    context::USE,
];

const NETWORK: &[Command] = &[
    network::CONNECT,
    network::CREATE,
    network::DISCONNECT,
    inspect::NETWORK,
    network::LS,
    network::PRUNE,
    network::RM,
];

const SYSTEM: &[Command] = &[
    system::DF,
    system::DIAL_STDIO,
    events::EVENTS,
    info::INFO,
    system::PRUNE,
];

const VOLUME: &[Command] = &[
    volume_copy::BACKUP,
    volume_copy::CLONE,
    volume::CREATE,
    inspect::VOLUME,
    volume::LS,
    volume::PRUNE,
    volume_copy::RENAME,
    volume_copy::RESTORE,
    volume::RM,
    volume_copy::SNAPSHOT,
    volume::UPDATE,
];

/// The help of the program: commands in groups, then the flags.
pub fn help(program: &str, extra: &[(&str, &str)], width: usize) -> String {
    let mut out =
        format!("Usage:  {program} [OPTIONS] COMMAND\n\nRuns containers\n\nCommon Commands:\n");
    let is_common = |command: &&Command| COMMON.contains(&command.name);
    let common = COMMON
        .iter()
        .filter_map(|name| ROOT.iter().find(|c| c.name == *name));
    out.push_str(&help::list(common));
    out.push_str("\nManagement Commands:\n");
    let is_group = |command: &&Command| !command.subcommands().is_empty();
    out.push_str(&help::list(ROOT.iter().filter(is_group)));
    if !extra.is_empty() {
        out.push_str("\nServer Commands:\n");
        for (name, about) in extra {
            let _ = writeln!(out, "  {name:<11} {about}");
        }
    }
    out.push_str("\nCommands:\n");
    let others = ROOT
        .iter()
        .filter(|command| !is_group(command) && !is_common(command));
    out.push_str(&help::list(others));
    let _ = write!(out, "\nGlobal Options:\n{}", help::flags(GLOBAL, width));
    let _ = writeln!(
        out,
        "\nRun '{program} COMMAND --help' for more information on a command."
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(commands: &[Command], path: &str, check: &mut impl FnMut(&str, &Command)) {
        for command in commands {
            let path = format!("{path} {}", command.name);
            check(&path, command);
            each(command.subcommands(), &path, check);
        }
    }

    #[test]
    fn no_two_flags_of_a_command_have_the_same_name() {
        each(ROOT, "berth", &mut |path, command| {
            for (index, flag) in command.flags.iter().enumerate() {
                for other in &command.flags[..index] {
                    assert_ne!(flag.long, other.long, "{path}");
                    assert!(
                        flag.short.is_none() || flag.short != other.short,
                        "{path} {}",
                        flag.long
                    );
                }
            }
        });
    }

    #[test]
    fn commands_are_sorted_and_described() {
        each(ROOT, "berth", &mut |path, command| {
            assert!(!command.about.is_empty(), "{path}");
            let names: Vec<&str> = command.subcommands().iter().map(|c| c.name).collect();
            assert!(names.is_sorted(), "{path}: {names:?}");
        });
    }
}
