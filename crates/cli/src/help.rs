//! Help in docker's layout.

use std::fmt::Write;

use crate::command::{Body, Command};
use crate::flags::{Flag, Kind};

/// Columns when the terminal does not say; docker assumes as many.
pub const DEFAULT_WIDTH: usize = 80;

/// The help of a command; `path` is the program and all words up to it.
pub fn command(path: &str, command: &Command, width: usize) -> String {
    let program = path.split(' ').next().unwrap_or(path);
    let mut out = format!("Usage:  {}\n\n", usage_line(path, command));
    let long = if command.long.is_empty() {
        command.about
    } else {
        command.long
    };
    let _ = writeln!(out, "{}", long.replace("{program}", program));
    if !command.also.is_empty() {
        let ways: Vec<String> = command
            .also
            .iter()
            .map(|way| format!("{program} {way}"))
            .collect();
        let _ = write!(out, "\nAliases:\n  {}\n", ways.join(", "));
    }
    if command.flags.iter().any(|flag| !flag.hidden) {
        let _ = write!(out, "\nOptions:\n{}", flags(command.flags, width));
    }
    if let Body::Group(commands) = command.body {
        let _ = write!(out, "\nCommands:\n{}", list(commands.iter()));
        let _ = write!(
            out,
            "\nRun '{path} COMMAND --help' for more information on a command.\n"
        );
    }
    out
}

/// What stands behind `Usage:`; each further line of a command's usage is another way to call it.
pub fn usage_line(path: &str, command: &Command) -> String {
    let mut line = path.to_owned();
    let has_flags = command.flags.iter().any(|flag| !flag.hidden);
    if has_flags && matches!(command.body, Body::Run(_)) {
        line.push_str(" [OPTIONS]");
    }
    let with = |usage: &str| format!("{line} {usage}");
    match command.usage {
        "" => line,
        usage => usage.lines().map(with).collect::<Vec<_>>().join("\n\t"),
    }
}

/// Commands and what they do, in two columns.
pub fn list<'a>(commands: impl Iterator<Item = &'a Command>) -> String {
    let mut out = String::new();
    for command in commands.filter(|command| !command.hidden) {
        let _ = writeln!(out, "  {:<11} {}", command.name, command.about);
    }
    out
}

/// The table of flags, sorted by name, the words wrapped to the width.
pub fn flags(flags: &[Flag], width: usize) -> String {
    let mut flags: Vec<&Flag> = flags.iter().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.long);
    let heads: Vec<String> = flags.iter().map(|flag| head(flag)).collect();
    let column = heads.iter().map(String::len).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (flag, head) in flags.iter().zip(&heads) {
        let mut text = flag.help.to_owned();
        let default = shown_default(flag);
        if !default.is_empty() {
            let _ = write!(text, " (default {default})");
        }
        let lines = wrap(&text, width.saturating_sub(column));
        let lines = lines.join(&format!("\n{}", " ".repeat(column)));
        let _ = writeln!(out, "{head:<column$}{lines}");
    }
    out
}

fn head(flag: &Flag) -> String {
    let mut head = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.long),
        None => format!("      --{}", flag.long),
    };
    let word = match flag.kind {
        Kind::Switch => "",
        Kind::Text => "string",
        Kind::Int => "int",
        Kind::Uint16 => "uint16",
        Kind::Bytes | Kind::SwapBytes => "bytes",
        Kind::Decimal => "decimal",
        Kind::Duration => "duration",
        Kind::Many(word) | Kind::One(word) => word,
    };
    if !word.is_empty() {
        head.push(' ');
        head.push_str(word);
    }
    head
}

fn shown_default(flag: &Flag) -> String {
    match flag.kind {
        Kind::Text if !flag.default.is_empty() => format!("{:?}", flag.default),
        Kind::Many("map") => "map[]".to_owned(),
        _ => flag.default.to_owned(),
    }
}

/// As pflag breaks lines: at white space before the width, unless little enough remains that it
/// may stick out, and never in a column too narrow to be read.
fn wrap(text: &str, width: usize) -> Vec<String> {
    /// Characters that may stick out.
    const SLOP: usize = 5;
    /// A narrower column is not wrapped.
    const NARROWEST: usize = 24;
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut rest = paragraph;
        if width < NARROWEST {
            lines.push(rest.to_owned());
            continue;
        }
        let room = width - SLOP;
        while rest.len() > room + SLOP {
            let limit = (0..=room).rev().find(|at| rest.is_char_boundary(*at));
            let head = &rest[..limit.unwrap_or(0)];
            let Some(space) = head.rfind([' ', '\t']) else {
                break;
            };
            lines.push(rest[..space].to_owned());
            rest = &rest[space + 1..];
        }
        lines.push(rest.to_owned());
    }
    lines
}
