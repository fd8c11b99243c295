//! Looks into a container that runs: `port` and `top`.

use std::fmt::Write;

use berth_docker::container::{Inspect, TopResponse};
use berth_docker_client::{Query, Request};

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;

use super::ps::join_address;
use super::run::container_path;

pub const PORT: Command = Command::leaf(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    port,
)
.arity(Arity::Between(1, 2))
.also(&["container port", "port"]);

pub const TOP: Command = Command::leaf(
    "top",
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    top,
)
.arity(Arity::AtLeast(1))
.flags_first()
.also(&["container top", "top"]);

fn port(cli: &Cli, flags: &Parsed) -> Outcome {
    let path = format!("{}/json", container_path(flags.arg(0)));
    let container: Inspect = cli.block_on(async {
        cli.client()?
            .call(Request::get(path))
            .await
            .map_err(Failure::from)
    })?;
    let ports = container.network_settings.ports;
    let mut lines: Vec<String> = Vec::new();
    if let Some(wanted) = flags.args.get(1) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        if number.parse::<u16>().is_err() {
            return Err(Failure::new(format!(
                "Error: invalid port ({number}): value must be a number"
            )));
        }
        let bindings = ports.get(&format!("{number}/{}", protocol.to_lowercase()));
        let Some(Some(bindings)) = bindings else {
            return Err(Failure::new(format!(
                "Error: No public port '{wanted}' published for {}",
                flags.arg(0)
            )));
        };
        for binding in bindings {
            lines.push(join_address(&binding.host_ip, &binding.host_port));
        }
    } else {
        for (from, bindings) in &ports {
            for binding in bindings.iter().flatten() {
                let to = join_address(&binding.host_ip, &binding.host_port);
                lines.push(format!("{from} -> {to}"));
            }
        }
    }
    lines.sort_by_key(|line| natural(line));
    for line in &mut lines {
        line.push('\n');
    }
    print(lines.concat())?;
    Ok(0)
}

/// Numbers count as numbers: `80` comes before `443`.
fn natural(text: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let words = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(words);
        let digits = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        parts.push((0, word.to_owned()));
        parts.push((number.parse().unwrap_or(0), String::new()));
        rest = after;
    }
    parts
}

fn top(cli: &Cli, flags: &Parsed) -> Outcome {
    let arguments = flags.args[1..].join(" ");
    let query = Query::new().with_some("ps_args", (!arguments.is_empty()).then_some(arguments));
    let path = format!("{}/top", container_path(flags.arg(0)));
    let table: TopResponse = cli.block_on(async {
        cli.client()?
            .call(Request::get(path).query(query))
            .await
            .map_err(Failure::from)
    })?;
    let mut lines = vec![table.titles];
    lines.extend(table.processes);
    print(wide(&lines))?;
    Ok(0)
}

/// This table has wider columns than all others: twenty, and three between.
fn wide(lines: &[Vec<String>]) -> String {
    const LEAST: usize = 20;
    const PADDING: usize = 3;
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            LEAST.max(widest + PADDING)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match index + 1 == line.len() {
                true => write!(out, "{cell}"),
                false => write!(out, "{cell:<width$}"),
            };
        }
        out.push('\n');
    }
    out
}
