//! The command line: docker's words over the Docker API.
//!
//! [`main`] finds the command in [`command::tree`], parses its flags by the rules of pflag and
//! runs it. Commands are plain data: help, completion and parsing read the same tables. Each
//! command is one file in [`commands`]; what several share (attaching, formats, progress bars) is
//! beside them. Nothing here looks at the process's environment: it comes as [`Invocation`].

pub mod cli;
pub mod command;
mod commands;
mod config;
mod context;
mod create;
mod credentials;
mod failure;
pub mod flags;
mod format;
pub mod help;
mod progress;
mod streams;
mod table;
pub mod template;

use std::process::ExitCode;

pub use cli::{Build, Invocation};

use cli::{Cli, warn};
use command::{Body, Command, tree};
use failure::{Failure, Outcome};
use flags::{Order, Stop};

/// The exit code for words that are no flags of the command.
const USAGE: u8 = 125;

/// Runs the command line.
pub fn main(invocation: Invocation) -> ExitCode {
    ExitCode::from(run(invocation))
}

fn run(invocation: Invocation) -> u8 {
    let program = invocation.program.clone();
    let global = match flags::parse(tree::GLOBAL, Order::FlagsFirst, &invocation.args) {
        Ok(parsed) => parsed,
        Err(stop) => return stopped(&program, &root(), stop, invocation.extra_commands),
    };
    let words = global.args.clone();
    let build = &invocation.build;
    if global.on("version") {
        let line = format!("{}\n", version_line(&program, build));
        return cli::print(line).map_or_else(|failure| failure.code, |()| 0);
    }
    let extra = invocation.extra_commands;
    if words.is_empty() {
        return show(tree::help(&program, extra, cli::width()), false);
    }
    let global = match words[0].as_str() {
        "__complete" => commands::completion::global(&words[1..]).unwrap_or(global),
        _ => global,
    };
    let cli = Cli::new(invocation, global);
    let code = match words[0].as_str() {
        "help" => help_for(&program, &words[1..], extra),
        "__complete" => commands::completion::complete(&cli, &words[1..]),
        _ => dispatch(&cli, &words),
    };
    cli.finish();
    code
}

/// One line about this program. Tools look for docker's words in it.
fn version_line(program: &str, build: &Build) -> String {
    let name = match program {
        "docker" => "Docker",
        other => other,
    };
    format!("{name} version {}, build {}", build.version, build.commit)
}

fn root() -> Command {
    let mut root = Command::group("", "", tree::ROOT);
    root.usage = "[OPTIONS] COMMAND [ARG...]";
    root
}

fn show(text: String, to_stderr: bool) -> u8 {
    if to_stderr {
        warn(text.trim_end_matches('\n'));
        return 0;
    }
    cli::print(text).map_or_else(|failure| failure.code, |()| 0)
}

fn help_for(program: &str, words: &[String], extra: &[(&str, &str)]) -> u8 {
    if words.is_empty() {
        return show(tree::help(program, extra, cli::width()), false);
    }
    let (path, command, rest) = find(program, words);
    match command {
        Some(command) if rest.is_empty() => {
            show(help::command(&path, command, cli::width()), false)
        }
        _ => {
            warn(format!("unknown help topic: {}", words.join(" ")));
            1
        }
    }
}

/// The deepest command that the words name, its path, and what is left.
fn find<'a>(
    program: &str,
    words: &'a [String],
) -> (String, Option<&'static Command>, &'a [String]) {
    let mut commands = tree::ROOT;
    let mut path = program.to_owned();
    let mut found = None;
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let Some(command) = commands.iter().find(|command| command.answers_to(word)) else {
            break;
        };
        path = format!("{path} {}", command.name);
        found = Some(command);
        rest = after;
        commands = command.subcommands();
    }
    (path, found, rest)
}

fn dispatch(cli: &Cli, words: &[String]) -> u8 {
    let (path, command, rest) = find(&cli.program, words);
    let Some(command) = command else {
        let program = &cli.program;
        warn(format!(
            "{program}: unknown command: {program} {}\n\nRun '{program} --help' for more information",
            words[0]
        ));
        return 1;
    };
    let parsed = match flags::parse(command.flags, command.order, rest) {
        Ok(parsed) => parsed,
        Err(stop) => return stopped(&path, command, stop, &[]),
    };
    for notice in &parsed.deprecated {
        warn(notice);
    }
    let run = match command.body {
        Body::Run(run) => run,
        Body::Group(_) if parsed.args.is_empty() => {
            return show(help::command(&path, command, cli::width()), true);
        }
        Body::Group(_) => {
            warn(format!(
                "{}: unknown command: {path} {}\n\nUsage:  {path}\n\nRun '{path} --help' for more information",
                cli.program,
                parsed.arg(0)
            ));
            return 1;
        }
    };
    if let Err(complaint) = command.arity.check(parsed.args.len()) {
        let pointer = match command.arity {
            command::Arity::AtLeast(_) => "See",
            _ => "Run",
        };
        warn(format!(
            "{}: '{path}' {complaint}\n\nUsage:  {}\n\n{pointer} '{path} --help' for more information",
            cli.program,
            help::usage_line(&path, command)
        ));
        return 1;
    }
    finish(cli, run(cli, &parsed))
}

/// Says what went wrong. Where no daemon answers, the same line tells how to start one.
fn finish(cli: &Cli, outcome: Outcome) -> u8 {
    match outcome {
        Ok(code) => code,
        Err(Failure {
            message,
            code,
            unreachable,
        }) => {
            if !message.is_empty() {
                let hint = if unreachable {
                    start_hint(cli)
                } else {
                    String::new()
                };
                warn(format!("{message}{hint}"));
            }
            code
        }
    }
}

fn start_hint(cli: &Cli) -> String {
    let is_ours = cli
        .client()
        .is_ok_and(|client| cli.is_default_host(&client.host().to_string()));
    match (is_ours, rustix::process::geteuid().is_root()) {
        (true, true) => " Start it with: berth daemon".to_owned(),
        (true, false) => " Start it with: sudo berth daemon".to_owned(),
        (false, _) => String::new(),
    }
}

/// Help, or a complaint about a flag.
fn stopped(path: &str, command: &Command, stop: Stop, extra: &[(&str, &str)]) -> u8 {
    let text = |width| match command.name {
        "" => tree::help(path, extra, width),
        _ => help::command(path, command, width),
    };
    match stop {
        Stop::Help => show(text(cli::width()), false),
        Stop::ShortHelp => {
            let deprecated = "Flag shorthand -h has been deprecated, use --help";
            show(format!("{deprecated}\n{}", text(cli::width())), false)
        }
        Stop::Invalid(complaint) => {
            warn(format!(
                "{complaint}\n\nUsage:  {}\n\nRun '{path} --help' for more information",
                help::usage_line(path, command)
            ));
            USAGE
        }
    }
}
